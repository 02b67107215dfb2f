"""Weights that do not fit, or that the model cannot hold, are refused, all reasons at once; the rest is said."""

import math

import pytest
import torch
from foreign_weights import SHAPES, all_tokens, meta_state, official_state, short_timm

from omnistream.backbone import OmniStream, create_model
from omnistream.backbone.weights.load import load_state

pytestmark = pytest.mark.usefixtures("short_variants")


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
    meta = meta_state(timm_state, SHAPES["short_mlp"])
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
def test_a_bias_that_has_no_place_is_refused_unless_it_is_zero(randomize):
    theirs, images = short_timm("wide_heads", randomize), torch.randn(2, 3, 48, 80)
    state = meta_state(theirs.state_dict(), SHAPES["wide_heads"])
    ours = OmniStream("wide_heads", rope_layout="spatial").eval()
    biases = {f"blocks.{i}.attn.qkv.bias": torch.zeros(768) for i in range(2)}
    load_state(ours, state | biases)
    torch.testing.assert_close(all_tokens(ours, images), theirs.forward_features(images), atol=1e-5, rtol=0)
    biases["blocks.1.attn.qkv.bias"][5] = 0.1
    with pytest.raises(ValueError, match=r"non-zero biases the model has no place for \['blocks.1.attn.qkv.bias'\]"):
        load_state(ours, state | biases)


def test_bias_mask_that_is_not_a_number_is_refused(randomize):
    state = meta_state(short_timm("short_mlp", randomize).state_dict(), SHAPES["short_mlp"])
    state["blocks.0.attn.qkv.bias_mask"].fill_(math.nan)
    with pytest.raises(ValueError, match=r"blocks.0.attn.qkv.bias_mask is not a number"):
        load_state(OmniStream("short_mlp"), state)


def test_models_on_the_meta_device_are_refused():
    state = OmniStream("vit_nano").state_dict()
    with torch.device("meta"):
        model = OmniStream("vit_nano")
    with pytest.raises(ValueError, match="on the meta device; materialise it with to_empty first"):
        load_state(model, state)


def test_all_reasons_come_at_once(randomize):
    state = meta_state(short_timm("wide_heads", randomize).state_dict(), SHAPES["wide_heads"])
    state |= {f"blocks.{i}.attn.qkv.bias": torch.ones(768) for i in range(2)}
    state |= {f"blocks.{i}.attn.qkv.bias_mask": torch.full((768,), math.nan) for i in range(2)}
    state |= {"neck.weight": torch.ones(1), "norm.bias": torch.ones(3), "cls_token": torch.ones(1, 1, 256).long()}
    del state["norm.weight"]
    with pytest.raises(ValueError, match="do not fit") as caught:
        load_state(OmniStream("wide_heads"), state)
    message = str(caught.value)
    for reason in (
        "blocks.0.attn.qkv.bias_mask (and 1 more) is not a number",
        "missing ['norm.weight']",
        "unexpected ['neck.weight']",
        "wrong shape ['norm.bias: (3,) for (256,)']",
        "not floating point ['cls_token']",
    ):
        assert reason in message
    assert "\n" not in message
    state = {key: value for key, value in state.items() if not key.endswith("bias_mask")}
    with pytest.raises(ValueError, match=r"no place for \['blocks.0.attn.qkv.bias', 'blocks.1.attn.qkv.bias'\]"):
        load_state(OmniStream("wide_heads"), state)


def test_report_reads_as_one_line(randomize):
    state = meta_state(short_timm("short_mlp", randomize).state_dict(), SHAPES["short_mlp"])
    report = load_state(OmniStream("short_mlp"), state)
    text = str(report)
    assert text.startswith(
        "short_mlp from DINOv3 (Meta); filled in: attn.qkv.bias (bias times bias_mask), register_token"
    )
    assert "left as initialised: camera_token, aspect_embed.weight, aspect_embed.bias; not taken over:" in text
    assert "\n" not in text


def test_pretrained_is_refused_where_there_is_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="no pretrained weights for vit_nano; give checkpoint=<file> instead"):
        create_model("vit_nano", pretrained=True)
    with pytest.raises(ValueError, match="sat493m weights for vit_large and vit_7b only, not for short_mlp"):
        create_model("short_mlp", pretrained="sat493m")
    with pytest.raises(ValueError, match="either checkpoint or pretrained, not both"):
        create_model("short_mlp", pretrained=True, checkpoint=tmp_path / "weights.pth")
