"""Steps that fail: tried again they give what they would have given, or the session says that it cannot.

Compiled sessions run their step as it is here; test_compiled.py compiles it.
"""

import pytest
import torch
from compiled_streams import CornerHead
from visibility import visible_frames

from omnistream.backbone.sessions import compiled
from omnistream.backbone.sessions.kv_cache import KVCache

TORN = r"had overwritten remembered ones; call reset\(\) or load_state_dict\(\)$"
KINDS = pytest.mark.parametrize("choice", [False, True], ids=["stream", "compiled"])


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    monkeypatch.setattr(compiled, "FIRST_SLOTS", 2)


def frames(number, batch=2, height=16):
    return torch.randn(batch, number, 3, height, 24)


class MoodyHead(CornerHead):
    """Fails while it is told to."""

    fails = False

    def __call__(self, output, size):
        if self.fails:
            raise RuntimeError("a head that fails")
        return super().__call__(output, size)


def open_session(model, choice, **options):
    head = MoodyHead()
    return model.stream(compiled=choice, heads={"corner": head}, **options), head


def unbroken(model, images, **options):
    return model.stream(heads={"corner": CornerHead()}, **options).step(images).last


def fail(session, head, images):
    head.fails = True
    with pytest.raises(RuntimeError, match="a head that fails"):
        session.step(images)
    head.fails = False


def same(session, images, expected):
    # Four blocks of float32, whose rounding shows at 1e-5.
    torch.testing.assert_close(session.step(images).last, expected, atol=3e-5, rtol=0)


def lost_by_a_retry(window, sink, start, number):
    """Whether some frame, when the step is run twice, does not find the frames it should see."""
    cache, slots = KVCache(1, 1, 1, window, sink), {}
    for frame in [*range(start + number), *range(start, start + number)]:
        slots[cache.slot(frame)] = frame
        seen = sorted(slots[slot] for slot in range(cache.num_visible(frame)))
        if seen != sorted(visible_frames(frame, window, sink)):
            return True
    return False


def test_a_session_is_torn_exactly_when_a_retry_would_miss_a_frame(build):
    model, found = build(), set()
    for window, sink in [(None, 1), (1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (3, 3), (5, 2)]:
        session = model.stream(window=window, sink=sink)
        for start in range(14):
            session.frame_indices = torch.tensor([0, start])
            for number in range(1, 9):
                lost = lost_by_a_retry(window, sink, start, number)
                assert session._overwrites(number) == lost, (window, sink, start, number)
                found.add(lost)
    assert found == {False, True}


@KINDS
def test_a_step_that_overwrote_what_its_retry_needs_is_not_tried_again(build, choice):
    model, images = build(), frames(6)
    session, head = open_session(model, choice, window=2)
    session.step(images[:, :3])
    saved = session.state_dict()
    fail(session, head, images[:, 3:])
    for use in (lambda: session.step(images[:, 3:]), session.fork, session.state_dict):
        with pytest.raises(RuntimeError, match=TORN):
            use()
    session.reset([1])
    with pytest.raises(RuntimeError, match=TORN):
        session.step(images[:, 3:])
    expected = unbroken(model, images, window=2)
    session.load_state_dict(saved)
    same(session, images[:, 3:], expected[:, 3:])
    fail(session, head, images[:, 3:])
    session.reset()
    same(session.fork(), images, expected)
    same(session, images, expected)


@KINDS
@pytest.mark.parametrize(
    ("before", "number", "options"),
    [
        (3, 1, {"window": 2}),
        (2, 2, {"window": 3}),
        (2, 4, {"window": 1}),
        (3, 3, {"window": None}),
        (1, 5, {"window": 3}),
    ],
)
def test_other_steps_can_be_tried_again(build, choice, before, number, options):
    model, images = build(), frames(before + number)
    session, head = open_session(model, choice, **options)
    session.step(images[:, :before])
    fail(session, head, frames(number))
    same(session, images[:, before:], unbroken(model, images, **options)[:, before:])


@KINDS
def test_a_step_that_was_refused_overwrites_nothing(build, choice):
    model, images = build(), frames(6)
    session, _ = open_session(model, choice, window=2)
    session.step(images[:, :3])
    with pytest.raises(ValueError, match="of its first step"):
        session.step(frames(3, batch=1))
    same(session, images[:, 3:], unbroken(model, images, window=2)[:, 3:])


def test_a_compiled_step_refused_for_its_dtype_overwrites_nothing(build):
    model, images = build(), frames(6)
    session, _ = open_session(model, True, window=2)
    expected = unbroken(model, images, window=2)
    session.step(images[:, :3])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.bfloat16()
    with pytest.raises(ValueError, match="open another session"):
        session.step(images[:, 3:])
    model.float().load_state_dict(weights)
    same(session, images[:, 3:], expected[:, 3:])


@KINDS
def test_a_first_step_that_failed_leaves_a_fresh_session(build, choice):
    model = build()
    session, head = open_session(model, choice, max_frames=4)
    fresh = session.state_dict()
    fail(session, head, frames(2))
    assert session.state_dict() == fresh
    assert session.fork().state_dict() == fresh
    with pytest.raises(ValueError, match="reached max_frames=4"):
        session.step(frames(5))
    assert session.state_dict() == fresh
    images = frames(3, batch=1, height=24)
    same(session, images, unbroken(model, images))
