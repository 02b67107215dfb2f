"""The bar in a terminal of 80 columns, in a file, and after a run was resumed."""

import os
import pty
import re
import sys
import threading
from contextlib import contextmanager

import pytest
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from omnistream.callbacks import TaskProgressBar
from omnistream.callbacks.progress_bar import fit_numbers

TASKS = {"ssl/image": 5.214, "ssl/video": 5.333, "geometry": 0.81234, "captioning": 3.14159}


class Model(BoringModel):
    """Logs a loss per task."""

    def __init__(self, tasks=TASKS):
        super().__init__()
        self.losses = tasks

    def training_step(self, batch, batch_idx):
        for name, value in self.losses.items():
            self.log(f"train/{name}/loss", value)
        self.log("train/frames_per_second", 51.7)
        return super().training_step(batch, batch_idx)


def fit(folder, steps, checkpoint=None, model=None, **options):
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        max_epochs=options.pop("max_epochs", -1),
        accelerator="cpu",
        callbacks=[TaskProgressBar()],
        logger=False,
        enable_model_summary=False,
        **{"limit_val_batches": 0, "limit_train_batches": 100, **options},
    )
    trainer.fit(model or Model(), ckpt_path=checkpoint)
    return trainer


@contextmanager
def terminal(monkeypatch, columns):
    """Everything that is written to a terminal of this width, as a list of pieces."""
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda fp: (columns - 1, 40))
    ours, theirs = pty.openpty()
    pieces = []

    def read():
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                return
            if not part:
                return
            pieces.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        yield pieces
        monkeypatch.undo()
    reader.join()
    os.close(ours)


def lines_of(pieces: list[bytes]) -> list[str]:
    """What stood on a line at some time: pieces between movements of the cursor."""
    return [line for line in re.split(r"\r|\n|\x1b\[A", b"".join(pieces).decode()) if line.strip()]


def test_all_losses_are_visible_in_80_columns(tmp_path, monkeypatch):
    with terminal(monkeypatch, 80) as pieces:
        fit(tmp_path, 3)
    lines = lines_of(pieces)
    assert max(map(len, lines)) < 80
    assert lines[-1].strip() == "ssl/image=5.21, ssl/video=5.33, geometry=0.812, captioning=3.14"
    assert re.fullmatch(r"100%\|█{10,}\| 3/3 \[.*it/s, lr=1.0e-01, frames/s=51.7\]", lines[-2].strip())


def test_a_long_run_leaves_out_the_rate_before_the_bar(tmp_path, monkeypatch):
    with terminal(monkeypatch, 60) as pieces:
        fit(tmp_path, 2)
    lines = lines_of(pieces)
    assert max(map(len, lines)) < 60
    assert "lr=" in lines[-2]
    assert "frames/s" not in lines[-2]
    assert lines[-1].strip() == "image=5.21, video=5.33, geometry=0.812, captioning=3.14"


def test_a_file_gets_one_line_with_everything(tmp_path, capsys):
    fit(tmp_path, 2)
    last = capsys.readouterr().out.split("\r")[-1]
    assert "2/2" in last
    for name in TASKS:
        assert f"{name}=" in last
    assert "lr=1.0e-01, frames/s=51.7" in last


def test_a_resumed_run_keeps_total_and_time_left(tmp_path, capsys):
    fit(tmp_path, 6).save_checkpoint(tmp_path / "six.ckpt")
    capsys.readouterr()
    fit(tmp_path, 10, tmp_path / "six.ckpt")
    shown = re.findall(r"(\d+)% ?\|[^|]*\| (\d+)/(\d+) \[\d\d:\d\d<(\d\d:\d\d|\?)", capsys.readouterr().out)
    assert {total for _, _, total, _ in shown} == {"10"}
    assert shown[0][:2] == ("60", "6")
    assert [int(step) for _, step, _, _ in shown] == sorted(int(step) for _, step, _, _ in shown)
    assert shown[-1][:2] == ("100", "10")
    assert all(left != "?" for *_, left in shown[1:])


def test_epochs_are_named_and_counted_to_the_end(tmp_path, capsys):
    fit(tmp_path, -1, max_epochs=2, limit_train_batches=3)
    out = capsys.readouterr().out
    assert "Epoch 1: 100%" in out
    assert "6/6" in out
    assert "3/3" not in out


def test_validation_is_below_and_its_bar_goes_away(tmp_path, monkeypatch):
    with terminal(monkeypatch, 80) as pieces:
        fit(tmp_path, 2, limit_val_batches=2, val_check_interval=2, num_sanity_val_steps=0)
    text = b"".join(pieces).decode()
    assert re.search(r"\r?\n\r?\n\rValidation DataLoader 0: 100%.*?\x1b\[A\x1b\[A", text)
    assert lines_of(pieces)[-1].startswith("ssl/image=5.21")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (99, "ssl/image=5.21, ssl/video=5.33, geometry=0.812, captioning=3.14, accuracy=0.5"),
        (63, "ssl/image=5.21, ssl/video=5.33, geometry=0.812, captioning=3.14"),
        (60, "image=5.21, video=5.33, geometry=0.812, captioning=3.14"),
        (30, "image=5.21, video=5.33"),
        (3, ""),
    ],
)
def test_numbers_are_cut_from_the_end(columns, expected):
    assert fit_numbers(TASKS | ({"accuracy": 0.5} if columns == 99 else {}), columns) == expected


def test_names_that_would_be_the_same_are_kept():
    assert fit_numbers({"a/loss": 1.0, "b/loss": 2.0}, 10) == "a/loss=1"
