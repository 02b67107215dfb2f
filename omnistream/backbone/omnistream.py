"""The backbone as it is used: the ViT with its streaming sessions, and weights from files or the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from omnistream.backbone.sessions.compiled import CompiledSession
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.options import SessionKeywords, SessionOptions, with_keywords
from omnistream.backbone.sessions.session import Session
from omnistream.backbone.sessions.stream import StreamSession
from omnistream.backbone.weights.hub import HubMixin
from omnistream.backbone.weights.load import load_pretrained


class OmniStream(HubMixin):
    """Streaming ViT backbone; constructor arguments are those of `StreamingViT`."""

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
    **options: Any,
) -> OmniStream:
    """Build a backbone by name, with random, published or saved weights.

    Args:
        variant: See `list_models()`.
        pretrained: Download timm's DINOv3 weights of this size from the hub; `sat493m` for those of satellite images.
        checkpoint: Weights to load instead: a file, folder or hub id in a known format (timm, Meta, Hugging Face, the
            release, ours). Options stored with them are ignored; `OmniStream.from_pretrained` applies them.
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
        load_pretrained(model, checkpoint, pretrained if isinstance(pretrained, str) else None)
    return model
