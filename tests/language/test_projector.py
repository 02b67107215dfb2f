import pytest
import torch

from omnistream.language.projector import Projector


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_default_has_the_known_number_of_parameters():
    # LLaVA's mlp2x_gelu; both numbers from reference code.
    assert _count(Projector(1024, 1024)) == 2_099_200
    assert _count(Projector(1024, 3584)) == 16_522_240


@pytest.mark.parametrize(("kind", "layers"), [("linear", 1), ("mlp1x_gelu", 1), ("mlp3x_gelu", 3)])
def test_kinds(kind, layers):
    projector = Projector(6, 10, kind=kind)
    assert sum(isinstance(m, torch.nn.Linear) for m in projector.modules()) == layers
    assert projector(torch.randn(2, 3, 2, 4, 6)).shape == (2, 24, 10)


def test_tokens_are_in_time_order_row_by_row():
    patches = torch.arange(2 * 2 * 3.0).reshape(1, 2, 2, 3, 1)
    assert Projector(1, 1, kind="identity")(patches).flatten().tolist() == list(range(12))


def test_average_pool_and_pixel_shuffle_use_the_same_four_neighbours():
    patches = torch.arange(16.0).reshape(1, 1, 4, 4, 1)
    pooled = Projector(1, 1, kind="identity", token_reduction="avgpool2x2")(patches)
    assert pooled.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    shuffled = Projector(1, 4, kind="identity", token_reduction="pixel_shuffle2x2")(patches)
    assert shuffled[0, 1].tolist() == [2, 3, 6, 7]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown projector 'resampler'"):
        Projector(4, 4, kind="resampler")
    with pytest.raises(ValueError, match="keeps the width"):
        Projector(4, 8, kind="identity")
    with pytest.raises(ValueError, match="even patch grid, got 3x4"):
        Projector(4, 4, token_reduction="avgpool2x2")(torch.zeros(1, 1, 3, 4, 4))
