"""V-JEPA 2 in its real layout, with random weights of a small size."""

import pytest
import torch
from transformers import ViTConfig, VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model

from omnistream.evaluation import Backbone, VJEPA2Backbone
from omnistream.evaluation.video_features import encode_video

SMALL = {
    "patch_size": 8, "crop_size": 32, "frames_per_clip": 8, "tubelet_size": 2, "hidden_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2, "pred_hidden_size": 24,
    "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vjepa2")
    VJEPA2Model(VJEPA2Config(**SMALL)).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def backbone(folder):
    return VJEPA2Backbone(folder).eval()


def images(frames, height=32, width=32):
    return torch.randn(2, frames, 3, height, width)


@torch.no_grad()
def test_clips_give_what_transformers_gives(folder, backbone):
    assert isinstance(backbone, Backbone)
    assert (backbone.embed_dim, backbone.patch_size, backbone.num_layers) == (48, 8, 3)
    clip, model = images(6), VJEPA2Model.from_pretrained(folder).eval()
    output = backbone(clip, layers=(0, 2))
    expected = model(pixel_values_videos=clip, skip_predictor=True, output_hidden_states=True)
    assert output.last.shape == (2, 3, 4, 4, 48)
    torch.testing.assert_close(output.last.flatten(1, 3), expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    assert set(output.patches) == {0, 2}
    torch.testing.assert_close(output.patches[0].flatten(1, 3), expected.hidden_states[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(backbone.encoder.layernorm(output.patches[2]), output.last, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.cls, output.last.mean((2, 3)))
    assert output.registers.shape == (2, 3, 0, 48)


@torch.no_grad()
def test_other_sizes_have_positions_by_row_and_column(folder, backbone):
    # transformers takes its configuration's grid for granted: one of the right size gives the positions of square ones.
    clip = images(4, 48, 48)
    model = VJEPA2Model.from_pretrained(folder, crop_size=48).eval()
    expected = model(pixel_values_videos=clip, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(backbone(clip).last.flatten(1, 3), expected, atol=1e-5, rtol=1e-4)
    positions, side = backbone._positions(2 * 2 * 3, 2, 3)
    assert side == 3
    assert positions.tolist() == [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14]
    # Turning image and weights by 90 degrees would exchange rows and columns; a wide image is not a tall one.
    wide, tall = backbone(images(2, 16, 24)).last, backbone(images(2, 24, 16)).last
    assert (wide.shape, tall.shape) == ((2, 1, 2, 3, 48), (2, 1, 3, 2, 48))


@torch.no_grad()
def test_an_image_fills_a_tubelet(backbone):
    image = images(1)
    torch.testing.assert_close(backbone(image).last, backbone(image.expand(-1, 2, -1, -1, -1)).last)


@torch.no_grad()
def test_a_sliding_window_gives_every_frame_features_of_the_past(folder, backbone):
    sliding, clip = VJEPA2Backbone(folder, sliding_window=6).eval(), images(5)
    output = sliding(clip, layers=(1,))
    assert output.last.shape == (2, 5, 4, 4, 48)
    assert output.patches[1].shape == output.last.shape
    for t, places in enumerate([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]):
        window = clip[:, [place for place in places for _ in range(2)]]
        expected = backbone(window, layers=(1,))
        torch.testing.assert_close(output.last[:, t], expected.last[:, -1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.patches[1][:, t], expected.patches[1][:, -1], atol=1e-5, rtol=1e-4)
    later = clip.clone()
    later[:, 3:] = 0
    torch.testing.assert_close(sliding(later).last[:, :3], output.last[:, :3])


@torch.no_grad()
def test_videos_are_encoded_with_the_sliding_window(folder, backbone):
    sliding = VJEPA2Backbone(folder, sliding_window=4).eval()
    video = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    found = torch.stack(list(encode_video(sliding, video)))
    torch.testing.assert_close(found, sliding(sliding.normalize(video[None])).last[0])
    alone = torch.stack(list(encode_video(sliding, video, encoding="frames")))
    torch.testing.assert_close(found[0], alone[0], atol=1e-5, rtol=1e-4)  # has no past
    assert (found[1:] - alone[1:]).abs().amax((1, 2, 3)).min() > 0.01
    each = torch.stack(list(encode_video(backbone, video)))
    torch.testing.assert_close(each, torch.stack(list(encode_video(backbone, video, encoding="frames"))))


def test_normalisation_is_imagenets(backbone):
    black = backbone.normalize(torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8))[0, 0, :, 0, 0]
    torch.testing.assert_close(black, torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


@torch.no_grad()
def test_a_released_classifier_serves_as_well(tmp_path, backbone):
    classifier = VJEPA2ForVideoClassification(VJEPA2Config(**SMALL))
    classifier.vjepa2.encoder.load_state_dict(backbone.encoder.state_dict())
    classifier.save_pretrained(tmp_path)
    clip = images(2)
    torch.testing.assert_close(VJEPA2Backbone(str(tmp_path)).eval()(clip).last, backbone(clip).last)


def test_mistakes_are_named(folder, backbone, tmp_path):
    with pytest.raises(ValueError, match="a clip of 3 leaves some over"):
        backbone(images(3))
    with pytest.raises(ValueError, match="multiples of the patch size 8, got 30 x 32"):
        backbone(images(2, 30, 32))
    with pytest.raises(ValueError, match=r"layers \[3\] do not exist; .* has blocks 0 to 2"):
        backbone(images(2), layers=(3,))
    with pytest.raises(ValueError, match="multiple of 2 frames, got 5"):
        VJEPA2Backbone(folder, sliding_window=5)
    with pytest.raises(ValueError, match="cannot be loaded from"):
        VJEPA2Backbone(str(tmp_path / "nothing"))
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a model of type vit, not vjepa2"):
        VJEPA2Backbone(str(tmp_path))
    model = VJEPA2Model(VJEPA2Config(**SMALL))
    state = {key: value for key, value in model.state_dict().items() if key != "encoder.layernorm.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks 1 weights of the encoder, such as encoder.layernorm.weight"):
        VJEPA2Backbone(str(tmp_path))
