import math

import pytest
import torch

from omnistream.tasks.probing import AttentiveProbe, attentive


def test_forward_matches_the_released_probe():
    # Logits and pooled vector recorded from V-JEPA 2's classifier with parameters 0.3 sin(0.7 m), in its naming order.
    probe = AttentiveProbe(8, 3, num_layers=2, num_heads=2).double().eval()
    block, cross = probe.blocks[0], probe.cross
    linears = [
        probe.classifier,
        block.attn.proj,
        block.attn.qkv,
        block.mlp.fc1,
        block.mlp.fc2,
        block.norm1,
        block.norm2,
    ]
    linears += [cross.mlp.fc1, cross.mlp.fc2, cross.norm1, cross.norm2, cross.kv, cross.q]
    counter = 0
    with torch.no_grad():
        for parameter in [p for layer in linears for p in (layer.bias, layer.weight)] + [probe.query]:
            m = torch.arange(counter, counter + parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(0.7 * m)).view_as(parameter))
            counter += parameter.numel()
    assert counter == 1707 == sum(p.numel() for p in probe.parameters())
    tokens = torch.cos(0.37 * torch.arange(80, dtype=torch.float64)).view(2, 5, 8)
    expected = [[0.658121, 1.003698, 0.894602], [0.657523, 1.003062, 0.894214]]
    torch.testing.assert_close(probe(tokens), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    pooled = [1.480662, -0.247988, 0.510629, 0.213106, -1.061221, 0.601819, -1.591697, 1.107506]
    torch.testing.assert_close(probe.pool(tokens)[0], torch.tensor(pooled, dtype=torch.float64), atol=1e-6, rtol=0)


def test_mixed_precision_is_for_all_but_the_classifier():
    probe, tokens = AttentiveProbe(8, 3, num_layers=2, num_heads=2).eval(), torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits, pooled = probe(tokens), probe.pool(tokens)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, probe.classifier(pooled.float()))
    assert not torch.equal(pooled, probe.pool(tokens))


@pytest.mark.parametrize(
    ("num_layers", "num_classes", "expected"),
    [(4, 174, 49_514_670), (4, 400, 49_746_320), (1, 400, 11_547_648 + 1025 * 400)],
)
def test_number_of_parameters_is_that_of_the_released_probe(num_layers, num_classes, expected):
    with torch.device("meta"):
        probe = AttentiveProbe(1024, num_classes, num_layers=num_layers)
    assert sum(p.numel() for p in probe.parameters()) == expected


def test_initialisation_scales_residual_outputs_with_depth():
    probe = AttentiveProbe(256, 10).requires_grad_(False)
    std = 0.04  # 0.02 at the published width of 1024
    for i, block in enumerate(probe.blocks, start=1):
        assert block.attn.proj.weight.std() == pytest.approx(std / math.sqrt(2 * i), rel=0.03)
        assert block.mlp.fc2.weight.std() == pytest.approx(std / math.sqrt(2 * i), rel=0.03)
        assert block.mlp.fc1.weight.std() == pytest.approx(std, rel=0.03)
    assert probe.cross.mlp.fc2.weight.std() == pytest.approx(std / math.sqrt(6), rel=0.03)
    assert probe.classifier.weight.abs().max() == pytest.approx(1 / 16, rel=0.03)
    assert probe.query.std() == pytest.approx(0.02, rel=0.15)
    probe = AttentiveProbe(256, 10, query_std=1.0).requires_grad_(False)
    assert probe.query.std() == pytest.approx(1.0, rel=0.15)


def test_initialisation_at_the_published_width():
    probe = AttentiveProbe(1024, 4, num_layers=2).requires_grad_(False)
    assert probe.blocks[0].attn.qkv.weight.std() == pytest.approx(0.02, rel=0.01)
    assert probe.blocks[0].mlp.fc2.weight.std() == pytest.approx(0.02 / math.sqrt(2), rel=0.01)
    assert probe.cross.mlp.fc2.weight.std() == pytest.approx(0.02 / math.sqrt(2), rel=0.01)
    assert probe.cross.kv.weight.std() == pytest.approx(0.02, rel=0.01)
    assert probe.query.std() == pytest.approx(0.02, rel=0.1)
    assert not probe.blocks[0].attn.qkv.bias.any()
    assert not probe.cross.q.bias.any()
    assert probe.classifier.weight.abs().max() == pytest.approx(1 / 32, rel=0.01)
    norms = [module for module in probe.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}
    assert not any("query" in name and "norm" in name for name, _ in probe.named_parameters())


def test_attention_is_that_of_the_forward_pass():
    probe = AttentiveProbe(16, 3, num_layers=2, num_heads=4, query_std=1.0).double().eval()
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    attention = probe.attention(tokens)
    assert attention.shape == (2, 7)
    torch.testing.assert_close(attention.sum(1), torch.ones(2, dtype=torch.float64))
    # Of one head, the attended values are the values weighted by it.
    probe = AttentiveProbe(16, 3, num_layers=1, num_heads=1, query_std=1.0).double().eval()
    cross = probe.cross
    values = cross.kv(cross.norm1(tokens))[..., 16:]
    query = probe.query[:, 0] + (probe.attention(tokens)[..., None] * values).sum(1)
    torch.testing.assert_close(query + cross.mlp(cross.norm2(query)), probe.pool(tokens))


def test_the_order_of_tokens_does_not_matter():
    probe = AttentiveProbe(16, 3, num_layers=3, num_heads=4).double().eval()
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(probe(tokens[:, torch.randperm(7)]), probe(tokens))


def test_positions_of_one_frame_tell_the_place_and_not_the_time():
    tokens = torch.randn(2, 12, 16, dtype=torch.float64)  # 3 frames of 4 tokens
    frames = tokens.unflatten(1, (3, 4))[:, [2, 0, 1]].flatten(1, 2)
    places = tokens.unflatten(1, (3, 4))[:, :, [1, 0, 2, 3]].flatten(1, 2)
    of_frame, of_clip = (AttentiveProbe(16, 3, num_layers=2, num_heads=4, num_positions=n).double() for n in (4, 12))
    torch.testing.assert_close(of_frame(frames), of_frame(tokens))
    assert (of_frame(places) - of_frame(tokens)).abs().max() > 1e-6
    assert (of_clip(frames) - of_clip(tokens)).abs().max() > 1e-6
    with pytest.raises(RuntimeError):
        of_frame(tokens[:, :10])


def test_activation_checkpointing_changes_nothing():
    probe, tokens = AttentiveProbe(16, 3, num_layers=3, num_heads=4), torch.randn(2, 7, 16)
    gradients = []
    for probe.activation_checkpointing in (False, True):
        gradients.append(torch.autograd.grad(probe(tokens).sum(), list(probe.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_parameters_are_reset_as_they_were_made():
    probe = AttentiveProbe(256, 10, num_layers=1, num_positions=100).requires_grad_(False)
    for parameter in probe.parameters():
        parameter.fill_(7.0)
    probe.reset_parameters()
    assert probe.positions.std() == pytest.approx(1, rel=0.03)
    assert probe.positions.mean() == pytest.approx(0, abs=0.03)
    assert probe.query.std() == pytest.approx(0.02, rel=0.15)
    assert probe.cross.mlp.fc2.weight.std() == pytest.approx(0.04 / math.sqrt(2), rel=0.03)
    assert torch.equal(probe.cross.norm1.weight, torch.ones(256))
    assert not probe.cross.norm2.bias.any()
    assert probe.classifier.weight.abs().max() == pytest.approx(1 / 16, rel=0.03)


@pytest.mark.parametrize(("wanted", "training"), [(True, True), (True, False), (False, True)])
def test_blocks_are_recomputed_in_training_alone_and_only_if_wanted(monkeypatch, wanted, training):
    seen = []

    def recorded(block, tokens, *, use_reentrant):
        seen.append(use_reentrant)
        return block(tokens)

    monkeypatch.setattr(attentive, "checkpoint", recorded)
    probe = AttentiveProbe(16, 3, num_layers=3, num_heads=4, activation_checkpointing=wanted).train(training)
    probe(torch.randn(2, 7, 16))
    assert seen == ([False, False] if wanted and training else [])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="num_heads 16 must divide the width 24"):
        AttentiveProbe(24, 3)
    with pytest.raises(ValueError, match="must be positive"):
        AttentiveProbe(16, 0)
