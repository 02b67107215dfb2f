"""The physical floor of one streaming step: its bytes over the bandwidth and its FLOPs over the matmul rate measured.

A step has to read all weights and the visible cache once, and to make the multiplications of its linear layers and of
attention. Neither can go faster than the device copies and multiplies, so the larger of the two times is a floor.
`products_alone` is the practical one: the same matrix products and attention calls, and nothing between them.
"""

from dataclasses import dataclass
from functools import partial

import torch
from common import median_seconds
from torch.nn.functional import linear, scaled_dot_product_attention

NUM_PREFIX = 5
"""CLS and four registers."""
LARGEST_COPY = 2**30
SMALLEST_COPY = 2**26


@dataclass(frozen=True)
class Cost:
    """Work of one step."""

    linear_flops: float
    """Of the linear layers and the patch embedding; a multiply-add counts two."""
    attention_flops: float
    """Of scores and weighted values."""
    weight_bytes: float
    """Read once."""
    cache_bytes: float
    """Keys and values read, those of the new frame included."""

    @property
    def flops(self):
        """All FLOPs."""
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self):
        """All bytes."""
        return self.weight_bytes + self.cache_bytes


def tokens_per_frame(arch, size):
    """Tokens of a square frame without camera token."""
    return NUM_PREFIX + (size // arch.patch_size) ** 2


def linear_shapes(arch):
    """(inputs, outputs) of the linear layers of one block, in order."""
    D, F = arch.embed_dim, arch.hidden_dim
    feed_forward = [(D, F), (F, D)] if arch.ffn == "mlp" else [(D, F), (D, F), (F, D)]
    return [(D, 3 * D), (D, D), *feed_forward]


def step_cost(arch, size, num_visible, value_bytes, cache_value_bytes=None, num_new=1):
    """Cost of a step of `num_new` frames that each see `num_visible` frames, themselves included.

    Args:
        arch: Variant.
        size: Image side in pixels.
        num_visible: Frames seen.
        value_bytes: Bytes of a weight.
        cache_value_bytes: Bytes of a cached number; that of a weight by default.
        num_new: Frames encoded.
    """
    P = tokens_per_frame(arch, size)
    pixels = 3 * arch.patch_size**2
    block_weights = sum(inputs * outputs for inputs, outputs in linear_shapes(arch))
    patch_flops = 2 * (P - NUM_PREFIX) * pixels * arch.embed_dim
    visible_tokens = num_visible * P
    return Cost(
        linear_flops=num_new * (patch_flops + 2 * P * arch.num_layers * block_weights),
        attention_flops=num_new * 4 * P * visible_tokens * arch.embed_dim * arch.num_layers,
        weight_bytes=value_bytes * (arch.num_layers * block_weights + pixels * arch.embed_dim),
        cache_bytes=(cache_value_bytes or value_bytes) * 2 * visible_tokens * arch.embed_dim * arch.num_layers,
    )


@dataclass(frozen=True)
class Rates:
    """What the device does at the sizes of a step."""

    copy_bytes: float
    """Bytes read and written per second by a large copy."""
    matmul_flops: float
    """FLOPs per second of the fastest matrix product tried: the model's linear layers, and a large square one."""
    attention_flops: float
    """FLOPs per second of attention of one frame over many; for estimates only."""

    def floor(self, cost):
        """Seconds below which a step cannot go."""
        return max(cost.bytes / self.copy_bytes, cost.flops / self.matmul_flops)

    def estimate(self, cost, copied_bytes=0):
        """Seconds a step is expected to take, to decide whether to run it."""
        seconds = cost.linear_flops / self.matmul_flops + cost.attention_flops / self.attention_flops
        return seconds + 2 * copied_bytes / self.copy_bytes


def measure_rates(arch, size, num_visible, dtype, device):
    """Rates at the sizes of a step that sees `num_visible` frames."""
    P = tokens_per_frame(arch, size)
    bytes_touched = step_cost(arch, size, num_visible, dtype.itemsize).bytes
    source = torch.ones(int(min(max(bytes_touched, SMALLEST_COPY), LARGEST_COPY)), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * len(source) / median_seconds(partial(target.copy_, source), 5, device)
    del source, target
    square = 8192 if device == "cuda" else 1024
    best = 0.0
    for rows, inputs, outputs in [(P, *shape) for shape in linear_shapes(arch)] + [(square, square, square)]:
        x = torch.randn(rows, inputs, device=device).to(dtype)
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        seconds = median_seconds(partial(linear, x, weight), 7, device)
        best = max(best, 2 * rows * inputs * outputs / seconds)
    frames = min(num_visible, 32)
    query = torch.randn(1, arch.num_heads, P, arch.head_dim, device=device).to(dtype)
    key = torch.randn(1, arch.num_heads, frames * P, arch.head_dim, device=device).to(dtype)
    seconds = median_seconds(partial(scaled_dot_product_attention, query, key, key), 3, device)
    return Rates(copy, best, 4 * P * frames * P * arch.embed_dim / seconds)


class ProductsAlone:
    """The matrix products and attention calls of a one-frame step on preallocated tensors, and nothing else.

    No normalisation, activation, rotation, residual or cache write: every linear layer of every block with a weight of
    its own, the patch embedding as one product, and attention of one frame over a key and a value tensor per layer, so
    the memory traffic is that of a step.

    Args:
        arch: Variant.
        size: Image side in pixels.
        num_visible: Frames seen.
        dtype: Of all tensors.
        device: Of all tensors.
    """

    def __init__(self, arch, size, num_visible, dtype, device):
        P = tokens_per_frame(arch, size)
        D, d = arch.embed_dim, arch.head_dim

        def tensor(*shape):
            return torch.empty(shape, dtype=dtype, device=device).uniform_(-1, 1)

        shapes = linear_shapes(arch)
        self.inputs = {width: tensor(1, P, width) for width in {inputs for inputs, _ in shapes}}
        self.layers = [[(tensor(o, i), tensor(o)) for i, o in shapes] for _ in range(arch.num_layers)]
        self.query = tensor(1, arch.num_heads, P, d)
        cache = (1, arch.num_heads, num_visible * P, d)
        self.caches = [(tensor(*cache), tensor(*cache)) for _ in range(arch.num_layers)]
        self.pixels = tensor(1, P - NUM_PREFIX, 3 * arch.patch_size**2)
        self.patch = (tensor(D, 3 * arch.patch_size**2), tensor(D))

    @torch.no_grad()
    def __call__(self):
        """One step's products."""
        linear(self.pixels, *self.patch)
        for weights, (key, value) in zip(self.layers, self.caches, strict=True):
            scaled_dot_product_attention(self.query, key, value)
            for weight, bias in weights:
                linear(self.inputs[weight.shape[1]], weight, bias)
