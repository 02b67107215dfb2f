"""The scene data set that CONTRIBUTING.md shows how to write works as printed."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from processes import REPOSITORY
from scene_files import FOCAL, SIZE, Room

from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop


@pytest.fixture
def toy_scenes(monkeypatch):
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "class ToyScenes" in code]
    module = ModuleType("toy_scenes")
    monkeypatch.setitem(sys.modules, "toy_scenes", module)
    exec(compile(example, "toy_scenes.py", "exec"), module.__dict__)
    return module.ToyScenes


@pytest.fixture
def written(tmp_path):
    room = Room(12, centre=(33.0, 23.0))
    folder = tmp_path / "deep" / "a"
    folder.mkdir(parents=True)
    np.savetxt(folder / "calibration.txt", [[FOCAL, 0, 33.0], [0, FOCAL, 23.0], [0, 0, 1]])
    for number in range(12):
        Image.fromarray(room.picture(number)).save(folder / f"{number:03d}.jpg", quality=100, subsampling=0)
        centimetres = np.round(room.millimetres(number) / 10).astype(np.uint16)
        Image.fromarray(centimetres).save(folder / f"{number:03d}.png")
        np.savetxt(folder / f"{number:03d}.txt", np.linalg.inv(room.pose(number)))
    return tmp_path, room


def test_values_come_back(toy_scenes, written, disagreement):
    root, room = written
    reader = toy_scenes(root)
    (sequence,) = reader.index()
    assert (sequence.name, sequence.num_frames) == ("deep/a", 12)
    (frame,) = reader.read(sequence, [5])
    assert tuple(frame.depth.shape) == SIZE
    assert torch.equal(frame.depth, torch.from_numpy(np.round(room.millimetres(5) / 10).astype(np.float32) / 100))
    np.testing.assert_allclose(frame.camera_to_world, room.pose(5), atol=1e-9)
    assert frame.intrinsics.tolist() == [[FOCAL, 0, 33], [0, FOCAL, 23], [0, 0, 1]]
    clip = SceneClips(reader, ClipSampling(num_frames=4, max_interval=1), SceneCrop(SIZE))[0]
    assert disagreement(clip, 0, 3).max() < 0.02  # whole centimetres at 3 m, and half a pixel on the slant
