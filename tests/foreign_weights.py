"""DINOv3 and OmniStream weights as others publish them: small models of timm and transformers, and laid out by hand."""

import math
from functools import partial

import torch
from timm.models.eva import Eva
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from omnistream.backbone import Variant

SHORT = {"embed_dim": 64, "num_layers": 2, "num_heads": 2, "default_layers": (0, 0, 1, 1)}
SHAPES = {
    # Each as the DINOv3 model it is named after, but small; `wide_heads` has the head width and no qkv bias of 7B.
    "short_mlp": Variant(**SHORT, hidden_dim=256, timm_name="short_dinov3.lvd1689m"),
    "short_swiglu": Variant(**SHORT, hidden_dim=256, ffn="swiglu"),
    "wide_heads": Variant(**(SHORT | {"embed_dim": 256}), hidden_dim=512, ffn="swiglu", qkv_bias=False),
}


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


def meta_state(timm_state, arch):
    """The weights of a timm model in the layout of facebookresearch/dinov3's files, with all those hold besides."""
    state = {}
    for key, value in timm_state.items():
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        if arch.ffn == "swiglu":
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
    D, n = arch.embed_dim, arch.head_dim // 4
    periods = 100 ** (torch.arange(n) / n)
    extras = {"mask_token": torch.randn(1, D), "rope_embed.periods": periods.bfloat16()}
    return state | extras | {"local_cls_norm.weight": torch.rand(D), "local_cls_norm.bias": torch.rand(D)}


def short_hf(name, randomize):
    """DINOv3ViTModel with the settings of S, S+ or 7B, in the size of a short variant."""
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


def all_tokens(model, images):
    """Tokens [B, P, D] after the final norm, in DINOv3's order."""
    output = model(images[:, None])
    return torch.cat([output.cls[:, 0, None], output.registers[:, 0], output.last[:, 0].flatten(1, 2)], dim=1)
