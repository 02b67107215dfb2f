"""Point maps of videos: closed forms, perfect models in any frame and scale, and what cannot be scored."""

import math

import pytest
import torch
from listed_videos import Knows, data, evaluated, pose, rotation, three, video
from scene_files import Room
from seven_scenes_files import write_sequence, write_splits
from torch import nn

from omnistream.cameras import resize_intrinsics
from omnistream.commands.overrides import prepare
from omnistream.commands.train import OmniStreamCLI
from omnistream.data import EvaluationDataModule, GeometryVideos
from omnistream.data.batch import SceneFrame
from omnistream.data.world import WorldVideos
from omnistream.evaluation.saved_predictions import SavedFrame
from omnistream.tasks.reconstruction import PointMap
from omnistream.tasks.reconstruction.judged_points import JudgedDepth, true_view

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NAMES = ("accuracy", "accuracy_median", "completeness", "completeness_median", "precision", "recall", "f_score")
DISTANCES, SHARES = NAMES[:4], NAMES[4:]


def values(result):
    return {key: metric.value for key, metric in result.metrics.items()}


def wall(count=5, number=0, still=False):
    """A wall 4 m away, seen by a camera that moves along it."""
    places = [(0.0, 0.0, 0.0) if still else (0.3 * i, 0.1 * i * i, 0.0) for i in range(count)]
    frames = video(number, count, poses=[pose(torch.eye(3), place) for place in places])
    for frame in frames:
        frame.depth[frame.valid] = 4.0
    return {"wall": frames}


def towards(distance):
    """A camera that believes to stand further along its axis."""
    return lambda one, index: pose(one[:3, :3], one[:3, 3] + torch.tensor([0, 0, distance]))


class Replays(nn.Module):
    """The truth of a video in a frame and a scale of its own."""

    def __init__(self, videos, scale, own):
        super().__init__()
        self._videos = {videos[index].name: videos[index] for index in range(len(videos))}
        self._scale, self._own = scale, own

    def open(self, name):
        self._frames = self._videos[name].frames()

    def reset(self):
        pass

    def step(self, images):
        frame = next(self._frames)
        seen = frame.camera_to_world.double().clone()
        seen[:3, 3] *= self._scale
        return [SavedFrame(frame.depth * self._scale, self._own @ seen, frame.intrinsics)]


OWN = pose(rotation(1, 0.7) @ rotation(0, -0.4), (1.0, -2.0, 5.0))


@pytest.mark.parametrize(("scale", "own"), [(1.0, pose(torch.eye(3), (0, 0, 0))), (0.2, OWN)])
def test_a_perfect_model_of_the_world_has_no_error(tmp_path, scale, own):
    videos = GeometryVideos(WorldVideos(2, 5, size=(24, 24)), images=None)
    source = EvaluationDataModule(test=videos, batch_size=1)
    result = evaluated(PointMap(Replays(videos, scale, own)), source, tmp_path)
    found = values(result)
    assert set(found) == {*NAMES, *(f"{name}_constant" for name in NAMES)}
    assert max(found[name] for name in DISTANCES) < 1e-3  # a point on the border of two voxels may change sides
    assert min(found[name] for name in SHARES) > 0.999
    assert max(found[f"{name}_median"] for name in ("accuracy", "completeness")) < 1e-5
    assert found["accuracy_constant"] > 0.2
    assert found["completeness_constant"] > 0.2
    assert found["f_score_constant"] < 0.5
    for row in result.settings["sequences"]:
        assert row["details"]["scale"] == pytest.approx(1 / scale, rel=1e-4)


def test_the_scale_of_a_model_is_wrong_where_only_motions_are_aligned(tmp_path):
    videos = GeometryVideos(WorldVideos(1, 5, size=(24, 24)), images=None)
    source = EvaluationDataModule(test=videos, batch_size=1)
    for alignment in ("se3", "none"):
        assert evaluated(PointMap(Replays(videos, 0.2, OWN), alignment=alignment), source, tmp_path).metrics[
            "accuracy"
        ].value > 0.5  # fmt: skip
    moved = PointMap(Replays(videos, 1.0, OWN), alignment="se3")
    assert evaluated(moved, source, tmp_path).metrics["accuracy"].value < 1e-3


def test_a_wall_that_is_too_far_away(tmp_path):
    """Every point is 0.1 from its place, along the normal: so are the clouds, whatever the voxels hold."""
    for threshold, score in ((0.08, 0.0), (0.12, 1.0)):
        module = PointMap(Knows(wall(), move=towards(0.1)), alignment="none", threshold=threshold)
        found = values(evaluated(module, data(wall()), tmp_path))
        assert [found[name] for name in DISTANCES] == pytest.approx([0.1] * 4, abs=1e-6)
        assert [found[name] for name in SHARES] == [score] * 3
        assert [found[f"{name}_constant"] for name in DISTANCES] == pytest.approx([0] * 4, abs=1e-6)
    aligned = values(evaluated(PointMap(Knows(wall(), move=towards(0.1))), data(wall()), tmp_path))
    assert max(aligned[name] for name in DISTANCES) < 1e-6  # the centres are off by one shift


def test_the_turn_about_a_straight_path_is_that_of_the_cameras(tmp_path):
    """Camera centres alone would leave the wall anywhere about the path."""
    poses = [pose(rotation(1, 0.1 * i), (0.3 * i, 0.1 * i, 0.2 * i)) for i in range(5)]
    scenes = {"a": video(0, 5, poses=poses)}
    own = Knows(scenes, move=lambda one, index: pose(one[:3, :3], 2 * one[:3, 3]), depth=lambda depth, index: 2 * depth)
    for alignment, model in (("sim3", own), ("se3", Knows(scenes))):
        result = evaluated(PointMap(model, alignment=alignment), data(scenes), tmp_path)
        assert "straight" in result.settings["sequences"][0]["details"]["note"]
        assert max(result.metrics[name].value for name in DISTANCES) < 1e-3


def test_a_prediction_of_half_of_the_frames_is_accurate_and_not_complete(tmp_path):
    """From frame 1 on the camera sees the wall 5 m behind: the share of the first frame is right."""

    def wrong(depth, index):
        return depth if index == 0 else depth + 5

    module = PointMap(Knows(wall(), depth=wrong), alignment="none")
    found = values(evaluated(module, data(wall()), tmp_path))
    assert 0 < found["precision"] < 0.5
    assert 0 < found["recall"] < 0.5
    assert found["f_score"] == pytest.approx(
        2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"])
    )
    assert found["accuracy_median"] >= 5 > found["completeness"] > 0.1


def test_videos_have_the_same_weight_and_more_is_better_for_shares(tmp_path):
    scenes = {"a": video(0, 8), "b": video(1, 4)}
    result = evaluated(PointMap(Knows(scenes, depth=lambda depth, index: depth * 1.2)), data(scenes), tmp_path)
    rows = result.settings["sequences"]
    assert result.metrics["accuracy"].value == pytest.approx(sum(row["values"]["accuracy"] for row in rows) / 2)
    assert {name for name, one in result.metrics.items() if one.higher_is_better} == {
        f"{name}{ending}" for name in SHARES for ending in ("", "_constant")
    }
    assert result.settings["alignments"] == ["sim3"]
    assert (result.settings["voxel"], result.settings["threshold"]) == (0.02, 0.05)


def test_clouds_do_not_grow_with_the_stream(tmp_path):
    """A camera that goes to and fro sees nothing new."""
    sizes = {}
    for count in (4, 24):
        there = [pose(torch.eye(3), (0.3 * (i % 4), 0.1 * (i % 4) ** 2, 0.0)) for i in range(count)]
        frames = video(0, count, poses=there)
        for index, frame in enumerate(frames):
            frame.depth[:] = 4.0 + 0.2 * (index % 4)
        scenes = {"a": [SceneFrame(**(vars(frame) | {"valid": None})) for frame in frames]}
        result = evaluated(PointMap(Knows(scenes)), data(scenes), tmp_path)
        (row,) = result.settings["sequences"]
        sizes[count] = row["details"]["true_points"], row["details"]["predicted_points"]
        assert row["num_frames"] == count
    assert sizes[4] == sizes[24]
    assert 0 < sizes[4][0] <= 4 * 12 * 16


def test_what_is_not_finite_is_named_and_makes_the_mean_nan(tmp_path):
    def broken(depth, index):
        depth[5 if index == 2 else 0, 3] = math.nan  # row 0 has no truth
        return depth

    result = evaluated(PointMap(Knows(three(), depth=broken)), data(three()), tmp_path)
    assert [row["status"] for row in result.settings["sequences"]] == ["not finite"] * 3
    assert result.settings["sequences"][0]["reason"] == "the predicted points of frame 2 are not finite"
    assert all(math.isnan(result.metrics[name].value) for name in NAMES)
    assert math.isfinite(result.metrics["accuracy_constant"].value)
    harmless = Knows(three(), depth=lambda depth, index: depth.where(depth > 0, math.nan))
    fine = evaluated(PointMap(harmless), data(three()), tmp_path)
    assert {row["status"] for row in fine.settings["sequences"]} == {"scored"}
    lost = Knows(three(), move=lambda one, index: one * math.nan if index == 1 else one)
    found = evaluated(PointMap(lost), data(three()), tmp_path)
    assert found.settings["sequences"][0]["reason"] == "the predicted pose of frame 1 is not finite"
    assert math.isnan(found.metrics["f_score"].value)


def test_a_point_at_the_end_of_the_world_is_cut_and_counted(tmp_path):
    model = Knows(wall(), depth=lambda depth, index: depth * (1e9 if index == 0 else 1))
    result = evaluated(PointMap(model), data(wall()), tmp_path)
    assert 50 < result.metrics["accuracy"].value < 4e4
    assert result.metrics["completeness"].value < 1


def test_nothing_to_compare_with_is_no_truth(tmp_path):
    blank = [SceneFrame(**(vars(frame) | {"depth": None, "valid": None})) for frame in video(2, 4)]
    scenes = {"blank": blank, "good": video(1, 4), "still": wall(still=True)["wall"]}
    known = Knows({**scenes, "blank": video(2, 4)})
    result = evaluated(PointMap(known), data(scenes), tmp_path)
    rows = {row["name"]: (row["status"], row["reason"]) for row in result.settings["sequences"]}
    assert rows == {
        "blank": ("no truth", "no pixel has a true depth to compare with"),
        "good": ("scored", ""),
        "still": ("no truth", "the reference does not move"),
    }
    assert (result.num_samples, result.skipped) == (1, 2)
    with pytest.raises(ValueError, match="none of 1 videos could be scored: wall: no truth, no pixel has a true depth"):
        evaluated(PointMap(Knows(wall()), max_depth=3.0), data(wall()), tmp_path)
    still = wall(still=True)
    unaligned = values(evaluated(PointMap(Knows(still), alignment="none"), data(still), tmp_path))
    assert unaligned["accuracy"] < 1e-6


def test_a_frame_without_a_pose_is_not_judged(tmp_path):
    scenes, known = wall(), wall()
    scenes["wall"][2].camera_to_world.fill_(-math.inf)
    model = Knows(known, depth=lambda depth, index: depth * (math.nan if index == 2 else 1))
    result = evaluated(PointMap(model), data(scenes), tmp_path)
    assert result.settings["sequences"][0]["status"] == "scored"
    assert result.metrics["accuracy"].value < 1e-6


def test_true_points_beyond_all_voxels_name_the_option(tmp_path):
    scenes = wall()
    scenes["wall"][1].depth[5, 5] = 1e9
    with pytest.raises(ValueError, match=r"wall, frame 1: true points must be .*; set max_depth or a larger voxel"):
        evaluated(PointMap(Knows(scenes)), data(scenes), tmp_path)
    assert evaluated(PointMap(Knows(scenes), max_depth=10.0), data(scenes), tmp_path).metrics["accuracy"].value < 1e-6


def frame_of(depth_focal, **changes):
    """An image of 8x8 with a focal length of 8, and depth of 8x8 by a camera of another."""
    image_k, depth_k = (torch.tensor([[f, 0, 4], [0, f, 4], [0, 0, 1.0]]) for f in (8.0, depth_focal))
    whole = {"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "depth": torch.ones(8, 8), "intrinsics": image_k}
    return SceneFrame(**whole | {"camera_to_world": torch.eye(4), "depth_intrinsics": depth_k} | changes)


def test_pixels_are_judged_where_the_depth_camera_looked():
    """Pixel i of the image is pixel floor(2.5 i - 4.75) of the depth map."""
    frame = frame_of(20.0)
    frame.valid[2, 5] = False
    judged = true_view(frame).judged((8, 8))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    expected[3, 4] = False
    assert torch.equal(judged, expected)
    half = true_view(frame_of(20.0)).judged((4, 4))  # pixel i is at 5 i - 3.5
    assert torch.equal(half, torch.nn.functional.pad(torch.ones(2, 2), (1, 1, 1, 1)).bool())


def test_true_points_are_those_that_the_image_shows():
    """Pixel j of the wide depth map is at 1.95 j - 2.83 in the image."""
    view = true_view(frame_of(4.1))
    assert view.counts.nonzero().flatten().unique().tolist() == [2, 3, 4, 5]
    points = view.points()
    assert points.shape == (16, 3)
    torch.testing.assert_close(points[0], torch.tensor([-1.5 / 4.1, -1.5 / 4.1, 1.0], dtype=torch.float64))
    unknown = true_view(frame_of(4.1, depth_intrinsics=torch.full((3, 3), torch.nan)))
    assert not unknown.counts.any()
    assert not unknown.judged((8, 8)).any()


def test_depth_is_kept_in_a_file_where_it_is_much():
    depths = 1 + torch.rand(3, 6, 7)
    judged = torch.rand(3, 6, 7) > 0.4
    judged[1] = False
    k, poses = [torch.eye(3)] * 3, torch.eye(4).repeat(3, 1, 1)
    poses[2, 0, 3] = 5
    with JudgedDepth() as memory, JudgedDepth(memory_limit=1) as disk:
        for depth, mask in zip(depths, judged, strict=True):
            memory.add(depth, mask)
            disk.add(depth, mask)
        found = [dict(one.points(k, poses)) for one in (memory, disk)]
    assert list(found[0]) == [0, 2]
    for frame, points in found[0].items():
        assert torch.equal(points, found[1][frame])
        rows, columns = judged[frame].nonzero().double().unbind(1)
        z = depths[frame][judged[frame]].double()
        expected = torch.stack([z * (columns + 0.5) + poses[frame, 0, 3], z * (rows + 0.5), z], 1)
        torch.testing.assert_close(points, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voxel": 0.0}, "voxel must be positive and threshold at least twice as large, got 0 and 0.05"),
        ({"voxel": 0.03}, "voxel must be positive and threshold at least twice as large, got 0.03 and 0.05"),
        ({"alignment": "scale"}, "alignment must be one of sim3, se3, none, got 'scale'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PointMap(Knows(three()), **options)


class SeesTheRoom(nn.Module):
    """Exact depth of the room from the colour camera, of which 7-Scenes has no depth map."""

    def __init__(self, room, numbers, error=0.0):
        super().__init__()
        self._room, self._numbers, self._error = room, numbers, error

    def reset(self):
        self._left = iter(self._numbers)

    def step(self, images):
        number, size = next(self._left), tuple(images.shape[-2:])
        k = resize_intrinsics(torch.tensor([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]]), (480, 640), size)
        depth = torch.from_numpy(self._room.millimetres(number, size, k.numpy()) / 1000).float()
        return [SavedFrame(depth + self._error, torch.from_numpy(self._room.pose(number)), k)]


def test_seven_scenes_from_the_authors_files(tmp_path):
    room = Room(32, centre=(320.0, 240.0))
    write_sequence(tmp_path / "chess" / "seq-03", room, range(32))
    write_splits(tmp_path / "chess", [1], [3])
    options = [f"--data.root={tmp_path}", "--data.images.long_side=64", "--trainer.logger=false"]
    cli = OmniStreamCLI(args=prepare(["-c", "point_map/seven_scenes", *options]), run=False)
    assert (cli.model.voxel, cli.model.threshold, cli.model.alignment) == (0.02, 0.05, "sim3")
    result = evaluated(PointMap(SeesTheRoom(room, [0, 10, 20, 30])), cli.datamodule, tmp_path / "run")
    (row,) = result.settings["sequences"]
    assert (row["name"], row["num_frames"], row["status"]) == ("chess/seq-03", 4, "scored")
    found = values(result)
    assert found["accuracy"] < 0.02  # the pixels of the two cameras differ
    assert found["completeness"] < 0.1  # those of the small image are some centimetres apart
    assert found["precision"] > 0.95
    wrong = evaluated(PointMap(SeesTheRoom(room, [0, 10, 20, 30], 0.2)), cli.datamodule, tmp_path / "run")
    assert 0.1 < wrong.metrics["accuracy"].value < 0.25
