"""`omnistream convert`: weights in any known layout become a folder of this library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omnistream.commands.arguments import CommandParser, refuse_occupied

_DESCRIPTION = """\
Write weights from elsewhere as a folder that OmniStream.from_pretrained and every --checkpoint option read:
model.safetensors (in shards if large) and config.json, with mean and std of the input.

SOURCE is a file (.safetensors, .pth, .pt, .bin, .ckpt), a folder or a hub id. Its layout is recognised: this library's
(also a training run), the authors' release, or DINOv3 as published by Meta, timm or Hugging Face. Files are read
without running code. Weights cannot be converted back: other libraries have no parameters for the camera token, the
registers of later frames and time.
"""
_EXAMPLES = """\
examples:
  omnistream convert dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth dinov3_large --rope-layout spatial
  omnistream convert timm/vit_small_patch16_dinov3_qkvb.lvd1689m dinov3_small
  omnistream convert StreamFormer/OmniStream released
  omnistream convert runs/stage1/version_0/checkpoints/last.ckpt my_backbone

`omnistream models` lists hub ids.
"""


@dataclass(frozen=True)
class ConvertOptions:
    """Weights to convert."""

    source: str | Path
    """File, folder or hub id."""
    out: Path
    """Folder to write."""
    variant: str | None = None
    """Size, if the weights do not say (see `omnistream models`)."""
    rope_layout: Literal["rotation", "official", "spatial"] | None = None
    """Positions to store in config.json instead of the source's own: official for the release, rotation for a DINOv3;
    spatial keeps the features of a DINOv3."""
    part: str | None = None
    """Which network of a checkpoint that holds several, such as student; default: the teacher or moving average."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    mean: tuple[float, float, float] | None = None
    """Channel means of the input instead of the source's: R G B."""
    std: tuple[float, float, float] | None = None
    """Channel standard deviations of the input instead of the source's: R G B."""
    overwrite: bool = False
    """Write into a folder that is not empty."""


_PARITY = {
    "dinov3": "with rope_layout='spatial' a single frame gives the source's features to 1e-5 (float32)",
    "official": "with rope_layout='official' clips of up to 16 frames give the authors' features to 1e-5 (float32)",
    "ours": "the same tensors, bit for bit",
}


def run(arguments: list[str]) -> None:
    """Convert, and print what was found, filled in and left out."""
    parser = CommandParser("convert", _DESCRIPTION, _EXAMPLES)
    parser.add_options(ConvertOptions, positional=True)
    options = parser.parse(arguments)[ConvertOptions]
    folder = options.out
    refuse_occupied(folder, options.overwrite, "OUT")
    from omnistream.backbone import OmniStream
    from omnistream.backbone.weights.load import build
    from omnistream.backbone.weights.report import LAYOUT_NAMES
    from omnistream.backbone.weights.source import read_source

    chosen = {name: getattr(options, name) for name in ("variant", "rope_layout") if getattr(options, name)}
    source = read_source(options.source, part=options.part, revision=options.revision)
    model, report = build(OmniStream, source, mean=options.mean, std=options.std, **chosen)
    model.save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    parity = _PARITY.get(report.layout, _PARITY["dinov3"])
    rows = [
        ("found", f"{LAYOUT_NAMES[report.layout]}, {report.variant}, rope_layout {model.rope_layout}"),
        ("filled in", _listed(report.filled)),
        ("as initialised", _listed(report.initialized)),
        ("not taken over", _listed(report.dropped)),
        ("mean and std", f"{_numbers(model.mean)} and {_numbers(model.std)}; {report.statistics}"),
        ("wrote", f"{folder} ({size / 1e6:.1f} MB)"),
        ("load with", f'OmniStream.from_pretrained("{folder}")'),
        ("parity", parity),
        ("note", _listed(report.hints)),
    ]
    for title, text in rows:
        if text:
            print(f"{title + ':':<16}{text}")


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items)


def _numbers(values: object) -> str:
    return ", ".join(f"{value:.3f}" for value in values.flatten().tolist())  # type: ignore[attr-defined]
