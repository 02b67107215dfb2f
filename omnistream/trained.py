"""A trained model with its heads: depth, cameras and points of clips and of streams."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from typing_extensions import Unpack

from omnistream.backbone import OmniStream, SessionOptions
from omnistream.backbone.sessions.options import SessionKeywords
from omnistream.backbone.sessions.session import Session
from omnistream.backbone.weights.load import build
from omnistream.backbone.weights.report import log
from omnistream.backbone.weights.source import WeightSource, read_source
from omnistream.run_config import read_run_config
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule, GeometryStream
from omnistream.tasks.geometry.inference import ClipGeometry, FirstCamera, Images, clip_geometry
from omnistream.tasks.geometry.streaming import CameraSource
from omnistream.tasks.restore import HEADS, restore_heads

__all__ = ["ClipGeometry", "GeometryStreamer", "TrainedModel", "load"]


class TrainedModel(nn.Module):
    """A backbone and the heads that were trained with it, as `omnistream.load` returns them.

    Args:
        backbone: The backbone.
        geometry: Heads for depth, rays and cameras, built for it; None if there are none.
        captioning: Projector and decoder, built for it; None if there are none.
        origin: Where they come from, for messages.
    """

    def __init__(
        self,
        backbone: OmniStream,
        geometry: GeometryModule | None = None,
        captioning: CaptioningModule | None = None,
        origin: str = "the model",
    ) -> None:
        super().__init__()
        self.backbone, self.geometry, self.captioning = backbone, geometry, captioning
        self._origin = origin  # private: the place of the weights is none of the settings that fingerprints compare

    @property
    def origin(self) -> str:
        """Where the weights are from."""
        return self._origin

    def normalize(self, images: UInt8[Tensor, "*B 3 H W"] | Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        """See `OmniStream.normalize`."""
        return self.backbone.normalize(images)

    @torch.no_grad()
    def infer(
        self,
        images: UInt8[Tensor, "*B 3 H W"] | Float[Tensor, "*B 3 H W"],
        *,
        size: tuple[int, int] | None = None,
        cameras: CameraSource = "head",
    ) -> ClipGeometry:
        """Depth, cameras and points of whole clips, each frame from itself and the frames before it.

        The same as one step of `stream` with all frames: results differ by rounding errors only.

        Args:
            images: RGB frames of a clip [T, 3, H, W] or of several [B, T, 3, H, W], or one image [3, H, W]: uint8, or
                floats from 0 to 1. They may be on any device.
            size: Height and width at which the images are encoded, multiples of the patch size. Default: their own
                size, each side rounded to the nearest multiple. Results always have the size of the images.
            cameras: Where poses and intrinsics come from: the camera head, or a fit to the predicted rays.

        Raises:
            ValueError: If the model has no geometry heads, or images or size do not fit.
        """
        geometry = self._require_geometry()
        clips = Images.prepare(images, self.backbone, size)
        head = GeometryStream(geometry, cameras)
        height, width = clips.encoded_size
        ratio = torch.full((len(clips.frames),), height / width, device=clips.frames.device)
        output = self.backbone(clips.frames, layers=head.layers, camera_token=True, aspect_ratio=ratio)
        return clip_geometry(head(output, clips.encoded_size), clips, FirstCamera())

    def stream(
        self,
        options: SessionOptions | None = None,
        *,
        size: tuple[int, int] | None = None,
        cameras: CameraSource = "head",
        compiled: bool | None = None,
        **keywords: Unpack[SessionKeywords],
    ) -> "GeometryStreamer":
        """Open a stream: frames in as they come, geometry out.

        Args:
            options: See `SessionOptions`.
            size: See `infer`.
            cameras: See `infer`.
            compiled: See `SessionOptions`.
            keywords: Fields of `SessionOptions`, e.g. `window=64`.

        Raises:
            ValueError: If the model has no geometry heads, or an option does not fit.
        """
        head = GeometryStream(self._require_geometry(), cameras)
        session = self.backbone.stream(options, compiled=compiled, heads={"geometry": head}, **keywords)
        return GeometryStreamer(session, size)

    def _require_geometry(self) -> GeometryModule:
        if self.geometry is None:
            raise ValueError(
                f"{self._origin} has no geometry heads, which give depth, cameras and points; load a checkpoint that "
                "was trained with the geometry task, or use the features of model.backbone"
            )
        return self.geometry


class GeometryStreamer:
    """Geometry of B streams, frame by frame, in the frame of each stream's first camera.

    Args:
        session: A stream with the head `geometry`.
        size: See `TrainedModel.infer`.
    """

    def __init__(self, session: Session, size: tuple[int, int] | None = None) -> None:
        self.session, self.size = session, size
        self._first = FirstCamera()

    def step(self, images: UInt8[Tensor, "*B 3 H W"] | Float[Tensor, "*B 3 H W"]) -> ClipGeometry:
        """Geometry of the next frames.

        Args:
            images: The next frame of a stream [3, H, W], the next frames [S, 3, H, W], or those of several streams
                [B, S, 3, H, W]; see `TrainedModel.infer`.

        Raises:
            ValueError: If images or size do not fit, or differ from those of the first step.
        """
        frames = Images.prepare(images, self.session.backbone, self.size)
        return clip_geometry(self.session.step(frames.frames).heads["geometry"], frames, self._first)

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None = None) -> None:
        """Restart streams: those in `rows` (numbers, or a mask), or all.

        Raises:
            ValueError: If there is no such stream.
        """
        self.session.reset(rows)
        self._first.reset(rows)


def load(
    source: Path | str,
    *,
    heads: Collection[str] = HEADS,
    part: str | None = None,
    config: Path | str | None = None,
    revision: str | None = None,
    token: str | None = None,
    **overrides: Any,
) -> TrainedModel:
    """A trained model: backbone, heads and normalisation, in eval mode on the CPU.

    Args:
        source: A checkpoint written by `omnistream fit`, or the folder of its run (`runs/quickstart/version_0`, or
            `runs/quickstart` for its newest version). Also whatever `OmniStream.from_pretrained` takes, which gives a
            model without heads: a file or folder of weights, a hub id, or a name that `omnistream models` lists.
        heads: Which heads are loaded if the checkpoint has them: `geometry`, `captioning`. A decoder that was made from
            published weights needs its tokenizer, which may be downloaded.
        part: Which network of a checkpoint that holds several; see `OmniStream.from_pretrained`.
        config: Another place of the run's `config.yaml`, for checkpoints that do not describe their model themselves.
        revision: Branch, tag or commit on the hub.
        token: Access token of the hub.
        overrides: Arguments of `OmniStream` instead of the stored ones, e.g. `window=64`.

    Returns:
        The model. `infer` and `stream` need geometry heads.

    Raises:
        FileNotFoundError: If there is no such file, folder or run.
        ValueError: If the weights do not fit, or a file could run code when loaded.
    """
    found = read_source(source, part=part, revision=revision, token=token)
    if config is not None:
        _use_config(found, Path(config))
    if found.run is not None and found.run.module is None and found.left_out and heads:
        raise ValueError(
            f"nothing describes the model in {found.run.path}: it holds no hyper-parameters, and there is no "
            "config.yaml in its folder or the two above; give config=, or load the backbone alone with "
            "OmniStream.from_pretrained"
        )
    backbone, report = build(OmniStream, found, **overrides)
    restored: dict[str, Any] = {}
    if found.run is not None:
        restored = restore_heads(found.run, backbone, heads)
        # A run's checkpoint holds teachers, heads and counters beside the backbone; nothing of them is missed here.
        report.dropped = [line for line in report.dropped if line not in found.left_out]
    log(report, found)
    names = "".join(f", {name} heads" for name in restored)
    return TrainedModel(backbone, **restored, origin=f"{found.name} ({backbone.variant}{names})").eval()


def _use_config(found: WeightSource, config: Path) -> None:
    """Take the description of a training module from this file."""
    if found.run is None:
        raise ValueError(f"config= is for checkpoints of training runs; {found.name} is none")
    found.run.module = read_run_config(config)
    if found.run.module is None:
        raise ValueError(f"{config} is not the configuration of a run: it has no model with class_path and init_args")
    found.config = found.run.backbone_settings()
