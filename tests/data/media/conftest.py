"""Synthetic videos, each made once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from omnistream.data.media.decord_reader import decord_module
from tests.data.media import video_files
from tests.data.media.video_files import Recipe, write_video
from tests.data.media.video_matrix import recipes

needs_decord = pytest.mark.skipif(decord_module() is None, reason="decord is not installed")

TURNED = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""A quarter turn clockwise."""

RECIPES = {
    "closed": Recipe("mp4", "libx264", {"g": "5", "crf": "10"}),
    "open_gop": recipes()["libx264-open-mp4"],
    "x265": recipes()["libx265-open-mp4"],
    "vp9": Recipe("webm", "libvpx-vp9", {"g": "6", "crf": "10", "b": "0"}, width=128),
    "av1": Recipe("mkv", "libsvtav1", {"crf": "20"}),
    "mpeg4_avi": Recipe("avi", "mpeg4", {"g": "8", "qscale": "2"}),
    "narrow": Recipe("mp4", "libx264", {"g": "5", "crf": "10"}, width=48),
    "odd": Recipe("mp4", "mpeg4", {"g": "5", "qscale": "2"}, width=65),
    "deep": Recipe("mp4", "libx264", {"g": "5", "crf": "10"}, pix_fmt="yuv420p10le"),
    "turned": Recipe("mp4", "libx264", {"g": "5", "crf": "10"}, width=128, matrix=TURNED),
}


@pytest.fixture(scope="session")
def read_numbers() -> Callable[[torch.Tensor], list[int]]:
    """Returns the numbers shown by upright images [T, 3, H, W]."""
    return video_files.read_numbers


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Makes, once, the video of a recipe."""
    folder, paths = tmp_path_factory.mktemp("videos"), dict[str, Path]()

    def make(recipe: Recipe) -> Path:
        key = repr(recipe)
        if key not in paths:
            paths[key] = write_video(folder / f"{len(paths)}.{recipe.suffix}", recipe)
        return paths[key]

    return make


@pytest.fixture(scope="session")
def videos(made: Callable[[Recipe], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes, once, the synthetic video of this name."""
    folder = tmp_path_factory.mktemp("trimmed")

    def make(name: str) -> Path:
        if name == "edit_list":
            path = folder / "trimmed.mp4"
            return path if path.exists() else shifted(make("closed"), path, -3)
        return made(RECIPES[name])

    return make


def shifted(source: Path, path: Path, frames: int) -> Path:
    """The same packets with timestamps this many frames later: an edit list in MP4 hides what is before 0."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                shift = round(frames / video_files.RATE / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                new.mux(packet)
    return path


def shorter(recipe: Recipe, num_frames: int) -> Recipe:
    """The same with fewer frames."""
    return replace(recipe, num_frames=num_frames)
