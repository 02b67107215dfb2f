"""The backbone as users build it: the ViT with streaming sessions and with weights from files or the hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from omnistream.backbone.clip_attention import AttentionChoice
from omnistream.backbone.rope import RopeLayout
from omnistream.backbone.sessions.compiled import CompiledSession
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.options import SessionKeywords, SessionOptions, with_keywords
from omnistream.backbone.sessions.session import Session
from omnistream.backbone.sessions.stream import StreamSession
from omnistream.backbone.time_mode import TimeMode
from omnistream.backbone.weights.hub import HubMixin
from omnistream.backbone.weights.load import build, load_pretrained
from omnistream.backbone.weights.report import log
from omnistream.backbone.weights.source import read_source


class ModelKeywords(TypedDict, total=False):
    """The arguments of `OmniStream` as keywords; see there for what they mean."""

    variant: str
    rope_layout: RopeLayout
    rope_rescale: float | None
    layer_scale_init: float
    window: int | None
    sink: int
    time_mode: TimeMode
    attention: AttentionChoice
    activation_checkpointing: bool


class OmniStream(HubMixin):
    """The streaming visual backbone: a DINOv3 ViT that encodes images, clips and streams.

    A call encodes whole clips [B, T, 3, H, W] (see `StreamingViT.forward`), `stream` opens a session that takes frames
    as they come, and both give the same features. `create_model` and `from_pretrained` load weights.

    Args:
        variant: Size; see `list_models()`.
        rope_layout: Rotary positions: `rotation` (default), `official` (for the authors' released weights) or `spatial`
            (DINOv3 itself, without time).
        rope_rescale: In train mode, positions are scaled by random factors up to this one, and down to its inverse; one
            for time and one for space in each forward pass. None turns it off; 2 is DINOv3's recipe.
        layer_scale_init: Initial layer scale; the release's 0.01.
        window: Number of past frames that a frame attends to, in whole clips and by default in streams; None for all.
        sink: Number of first frames that a window never forgets.
        time_mode: `absolute`, or `official` to compare with the release; see `omnistream.backbone.time_mode`.
        attention: Kernel for whole clips: `prefix`, `flex`, or the faster of the two, `auto`; see
            `omnistream.backbone.clip_attention`.
        activation_checkpointing: Recompute the blocks in the backward pass to save memory.

    Raises:
        ValueError: For an unknown variant, layout, time mode or kernel, or a window that cannot
            hold its sink.

    Example:
        >>> import torch
        >>> backbone = OmniStream("vit_nano", window=16).eval()
        >>> images = torch.randint(0, 256, (1, 3, 3, 32, 32), dtype=torch.uint8)  # [B, T, 3, H, W]
        >>> backbone(backbone.normalize(images)).last.shape  # [B, T, rows, columns, D]
        torch.Size([1, 3, 4, 4, 64])
    """

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        part: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **overrides: Unpack[ModelKeywords],
    ) -> "OmniStream":
        """A backbone in eval mode with published or saved weights; a log line says what was converted and how.

        The layout (this library's, the authors' release, Meta's, timm's or Hugging Face's DINOv3), the variant and
        mean and standard deviation of the input are inferred from the weights and the settings stored beside them.
        The release gets `rope_layout="official"`; a DINOv3 gets `rotation` by default; `spatial` gives DINOv3's
        own features.

        Args:
            source: Path of a file (.safetensors, .pth, .pt, .bin, .ckpt), of a folder with one, or of the folder of a
                training run; a hub id such as `timm/vit_large_patch16_dinov3_qkvb.lvd1689m`; or a name that
                `omnistream models` lists.
            part: Which network of a checkpoint that holds several, e.g. `student`. Default: the backbone of a
                checkpoint of this library, else the teacher or moving average.
            revision: Branch, tag or commit on the hub.
            token: Access token of the hub; default that of `hf auth login`.
            mean: Channel means of the input for images in [0, 1], instead of the source's.
            std: Channel standard deviations, instead of the source's.
            overrides: Arguments of the constructor, e.g. `window=64`.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If the weights are unknown, incomplete, do not fit, or could run code.
        """
        found = read_source(source, part=part, revision=revision, token=token)
        model, report = build(cls, found, mean=mean, std=std, **overrides)
        log(report, found)
        return model.eval()

    @overload
    def stream(
        self,
        *,
        compiled: Literal[False] = False,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
        **keywords: Unpack[SessionKeywords],
    ) -> StreamSession: ...

    @overload
    def stream(
        self,
        options: SessionOptions | None = None,
        *,
        compiled: Literal[True],
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
        **keywords: Unpack[SessionKeywords],
    ) -> CompiledSession: ...

    @overload
    def stream(
        self,
        options: SessionOptions | None = None,
        *,
        compiled: bool | None = None,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
        **keywords: Unpack[SessionKeywords],
    ) -> Session: ...

    def stream(
        self,
        options: SessionOptions | None = None,
        *,
        compiled: bool | None = None,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
        **keywords: Unpack[SessionKeywords],
    ) -> Session:
        """Open a session that encodes frames as they come.

        Args:
            options: What is remembered and returned; see `SessionOptions`.
            compiled: Field of `SessionOptions`: compile the step.
            aspect_ratio: Height over width of each stream's original images [B], added to the camera token.
            heads: Modules that read the features of each step; see `StreamSession`.
            keywords: Further fields of `SessionOptions`, e.g. `window=16`; they replace those of `options`.

        Raises:
            ValueError: If an option does not fit the backbone, or two contradict each other.
            TypeError: If there is no such option.

        Example:
            >>> create_model("vit_nano").stream(window=16, cache_dtype="int8").options.window
            16
        """
        given = keywords if compiled is None else {**keywords, "compiled": compiled}
        chosen = with_keywords(options, dict(given))
        kind = CompiledSession if chosen.compiled else StreamSession
        return kind(self, chosen, aspect_ratio=aspect_ratio, heads=heads)


def create_model(
    variant: str = "vit_large",
    *,
    pretrained: bool | Literal["lvd1689m", "sat493m"] = False,
    checkpoint: Path | str | None = None,
    part: str | None = None,
    **options: Any,
) -> OmniStream:
    """Build a backbone by name, with random, published or saved weights.

    Args:
        variant: See `list_models()`.
        pretrained: Download timm's DINOv3 weights of this size from the hub; `sat493m` for those of satellite images.
        checkpoint: Weights to load instead: a file, folder or hub id in a known format (timm, Meta, Hugging Face, the
            release, ours). Options stored with them are ignored; `OmniStream.from_pretrained` applies them.
        part: Which network of a checkpoint that holds several; see `OmniStream.from_pretrained`.
        options: Further arguments of `OmniStream`.

    Raises:
        ValueError: If both `pretrained` and `checkpoint` are given, or the weights do not fit.
        FileNotFoundError: If there is no such file.

    Example:
        >>> create_model("vit_nano").embed_dim
        64
    """
    if checkpoint is not None and pretrained:
        raise ValueError("give either checkpoint or pretrained, not both")
    model = OmniStream(variant, **options)
    if checkpoint is not None or pretrained:
        load_pretrained(model, checkpoint, pretrained if isinstance(pretrained, str) else None, part)
    return model
