"""The trained model as evaluations stream it: one session per video, both sources of poses, memory that stays."""

import pytest
import torch

from omnistream.backbone import SessionOptions, create_model
from omnistream.evaluation import StreamingGeometry
from omnistream.tasks.geometry import GeometryModule
from omnistream.trained import TrainedModel
from omnistream.trained_stream import TrainedStream

CLOSE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture(scope="module")
def model():
    """A model whose camera head turns and moves the camera."""
    torch.manual_seed(1)
    backbone = create_model("vit_nano", layer_scale_init=0.5).eval()
    geometry = GeometryModule(features=8, out_channels=(8, 8, 8, 8), hidden=8).eval()
    geometry.build(backbone)
    for parameter in geometry.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return TrainedModel(backbone, geometry.eval()).eval()


def streamed(model, **options):
    stream = TrainedStream(**options)
    stream._use(model)
    return stream


def images(count, size=(32, 48)):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)


def steps(stream, frames):
    stream.reset()
    return [one for frame in frames for one in stream.step(frame[None])]


def test_it_is_the_models_own_stream(model):
    frames, stream = images(4), streamed(model)
    assert isinstance(stream, StreamingGeometry)
    expected = model.infer(frames)
    found = steps(stream, frames)
    for name in ("depth", "confidence", "camera_to_world", "intrinsics"):
        torch.testing.assert_close(torch.stack([getattr(one, name) for one in found]), getattr(expected, name), **CLOSE)
    assert found[0].ray_camera_to_world is None
    together = stream.reset() or stream.step(frames)
    torch.testing.assert_close(together[3].depth, found[3].depth, **CLOSE)


def test_every_video_starts_anew(model):
    frames, stream = images(3), streamed(model)
    first, wide = steps(stream, frames), images(2, (32, 64))
    assert steps(stream, wide)[0].depth.shape == (32, 64)
    for one, other in zip(first, steps(stream, frames), strict=True):
        assert torch.equal(one.depth, other.depth)
        assert torch.equal(one.camera_to_world, other.camera_to_world)
    assert torch.equal(steps(stream, frames[1:])[0].camera_to_world, torch.eye(4))
    session = stream.session
    steps(stream, frames)
    assert stream.session is session  # its memory is used again


def test_the_size_of_frames_does_not_change_within_a_video(model):
    stream = streamed(model)
    steps(stream, images(1))
    with pytest.raises(ValueError, match="a session keeps batch, height, width"):
        stream.step(images(1, (32, 64)))


def test_both_sources_of_poses_are_those_of_each_alone(model):
    frames = images(5)
    head, rays, both = (steps(streamed(model, cameras=cameras), frames) for cameras in ("head", "rays", "both"))
    for one, other in zip(both, head, strict=True):
        assert torch.equal(one.camera_to_world, other.camera_to_world)
        assert torch.equal(one.depth, other.depth)
    own = torch.stack([one.ray_camera_to_world for one in both])
    expected = torch.stack([one.camera_to_world for one in rays])
    good = own.flatten(1).isfinite().all(1)
    assert good.sum() >= 3
    assert torch.equal(good, expected.flatten(1).isfinite().all(1))
    # The world of the one is the first camera's frame, that of the other is not moved.
    first = own[good][0].inverse()
    torch.testing.assert_close(first @ own[good], expected[good][0].inverse() @ expected[good], atol=2e-3, rtol=2e-3)


def test_it_is_encoded_at_another_size_where_wanted(model):
    frames = images(2)
    found = steps(streamed(model, size=(16, 32)), frames)
    torch.testing.assert_close(found[1].depth, model.infer(frames, size=(16, 32)).depth[1], **CLOSE)
    assert found[1].depth.shape == (32, 48)


def test_memory_is_that_of_the_window(model):
    stream = streamed(model, session=SessionOptions(window=4, sink=1))
    stream.reset()
    sizes = []
    for frame in images(24):
        stream.step(frame[None])
        sizes.append(stream.session.cache.num_bytes)
    assert sizes[8] > 0
    assert sizes[8:] == sizes[8:9] * 16
    whole = streamed(model, session=SessionOptions(window=None))
    steps(whole, images(24))
    assert whole.session.cache.num_bytes > 2 * sizes[-1]


def test_settings_name_what_the_stream_remembers(model):
    stream = streamed(model, session=SessionOptions(window=7, sink=2, cache_dtype="int8"), size=(32, 48))
    assert stream.settings() == {
        "session": {"window": 7, "sink": 2, "max_frames": None, "cache_dtype": "int8", "time_mode": "absolute"},
        "encoded_size": [32, 48],
        "cameras": "head",
    }
    assert streamed(model).settings()["session"]["window"] is None
    assert stream.variant == "vit_nano"


def test_a_model_is_needed(no_type_checks):
    stream = TrainedStream()
    assert not stream.has_weights
    with pytest.raises(ValueError, match="there is no model yet: give a checkpoint"):
        stream.step(images(1))
    with pytest.raises(ValueError, match="cameras must be head, rays or both"):
        TrainedStream(cameras="eyes")
    with pytest.raises(ValueError, match="has no geometry heads"):
        stream._use(TrainedModel(create_model("vit_nano")))
    with pytest.warns(UserWarning, match="its weights are random"):
        stream.use_random_weights()
    assert stream.has_weights
    assert not any(parameter.requires_grad for parameter in stream.parameters())
