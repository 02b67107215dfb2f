import re
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError, TooManyBrokenFilesError
from omnistream.data.media import video_cache, video_decode, video_probe
from omnistream.data.sampling import SampleKey
from omnistream.data.transforms import square_crop
from omnistream.data.videos import VideoFolder, clip_positions


def write(path, num_frames, width=64, height=128):
    """A video whose brightness is 6 times the number of the frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10), options={"qscale": "1", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            image = np.full((height, width, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def numbers(clip):
    return (clip.images.float().mean((1, 2, 3)) / 6).round().int().tolist()


@pytest.mark.parametrize(
    ("total", "num_frames", "stride", "expected"),
    [
        (40, 4, 4, [13, 17, 21, 25]),
        (13, 4, 4, [0, 4, 8, 12]),
        (12, 4, 4, [1, 4, 7, 10]),  # a stride of 4 needs 13 frames
        (4, 4, 4, [0, 1, 2, 3]),
        (3, 4, 4, [0, 1, 2, 2]),
        (1, 4, 4, [0, 0, 0, 0]),
        (9, 1, 4, [4]),
    ],
)
def test_central_positions(total, num_frames, stride, expected):
    assert clip_positions(total, num_frames, stride, None).tolist() == expected


def test_random_positions_cover_all_starts_and_stay_inside():
    rng = np.random.default_rng(0)
    clips = [clip_positions(16, 4, 4, rng) for _ in range(200)]
    assert {int(clip[0]) for clip in clips} == {0, 1, 2, 3}
    assert all((np.diff(clip) == 4).all() and clip[-1] < 16 for clip in clips)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "a.mp4", 40)
    write(tmp_path / "deep" / "er" / "b.MP4", 3)
    return tmp_path


def test_clips(root):
    data = VideoFolder(root, num_frames=4, stride=4, size=32, random_start=False)
    assert len(data) == 2
    assert data[0].images.shape == (4, 3, 64, 32)
    assert numbers(data[0]) == [13, 17, 21, 25]
    assert numbers(data[1]) == [0, 1, 2, 2]
    assert data[1].name == str(root / "deep" / "er" / "b.MP4")
    assert int(data[0].label) == -1


def test_start_depends_on_seed_epoch_and_index_only(root):
    data = VideoFolder(root, square_crop(32), num_frames=4)
    starts = [numbers(data[SampleKey(epoch, 0)])[0] for epoch in range(8)]
    again = VideoFolder(root, square_crop(32), num_frames=4)
    assert starts == [numbers(again[SampleKey(epoch, 0)])[0] for epoch in range(8)]
    assert len(set(starts)) > 3
    batch = data.collate([data[0], data[1]])
    assert batch.images.shape == (2, 4, 3, 32, 32)
    assert int(batch.seed[0]) != int(batch.seed[1])


def test_files_are_examined_once_and_only_what_a_clip_needs_is_decoded(root, monkeypatch):
    scanned, decoded = [], []
    scan, frames = video_probe.scan_packets, video_decode.Cursor._frames
    monkeypatch.setattr(video_probe, "scan_packets", lambda path, *rest: scanned.append(path) or scan(path, *rest))
    monkeypatch.setattr(
        video_decode.Cursor, "_frames", lambda self, n, packet: decoded.append(n) or frames(self, n, packet)
    )
    for _ in range(3):  # as in three workers, or three runs
        video_cache._memory.clear()
        data = VideoFolder(root, num_frames=2, stride=1, random_start=False)
        assert numbers(data[0]) == [19, 20]
    assert scanned == [str(root / "a.mp4")]
    assert set(decoded) <= {0, *range(10, 23)}  # groups of 10 frames


def test_broken_videos_are_replaced_and_counted(root):
    (root / "0.mp4").write_bytes(b"broken" * 100)
    whole = (root / "a.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    data = VideoFolder(root, num_frames=2, broken_files=BrokenFiles(limit=2))
    names = {data[SampleKey(epoch, i)].name for epoch in range(5) for i in range(4)}
    assert names == {str(root / "a.mp4"), str(root / "deep" / "er" / "b.MP4")}
    assert set(data.broken_files.reasons) == {str(root / "0.mp4"), str(root / "cut.mp4")}
    strict = VideoFolder(root, num_frames=2, broken_files=BrokenFiles(limit=1))
    with pytest.raises(TooManyBrokenFilesError, match="2 of 4 files are broken, 1 are allowed"):
        [strict[index] for index in range(len(strict))]


def test_one_crop_for_all_frames(root):
    data = VideoFolder(root, lambda frames: frames[..., : 1 + int(torch.randint(60, ()))], num_frames=4)
    widths = [data[SampleKey(epoch, 0)].images.shape for epoch in range(6)]
    assert all(shape[:3] == (4, 3, 128) for shape in widths)
    assert len(set(widths)) > 2
    assert widths[3] == data[SampleKey(3, 0)].images.shape


def test_links_to_folders_are_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "videos").symlink_to(root)
    assert VideoFolder(elsewhere, num_frames=2).files[0] == elsewhere / "videos" / "a.mp4"


def test_too_long_videos(root):
    data = VideoFolder(root, num_frames=2, max_seconds=1, broken_files=BrokenFiles(limit=1))
    assert {data[SampleKey(epoch, 0)].name for epoch in range(3)} == {str(root / "deep" / "er" / "b.MP4")}
    assert "40 frames are longer than max_seconds=1" in data.broken_files.summary()


def test_nothing_usable(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no videos; expected a folder with videos .* Set `root`"):
        VideoFolder(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(DatasetNotFoundError, match=r"holds no readable videos; all 1 are broken: .*a.mp4"):
        VideoFolder(tmp_path)
    with pytest.raises(ValueError, match="num_frames and stride"):
        VideoFolder(tmp_path, stride=0)


def test_broken_sample_videos_are_named(sample_data):
    data = VideoFolder(
        sample_data / "videos" / "corrupted", num_frames=2, stride=1, size=32, broken_files=BrokenFiles(3)
    )
    for index in range(len(data)):
        assert torch.is_tensor(data[index].images)
        assert data[index].name.endswith("flipping_a_pancake_truncated.mkv")
    reasons = {name.rsplit("/", 1)[1]: reason for name, reason in data.broken_files.reasons.items()}
    assert re.fullmatch(r"frame \d+ is damaged \(packet \d+ of the video stream\)", reasons["demo_flipped_bytes.mp4"])
    assert reasons["decord_corrupted.mp4"].endswith("is damaged (packet 30 of the video stream)")
    assert reasons["bikes_truncated.mp4"].startswith("cannot be opened as a video")
