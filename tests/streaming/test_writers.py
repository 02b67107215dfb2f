"""Each writer on synthetic steps, read back with independent code."""

import json
import os
import re
import stat

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stream_clips import decoded

from omnistream.backbone import BackboneOutput
from omnistream.cameras import make_pose, matrix_from_quaternion
from omnistream.errors import UsageError
from omnistream.plots.features import pca_colors
from omnistream.plots.mp4 import Mp4File
from omnistream.plots.point_file import ply_header
from omnistream.plots.sheet import Scale
from omnistream.plots.video_frames import color_bar, side_by_side
from omnistream.streaming.depth import DepthArrays, DepthImages
from omnistream.streaming.features import FeatureFiles, blocks_of, check_features
from omnistream.streaming.frame_size import FrameSize
from omnistream.streaming.frames import Frame
from omnistream.streaming.points import PointCloud
from omnistream.streaming.poses import PoseFiles
from omnistream.streaming.videos import DepthVideo, FeaturesVideo
from omnistream.streaming.writer import Step
from omnistream.tasks.geometry import StreamedGeometry

H, W, D = 16, 24, 6


def make_step(start, num_frames=1, depth=None, pose=None):
    """A step with random features and geometry whose points are (column, row, frame)."""
    S = num_frames
    generator = torch.Generator().manual_seed(start)
    images = torch.randint(0, 256, (S, 3, H, W), generator=generator, dtype=torch.uint8)
    frames = [Frame(start + i, (start + i) / 10, images[i]) for i in range(S)]
    depth = torch.rand(1, S, H, W, generator=generator) + 1 if depth is None else depth
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    origin = torch.stack([x, y, torch.zeros(H, W)], -1).expand(1, S, H, W, 3).clone()
    origin[..., 2] = start + torch.arange(S)[:, None, None]
    geometry = StreamedGeometry(
        depth=depth,
        depth_confidence=1 + x.expand(1, S, H, W).float(),
        rays=torch.cat([origin, torch.zeros_like(origin)], -1),
        ray_confidence=torch.ones(1, S, H, W),
        pose=torch.zeros(1, S, 9),
        camera_to_world=torch.eye(4).expand(1, S, 4, 4) if pose is None else pose,
        intrinsics=torch.tensor([[20.0, 0, 12], [0, 21, 8], [0, 0, 1]]).expand(1, S, 3, 3),
    )
    output = BackboneOutput(
        patches={2: torch.randn(1, S, 2, 3, D, generator=generator)},
        last=torch.randn(1, S, 2, 3, D, generator=generator),
        cls=torch.randn(1, S, D, generator=generator),
        registers=torch.zeros(1, S, 4, D),
        camera=None,
        heads={"geometry": geometry},
    )
    return Step(frames, images, output)


def written(writer, steps):
    for step in steps:
        writer.write(step)
    writer.close()
    return writer


@pytest.mark.parametrize("codec", [("libx264", "mpeg4"), ("mpeg4",), ("no_such_codec", "mpeg4")])
def test_mp4_holds_the_frames(tmp_path, codec):
    video = Mp4File(tmp_path / "video.mp4", 29.97, codec)
    for i in range(20):
        video.add(np.full((31, 45, 3), 10 * i, np.uint8))
    video.close()
    frames = decoded(video.path)
    assert [frame.shape for frame in frames] == [(32, 46, 3)] * 20
    assert [frame.mean() for frame in frames] == pytest.approx([10 * i for i in range(20)], abs=5)
    assert float(video.rate) == pytest.approx(29.97, abs=1e-3)


def test_mp4_without_any_codec(tmp_path):
    with pytest.raises(RuntimeError, match="no encoder"):
        Mp4File(tmp_path / "video.mp4", 25, ("no_such_codec",))


def test_side_by_side_enlarges_without_smoothing():
    left, right = np.zeros((100, 120, 3), np.uint8), np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, 2)
    both = side_by_side(left, right)
    assert both.shape == (300, 720, 3)
    assert (both[:150, 360:540] == 0).all()
    assert (both[150:, 540:] == 3).all()


def test_features_video_freezes_the_basis_of_its_first_frames(tmp_path):
    steps = [make_step(0, 2), make_step(2, 3), make_step(5, 2)]
    writer = written(FeaturesVideo(tmp_path / "pca.mp4", 25, fit_frames=4), steps)
    frames = decoded(tmp_path / "pca.mp4")
    assert len(frames) == 7
    last = torch.cat([step.output.last[0] for step in steps])
    expected, share = pca_colors(last[:4])
    assert writer.summary()["pca.mp4"]["variance_explained_there"] == pytest.approx(share)
    found = frames[1][:, frames[1].shape[1] // 2 :]
    cell = found[: found.shape[0] // 2, : found.shape[1] // 3]
    # yuv420p and quantisation change colours; the middle of a cell is not affected by its neighbours.
    middle = cell[cell.shape[0] // 3 : -cell.shape[0] // 3, cell.shape[1] // 3 : -cell.shape[1] // 3].mean((0, 1))
    assert middle / 255 == pytest.approx(expected[1, 0, 0].numpy(), abs=0.04)


def test_features_video_of_a_stream_shorter_than_its_fit(tmp_path):
    writer = written(FeaturesVideo(tmp_path / "pca.mp4", 25, fit_frames=100), [make_step(0, 3)])
    assert len(decoded(tmp_path / "pca.mp4")) == 3
    assert writer.summary()["pca.mp4"]["frames"] == 3


def test_videos_show_the_frame_at_its_own_size(tmp_path):
    """Frames of 240x320 are encoded at 16x24; the video shows them at their own size."""
    step = make_step(0, 2)
    images = torch.randint(0, 256, (2, 3, 6, 8), dtype=torch.uint8).repeat_interleave(40, -1).repeat_interleave(40, -2)
    step = Step([Frame(i, i / 10, images[i]) for i in range(2)], step.images, step.output)
    written(FeaturesVideo(tmp_path / "features.mp4", 25), [step])
    written(DepthVideo(tmp_path / "depth.mp4", 25), [step])
    features, depth = decoded(tmp_path / "features.mp4")[1], decoded(tmp_path / "depth.mp4")[1]
    assert features.shape == (240, 640, 3)
    assert depth.shape[0] == 240
    assert 640 + 60 < depth.shape[1] < 640 + 160  # the colour bar
    for frame in (features, depth):
        cells = frame[20::40, 20:320:40]
        # yuv420p halves the chroma resolution and crf 18 is lossy; the middle of a cell keeps its colour.
        assert np.abs(cells.astype(int) - images[1, :, 20::40, 20::40].movedim(0, -1).numpy()).mean() < 4


def test_a_later_frame_of_another_size_keeps_the_video(tmp_path):
    steps = [make_step(0), make_step(1)]
    image = torch.zeros(3, 300, 200, dtype=torch.uint8)
    steps[1] = Step([Frame(1, 0.1, image)], steps[1].images, steps[1].output)
    written(FeaturesVideo(tmp_path / "features.mp4", 25, fit_frames=1), steps)
    assert [frame.shape for frame in decoded(tmp_path / "features.mp4")] == [(224, 672, 3)] * 2


@pytest.mark.parametrize("height", [224, 720])
def test_the_colour_bar_has_numbers_beside_its_colours(height):
    scale = Scale(0.5, 2.0, "turbo")
    bar = color_bar(scale, height, "depth", "scene units")
    assert bar.shape[0] == height
    assert bar.shape[1] < height / 2
    pixels = max(height / 24, 12)
    strip = bar[:, round(0.5 * pixels) + 2]
    rows = np.flatnonzero((strip != 255).any(-1) & (np.arange(height) > 3.5 * pixels))
    # The bar runs from the largest value at the top to the smallest at the bottom, with all colours in order.
    expected = scale.bar(len(rows))[:, 0]
    assert np.abs(strip[rows].astype(int) - expected).max() <= 3
    beside = bar[:, round(1.7 * pixels) + 4 :].min(axis=(1, 2))
    for share in (0, 0.5, 1):  # dark text at the ends and in the middle of the bar
        middle = rows[0] + share * (rows[-1] - rows[0])
        near = np.abs(np.arange(height) - middle) < 1.2 * pixels
        assert beside[near].min() < 100


def test_a_running_scale_moves_the_numbers_of_the_bar(tmp_path):
    depth = torch.rand(1, 1, H, W) + 1
    steps = [make_step(i, 1, depth * (1 + i)) for i in range(2)]
    image = torch.full((3, 240, 240), 128, dtype=torch.uint8)
    steps = [Step([Frame(i, i / 10, image)], step.images, step.output) for i, step in enumerate(steps)]
    written(DepthVideo(tmp_path / "depth.mp4", 25, "running"), steps)
    first, second = (frame[:, 480:].astype(int) for frame in decoded(tmp_path / "depth.mp4"))
    assert np.abs(first - second).max() > 100


@pytest.mark.parametrize(
    ("depth_range", "low", "high"), [("first", 2.0, 4.0), ((1.0, 9.0), 1.0, 9.0), ("running", 2.0, 4.0)]
)
def test_depth_video_has_one_scale(tmp_path, depth_range, low, high):
    depth = torch.tensor([2.0, 4.0]).repeat(H * W // 2).view(1, 1, H, W)
    later = 2 * depth
    steps = [make_step(0, 1, depth), make_step(1, 1, later)]
    writer = DepthVideo(tmp_path / "depth.mp4", 25, depth_range, fit_frames=1)
    facts = written(writer, steps).summary()["depth.mp4"]
    if depth_range == "running":  # one more frame moves it by a twentieth
        low, high = 0.95 * low + 0.05 * 2 * low, 0.95 * high + 0.05 * 2 * high
    assert (facts["low"], facts["high"]) == (pytest.approx(low), pytest.approx(high))
    assert len(decoded(tmp_path / "depth.mp4")) == 2


def random_poses(count):
    quaternion = torch.nn.functional.normalize(torch.randn(1, count, 4).double(), dim=-1)
    return make_pose(matrix_from_quaternion(quaternion), torch.randn(1, count, 3).double())


def read_poses(path):
    """Camera-to-world matrices of a TUM file, by an independent formula: the quaternion is x y z w."""
    rows = np.loadtxt(path, ndmin=2)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    for pose, (_, *translation, x, y, z, w) in zip(poses, rows, strict=True):
        pose[:3, 3] = translation
        pose[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    return rows[:, 0], poses


def test_poses_are_relative_to_the_first_camera(tmp_path):
    pose = random_poses(4)
    pose[0, 2] = torch.nan
    writer = written(PoseFiles(tmp_path), [make_step(5, 1, pose=pose[:, :1]), make_step(6, 3, pose=pose[:, 1:])])
    lines = [line for line in (tmp_path / "poses.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "0.500000 0 0 0 0 0 0 1"
    assert all(len(line.split(" ")) == 8 for line in lines)  # single spaces, as evo expects
    times, found = read_poses(tmp_path / "poses.txt")
    assert times == pytest.approx([0.5, 0.6, 0.8])
    expected = np.linalg.inv(pose[0, 0].numpy()) @ pose[0, [0, 1, 3]].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)  # nine digits are written
    assert np.loadtxt(tmp_path / "intrinsics.txt")[0, 1:] == pytest.approx([20, 21, 12, 8])
    assert writer.summary()["poses.txt"] == {"poses": 3, "frames_without_pose": 1, "first_camera": 5}


def test_the_first_camera_is_the_first_frame_with_a_pose(tmp_path):
    pose = random_poses(4)
    pose[0, :2] = torch.nan
    steps = [make_step(0, 1, pose=pose[:, :1]), make_step(1, 3, pose=pose[:, 1:])]
    poses = written(PoseFiles(tmp_path), steps)
    times, found = read_poses(tmp_path / "poses.txt")
    assert times == pytest.approx([0.2, 0.3])
    np.testing.assert_array_equal(found[0], np.eye(4))
    np.testing.assert_allclose(found[1], np.linalg.inv(pose[0, 2].numpy()) @ pose[0, 3].numpy(), rtol=0, atol=1e-7)
    assert poses.summary()["poses.txt"] == {"poses": 2, "frames_without_pose": 2, "first_camera": 2}
    cloud = written(PointCloud(tmp_path / "points.ply", confidence=0.0), steps)
    assert cloud.summary()["points.ply"]["frames_without_points"] == 2
    points = read_ply(tmp_path / "points.ply")
    assert len(points) == 2 * 24
    # Points of make_step are (column, row, frame) in the frame of the prediction.
    column, row = np.meshgrid(np.arange(2, W, 4), np.arange(2, H, 4))
    placed = np.stack([column, row, np.full_like(row, 2), np.ones_like(row)], -1).reshape(-1, 4)
    expected = (placed @ np.linalg.inv(pose[0, 2].numpy()).T)[:, :3]
    np.testing.assert_allclose(np.stack([points[name][:24] for name in "xyz"], -1), expected, rtol=0, atol=1e-5)


def test_a_stream_without_any_pose(tmp_path):
    steps = [make_step(0, 2, pose=torch.full((1, 2, 4, 4), torch.nan))]
    assert written(PoseFiles(tmp_path), steps).summary()["poses.txt"]["first_camera"] is None
    assert written(PointCloud(tmp_path / "points.ply"), steps).summary()["points.ply"]["frames_without_points"] == 2
    assert len(read_ply(tmp_path / "points.ply")) == 0


def read_ply(path):
    content = path.read_bytes()
    end = content.index(b"end_header\n") + len(b"end_header\n")
    header = content[:end].decode()
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [(name, kinds[kind]) for kind, name in re.findall(r"property (\w+) (\w+)", header)]
    points = np.frombuffer(content[end:], np.dtype(fields))
    assert len(points) == int(re.search(r"element vertex (\d+)", header)[1])
    return points


def test_point_cloud_keeps_the_confident_points(tmp_path):
    step = make_step(3, 2)
    written(PointCloud(tmp_path / "points.ply", stride=4, confidence=0.5), [step])
    points = read_ply(tmp_path / "points.ply")
    # Candidates are in columns 2, 6, ..., 22; confidence rises with the column, so the right half is kept.
    assert sorted(set(points["x"])) == [14, 18, 22]
    assert sorted(set(points["y"])) == [2, 6, 10, 14]
    assert sorted(set(points["z"])) == [3, 4]
    one = points[(points["x"] == 14) & (points["y"] == 6) & (points["z"] == 4)]
    assert [one[name][0] for name in ("red", "green", "blue")] == step.images[1, :, 6, 14].tolist()
    assert one["confidence"][0] == 15


def test_point_cloud_is_bounded_and_represents_all_frames_equally(tmp_path):
    cloud = PointCloud(tmp_path / "points.ply", stride=2, confidence=0.0, max_points=1000)
    sizes = []
    for i in range(100):  # 96 candidates a frame, 9,600 in all
        cloud.write(make_step(i))
        cloud._file._file.flush()
        sizes.append(cloud.path.stat().st_size)
    cloud.close()
    points = read_ply(cloud.path)
    assert 500 <= len(points) <= 1000
    assert max(sizes) <= len(ply_header(0)) + (1000 + 96) * points.dtype.itemsize
    per_tenth = np.histogram(points["z"], bins=10, range=(0, 100))[0]
    assert per_tenth.min() > 0.5 * per_tenth.mean()
    assert set(points["x"]) == set(range(1, W, 2))


def test_thinning_in_blocks_keeps_every_second_point(tmp_path):
    cloud = PointCloud(tmp_path / "points.ply", stride=1, confidence=0.0)
    cloud.write(make_step(0))
    before = [(p["x"], p["y"]) for p in (cloud.close() or read_ply(cloud.path))]
    again = PointCloud(tmp_path / "again.ply", stride=1, confidence=0.0)
    again.write(make_step(0))
    again._file._thin(block=7)
    again.close()
    assert [(p["x"], p["y"]) for p in read_ply(again.path)] == before[::2]


def test_points_that_are_not_finite_are_left_out(tmp_path):
    step = make_step(0, depth=torch.full((1, 1, H, W), torch.inf))
    written(PointCloud(tmp_path / "points.ply"), [step])
    assert len(read_ply(tmp_path / "points.ply")) == 0


def test_npz_of_features_in_chunks(tmp_path):
    steps = [make_step(0, 2), make_step(2, 1), make_step(3, 2)]
    one_step = 2 * (6 * D + D) * 4
    writer = written(FeatureFiles(tmp_path, ["last", "cls", "2"], chunk_bytes=one_step), steps)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as stored:
        names = sorted(name for name in stored.files if name.startswith("last"))
        assert len(names) > 1
        last = np.concatenate([stored[name] for name in names])
        layer = np.concatenate([stored[name.replace("last", "layer_2")] for name in names])
        index = np.concatenate([stored[name.replace("last", "index")] for name in names])
    np.testing.assert_array_equal(last, torch.cat([step.output.last[0] for step in steps]))
    np.testing.assert_array_equal(layer, torch.cat([step.output.patches[2][0] for step in steps]))
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert int(names[0][-8:]) == 0
    assert writer.summary()["features.npz"]["frames"] == 5


def test_depth_as_images(tmp_path):
    depth = torch.rand(1, 3, H, W) + 0.5
    depth[0, 0, 0, :3] = torch.tensor([torch.nan, -1.0, 0.0])
    depth[0, 2, 0, 0] = 1e6
    writer = written(DepthImages(tmp_path), [make_step(7, 2, depth[:, :2]), make_step(9, 1, depth[:, 2:])])
    facts = writer.summary()["depth"]
    files = sorted((tmp_path / "depth").iterdir())
    assert [file.name for file in files] == ["00000007.png", "00000008.png", "00000009.png"]
    found = np.stack([np.asarray(Image.open(file)) for file in files])
    assert (found.dtype, found[0, 0, :3].tolist(), found[2, 0, 0]) == (np.uint16, [0, 0, 0], 65535)
    good = np.ones_like(found, bool)
    good[0, 0, :3] = good[2, 0, 0] = False
    # Half a step of the stored values, and float32 rounding of the prediction.
    np.testing.assert_allclose(
        found[good] / facts["scale"], depth[0].numpy()[good], rtol=1e-6, atol=0.5 / facts["scale"]
    )
    assert facts["frames"] == 3
    assert facts["clipped_pixels"] == 1
    # The largest depth of the first frame is almost 1.5; four times that fits into 65535 at this round scale.
    assert facts["scale"] == 10000
    assert "depth = value / scale, in scene units; 0: no depth; 65535" in facts["meaning"]


def test_depth_images_with_a_given_scale(tmp_path):
    depth = torch.full((1, 1, H, W), 1.2346)
    writer = written(DepthImages(tmp_path, scale=5000), [make_step(0, 1, depth)])
    assert np.asarray(Image.open(tmp_path / "depth/00000000.png")).tolist() == np.full((H, W), 6173).tolist()
    assert writer.summary()["depth"]["scale"] == 5000


@pytest.mark.parametrize("shape", ["nan", "zero"])
def test_depth_images_of_frames_without_depth(tmp_path, shape):
    depth = torch.full((1, 1, H, W), torch.nan if shape == "nan" else 0.0)
    writer = written(DepthImages(tmp_path), [make_step(0, 1, depth), make_step(1, 1, torch.ones(1, 1, H, W))])
    assert np.asarray(Image.open(tmp_path / "depth/00000000.png")).max() == 0
    assert np.asarray(Image.open(tmp_path / "depth/00000001.png")).min() == 10000 == writer.summary()["depth"]["scale"]


def test_depth_as_arrays(tmp_path):
    steps = [make_step(0, 2), make_step(2, 1)]
    writer = written(DepthArrays(tmp_path, chunk_bytes=1), steps)
    with np.load(tmp_path / "depth.npz", allow_pickle=False) as stored:
        assert sorted(stored.files)[:2] == ["confidence_00000000", "confidence_00000002"]
        depth = np.concatenate([stored["depth_00000000"], stored["depth_00000002"]])
        assert stored["index_00000002"].tolist() == [2]
    expected = torch.cat([step.output.heads["geometry"].depth[0] for step in steps])
    np.testing.assert_array_equal(depth, expected.numpy())
    assert writer.summary()["depth.npz"]["frames"] == 3


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_mode_that_the_umask_sets(tmp_path, umask):
    before = os.umask(umask)
    try:
        writers = [
            FeaturesVideo(tmp_path / "a.mp4", 25),
            DepthVideo(tmp_path / "b.mp4", 25),
            DepthImages(tmp_path),
            DepthArrays(tmp_path),
            PoseFiles(tmp_path),
            PointCloud(tmp_path / "c.ply"),
            FeatureFiles(tmp_path, ["cls"]),
            FeatureFiles(tmp_path, ["cls"], "safetensors"),
        ]
        for writer in writers:
            written(writer, [make_step(0)])
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 9
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file


def test_safetensors_shards(tmp_path):
    steps = [make_step(i) for i in range(5)]
    written(FeatureFiles(tmp_path, ["cls"], "safetensors", torch.float16, chunk_bytes=2 * (D * 2 + 16)), steps)
    shards = sorted((tmp_path / "features").iterdir())
    assert [shard.name for shard in shards] == [f"features-{i:08d}.safetensors" for i in (0, 2, 4)]
    parts = [load_file(shard) for shard in shards]
    torch.testing.assert_close(
        torch.cat([part["cls"] for part in parts]), torch.cat([step.output.cls[0] for step in steps]).half()
    )
    assert torch.cat([part["time"] for part in parts]).tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_nothing_is_written_without_a_step(tmp_path):
    writers = [
        FeaturesVideo(tmp_path / "a.mp4", 25),
        DepthVideo(tmp_path / "b.mp4", 25),
        PoseFiles(tmp_path),
        PointCloud(tmp_path / "c.ply"),
        FeatureFiles(tmp_path, ["cls"]),
        DepthImages(tmp_path),
        DepthArrays(tmp_path),
    ]
    for writer in writers:
        writer.close()
        assert json.dumps(writer.summary()) == "{}"
    assert list(tmp_path.iterdir()) == []


def test_names_of_features():
    check_features(["last", "cls", "3"], 4)
    assert blocks_of(["last", "2", "cls", "0"]) == (2, 0)
    for name in ("4", "-1", "all"):
        with pytest.raises(UsageError, match=rf"number of a block, 0 to 3; got '{name}'"):
            check_features([name], 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("224", (224, 400)), ("short:64", (64, 112)), ("long:512", (288, 512)), ("32x48", (32, 48)), ("3", (16, 16))],
)
def test_frame_size(text, expected):
    assert FrameSize.parse(text).of(720, 1280, 16) == expected


def test_frame_sizes_that_do_not_fit():
    with pytest.raises(UsageError, match="multiples of the patch size 16"):
        FrameSize.parse("30x48").of(720, 1280, 16)
    for text in ("big", "0", "long:0"):
        with pytest.raises(UsageError, match="size must look like"):
            FrameSize.parse(text)
    with pytest.raises(UsageError, match=r"frames of 160000x284448 .* choose a smaller size"):
        FrameSize.parse("160000").of(720, 1280, 16)
