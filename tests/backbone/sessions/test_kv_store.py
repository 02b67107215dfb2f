"""The stores of one layer against attention over what they should hold, in full precision."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from omnistream.backbone.sessions.kv_cache import CacheContext, KVCache
from omnistream.backbone.sessions.kv_offload import Offload
from omnistream.backbone.sessions.kv_store import Int8Store, Placement, PlainStore, StoreShape, Workspace, quantize

HEADS, P, D = 3, 5, 16
ALL = torch.zeros(2, dtype=torch.int64)


def tokens(num_frames, batch=2):
    return [torch.randn(batch, HEADS, num_frames * P, D) for _ in range(3)]


def rounded(x):
    codes, scale = quantize(x)
    return codes * scale


def attend(cache, query, key, value, starts=ALL, layer=0):
    return CacheContext(cache, starts).attend(layer, query, key, value)


def step_by_step(cache, query, key, value, sizes=1):
    outputs, start = [], 0
    for parts in zip(
        *(t.split([s * P for s in sizes] if isinstance(sizes, list) else P, 2) for t in (query, key, value)),
        strict=True,
    ):
        outputs.append(attend(cache, *parts, starts=ALL + start))
        start += parts[0].shape[2] // P
    return torch.cat(outputs, dim=2)


def test_quantisation_is_off_by_half_a_step_of_the_largest_value_at_most():
    x = torch.randn(2, 3, 50, 16) * torch.logspace(-6, 6, 50)[:, None]
    codes, scale = quantize(x)
    assert codes.dtype == torch.int8
    assert scale.shape == (2, 3, 50, 1)
    torch.testing.assert_close(scale, x.abs().amax(-1, keepdim=True) / 127)
    assert ((codes * scale - x).abs() <= scale * 0.5001).all()
    assert (codes.abs().amax(-1) == 127).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantisation_survives_zeros_and_takes_every_dtype(dtype):
    codes, scale = quantize(torch.zeros(1, 1, 2, 8, dtype=dtype))
    assert (codes == 0).all()
    assert scale.dtype == torch.float32
    assert (scale > 0).all()
    x = torch.randn(1, 1, 100, 8, dtype=dtype)
    error = (rounded(x).float() - x.float()).abs() / x.float().abs().amax(-1, keepdim=True)
    assert error.max() < 0.5 / 127 + torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("std", [1e-4, 1.0])
def test_half_precision_stores_are_as_accurate_for_small_values(dtype, std):
    key, value = (std * torch.randn(1, HEADS, P, D) for _ in range(2))
    key, value = key.to(dtype), value.to(dtype)
    store = Int8Store(StoreShape(1, HEADS, D, P, 2), Placement(torch.device("cpu"), dtype), Workspace())
    blind = torch.zeros_like(key)  # every key is as good as another, so the values' mean comes out
    store.attend(slice(None), 0, 1, blind, key, value)
    result = store.attend(slice(None), 1, 2, blind, blind, blind)
    expected = value.double().mean(2, keepdim=True) / 2
    # Eight bits of the largest value, and the dtype's own rounding.
    assert (result.double() - expected).norm() / expected.norm() / P**0.5 < 0.01 + torch.finfo(dtype).eps
    error = (rounded(key).double() - key.double()).norm() / key.double().norm()
    assert error < 0.008


@pytest.mark.parametrize(("window", "sink"), [(None, 1), (None, 0), (None, 3), (3, 1), (3, 0), (4, 2), (2, 2)])
@pytest.mark.parametrize("sizes", [1, [3, 1, 4]])
def test_int8_rounds_all_but_the_sink_and_the_frame_itself(window, sink, sizes):
    query, key, value = tokens(8)
    cache = KVCache(1, 2, P, window, sink, dtype=torch.int8)
    result = step_by_step(cache, query, key, value, sizes)
    for frame in range(8):
        exact = {*range(sink), frame}
        oldest = 0 if window is None else max(0, frame - (window - sink))
        seen = [f for f in range(frame + 1) if f < sink or f >= oldest] if frame > (window or 99) else range(frame + 1)

        def remembered(x, exact=exact, seen=seen):
            frames = x.split(P, dim=2)
            return torch.cat([frames[f] if f in exact else rounded(frames[f]) for f in seen], dim=2)

        now = slice(frame * P, (frame + 1) * P)
        expected = scaled_dot_product_attention(query[:, :, now], remembered(key), remembered(value))
        torch.testing.assert_close(result[:, :, now], expected, atol=2e-6, rtol=0)


def test_int8_with_a_workspace_of_one_head_gives_the_same(monkeypatch):
    qkv = tokens(6)
    expected = step_by_step(KVCache(1, 2, P, dtype=torch.int8), *qkv)
    monkeypatch.setattr(Int8Store, "WORKSPACE_BYTES", {"cpu": 1})
    cache = KVCache(1, 2, P, dtype=torch.int8)
    torch.testing.assert_close(step_by_step(cache, *qkv), expected, atol=1e-6, rtol=0)
    assert cache._workspace.num_bytes == 2 * 2 * 6 * P * D * 4  # keys and values of one head, two streams, six frames


def test_int8_memory_is_a_quarter_of_float32():
    # 64 values: 64 codes and a scale of 4 bytes; 400 frames, of which the sink's first is in full.
    like = torch.zeros(1, 2, P, 64)
    sizes = {}
    for dtype in (torch.float32, torch.int8):
        cache = KVCache(1, 1, P, window=399, dtype=dtype)
        attend(cache, like, like, like, starts=ALL[:1])
        sizes[dtype] = sum(t.untyped_storage().nbytes() for t in cache.stores[0].tensors.values())
        assert cache.num_bytes == sizes[dtype] + cache._workspace.num_bytes
    assert sizes[torch.int8] / sizes[torch.float32] == pytest.approx((64 + 4) / 256, rel=0.01)


def test_growth_keeps_what_is_stored():
    qkv = tokens(20)
    expected = step_by_step(KVCache(1, 2, P, max_frames=20, dtype=torch.int8), *qkv)
    growing = KVCache(1, 2, P, dtype=torch.int8)
    assert torch.equal(step_by_step(growing, *qkv), expected)
    assert growing.stores[0].shape.capacity == 32


def test_workspace_is_reused_and_follows_dtype():
    workspace = Workspace()
    first = workspace.take((2, 3), torch.zeros(1))
    assert workspace.take((5,), torch.zeros(1)).data_ptr() == first.data_ptr()
    assert workspace.num_bytes == 24
    assert workspace.take((2, 3), torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert workspace.num_bytes == 12


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("window", [None, 4])
def test_offloaded_layers_give_the_same_and_rest_elsewhere(dtype, window):
    # On a CPU both places are the same memory, but every slot still takes the way to the stage and back.
    qkv = tokens(10)
    plain, offloaded = (KVCache(3, 2, P, window, dtype=dtype, offload=offload) for offload in (False, True))
    for start in range(10):
        now = slice(start * P, (start + 1) * P)
        parts = [t[:, :, now] for t in qkv]
        for layer in range(3):
            scaled = [t * (1 + layer) for t in parts]
            expected, result = (attend(c, *scaled, starts=ALL + start, layer=layer) for c in (plain, offloaded))
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    stages = offloaded._offload.stages
    resting = {t.data_ptr() for store in offloaded.stores for t in store.tensors.values()}
    assert resting.isdisjoint(t.data_ptr() for stage in stages for t in stage.tensors.values())
    assert offloaded.num_bytes >= plain.num_bytes + sum(stage.num_bytes for stage in stages)
    fork = offloaded.clone()
    assert torch.equal(*(attend(c, *parts, starts=ALL + 10, layer=2) for c in (fork, offloaded)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.int8])
def test_offload_from_a_gpu_equals_a_cache_that_stays_there(dtype):
    qkv = [t.cuda() for t in tokens(16)]
    plain, offloaded = (KVCache(3, 2, P, 4, dtype=dtype, offload=offload) for offload in (False, True))
    for start in range(16):  # three turns of the ring
        parts = [t[:, :, start * P : (start + 1) * P] for t in qkv]
        for layer in range(3):
            scaled = [t * (1 + layer) for t in parts]
            expected, result = (attend(c, *scaled, starts=ALL + start, layer=layer) for c in (plain, offloaded))
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert all(t.device.type == "cpu" for store in offloaded.stores for t in store.tensors.values())


def test_a_stage_waits_for_a_copy_that_is_still_on_its_way_to_it(monkeypatch):
    # No CUDA here: what is told to the present stream is recorded, with what the stage holds by then.
    placement, shape = Placement(torch.device("cpu"), torch.float32), StoreShape(2, HEADS, D, P, 4)
    stores, offload, told = [PlainStore(shape, placement) for _ in range(2)], Offload(torch.device("cpu")), []
    for number, store in enumerate(stores):
        store.tensors["keys"].fill_(number + 1)
    offload.fetch(2, stores[0], 4)
    offload._prefetched[0] = 2  # a step failed after it had begun to bring layer 2

    class Present:
        def wait_stream(self, other):
            told.append((other, offload.stages[0].tensors["keys"].unique().tolist()))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Present())
    offload._stream = side = object()
    stage = offload.fetch(0, stores[1], 4)
    assert told == [(side, [1.0])]
    assert stage.tensors["keys"].unique().tolist() == [2.0]


def test_offloaded_slots_lie_in_one_block():
    placement = Offload(torch.device("cpu")).host(Placement(torch.device("cpu"), torch.float32))
    store = Int8Store(StoreShape(2, HEADS, D, P, 8, sink=1), placement, Workspace())
    for _, part in store.slots(0, 6):
        assert part.permute(2, 0, 1, 3).is_contiguous()
