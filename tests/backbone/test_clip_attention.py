"""Both kernels of whole clips against the dense mask, and the choice between them."""

import weakref
from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils.checkpoint import checkpoint
from visibility import visible_frames

import omnistream.backbone.clip_attention as module
from omnistream.backbone.attention import ClipContext
from omnistream.backbone.clip_attention import (
    ClipKind,
    check_attention,
    choose,
    clip_attention,
    measure,
    prefix_attention,
)
from omnistream.backbone.flex import flex_clip_attention, frame_block_mask, visible_matrix

WINDOWS = [(None, 1), (4, 1), (4, 0), (6, 2), (1, 0), (2, 2)]
CPU = torch.device("cpu")


def kind(device="cpu", frames=4, needs_grad=True):
    return ClipKind(torch.device(device), torch.float32, 2, 3, 16, frames, 5, None, 1, needs_grad)


@contextmanager
def jaxtyping_off():
    """torch.compile, which FlexAttention uses even uncompiled, cannot trace through the shape checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _fresh_choices(monkeypatch):
    monkeypatch.setattr("omnistream.backbone.flex._compiled_sizes", set())
    choose.cache_clear()
    module._report_too_many.cache_clear()
    yield
    choose.cache_clear()


@pytest.mark.parametrize(("window", "sink"), WINDOWS)
@torch.no_grad()
def test_flex_equals_prefixes(window, sink):
    # 9 frames of 37 tokens: blocks of 128 tokens span frames and reach beyond the clip.
    tensors = [torch.randn(2, 2, 9 * 37, 16) for _ in range(3)]
    with jaxtyping_off():
        outputs = [ClipContext(9, window, sink, choice).attend(0, *tensors) for choice in ("flex", "prefix")]
    torch.testing.assert_close(*outputs, atol=2e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("window", "sink"), WINDOWS)
def test_flex_gradients_equal_those_of_prefixes_on_a_gpu(window, sink):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    tensors = [torch.randn(2, 2, 9 * 37, 16, device="cuda", requires_grad=True) for _ in range(3)]
    weight = torch.randn(2, 2, 9 * 37, 16, device="cuda")
    with jaxtyping_off():
        outputs = [ClipContext(9, window, sink, choice).attend(0, *tensors) for choice in ("flex", "prefix")]
        slopes = [torch.autograd.grad((out * weight).sum(), tensors) for out in outputs]
    torch.testing.assert_close(*outputs, atol=1e-3, rtol=0)
    torch.testing.assert_close(*slopes, atol=1e-2, rtol=1e-2)


def test_flex_has_no_backward_pass_on_a_cpu():
    tensors = [torch.randn(1, 2, 20, 16, requires_grad=True) for _ in range(3)]
    with pytest.raises(ValueError, match="no backward pass on a CPU; use attention='auto' or 'prefix'"):
        clip_attention(*tensors, 4, None, 1, "flex")


@pytest.mark.parametrize(("window", "sink"), WINDOWS)
@pytest.mark.parametrize(("num_frames", "per_frame"), [(9, 37), (5, 128), (3, 300), (40, 11)])
def test_block_mask_equals_torchs_from_the_whole_table(window, sink, num_frames, per_frame):
    ours = frame_block_mask(num_frames, per_frame, window, sink, CPU)
    length = num_frames * per_frame
    theirs = create_block_mask(lambda b, h, q, k: ours.mask_mod(b, h, q, k), None, None, length, length, device="cpu")
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.kv_num_blocks, theirs.kv_num_blocks)
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    assert frame_block_mask(num_frames, per_frame, window, sink, CPU) is ours


@pytest.mark.parametrize(("window", "sink"), WINDOWS)
def test_visible_matrix_lists_the_visible_frames(window, sink):
    matrix = visible_matrix(11, window, sink)
    for frame in range(11):
        assert matrix[frame].nonzero().flatten().tolist() == visible_frames(frame, window, sink)


def test_block_mask_of_a_long_clip_needs_no_token_table():
    # 128 frames of 1,029 tokens: the table of all pairs of tokens would have 1.7e10 entries.
    mask = frame_block_mask(128, 1029, 16, 1, CPU)
    assert mask.seq_lengths == (128 * 1029, 128 * 1029)
    # Frame n sees min(n, 16) + 1 frames; blocks at the borders of what is visible are seen in part.
    seen = sum(min(n, 16) + 1 for n in range(128)) / 128**2
    # A window that is shorter by one frame would give 0.97 times as much.
    assert 100 - mask.sparsity() == pytest.approx(100 * seen, rel=0.03)


@torch.no_grad()
def test_model_gives_the_same_with_either_kernel(build):
    images = torch.randn(2, 5, 3, 16, 24)
    with jaxtyping_off():
        results = [build(attention=attention, window=3)(images).last for attention in ("prefix", "flex")]
    torch.testing.assert_close(*results, atol=3e-5, rtol=0)


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="attention must be one of"):
        check_attention("dense")


def test_a_cpu_goes_by_prefixes_without_timing(monkeypatch):
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("timed"))
    assert choose(kind()) == "prefix"


@pytest.mark.parametrize(("seconds", "expected"), [((2.0, 1.0), "flex"), ((1.0, 2.0), "prefix")])
def test_an_accelerator_takes_the_faster_kernel_and_remembers(monkeypatch, seconds, expected):
    left = list(seconds)
    monkeypatch.setattr(module, "measure", lambda *_: left.pop(0))
    assert choose(kind("cuda")) == expected
    assert choose(kind("cuda")) == expected
    assert left == []


def test_a_kernel_that_fails_is_reported_and_not_used(monkeypatch, caplog):
    def fail(attend, _kind, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no such shared memory")
        return 1.0

    monkeypatch.setattr(module, "measure", fail)
    assert choose(kind("cuda")) == "prefix"
    assert "no such shared memory" in caplog.text


def out_of_memory(held, flex_fails=False):
    """A `measure` that runs out of memory with prefixes while it holds tensors, and says if they are held still."""

    def measure(attend, kind, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 1:
            tensors = torch.ones(3)
            held.append(weakref.ref(tensors))
            raise torch.OutOfMemoryError("prefixes are too large")
        held.append(held[0]())
        if flex_fails:
            raise RuntimeError("no such shared memory")
        return 1.0

    return measure


def test_a_clip_that_only_flex_can_hold_goes_by_flex(monkeypatch):
    held = []
    monkeypatch.setattr(module, "measure", out_of_memory(held))
    assert choose(kind("cuda")) == "flex"
    assert held[1] is None  # flex has the memory of the failed attempt


def test_a_clip_that_no_kernel_can_hold_is_the_memorys_fault(monkeypatch):
    monkeypatch.setattr(module, "measure", out_of_memory([], flex_fails=True))
    with pytest.raises(torch.OutOfMemoryError, match="prefixes are too large") as caught:
        choose(kind("cuda"))
    assert "shared memory" in str(caught.value.__cause__)


def test_prefixes_that_fail_otherwise_are_not_passed_over(monkeypatch):
    monkeypatch.setattr(module, "measure", lambda *_: (_ for _ in ()).throw(RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        choose(kind("cuda"))


def test_only_so_many_sizes_are_compiled_then_prefixes_go_on(monkeypatch, caplog):
    compiled = []
    monkeypatch.setattr("omnistream.backbone.flex._compiled", lambda: lambda *t, **_: compiled.append(1) or t[0])
    tensors = tuple(torch.randn(2, 3, 20, 16) for _ in range(3))
    expected = prefix_attention(*tensors, 4, None, 1)
    monkeypatch.setattr("omnistream.backbone.flex.frame_block_mask", lambda *_: None)
    for size in [*range(10), 0]:
        result = module.run(
            "flex", tensors, ClipKind(torch.device("cuda"), torch.float32, size, 3, 16, 4, 5, None, 1, False)
        )
        torch.testing.assert_close(result, tensors[0] if size < 8 else expected)
    assert len(compiled) == 9
    assert caplog.text.count("further sizes use prefixes") == 1


def test_timing_runs_forward_and_backward_and_leaves_the_random_state():
    state, seen = torch.get_rng_state(), []

    def attend(tensors):
        seen.append((tensors[0].shape, tensors[0].requires_grad))
        return prefix_attention(*tensors, 4, None, 1)

    assert 0 < measure(attend, kind()) < 60
    assert 0 < measure(attend, kind(needs_grad=False)) < 60
    assert seen == [((2, 3, 20, 16), True)] * 4 + [((2, 3, 20, 16), False)] * 4
    assert torch.equal(torch.get_rng_state(), state)


def test_timing_inside_activation_checkpointing_is_not_counted():
    timed = []

    def block(x):
        if not timed:  # as `auto` does: timed in the forward pass, known when it is recomputed
            timed.append(measure(lambda t: prefix_attention(*t, 4, None, 1), kind()))
        return clip_attention(x, x, x, 4, None, 1, "prefix")

    x = torch.randn(2, 3, 20, 16, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    expected = torch.autograd.grad(prefix_attention(x, x, x, 4, None, 1).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_equals_prefixes_on_a_cpu():
    tensors = [torch.randn(1, 2, 6 * 37, 16) for _ in range(3)]
    with jaxtyping_off():
        result = flex_clip_attention(*tensors, 6, 3, 1, size=("test",))
    torch.testing.assert_close(result, prefix_attention(*tensors, 6, 3, 1), atol=2e-6, rtol=0)
