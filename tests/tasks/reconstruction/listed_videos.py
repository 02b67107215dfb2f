"""Videos in memory, models that know the truth, and tests of them."""

import math
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import nn

from omnistream.cameras import invert_pose
from omnistream.data import EvaluationDataModule, GeometryVideos
from omnistream.data.batch import SceneFrame
from omnistream.data.scenes import SceneReader, SceneSequence
from omnistream.evaluation import ResultsWriter, SavedPredictions
from omnistream.evaluation.saved_predictions import SavedFrame

INTRINSICS = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]])


class Listed(SceneReader):
    """Videos given as lists of frames; an exception in place of a frame is raised when it is read."""

    expected = "nothing"

    def __init__(self, scenes):
        self.root, self.broken, self.scenes = Path("memory"), [], scenes
        self._sequences = [SceneSequence(name, [str(i) for i in range(len(scenes[name]))]) for name in sorted(scenes)]

    def state(self):
        return {}

    def open_sequence(self, path):
        raise NotImplementedError

    def read(self, sequence, positions):
        found = [self.scenes[sequence.name][position] for position in positions]
        for frame in found:
            if isinstance(frame, Exception):
                raise frame
        return found


def rotation(axis, angle):
    """About x (0), y (1) or z (2), radians."""
    c, s, i, j = math.cos(angle), math.sin(angle), (axis + 1) % 3, (axis + 2) % 3
    turn = torch.eye(3, dtype=torch.float64)
    turn[i, i] = turn[j, j] = c
    turn[i, j], turn[j, i] = -s, s
    return turn


def pose(turn, position):
    """4x4."""
    whole = torch.eye(4, dtype=torch.float64)
    whole[:3, :3], whole[:3, 3] = turn, torch.as_tensor(position, dtype=torch.float64)
    return whole


def helix(count):
    """Poses of the reference's case P1."""
    return [pose(rotation(2, 0.3 * i), (math.cos(0.3 * i), math.sin(0.3 * i), 0.1 * i)) for i in range(count)]


def video(number, count, height=12, width=16, poses=None):
    """Frames whose images say which they are: video and frame number in the first two channels."""
    generator = torch.Generator().manual_seed(number)
    poses = helix(count) if poses is None else poses
    frames = []
    for index in range(count):
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        image[0], image[1] = number, index
        depth = 1 + 5 * torch.rand(height, width, generator=generator)
        depth[: 1 + index % 2] = 0  # not measured
        frames.append(SceneFrame(image=image, depth=depth, intrinsics=INTRINSICS, camera_to_world=poses[index]))
    return frames


def three():
    """Videos of 5, 4 and 6 frames."""
    return {f"set/{name}": video(number, count) for name, number, count in (("a", 0, 5), ("b", 1, 4), ("c", 2, 6))}


class Knows(nn.Module):
    """Predicts the truth of the frame that it is shown, in the first camera's frame, and notes what it is asked.

    Args:
        scenes: Frames by video.
        depth: Changes the true depth [H, W] of a frame: called with it and the frame's number.
        move: Changes the true pose in the same way.
        weight: Its weights.
        stop_at: Video and frame at which it raises, and what.
    """

    def __init__(
        self, scenes, depth=lambda depth, index: depth, move=lambda pose, index: pose, weight=0.0, stop_at=None
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self._scenes, self._depth, self._move, self._stop_at = scenes, depth, move, stop_at
        self._names = {int(frames[0].image[0, 0, 0]): name for name, frames in scenes.items()}
        self.log = nn.Identity()  # not a plain attribute: it is no setting
        self.log.calls = []

    @property
    def calls(self):
        """`reset`, or the numbers of video and frame."""
        return self.log.calls

    def settings(self):
        return {}

    def reset(self):
        self.calls.append("reset")

    def step(self, images):
        number, index = images[0, :2, 0, 0].tolist()
        self.calls.append((number, index, len(images)))
        if self._stop_at is not None and self._stop_at[:2] == (number, index):
            raise self._stop_at[2]
        frames = self._scenes[self._names[number]]
        frame = frames[index]
        true_pose = invert_pose(frames[0].camera_to_world) @ frame.camera_to_world
        return [SavedFrame(self._depth(frame.depth.clone(), index), self._move(true_pose, index), INTRINSICS)]


def data(scenes):
    """Images as they are."""
    return EvaluationDataModule(test=GeometryVideos(Listed(scenes), images=None), batch_size=1)


def evaluated(module, source, folder, callbacks=(), **options):
    """The content of results.json."""
    writer = ResultsWriter()
    trainer = lightning.Trainer(
        accelerator="cpu", default_root_dir=str(folder), logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[writer, *callbacks], **options,
    )  # fmt: skip
    trainer.test(module, source, verbose=False)
    return writer.result


def save(folder, frames, count=None):
    """Writes the truth of a video as another program's predictions."""

    (folder / "depth").mkdir(parents=True)
    frames = frames[:count]
    for index, frame in enumerate(frames):
        np.save(folder / "depth" / f"{index:04d}.npy", frame.depth.numpy())
    rows = [" ".join(map(str, frame.camera_to_world.flatten().tolist())) for frame in frames]
    (folder / "poses.txt").write_text("\n".join(rows))
    (folder / "intrinsics.txt").write_text(" ".join(map(str, INTRINSICS.flatten().tolist())))
    assert len(SavedPredictions(folder)) == len(frames)
