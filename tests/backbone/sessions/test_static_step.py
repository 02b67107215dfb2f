"""The static step against `StreamSession`.

Tolerance: features have standard deviation 1 to 3 and pass four blocks in float32, whose rounding shows at 1e-5.
"""

import math
import weakref

import pytest
import torch

from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep, ring_slot

SIZE = (16, 24)
FLOAT32 = {"atol": 3e-5, "rtol": 0}
NO_RESET = torch.zeros(2, dtype=torch.bool)


def clip(num_frames, batch=2):
    return torch.randn(batch, num_frames, 3, *SIZE)


def tensors(output):
    """The session's output of one frame, named as the step names it."""
    named = {"last": output.last, "cls": output.cls, "registers": output.registers}
    named |= {f"block_{layer}": patches for layer, patches in output.patches.items()}
    named |= {} if output.camera is None else {"camera": output.camera}
    return {name: value[:, 0] for name, value in named.items()}


@pytest.mark.parametrize("layout", ["rotation", "official", "spatial"])
@pytest.mark.parametrize(("window", "sink"), [(4, 1), (4, 0), (6, 2), (1, 0), (1, 1), (2, 2)])
def test_step_equals_the_session_while_filling_and_three_times_round(build, window, sink, layout):
    model, images = build(rope_layout=layout), clip(3 * (window + 1) + 2)
    ratio = (0.5, 1.7)
    session = model.stream(window=window, sink=sink, layers=(1, 3), camera_token=True, aspect_ratio=torch.tensor(ratio))
    options = SessionOptions(window=window, sink=sink, layers=(1, 3), camera_token=True)
    step = StaticStep(model, options, StepInput(image_size=SIZE, batch_size=2, aspect_ratio=ratio))
    for t, frame in enumerate(images.unbind(1)):
        expected = tensors(session.step(frame[:, None]))
        torch.testing.assert_close(step(frame, NO_RESET, masked=t < window), expected, **FLOAT32)


def test_without_camera_token_and_layers(build):
    model, images = build(), clip(4)
    session, step = (
        model.stream(window=2),
        StaticStep(model, SessionOptions(window=2), StepInput(image_size=SIZE, batch_size=2)),
    )
    for frame in images.unbind(1):
        torch.testing.assert_close(step(frame, NO_RESET), tensors(session.step(frame[:, None])), **FLOAT32)


def test_reset_flags_start_each_stream_anew(build):
    model, images = build(), clip(14)
    step = StaticStep(model, SessionOptions(window=3, camera_token=True), StepInput(image_size=SIZE, batch_size=2))
    session = model.stream(window=3, camera_token=True)
    resets = {5: [1], 7: [0, 1], 12: [0]}
    for t, frame in enumerate(images.unbind(1)):
        flags = NO_RESET.clone()
        if t in resets:
            session.reset(resets[t])
            flags[resets[t]] = True
        torch.testing.assert_close(step(frame, flags), tensors(session.step(frame[:, None])), **FLOAT32)
    assert step.frame.tolist() == session.frame_indices.tolist() == [2, 7]


def test_restart_wipes_what_a_broken_frame_left(build):
    model, images = build(), clip(4)
    step = StaticStep(model, SessionOptions(window=3), StepInput(image_size=SIZE, batch_size=2))
    other = model.stream(window=3)
    broken = images[:, 0].clone()
    broken[1] = float("nan")
    for frame in (images[:, 0], broken):
        step(frame, NO_RESET)
        other.step(images[:1, :1])
    step.restart(torch.tensor([1]))
    fresh = model.stream(window=3)
    for frame in images[:, 1:].unbind(1):
        result = step(frame, NO_RESET)["last"]
        torch.testing.assert_close(result[:1], other.step(frame[:1, None]).last[:, 0], **FLOAT32)
        torch.testing.assert_close(result[1:], fresh.step(frame[1:, None]).last[:, 0], **FLOAT32)


def test_state_stays_where_it_is(build):
    model, images = build(), clip(9)
    step = StaticStep(model, SessionOptions(window=3), StepInput(image_size=SIZE, batch_size=2))
    places = [buffer.data_ptr() for buffer in step.buffers()]
    for frame in images.unbind(1):
        assert not step(frame, NO_RESET)["last"].requires_grad
    assert [buffer.data_ptr() for buffer in step.buffers()] == places


def test_a_step_can_start_small_and_grow(build):
    model, images = build(), clip(16)
    session = model.stream(window=6, sink=3)
    step = StaticStep(model, SessionOptions(window=6, sink=3), StepInput(image_size=SIZE, batch_size=2), num_slots=1)
    for t, frame in enumerate(images.unbind(1)):
        if t in (1, 2, 4):
            step.grow(min(2 * t, 7))
        torch.testing.assert_close(step(frame, NO_RESET), tensors(session.step(frame[:, None])), **FLOAT32)
    assert step.keys_0.shape[0] == 2 * 7


@pytest.mark.parametrize("failing", [1, 2, 5, 8])
def test_a_growth_that_failed_can_be_tried_again(build, monkeypatch, failing):
    """The ring of 17 is reached from 16 slots; without the 17th slot frame 16 would take the place of frame 1."""
    model, images = build(), clip(20)
    session = model.stream(window=16)
    step = StaticStep(model, SessionOptions(window=16), StepInput(image_size=SIZE, batch_size=2), num_slots=16)
    allocate, calls = step.empty_slots, []

    def failing_once(num_slots):
        calls.append(num_slots)
        if len(calls) == failing:
            raise torch.OutOfMemoryError
        return allocate(num_slots)

    monkeypatch.setattr(step, "empty_slots", failing_once)
    for t, frame in enumerate(images.unbind(1)):
        if t == 16:
            with pytest.raises(torch.OutOfMemoryError):
                step.grow(17)
            assert step.num_slots == 16  # a session sees that the growth is still to be done
            step.grow(17)
        torch.testing.assert_close(step(frame, NO_RESET), tensors(session.step(frame[:, None])), **FLOAT32)
    assert calls == [17] * (2 * model.num_layers + 1)  # what had grown was not allocated again


def test_a_compiled_session_goes_on_after_a_growth_that_failed(build, monkeypatch):
    # The compiler cannot trace through the shape checks of the tests, and the growth is not its matter.
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    model, images = build(), clip(20)
    whole, session = model.stream(window=16), model.stream(compiled=True, window=16)
    allocate, calls = StaticStep.empty_slots, []

    def failing_once(step, num_slots):
        calls.append(num_slots)
        if calls.count(17) == 2 and num_slots == 17:
            raise torch.OutOfMemoryError
        return allocate(step, num_slots)

    monkeypatch.setattr(StaticStep, "empty_slots", failing_once)
    for t in range(20):
        if t == 16:
            with pytest.raises(torch.OutOfMemoryError):
                session.step(images[:, t : t + 1])
        result, expected = session.step(images[:, t : t + 1]), whole.step(images[:, t : t + 1])
        torch.testing.assert_close(result.last, expected.last, **FLOAT32)


def test_growth_holds_one_buffer_twice_at_most(build, monkeypatch):
    step = StaticStep(build(), SessionOptions(window=6), StepInput(image_size=SIZE, batch_size=2), num_slots=3)
    allocate, live = step.empty_slots, []
    old = [weakref.ref(buffer) for part in step.cache() for buffer in part]

    def counted(num_slots):
        live.append(sum(buffer() is not None for buffer in old))
        return allocate(num_slots)

    monkeypatch.setattr(step, "empty_slots", counted)
    step.grow(7)
    assert live == [8, 7, 6, 5, 4, 3, 2, 1]


def test_distant_frames_keep_their_positions(build):
    model, images = build(), clip(3)
    step = StaticStep(model, SessionOptions(window=4), StepInput(image_size=SIZE, batch_size=2))
    session = model.stream(window=4)
    session.step(images[:, :1])
    step(images[:, 0], NO_RESET)
    for frame in images[:, 1:].unbind(1):
        step.frame.add_(5 * 10**6)  # the next slot of a ring of five, so nothing but the positions tells
        session.frame_indices += 5 * 10**6
        unmasked = tensors(session.step(frame[:, None]))
        torch.testing.assert_close(step(frame, NO_RESET), unmasked, **FLOAT32)


def test_the_releases_time_mode(build):
    model, images = build(time_mode="official"), clip(9)
    session, step = (
        model.stream(window=3),
        StaticStep(model, SessionOptions(window=3), StepInput(image_size=SIZE, batch_size=2)),
    )
    absolute = build().stream(window=3)
    for frame in images.unbind(1):
        expected, other = session.step(frame[:, None]), absolute.step(frame[:, None])
        torch.testing.assert_close(step(frame, NO_RESET), tensors(expected), **FLOAT32)
    assert (expected.last - other.last).abs().max() > 1e-2


def test_frames_of_a_camera_are_normalised_inside(build):
    model = build()
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    step = StaticStep(model, SessionOptions(window=1), StepInput(image_size=SIZE, batch_size=2, normalize=True))
    assert step.blank_images().dtype == torch.uint8
    expected = tensors(model.stream().step(model.normalize(images)[:, None]))
    torch.testing.assert_close(step(images, NO_RESET), expected, **FLOAT32)


def test_bfloat16_cache(build):
    model, images = build(), clip(7)
    options = SessionOptions(window=3, cache_dtype=torch.bfloat16)
    step, session = StaticStep(model, options, StepInput(image_size=SIZE, batch_size=2)), model.stream(options)
    assert step.keys_0.dtype == torch.bfloat16
    for frame in images.unbind(1):
        result, expected = step(frame, NO_RESET)["last"], session.step(frame[:, None]).last[:, 0]
        # Both round to 8 bits, but add in another order.
        assert (result - expected).norm() / expected.norm() < 1e-2


def test_runs_as_in_eval_mode_and_leaves_the_mode_alone(build):
    model, images = build(), clip(3)
    expected = model(images).last[:, 0]
    model.train()
    step = StaticStep(model, SessionOptions(window=3), StepInput(image_size=SIZE, batch_size=2))
    torch.testing.assert_close(step(images[:, 0], NO_RESET)["last"], expected, **FLOAT32)
    assert model.training


def test_ring_slots():
    frames = torch.arange(10)
    assert ring_slot(frames, 5, 1).tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 1]
    assert ring_slot(frames, 4, 0).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert ring_slot(frames, 4, 3).tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]


def test_mistakes_are_refused(build):
    model = build()
    with pytest.raises(ValueError, match="a ring needs a window"):
        StaticStep(model, SessionOptions(), StepInput(image_size=SIZE))
    with pytest.raises(ValueError, match=r"layers \[4\] do not exist"):
        StaticStep(model, SessionOptions(window=1, layers=(4,)), StepInput(image_size=SIZE))
    with pytest.raises(ValueError, match="multiples of the patch size 8"):
        StaticStep(model, SessionOptions(window=1), StepInput(image_size=(16, 20)))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        StepInput(image_size=SIZE, batch_size=0)
    with pytest.raises(ValueError, match="sink must be between 0 and the window"):
        SessionOptions(window=1, sink=2)
    with pytest.raises(ValueError, match="pass camera_token=True"):
        StaticStep(model, SessionOptions(window=1), StepInput(image_size=SIZE, aspect_ratio=(1.0,)))
    with pytest.raises(ValueError, match=r"one value per stream \(1\), got shape \(2,\)"):
        StepInput(image_size=SIZE, aspect_ratio=(1.0, 2.0))
    for ratio in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be finite and above 0"):
            StepInput(image_size=SIZE, aspect_ratio=(ratio,))
