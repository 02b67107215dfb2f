import json
import math

import pytest
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from processes import gloo, run_ranks
from reconstructed_videos import plane_video
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from omnistream.callbacks import ReconstructionPlots
from omnistream.report import ReportPage
from omnistream.report.reconstructions import add_reconstructions, find_sequences

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*logger.*:UserWarning")
ERRORS = {"a/b": 0.3, "c": 0.1, "d": 0.5, "e": 0.2, "f": 0.4}
FILES = {"depth.png", "path.png", "errors.png", "points.ply", "depth.mp4", "sequence.json"}


class Streamed(LightningModule):
    """Returns the videos of a batch of names; a name that is unknown has no error."""

    def test_step(self, batch, batch_idx):
        videos = [plane_video(name, error=ERRORS.get(name, math.nan)) for name in batch]
        return videos[0] if len(videos) == 1 else videos


class Silent(LightningModule):
    """Returns nothing."""

    def test_step(self, batch, batch_idx):
        pass


def evaluate(folder, module, names, logger=False, batch_size=2, **options):
    callback = ReconstructionPlots(**options)
    run = Trainer(
        accelerator="cpu", callbacks=[callback], default_root_dir=folder, logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.test(module, DataLoader(names, batch_size), verbose=False)
    return callback


def test_files_of_the_worst_and_best_remain(tmp_path):
    callback = evaluate(tmp_path, Streamed(), list(ERRORS), max_sequences=3)
    assert callback.folder == tmp_path / "reconstruction"
    assert sorted(path.name for path in callback.folder.iterdir()) == ["c", "d", "f"]
    assert {path.name for path in (callback.folder / "d").iterdir()} == FILES
    assert [one.name for one in find_sequences(callback.folder)] == ["d", "c", "f"]  # worst, best, second worst
    with Image.open(callback.folder / "d" / "depth.png") as image:
        image.load()
        assert image.info["Title"] == "d: depth"
        assert "one colour scale" in image.info["Description"]


def test_one_video_per_step_and_what_is_not_wanted(tmp_path):
    callback = evaluate(tmp_path, Streamed(), ["a/b"], batch_size=1, point_cloud=False, video=False)
    assert {path.name for path in (callback.folder / "a-b").iterdir()} == FILES - {"points.ply", "depth.mp4"}
    assert find_sequences(callback.folder)[0].name == "a/b"


def test_an_evaluation_of_depth_alone_has_no_path(tmp_path):
    class Depth(LightningModule):
        def test_step(self, batch, batch_idx):
            return plane_video(camera_to_world=None, true_camera_to_world=None, intrinsics=None, frame_errors={})

    callback = evaluate(tmp_path, Depth(), ["x"])
    assert {path.name for path in (callback.folder / "plane").iterdir()} == {"depth.png", "depth.mp4", "sequence.json"}


def test_an_unknown_error_counts_as_the_worst(tmp_path):
    callback = evaluate(tmp_path, Streamed(), ["c", "unknown", "d"], max_sequences=1)
    (one,) = find_sequences(callback.folder)
    assert (one.name, one.error) == ("unknown", math.inf)
    assert json.loads((callback.folder / "unknown" / "sequence.json").read_text())["error"] is None


def test_an_earlier_test_leaves_nothing(tmp_path):
    (tmp_path / "reconstruction" / "mine").mkdir(parents=True)
    evaluate(tmp_path, Streamed(), ["a/b", "c"])
    evaluate(tmp_path, Streamed(), ["d"])
    assert sorted(path.name for path in (tmp_path / "reconstruction").iterdir()) == ["d", "mine"]


def test_plots_are_logged(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    callback = evaluate(tmp_path, Streamed(), list(ERRORS), logger=logger, max_sequences=2)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path / "run" / "v"))
    events.Reload()
    expected = {f"test/reconstruction/{name}/{kind}" for name in "cd" for kind in ("depth", "path", "errors")}
    assert set(events.Tags()["images"]) == expected
    with Image.open(callback.folder / "d" / "path.png") as image:
        logged = events.Images("test/reconstruction/d/path")[0]
        assert (logged.width, logged.height) == image.size


def test_page_shows_the_worst_and_best_first(tmp_path):
    evaluate(tmp_path, Streamed(), list(ERRORS), max_sequences=4)
    page = ReportPage("T")
    add_reconstructions(page, tmp_path / "reconstruction", "video_depth/x")
    add_reconstructions(page, tmp_path / "nothing", "nothing")
    html = page.html()
    headings = [f"video_depth/x: {text}: Abs Rel" for text in ("Worst: d", "Best: c", "2. worst: f", "2. best: e")]
    places = [html.find(text) for text in headings]
    assert -1 not in places
    assert places == sorted(places)
    assert html.count('src="data:image/png;base64,') == 12
    assert str((tmp_path / "reconstruction" / "d" / "points.ply").resolve()) in html
    assert "nothing" not in html


def test_a_module_without_videos_is_named(tmp_path):
    with pytest.warns(UserWarning, match="no effect: no test step returned a ReconstructedVideo"):
        evaluate(tmp_path, Silent(), ["x"])
    with pytest.raises(ValueError, match="at least 1, got 0 and 6"):
        ReconstructionPlots(max_sequences=0)


def _half(rank, folder):
    with gloo(rank, folder):
        trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=folder, enable_checkpointing=False)
        callback, module = ReconstructionPlots(max_sequences=2), Streamed()
        callback.on_test_start(trainer, module)
        dist.barrier()
        names = list(ERRORS)[rank::2]  # 0.3, 0.5, 0.4 and 0.1, 0.2
        callback.on_test_batch_end(trainer, module, [plane_video(name, error=ERRORS[name]) for name in names], None, 0)
        dist.barrier()
        callback.on_test_end(trainer, module)


def test_the_worst_and_best_of_all_processes_remain(tmp_path):
    (tmp_path / "gloo").mkdir()
    run_ranks(_half, tmp_path)
    assert sorted(path.name for path in (tmp_path / "reconstruction").iterdir()) == ["c", "d"]


def test_no_sequence_is_drawn_that_cannot_remain(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(ReconstructionPlots, "_draw", lambda self, video, one: drawn.append(one.name))
    callback = ReconstructionPlots(max_sequences=2)
    callback.folder = tmp_path
    monkeypatch.setattr("omnistream.callbacks.reconstruction_plots.shutil.rmtree", lambda path: None)
    for name in ("d", "c", "a/b", "e", "f"):
        callback._consider(plane_video(name, error=ERRORS[name]))
    assert drawn == ["d", "c"]
