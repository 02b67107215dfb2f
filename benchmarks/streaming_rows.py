"""The rows of the streaming table: each prepares the state before the T-th frame and then encodes that frame again.

States are filled directly with random numbers instead of running T - 1 frames: no kernel here depends on the values.
Ours: a session lays out its cache with its first frame, is set before frame T, grows as it would, and every tensor of
its cache is overwritten with random numbers (untouched zero pages would be read too fast). The concatenating cache:
keys and values of T - 1 frames. Recomputation: T random images.
"""

import re
from dataclasses import dataclass

import torch
from baselines import concatenating_step, recompute
from common import DTYPES
from floor import ProductsAlone, step_cost, tokens_per_frame

from omnistream.backbone import create_model, get_variant

METHODS = {
    "recompute": "recomputation, bidirectional",
    "concat": "concatenating cache, dense mask",
    "growing": "ours, growing",
    "int8": "ours, growing, 8-bit cache",
    "ring": "ours, ring",
    "compiled": "ours, compiled session",
    "alone": "attention and matrix products alone",
}


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    method: str
    dtype: str
    window: int | None = None

    @property
    def name(self):
        """What `--rows` calls it."""
        return f"{self.method}{self.window or ''}-{self.dtype}"

    @property
    def label(self):
        """What the table calls it."""
        window = f" of {self.window}" if self.method == "ring" else f", ring of {self.window}" if self.window else ""
        return f"{METHODS[self.method]}{window}, {self.dtype}"

    def num_visible(self, num_frames):
        """Frames the T-th frame sees."""
        return num_frames if self.window is None else min(num_frames, self.window + 1)


def parse_row(name):
    """The row called e.g. growing-bf16 or ring16-fp32.

    Raises:
        ValueError: If there is no such row.
    """
    windowed, whole = (
        r"(?P<ring>ring|compiled)(?P<window>\d+)",
        r"(?P<method>recompute|concat|growing|int8|compiled|alone)",
    )
    match = re.fullmatch(rf"({windowed}|{whole})-(?P<dtype>{'|'.join(DTYPES)})", name)
    if match is None:
        methods = "recompute, concat, growing, int8, ring<W>, compiled, compiled<W>, alone"
        raise ValueError(f"a row is one of {methods}, then - and one of {', '.join(DTYPES)}; got {name!r}")
    window = None if match["window"] is None else int(match["window"])
    return Row(match["method"] or match["ring"], match["dtype"], window)


def default_rows(dtypes, device="cpu"):
    """Baselines as the release runs them, in float32; ours in each dtype, on a GPU compiled too."""
    names = ["recompute-fp32", "concat-fp32"]
    for dtype in dtypes:
        names += [f"growing-{dtype}", f"ring16-{dtype}", f"ring64-{dtype}", f"alone-{dtype}"]
    if device == "cuda":
        names += [f"{method}-{dtypes[-1]}" for method in ("compiled", "compiled16", "compiled64")]
    return [parse_row(name) for name in [*names, f"int8-{dtypes[-1]}"]]


def row_cost(row, variant, size, num_frames):
    """Work of the T-th frame."""
    arch, value_bytes = get_variant(variant), DTYPES[row.dtype].itemsize
    # 8 bits per number and one float32 scale per head and token.
    cached = 1 + 4 / arch.head_dim if row.method == "int8" else value_bytes
    new = num_frames if row.method == "recompute" else 1
    return step_cost(arch, size, row.num_visible(num_frames), value_bytes, cached, new)


def row_bytes(row, variant, size, num_frames):
    """Memory a row needs, about: weights and the cache, held twice by the concatenating one; activations."""
    cost, arch = row_cost(row, variant, size, num_frames), get_variant(variant)
    tokens = tokens_per_frame(arch, size) * (num_frames if row.method == "recompute" else 1)
    activations = tokens * (8 * arch.embed_dim + 2 * arch.hidden_dim) * DTYPES[row.dtype].itemsize
    slots = num_frames if row.window is None else row.window + 1
    if row.method in ("growing", "int8", "compiled") and row.window is None:
        slots = 1 << (num_frames - 1).bit_length()  # capacity doubles
    held = {"recompute": 0, "concat": 2}.get(row.method, slots / row.num_visible(num_frames))
    return cost.weight_bytes + held * cost.cache_bytes + activations


def copied_bytes(row, variant, size, num_frames):
    """What the method copies besides computing."""
    return row_cost(row, variant, size, num_frames).cache_bytes if row.method == "concat" else 0


def make_backbone(variant, dtype, device):
    """A backbone in eval mode, made in its dtype at once so that no other copy of the weights adds to the peak."""
    with torch.device("meta"):
        backbone = create_model(variant)
    backbone = backbone.to(DTYPES[dtype]).to_empty(device=device)
    backbone.reset_parameters()
    return backbone.eval()


def held_tensors(value, seen=None):
    """All tensors that an object holds, through attributes, lists and dictionaries."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, torch.nn.Module | type | torch.dtype | torch.device):
        return []
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    return [tensor for part in parts for tensor in held_tensors(part, seen)]


def open_session(backbone, row):
    """A session that has seen nothing."""
    if row.method == "compiled":
        return backbone.stream(window=row.window, compiled=True)
    return backbone.stream(window=row.window, cache_dtype=torch.int8 if row.method == "int8" else None)


class OursCall:
    """The T-th frame of a session, again and again."""

    def __init__(self, backbone, row, size, num_frames):
        device, dtype = backbone.cls_token.device, backbone.cls_token.dtype
        self.session = open_session(backbone, row)
        self.frame = torch.randn(1, 1, 3, size, size, device=device).to(dtype)
        self.session.step(self.frame)
        self.set_frame(num_frames - 1)
        self.session.step(self.frame)
        filled = 0
        for tensor in held_tensors(self.session.cache):
            filled += tensor.numel() * tensor.element_size()
            if tensor.is_floating_point():
                tensor.uniform_(-1, 1)
            elif tensor.dtype == torch.int8:
                tensor.random_(-127, 128)
        expected = row_cost(row, backbone.variant, size, num_frames).cache_bytes
        if filled < 0.9 * expected:
            raise RuntimeError(f"the session's cache holds {filled} bytes, expected at least {expected:.0f}")
        self.set_frame(num_frames - 1)

    def set_frame(self, index):
        """Index of the next frame."""
        self.session.frame_indices.fill_(index)

    def __call__(self):
        """Encode it; the session then stands where it stood."""
        index = int(self.session.frame_indices[0])
        self.session.step(self.frame)
        self.set_frame(index)


class CompiledCall:
    """The T-th frame of a compiled session, again and again."""

    def __init__(self, backbone, row, size, num_frames):
        device, dtype = backbone.cls_token.device, backbone.cls_token.dtype
        self.session = open_session(backbone, row)
        self.frame = torch.randn(1, 1, 3, size, size, device=device).to(dtype)
        self.session.step(self.frame)
        # It grows by doubling only: stop at each size on the way.
        index = 1
        while index <= num_frames - 1:
            self.set_frame(index)
            self.session.step(self.frame)
            index *= 2
        for part in self.session.static.cache():
            for tensor in part:
                tensor.uniform_(-1, 1)
        self.set_frame(num_frames - 1)

    def set_frame(self, index):
        """Index of the next frame."""
        self.session.frame_indices.fill_(index)
        self.session.static.frame.fill_(index)

    def __call__(self):
        """Encode it; the session then stands where it stood."""
        index = int(self.session.frame_indices[0])
        self.session.step(self.frame)
        self.set_frame(index)


class ConcatenatingCall:
    """The T-th frame with the release's method."""

    def __init__(self, backbone, size, num_frames):
        device, dtype, arch = backbone.cls_token.device, backbone.cls_token.dtype, backbone.arch
        self.backbone, self.index = backbone, num_frames - 1
        self.frame = torch.randn(1, 1, 3, size, size, device=device).to(dtype)
        shape = (1, arch.num_heads, (num_frames - 1) * tokens_per_frame(arch, size), arch.head_dim)
        self.past = [
            tuple(torch.empty(shape, dtype=dtype, device=device).uniform_(-1, 1) for _ in range(2))
            for _ in range(arch.num_layers)
        ]

    def __call__(self):
        """Encode it; the old cache is held and the new one dropped afterwards."""
        concatenating_step(self.backbone, self.frame, self.index, self.past)


class RecomputeCall:
    """All T frames."""

    def __init__(self, backbone, size, num_frames):
        device, dtype = backbone.cls_token.device, backbone.cls_token.dtype
        self.backbone = backbone
        self.frames = torch.randn(1, num_frames, 3, size, size, device=device).to(dtype)

    def __call__(self):
        """Encode them."""
        recompute(self.backbone, self.frames)


def make_call(row, backbone, size, num_frames):
    """A function that encodes the T-th frame.

    Raises:
        ValueError: If the library cannot do this row; or RuntimeError.
    """
    if row.method == "alone":
        return ProductsAlone(backbone.arch, size, num_frames, backbone.cls_token.dtype, backbone.cls_token.device)
    if row.method == "recompute":
        return RecomputeCall(backbone, size, num_frames)
    if row.method == "concat":
        return ConcatenatingCall(backbone, size, num_frames)
    return (CompiledCall if row.method == "compiled" else OursCall)(backbone, row, size, num_frames)
