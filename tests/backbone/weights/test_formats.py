"""Weights from Meta, timm, Hugging Face and the release give the outputs of the models they come from.

Oracles: timm (models and formulas of DINOv3), transformers, and numbers of the authors' code. Tolerance: features have
standard deviation about 1; the libraries order the same float32 operations differently.
"""

import pytest
import timm
import torch
from foreign_weights import SHAPES, all_tokens, meta_state, official_state, short_hf, short_timm

from omnistream.backbone import OmniStream
from omnistream.backbone.weights.files import read_tensors
from omnistream.backbone.weights.formats import convert, detect_layout, infer_variant
from omnistream.backbone.weights.load import load_state

CLOSE = {"atol": 1e-5, "rtol": 0}

pytestmark = pytest.mark.usefixtures("short_variants")


@pytest.fixture
def images():
    return torch.randn(2, 3, 48, 80)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("vit_small", "vit_small_patch16_dinov3_qkvb"),
        ("vit_small_plus", "vit_small_plus_patch16_dinov3_qkvb"),
    ],
)
@torch.no_grad()
def test_spatial_layout_reproduces_timms_dinov3(variant, name, randomize, images):
    theirs = randomize(timm.create_model(name)).eval()
    ours = OmniStream(variant, rope_layout="spatial").eval()
    report = load_state(ours, theirs.state_dict())
    assert sorted(report.initialized) == ["aspect_embed.bias", "aspect_embed.weight", "camera_token", "mask_token"]
    expected = theirs.forward_features(images)
    assert expected.std() > 0.5
    torch.testing.assert_close(all_tokens(ours, images), expected, **CLOSE)
    ours.set_rope_layout("rotation")
    assert (all_tokens(ours, images) - expected).abs().max() > 0.1


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_timm_and_meta_layouts_of_every_shape(name, randomize, images):
    theirs = short_timm(name, randomize)
    expected = theirs.forward_features(images)
    for state in (theirs.state_dict(), meta_state(theirs.state_dict(), SHAPES[name])):
        ours = randomize(OmniStream(name, rope_layout="spatial"), seed=1).eval()
        load_state(ours, state)
        torch.testing.assert_close(all_tokens(ours, images), expected, **CLOSE)
        if "mask_token" in state:
            assert torch.equal(ours.mask_token, state["mask_token"])
        # Every frame of a stream keeps DINOv3's registers.
        assert torch.equal(ours.register_token[:, 0], ours.register_token[:, 1])


@torch.no_grad()
def test_timm_model_without_biases_is_one_with_zero_biases(randomize, images):
    theirs = short_timm("short_mlp", randomize)
    for block in theirs.blocks:
        block.attn.q_bias.zero_()
        block.attn.v_bias.zero_()
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith(("q_bias", "v_bias"))}
    ours = randomize(OmniStream("short_mlp", rope_layout="spatial"), seed=1).eval()
    load_state(ours, state)
    torch.testing.assert_close(all_tokens(ours, images), theirs.forward_features(images), **CLOSE)


@pytest.mark.parametrize("form", ["memory", "file"])
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_hugging_face_layout(name, form, randomize, images, tmp_path):
    theirs = short_hf(name, randomize)
    if form == "file":
        theirs.save_pretrained(tmp_path)
        state = read_tensors(tmp_path / "model.safetensors")
    else:
        state = theirs.state_dict()
    ours = randomize(OmniStream(name, rope_layout="spatial"), seed=1).eval()
    load_state(ours, state)
    torch.testing.assert_close(all_tokens(ours, images), theirs(images).last_hidden_state, atol=2e-5, rtol=0)
    # Their mask is [B, h * w]; ours has a frame axis.
    masks = torch.rand(2, 15) < 0.4
    expected = theirs(images, bool_masked_pos=masks).last_hidden_state[:, 5:]
    result = ours(images[:, None], masks=masks.view(2, 1, 3, 5)).last.flatten(1, 3)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("aspect_ratio", "expected"),
    [
        (
            None,
            {
                "last": [-2.77092, 1.677, 1.25182, -1.24796],
                "cls": [-2.79037, 1.47801, 0.09376],
                "registers": [-2.47452, 1.2264, 0.9592],
                "block 1": [-5.06241, 0.58975, 0.65059],
            },
        ),
        (
            1.5,
            {
                "last": [-3.10452, 2.09201, 1.2759, -1.37483],
                "cls": [-2.86982, 1.60311, 0.10376],
                "registers": [-2.51151, 1.3768, 0.92396],
                "block 1": [-5.0965, 0.64974, 0.65495],
                "camera": [-4.122, 1.53316, 0.14634],
            },
        ),
    ],
)
@pytest.mark.parametrize("way", ["clip", "stream"])
@torch.no_grad()
def test_official_layout_reproduces_the_authors_code(way, aspect_ratio, expected):
    # Numbers of DinoVideoTransformer(img_size=32, patch_size=8, embed_dim=64, depth=4, num_heads=2) in eval mode, from
    # Go2Heart/OmniStream: model/modeling_omnistream.py at bfb8884, with these weights and images. Its own cached and
    # whole-clip outputs differ by at most 3e-6, as docs/weights.md records for random weights.
    model = OmniStream("vit_nano", rope_layout="official").eval()
    report = load_state(model, official_state())
    assert (report.initialized, report.filled, report.dropped) == ([], [], [])
    n = torch.arange(3 * 3 * 16 * 24, dtype=torch.float64)
    images = torch.sin(0.37 * n * n).float().reshape(1, 3, 3, 16, 24)
    options = {"camera_token": aspect_ratio is not None}
    if aspect_ratio is not None:
        options["aspect_ratio"] = torch.tensor([aspect_ratio])
    if way == "clip":
        outputs = [model(images, layers=(1,), **options)]
    else:
        session = model.stream(layers=(1,), **options)
        outputs = [session.step(images[:, t : t + 1]) for t in range(3)]
    last, cls, registers = (torch.cat([getattr(o, k) for o in outputs], 1) for k in ("last", "cls", "registers"))
    block = torch.cat([output.patches[1] for output in outputs], 1)
    result = {"last": last[0, 2, 1, 2], "cls": cls[0, 1], "registers": registers[0, 0, 3], "block 1": block[0, 2, 1, 1]}
    if aspect_ratio is not None:
        result["camera"] = torch.cat([output.camera for output in outputs], 1)[0, 2]
    assert result.keys() == expected.keys()
    for name, numbers in expected.items():
        torch.testing.assert_close(result[name][: len(numbers)], torch.tensor(numbers), atol=3e-5, rtol=0)


def test_layout_is_recognised():
    telltale = {
        "ours": "aspect_embed.weight",
        "official": "patch_embed.camera_token",
        "meta": "storage_tokens",
        "timm": "reg_token",
        "hf": "embeddings.cls_token",
    }
    for layout, key in telltale.items():
        assert detect_layout({"cls_token": torch.ones(1), key: torch.ones(1)}) == layout
    with pytest.raises(ValueError, match=r"in no known layout .*first keys: \['conv1.weight', 'fc.weight'\]"):
        detect_layout({"fc.weight": torch.ones(1), "conv1.weight": torch.ones(1)})


@torch.no_grad()
def test_inner_model_of_the_release_is_the_release_too():
    whole, inner = (OmniStream("vit_nano") for _ in range(2))
    load_state(whole, official_state())
    assert (
        load_state(inner, {k.removeprefix("patch_embed."): v for k, v in official_state().items()}).layout == "official"
    )
    torch.testing.assert_close(inner.state_dict(), whole.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_size_follows_from_the_shapes(name, randomize):
    timm_state = short_timm(name, randomize).state_dict()
    for state in (timm_state, meta_state(timm_state, SHAPES[name]), short_hf(name, randomize).state_dict()):
        assert infer_variant(convert(state).state) == name


def test_every_variant_has_its_own_size():
    with torch.device("meta"):
        for name in ("vit_nano", "vit_small", "vit_small_plus", "vit_base", "vit_large", "vit_huge_plus", "vit_7b"):
            assert infer_variant(OmniStream(name).state_dict()) == name


def test_sizes_without_a_variant_are_refused(randomize):
    state = convert(short_timm("short_mlp", randomize).state_dict()).state
    state |= {"blocks.6.norm1.weight": torch.ones(64)}
    with pytest.raises(ValueError, match=r"no variant has .* \(embed_dim=64, num_layers=7, hidden_dim=256, ffn=mlp"):
        infer_variant(state)
    del state["patch_embed.weight"]
    with pytest.raises(ValueError, match=r"cannot be inferred without 'patch_embed.weight'; pass variant="):
        infer_variant(state)


# The list of reference values for head width 64, as stored in Meta's files.
STORED_PERIODS = [1, 1.3359, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5, 10, 13.3125, 17.75, 23.75, 31.625, 42.25]
STORED_PERIODS += [56.25, 75]


@pytest.mark.parametrize(
    ("periods", "dropped", "problem"),
    [
        (torch.tensor(STORED_PERIODS).bfloat16(), "rounded to bfloat16, 0.2% off; recomputed in float32", None),
        (100 ** (torch.arange(16) / 16), "recomputed", None),
        (1000 ** (torch.arange(16) / 16), None, "rope_embed.periods are not DINOv3's periods 1 to 100"),
        (torch.full((16,), torch.nan), None, "rope_embed.periods are not DINOv3's periods 1 to 100"),
    ],
)
def test_stored_rope_periods_are_checked(periods, dropped, problem, randomize):
    state = meta_state(short_timm("short_mlp", randomize).state_dict(), SHAPES["short_mlp"])
    converted = convert(state | {"rope_embed.periods": periods})
    assert converted.problems == ([] if problem is None else [problem])
    about_periods = [line for line in converted.dropped if "periods" in line]
    assert about_periods == ([] if dropped is None else [f"rope_embed.periods ({dropped})"])


def test_what_is_filled_in_and_left_out_is_said(randomize):
    state = short_timm("short_mlp", randomize).state_dict()
    converted = convert(state | {"head.weight": torch.ones(3, 64)})
    assert converted.filled == [
        "attn.qkv.bias (k part zero)",
        "register_token (both rows, first and later frames, from reg_token)",
    ]
    assert converted.dropped == ["head.weight (a classifier)"]
    converted = convert(meta_state(state, SHAPES["short_mlp"]))
    assert converted.filled[0] == "attn.qkv.bias (bias times bias_mask)"
    assert "local_cls_norm.weight, local_cls_norm.bias (DINOv3 uses it" in converted.dropped[1]


def test_two_tensors_for_one_place_are_a_problem(randomize):
    state = short_timm("short_mlp", randomize).state_dict()
    converted = convert(state | {"patch_embed.bias": torch.ones(64)})
    assert converted.problems == ["two tensors would become patch_embed.bias"]
