"""Weights from elsewhere: recognise a layout by a telltale key, rename, and load without losing anything.

Our parameter names are Meta's, with `register_token` [1, 2, 4, D] for the first and the later frames.
Sources: facebookresearch/dinov3 (.pth), timm (`eva.py`), Hugging Face `DINOv3ViTModel`, Go2Heart/OmniStream.
"""

import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from omnistream.backbone.model import OmniStream

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

# What a layout may lack: a DINOv3 has no camera token, timm drops the mask token, and only we store mean and std.
_DINOV3_LACKS = {"camera_token", "aspect_embed.weight", "aspect_embed.bias", "mask_token", "mean", "std"}
OPTIONAL_KEYS: dict[str, set[str]] = {
    "ours": set(),
    "official": {"mean", "std"},
    "meta": _DINOV3_LACKS,
    "timm": _DINOV3_LACKS,
    "hf": _DINOV3_LACKS,
}


def detect_layout(state: StateDict) -> str:
    """Name of the layout of a state dict: `ours`, `official`, `meta`, `timm` or `hf`.

    Raises:
        ValueError: If it is none of them; shows some keys.
    """
    telltales = {
        "patch_embed.camera_token": "official",
        "aspect_embed.weight": "ours",
        "storage_tokens": "meta",
        "reg_token": "timm",
        "embeddings.cls_token": "hf",
    }
    for key, layout in telltales.items():
        if key in state:
            return layout
    raise ValueError(
        "the weights are in no known layout (ours, the OmniStream release, Meta, timm, Hugging Face); "
        f"first keys: {sorted(state)[:5]}"
    )


def _rename(state: StateDict, rules: list[tuple[str, str]]) -> StateDict:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _both_rows(registers: Tensor) -> Tensor:
    """[1, 4, D] to [1, 2, 4, D]: any frame keeps DINOv3's registers."""
    return torch.stack([registers, registers], dim=1)


def from_meta(state: StateDict) -> StateDict:
    """Meta's DINOv3: fold the bias mask, drop what is recomputed or used for local crops in training only.

    Raises:
        ValueError: If a bias mask is not a number, as in a model that was built but never initialised.
    """
    state = dict(state)
    for key in [k for k in state if k.endswith("qkv.bias_mask")]:
        mask = state.pop(key)
        if mask.isnan().any():
            raise ValueError(f"{key} is not a number: these weights were saved before they were initialised")
        bias = key.removesuffix("_mask")
        state[bias] = torch.where(mask > 0, state[bias], torch.zeros_like(state[bias]))
    state["register_token"] = _both_rows(state.pop("storage_tokens"))
    kept = {k: v for k, v in state.items() if k != "rope_embed.periods" and not k.startswith("local_cls_norm.")}
    return _rename(kept, [(r"^patch_embed\.proj\.", "patch_embed.")])


def from_timm(state: StateDict) -> StateDict:
    """Weights of timm's `_qkvb` and plain models: join q and v bias (and a zero k bias), rename."""
    state = {k: v for k, v in state.items() if not k.startswith(("rope.", "head."))}
    for key in [k for k in state if k.endswith("attn.q_bias")]:
        stem = key.removesuffix("q_bias")
        q, v = state.pop(key), state.pop(stem + "v_bias")
        k = state.pop(stem + "k_bias", torch.zeros_like(q))
        state[stem + "qkv.bias"] = torch.cat([q, k, v])
    state["register_token"] = _both_rows(state.pop("reg_token"))
    rules = [
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.mlp\.fc1_g\.", ".mlp.w1."),
        (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    ]
    if any(".fc1_g." in key for key in state):
        rules.append((r"\.mlp\.fc2\.", ".mlp.w3."))
    return _rename(state, rules)


def from_hf(state: StateDict) -> StateDict:
    """Hugging Face's DINOv3ViTModel, as saved by transformers 4.56 and later."""
    state = _rename(state, [(r"^model\.layer\.", "layer.")])
    for key in [k for k in state if k.endswith("attention.q_proj.weight")]:
        stem = key.removesuffix("q_proj.weight")
        state[stem + "qkv.weight"] = torch.cat([state.pop(f"{stem}{n}_proj.weight") for n in "qkv"])
        if f"{stem}q_proj.bias" in state:
            q, v = state.pop(f"{stem}q_proj.bias"), state.pop(f"{stem}v_proj.bias")
            state[stem + "qkv.bias"] = torch.cat([q, state.pop(f"{stem}k_proj.bias", torch.zeros_like(q)), v])
    state["register_token"] = _both_rows(state.pop("embeddings.register_tokens"))
    if "embeddings.mask_token" in state:
        state["mask_token"] = state.pop("embeddings.mask_token")[0]
    return _rename(
        {k: v for k, v in state.items() if "rope_embeddings" not in k},
        [
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.patch_embeddings\.", "patch_embed."),
            (r"^layer\.", "blocks."),
            (r"\.attention\.qkv\.", ".attn.qkv."),
            (r"\.attention\.o_proj\.", ".attn.proj."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.gate_proj\.", ".mlp.w1."),
            *(
                [(r"\.mlp\.up_proj\.", ".mlp.w2."), (r"\.mlp\.down_proj\.", ".mlp.w3.")]
                if any("gate_proj" in k for k in state)
                else [(r"\.mlp\.up_proj\.", ".mlp.fc1."), (r"\.mlp\.down_proj\.", ".mlp.fc2.")]
            ),
        ],
    )


def from_official(state: StateDict) -> StateDict:
    """The authors' release: strip its prefix; the final norm and the aspect-ratio layer have other names."""
    state = {k.removeprefix("patch_embed."): v for k, v in state.items()}
    return _rename(
        state,
        [
            (r"^patch_embed\.proj\.", "patch_embed."),
            (r"^post_layernorm\.", "norm."),
            (r"^ar_embedder\.", "aspect_embed."),
        ],
    )


CONVERTERS: dict[str, Callable[[StateDict], StateDict]] = {
    "ours": dict,
    "official": from_official,
    "meta": from_meta,
    "timm": from_timm,
    "hf": from_hf,
}


def read_state(path: Path | str) -> StateDict:
    """Tensors of a .safetensors, .pth, .pt or .ckpt file, unwrapped; nothing in the file is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dict, or things whose loading could run code.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a sharded checkpoint must be saved as one file to be read here")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is no weights file; not loaded"
        ) from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no dictionary of tensors")
    for prefix in ("module.", "backbone."):
        if any(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def load_state(model: OmniStream, state: StateDict) -> list[str]:
    """Load weights in any known layout; returns the parameters they did not cover.

    Raises:
        ValueError: If keys are left over or missing, a shape differs, a non-zero bias has nowhere to go, or the model
            is on the meta device.
    """
    if model.cls_token.is_meta:
        raise ValueError("weights cannot be loaded into a model on the meta device; materialise it with to_empty first")
    layout = detect_layout(state)
    converted = CONVERTERS[layout](state)
    own = model.state_dict()
    if layout in ("timm", "hf") and model.arch.qkv_bias and not any(k.endswith("qkv.bias") for k in converted):
        for i in range(model.num_layers):  # a model without these biases is one with zero biases
            converted[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(3 * model.embed_dim)
    unexpected = [k for k in converted if k not in own]
    if lossless := [k for k in unexpected if k.endswith("qkv.bias") and not converted[k].any()]:
        unexpected = [k for k in unexpected if k not in lossless]
    missing = [k for k in own if k not in converted and k not in OPTIONAL_KEYS[layout]]
    wrong = [
        f"{k}: {tuple(converted[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in converted and converted[k].shape != own[k].shape
    ]
    if unexpected or missing or wrong:
        raise ValueError(
            f"{layout} weights do not fit {model.variant}: missing {missing[:5]}, unexpected {unexpected[:5]}, "
            f"wrong shape {wrong[:5]}"
        )
    model.load_state_dict({k: v for k, v in converted.items() if k in own}, strict=False)
    return [k for k in own if k not in converted]


def load_pretrained(model: OmniStream, checkpoint: Path | str | None = None) -> None:
    """Load a local file, or timm's DINOv3 of the model's size from the hub; logs what stays as initialised.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the weights do not fit, or no pre-trained weights exist for this size.
    """
    if checkpoint is not None:
        state, source = read_state(checkpoint), str(checkpoint)
    else:
        if model.arch.timm_name is None:
            raise ValueError(f"there are no pretrained weights for {model.variant}; give checkpoint=<file> instead")
        import timm

        source = f"timm/{model.arch.timm_name}"
        state = timm.create_model(model.arch.timm_name, pretrained=True).state_dict()
    remaining = load_state(model, state)
    logger.info("loaded %s from %s; kept as initialised: %s", model.variant, source, remaining or "nothing")
