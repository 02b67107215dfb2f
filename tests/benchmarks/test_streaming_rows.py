"""States that are filled directly are those a real stream would reach."""

import pytest
import torch
from streaming_rows import (
    OursCall,
    Row,
    default_rows,
    held_tensors,
    make_backbone,
    make_call,
    parse_row,
    row_bytes,
    row_cost,
)

SIZE = 16


@pytest.mark.parametrize(("name", "capacity"), [("growing-fp32", 16), ("ring4-fp32", 5), ("growing-bf16", 16)])
def test_state_has_the_size_of_a_real_one_and_is_full(name, capacity):
    row = parse_row(name)
    backbone = make_backbone("vit_nano", row.dtype, "cpu")
    call = OursCall(backbone, row, SIZE, 12)
    session = backbone.stream(window=row.window)
    for _ in range(12):
        session.step(call.frame)
    assert call.session.cache.num_bytes == session.cache.num_bytes
    assert session.cache.num_bytes == capacity * 9 * 2 * 64 * 4 * backbone.cls_token.element_size()
    filled = [tensor for tensor in held_tensors(call.session.cache) if tensor.numel() > 100]
    assert len(filled) == 2 * backbone.num_layers
    for tensor in filled:
        assert (tensor == 0).float().mean() < 0.05  # bfloat16 draws a zero now and then


def test_the_frame_is_encoded_again_and_again_at_the_same_place():
    call = make_call(parse_row("growing-fp32"), make_backbone("vit_nano", "fp32", "cpu"), SIZE, 12)
    before = call.session.fork()
    for _ in range(3):
        call()
        assert call.session.frame_indices.tolist() == [11]
    again, once = call.session.step(call.frame), before.step(call.frame)
    assert torch.equal(again.last, once.last)
    assert again.last.isfinite().all()


@pytest.mark.parametrize("name", ["compiled-fp32", "compiled4-fp32"])
def test_compiled_session_stands_at_the_frame_with_a_full_cache(name, monkeypatch):
    # The compiler cannot trace through the shape checks of the tests, and where the session stands is not its matter.
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    row = parse_row(name)
    call = make_call(row, make_backbone("vit_nano", row.dtype, "cpu"), SIZE, 12)
    call()
    call()
    assert call.session.frame_indices.tolist() == call.session.static.frame.tolist() == [11]
    assert call.session.static.num_slots == (16 if row.window is None else 5)
    assert all((tensor == 0).float().mean() < 0.05 for part in call.session.static.cache() for tensor in part)


@pytest.mark.parametrize("name", ["recompute-fp32", "concat-fp32", "alone-bf16", "concat-bf16"])
def test_other_rows_run(name):
    row = parse_row(name)
    call = make_call(row, make_backbone("vit_nano", row.dtype, "cpu"), SIZE, 4)
    call()
    if row.method == "concat":
        assert call.past[0][0].shape == (1, 2, 3 * 9, 32)
    if row.method == "recompute":
        assert call.frames.shape[1] == 4


def test_names_of_rows():
    assert parse_row("ring16-bf16").num_visible(512) == 17
    assert parse_row("ring16-bf16").num_visible(10) == 10
    assert parse_row("growing-fp32").num_visible(512) == 512
    assert parse_row("compiled16-bf16") == Row("compiled", "bf16", 16)
    assert parse_row("compiled-bf16").window is None
    for row in default_rows(["fp32", "bf16"], "cuda"):
        assert parse_row(row.name) == row
    with pytest.raises(ValueError, match=r"ring<W>.*got 'rings-fp32'"):
        parse_row("rings-fp32")


def test_memory_estimates():
    # ViT-S at 224 px: 39.5 MB a frame is ViT-L's float32 figure (reference: 2 * 24 * 1024 * 201 * 4).
    assert row_cost(parse_row("growing-fp32"), "vit_large", 224, 1).cache_bytes == 2 * 24 * 1024 * 201 * 4
    concat, growing, eight_bit = (
        row_bytes(parse_row(name), "vit_small", 224, 512) for name in ("concat-fp32", "growing-fp32", "int8-bf16")
    )
    assert concat / growing == pytest.approx(2, rel=0.05)
    assert growing / eight_bit == pytest.approx(4 / (1 + 1 / 32), rel=0.05)
    # A ring has its slots from the start, and a growing cache a power of two of them.
    ring = [row_bytes(parse_row("ring64-fp32"), "vit_small", 224, T) for T in (2, 512)]
    assert ring[0] == pytest.approx(ring[1])
    assert row_bytes(parse_row("growing-fp32"), "vit_small", 224, 300) == pytest.approx(growing)
