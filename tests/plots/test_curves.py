import json
import math

import numpy as np
import pytest
import torch

from omnistream.plots.curves import PALETTE, Series, draw_curves, panels, read_scalars, smooth


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


def test_panels_are_tasks_then_rates():
    names = ["train/ssl/image/dino", "train/ssl/loss", "val/ssl/loss", "train/geometry/depth", "train/loss", "lr-Adam"]
    names += ["train/frames_per_second", "grad_norm/backbone", "epoch", "hp_metric", "train/captioning/loss_step"]
    groups = panels({name: Series((0,), (1.0,)) for name in names})
    assert list(groups) == [
        *("captioning", "geometry", "ssl", "ssl/image", "total", "learning rate", "frames per second", "gradient norm"),
    ]
    assert [(line.label, line.stage) for line in groups["ssl"]] == [("loss", "train"), ("loss", "val")]
    assert [(line.label, line.stage) for line in groups["ssl/image"]] == [("dino", "train")]
    assert [line.label for line in groups["captioning"]] == ["loss"]
    assert sum(len(lines) for lines in groups.values()) == len(names) - 2


class TestSmooth:
    def test_constant_stays_constant_from_the_start(self):
        assert np.allclose(smooth(np.full(10, 3.0), 0.9), 3.0)

    def test_closed_form(self):
        expected = (0.9 * 0.1 * 1 + 0.1 * 2) / (0.9 * 0.1 + 0.1)
        assert smooth(np.array([1.0, 2.0]), 0.9)[1] == pytest.approx(expected)

    def test_nan_is_skipped(self):
        result = smooth(np.array([math.nan, 1.0, math.inf, 1.0]), 0.5)
        assert math.isnan(result[0])
        assert np.allclose(result[1:], 1.0)


class TestDraw:
    def test_falling_loss_falls_in_the_picture(self):
        steps = tuple(range(100))
        image = draw_curves({"train/ssl/loss": Series(steps, tuple(1 - step / 100 for step in steps))}).astype(int)
        color = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
        found = np.argwhere(np.abs(image - color).max(axis=-1) < 8)
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
        first, last = ([int(PALETTE[i][c : c + 2], 16) for c in (1, 3, 5)] for i in (0, 11))
        for color in (first, last):  # the highest and the lowest line are whole, wherever the legend is
            longest = (np.abs(image.astype(int) - color).max(axis=-1) < 8).sum(axis=1).max()
            assert longest > 250

    def test_survives_nan_and_single_points(self):
        assert draw_curves({"train/a/loss": Series((0,), (math.nan,)), "val/a/loss": Series((5,), (1.0,))}).size

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match="no curve"):
            draw_curves({"epoch": Series((0,), (1.0,))})
