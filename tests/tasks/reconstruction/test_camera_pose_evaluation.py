"""Camera poses of videos: metrics of a test against what is known of the prediction, and baselines."""

import math

import pytest
import torch
from listed_videos import Knows, Listed, data, evaluated, helix, pose, rotation, three, video

from omnistream.cameras import invert_pose
from omnistream.data import EvaluationDataModule, GeometryVideos
from omnistream.data.media import MediaReadError
from omnistream.data.scenes import KITTIDepth, NYUv2Video
from omnistream.evaluation import baseline_poses
from omnistream.evaluation.saved_predictions import SavedFrame
from omnistream.metrics import trajectory_errors
from omnistream.tasks.reconstruction import CameraPose

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ERRORS = ("ate", "rpe_translation", "rpe_rotation")
BASELINES = {
    "ate_identity", "rpe_translation_identity", "rpe_rotation_identity", "ate_constant_velocity",
    "rpe_translation_constant_velocity", "rpe_rotation_constant_velocity", "rpe_translation_previous_motion",
    "rpe_rotation_previous_motion",
}  # fmt: skip


def values(result):
    return {key: metric.value for key, metric in result.metrics.items()}


def test_a_perfect_model_has_no_error_up_to_its_alignment(tmp_path):
    found = values(evaluated(CameraPose(Knows(three())), data(three()), tmp_path))
    names = {f"{prefix}{error}" for prefix in ("", "se3/", "none/") for error in ERRORS}
    assert set(found) == names | BASELINES
    for prefix in ("", "se3/", "none/"):
        assert max(found[f"{prefix}{error}"] for error in ERRORS) < 1e-5
    moved = evaluated(
        CameraPose(Knows(three(), move=lambda one, index: pose(one[:3, :3], 3 * one[:3, 3]))), data(three()), tmp_path
    )
    assert max(moved.metrics[error].value for error in ERRORS) < 1e-5
    assert moved.metrics["se3/rpe_translation"].value > 0.1
    assert moved.metrics["none/ate"].value > 0.5
    screw = {name for name in BASELINES if "constant_velocity" in name}  # the path is one
    assert max(found[name] for name in screw) < 1e-5
    assert min(found[name] for name in BASELINES - screw) > 0.1


def estimate(noise):
    """The reference's case P1: the helix moved, with known noise."""
    turn, shift = rotation(0, 0.5), torch.tensor([1.0, 2, 3], dtype=torch.float64)
    wobble = [torch.tensor([math.sin(i), math.cos(2 * i), math.sin(3 * i)], dtype=torch.float64) for i in range(8)]
    return [
        pose(
            turn @ one[:3, :3] @ rotation(1, noise * 0.02 * i),
            0.5 * turn @ (one[:3, 3] + noise * 0.01 * wobble[i]) + shift,
        )
        for i, one in enumerate(helix(8))
    ]


def test_the_values_of_evo_come_out(tmp_path):
    scenes = {"a": video(0, 8)}
    known, truth = estimate(noise=1), helix(8)
    from_first = torch.stack([invert_pose(known[0]) @ one for one in known])
    start = trajectory_errors(from_first, torch.stack([invert_pose(truth[0]) @ one for one in truth]), alignment="none")
    found = values(evaluated(CameraPose(Knows(scenes, move=lambda _, index: known[index])), data(scenes), tmp_path))
    expected = {"": (0.010668, 0.019130), "se3/": (0.332899, 0.158553), "none/": (float(start.ate), 0.158553)}
    for prefix, (ate, translation) in expected.items():
        assert found[f"{prefix}ate"] == pytest.approx(ate, abs=2e-6)
        assert found[f"{prefix}rpe_translation"] == pytest.approx(translation, abs=2e-6)
        assert found[f"{prefix}rpe_rotation"] == pytest.approx(1.785527, abs=2e-6)


def test_the_mean_over_videos_has_no_weights(tmp_path):
    scenes = {"a": video(0, 8), "b": video(1, 4)}
    known = estimate(noise=1)
    result = evaluated(CameraPose(Knows(scenes, move=lambda _, index: known[index])), data(scenes), tmp_path)
    rows = [row["values"]["ate"] for row in result.settings["sequences"]]
    assert rows[0] != pytest.approx(rows[1], rel=0.01)
    assert result.metrics["ate"].value == pytest.approx(sum(rows) / 2)
    assert result.metrics["ate"].stderr == pytest.approx(abs(rows[0] - rows[1]) / 2)


class TwoPoses(Knows):
    """Its second source of poses knows the truth, the first does not."""

    def step(self, images):
        class Frame(SavedFrame):
            ray_camera_to_world = super(TwoPoses, self).step(images)[0].camera_to_world

        (one,) = super().step(images)
        self.calls.pop()
        return [Frame(one.depth, one.camera_to_world @ one.camera_to_world, one.intrinsics)]


def test_both_poses_are_scored_from_one_pass(tmp_path):
    model = TwoPoses(three())
    found = values(evaluated(CameraPose(model), data(three()), tmp_path))
    assert len(model.calls) == 3 + 15
    assert max(found[f"rays/{error}"] for error in ERRORS) < 1e-5
    assert min(found[error] for error in ERRORS) > 0.05
    assert {"rays/se3/ate", "rays/none/rpe_rotation"} <= set(found)


class LostRays(TwoPoses):
    """The second source has no pose for the first frame."""

    def step(self, images):
        (one,) = super().step(images)
        if images[0, 1, 0, 0] == 0:
            type(one).ray_camera_to_world = torch.full((4, 4), math.nan)
        return [one]


def test_the_status_is_that_of_the_main_errors(tmp_path):
    result = evaluated(CameraPose(LostRays({"a": video(0, 5)})), data({"a": video(0, 5)}), tmp_path)
    (row,) = result.settings["sequences"]
    assert (row["status"], row["reason"]) == ("scored", "")
    assert math.isfinite(result.metrics["ate"].value)
    assert math.isnan(result.metrics["rays/ate"].value)
    assert "rays/ate has no value: the predicted pose of frame 0 is not finite" in row["details"]["note"]
    lost = Knows({"a": video(0, 5)}, move=lambda one, index: one * math.nan if index == 3 else one)
    (row,) = evaluated(CameraPose(lost), data({"a": video(0, 5)}), tmp_path / "lost").settings["sequences"]
    assert (row["status"], row["reason"]) == ("not finite", "the predicted pose of frame 3 is not finite")
    assert row["details"]["note"] == ""


def test_baselines_are_what_they_say():
    truth = torch.stack(helix(6))
    assert torch.equal(baseline_poses(truth, "identity"), torch.eye(4, dtype=torch.float64).repeat(6, 1, 1))
    first = invert_pose(truth[0]) @ truth[1]
    extended = baseline_poses(truth, "constant_velocity")
    torch.testing.assert_close(extended[5], torch.linalg.matrix_power(first, 5))
    late = baseline_poses(truth, "previous_motion")
    assert torch.equal(late[0], late[1])
    torch.testing.assert_close(late[2:], invert_pose(truth[0]) @ truth[1:-1])
    straight = torch.stack([pose(rotation(2, 0.0), (0.2 * i, 0.1 * i, 0)) for i in range(5)])
    for baseline, exact in (("constant_velocity", True), ("identity", False)):
        errors = trajectory_errors(baseline_poses(straight, baseline), straight)
        assert (float(errors.rpe_translation) < 1e-9) is exact
    assert len(baseline_poses(truth[:1], "constant_velocity")) == 1


def test_an_unknown_baseline_is_refused(no_type_checks):
    with pytest.raises(ValueError, match="baseline must be one of identity, constant_velocity, previous_motion"):
        baseline_poses(torch.stack(helix(3)), "none")


def test_reference_poses_that_are_not_known_are_left_out(tmp_path):
    poses = helix(6)
    poses[2] = torch.full((4, 4), -math.inf, dtype=torch.float64)
    scenes = {"a": video(0, 6, poses=poses)}
    model = Knows({"a": video(0, 6)}, move=lambda one, index: one * math.nan if index == 2 else one)
    result = evaluated(CameraPose(model), data(scenes), tmp_path)
    assert result.metrics["ate"].value < 1e-6
    assert result.settings["sequences"][0]["status"] == "scored"


def test_without_alignment_the_first_known_camera_is_the_start(tmp_path):
    """Whatever the world of the prediction is, and although the truth of the first frame is not known."""
    poses = helix(6)
    poses[0] = torch.full((4, 4), math.nan, dtype=torch.float64)
    scenes, world = {"a": video(0, 6, poses=poses)}, pose(rotation(0, 0.7), (5.0, 6, 7))
    model = Knows({"a": video(0, 6)}, move=lambda one, index: world @ one)
    found = values(evaluated(CameraPose(model, alignments=("none",)), data(scenes), tmp_path))
    assert max(found[error] for error in ERRORS) < 1e-6
    assert found["ate_constant_velocity"] < 1e-5
    assert found["ate_identity"] > 0.1


class NoDepth(Listed):
    """Depth is refused, as if every map were broken."""

    def read(self, sequence, positions):
        raise MediaReadError("depth.png", "is broken")

    def read_without_depth(self, sequence, positions):
        return super().read(sequence, positions)


def test_depth_is_neither_needed_nor_read(tmp_path):
    source = EvaluationDataModule(test=GeometryVideos(NoDepth(three()), images=None), batch_size=1)
    result = evaluated(CameraPose(Knows(three())), source, tmp_path)
    assert (result.num_samples, result.skipped) == (3, 0)
    assert result.metrics["ate"].value < 1e-5


def test_a_data_set_without_poses_is_refused_before_the_model_runs(tmp_path):
    reader, model = Listed(three()), Knows(three())
    reader.has_poses = False
    source = EvaluationDataModule(test=GeometryVideos(reader, images=None), batch_size=1)
    with pytest.raises(ValueError, match="camera_pose: Listed has no true poses to compare with"):
        evaluated(CameraPose(model), source, tmp_path)
    assert model.calls == []
    assert not any(one.has_poses for one in (KITTIDepth, NYUv2Video))


def test_bad_alignments_are_refused():
    with pytest.raises(ValueError, match="alignments must be different ones"):
        CameraPose(Knows(three()), alignments=("sim3", "sim3"))
