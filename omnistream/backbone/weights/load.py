"""Load weights from anywhere into a backbone, without losing anything, and say what was done."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.variants import Variant
from omnistream.backbone.weights.formats import (
    OPTIONAL_KEYS,
    Converted,
    StateDict,
    convert,
    infer_variant,
)
from omnistream.backbone.weights.published import timm_id
from omnistream.backbone.weights.report import LoadReport, log
from omnistream.backbone.weights.source import WeightSource, read_source, section
from omnistream.backbone.weights.statistics import find_statistics, set_statistics
from omnistream.version import __version__

ModelT = TypeVar("ModelT", bound=StreamingViT)


def load_state(model: StreamingViT, state: StateDict) -> LoadReport:
    """Load weights in any known layout.

    Raises:
        ValueError: If keys are unexpected or missing, a shape differs, the model has no place for a non-zero bias, or
            it is on the meta device; nothing is loaded then.
    """
    return _load_converted(model, convert(state))


def _load_converted(model: StreamingViT, converted: Converted) -> LoadReport:
    if model.cls_token.is_meta:
        raise ValueError("weights cannot be loaded into a model on the meta device; materialise it with to_empty first")
    own, state, layout = model.state_dict(), converted.state, converted.layout
    if layout in ("timm", "hf") and model.arch.qkv_bias and not any(k.endswith("qkv.bias") for k in state):
        for i in range(model.num_layers):  # no bias is a bias of zero
            state[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(3 * model.embed_dim)
        converted.filled.append("attn.qkv.bias (zero; the source has none)")
    unexpected = [k for k in state if k not in own]
    biases = [k for k in unexpected if k.endswith("qkv.bias")]
    if zero := [k for k in biases if not state[k].any()]:
        unexpected = [k for k in unexpected if k not in zero]
        converted.dropped.append("attn.qkv.bias (all zero, and the model has none)")
    lossy = [k for k in biases if k not in zero]
    unexpected = [k for k in unexpected if k not in lossy]
    problems = list(converted.problems)
    for title, found in (
        ("missing", [k for k in own if k not in state and k not in OPTIONAL_KEYS[layout]]),
        ("unexpected", unexpected),
        ("non-zero biases the model has no place for", lossy),
        ("wrong shape", [_shapes(k, state[k], own[k]) for k in own if k in state and state[k].shape != own[k].shape]),
        ("not floating point", [k for k in own if k in state and not state[k].is_floating_point()]),
    ):
        if found:
            problems.append(f"{title} {found[:5]}" + (f" and {len(found) - 5} more" if len(found) > 5 else ""))
    if problems:
        raise ValueError(f"{layout} weights do not fit {model.variant}: {', '.join(problems)}")
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    initialized = [k for k in own if k not in state and k not in ("mean", "std")]
    return LoadReport(layout, model.variant, initialized, converted.filled, converted.dropped)


def _shapes(key: str, given: Tensor, expected: Tensor) -> str:
    return f"{key}: {tuple(given.shape)} for {tuple(expected.shape)}"


def build(
    cls: type[ModelT],
    source: WeightSource,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: Any,
) -> tuple[ModelT, LoadReport]:
    """A model for the weights of `source`, with the settings stored beside them unless `options` says otherwise.

    Args:
        cls: Class to build.
        source: See `read_source`.
        mean: Channel means of the input instead of the source's.
        std: Channel standard deviations instead of the source's.
        options: Arguments of `cls`.

    Raises:
        ValueError: If the weights are unknown, do not fit, or have settings that this version does not know.
    """
    if given := {"checkpoint", "pretrained"} & options.keys():
        raise ValueError(f"{' and '.join(sorted(given))} cannot be given beside the source {source.name}")
    converted = convert(source.state)
    stored = _stored_options(source, cls) if converted.layout == "ours" else {}
    if converted.layout == "official":
        stored["rope_layout"] = "official"
    options = stored | options
    variant = options.pop("variant", None) or infer_variant(converted.state)
    try:
        with torch.device("meta"):  # initialising weights that are then overwritten would take longer than loading
            model = cls(variant, **options)
    except TypeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source.name}: {cls.__name__} cannot take the settings {options} ({reason})") from error
    model.to_empty(device="cpu")
    model.reset_parameters(only=model.state_dict().keys() - converted.state.keys())
    report = _fill(model, source, converted, mean, std)
    if converted.layout == "ours" and not source.config:
        report.hints.append(
            "the weights have no settings beside them: rope_layout, window and other options are the defaults"
        )
    return model, report


def load_pretrained(
    model: StreamingViT, checkpoint: Path | str | None = None, tag: str | None = None, part: str | None = None
) -> LoadReport:
    """Load a file, folder or hub id, or timm's DINOv3 of the model's size from the hub; logs what was done.

    Args:
        model: Model to fill.
        checkpoint: As `read_source` takes it; None for timm's DINOv3.
        tag: Data the DINOv3 was trained on, `lvd1689m` (default) or `sat493m`.
        part: See `read_source`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the weights do not fit, or no pre-trained weights exist for this size.
    """
    if checkpoint is None:
        checkpoint = timm_id(model.variant, tag or "lvd1689m")
    source = read_source(checkpoint, part=part)
    report = _fill(model, source, convert(source.state))
    log(report, source)
    return report


def _fill(
    model: StreamingViT,
    source: WeightSource,
    converted: Converted,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadReport:
    """Load weights and statistics into a model."""
    converted.problems += _contradictions(model.arch, source, converted.layout)
    report = _load_converted(model, converted)
    report.dropped += source.left_out
    found = find_statistics(source, converted, model.variant)
    if found.assumed and (mean is None or std is None):
        report.hints.append("the source does not give mean and std, which are assumed to be ImageNet's")
    report.statistics = found.origin if mean is None and std is None else "as given"
    set_statistics(model, found.mean if mean is None else mean, found.std if std is None else std)
    report.hints += _hints(model, source, converted.layout)
    return report


def _hints(model: StreamingViT, source: WeightSource, layout: str) -> list[str]:
    chosen = model.rope_layout
    if layout == "official" and chosen != "official":
        return [f"the release was trained with rope_layout='official', this model has {chosen!r}"]
    if layout in ("meta", "timm", "hf") and chosen != "spatial":
        return [f"rope_layout is {chosen!r}; for DINOv3's own features of images use rope_layout='spatial'"]
    stored = section(source.config, "options").get("rope_layout", chosen) if layout == "ours" else chosen
    if stored != chosen:
        return [f"the weights were saved with rope_layout={stored!r}, this model has {chosen!r}"]
    return []


def _stored_options(source: WeightSource, cls: type[StreamingViT]) -> dict[str, Any]:
    """Constructor arguments in our config.json."""
    options = section(source.config, "options")
    if unknown := sorted(options.keys() - inspect.signature(cls).parameters.keys()):
        writer = source.config.get("library_version", "unknown")
        raise ValueError(
            f"the config.json of {source.name} has options {unknown} of version {writer}, unknown to {__version__}"
        )
    variant = source.config.get("variant")
    if not isinstance(variant, str | None):
        raise ValueError(f"variant in the config.json of {source.name} should be a name, got {variant!r}")
    return options if variant is None else options | {"variant": variant}


def _contradictions(arch: Variant, source: WeightSource, layout: str) -> list[str]:
    """Settings of the source's config.json that the model would not follow; shapes are compared elsewhere."""
    config, expected = source.config, {}
    if layout == "hf":
        act = "silu" if arch.ffn == "swiglu" else "gelu"
        expected = {
            "rope_theta": 100.0,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": arch.num_heads,
            "hidden_act": act,
        }
    elif layout == "official":
        expected = {"num_attention_heads": arch.num_heads}
    elif layout == "ours":
        config, expected = section(config, "architecture"), {"num_heads": arch.num_heads}
    return [
        f"config.json has {key}={config[key]}, the model {value}"
        for key, value in expected.items()
        if key in config and config[key] != value
    ]
