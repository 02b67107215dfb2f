"""FLOPs and bytes of a step: by hand for a tiny model, and against torch's own counter."""

import pytest
import torch
from floor import Cost, ProductsAlone, Rates, measure_rates, step_cost
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omnistream.backbone import create_model
from omnistream.backbone.variants import Variant

TINY = Variant(embed_dim=8, num_layers=1, num_heads=1, hidden_dim=16, patch_size=8)


def test_tiny_model_by_hand():
    # 16 px: 4 patches, 5 prefix tokens, P = 9. Weights: qkv 8*24, proj 8*8, fc1 and fc2 8*16 each: 512; patch 192*8.
    cost = step_cost(TINY, 16, num_visible=3, value_bytes=4)
    assert cost.linear_flops == 2 * 9 * 512 + 2 * 4 * 192 * 8
    assert cost.attention_flops == 2 * (9 * 27 * 8) * 2  # scores and values
    assert cost.weight_bytes == 4 * (512 + 192 * 8)
    assert cost.cache_bytes == 4 * 2 * 27 * 8
    assert step_cost(TINY, 16, 3, 2, cache_value_bytes=1).cache_bytes == 2 * 27 * 8
    all_frames = step_cost(TINY, 16, 3, 4, num_new=3)
    assert (all_frames.flops, all_frames.cache_bytes) == (3 * cost.flops, cost.cache_bytes)


@pytest.mark.parametrize("variant", ["vit_nano", "vit_small_plus"])
def test_flops_equal_those_torch_counts_in_a_step(variant):
    backbone = create_model(variant)
    session = backbone.stream()
    frame = torch.randn(1, 1, 3, 32, 32)
    session.step(frame)
    session.step(frame)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        session.step(frame)
    assert counter.get_total_flops() == step_cost(backbone.arch, 32, 3, 4).flops


@pytest.mark.parametrize("variant", ["vit_nano", "vit_small_plus"])
def test_products_alone_are_the_same_products(variant):
    backbone = create_model(variant)
    alone = ProductsAlone(backbone.arch, 32, 3, torch.float32, "cpu")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        alone()
    assert counter.get_total_flops() == step_cost(backbone.arch, 32, 3, 4).flops


def test_floor_is_the_larger_of_two_times():
    rates = Rates(copy_bytes=100, matmul_flops=10, attention_flops=5)
    assert rates.floor(Cost(20, 10, 50, 50)) == 3  # FLOPs: 30 / 10; bytes: 1
    assert rates.floor(Cost(1, 1, 400, 100)) == 5
    assert rates.estimate(Cost(20, 10, 50, 50), copied_bytes=150) == 20 / 10 + 10 / 5 + 300 / 100


def test_measured_rates_are_rates(monkeypatch):
    monkeypatch.setattr("floor.SMALLEST_COPY", 2**20)
    rates = measure_rates(TINY, 16, 3, torch.float32, "cpu")
    assert all(0 < rate < float("inf") for rate in (rates.copy_bytes, rates.attention_flops, rates.matmul_flops))
