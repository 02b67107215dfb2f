"""Weights from Meta, timm, Hugging Face and the release give the outputs of the models they come from.

Oracles: timm (models and formulas of DINOv3), transformers, and numbers of the authors' code. Tolerance: features have
standard deviation about 1; the libraries order the same float32 operations differently.
"""

import math
import pickle
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from omnistream.backbone import VARIANTS, OmniStream, Variant, create_model
from omnistream.backbone.checkpoints import detect_layout, load_pretrained, load_state, read_state

CLOSE = {"atol": 1e-5, "rtol": 0}
SHORT = {"embed_dim": 64, "num_layers": 2, "num_heads": 2, "default_layers": (0, 0, 1, 1)}
SHAPES = {
    # Each as the DINOv3 model it is named after, but small; `wide_heads` has the head width and no qkv bias of 7B.
    "short_mlp": Variant(**SHORT, hidden_dim=256, timm_name="short_dinov3.lvd1689m"),
    "short_swiglu": Variant(**SHORT, hidden_dim=256, ffn="swiglu"),
    "wide_heads": Variant(**(SHORT | {"embed_dim": 256}), hidden_dim=512, ffn="swiglu", qkv_bias=False),
}


@pytest.fixture(autouse=True)
def _short_variants(monkeypatch):
    for name, variant in SHAPES.items():
        monkeypatch.setitem(VARIANTS, name, variant)


def short_timm(name, randomize):
    """Timm's DINOv3 with the settings of S (qkvb), S+ (qkvb) or 7B, in the size of a short variant."""
    arch = SHAPES[name]
    model = Eva(
        img_size=32,
        patch_size=16,
        num_classes=0,
        embed_dim=arch.embed_dim,
        depth=arch.num_layers,
        num_heads=arch.num_heads,
        mlp_ratio=arch.hidden_dim / arch.embed_dim,
        swiglu_mlp=arch.ffn == "swiglu",
        swiglu_align_to=8 if arch.qkv_bias else 64,
        qkv_bias=arch.qkv_bias,
        qkv_fused=True,
        init_values=1e-5,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        use_fc_norm=False,
        dynamic_img_size=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )
    return randomize(model).eval()


def meta_state(timm_state, swiglu):
    """The same weights in the layout of facebookresearch/dinov3's files, with all that those hold besides."""
    state = {}
    for key, value in timm_state.items():
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        if swiglu:
            key = key.replace("fc1_g", "w1").replace("fc1_x", "w2").replace("mlp.fc2", "mlp.w3")
        if key.endswith("q_bias"):
            v_bias = timm_state[key.replace("q_bias", "v_bias")]
            # What the mask hides must not be used: a k bias that is not zero.
            state[key.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.full_like(value, 7.0), v_bias])
            mask = torch.ones(3, len(value))
            mask[1] = 0
            state[key.replace("q_bias", "qkv.bias_mask")] = mask.flatten()
        elif not key.endswith("v_bias"):
            state[key] = value
    D = timm_state["cls_token"].shape[-1]
    extras = {"mask_token": torch.randn(1, D), "rope_embed.periods": torch.rand(16)}
    return state | extras | {"local_cls_norm.weight": torch.rand(D), "local_cls_norm.bias": torch.rand(D)}


def all_tokens(model, images):
    """Tokens [B, P, D] after the final norm, in DINOv3's order."""
    output = model(images[:, None])
    return torch.cat([output.cls[:, 0, None], output.registers[:, 0], output.last[:, 0].flatten(1, 2)], dim=1)


IMAGES = {"shape": (2, 3, 48, 80)}


@pytest.fixture
def images():
    return torch.randn(IMAGES["shape"])


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
    kept = load_state(ours, theirs.state_dict())
    assert sorted(kept) == ["aspect_embed.bias", "aspect_embed.weight", "camera_token", "mask_token", "mean", "std"]
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
    for state in (theirs.state_dict(), meta_state(theirs.state_dict(), SHAPES[name].ffn == "swiglu")):
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


def short_hf(name, randomize):
    arch = SHAPES[name]
    config = DINOv3ViTConfig(
        patch_size=16,
        hidden_size=arch.embed_dim,
        intermediate_size=arch.hidden_dim,
        num_hidden_layers=arch.num_layers,
        num_attention_heads=arch.num_heads,
        num_register_tokens=4,
        use_gated_mlp=arch.ffn == "swiglu",
        hidden_act="silu" if arch.ffn == "swiglu" else "gelu",
        query_bias=arch.qkv_bias,
        key_bias=False,
        value_bias=arch.qkv_bias,
    )
    return randomize(DINOv3ViTModel(config)).eval()


@pytest.mark.parametrize("form", ["memory", "file"])
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_hugging_face_layout(name, form, randomize, images, tmp_path):
    theirs = short_hf(name, randomize)
    if form == "file":
        theirs.save_pretrained(tmp_path)
        state = read_state(tmp_path / "model.safetensors")
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


def official_state(blocks=4, D=64, hidden=256, patch=8):
    """The release's keys, filled by a formula.

    Entry n of the i-th key in alphabetical order is v = sin(0.7 n^2 + i), taken as it is for tokens, 0.6 + 0.4 v for
    layer scales, 0.3 v for biases, 1 + 0.3 v for norm weights, and 1.4 v / sqrt(inputs) for the rest.
    """
    shapes = {
        "cls_token": (1, 1, D),
        "camera_token": (1, 2, 1, D),
        "register_token": (1, 2, 4, D),
        "mask_token": (1, D),
        "ar_embedder.weight": (D, 1),
        "ar_embedder.bias": (D,),
        "patch_embed.proj.weight": (D, 3, patch, patch),
        "patch_embed.proj.bias": (D,),
        "post_layernorm.weight": (D,),
        "post_layernorm.bias": (D,),
    }
    for i in range(blocks):
        for name, shape in (
            ("attn.qkv", (3 * D, D)),
            ("attn.proj", (D, D)),
            ("mlp.fc1", (hidden, D)),
            ("mlp.fc2", (D, hidden)),
        ):
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (D,)
    state = {}
    for i, key in enumerate(sorted(shapes)):
        n = torch.arange(math.prod(shapes[key]), dtype=torch.float64)
        v = torch.sin(0.7 * n * n + i).float().reshape(shapes[key])
        if "gamma" in key:
            v = 0.6 + 0.4 * v
        elif key.endswith("bias"):
            v = 0.3 * v
        elif "norm" in key:
            v = 1 + 0.3 * v
        elif "token" not in key:
            v = 1.4 * v / math.sqrt(v[0].numel())
        state["patch_embed." + key] = v
    return state


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
@torch.no_grad()
def test_official_layout_reproduces_the_authors_code(aspect_ratio, expected):
    # Numbers of DinoVideoTransformer(img_size=32, patch_size=8, embed_dim=64, depth=4, num_heads=2) in eval mode, from
    # Go2Heart/OmniStream: model/modeling_omnistream.py at bfb8884, with these weights and images. A whole-output
    # comparison with random weights, T = 1, 2, 15, 16, differed by at most 3e-6.
    model = OmniStream("vit_nano", rope_layout="official").eval()
    assert load_state(model, official_state()) == ["mean", "std"]
    n = torch.arange(3 * 3 * 16 * 24, dtype=torch.float64)
    images = torch.sin(0.37 * n * n).float().reshape(1, 3, 3, 16, 24)
    ratio = None if aspect_ratio is None else torch.tensor([aspect_ratio])
    output = model(images, layers=(1,), camera_token=aspect_ratio is not None, aspect_ratio=ratio)
    result = {
        "last": output.last[0, 2, 1, 2],
        "cls": output.cls[0, 1],
        "registers": output.registers[0, 0, 3],
        "block 1": output.patches[1][0, 2, 1, 1],
    }
    if output.camera is not None:
        result["camera"] = output.camera[0, 2]
    assert result.keys() == expected.keys()
    for name, numbers in expected.items():
        torch.testing.assert_close(result[name][: len(numbers)], torch.tensor(numbers), atol=3e-5, rtol=0)


@torch.no_grad()
def test_own_layout_round_trips_through_files(build, tmp_path):
    model, images = build(), torch.randn(1, 2, 3, 16, 16)
    model.mean.fill_(0.4)
    expected = model(images).last
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    # A Lightning checkpoint holds the backbone beside other things.
    lightning = {f"backbone.{k}": v for k, v in model.state_dict().items()} | {"heads.weight": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": lightning}, tmp_path / "last.ckpt")
    torch.save({"teacher": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "teacher.pt")
    for name in ("model.safetensors", "model.pth", "last.ckpt", "teacher.pt"):
        loaded = create_model("vit_nano", checkpoint=tmp_path / name).eval()
        assert torch.equal(loaded(images).last, expected)
        assert (loaded.mean == 0.4).all()


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


def test_missing_unexpected_and_misshapen_keys_are_named(randomize):
    ours = OmniStream("short_mlp")
    timm_state = short_timm("short_mlp", randomize).state_dict()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    broken = {
        r"missing \['blocks.1.attn.proj.weight'\]": {
            k: v for k, v in timm_state.items() if k != "blocks.1.attn.proj.weight"
        },
        r"unexpected \['neck.weight'\]": timm_state | {"neck.weight": torch.ones(1)},
        r"wrong shape \['norm.weight: \(65,\) for \(64,\)'\]": timm_state | {"norm.weight": torch.ones(65)},
    }
    for message, state in broken.items():
        with pytest.raises(ValueError, match=r"timm weights do not fit short_mlp: .*" + message):
            load_state(ours, state)
    with pytest.raises(ValueError, match=r"missing \['blocks.0.mlp.fc1.weight'"):
        load_state(ours, short_timm("short_swiglu", randomize).state_dict())
    meta = meta_state(timm_state, swiglu=False)
    del meta["blocks.1.attn.qkv.bias"], meta["blocks.1.attn.qkv.bias_mask"]
    with pytest.raises(ValueError, match=r"missing \['blocks.1.attn.qkv.bias'\]"):
        load_state(ours, meta)
    official = official_state()
    del official["patch_embed.camera_token"], official["patch_embed.mask_token"]
    with pytest.raises(ValueError, match="in no known layout"):
        load_state(OmniStream("vit_nano"), official)
    official = official_state()
    del official["patch_embed.mask_token"]
    with pytest.raises(ValueError, match=r"missing \['mask_token'\]"):
        load_state(OmniStream("vit_nano"), official)
    torch.testing.assert_close(ours.state_dict(), before, atol=0, rtol=0)  # nothing was loaded halfway


@torch.no_grad()
def test_a_bias_that_has_no_place_is_refused_unless_it_is_zero(randomize, images):
    theirs = short_timm("wide_heads", randomize)
    state = meta_state(theirs.state_dict(), swiglu=True)
    ours = OmniStream("wide_heads", rope_layout="spatial").eval()
    biases = {f"blocks.{i}.attn.qkv.bias": torch.zeros(768) for i in range(2)}
    load_state(ours, state | biases)
    torch.testing.assert_close(all_tokens(ours, images), theirs.forward_features(images), **CLOSE)
    biases["blocks.1.attn.qkv.bias"][5] = 0.1
    with pytest.raises(ValueError, match=r"unexpected \['blocks.1.attn.qkv.bias'\]"):
        load_state(ours, state | biases)


def test_bias_mask_that_is_not_a_number_is_refused(randomize):
    state = meta_state(short_timm("short_mlp", randomize).state_dict(), swiglu=False)
    state["blocks.0.attn.qkv.bias_mask"].fill_(math.nan)
    with pytest.raises(ValueError, match=r"blocks.0.attn.qkv.bias_mask is not a number"):
        load_state(OmniStream("short_mlp"), state)


def test_models_on_the_meta_device_are_refused():
    state = OmniStream("vit_nano").state_dict()
    with torch.device("meta"):
        model = OmniStream("vit_nano")
    with pytest.raises(ValueError, match="on the meta device; materialise it with to_empty first"):
        load_state(model, state)


class _Payload:
    def __reduce__(self):
        return (print, ("code in a weights file was run",))


def test_files_are_read_without_running_code(tmp_path, capsys):
    with (tmp_path / "evil.pth").open("wb") as file:
        pickle.dump({"model": _Payload()}, file, protocol=2)
    torch.save({"cls_token": torch.ones(1), "payload": _Payload()}, tmp_path / "evil.pt")
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(ValueError, match=rf"{name} holds more than tensors"):
            read_state(tmp_path / name)
    assert "code" not in capsys.readouterr().out
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no dictionary of tensors"):
        read_state(tmp_path / "empty.pt")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_state(tmp_path / "none.pt")


@torch.no_grad()
def test_pretrained_asks_timm_for_the_right_model(monkeypatch, randomize, images):
    theirs = short_timm("short_mlp", randomize)
    calls = []
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: calls.append((args, options)) or theirs)
    ours = create_model("short_mlp", pretrained=True, rope_layout="spatial").eval()
    assert calls == [(("short_dinov3.lvd1689m",), {"pretrained": True})]
    torch.testing.assert_close(all_tokens(ours, images), theirs.forward_features(images), **CLOSE)


def test_pretrained_names_exist_in_timm():
    names = {variant.timm_name for name, variant in VARIANTS.items() if variant.timm_name and name not in SHAPES}
    assert len(names) == 6
    assert names <= set(timm.list_pretrained("vit_*dinov3*"))


def test_pretrained_is_refused_where_there_is_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="no pretrained weights for vit_nano; give checkpoint=<file> instead"):
        create_model("vit_nano", pretrained=True)
    with pytest.raises(ValueError, match="either checkpoint or pretrained=True, not both"):
        create_model("short_mlp", pretrained=True, checkpoint=tmp_path / "weights.pth")


def test_what_stays_as_initialised_is_logged(randomize, tmp_path, caplog):
    torch.save(short_timm("short_mlp", randomize).state_dict(), tmp_path / "timm.pth")
    with caplog.at_level("INFO", logger="omnistream"):
        load_pretrained(OmniStream("short_mlp"), tmp_path / "timm.pth")
    assert "camera_token" in caplog.text
    assert "timm.pth" in caplog.text
