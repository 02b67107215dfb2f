import pytest
import torch
from torch.nn import functional as F

from omnistream.tasks.geometry import DualDPT
from omnistream.tasks.geometry.dual_dpt import Fusion, add_uv_embedding, uv_embedding

SMALL = dict(features=16, out_channels=(8, 12, 16, 16), hidden=8)


def features(patch_size, size, batch=1, frames=2, dim=12):
    return [torch.randn(batch, frames, size[0] // patch_size, size[1] // patch_size, dim) for _ in range(4)]


@pytest.mark.parametrize(("dim", "published"), [(1024, 44_343_614), (2048, 47_229_246)])
def test_parameter_count(dim, published):
    """The published head without its three levels of ray outputs that are never returned.

    Such a level has a neck of five 3x3 convolutions and two output convolutions; its LayerNorm is one object shared by
    all levels, so that it is counted once and stays.
    """
    neck = 3 * (256 * 128 * 9 + 128) + 2 * (128 * 256 * 9 + 256)
    outputs = (128 * 32 * 9 + 32) + (32 * 7 + 7)
    with torch.device("meta"):
        head = DualDPT(dim, 16)
    assert sum(p.numel() for p in head.parameters()) == published - 3 * (neck + outputs)


@pytest.mark.parametrize("patch_size", [4, 8, 16, 32])
@pytest.mark.parametrize("ratio", [1, 2])
def test_sizes(patch_size, ratio):
    size = (64, 96) if patch_size == 32 else (48, 80)
    head = DualDPT(12, patch_size, ray_down_ratio=ratio, **SMALL)
    maps = head(features(patch_size, size, batch=2, frames=3))
    assert maps.depth.shape == maps.depth_confidence.shape == (2, 3, *size)
    assert maps.rays.shape == (2, 3, size[0] // ratio, size[1] // ratio, 6)
    assert maps.ray_confidence.shape == maps.rays.shape[:-1]
    assert maps.depth.min() > 0
    assert min(maps.depth_confidence.min(), maps.ray_confidence.min()) > 1


@pytest.mark.parametrize("patch_size", [8, 16])
def test_pyramid_has_the_same_levels_for_every_patch_size(patch_size):
    with torch.device("meta"):
        head = DualDPT(12, patch_size, **SMALL)
        levels = head.reassemble([torch.empty(1, 512 // patch_size, 512 // patch_size, 12)] * 4, 1.0)
        assert [level.shape[-1] for level in levels] == [128, 64, 32, 16]
        assert head.depth_chain(levels).shape == (1, 16, 256, 256)


def test_odd_patch_grids():
    maps = DualDPT(12, 16, **SMALL)(features(16, (48, 80)))
    assert maps.depth.shape[-2:] == (48, 80)


def test_position_embedding_values():
    horizontal, vertical = uv_embedding(3, 4, 8, 4 / 3, like=torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(horizontal[0, 0].asin(), torch.tensor([-0.6, -0.2, 0.2, 0.6], dtype=torch.float64))
    torch.testing.assert_close(vertical[0, :, 0].asin(), torch.tensor([-0.4, 0, 0.4], dtype=torch.float64))
    added = add_uv_embedding(torch.zeros(1, 8, 2, 2, dtype=torch.float64), 1.0)
    expected = torch.tensor([-0.0346234, -0.0035348, 0.0938148, 0.0999375] * 2, dtype=torch.float64)
    torch.testing.assert_close(added[0, :, 0, 0], expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(added[0, :4, 0, 0], added[0, :4, 1, 0])
    torch.testing.assert_close(added[0, 4:, 0, 0], added[0, 4:, 0, 1])


def test_fusion_equals_the_usual_order():
    """DPT resizes and then applies the 1x1 convolution; here it is the other way round."""
    step, x, lateral = Fusion(8).double(), torch.randn(2, 8, 3, 5).double(), torch.randn(2, 8, 3, 5).double()
    plain = F.interpolate(step.unit(x + step.lateral_unit(lateral)), size=(7, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(step(x, (7, 9), lateral), step.out(plain))


def test_chunks_and_checkpointing_change_nothing():
    layers = features(8, (32, 32), batch=2, frames=5)
    whole = DualDPT(12, 8, frames_per_chunk=10, **SMALL)
    parts = DualDPT(12, 8, frames_per_chunk=3, activation_checkpointing=True, **SMALL)
    parts.load_state_dict(whole.state_dict())
    results = [head(layers) for head in (whole, parts)]
    for maps in results:
        sum(x.square().mean() for x in maps).backward()
    # 1e-5: convolutions of other batch sizes sum in another order.
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    head = DualDPT(12, 8, **SMALL)
    sum(x.mean() for x in head(features(8, (32, 32)))).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_each_frame_by_itself():
    head, layers = DualDPT(12, 8, **SMALL), features(8, (32, 48), frames=4)
    alone = head([x[:, 2:3] for x in layers])
    for first, second in zip(head(layers), alone, strict=True):
        torch.testing.assert_close(first[:, 2:3], second)


def test_float32_under_autocast():
    head, layers = DualDPT(12, 8, **SMALL), features(8, (32, 32))
    layers = [x.bfloat16() for x in layers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = head(layers)
    for value, expected in zip(maps, head([x.float() for x in layers]), strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)


def test_confidence_is_bounded():
    head = DualDPT(12, 8, max_confidence_logit=2.0, **SMALL)
    torch.nn.init.constant_(head.depth_out[-1].bias, 30.0)
    assert head(features(8, (32, 32))).depth_confidence.max() == 1 + torch.tensor(2.0).exp()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(patch_size=14), "power of two"),
        (dict(patch_size=2), "power of two"),
        (dict(features=12), "multiple of 8"),
        (dict(out_channels=(8, 12, 16, 18)), "multiple of 8 and out_channels of 4"),
        (dict(frames_per_chunk=0), "at least 1"),
        (dict(hidden=0), "hidden of the dense head must be at least 1, got 0"),
        (dict(features=0), "features of the dense head must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualDPT(12, **(dict(patch_size=8) | SMALL | arguments))


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="four layers"):
        DualDPT(12, 8, **SMALL)(features(8, (32, 32))[:3])
    with pytest.raises(ValueError, match="does not divide"):
        DualDPT(12, 8, ray_down_ratio=3, **SMALL)(features(8, (32, 32)))
