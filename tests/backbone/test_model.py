import jaxtyping
import pytest
import torch

import omnistream.backbone.model as model_module
from omnistream.backbone import VARIANTS, OmniStream, create_model, get_variant, list_models


def clip(num_frames=3, batch=2, height=16, width=24):
    return torch.randn(batch, num_frames, 3, height, width)


def loss(output):
    parts = [output.last, output.cls, output.registers, *output.patches.values()]
    return sum(part.sin().sum() for part in parts)


def gradients(model, *args, **options):
    model.zero_grad()
    loss(model(*args, **options)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [  # DINOv3 with q, v bias but without mask token; none of them for 7B.
        ("vit_small", 21_596_160),
        ("vit_small_plus", 28_692_480),
        ("vit_base", 85_659_648),
        ("vit_large", 303_128_576),
        ("vit_huge_plus", 840_591_360),
        ("vit_7b", 6_716_030_976),
    ],
)
def test_sizes_are_dinov3s(variant, parameters):
    with torch.device("meta"):
        model = OmniStream(variant)
    D, L = model.embed_dim, model.num_layers
    k_bias = L * D if model.arch.qkv_bias else 0
    ours_only = k_bias + D + 4 * D + 2 * D + 2 * D  # mask token, second row of registers, camera tokens, aspect ratio
    assert sum(p.numel() for p in model.parameters()) == parameters + ours_only


@pytest.mark.parametrize("variant", list_models())
def test_default_layers_exist_and_end_with_the_last_block(variant):
    arch = get_variant(variant)
    assert list(arch.default_layers) == sorted(set(arch.default_layers))
    assert arch.default_layers[-1] == arch.num_layers - 1
    assert arch.embed_dim % arch.num_heads == 0
    assert arch.head_dim % 8 == 0


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown backbone variant 'vit_giant'; choose one of vit_nano"):
        create_model("vit_giant")
    with pytest.raises(ValueError, match="rope_rescale must be at least 1"):
        create_model("vit_nano", rope_rescale=0.5)
    with pytest.raises(ValueError, match="sink must be between"):
        create_model("vit_nano", window=1, sink=2)


@torch.no_grad()
def test_output_shapes_and_requested_layers_only(build):
    output = build()(clip(), layers=(3, 1), camera_token=True)
    assert sorted(output.patches) == [1, 3]
    assert all(patches.shape == (2, 3, 2, 3, 64) for patches in output.patches.values())
    assert output.last.shape == (2, 3, 2, 3, 64)
    assert output.cls.shape == output.camera.shape == (2, 3, 64)
    assert output.registers.shape == (2, 3, 4, 64)
    plain = build()(clip())
    assert plain.patches == {}
    assert plain.camera is None


@torch.no_grad()
def test_patch_outputs_are_not_normalised_and_the_last_is(build):
    model = build()
    output = model(clip(), layers=(3,))
    torch.testing.assert_close(model.norm(output.patches[3]), output.last)
    assert not torch.isclose(output.patches[3], output.last).all()


def test_wrong_inputs_are_refused(build):
    model = build()
    with pytest.raises(ValueError, match=r"layers \[4, -1\] do not exist; vit_nano has blocks 0 to 3"):
        model(clip(), layers=(0, 4, -1))
    with pytest.raises(ValueError, match="multiples of the patch size 8, got height 20"):
        model(clip(height=20))
    with pytest.raises(ValueError, match=r"masks must have shape \(2, 3, 2, 3\).*got \(2, 3, 3, 2\)"):
        model(clip(), masks=torch.zeros(2, 3, 3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="pass camera_token=True with it"):
        model(clip(), aspect_ratio=torch.ones(2))


def test_wrong_images_and_ratios_are_refused_in_one_line(build, no_type_checks):
    model = build()
    with pytest.raises(ValueError, match="at least one frame is needed"):
        model(clip()[:, :0])
    with pytest.raises(ValueError, match=r"must be normalised, got torch\.uint8; use backbone\.normalize"):
        model(clip().byte())
    with pytest.raises(ValueError, match=r"shape \[B, S, 3, H, W\], got \(3, 3, 16, 24\)"):
        model(clip()[0])
    with pytest.raises(ValueError, match=r"one value per stream \(2\), got shape \(3,\)"):
        model(clip(), camera_token=True, aspect_ratio=torch.ones(3))


@torch.no_grad()
def test_a_forward_with_ratios_can_be_exported(build, no_type_checks):
    model, images, ratio = build(), clip(), torch.tensor([0.5, 1.7])
    options = {"camera_token": True, "aspect_ratio": ratio}
    program = torch.export.export(Camera(model), (images, ratio))
    torch.testing.assert_close(program.module()(images, ratio), model(images, **options).camera)


class Camera(torch.nn.Module):
    """The forward with a ratio, as a function of tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, ratio):
        return self.model(images, camera_token=True, aspect_ratio=ratio).camera


def test_shape_annotations_are_checked_in_tests(build):
    with pytest.raises(jaxtyping.TypeCheckError):
        build()(torch.randn(2, 3, 16, 24))


@torch.no_grad()
def test_a_mask_hides_the_pixels_completely(build, dense_forward):
    model, images = build(), clip()
    masks = torch.rand(2, 3, 2, 3) < 0.5
    pixels = masks.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, None]
    output = model(images, masks=masks)
    changed = model(torch.where(pixels, torch.randn_like(images), images), masks=masks)
    assert torch.equal(output.last, changed.last)
    assert torch.equal(output.cls, changed.cls)
    expected = dense_forward(model, images, masks=masks)[-1]
    torch.testing.assert_close(output.last, expected[..., 5:, :].unflatten(-2, (2, 3)).float(), atol=3e-5, rtol=0)
    assert not torch.isclose(output.last, model(images).last).all()


@torch.no_grad()
def test_aspect_ratio_reaches_the_camera_token_in_its_own_row_only(build):
    model, images = build(), clip()
    one, other = (model(images, camera_token=True, aspect_ratio=torch.tensor([1.0, a])) for a in (1.0, 2.0))
    assert torch.equal(one.camera[0], other.camera[0])
    assert (one.camera[1] - other.camera[1]).abs().max() > 1e-2
    # Ratio 1 has logarithm 0 but still adds the bias.
    assert (one.camera - model(images, camera_token=True).camera).abs().max() > 1e-2


@torch.no_grad()
def test_first_and_later_frames_have_their_own_tokens(build):
    model, images = build(), clip()
    before = model(images, camera_token=True)
    model.register_token[:, 1] *= -1
    model.camera_token[:, 1] *= -1
    after = model(images, camera_token=True)
    assert torch.equal(before.last[:, 0], after.last[:, 0])
    assert (before.last[:, 1] - after.last[:, 1]).abs().max() > 1e-2


def test_normalize_takes_uint8_and_floats(build):
    model = build()
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    result = model.normalize(images)
    expected = (images[:, 1] / 255 - 0.456) / 0.224
    torch.testing.assert_close(result[:, 1], expected)
    torch.testing.assert_close(model.normalize(images / 255), result)


@torch.no_grad()
def test_rescale_is_drawn_once_per_forward_and_only_in_train_mode(build, monkeypatch):
    model, images = build(), clip()
    draws = []

    def draw(limit):
        draws.append(limit)
        return 1.25 if len(draws) == 1 else 0.8

    monkeypatch.setattr(model_module, "draw_scale", draw)
    expected = model(images).last
    assert draws == []
    tables = []
    rope_tables = model_module.rope_tables
    monkeypatch.setattr(model_module, "rope_tables", lambda *args: tables.append(args[-2:]) or rope_tables(*args))
    scaled = model.train()(images).last
    assert draws == [2.0, 2.0]
    assert tables == [(1.25, 0.8)]
    assert (scaled - expected).abs().max() > 1e-3
    without = build(rope_rescale=None).train()
    assert torch.equal(without(images).last, expected)
    assert len(draws) == 2


@torch.no_grad()
def test_train_mode_differs_between_calls_and_repeats_with_the_seed(build):
    model, images = build().train(), clip()
    torch.manual_seed(1)
    first, second = model(images).last, model(images).last
    torch.manual_seed(1)
    assert torch.equal(model(images).last, first)
    assert (first - second).abs().max() > 1e-3


def test_activation_checkpointing_gives_the_same_gradients(build):
    images = clip()
    options = {"layers": (1,), "camera_token": True, "aspect_ratio": torch.tensor([0.5, 2.0])}
    results = []
    for activation_checkpointing in (False, True):
        model = build(activation_checkpointing=activation_checkpointing).train()
        torch.manual_seed(3)
        results.append(gradients(model, images, **options))
    assert results[0].keys() == results[1].keys()
    assert len(results[0]) == len(list(model.parameters())) - 1  # all but the mask token
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


def test_activation_checkpointing_recomputes_blocks_only_in_training_and_when_asked(build):
    model = build(activation_checkpointing=True)
    calls = []
    model.blocks[2].register_forward_pre_hook(lambda *_: calls.append(1))
    loss(model(clip())).backward()
    assert len(calls) == 1
    loss(model.train()(clip())).backward()
    assert len(calls) == 3
    model.activation_checkpointing = False
    loss(model(clip())).backward()
    assert len(calls) == 4


def test_bfloat16_autocast_stays_close_and_trains(build):
    model, images = build(), clip()
    expected = model(images).last.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images, camera_token=True, aspect_ratio=torch.ones(2))
        result = model(images).last
    assert (result - expected).norm() / expected.norm() < 3e-2
    loss(output).backward()
    assert all(p.grad.isfinite().all() for n, p in model.named_parameters() if n != "mask_token")


def test_gradients_equal_those_of_the_dense_twin(build, dense_forward):
    # In float64 the twin's numbers are those of finite differences to many digits: compare along one direction.
    model, images = build(), clip(num_frames=2, batch=1)
    direction = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    found = gradients(model, images)
    slope = sum((found[name] * direction[name]).double().sum() for name in found)

    def twin_loss(step):
        moved = build()
        for name, p in moved.double().named_parameters():
            p.data += step * direction[name].double()
        tokens = dense_forward(moved, images)[-1]
        return (tokens[..., 5:, :].sin().sum() + tokens[..., 0, :].sin().sum() + tokens[..., 1:5, :].sin().sum()).item()

    finite = (twin_loss(1e-5) - twin_loss(-1e-5)) / 2e-5
    assert abs(slope.item() - finite) < 1e-3 * max(1.0, abs(finite))


def test_meta_construction_then_reset_equals_normal_construction():
    normal = OmniStream("vit_nano")
    with torch.device("meta"):
        late = OmniStream("vit_nano")
    late = late.to_empty(device="cpu")
    for tensor in late.state_dict().values():
        tensor.fill_(float("nan"))
    for model in (normal, late):
        torch.manual_seed(5)
        model.reset_parameters()
    torch.testing.assert_close(late.state_dict(), normal.state_dict(), atol=0, rtol=0)


def test_initial_weights_follow_dinov3():
    model = OmniStream("vit_tiny", layer_scale_init=0.3)
    assert all((block.ls1.gamma == 0.3).all() and (block.ls2.gamma == 0.3).all() for block in model.blocks)
    for token in (model.cls_token, model.register_token, model.camera_token):
        assert 0.015 < token.std() < 0.025
    assert (model.mask_token == 0).all()
    assert torch.equal(model.register_token[:, 0], model.register_token[:, 1])
    qkv = model.blocks[3].attn.qkv
    gain = (qkv.weight.std() * model.embed_dim**0.5).item()
    assert gain == pytest.approx(0.02 * 1024**0.5, rel=0.05)  # that of ViT-L, whose width DINOv3's 0.02 is for
    assert (qkv.bias == 0).all()
    bound = (3 * 8 * 8) ** -0.5
    assert 0.95 * bound < model.patch_embed.weight.abs().max() <= bound


def test_variants_table_is_ordered_by_size():
    sizes = [arch.embed_dim * arch.num_layers * arch.hidden_dim for arch in VARIANTS.values()]
    assert sizes == sorted(sizes)


@torch.no_grad()
def test_layout_can_change_in_place(build):
    model, images = build(rope_layout="rotation"), clip()
    model.set_rope_layout("spatial")
    assert torch.equal(model(images).last, build(rope_layout="spatial")(images).last)


def test_some_parameters_are_drawn_and_the_others_left_alone(build):
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = {"camera_token", "blocks.1.mlp.fc1.weight", "blocks.1.norm2.bias", "mask_token"}
    model.reset_parameters(only=chosen)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == chosen | {"blocks.1.mlp.fc1.bias", "blocks.1.norm2.weight"}
