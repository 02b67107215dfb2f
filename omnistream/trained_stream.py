"""A trained model as evaluations of streamed geometry use it: loaded by them, and restarted for every video."""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from omnistream.backbone import SessionOptions, create_model
from omnistream.backbone.sessions.session import Session
from omnistream.cameras import cameras_from_rays
from omnistream.run_config import find_checkpoint
from omnistream.tasks.geometry import GeometryModule, GeometryStream
from omnistream.tasks.geometry.inference import FirstCamera, Images, clip_geometry
from omnistream.tasks.geometry.streaming import StreamedGeometry
from omnistream.trained import TrainedModel, load

Cameras = Literal["head", "rays", "both"]


class TrainedFrame(NamedTuple):
    """Geometry of one frame: a `FrameGeometry` with the confidence of its depth."""

    depth: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    camera_to_world: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    ray_camera_to_world: Float[Tensor, "4 4"] | None = None
    """The pose that fits the predicted rays, where both are asked for."""


class TrainedStream(nn.Module):
    """A checkpoint of `omnistream fit` as `StreamingGeometry`: one stream through the key-value cache per video.

    Args:
        checkpoint: Whatever `omnistream.load` takes: a checkpoint, a run folder or a name. Also `load_checkpoint`.
        session: What the stream remembers: window, sink, type of the cache.
        size: Height and width at which images are encoded; by default their own, see `TrainedModel.infer`.
        cameras: Where poses come from: the camera head, a fit to the predicted rays, or `both`: then the head, and each
            frame also has `ray_camera_to_world`.
        untrained: Variant of the backbone that stands in where the configuration is tried on random weights.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it has no geometry heads, or `cameras` is unknown.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        *,
        session: SessionOptions = SessionOptions(),  # noqa: B008 (frozen)
        size: tuple[int, int] | None = None,
        cameras: Cameras = "head",
        untrained: str = "vit_nano",
    ) -> None:
        super().__init__()
        if cameras not in ("head", "rays", "both"):
            raise ValueError(f"cameras must be head, rays or both, got {cameras!r}")
        self.options, self.size, self.cameras, self.untrained = session, size, cameras, untrained
        self.model: TrainedModel | None = None
        self.checkpoint_file: str | None = None
        """That the weights are from."""
        self.session: Session | None = None
        """Of the last video."""
        self._begun = False
        """Whether the video has begun."""
        self._opened_for: tuple[Any, ...] = ()
        self._first = FirstCamera()
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)

    @property
    def has_weights(self) -> bool:
        """Whether a model was loaded."""
        return self.model is not None

    @property
    def variant(self) -> str | None:
        """Of the backbone."""
        return None if self.model is None else self.model.backbone.variant

    def load_checkpoint(self, path: str) -> None:
        """Take backbone and geometry heads from a checkpoint.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it has no geometry heads.
        """
        self._use(load(path, heads=("geometry",)))
        self.checkpoint_file = str(find_checkpoint(path))

    def use_random_weights(self) -> None:
        """Build a small untrained model, to try a configuration; warns."""
        rank_zero_warn("TrainedStream was given no checkpoint: its weights are random, and so is what it predicts")
        backbone = create_model(self.untrained)
        geometry = GeometryModule(features=16, out_channels=(16, 16, 16, 16), hidden=8)
        geometry.build(backbone)
        self._use(TrainedModel(backbone, geometry))

    def settings(self) -> dict[str, Any]:
        """What decides the predictions beside the weights, as plain values."""
        options = self.options if self.model is None else self.options.resolve(self.model.backbone)
        kept = {name: value for name, value in options.state().items() if name not in ("layers", "camera_token")}
        return {"session": kept, "encoded_size": self.size and list(self.size), "cameras": self.cameras}

    def reset(self) -> None:
        """Start a new video; its frames may have another size."""
        self._first, self._begun = FirstCamera(), False

    @torch.no_grad()
    def step(self, images: UInt8[Tensor, "S 3 H W"]) -> list[TrainedFrame]:
        """Geometry of the next frames, in the frame of the video's first camera, at the size of the images.

        Raises:
            ValueError: If there are no weights, or the images do not fit.
        """
        if self.model is None:
            raise ValueError("there is no model yet: give a checkpoint")
        frames = Images.prepare(images, self.model.backbone, self.size)
        found: StreamedGeometry = self._session(self.model, frames).step(frames.frames).heads["geometry"]
        clip = clip_geometry(found, frames, self._first)
        rays = self._ray_poses(found, frames.encoded_size) if self.cameras == "both" else [None] * len(images)
        parts = (clip.depth, clip.confidence, clip.camera_to_world, clip.intrinsics, rays)
        return [TrainedFrame(*values) for values in zip(*parts, strict=True)]

    def _use(self, model: TrainedModel) -> None:
        model._require_geometry()
        self.model, self.session = model.requires_grad_(False).eval(), None
        self.reset()

    def _session(self, model: TrainedModel, frames: Images) -> Session:
        """That of the video: the one before, restarted, where it fits, as its memory is there and its step compiled."""
        if not self._begun:
            needed = frames.encoded_size, frames.frames.device, frames.frames.dtype
            if self.session is None or needed != self._opened_for:
                assert model.geometry is not None  # _use
                head = GeometryStream(model.geometry, "rays" if self.cameras == "rays" else "head")
                self.session, self._opened_for = model.backbone.stream(self.options, heads={"geometry": head}), needed
            self.session.reset()
            self._begun = True
        assert self.session is not None
        return self.session

    def _ray_poses(self, found: StreamedGeometry, size: tuple[int, int]) -> Float[Tensor, "S 4 4"]:
        assert self.model is not None
        assert self.model.geometry is not None
        weight = found.ray_confidence if self.model.geometry.loss_config.ray_confidence else None
        return cameras_from_rays(found.rays, weight, size)[0][0]
