"""`omnistream fit -c real_samples` on recorded data, as small and short as its options allow."""

import math
import sys

import pytest

from omnistream.cli import main
from omnistream.plots import read_scalars

SMALL = [
    "--model.backbone.variant=vit_nano",
    "--data.size=32",
    "--data.num_frames=2",
    "--data.crops.global_size=32",
    "--data.crops.local_size=16",
    "--data.video_batch_size=14",  # two steps meet every video of the training part
    "--data.image_batch_size=2",
    "--data.scene_batch_size=1",
    "--data.caption_batch_size=2",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
]
PARTS = ("ssl/image", "ssl/video", "geometry", "captioning")
BROKEN = ("bikes_truncated.mp4", "decord_corrupted.mp4", "demo_flipped_bytes.mp4")


@pytest.fixture
def run(sample_data, tmp_path, monkeypatch, caplog):
    """Folder of a finished run, and what was logged meanwhile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    main(["fit", "-c", "real_samples", f"--data.root={sample_data}", *SMALL])
    return tmp_path / "runs" / "real_samples" / "version_0", caplog.text


def test_all_objectives_train_on_recorded_data_and_broken_videos_are_named(run, sample_data):
    folder, log = run
    scalars = read_scalars(folder)
    for part in PARTS:
        losses = [*scalars[f"train/{part}/loss"].values, *scalars[f"val/{part}/loss"].values]
        assert len(losses) == 3
        assert all(map(math.isfinite, losses)), part
    for name in BROKEN:
        assert f"{sample_data}/videos/corrupted/{name}: " in log
    assert log.count("skipped broken file number") == len(BROKEN)
    assert list((folder / "plots").glob("geometry-depth*.png"))
    assert (folder / "report.html").is_file()
