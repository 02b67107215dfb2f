import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from omnistream.data.media import MediaReadError
from omnistream.data.media.sens import read_sens_frame, read_sens_header, read_sens_poses

COLOR, DEPTH = np.diag([1170.0, 1171.0, 1, 1]), np.diag([577.0, 578.0, 1, 1])


def encoded(shade):
    data = BytesIO()
    Image.new("RGB", (6, 4), (shade, shade, shade)).save(data, "png")
    return data.getvalue()


def write(path, num_frames=3, color=1, compression=1, version=4, shift=500.0, depth_bytes=None, name=b"sensor"):
    parts = [struct.pack("<IQ", version, len(name)), name]
    parts += [m.astype("<f4").tobytes() for m in (COLOR, np.eye(4), DEPTH, np.eye(4))]
    parts.append(struct.pack("<iiIIIIfQ", color, compression, 6, 4, 3, 2, shift, num_frames))
    for number in range(num_frames):
        image = encoded(10 * number)
        depth = (np.arange(6, dtype="<u2") * 100 + number).tobytes() if depth_bytes is None else depth_bytes
        stored = zlib.compress(depth) if compression == 1 else depth
        parts.append((np.eye(4) * (number + 1)).astype("<f4").tobytes())
        parts.append(struct.pack("<QQQQ", 7, 8, len(image), len(stored)))
        parts += [image, stored]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("name", [b"", b"a sensor with a long name"])
def test_values_are_read_as_written(tmp_path, compression, name):
    header = read_sens_header(write(tmp_path / "a.sens", compression=compression, name=name))
    assert header.num_frames == 3
    assert header.depth_size == (2, 3)
    np.testing.assert_array_equal(header.color_intrinsics, COLOR[:3, :3])
    np.testing.assert_array_equal(header.depth_intrinsics, DEPTH[:3, :3])
    poses = read_sens_poses(header)
    assert [pose[0, 0] for _, pose in poses] == [1, 2, 3]
    for number in (2, 0, 1):  # in any order
        image, depth, pose = read_sens_frame(header, poses[number][0])
        assert image.shape == (3, 4, 6)
        assert image.unique().tolist() == [10 * number]
        expected = (torch.arange(6).double() * 100 + number) / 500  # 500 units per metre
        assert torch.equal(depth, expected.float().reshape(2, 3))
        assert pose[0, 0] == number + 1


def test_a_file_that_ends_early_names_the_frame(tmp_path):
    path = write(tmp_path / "a.sens")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(MediaReadError, match=r"a.sens: ends in frame 2 of 3"):
        read_sens_poses(read_sens_header(path))


@pytest.mark.parametrize("size", [0, 3, 10, 100, 300])
def test_damaged_headers(tmp_path, size):
    path = write(tmp_path / "a.sens")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MediaReadError, match=r"a.sens: damaged .sens file"):
        read_sens_header(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 3}, "expected a .sens file of version 4, got 3"),
        ({"color": 0}, "colour compression 0 with depth compression 1 is not supported"),
        ({"compression": 2}, "colour compression 1 with depth compression 2 is not supported"),
        ({"shift": 0.0}, "depth maps of 3x2 with 0.0 units per metre are not supported"),
    ],
)
def test_other_kinds_are_refused(tmp_path, options, message):
    with pytest.raises(MediaReadError, match=message):
        read_sens_header(write(tmp_path / "a.sens", **options))


@pytest.mark.parametrize("size", [10, 14, 10**6])
def test_depth_of_another_size_is_refused(tmp_path, size):
    header = read_sens_header(write(tmp_path / "a.sens", depth_bytes=bytes(size)))
    with pytest.raises(MediaReadError, match=r"a depth map has \d+ of 12 bytes"):
        read_sens_frame(header, read_sens_poses(header)[0][0])


def test_missing_file(tmp_path):
    with pytest.raises(MediaReadError, match="No such file"):
        read_sens_header(tmp_path / "a.sens")
