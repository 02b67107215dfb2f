"""The scene data set that CONTRIBUTING.md shows how to write works as printed."""

import csv
import importlib
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from processes import REPOSITORY
from scene_files import FOCAL, SIZE, Room

from omnistream.cli import main
from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
FRAMES = 24


@pytest.fixture
def toy_scenes(monkeypatch, tmp_path_factory):
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class ToyScenes" in code]
    # omnistream.data.scenes imports the file, also by way of folder.py, before it has all of its names
    assert "from omnistream.data.scenes import" not in example
    folder = tmp_path_factory.mktemp("own_code")
    (folder / "toy_scenes.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "toy_scenes", raising=False)
    return importlib.import_module("toy_scenes").ToyScenes


@pytest.fixture
def written(tmp_path):
    room = Room(FRAMES, centre=(33.0, 23.0))
    folder = tmp_path / "deep" / "a"
    folder.mkdir(parents=True)
    np.savetxt(folder / "calibration.txt", [[FOCAL, 0, 33.0], [0, FOCAL, 23.0], [0, 0, 1]])
    for number in range(FRAMES):
        Image.fromarray(room.picture(number)).save(folder / f"{number:03d}.jpg", quality=100, subsampling=0)
        centimetres = np.round(room.millimetres(number) / 10).astype(np.uint16)
        Image.fromarray(centimetres).save(folder / f"{number:03d}.png")
        np.savetxt(folder / f"{number:03d}.txt", np.linalg.inv(room.pose(number)))
    return tmp_path, room


def test_values_come_back(toy_scenes, written, disagreement):
    root, room = written
    reader = toy_scenes(root)
    (sequence,) = reader.index()
    assert (sequence.name, sequence.num_frames) == ("deep/a", FRAMES)
    (frame,) = reader.read(sequence, [5])
    assert tuple(frame.depth.shape) == SIZE
    assert torch.equal(frame.depth, torch.from_numpy(np.round(room.millimetres(5) / 10).astype(np.float32) / 100))
    np.testing.assert_allclose(frame.camera_to_world, room.pose(5), atol=1e-9)
    assert frame.intrinsics.tolist() == [[FOCAL, 0, 33], [0, FOCAL, 23], [0, 0, 1]]
    clip = SceneClips(reader, ClipSampling(num_frames=4, max_interval=1), SceneCrop(SIZE))[0]
    assert disagreement(clip, 0, 3).max() < 0.02  # whole centimetres at 3 m, and half a pixel on the slant


def test_the_yaml_trains_on_them(toy_scenes, written, tmp_path, monkeypatch):
    (config,) = [code for code in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if "ToyScenes" in code]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.yaml").write_text(config.replace("~/toys", str(written[0])))
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    main(
        ["fit", "-c", "quickstart", "-c", "toys.yaml", "--trainer.max_steps", "1", "--trainer.val_check_interval", "1",
         "--model.backbone.variant", "vit_nano", "--trainer.log_every_n_steps", "1",
         "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.init_args.save_dir=runs"]
    )  # fmt: skip
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open(newline="") as file:
        logged = {key: float(value) for row in csv.DictReader(file) for key, value in row.items() if value}
    assert logged["train/geometry/loss"] > 0  # the clips have depth and poses: nothing else is trained on
    assert logged["val/geometry/abs_rel_median"] > 0
    assert not any("ssl" in key or "captioning" in key for key in logged)
