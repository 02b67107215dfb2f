"""Random access equals sequential decoding, bit for bit, in a matrix of containers, codecs and structures."""

import pytest
import torch

from omnistream.data.media import probe_video, read_frames, verify_video
from omnistream.data.media.decord_reader import decord_module
from omnistream.data.media.video_probe import probe_record
from tests.data.media.video_files import NUM_FRAMES, RATE, Recipe, read_numbers, sequential
from tests.data.media.video_matrix import recipes

MATRIX = recipes()

FAST = {
    name
    for name, recipe in MATRIX.items()
    if (recipe.codec == "libx264" and recipe.suffix in ("mp4", "ts", "wmv"))
    or (recipe.codec in ("libx265", "mpeg4") and recipe.suffix in ("ts", "avi", "mp4"))
    or (recipe.codec in ("mpeg2video", "libvpx", "libvpx-vp9") and recipe.suffix in ("mpg", "webm"))
    or name.endswith(("gop-wmv", "gop-avi", "gop-flv", "plain-avi", "plain-gif", "b2-flv", "closed-mkv", "gop-mov"))
    or name.endswith(("plain-mov", "gop-rm", "gop-3gp", "b2-h264", "forward-mp4", "b2-mpg"))
}
"""About a third of the matrix, with every codec and container; the others are slow tests."""

CLIPS = [
    *([position] for position in range(0, NUM_FRAMES, 5)),
    [3, 9, 30, 47],
    [*range(13, 40, 4)],
    [*range(NUM_FRAMES)],
]

TRUSTED_TO_DECORD = {
    "libx264": ({"intra", "closed", "b2", "pyramid", "long"}, {"mp4", "mov", "mkv"}),
    "libx265": ({"intra", "closed", "b2", "pyramid", "long", "refresh"}, {"mp4", "mov", "mkv"}),
    "mpeg4": ({"intra", "b0", "closed_b2", "long"}, {"mp4", "mov", "mkv", "m4v"}),
    "libvpx": ({"intra", "closed", "hidden"}, {"webm", "mkv"}),
    "libvpx-vp9": ({"intra", "closed", "hidden"}, {"webm", "mkv", "mp4"}),
}


def test_the_matrix_has_the_documented_size():
    assert len(MATRIX) == 325
    assert len(FAST) > 100
    for what in ("codec", "suffix"):
        assert {getattr(MATRIX[name], what) for name in FAST} >= {getattr(r, what) for r in MATRIX.values()} - {
            "hevc",
            "m2v",
            "m4v",
            "vob",
        }


def is_trusted_to_decord(name: str, recipe: Recipe) -> bool:
    structures, suffixes = TRUSTED_TO_DECORD.get(recipe.codec, (set(), set()))
    return recipe.suffix in suffixes and any(f"-{structure}-{recipe.suffix}" in name for structure in structures)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in MATRIX])
def test_random_access_equals_sequential_decoding(made, name):
    recipe = MATRIX[name]
    path = made(recipe)
    expected = sequential(path)
    assert read_numbers(expected) == list(range(NUM_FRAMES))
    record = probe_record(path)
    assert record.info.num_frames == NUM_FRAMES
    assert record.info.fps == RATE
    assert record.info.duration == NUM_FRAMES / RATE
    assert record.info.promised_frames is None
    for positions in CLIPS:
        assert torch.equal(read_frames(path, positions, backend="pyav"), expected[positions]), positions
    assert verify_video(path) == NUM_FRAMES
    assert probe_video(path).backend == ("decord" if is_trusted_to_decord(name, recipe) else "pyav")
    if probe_video(path).backend == "decord" and decord_module() is not None:
        for positions in CLIPS:
            assert torch.equal(read_frames(path, positions, backend="decord"), expected[positions]), positions
