"""`omnistream test -c video_depth/world --model.checkpoint X`: what a user types, and what is refused."""

import json
import sys

import pytest
import torch
from listed_videos import save
from real_model import MODEL

from omnistream.cli import main
from omnistream.data import GeometryVideos
from omnistream.data.world import WorldVideos
from omnistream.metrics import sequence_depth_errors
from omnistream.trained import load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SCENES = "class_path: omnistream.data.world.WorldScenes, init_args: {num_frames: 2, size: [32, 32]"
FIT = f"""\
{MODEL}\
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      geometry:
        train: {{{SCENES}, num_samples: 4}}}}
trainer:
  accelerator: cpu
  max_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: ., name: run}}}}
"""
READER = "--data.test.init_args.reader.init_args"
SMALL = [f"{READER}.num_videos", "2", f"{READER}.num_frames", "3", f"{READER}.size", "[32, 32]"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run that trained geometry for one step."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.yaml").write_text(FIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["omnistream"])
        main(["fit", "-c", "run.yaml", "--model.tasks.ssl", "null"])
    return folder / "run"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    return lambda *arguments: main([*arguments, *SMALL, *QUIET])


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_run_folder_is_all_that_is_given(command, run, tmp_path):
    command("test", "-c", "camera_pose/world", "--model.checkpoint", str(run), "--model.geometry.session.window", "2")
    folder = tmp_path / "runs" / "camera_pose_world" / "test"
    found = results(folder)
    assert found["protocol"] == "camera_pose/world"
    assert {"ate", "se3/ate", "none/ate", "rays/ate", "ate_identity", "rpe_rotation_previous_motion"} <= set(
        found["metrics"]
    )
    assert found["num_samples"] == 2
    assert found["model"]["class"] == "TrainedStream"
    assert found["model"]["name"] == "vit_nano"
    (checkpoint,) = run.rglob("*.ckpt")
    assert found["checkpoint"]["path"] == str(checkpoint)
    assert found["settings"]["model"]["session"]["window"] == 2
    assert len(list((folder / "sequences").glob("*.json"))) == 2
    assert (folder / "reconstruction").is_dir()
    before = results(folder)["settings"]["sequences"]
    command("test", "-c", "camera_pose/world", "--model.checkpoint", str(checkpoint), "--model.geometry.session.window",
            "2", "--model.resume", str(folder))  # fmt: skip
    assert results(folder)["settings"]["sequences"] == before  # the very same seconds: nothing was computed again


def test_depth_is_that_of_the_models_own_stream(command, run, tmp_path):
    command("test", "-c", "video_depth/world", "--model.checkpoint", str(run))
    found = results(tmp_path / "runs" / "video_depth_world" / "test")
    model, errors = load(run), []
    videos = GeometryVideos(WorldVideos(2, 3, size=(32, 32)), images=None)
    for video in (videos[0], videos[1]):
        frames = list(video.frames())
        depth = model.infer(torch.stack([frame.image for frame in frames])).depth
        errors.append(sequence_depth_errors(depth, torch.stack([frame.depth for frame in frames]), "metric"))
    total = sum(float(one.errors.abs_rel) * one.num_valid for one in errors) / sum(one.num_valid for one in errors)
    # Not after `scale`: where the prediction is almost constant, its ten steps magnify rounding errors to some percent.
    assert found["metrics"]["metric/abs_rel"]["value"] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test"], "test needs weights: give --model.checkpoint with a checkpoint or run folder (or --random"),
        (["test", "--model.checkpoint", "nowhere.ckpt"], "nowhere.ckpt"),
        (["test", "--model.resume", "nowhere", "--random"], "nothing to resume at nowhere"),
        (
            ["fit", "--trainer.max_steps", "1"],
            "video_depth/world has nothing to train or to validate",
        ),
    ],
)
def test_mistakes_are_one_line(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        command(arguments[0], "-c", "video_depth/world", *arguments[1:])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("omnistream: error: ")
    assert message in error


def test_ckpt_path_is_not_where_the_weights_go(command, run, capsys):
    (checkpoint,) = run.rglob("*.ckpt")
    with pytest.raises(SystemExit):
        command("test", "-c", "video_depth/world", "--ckpt_path", str(checkpoint))
    assert "the checkpoint of an evaluated model goes to --model.checkpoint" in capsys.readouterr().err


def test_random_weights_are_for_trying(command, tmp_path, capsys):
    command("test", "-c", "video_depth/world", "--random")
    assert "the weights of this model are random" in capsys.readouterr().err
    assert results(tmp_path / "runs" / "video_depth_world" / "test")["model"]["name"] == "vit_nano"


def test_files_of_another_program_are_evaluated(command, tmp_path):
    videos = GeometryVideos(WorldVideos(2, 3, size=(32, 32)), images=None)
    for video in (videos[0], videos[1]):
        save(tmp_path / "predictions" / video.name, list(video.frames()))
    saved = ["--model.geometry", "omnistream.evaluation.SavedVideos", "--model.geometry.folder", "predictions"]
    command("test", "-c", "camera_pose/world", *saved)
    found = results(tmp_path / "runs" / "camera_pose_world" / "test")
    assert found["model"]["class"] == "SavedVideos"
    assert found["metrics"]["ate"]["value"] < 1e-5
    assert found["metrics"]["ate_identity"]["value"] > 0.01
    assert "rays/ate" not in found["metrics"]


def test_points_of_a_trained_model_are_scored_and_plotted(command, run, tmp_path):
    command("test", "-c", "point_map/world", "--model.checkpoint", str(run))
    folder = tmp_path / "runs" / "point_map_world" / "test"
    found = results(folder)
    assert found["protocol"] == "point_map/world"
    assert {"accuracy", "completeness", "f_score", "accuracy_constant"} <= set(found["metrics"])
    assert (found["settings"]["voxel"], found["settings"]["threshold"]) == (0.05, 0.25)
    assert len(list((folder / "reconstruction").rglob("errors.png"))) == 2
