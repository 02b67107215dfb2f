"""What cheaper caches cost in accuracy, against figures measured on the authors' code with quantised keys and values.

There, at width 384, 12 blocks, 16 frames of 64 x 64 pixels and random weights, the final features were off by 1.2e-3
relative (cosine at least 0.9999986) with bfloat16 and by 4.1e-3 (0.99998) with 8 bits per head and token. The weights
here are drawn otherwise, and the error of 8 bits grows with the sharpness of the attention, so the figures do not agree
to digits; with queries and keys 1 and 1.5 times as large ours are those below, and theirs should not be exceeded at 1.
That the rounding itself is the intended one is shown in test_stream_state.py, against attention without a cache.
"""

import pytest
import torch

# Relative error by gain of queries and keys; within 3 % for other images, and 15 % leave room for other kernels.
MEASURED = {1.0: {"int8": 0.79e-3, "bfloat16": 1.21e-3}, 1.5: {"int8": 2.66e-3, "bfloat16": 1.94e-3}}
THEIRS = {"int8": (4.1e-3, 1 - 0.99998), "bfloat16": (1.2e-3, 1 - 0.9999986)}


@pytest.fixture(scope="module", params=MEASURED)
def exact(build, request):
    model = build("vit_small", rope_layout="official")
    for block in model.blocks:
        block.attn.qkv.weight.data[: 2 * model.embed_dim] *= request.param  # queries and keys
    images = torch.randn(1, 16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, images, model(images).last, request.param


def errors(exact, **options):
    model, images, expected, _ = exact
    session = model.stream(**options)
    result = torch.cat([session.step(frame).last for frame in images.split(1, dim=1)], dim=1)
    cosine = torch.nn.functional.cosine_similarity(result, expected, dim=-1).min().item()
    return ((result - expected).norm() / expected.norm()).item(), 1 - cosine


def test_float32_cache_is_exact(exact):
    assert errors(exact)[0] < 3e-6


@pytest.mark.parametrize("dtype", THEIRS)
def test_a_cheaper_cache_is_off_as_measured(exact, dtype):
    relative, cosine = errors(exact, cache_dtype=dtype)
    assert relative == pytest.approx(MEASURED[exact[-1]][dtype], rel=0.15)
    if exact[-1] == 1.0:
        theirs, their_cosine = THEIRS[dtype]
        assert relative < 1.15 * theirs
        assert cosine < 1.15 * their_cosine


def test_what_is_in_the_sink_is_not_rounded(exact):
    assert errors(exact, cache_dtype="int8", sink=16)[0] < 3e-6
