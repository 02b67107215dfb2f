"""Compiled sessions that fork, are saved, read heads. Here the step runs as it is; test_compiled.py compiles it.

The checks of shapes that the tests wrap around every function cannot be compiled.
"""

import pytest
import torch
from compiled_streams import CornerHead, go_on

from omnistream.backbone.sessions import compiled

OPTIONS = {
    "window": {"window": 2},
    "no sink": {"window": 3, "sink": 0},
    "not full yet": {"window": 12, "sink": 2},
    "all remembered": {"window": None},
    "at most 9": {"window": None, "max_frames": 9},
    "official": {"window": 2, "time_mode": "official"},
    "told a ratio": {"window": 2, "camera_token": True, "aspect_ratio": torch.tensor([0.5, 1.7])},
}

MODES = ("official", "absolute")


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    monkeypatch.setattr(compiled, "FIRST_SLOTS", 2)  # so that a few frames go through several sizes


def frames(number, batch=2):
    return torch.randn(batch, number, 3, 16, 24)


@pytest.mark.parametrize("kind", OPTIONS)
def test_all_ways_to_go_on_give_what_an_uncompiled_session_gives(build, kind):
    for pairs in go_on(build(), OPTIONS[kind]).values():
        for mine, theirs in pairs:
            assert sorted(mine) == ["block_3", "camera", "cls", "corner", "last", "registers"]
            # Four blocks of float32, whose rounding shows at 1e-5.
            torch.testing.assert_close(mine, theirs, atol=3e-5, rtol=0)


def test_time_mode_is_the_sessions_and_else_the_backbones(build):
    model, images = build(time_mode="official"), frames(6)
    results = {mode: model.stream(compiled=True, window=2, time_mode=mode).step(images).last for mode in MODES}
    assert torch.equal(model.stream(compiled=True, window=2).step(images).last, results["official"])
    assert (results["official"] - results["absolute"]).abs().max() > 1e-2


def test_a_compiled_state_is_that_of_an_uncompiled_session(build):
    model, images = build(), frames(4)
    compiled_session, stream = (model.stream(compiled=choice, window=2) for choice in (True, False))
    for session in (compiled_session, stream):
        session.step(images)
    mine, theirs = compiled_session.state_dict(), stream.state_dict()
    mine_layers, their_layers = (state["cache"].pop("layers") for state in (mine, theirs))
    for state in (mine, theirs):
        assert state.pop("frame_indices").tolist() == [4, 4]
    assert mine == theirs
    torch.testing.assert_close(mine_layers, their_layers, atol=3e-5, rtol=0)


def test_a_fork_shares_no_memory_and_a_fresh_session_can_be_saved(build):
    model = build()
    session = model.stream(compiled=True, window=2)
    fresh = session.fork()
    session.load_state_dict(fresh.state_dict())
    assert session.static is fresh.static is None
    session.step(frames(1))
    fork = session.fork()
    addresses = [{t.data_ptr() for part in each.static.cache() for t in part} for each in (session, fork)]
    assert addresses[0].isdisjoint(addresses[1])
    assert fork.static.frame.data_ptr() != session.static.frame.data_ptr()
    session.load_state_dict(fresh.state_dict())
    assert session.num_bytes == 0
    assert session.step(frames(2, batch=3)).last.shape[:2] == (3, 2)  # a layout of its own


def test_what_a_stream_left_behind_is_not_taken_over(build):
    # A mask multiplies by zero, so a NaN in a slot that is not in use would come through.
    stream = build().stream(window=3)
    images = frames(3)
    images[0] = torch.nan
    stream.step(images)
    stream.reset([0])
    session = build().stream(compiled=True, window=3)
    session.load_state_dict(stream.state_dict())
    assert session.step(frames(1)).last.isfinite().all()


def test_states_that_do_not_fit_are_refused(build):
    model = build()
    stream = model.stream(window=2, cache_dtype="int8")
    stream.step(frames(1))
    with pytest.raises(ValueError, match=r"options cache_dtype='int8'; this session has cache_dtype=None"):
        model.stream(compiled=True, window=2).load_state_dict(stream.state_dict())
    stream = model.stream(window=2)
    stream.step(frames(1))
    session = build().bfloat16().stream(compiled=True, window=2)
    with pytest.raises(ValueError, match=r"cache of torch\.float32, a compiled session one of torch\.bfloat16"):
        session.load_state_dict(stream.state_dict())
    assert session.static is None


def test_frames_of_another_dtype_are_cast_as_in_a_stream(build):
    model, images = build().bfloat16(), frames(3)
    expected, result = (model.stream(compiled=choice, window=1).step(images).last for choice in (False, True))
    assert result.dtype == torch.bfloat16
    assert (result - expected).norm() / expected.norm() < 3e-2


@pytest.mark.usefixtures("no_type_checks")
def test_kinds_of_cache_that_are_not_compiled_are_named(build):
    model = build()
    with pytest.raises(ValueError, match="keeps its cache on the device; leave out offload=True"):
        model.stream(compiled=True, offload=True)
    for dtype in ("int8", torch.int8):
        with pytest.raises(ValueError, match=r"got cache_dtype int8; choose another, or .* leave out compiled=True"):
            model.stream(compiled=True, cache_dtype=dtype)
    with pytest.raises(ValueError, match="time_mode must be one of"):
        model.stream(compiled=True, time_mode="window")
    assert isinstance(model.stream(compiled=True, offload=False), compiled.CompiledSession)


def test_heads_bring_their_layers_and_the_ratio_of_the_frames(build):
    model, images = build(), frames(2)
    output = model.stream(compiled=True, window=1, heads={"corner": CornerHead()}).step(images)
    assert output.patches == {}
    ratio = torch.full((2,), 16 / 24)
    expected = model.stream(window=1, layers=(0,), camera_token=True, aspect_ratio=ratio).step(images)
    expected = CornerHead()(expected, (16, 24))
    torch.testing.assert_close(output.heads["corner"], expected, atol=3e-5, rtol=0)


class FailingHead(CornerHead):
    """Fails once."""

    failed = False

    def __call__(self, output, size):
        if not self.failed:
            self.failed = True
            raise RuntimeError("a head that fails")
        return super().__call__(output, size)


@pytest.mark.parametrize("choice", [False, True])
def test_a_step_whose_head_failed_can_be_tried_again(build, choice):
    model, images = build(), frames(4)
    session = model.stream(compiled=choice, window=2, heads={"corner": FailingHead()})
    with pytest.raises(RuntimeError, match="a head that fails"):
        session.step(images[:, :1])
    other = model.stream(window=2, heads={"corner": CornerHead()})
    for part in (images[:, :3], images[:, 3:]):
        mine, theirs = session.step(part), other.step(part)
        torch.testing.assert_close(mine.last, theirs.last, atol=3e-5, rtol=0)
        torch.testing.assert_close(mine.heads, theirs.heads, atol=3e-5, rtol=0)
    assert session.frame_indices.tolist() == [4, 4]


@pytest.mark.parametrize("choice", [False, True])
def test_a_fork_made_in_inference_mode_goes_on_outside(build, choice):
    model, images = build(), frames(5)
    session = model.stream(compiled=choice, window=2)
    session.step(images[:, :3])
    with torch.inference_mode():
        fork = session.fork()
    expected = model.stream(window=2).step(images).last[:, 3:]
    torch.testing.assert_close(fork.step(images[:, 3:]).last, expected, atol=3e-5, rtol=0)


def test_a_session_moves_with_its_memory(build):
    # The meta device stands for another one: what is on it has no content, but knows where it is.
    session = build().stream(compiled=True, window=2)
    session.step(frames(1))
    session.to("cpu").step(frames(1))
    assert all(t.device.type == "meta" for t in session.to("meta").static.buffers(recurse=False))
    assert session.backbone.cls_token.device.type == "cpu"
    with pytest.raises(ValueError, match=r"session is on meta and the backbone is on cpu; use session\.to"):
        session.step(frames(1))


def test_another_dtype_of_the_backbone_is_refused(build):
    model = build()
    session = model.stream(compiled=True, window=2)
    session.step(frames(1))
    model.bfloat16()
    with pytest.raises(ValueError, match=r"was torch\.float32 when this session began and is torch\.bfloat16 now"):
        session.step(frames(1))


def test_a_state_of_the_same_shape_goes_into_the_memory_that_is_there(build):
    """CUDA graphs are tied to addresses: new memory at every load would record new ones and keep the old."""
    model, images = build(), frames(7)
    session = model.stream(compiled=True, window=2)
    session.step(images[:, :3])
    saved = session.state_dict()
    expected = session.step(images[:, 3:5]).last
    places = [t.data_ptr() for t in session.static.buffers(recurse=False)]
    for _ in range(2):
        session.load_state_dict(saved)
        assert [t.data_ptr() for t in session.static.buffers(recurse=False)] == places
        torch.testing.assert_close(session.step(images[:, 3:5]).last, expected, atol=0, rtol=0)
    # Fewer frames than the memory has held: what was there is gone.
    early = model.stream(compiled=True, window=2)
    early.step(images[:, :1])
    session.load_state_dict(early.state_dict())
    torch.testing.assert_close(session.step(images[:, 1:3]).last, early.step(images[:, 1:3]).last, atol=0, rtol=0)


def test_a_state_takes_new_memory_where_the_old_does_not_fit(build):
    model, images = build(), frames(4)
    session = model.stream(compiled=True, window=None)
    session.step(images[:, :1])
    saved = session.state_dict()
    session.step(images[:, 1:])  # grows
    expected = model.stream(window=None)
    expected.step(images[:, :1])
    session.load_state_dict(saved)
    assert session.static.num_slots == 2
    torch.testing.assert_close(session.step(images[:, 1:]).last, expected.step(images[:, 1:]).last, atol=3e-5, rtol=0)
