import json
import math

import numpy as np
import pytest
import torch

from omnistream.plots.curves import PALETTE, draw_curves, smooth
from omnistream.plots.logs import Series, read_scalars
from omnistream.plots.panels import panels


@pytest.fixture(scope="module")
def event_folder(tmp_path_factory):
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path_factory.mktemp("events")
    with SummaryWriter(folder) as writer:
        for step in range(1200):  # more than TensorBoard keeps by default of a sampled series
            writer.add_scalar("train/ssl/loss", 1 / (1 + step), step)
        writer.add_scalar("val/ssl/loss", 0.5, 3)
        writer.add_image("val/x", torch.zeros(3, 4, 4), 0)
    return folder


class TestRead:
    def test_events_are_read_completely(self, event_folder):
        scalars = read_scalars(event_folder)
        assert set(scalars) == {"train/ssl/loss", "val/ssl/loss"}
        assert scalars["train/ssl/loss"].steps == tuple(range(1200))
        assert np.allclose(scalars["train/ssl/loss"].values, [1 / (1 + step) for step in range(1200)])
        assert scalars["val/ssl/loss"] == Series((3,), (0.5,))

    def test_csv_with_gaps(self, tmp_path):
        (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,1,2.5,\n0,3,1.5,\n0,3,,1.75\n")
        scalars = read_scalars(tmp_path)
        assert scalars == {"train/loss": Series((1, 3), (2.5, 1.5)), "val/loss": Series((3,), (1.75,))}
        assert read_scalars(tmp_path / "metrics.csv") == scalars

    def test_jsonl_of_a_resumed_run_keeps_the_later_entry(self, tmp_path):
        rows = [{"step": 1, "train/loss": 3}, {"step": 2, "train/loss": 2}, {"step": 2, "train/loss": 1.0}]
        (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        assert read_scalars(tmp_path / "log.jsonl") == {"train/loss": Series((1, 2), (3.0, 1.0))}

    def test_what_cannot_be_read_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no TensorBoard"):
            read_scalars(tmp_path)
        with pytest.raises(FileNotFoundError, match="no log at"):
            read_scalars(tmp_path / "missing")
        (tmp_path / "x.txt").write_text("")
        with pytest.raises(ValueError, match=r"expected a \.csv or \.jsonl"):
            read_scalars(tmp_path / "x.txt")
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match="row 1 has no value for 'step'"):
            read_scalars(tmp_path / "x.csv")


def of(names):
    return {name: Series((0, 1), (1.0, 2.0)) for name in names}


def test_panels_are_tasks_then_rates():
    names = ["train/ssl/image/dino", "train/ssl/loss", "val/ssl/loss", "train/geometry/depth", "train/loss", "lr-Adam"]
    names += ["train/frames_per_second", "grad_norm/backbone", "epoch", "hp_metric", "train/captioning/loss_step"]
    names += ["val/geometry/abs_rel", "train/lr", "train/lr_backbone"]
    found = {panel.title: panel for panel in panels(of(names))}
    assert list(found) == [
        *("Captioning", "Geometry", "Geometry: metrics", "Self-supervision", "Self-supervision on images"),
        *("All tasks", "Learning rate", "Frames per second", "Gradient norm"),
    ]
    ssl = found["Self-supervision"]
    assert sorted((line.label, line.stage) for line in ssl.lines) == [("loss", "train"), ("loss", "val")]
    assert [line.label for line in found["Geometry: metrics"].lines] == ["abs rel"]
    assert [line.label for line in found["Learning rate"].lines] == ["lr-Adam", "heads", "backbone"]
    assert sum(len(panel.lines) for panel in found.values()) == len(names) - 2


def test_a_panel_without_a_curve_is_left_out():
    scalars = of(["train/a/loss"]) | {
        "val/a/accuracy": Series((5,), (1.0,)),
        "train/b/loss": Series((0, 1), (1.0, math.nan)),
    }
    assert [panel.title for panel in panels(scalars)] == ["A"]


class TestSmooth:
    def test_constant_stays_constant_from_the_start(self):
        assert np.allclose(smooth(np.full(10, 3.0), 3), 3.0)

    def test_closed_form(self):
        # Weights 0.5, 1, 0.5 of a Hann window; at the ends what is there counts.
        assert np.allclose(smooth(np.array([1.0, 2.0, 4.0]), 1), [2 / 1.5, (0.5 + 2 + 2) / 2, 5 / 1.5])

    def test_nothing_moves_along_the_steps(self):
        peak = np.exp(-((np.arange(101) - 40) ** 2) / 50)
        assert smooth(peak, 5).argmax() == 40

    def test_nan_is_skipped(self):
        result = smooth(np.array([math.nan, 1.0, math.inf, 1.0]), 1)
        assert np.allclose(result, 1.0)
        assert math.isnan(smooth(np.array([math.nan, math.nan, 1.0]), 1)[0])


def color_of(index):
    return [int(PALETTE[index][i : i + 2], 16) for i in (1, 3, 5)]


class TestDraw:
    def test_falling_loss_falls_in_the_plot(self):
        steps = tuple(range(100))
        image = draw_curves({"train/ssl/loss": Series(steps, tuple(1 - step / 100 for step in steps))}).astype(int)
        found = np.argwhere(np.abs(image - color_of(0)).max(axis=-1) < 8)
        left, right = found[found[:, 1] < found[:, 1].min() + 20], found[found[:, 1] > found[:, 1].max() - 20]
        assert left[:, 0].mean() < right[:, 0].mean() - 50

    def test_one_panel_per_group(self):
        one = draw_curves({"train/a/loss": Series((0, 1), (1.0, 2.0))})
        four = draw_curves({f"train/{task}/loss": Series((0, 1), (1.0, 2.0)) for task in "abcd"})
        assert four.shape[1] == 3 * one.shape[1]
        assert four.shape[0] > 1.8 * one.shape[0]

    def test_many_labels_cover_no_curve(self):
        terms = [f"a_long_name_{i}" for i in range(12)]
        image = draw_curves({f"train/a/{t}": Series((0, 9), (1.0 - i, 1.0 - i)) for i, t in enumerate(terms)})
        first, last = color_of(0), color_of(11)
        for color in (first, last):  # the highest and the lowest line are whole, wherever the legend is
            longest = (np.abs(image.astype(int) - color).max(axis=-1) < 8).sum(axis=1).max()
            assert longest > 250

    def test_survives_nan_and_single_points(self):
        series = {"train/a/loss": Series((0, 1, 2), (math.nan, 1.0, 2.0)), "val/a/loss": Series((5,), (1.0,))}
        assert draw_curves(series).size

    def test_the_peak_of_the_learning_rate_stays_where_it_is(self):
        steps = tuple(range(400))
        rates = tuple(min(step / 30, 1.0) * (1 - step / 400) for step in steps)
        image = draw_curves({"train/lr": Series(steps, rates), "train/lr_backbone": Series(steps, rates)}).astype(int)
        found = np.argwhere(np.abs(image - color_of(1)).max(axis=-1) < 30)
        found = found[found[:, 0] < 260]  # without the legend
        left, right = found[:, 1].min(), found[:, 1].max()
        peak = found[found[:, 0] == found[:, 0].min(), 1].mean()
        assert (peak - left) / (right - left) == pytest.approx(30 / 400, abs=0.015)

    def test_a_short_run_shows_its_points(self):
        image = draw_curves({"train/a/loss": Series((4, 9), (1.0, 2.0))}).astype(int)
        drawn = (np.abs(image - color_of(0)).max(axis=-1) < 8).sum()
        assert drawn > 300  # a line across the panel and its two ends

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match="no curve"):
            draw_curves({"epoch": Series((0,), (1.0,))})
