import numpy as np
import nyu_video_files as files
import pytest
import torch

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.media import DepthReadError, MediaReadError
from omnistream.data.media.kinect import read_disparity_pgm
from omnistream.data.scenes import ClipSampling, NYUv2Video, SceneClips
from omnistream.data.scenes.nyuv2_registration import COLOR, DEPTH, metres, project, register, undistort
from omnistream.data.scenes.nyuv2_video import nearest_or_later

BLACK = torch.zeros(3, *files.SIZE, dtype=torch.uint8)


@pytest.fixture
def room(tmp_path):
    """Three depth maps and three images, of which the first lies between two images."""
    folder = tmp_path / "kitchens_part1" / "kitchen_0003"
    files.write_room(folder, depth_times=[0.04, 0.09, 0.12], image_times=[0.0, 0.035, 0.11])
    return tmp_path


def read(root, positions=(0,), **options):
    reader = NYUv2Video(root, **options)
    (sequence,) = reader.index()
    return reader.read(sequence, list(positions))


def test_each_depth_map_has_the_nearest_image(room):
    frames = read(room, [0, 1, 2])
    assert [int(frame.image[0].float().median()) for frame in frames] == [10, 20, 20]
    reader = NYUv2Video(room)
    assert [(one.name, one.num_frames) for one in reader.index()] == [("kitchens_part1/kitchen_0003", 3)]


def test_a_wall_has_the_depth_of_its_disparity(room):
    (frame,) = read(room)
    assert frame.depth.shape == frame.image.shape[1:] == (426, 560)
    seen = frame.depth > 0
    assert seen.double().mean() > 0.7
    torch.testing.assert_close(frame.depth[seen], torch.full_like(frame.depth[seen], 351.3 / (1092.5 - 917)))
    # the calibration puts the centre of pixel i at i; 41 columns and 45 rows are cut off
    np.testing.assert_allclose(
        frame.intrinsics, [[518.8579, 0, 285.0824], [0, 519.4696, 209.2362], [0, 0, 1]], atol=1e-4
    )
    assert frame.camera_to_world.isnan().all()
    (whole,) = read(room, crop=False)
    assert whole.depth.shape == files.SIZE
    assert torch.equal(whole.depth[45:471, 41:601], frame.depth)
    assert torch.equal(whole.image[:, 45:471, 41:601], frame.image)
    np.testing.assert_allclose(whole.intrinsics[:2, 2], [326.0824, 254.2362], atol=1e-4)


def seen_at(lens, column, row):
    """Where a camera without distortion sees what this pixel of the lens shows: a fixed point of its distortion."""
    bent = np.array([(column - lens.centre[0]) / lens.focal[0], (row - lens.centre[1]) / lens.focal[1]])
    x, y = bent
    for _ in range(50):
        r = x * x + y * y
        stretch = 1 + lens.radial[0] * r + lens.radial[1] * r**2 + lens.radial[2] * r**3
        p, q = lens.tangential
        x = (bent[0] - 2 * p * x * y - q * (r + 2 * x * x)) / stretch
        y = (bent[1] - p * (r + 2 * y * y) - 2 * q * x * y) / stretch
    return x * lens.focal[0] + lens.centre[0], y * lens.focal[1] + lens.centre[1]


@pytest.mark.parametrize("where", [(320, 240), (60, 60), (580, 60), (60, 420), (560, 400)])
@pytest.mark.parametrize("disparity", [780, 1000])
def test_depth_lands_on_the_pixels_of_the_image(where, disparity):
    raw = np.full(files.SIZE, files.NOTHING, np.uint16)
    raw[where[1] - 7 : where[1] + 8, where[0] - 7 : where[0] + 8] = disparity
    _, depth = register(BLACK, raw)
    rows, columns = depth.nonzero(as_tuple=True)
    assert len(rows) > 100
    z = 351.3 / (1092.5 - disparity)
    torch.testing.assert_close(depth[rows, columns], torch.full((len(rows),), z))
    u, v = seen_at(DEPTH, *where)
    # The two cameras are 25 mm apart, nearly without rotation; both are counted from 1.
    ray = np.array([(u + 1 - DEPTH.centre[0]) / DEPTH.focal[0], (v + 1 - DEPTH.centre[1]) / DEPTH.focal[1], 1])
    turned = np.array([[1, -0.00505, -0.0043], [0.00504, 1, 0.00369], [0.00432, -0.00367, 1]]) @ (z * ray)
    x, y, far = turned - [0.02503, -0.00029, 0.00066]
    expected = x / far * COLOR.focal[0] + COLOR.centre[0] - 1, y / far * COLOR.focal[1] + COLOR.centre[1] - 1
    assert columns.double().mean() == pytest.approx(expected[0], abs=0.6)
    assert rows.double().mean() == pytest.approx(expected[1], abs=0.6)


def test_the_nearest_surface_hides_what_is_behind():
    depth = np.full(files.SIZE, 4.0)
    depth[200:260, 300:360] = 1.0
    moved = project(depth)
    rows, columns = (moved == 1).nonzero(as_tuple=True)
    inner = moved[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()]
    assert inner.shape[0] > 45
    assert (inner == 1).all()


def test_disparities_to_metres():
    found = metres(np.array([600.0, 917, 1057.37, 1057.38, 1092.5, 2047]))
    np.testing.assert_allclose(found, [351.3 / 492.5, 351.3 / 175.5, 10, 0, 0, 0], rtol=1e-6)


def test_interpolation_does_not_mix_in_what_was_not_measured():
    raw = np.full(files.SIZE, 900, np.uint16)
    raw[::16, ::16] = files.NOTHING
    _, depth = register(BLACK, raw)
    values = depth[depth > 0]
    assert len(values) > 200_000
    torch.testing.assert_close(values, torch.full_like(values, 351.3 / 192.5))


def test_the_border_that_undistortion_fills_is_no_depth():
    # 255, as 599 in the middle, would be 0.7 m or less
    _, depth = register(BLACK, np.full(files.SIZE, 599, np.uint16))
    assert (depth == 0).all()


@pytest.mark.parametrize("pixel", [(100, 500), (400, 90), (240, 320)])
def test_images_are_undistorted(pixel):
    row, column = pixel
    columns, rows = np.meshgrid(np.arange(640.0), np.arange(480.0))
    # what the straight camera sees at a pixel, the lens saw elsewhere; `seen_at` leads back
    source = undistort(columns, COLOR)[row, column], undistort(rows, COLOR)[row, column]
    np.testing.assert_allclose(seen_at(COLOR, *source), (column, row), atol=1e-6)
    assert np.hypot(source[0] - column, source[1] - row) < 8


@pytest.mark.parametrize(
    ("lens", "pixel", "source"),
    [
        (COLOR, (60, 40), (55.1895, 36.1017)),
        (COLOR, (600, 450), (606.4022, 454.5731)),
        (COLOR, (100, 400), (95.0186, 403.4251)),
        (DEPTH, (60, 40), (61.7385, 41.9761)),
        (DEPTH, (600, 450), (596.7251, 448.3188)),
        (DEPTH, (560, 60), (556.8831, 62.3360)),
    ],
)
def test_where_pixels_come_from_by_the_numbers_of_the_toolbox(lens, pixel, source):
    """Worked out by hand from camera_params.m."""
    columns, rows = np.meshgrid(np.arange(640.0), np.arange(480.0))
    column, row = pixel
    found = undistort(columns, lens)[row, column], undistort(rows, lens)[row, column]
    np.testing.assert_allclose(found, source, atol=1e-4)


@pytest.mark.parametrize(
    ("pixel", "metres_away", "expected"),
    [
        ((100, 80), 1.0, (121, 113)),
        ((300, 240), 1.0, (299, 257)),
        ((600, 460), 1.0, (565, 454)),
        ((600, 60), 3.0, (574, 98)),
        ((60, 400), 3.0, (92, 399)),
        ((320, 240), 3.0, (325, 257)),
    ],
)
def test_where_depth_goes_by_the_numbers_of_the_toolbox(pixel, metres_away, expected):
    """Worked out by hand from camera_params.m, depth_world2rgb_world.m and the others, less 1."""
    depth = np.zeros(files.SIZE)
    depth[pixel[1], pixel[0]] = metres_away
    moved = project(depth)
    assert moved.nonzero().tolist() == [[expected[1], expected[0]]]
    assert float(moved.max()) == metres_away  # of the depth camera, not of the colour camera


def test_depth_beside_the_image_is_dropped():
    for z in np.linspace(0.2, 0.32, 25):  # column 0 of those that count from 1 is in none of them
        moved = project(np.full(files.SIZE, z))
        assert (moved[:, -1] == 0).all()
        assert (moved[-1] == 0).all()


def test_what_the_lens_did_not_see_is_white():
    image, _ = register(BLACK, np.full(files.SIZE, 900, np.uint16))
    assert set(image.unique().tolist()) == {0, 255}
    assert (image[:, :6, :6] == 255).all()
    assert (image[:, 45:471, 41:601] == 0).all()


def greedy(stamps, others):
    """The toolbox's rule: go on as long as the next is not farther."""
    chosen, at = [], 0
    for stamp in stamps:
        while at + 1 < len(others) and abs(others[at + 1] - stamp) <= abs(others[at] - stamp):
            at += 1
        chosen.append(at)
    return chosen


def test_synchronisation_is_that_of_the_toolbox():
    rng = np.random.default_rng(0)
    for _ in range(50):
        stamps, others = (np.sort(rng.choice(60, rng.integers(1, 25), replace=False)) for _ in range(2))
        assert nearest_or_later(stamps.tolist(), others.tolist()).tolist() == greedy(stamps, others)
    assert nearest_or_later([1.0], [0.0, 2.0]).tolist() == [1]


def test_the_published_rooms_and_frames(room):
    videos = GeometryVideos(NYUv2Video(room), "depth", FrameChoice(count=2), ModelImages(long_side=64))
    assert (videos[0].name, len(videos[0]), videos.missing) == ("kitchen_0003", 2, 7)
    assert [frame.image.shape for frame in videos[0].frames()] == [(3, 48, 64)] * 2
    for name in ("kitchen_0003", "kitchens_part1/kitchen_0003"):
        assert GeometryVideos(NYUv2Video(room), [name]).names == ["kitchen_0003"]


def test_there_are_no_clips_without_poses(room):
    with pytest.raises(ValueError, match=r"NYUv2Video of .* has frames without intrinsics or pose"):
        SceneClips(NYUv2Video(room), ClipSampling(num_frames=2))


def test_bytes_are_little_endian(tmp_path):
    path = tmp_path / "d.pgm"
    disparity = np.array([[0, 1, 917], [1092, 2046, 2047]], np.uint16)
    files.write_disparity(path, disparity)
    assert path.read_bytes()[-2:] == b"\xff\x07"
    assert read_disparity_pgm(path).tolist() == disparity.tolist()
    path.write_bytes(b"P5\n# made by hand\n3 2\n65535\n" + disparity.tobytes())
    assert read_disparity_pgm(path).tolist() == disparity.tolist()
    files.write_disparity(path, disparity, order=">")
    with pytest.raises(DepthReadError, match="65287 is no disparity of 11 bits; is it the authors' file"):
        read_disparity_pgm(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin as a binary PGM"),
        (b"P2 1 1 65535\n1", "does not begin as a binary PGM"),
        (b"P5 2 1 255\n\1\2", "expected a depth map of 16 bits, got 2x1 with values to 255"),
        (b"P5 2 1 65535\n\1\0\2", "expected 4 bytes for 2x1, got 3"),
        (b"P5 2 1 65535\n\1\0\2\0\3", "expected 4 bytes for 2x1, got 5"),
        (b"P5 0 1 65535\n", "got 0x1"),
        (b"P5 999999 999999 65535\n", "got 999999x999999"),
    ],
)
def test_broken_depth_is_named(tmp_path, data, reason):
    path = tmp_path / "d.pgm"
    path.write_bytes(data)
    with pytest.raises(DepthReadError, match=reason) as caught:
        read_disparity_pgm(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(DepthReadError, match="No such file"):
        read_disparity_pgm(tmp_path / "other.pgm")


def test_broken_images_and_other_sizes_are_named(room):
    folder = room / "kitchens_part1" / "kitchen_0003"
    image, depth = folder / files.name("r", 0.035), folder / files.name("d", 0.04)
    whole = image.read_bytes()
    image.write_bytes(whole[:1000])
    with pytest.raises(MediaReadError, match=rf"{image.name}: damaged image"):
        read(room)
    image.write_bytes(whole)
    files.write_disparity(depth, np.full((240, 320), 900, np.uint16))
    with pytest.raises(MediaReadError, match=rf"{depth.name}: expected 640x480 pixels, got 320x240"):
        read(room)
    files.write_image(image, np.zeros((480, 600, 3)))
    with pytest.raises(MediaReadError, match=rf"{image.name}: expected 640x480 pixels, got 600x480"):
        read(room)


def test_a_name_without_a_time_is_refused(room):
    (room / "kitchens_part1" / "kitchen_0003" / "r-last.ppm").touch()
    with pytest.raises(DatasetNotFoundError, match=r"r-last\.ppm: expected a name with a time, such as d-"):
        NYUv2Video(room).index()
