import pytest
import torch
from ssl_oracle import close, sines

from omnistream.tasks.ssl.heads import ProjectionHead


def test_recorded_values():
    head = ProjectionHead(4, hidden_dim=8, bottleneck_dim=3, num_prototypes=6)
    names = ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "mlp.4.weight", "mlp.4.bias"]
    assert [name for name, _ in head.named_parameters()] == [*names, "last_layer.weight"]
    for k, parameter in enumerate(head.parameters(), start=1):
        parameter.data = 0.5 * sines(*parameter.shape, a=0.3, b=0.1 * k)
    inputs = sines(2, 4, a=0.5, b=0.2)
    features, prototypes = head(inputs, lambda features, prototypes: (features, prototypes))
    close(features, [[0.957896, -0.286920, -0.010581], [0.966990, -0.206830, 0.148832]])
    expected = [
        [0.182732, 0.338710, 0.238360, -0.042377, -0.291043, -0.319454],
        [0.296160, 0.445592, 0.257810, -0.125078, -0.413309, -0.388756],
    ]
    close(head(inputs), expected)
    close(features @ prototypes.T, expected)


def test_size_and_initial_weights_at_full_width():
    with torch.device("meta"):
        head = ProjectionHead(1024)
    assert sum(p.numel() for p in head.parameters()) == 23_597_312
    small = ProjectionHead(64, hidden_dim=128, num_prototypes=1000)
    assert small.last_layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not small.mlp[0].bias.any()


def test_one_layer_is_linear():
    assert [type(m).__name__ for m in ProjectionHead(4, num_layers=1, num_prototypes=6).mlp] == ["Linear"]
    with pytest.raises(ValueError, match="num_layers"):
        ProjectionHead(4, num_layers=0)
