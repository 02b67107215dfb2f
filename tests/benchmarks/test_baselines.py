"""The baselines compute what they claim to: the same features as ours, or bidirectional ones."""

import pytest
import torch
from baselines import BidirectionalContext, DenseContext, concatenating_step, recompute

from omnistream.backbone import create_model

# float32, features of order 1 after the final norm, four blocks: rounding only.
ATOL = 2e-5


@pytest.fixture
def backbone():
    model = create_model("vit_nano", layer_scale_init=0.5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_concatenating_cache_equals_our_stream_beyond_sixteen_frames(backbone):
    frames = torch.randn(1, 20, 3, 16, 24)
    session, past = backbone.stream(), None
    for index in range(20):
        frame = frames[:, index : index + 1]
        output, past = concatenating_step(backbone, frame, index, past)
        ours = session.step(frame)
        torch.testing.assert_close(output.last, ours.last, atol=ATOL, rtol=0)
        torch.testing.assert_close(output.cls, ours.cls, atol=ATOL, rtol=0)
    assert past[0][0].shape[2] == 20 * (5 + 6)


def test_its_mask_is_a_ladder_when_a_step_has_several_frames(backbone):
    frames = torch.randn(1, 7, 3, 16, 16)
    _, past = concatenating_step(backbone, frames[:, :4], 0, None)
    output, _ = concatenating_step(backbone, frames[:, 4:], 4, past)
    with torch.no_grad():
        full = backbone(frames).last[:, 4:]
    torch.testing.assert_close(output.last, full, atol=ATOL, rtol=0)


def test_a_step_leaves_the_old_cache_as_it_was(backbone):
    frame = torch.randn(1, 1, 3, 16, 16)
    _, past = concatenating_step(backbone, frame, 0, None)
    before = [key.clone() for key, _ in past]
    first, _ = concatenating_step(backbone, frame, 1, past)
    again, _ = concatenating_step(backbone, frame, 1, past)
    assert all(torch.equal(old, key) for old, (key, _) in zip(before, past, strict=True))
    assert torch.equal(first.last, again.last)


def test_recomputation_is_bidirectional(backbone):
    frames = torch.randn(1, 3, 3, 16, 16)
    changed = frames.clone()
    changed[:, 2] += 1
    before, after = recompute(backbone, frames), recompute(backbone, changed)
    assert (before.last[:, 0] - after.last[:, 0]).abs().max() > 1e-2  # a causal model would give 0
    alone = recompute(backbone, frames[:, :1])
    with torch.no_grad():
        torch.testing.assert_close(alone.last, backbone(frames[:, :1]).last, atol=ATOL, rtol=0)


def test_dense_mask_equals_prefixes(backbone, monkeypatch):
    frames = torch.randn(2, 5, 3, 16, 16)
    with torch.no_grad():
        ours = backbone(frames).last
        monkeypatch.setattr("omnistream.backbone.model.ClipContext", DenseContext)
        dense = backbone(frames).last
    torch.testing.assert_close(dense, ours, atol=ATOL, rtol=0)
    assert not torch.allclose(recompute(backbone, frames).last, ours, atol=1e-2)


def test_bidirectional_context_is_softmax_attention():
    query, key, value = torch.randn(3, 1, 2, 4, 8, dtype=torch.float64)
    weights = (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1)
    torch.testing.assert_close(BidirectionalContext().attend(0, query, key, value), weights @ value)
