"""Hugging Face's V-JEPA 2 as a `Backbone`: of whole clips, or frame by frame with a sliding window."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from omnistream.backbone import BackboneOutput
from omnistream.backbone.variants import IMAGENET_MEAN, IMAGENET_STD


class VJEPA2Backbone(nn.Module):
    """The encoder of V-JEPA 2, without its predictor.

    It sees tubelets of 2 frames. As a clip encoder it attends to the whole clip, and a clip of T frames gives T / 2
    time steps: step i stands for frames 2 i and 2 i + 1. An image is repeated to fill one tubelet and gives one step.

    With a sliding window every frame gives one step, from itself and earlier frames alone: each frame is repeated to
    fill a tubelet, and the window ends with it. The first frame fills the windows that begin before it. The paper says
    only "16-frame sliding windows and duplicated frames"; here the window counts what the model sees, so that 16 are
    8 frames of the video.

    There is no class token: `cls` is the mean of the patch tokens of a step. Images may have any size that the patch
    size divides; positions count rows and columns from 0, not interpolated, as in the original.

    Args:
        path: Name on the hub, such as `facebook/vjepa2-vitl-fpc64-256`, or a folder in that layout.
        sliding_window: Frames that the model sees at a time, frame by frame; null for a clip encoder.

    Raises:
        ValueError: If the weights cannot be loaded or are of another model, or the window does not hold whole tubelets.

    Source: transformers' VJEPA2Model, whose positions are right for square images of the configured size alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: str, *, sliding_window: int | None = None) -> None:
        super().__init__()
        encoder, config = _load(path)
        self.encoder, self.name = encoder, path
        self.embed_dim, self.num_layers = int(config.hidden_size), int(config.num_hidden_layers)
        self.patch_size, self.tubelet_size = int(config.patch_size), int(config.tubelet_size)
        if sliding_window is not None and (sliding_window < 1 or sliding_window % self.tubelet_size):
            raise ValueError(f"sliding_window must be a multiple of {self.tubelet_size} frames, got {sliding_window}")
        self.sliding_window = sliding_window
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def normalize(self, images: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Subtract ImageNet's mean and divide by its standard deviation."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Float[Tensor, "B T 3 H W"], *, layers: Sequence[int] = ()) -> BackboneOutput:
        """Features of every time step; see `Backbone`.

        Raises:
            ValueError: If a layer does not exist, a side is not a multiple of the patch size, or frames are left over
                that do not fill a tubelet.
        """
        if bad := [layer for layer in layers if not 0 <= layer < self.num_layers]:
            raise ValueError(f"layers {bad} do not exist; {self.name} has blocks 0 to {self.num_layers - 1}")
        T, _, H, W = images.shape[1:]
        if H % self.patch_size or W % self.patch_size:
            raise ValueError(f"image sides must be multiples of the patch size {self.patch_size}, got {H} x {W}")
        if self.sliding_window is not None:
            return self._slide(images, layers)
        if T == 1:
            images = images.expand(-1, self.tubelet_size, -1, -1, -1)
        elif T % self.tubelet_size:
            raise ValueError(f"V-JEPA 2 sees {self.tubelet_size} frames at a time; a clip of {T} leaves some over")
        last, patches = self._encode(images, layers)
        return self._output(last, patches)

    def _slide(self, images: Float[Tensor, "B T 3 H W"], layers: Sequence[int]) -> BackboneOutput:
        assert self.sliding_window is not None
        length = self.sliding_window // self.tubelet_size
        lasts, patches = [], {layer: list[Tensor]() for layer in layers}
        for t in range(images.shape[1]):
            places = torch.arange(t - length + 1, t + 1).clamp_min(0)
            window = repeat(images[:, places], "B T C H W -> B (T n) C H W", n=self.tubelet_size)
            last, intermediate = self._encode(window, layers)
            lasts.append(last[:, -1:])
            for layer, values in intermediate.items():
                patches[layer].append(values[:, -1:])
        return self._output(torch.cat(lasts, dim=1), {layer: torch.cat(found, 1) for layer, found in patches.items()})

    def _encode(
        self, images: Float[Tensor, "B T 3 H W"], layers: Sequence[int]
    ) -> tuple[Float[Tensor, "B t h w D"], dict[int, Float[Tensor, "B t h w D"]]]:
        """The last tokens, normalised, and those after some blocks."""
        h, w = (side // self.patch_size for side in images.shape[-2:])
        tokens = self.encoder.embeddings(images)
        positions, grid = self._positions(tokens.shape[1], h, w)
        positions, found = positions.to(tokens.device).expand(len(tokens), -1), {}
        for number, layer in enumerate(self.encoder.layer):
            layer.attention.grid_size = grid
            tokens = layer(tokens, position_mask=positions)[0]
            if number in layers:
                found[number] = rearrange(tokens, "B (t h w) D -> B t h w D", h=h, w=w)
        return rearrange(self.encoder.layernorm(tokens), "B (t h w) D -> B t h w D", h=h, w=w), found

    @staticmethod
    def _positions(count: int, h: int, w: int) -> tuple[Int64[Tensor, " N"], int]:
        """Indices of the tokens in a grid that is as wide as high, and its side: what transformers can interpret."""
        side = max(h, w)
        t, y, x = torch.meshgrid(torch.arange(count // (h * w)), torch.arange(h), torch.arange(w), indexing="ij")
        return ((t * side + y) * side + x).flatten(), side

    @staticmethod
    def _output(last: Tensor, patches: dict[int, Tensor]) -> BackboneOutput:
        cls = last.mean((2, 3))
        registers = last.new_empty(*last.shape[:2], 0, last.shape[-1])
        return BackboneOutput(patches=patches, last=last, cls=cls, registers=registers, camera=None)


def _load(path: str) -> tuple[Any, Any]:
    """Encoder and configuration of a model on the hub or in a folder."""
    import transformers  # takes seconds

    library: Any = transformers
    try:
        config = library.AutoConfig.from_pretrained(path)
        if is_vjepa := config.model_type == "vjepa2":
            options = {"attn_implementation": "sdpa", "output_loading_info": True}
            model, report = library.VJEPA2Model.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"V-JEPA 2 cannot be loaded from {path}: {str(error).strip().splitlines()[0]}") from error
    if not is_vjepa:
        raise ValueError(f"{path} is a model of type {config.model_type}, not vjepa2")
    if missing := sorted(key for key in report["missing_keys"] if key.startswith("encoder.")):
        raise ValueError(f"{path} lacks {len(missing)} weights of the encoder, such as {missing[0]}")
    return model.encoder, config
