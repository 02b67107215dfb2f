"""Files have the mode of a newly opened one, also where `tempfile` or safetensors made them with 0600."""

import os
import stat
from types import SimpleNamespace

import pytest
import torch

from omnistream.backbone import create_model
from omnistream.callbacks.predictions import PredictionWriter
from omnistream.data.media import probe_video
from omnistream.data.scenes.index_cache import SceneIndex, save_index
from omnistream.tasks.prediction import ClipFeatures
from tests.streaming.stream_clips import write_video


def backbone(folder):
    create_model("vit_nano").save_pretrained(folder, max_shard_size="100KB")


def predictions(folder):
    writer = PredictionWriter(folder)
    trainer = SimpleNamespace(
        predict_dataloaders=SimpleNamespace(batch_sampler=SimpleNamespace(batch_size=1)), predict_loop=None
    )
    clip = ClipFeatures("clip", torch.zeros(1, 4), torch.zeros(1, 2, 2, 4))
    writer.write_on_batch_end(trainer, None, {"video": [clip]}, None, None, 0, 0)


def scene_index(folder):
    save_index(folder / "index.npz", "signature", SceneIndex([], []))


def video_cache(folder):
    probe_video(write_video(folder / "clip.mp4", 3))


@pytest.mark.usefixtures("no_type_checks")  # of a stand-in for the trainer
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("write", [backbone, predictions, scene_index, video_cache])
def test_files_have_the_mode_that_the_umask_says(tmp_path, monkeypatch, write, umask):
    monkeypatch.setenv("OMNISTREAM_CACHE", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        write(tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file
