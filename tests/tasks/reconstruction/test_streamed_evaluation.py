"""What all evaluations of streams share: order of frames, account of every video, and tests that go on."""

import json
import math
import warnings

import lightning
import pytest
import torch
from lightning import Callback
from listed_videos import Knows, Listed, data, evaluated, helix, pose, rotation, save, three, video

from omnistream.callbacks import ReconstructionPlots
from omnistream.data import EvaluationDataModule, FrameChoice, GeometryVideos
from omnistream.data.media import MediaReadError
from omnistream.evaluation import FrameGeometry, SavedVideos, StreamingGeometry
from omnistream.evaluation.saved_predictions import SavedFrame
from omnistream.tasks.reconstruction import CameraPose, ReconstructedVideo, VideoDepth
from omnistream.tasks.reconstruction.records import file_name

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STREAMS = [(0, 5), (1, 4), (2, 6)]


def in_order(*streams):
    """Calls of a model that sees videos frame by frame."""
    return [call for number, count in streams for call in ("reset", *((number, index, 1) for index in range(count)))]


def metrics(result):
    return {key: metric.value for key, metric in result.metrics.items()}


def same_metrics(result, expected):
    assert metrics(result) == metrics(expected)  # to the last bit
    assert not any(math.isnan(value) for value in metrics(result).values())


@pytest.mark.parametrize("evaluation", [VideoDepth, CameraPose])
def test_every_video_is_one_stream_seen_frame_by_frame(tmp_path, evaluation):
    model = Knows(three())
    result = evaluated(evaluation(model), data(three()), tmp_path)
    assert model.calls == in_order(*STREAMS)
    assert (result.num_samples, result.skipped) == (3, 0)
    assert [row["num_frames"] for row in result.settings["sequences"]] == [5, 4, 6]
    assert result.settings["resets"] == "before every video"
    assert (result.settings["num_frames"], result.settings["frames_per_step"]) == (15, 1)
    assert result.settings["videos"]["frames"] == {"start": 0, "stop": None, "stride": 1, "count": None}
    assert result.model["class"] == "Knows"
    assert len(list((tmp_path / "sequences").glob("*.json"))) == 3


class Outputs(Callback):
    """Keeps what test steps return."""

    def __init__(self):
        self.found = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.found.append(outputs)


def test_a_few_frames_are_kept_for_plots(tmp_path):
    outputs = Outputs()
    scenes = {"a": video(0, 9)}
    model = Knows(scenes, lambda depth, index: 2 * depth)
    evaluated(VideoDepth(model, num_plotted_frames=3), data(scenes), tmp_path, [outputs])
    (found,) = outputs.found
    assert isinstance(found, ReconstructedVideo)
    assert (found.name, found.positions) == ("a", [0, 4, 8])
    assert torch.equal(found.images, torch.stack([scenes["a"][i].image for i in (0, 4, 8)]))
    torch.testing.assert_close(
        found.depth, torch.stack([scenes["a"][i].depth for i in (0, 4, 8)]), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(found.true_depth, found.depth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.camera_to_world, found.true_camera_to_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.true_camera_to_world, torch.stack(helix(9)).float())
    assert found.frame_errors["abs_rel"].shape == (9,)
    assert float(found.frame_errors["abs_rel"].max()) < 1e-5
    outputs.found.clear()
    evaluated(CameraPose(Knows(scenes), num_plotted_frames=20), data(scenes), tmp_path, [outputs])
    assert outputs.found[0].positions == list(range(9))
    assert float(outputs.found[0].frame_errors["position"].max()) < 1e-6


@pytest.mark.parametrize("stop", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("evaluation", [VideoDepth, CameraPose])
def test_a_test_that_was_stopped_goes_on_at_the_next_video(tmp_path, stop, evaluation, caplog):
    noise = {"depth": lambda depth, index: depth + index, "move": lambda pose, index: pose @ pose}
    expected = evaluated(evaluation(Knows(three(), **noise)), data(three()), tmp_path / "whole")
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        evaluated(evaluation(Knows(three(), stop_at=(1, 2, stop), **noise)), data(three()), tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped" / "sequences").iterdir()] == [file_name("set/a")]
    model = Knows(three(), **noise)
    with caplog.at_level("INFO"):
        result = evaluated(evaluation(model, resume=str(tmp_path / "stopped")), data(three()), tmp_path / "resumed")
    assert model.calls == in_order((1, 4), (2, 6))
    assert "1 of 3 videos are taken over" in caplog.text
    same_metrics(result, expected)
    assert [row["num_frames"] for row in result.settings["sequences"]] == [5, 4, 6]
    assert len(list((tmp_path / "resumed" / "sequences").glob("*.json"))) == 3
    again = Knows(three(), **noise)
    same_metrics(
        evaluated(evaluation(again, resume=str(tmp_path / "resumed")), data(three()), tmp_path / "resumed"), expected
    )
    assert again.calls == []


@pytest.mark.parametrize("changed", ["weights", "options", "frames"])
def test_nothing_is_taken_over_from_another_evaluation(tmp_path, changed, caplog):
    evaluated(VideoDepth(Knows(three())), data(three()), tmp_path)
    model = Knows(three(), weight=1.0 if changed == "weights" else 0.0)
    source = data(three())
    if changed == "frames":
        videos = GeometryVideos(Listed(three()), frames=FrameChoice(count=4), images=None)
        source = EvaluationDataModule(test=videos, batch_size=1)
    limit = 4.0 if changed == "options" else None
    with caplog.at_level("INFO"):
        evaluated(VideoDepth(model, resume=str(tmp_path), max_depth=limit), source, tmp_path / "other")
    taken = 1 if changed == "frames" else 0  # one video has four frames
    assert model.calls.count("reset") == 3 - taken
    assert f"{taken} of 3 videos are taken over" in caplog.text


def test_a_folder_without_outcomes_cannot_be_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing to resume at .*empty: no sequences/\*.json"):
        evaluated(VideoDepth(Knows(three()), resume=str(tmp_path / "empty")), data(three()), tmp_path)


def test_files_of_videos_that_are_no_longer_there_are_removed(tmp_path):
    evaluated(CameraPose(Knows(three())), data(three()), tmp_path)
    fewer = {"set/a": three()["set/a"]}
    evaluated(CameraPose(Knows(fewer)), data(fewer), tmp_path)
    assert [path.name for path in (tmp_path / "sequences").iterdir()] == [file_name("set/a")]


def test_names_of_files_are_safe_and_differ():
    assert file_name("alley_1") == "alley_1.json"
    names = [file_name(name) for name in ("a/b", "a-b", "a\\b", "../a", "..", "a b", "x" * 300, "x" * 301)]
    assert len(set(names)) == len(names)
    assert not any(set("/\\ ") & set(name) or name.startswith(".") or len(name) > 160 for name in names)


def test_a_broken_file_is_named_and_counted(tmp_path):
    scenes = three()
    scenes["set/b"][2] = MediaReadError("set/b/0002.png", "cannot be decoded")
    model = Knows(scenes)
    result = evaluated(VideoDepth(model), data(scenes), tmp_path)
    assert (result.num_samples, result.skipped) == (2, 1)
    row = result.settings["sequences"][1]
    assert (row["name"], row["status"], row["reason"]) == ("set/b", "unreadable", "set/b/0002.png: cannot be decoded")
    assert row["num_frames"] in (1, 2)
    without = {name: frames for name, frames in three().items() if name != "set/b"}
    same_metrics(result, evaluated(VideoDepth(Knows(without)), data(without), tmp_path / "without"))


def test_an_incomplete_benchmark_is_named_in_the_terminal(tmp_path):
    scenes = three()
    scenes["set/b"][2] = MediaReadError("set/b/0002.png", "cannot be decoded")
    videos = GeometryVideos(Listed(scenes), ["set/a", "set/b", "set/c", "set/d"], images=None)
    source = EvaluationDataModule(test=videos, batch_size=1)
    assert videos.settings()["picked"] == ["set/a", "set/b", "set/c", "set/d"]
    lacks = r"video_depth: the metrics are of 2 of 4 videos; left out: set/d \(no files\), set/b \(unreadable\)"
    with pytest.warns(UserWarning, match=lacks):
        result = evaluated(VideoDepth(Knows(scenes)), source, tmp_path)
    assert result.settings["num_frames"] == 5 + 6  # not those of the video that cannot be read
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluated(VideoDepth(Knows(three())), data(three()), tmp_path)
    assert not any("left out" in str(one.message) for one in caught)


def test_a_prediction_that_is_not_finite_makes_the_mean_nan(tmp_path):
    def broken(value):
        def change(depth, index):
            depth[8, 3] = value if index == 3 and depth.shape == (12, 16) else depth[8, 3]
            return depth

        return change

    for value in (math.nan, math.inf):
        scenes = {"a": video(0, 5), "b": video(1, 3)}
        folder = tmp_path / str(value)
        result = evaluated(VideoDepth(Knows(scenes, broken(value))), data(scenes), folder)
        assert all(math.isnan(found) for key, found in metrics(result).items() if key != "abs_rel_constant")
        assert (result.num_samples, result.skipped) == (2, 0)
        row = result.settings["sequences"][0]
        assert (row["status"], row["reason"]) == ("not finite", "the predicted depth of frame 3 is not finite")
        assert result.settings["sequences"][1]["status"] == "scored"
        model = Knows(scenes, broken(value))
        again = evaluated(VideoDepth(model, resume=str(folder)), data(scenes), folder)
        assert model.calls == []
        assert math.isnan(again.metrics["abs_rel"].value)


def test_a_pose_that_is_not_finite_makes_the_mean_nan(tmp_path):
    scenes = {"a": video(0, 5), "b": video(1, 3)}
    model = Knows(scenes, move=lambda pose, index: pose * math.nan if index == 4 else pose)
    result = evaluated(CameraPose(model), data(scenes), tmp_path)
    assert math.isnan(result.metrics["ate"].value)
    assert result.metrics["ate_identity"].value > 0.1
    assert result.settings["sequences"][0]["status"] == "not finite"
    assert result.settings["sequences"][0]["reason"] == "the predicted pose of frame 4 is not finite"
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["ate"]["value"] == "nan"


def test_videos_without_truth_are_named_and_counted(tmp_path):
    still = [pose(rotation(2, 0.1 * i), (1, 2, 3)) for i in range(4)]
    lost = [helix(4)[0], helix(4)[1], *torch.tensor([-math.inf, math.nan]).double().view(2, 1, 1).expand(2, 4, 4)]
    scenes = three() | {"d": video(3, 4, poses=still), "e": video(4, 4, poses=lost)}
    result = evaluated(CameraPose(Knows(scenes)), data(scenes), tmp_path)
    assert (result.num_samples, result.skipped) == (3, 2)
    rows = {row["name"]: row for row in result.settings["sequences"]}
    assert (rows["d"]["status"], rows["d"]["reason"]) == ("no truth", "the reference does not move")
    assert rows["e"]["status"] == "no truth"
    assert rows["e"]["reason"] == "the reference has 2 known poses; 3 are needed"
    same_metrics(result, evaluated(CameraPose(Knows(three())), data(three()), tmp_path / "three"))
    empty = three()
    for frame in empty["set/c"]:
        frame.valid[:] = False
    result = evaluated(VideoDepth(Knows(empty)), data(empty), tmp_path / "depth")
    assert result.skipped == 1
    assert result.settings["sequences"][2]["reason"] == "no pixel has a true depth to compare with"
    with pytest.raises(ValueError, match="none of 1 videos could be scored: d: no truth, the reference does not move"):
        evaluated(CameraPose(Knows({"d": scenes["d"]})), data({"d": scenes["d"]}), tmp_path / "none")


def test_saved_predictions_are_scored_like_a_model(tmp_path):
    for name, frames in three().items():
        save(tmp_path / "saved" / name, frames)
    for evaluation in (VideoDepth, CameraPose):
        found = evaluated(evaluation(SavedVideos(tmp_path / "saved")), data(three()), tmp_path / "test")
        expected = metrics(evaluated(evaluation(Knows(three())), data(three()), tmp_path / "model"))
        for name, value in metrics(found).items():
            if name != "none/ate":  # the worlds differ
                assert value == pytest.approx(expected[name], abs=1e-6), name


PARTS = {"depth": (VideoDepth, ["poses.txt", "intrinsics.txt"]), "poses": (CameraPose, ["depth", "intrinsics.txt"])}


@pytest.fixture(params=PARTS)
def one_part(request, tmp_path):
    """The part that is saved alone, and where."""
    for name, frames in three().items():
        save(tmp_path / "whole" / name, frames)
        save(tmp_path / "part" / name, frames)
        for other in PARTS[request.param][1]:
            (tmp_path / "part" / name / other).rename(tmp_path / f"{name.replace('/', '-')}-{other}")
    return request.param, tmp_path / "part"


def test_the_scored_part_alone_is_enough(tmp_path, one_part):
    part, folder = one_part
    evaluation, _ = PARTS[part]
    whole = evaluated(evaluation(SavedVideos(tmp_path / "whole")), data(three()), tmp_path / "one")
    found = evaluated(evaluation(SavedVideos(folder)), data(three()), tmp_path / "other", [ReconstructionPlots()])
    same_metrics(found, whole)
    assert {row["status"] for row in found.settings["sequences"]} == {"scored"}
    drawn = {path.name for path in (tmp_path / "other" / "reconstruction" / "set-a").iterdir()}
    own = {"depth": {"depth.png", "depth.mp4"}, "poses": {"path.png"}}
    assert drawn == {"errors.png", "sequence.json"} | own[part]


def test_a_missing_part_that_is_scored_is_named(tmp_path, one_part):
    part, folder = one_part
    needed, file = {"depth": ("poses", "poses.txt"), "poses": ("depth", r"depth/\*.npy")}[part]
    evaluation, _ = PARTS[needed]
    with pytest.raises(ValueError, match=rf"^set/a: .* needs predicted {needed}; there is no {folder}/set/a/{file}"):
        evaluated(evaluation(SavedVideos(folder)), data(three()), tmp_path / "test")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (4, r"set/c, frame 4: .*set/c has predictions of 4 frames; frame 4 was asked"),
        (5, r"set/c, frame 5: .*has predictions of 5 frames"),
        (None, r"set/c: there are 1 more predictions than its 6 frames"),
    ],
)
def test_another_number_of_predictions_names_video_and_frame(tmp_path, count, message):
    for name, frames in three().items():
        save(tmp_path / name, frames)
    other = tmp_path / "other"
    save(other / "set" / "c", video(2, 7), count)
    only = {"set/c": three()["set/c"]}
    with pytest.raises(ValueError, match=message):
        evaluated(VideoDepth(SavedVideos(other)), data(only), tmp_path / "test")


class Returns(Knows):
    """Returns something else for the third frame."""

    def __init__(self, scenes, wrong):
        super().__init__(scenes)
        self._wrong = wrong

    def step(self, images):
        found = super().step(images)
        return self._wrong(found[0]) if self.calls[-1][1] == 2 else found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda one: [one, one], "the model gave 2 predictions for one frame"),
        (lambda one: [], "the model gave 0 predictions for one frame"),
        (lambda one: [one._replace(depth=one.depth[:-1])], "shape (11, 16), those before have 12 x 16"),
        (lambda one: [one._replace(depth=one.depth[None])], "shape (1, 12, 16)"),
        (lambda one: [one._replace(camera_to_world=one.camera_to_world[:3])], "pose has the shape (3, 4), not (4, 4)"),
        (lambda one: [one._replace(intrinsics=torch.ones(4))], "intrinsics has the shape (4,), not (3, 3)"),
    ],
)
def test_a_prediction_that_does_not_fit_names_video_and_frame(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=r"^set/a, frame 2: ") as error:
        evaluated(VideoDepth(Returns(three(), wrong)), data(three()), tmp_path)
    assert message in str(error.value)


def test_a_choice_of_frames_that_leaves_none_is_said(tmp_path):
    videos = GeometryVideos(Listed(three()), frames=FrameChoice(start=5), images=None)
    source = EvaluationDataModule(test=videos, batch_size=1)
    result = evaluated(VideoDepth(Knows(three())), source, tmp_path)
    assert (result.num_samples, result.skipped) == (1, 2)
    assert result.settings["sequences"][0]["reason"] == "none of its 5 frames is among the chosen ones"


def test_batches_of_several_videos_are_refused(tmp_path):
    source = EvaluationDataModule(test=GeometryVideos(Listed(three()), images=None), batch_size=2)
    with pytest.raises(ValueError, match=r"needs batches of one video, got 2; set data\.batch_size to 1"):
        evaluated(VideoDepth(Knows(three())), source, tmp_path)


def test_only_models_that_stream_are_evaluated():
    with pytest.raises(ValueError, match=r"must have reset\(\) and step\(images\).*Identity has not"):
        VideoDepth(torch.nn.Identity())
    with pytest.raises(ValueError, match=r"Knows loads no checkpoint; leave out --model\.checkpoint"):
        VideoDepth(Knows(three()), "somewhere")
    with pytest.raises(ValueError, match="num_plotted_frames must be at least 1"):
        VideoDepth(Knows(three()), num_plotted_frames=0)


def test_there_is_only_a_test(tmp_path):
    trainer = lightning.Trainer(accelerator="cpu", default_root_dir=str(tmp_path), logger=False)
    with pytest.raises(ValueError, match="video_depth has nothing to train or to validate; run omnistream test"):
        trainer.fit(VideoDepth(Knows(three())), data(three()))


def test_a_lack_of_missing_and_broken_sequences_is_said(tmp_path):
    reader = Listed(three())
    reader.broken = [("set/d", "has no frames")]
    videos = GeometryVideos(reader, images=None)
    assert videos.missing == 1
    result = evaluated(VideoDepth(Knows(three())), EvaluationDataModule(test=videos, batch_size=1), tmp_path)
    assert (result.num_samples, result.skipped) == (3, 1)
    assert result.settings["videos"]["broken"] == ["set/d: has no frames"]
    named = GeometryVideos(reader, ["set/a", "set/d"], images=None)
    result = evaluated(VideoDepth(Knows(three())), EvaluationDataModule(test=named, batch_size=1), tmp_path)
    assert (result.num_samples, result.skipped) == (1, 1)
    assert result.settings["videos"]["missing_sequences"] == ["set/d"]


def test_the_prediction_is_a_frame_geometry():
    assert isinstance(SavedFrame(torch.ones(1, 1), torch.eye(4), torch.eye(3)), FrameGeometry)
    assert isinstance(Knows(three()), StreamingGeometry)
