"""Backbones whose every parameter is random, and a slow twin of the model written from the paper's definitions."""

import math
from collections.abc import Callable

import pytest
import torch
from foreign_weights import SHAPES
from torch import Tensor, nn

from omnistream.backbone import VARIANTS, OmniStream


def _randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of unit gain, layer scale in [0.2, 1], biases of std 0.3, tokens of std 1: nothing can go unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "gamma" in name or "lambda1" in name:
            value = 0.2 + 0.8 * torch.rand(parameter.shape, generator=generator)
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "norm" in name:
            value = 1 + 0.3 * noise
        elif "token" in name:
            value = noise
        else:
            value = noise / math.sqrt(parameter[0].numel())
        parameter.data.copy_(value)
    return model


@pytest.fixture(scope="session")
def randomize() -> Callable[..., nn.Module]:
    return _randomize


@pytest.fixture(scope="session")
def build() -> Callable[..., OmniStream]:
    def build(variant: str = "vit_nano", *, seed: int = 0, **options) -> OmniStream:
        return _randomize(OmniStream(variant, **options), seed).eval()

    return build


@pytest.fixture
def short_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small variants in the sizes of the small foreign models."""
    for name, variant in SHAPES.items():
        monkeypatch.setitem(VARIANTS, name, variant)


def _turn(x: Tensor, t: Tensor, y: Tensor, xs: Tensor, layout: str) -> Tensor:
    """Rotary positions pair by pair: element e with element e + d/2."""
    d = x.shape[-1]
    out = torch.empty_like(x)
    for e in range(d // 2):
        a, b = x[..., e], x[..., e + d // 2]
        period = lambda j: 100 ** (j / (d // 4))  # noqa: E731
        if e % 4 == 3 and layout != "spatial":
            first = second = 2 * math.pi * t / period(e // 4)
        elif layout == "official":
            j = e % (d // 4)
            first, second = 2 * math.pi * y / period(j), 2 * math.pi * xs / period(j)
        else:
            axis, j = (y, e) if e < d // 4 else (xs, e - d // 4)
            first = second = 2 * math.pi * axis / period(j)
        out[..., e] = a * first.cos() - b * first.sin()
        out[..., e + d // 2] = b * second.cos() + a * second.sin()
    return out


def _visible(seen_by: int, frame: int, window: int | None, sink: int) -> bool:
    """Whether a frame is among the first `sink`, the last `window - sink` before `seen_by`, or `seen_by` itself."""
    if frame > seen_by:
        return False
    return window is None or seen_by <= window or frame < sink or seen_by - frame <= window - sink


def _dense_forward(
    model, images, *, window=None, sink=1, camera_token=False, aspect_ratio=None, masks=None, times=None
):
    """All tokens of every block and of the final norm, [L + 1, B, T, P, D] float64, with a dense (T P)^2 mask."""
    w = {k: v.detach().double() for k, v in model.state_dict().items()}
    images = images.double()
    B, T, _, H, W = images.shape
    p, D = model.patch_size, model.embed_dim
    rows, columns, heads = H // p, W // p, model.num_heads
    norm = lambda x, name: nn.functional.layer_norm(x, (D,), w[name + ".weight"], w[name + ".bias"], 1e-5)  # noqa: E731

    frames = []
    for frame in range(T):
        patches = nn.functional.unfold(images[:, frame], p, stride=p).mT @ w["patch_embed.weight"].flatten(1).mT
        patches = patches + w["patch_embed.bias"]
        if masks is not None:
            patches[masks[:, frame].flatten(1)] = w["mask_token"][0]
        later = int(frame > 0)
        special = [w["cls_token"].expand(B, 1, D)]
        if camera_token:
            camera = w["camera_token"][:, later].expand(B, 1, D)
            if aspect_ratio is not None:
                slope, offset = w["aspect_embed.weight"][:, 0], w["aspect_embed.bias"]
                camera = camera + (aspect_ratio.double().log()[:, None] * slope + offset)[:, None]
            special.append(camera)
        special.append(w["register_token"][:, later].expand(B, 4, D))
        frames.append(torch.cat([*special, patches], dim=1))
    x = torch.stack(frames, dim=1)  # [B, T, P, D]
    P = x.shape[2]
    start = P - rows * columns

    t = (torch.arange(T) if times is None else times).double() / 16
    y, xs = (2 * (torch.arange(n).double() + 0.5) / n - 1 for n in (rows, columns))
    t, y, xs = (grid.reshape(T, rows * columns) for grid in torch.meshgrid(t, y, xs, indexing="ij"))
    mask = torch.zeros(T, P, T, P, dtype=torch.bool)
    for i in range(T):
        for j in range(T):
            mask[i, :, j] = _visible(i, j, window, sink)
    mask = mask.reshape(T * P, T * P)

    stages = []
    for i in range(model.num_layers):
        name = f"blocks.{i}."
        qkv = norm(x, name + "norm1") @ w[name + "attn.qkv.weight"].mT + w.get(name + "attn.qkv.bias", 0)
        q, k, v = (part.unflatten(-1, (heads, D // heads)).permute(0, 3, 1, 2, 4).clone() for part in qkv.chunk(3, -1))
        q[..., start:, :] = _turn(q[..., start:, :].clone(), t, y, xs, model.rope_layout)
        k[..., start:, :] = _turn(k[..., start:, :].clone(), t, y, xs, model.rope_layout)
        q, k, v = (part.flatten(2, 3) for part in (q, k, v))
        scores = (q @ k.mT / math.sqrt(D // heads)).masked_fill(~mask, -math.inf)
        attended = (scores.softmax(-1) @ v).unflatten(2, (T, P)).permute(0, 2, 3, 1, 4).flatten(3)
        attended = attended @ w[name + "attn.proj.weight"].mT + w[name + "attn.proj.bias"]
        x = x + w[name + "ls1.gamma"] * attended
        hidden = norm(x, name + "norm2") @ w[name + "mlp.fc1.weight"].mT + w[name + "mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + w[name + "ls2.gamma"] * (hidden @ w[name + "mlp.fc2.weight"].mT + w[name + "mlp.fc2.bias"])
        stages.append(x)
    return torch.stack([*stages, norm(x, "norm")])


@pytest.fixture(scope="session")
def dense_forward() -> Callable[..., Tensor]:
    return _dense_forward
