"""State-dict layouts of DINOv3 and OmniStream: recognised by one key and renamed to ours.

Our parameter names are Meta's, with `register_token` [1, 2, 4, D] for the first and the later frames.
Sources: facebookresearch/dinov3 (.pth), timm (`eva.py`), Hugging Face `DINOv3ViTModel`, Go2Heart/OmniStream.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnistream.backbone.variants import VARIANTS

StateDict = dict[str, Tensor]

# What may be missing: DINOv3 has no camera token, timm drops the mask token, and only we store mean and std.
_DINOV3_LACKS = {"camera_token", "aspect_embed.weight", "aspect_embed.bias", "mask_token", "mean", "std"}
OPTIONAL_KEYS: dict[str, set[str]] = {
    "ours": set(),
    "official": {"mean", "std"},
    "meta": _DINOV3_LACKS,
    "timm": _DINOV3_LACKS,
    "hf": _DINOV3_LACKS,
}

TELLTALES = {
    "patch_embed.camera_token": "official",
    "ar_embedder.weight": "official",  # the inner model alone
    "aspect_embed.weight": "ours",
    "storage_tokens": "meta",
    "reg_token": "timm",
    "embeddings.cls_token": "hf",
}
"""Keys that only one layout has."""


@dataclass
class Converted:
    """Weights under our names, and what happened to those without an exact counterpart."""

    layout: str
    """Where they come from: `ours`, `official`, `meta`, `timm` or `hf`."""
    state: StateDict
    """Tensors by our names."""
    filled: list[str] = field(default_factory=list)
    """Parameters without a tensor of the same meaning in the source, and how they were set."""
    dropped: list[str] = field(default_factory=list)
    """Tensors that were left out, and why nothing is lost."""
    problems: list[str] = field(default_factory=list)
    """Why the weights cannot be loaded."""


def detect_layout(state: StateDict) -> str:
    """Name of the layout of a state dict: `ours`, `official`, `meta`, `timm` or `hf`.

    Raises:
        ValueError: If it is none of them; shows some keys.
    """
    for key, layout in TELLTALES.items():
        if key in state:
            return layout
    raise ValueError(
        "the weights are in no known layout (ours, the OmniStream release, Meta, timm, Hugging Face); "
        f"first keys: {sorted(state)[:5]}"
    )


def convert(state: StateDict) -> Converted:
    """Weights of any known layout under our names.

    Raises:
        ValueError: If the layout is not known.
    """
    converted = Converted(detect_layout(state), dict(state))
    if converted.layout != "ours":
        _CONVERTERS[converted.layout](converted)
    return converted


def infer_variant(state: StateDict) -> str:
    """The variant whose sizes converted weights have; the number of heads, which shapes do not show, follows from it.

    Raises:
        ValueError: If a telling key is missing or no variant has these sizes.
    """
    ffn = "swiglu" if "blocks.0.mlp.w1.weight" in state else "mlp"
    try:
        embed_dim, _, patch_size, _ = state["patch_embed.weight"].shape
        hidden_dim = len(state["blocks.0.mlp.w1.weight" if ffn == "swiglu" else "blocks.0.mlp.fc1.weight"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"the size of the weights cannot be inferred without {error}; pass variant=<name>") from None
    blocks = {int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, state) if m}
    sizes = {
        "embed_dim": embed_dim,
        "num_layers": max(blocks) + 1,
        "hidden_dim": hidden_dim,
        "ffn": ffn,
        "patch_size": patch_size,
    }
    for name, variant in VARIANTS.items():
        if all(getattr(variant, key) == value for key, value in sizes.items()):
            return name
    known = ", ".join(f"{key}={value}" for key, value in sizes.items())
    raise ValueError(f"no variant has the sizes of these weights ({known}); variants: {', '.join(VARIANTS)}")


def _rename(converted: Converted, rules: list[tuple[str, str]]) -> None:
    renamed: StateDict = {}
    for old, value in converted.state.items():
        key = old
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            converted.problems.append(f"two tensors would become {key}")
        renamed[key] = value
    converted.state = renamed


def _fill_registers(converted: Converted, key: str) -> None:
    """[1, 4, D] to [1, 2, 4, D]: any frame keeps DINOv3's registers."""
    registers = converted.state.pop(key)
    converted.state["register_token"] = torch.stack([registers, registers], dim=1)
    converted.filled.append(f"register_token (both rows, first and later frames, from {key})")


def _drop(converted: Converted, prefix: str, reason: str) -> None:
    keys = [key for key in converted.state if key.startswith(prefix)]
    for key in keys:
        del converted.state[key]
    if keys:
        converted.dropped.append(f"{', '.join(keys)} ({reason})")


def _check_periods(converted: Converted, key: str, inverse: bool = False) -> None:
    """Take out stored RoPE periods if they are DINOv3's, which are recomputed in float32."""
    if key not in converted.state:
        return
    periods = converted.state.pop(key).double()
    periods = 1 / periods if inverse else periods
    expected = 100 ** (torch.arange(len(periods), dtype=torch.float64) / len(periods))
    error = ((periods - expected).abs() / expected).max().item()
    if error <= 1e-5:
        converted.dropped.append(f"{key} (recomputed)")
    elif error <= 2**-8:  # bfloat16 keeps 8 bits
        converted.dropped.append(f"{key} (rounded to bfloat16, {error:.1%} off; recomputed in float32)")
    else:
        converted.problems.append(f"{key} are not DINOv3's periods 1 to 100")


def _from_meta(converted: Converted) -> None:
    """Meta's DINOv3: fold the bias mask, leave out what is recomputed or used for local crops in training only."""
    state = converted.state
    masks = [key for key in state if key.endswith("qkv.bias_mask")]
    if bad := [key for key in masks if state[key].isnan().any()]:
        converted.problems.append(f"{_some(bad)} is not a number: the model was saved before it was initialised")
    for key in masks:
        mask, bias = state.pop(key), key.removesuffix("_mask")
        if bias in state:
            state[bias] = torch.where(mask > 0, state[bias], torch.zeros_like(state[bias]))
    if masks:
        converted.filled.append("attn.qkv.bias (bias times bias_mask)")
    _fill_registers(converted, "storage_tokens")
    _check_periods(converted, "rope_embed.periods")
    _drop(converted, "local_cls_norm.", "DINOv3 uses it for local crops in training only")
    _rename(converted, [(r"^patch_embed\.proj\.", "patch_embed.")])


def _from_timm(converted: Converted) -> None:
    """Weights of timm's `_qkvb` and plain models: join q and v bias (and a zero k bias), rename."""
    state = converted.state
    stems = [key.removesuffix("q_bias") for key in state if key.endswith("attn.q_bias")]
    _join_biases(converted, [(stem, [f"{stem}{n}_bias" for n in "qkv"]) for stem in stems])
    _fill_registers(converted, "reg_token")
    _check_periods(converted, "rope.periods")
    _drop(converted, "head.", "a classifier")
    rules = [
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.mlp\.fc1_g\.", ".mlp.w1."),
        (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    ]
    if any(".fc1_g." in key for key in converted.state):
        rules.append((r"\.mlp\.fc2\.", ".mlp.w3."))
    _rename(converted, rules)


def _from_hf(converted: Converted) -> None:
    """Hugging Face's DINOv3ViTModel, as saved by transformers 4.56 and later."""
    _rename(converted, [(r"^model\.layer\.", "layer.")])
    state = converted.state
    stems = [key.removesuffix("q_proj.weight") for key in state if key.endswith("attention.q_proj.weight")]
    for stem in stems:
        weights = [f"{stem}{n}_proj.weight" for n in "qkv"]
        if all(key in state for key in weights):
            state[f"{stem}qkv.weight"] = torch.cat([state.pop(key) for key in weights])
    biased = [stem for stem in stems if f"{stem}q_proj.bias" in state]
    _join_biases(converted, [(stem, [f"{stem}{n}_proj.bias" for n in "qkv"]) for stem in biased])
    if "embeddings.register_tokens" in state:
        _fill_registers(converted, "embeddings.register_tokens")
    if "embeddings.mask_token" in state:
        state["mask_token"] = state.pop("embeddings.mask_token")[0]
    _check_periods(converted, "rope_embeddings.inv_freq", inverse=True)
    gated = any(".gate_proj." in key for key in state)
    _rename(
        converted,
        [
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.patch_embeddings\.", "patch_embed."),
            (r"^layer\.", "blocks."),
            (r"\.attention\.qkv\.", ".attn.qkv."),
            (r"\.attention\.o_proj\.", ".attn.proj."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.gate_proj\.", ".mlp.w1."),
            (r"\.mlp\.up_proj\.", ".mlp.w2." if gated else ".mlp.fc1."),
            (r"\.mlp\.down_proj\.", ".mlp.w3." if gated else ".mlp.fc2."),
        ],
    )


def _join_biases(converted: Converted, blocks: list[tuple[str, list[str]]]) -> None:
    """One qkv bias from three; a k bias that the source does not have is zero there."""
    state = converted.state
    filled = False
    for stem, (q, k, v) in blocks:
        if v not in state:
            continue  # reported as unexpected
        zero = torch.zeros_like(state[q])
        filled |= k not in state
        state[f"{stem}qkv.bias"] = torch.cat([state.pop(q), state.pop(k, zero), state.pop(v)])
    if filled:
        converted.filled.append("attn.qkv.bias (k part zero)")


def _from_official(converted: Converted) -> None:
    """The authors' release: strip its prefix; the final norm and the aspect-ratio layer have other names."""
    wrapped = "patch_embed.camera_token" in converted.state
    _rename(
        converted,
        [
            *([(r"^patch_embed\.", "")] if wrapped else []),
            (r"^patch_embed\.proj\.", "patch_embed."),
            (r"^post_layernorm\.", "norm."),
            (r"^ar_embedder\.", "aspect_embed."),
        ],
    )


def _some(keys: list[str]) -> str:
    """The first of a list of keys, and how many more there are."""
    return keys[0] if len(keys) == 1 else f"{keys[0]} (and {len(keys) - 1} more)"


_CONVERTERS: dict[str, Callable[[Converted], None]] = {
    "official": _from_official,
    "meta": _from_meta,
    "timm": _from_timm,
    "hf": _from_hf,
}
