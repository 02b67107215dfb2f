import pytest
import torch

from omnistream.tasks.geometry import CameraHead


def test_parameter_count_of_the_large_model():
    with torch.device("meta"):
        assert sum(p.numel() for p in CameraHead(1024).parameters()) == 2_108_425
        assert sum(p.numel() for p in CameraHead(2048).parameters()) == 8_411_145


@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_starts_at_the_identity_and_a_usual_view(activation):
    head = CameraHead(16, activation)
    pose = head(torch.zeros(2, 3, 16))
    for layer in (head.trunk[0], head.trunk[2]):
        torch.nn.init.zeros_(layer.bias)
    pose = head(torch.zeros(2, 3, 16))
    torch.testing.assert_close(pose, torch.tensor([0, 0, 0, 0, 0, 0, 1, 0.9, 0.9]).expand(2, 3, 9))


@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_field_of_view_stays_positive(activation):
    pose = CameraHead(16, activation)(torch.randn(4, 5, 16) * 50)
    assert pose[..., 7:].min() > 0


def test_frames_are_independent_and_precision_is_kept():
    head, token = CameraHead(16), torch.randn(2, 4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pose = head(token)
    assert pose.dtype == torch.float32
    torch.testing.assert_close(pose, head(token))
    torch.testing.assert_close(head(token[:, 2:3]), pose[:, 2:3])


def test_materialised_from_meta_equals_a_normal_one():
    with torch.device("meta"):
        head = CameraHead(8)
    head.to_empty(device="cpu")
    for module in head.modules():
        if hasattr(module, "reset_parameters") and module is not head:
            module.reset_parameters()
    head.reset_parameters()
    assert head.quaternion.bias.tolist() == [0, 0, 0, 1]
    assert all(torch.isfinite(p).all() for p in head.parameters())


@pytest.mark.usefixtures("no_type_checks")
def test_unknown_activation():
    with pytest.raises(ValueError, match="softplus or relu"):
        CameraHead(8, "exp")
