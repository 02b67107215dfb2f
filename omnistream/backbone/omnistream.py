"""The backbone as it is used: the ViT with its streaming sessions, and weights from files or the hub."""

from pathlib import Path
from typing import Any, Literal, overload

from omnistream.backbone.sessions.compiled import CompiledSession
from omnistream.backbone.sessions.session import Session
from omnistream.backbone.sessions.stream import StreamSession
from omnistream.backbone.weights.hub import HubMixin
from omnistream.backbone.weights.load import load_pretrained


class OmniStream(HubMixin):
    """Streaming ViT backbone; constructor arguments are those of `StreamingViT`."""

    @overload
    def stream(self, *, compiled: Literal[False] = False, **options: object) -> StreamSession: ...

    @overload
    def stream(self, *, compiled: Literal[True], **options: object) -> CompiledSession: ...

    @overload
    def stream(self, *, compiled: bool, **options: object) -> Session: ...

    def stream(self, *, compiled: bool = False, **options: object) -> Session:
        """A session that takes frames as they come.

        Args:
            compiled: Compile the step; takes a while for each cache size, and pays off in long streams.
            options: See `StreamSession`, or `CompiledSession`.

        Raises:
            ValueError: If an option does not fit, or a cache that is compiled should be offloaded or in 8 bits.
        """
        if not compiled:
            return StreamSession(self, **options)  # type: ignore[arg-type]
        if options.pop("offload", False):
            raise ValueError(
                "a compiled session keeps its cache on the device; leave out offload=True or compiled=True"
            )
        return CompiledSession(self, **options)  # type: ignore[arg-type]


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
