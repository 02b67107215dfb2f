import pytest
import torch

from omnistream.cameras import decode_pose, encode_pose, make_intrinsics

SIZE = (384, 512)
ENCODINGS = {
    True: [0.5, -0.25, 2, 0.127679, -0.144878, 0.268536, 0.943714, 0.733275, 0.806563],
    False: [-0.973478, 0.151360, -1.828095, -0.127679, 0.144878, -0.268536, 0.943714, 0.733275, 0.806563],
}


@pytest.fixture
def intrinsics():
    return make_intrinsics(*torch.tensor([600.0, 500, 256, 192], dtype=torch.float64))


@pytest.mark.parametrize("inverse", [False, True])
def test_encoding(camera_to_world, intrinsics, inverse):
    encoding = encode_pose(camera_to_world, intrinsics, SIZE, world_to_camera=inverse)
    expected = torch.tensor(ENCODINGS[inverse], dtype=torch.float64)
    torch.testing.assert_close(encoding, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("inverse", [False, True])
def test_round_trip_with_any_quaternion_length(camera_to_world, intrinsics, inverse):
    poses, cameras = camera_to_world.expand(2, 3, 4, 4), intrinsics.expand(2, 3, 3, 3)
    encoding = encode_pose(poses, cameras, SIZE, world_to_camera=inverse).clone()
    encoding[..., 3:7] *= -2.5
    pose, decoded = decode_pose(encoding, SIZE, world_to_camera=inverse)
    torch.testing.assert_close(pose, poses)
    torch.testing.assert_close(decoded, cameras)


def test_first_frame_is_the_identity(intrinsics):
    encoding = encode_pose(torch.eye(4, dtype=torch.float64), intrinsics, SIZE)
    assert encoding[:7].tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_decoding_is_differentiable():
    encoding = torch.randn(3, 9, dtype=torch.float64)
    encoding[:, 7:] = encoding[:, 7:].abs() / 2 + 0.2
    assert torch.autograd.gradcheck(lambda e: decode_pose(e, (6, 8)), encoding.requires_grad_())
