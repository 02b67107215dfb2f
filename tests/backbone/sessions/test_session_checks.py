"""Frames, ratios and rows that forwards and sessions refuse, and masks of rows."""

import math
from functools import partial

import pytest
import torch

from omnistream.backbone.checks import check_aspect_ratio, check_frames
from omnistream.backbone.sessions.checks import chosen_rows
from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep


def test_rows_are_numbers_or_a_mask():
    assert chosen_rows(None, 3).tolist() == [0, 1, 2]
    assert chosen_rows([2, 0], 3).tolist() == [2, 0]
    assert chosen_rows([], 3).tolist() == []
    assert chosen_rows(torch.tensor([1]), 3).tolist() == [1]
    for mask in ([False, False, True], torch.tensor([False, False, True])):
        assert chosen_rows(mask, 3).tolist() == [2]
    with pytest.raises(ValueError, match=r"cannot reset rows \[-1, 3\]; the session has streams 0 to 2"):
        chosen_rows([-1, 3], 3)
    with pytest.raises(ValueError, match=r"one value per stream \(3\), got \[True, False\]"):
        chosen_rows([True, False], 3)


def test_a_mask_resets_the_rows_it_marks(build):
    stream, compiled = build().stream(), build().stream(compiled=True, window=3)
    stream.step(torch.randn(3, 2, 3, 16, 16))
    compiled._check(torch.randn(3, 2, 3, 16, 16))  # compiles nothing yet
    for session in (stream, compiled):
        session.frame_indices = torch.tensor([2, 2, 2])
        session.reset(torch.tensor([False, True, False]))
        assert session.frame_indices.tolist() == [2, 0, 2]


def test_frames_that_are_none_are_refused():
    check_frames(torch.zeros(2, 1, 3, 16, 16))
    for shape in ((3, 16, 16), (1, 3, 16, 16), (1, 1, 16, 16, 3)):
        with pytest.raises(ValueError, match=r"shape \[B, S, 3, H, W\], got"):
            check_frames(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least one frame"):
        check_frames(torch.zeros(1, 0, 3, 16, 16))
    with pytest.raises(ValueError, match=r"must be normalised, got torch\.uint8; use backbone\.normalize"):
        check_frames(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize("bad", [0.0, -0.5, math.inf, -math.inf, math.nan])
def test_ratios_that_have_no_finite_logarithm_are_refused_everywhere(build, bad):
    model, ratio = build(), torch.tensor([1.5, bad])
    for refuse in (
        lambda: check_aspect_ratio((1.5, bad), 2),
        lambda: model(torch.rand(2, 1, 3, 16, 16), camera_token=True, aspect_ratio=ratio),
        lambda: model.stream(camera_token=True, aspect_ratio=ratio),
        lambda: model.stream(compiled=True, camera_token=True, aspect_ratio=ratio),
        lambda: StepInput(image_size=(16, 16), batch_size=2, aspect_ratio=(1.5, bad)),
    ):
        with pytest.raises(ValueError, match=rf"must be finite and above 0, got \[{bad}\]"):
            refuse()


def test_ratios_are_one_per_stream():
    check_aspect_ratio(torch.tensor([0.5, 2.0]), 2)
    check_aspect_ratio((0.5, 2.0))
    for ratio in (torch.ones(3), torch.ones(2, 1), torch.tensor(1.0), (1.0,)):
        with pytest.raises(ValueError, match=r"one value per stream \(2\), got shape"):
            check_aspect_ratio(ratio, 2)


def test_ratios_on_an_accelerator_are_read_only_where_one_may_wait():
    # The meta device stands for one: whoever reads its values fails.
    check_aspect_ratio(torch.ones(2, device="meta"), 2, wait=False)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        check_aspect_ratio(torch.ones(2, device="meta"), 2)


@pytest.mark.usefixtures("no_type_checks")
def test_options_are_refused_before_the_first_frame(build):
    model = build()
    for session in (model.stream, partial(model.stream, compiled=True)):
        with pytest.raises(ValueError, match=r"layers \[-1, 9\] do not exist; vit_nano has blocks 0 to 3"):
            session(layers=(-1, 2, 9))
        with pytest.raises(ValueError, match="cache_dtype must be one of"):
            session(cache_dtype="int4")
    for dtype in ("int8", torch.int8):
        with pytest.raises(ValueError, match=r"floating-point cache, got cache_dtype int8"):
            model.stream(compiled=True, cache_dtype=dtype)
    with pytest.raises(ValueError, match="floating-point cache"):
        StaticStep(model, SessionOptions(window=2, cache_dtype=torch.int8), StepInput(image_size=(16, 16)))
    session = model.stream(compiled=True, cache_dtype="bfloat16")
    assert session.options.stored_dtype == torch.bfloat16


def test_state_of_a_compiled_session_begun_in_inference_mode_can_be_written_outside(build):
    session = build().stream(compiled=True, window=2, backend="eager")
    begun = []
    session._next = lambda step, images, seen: begun.append(step) or step(images, torch.tensor([False]))
    with torch.inference_mode():
        session.step(torch.randn(1, 1, 3, 16, 16))
    assert not any(t.is_inference() for t in begun[0].buffers())
