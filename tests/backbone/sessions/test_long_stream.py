"""Thousands of frames through a ring: memory stays where it is and positions stay exact."""

import gc
from pathlib import Path

import pytest
import torch

from omnistream.backbone.attention import ClipContext

WINDOW, SINK, POOL = 4, 1, 97


# Checks of shapes take most of the time here, and other tests have them.
pytestmark = pytest.mark.usefixtures("no_type_checks")


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def addresses(session):
    return [t.data_ptr() for store in session.cache.stores for t in store.tensors.values()]


def last_frames_in_full(model, pool, last):
    """The last frame's features from all it can have seen: the sink and, per block, one window further back.

    Block L of frame n reads block L-1 of the window before n, and so on: 4 windows for 4 blocks. The clip forward over
    them, at their true indices, has the same visible sets from the second window on.
    """
    indices = torch.tensor([*range(SINK), *range(last - model.num_layers * WINDOW, last + 1)])
    context = ClipContext(len(indices), WINDOW, SINK)
    return model.encode(pool[indices % POOL][None], indices, context).last[:, -1]


def check(model, session, num_frames, chunk):
    pool = torch.randn(POOL, 3, 16, 16)
    full = WINDOW + 1 + chunk
    for start in range(0, num_frames, chunk):
        indices = torch.arange(start, start + chunk)
        output = session.step(pool[indices % POOL][None])
        if start <= full < start + chunk:
            before = live_tensors(), addresses(session), session.cache.num_bytes
    assert session.frame_indices.tolist() == [num_frames]
    expected = last_frames_in_full(model, pool, num_frames - 1)
    del indices
    assert (live_tensors() - 1, addresses(session), session.cache.num_bytes) == before
    return output.last[:, -1], expected


@torch.no_grad()
def test_2000_frames(build):
    model = build()
    result, expected = check(model, model.stream(window=WINDOW, sink=SINK), 2000, chunk=10)
    torch.testing.assert_close(result, expected, atol=3e-5, rtol=0)


@torch.no_grad()
def test_600_frames_in_8_bits(build):
    model = build()
    result, expected = check(model, model.stream(window=WINDOW, sink=SINK, cache_dtype="int8"), 600, chunk=10)
    # Errors of 8 bits (see test_cache_accuracy) do not add up over the frames.
    assert (result - expected).norm() / expected.norm() < 0.02
    assert (result - expected).abs().max() > 1e-5


@torch.no_grad()
def test_the_time_of_a_late_frame_matters(build):
    # The oracle would not notice wrong positions if they did not change its answer.
    model, pool = build(), torch.randn(POOL, 3, 16, 16)
    late, later = (last_frames_in_full(model, pool, POOL * k - 1) for k in (200, 201))
    assert (late - later).abs().max() > 1e-2  # the same pictures, 97 frames further from the sink


@pytest.mark.slow
@pytest.mark.parametrize("cache_dtype", [None, "int8"])
@torch.no_grad()
def test_20000_frames(build, cache_dtype):
    model = build()
    session = model.stream(window=WINDOW, sink=SINK, cache_dtype=cache_dtype)
    pool = torch.randn(POOL, 3, 16, 16)
    for start in range(0, 20_000, 5):
        output = session.step(pool[torch.arange(start, start + 5) % POOL][None])
        if start == 2000:
            before = resident_bytes()
    # One kept output of 9 tokens of width 64 per frame would add 40 MiB.
    assert resident_bytes() - before < 8 * 2**20
    expected = last_frames_in_full(model, pool, 19_999)
    if cache_dtype is None:
        torch.testing.assert_close(output.last[:, -1], expected, atol=3e-5, rtol=0)
    else:
        assert (output.last[:, -1] - expected).norm() / expected.norm() < 0.02
