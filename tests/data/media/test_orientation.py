import gc

import av
import numpy as np
import pytest
import torch
from av.filter import Graph

from omnistream.data.media import VideoReadError, probe_video, read_frames, verify_video
from omnistream.data.media.orientation import Orientation, orientation_from_matrix
from tests.data.media.conftest import needs_decord
from tests.data.media.video_files import Recipe, sequential

ONE, PERSPECTIVE = 1 << 16, 1 << 30


def straight(a, d):
    return (a * ONE, 0, 0, 0, d * ONE, 0, 0, 0, PERSPECTIVE)


def swapped(b, c):
    return (0, b * ONE, 0, c * ONE, 0, 0, 0, 0, PERSPECTIVE)


# Names of the filters that FFmpeg's player inserts for each matrix.
MATRICES = {
    straight(1, 1): [],
    straight(-1, 1): [("hflip", "")],
    straight(1, -1): [("vflip", "")],
    straight(-1, -1): [("hflip", ""), ("vflip", "")],
    swapped(1, -1): [("transpose", "clock")],
    swapped(-1, 1): [("transpose", "cclock")],
    swapped(1, 1): [("transpose", "cclock_flip")],
    swapped(-1, -1): [("transpose", "clock_flip")],
}


def filtered(image, filters):
    """The image transformed with libavfilter, as a player does."""
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    graph = Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=1)]
    nodes += [graph.add(name, args) if args else graph.add(name) for name, args in filters]
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


@pytest.mark.parametrize("matrix", MATRICES)
def test_orientation_is_what_a_player_shows(matrix):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    orientation = orientation_from_matrix(matrix)
    expected = filtered(image, MATRICES[matrix])
    assert np.array_equal(orientation.apply(image), expected)
    assert orientation.size(4, 6) == expected.shape[:2]
    a, b, _, c, d, *_ = matrix
    assert orientation.is_mirrored == (a * d - b * c < 0)


def test_scale_translation_and_rounding_do_not_matter():
    matrix = (2 * ONE, 3, 0, -5, -ONE, 0, 160 << 16, -7, PERSPECTIVE)
    assert orientation_from_matrix(matrix) == Orientation(False, False, True)


@pytest.mark.parametrize(
    "matrix", [(46341, 46341, 0, -46341, 46341), (ONE, ONE, 0, 0, ONE), (ONE, 0, 0, 0, 0), (0,) * 5]
)
def test_other_matrices_are_refused(matrix):
    with pytest.raises(ValueError, match="only multiples of 90 and mirroring"):
        orientation_from_matrix((*matrix, 0, 0, 0, PERSPECTIVE))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_upright_with_both_readers(made, matrix, suffix):
    path = made(Recipe(suffix, "libx264", {"g": "3", "bf": "0"}, width=128, matrix=matrix, num_frames=8))
    stored = sequential(path)
    expected = np.stack([filtered(frame.permute(1, 2, 0).numpy(), MATRICES[matrix]) for frame in stored])
    expected = torch.from_numpy(expected).permute(0, 3, 1, 2)
    info = probe_video(path)
    assert (info.height, info.width) == expected.shape[-2:]
    assert torch.equal(read_frames(path, range(8), backend="pyav"), expected)
    verify_video(path)
    assert torch.equal(read_frames(path, range(8)), expected)


@needs_decord
@pytest.mark.parametrize("matrix", MATRICES)
def test_decord_is_used_for_rotated_but_not_for_mirrored_videos(made, matrix):
    path = made(Recipe("mov", "libx264", {"g": "3", "bf": "0"}, width=128, matrix=matrix, num_frames=8))
    if orientation_from_matrix(matrix).is_mirrored:
        with pytest.raises(VideoReadError, match="mirrored"):
            read_frames(path, [1], backend="decord")
    else:
        assert torch.equal(read_frames(path, [1], backend="decord"), read_frames(path, [1], backend="pyav"))


def test_a_rotation_by_45_degrees_is_refused(made):
    path = made(Recipe("mov", "libx264", matrix=(46341, 46341, 0, -46341, 46341, 0, 0, 0, PERSPECTIVE), num_frames=2))
    with pytest.raises(VideoReadError, match="display rotation of 45 degrees; only multiples of 90"):
        probe_video(path)


def test_no_frame_waits_for_the_garbage_collector(made):
    """Frames in reference cycles fill the memory, and freeing their conversion threads hangs a forked worker."""
    path = made(Recipe("mp4", "libx264", {"bf": "0"}))
    gc.collect()
    gc.disable()
    try:
        probe_video(path)
        read_frames(path, [0, 3], backend="pyav")
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(found).__name__ for found in gc.garbage if type(found).__module__.startswith("av.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
