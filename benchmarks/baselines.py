"""What the library is measured against: our own minimal versions of the ways one would write it first.

All share the library's weights, blocks and rotary embedding and differ in what attention sees, so a ratio says what the
method costs; only streams of ours keep the rotary tables of places from call to call, a few small operations.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention


class DenseContext:
    """Clips: every layer attends under one boolean mask over all tokens of the clip.

    Stands in for `ClipContext`, whose further arguments (window, kernel) say nothing to it.
    """

    def __init__(self, num_frames, *_):
        self.num_frames = num_frames
        self.mask = None

    def attend(self, layer, query, key, value):
        if self.mask is None:
            frames = torch.arange(self.num_frames, device=query.device)
            frames = frames.repeat_interleave(query.shape[2] // self.num_frames)
            self.mask = frames[:, None] >= frames
        return scaled_dot_product_attention(query, key, value, attn_mask=self.mask)


class BidirectionalContext:
    """Clips: every token attends to all tokens, without a mask; what a model without a cache runs on each frame."""

    def attend(self, layer, query, key, value):
        return scaled_dot_product_attention(query, key, value)


class ConcatenatingContext:
    """Streams: the cache is concatenated in every layer, and attention runs under a dense boolean mask.

    The release's method (Go2Heart/OmniStream: model/modeling_omnistream.py, dinov3/layers/attention.py), by reading:
    rotated keys and values of all earlier frames are kept per layer; in each layer of each step `torch.cat` makes new
    tensors of the past and the new frame; all of the old cache stays alive until the step ends, because the caller
    holds it; a float32 mask [new tokens, all tokens] is filled again in each step and cast to bool, although all of it
    is true when the step has one frame; attention gets that mask. Left out, in the baseline's favour: the release keeps
    the outputs of all blocks, and computes its rotary tables twice in every layer.

    Args:
        past: Keys and values of each layer, [1, heads, tokens, d]; None for a stream's first step.
        num_frames: New frames.
    """

    def __init__(self, past, num_frames=1):
        self.past, self.num_frames = past, num_frames
        self.present = []
        self.mask = None

    def attend(self, layer, query, key, value):
        if self.past is not None:
            key = torch.cat([self.past[layer][0], key], dim=2)
            value = torch.cat([self.past[layer][1], value], dim=2)
        self.present.append((key, value))
        if self.mask is None:
            self.mask = self._ladder(query, key.shape[2])
        return scaled_dot_product_attention(query, key, value, attn_mask=self.mask)

    def _ladder(self, query, num_tokens):
        num_new = query.shape[2]
        per_frame = num_new // self.num_frames
        mask = torch.zeros(num_new, num_tokens, device=query.device)
        for frame in range(self.num_frames):
            end = num_tokens - num_new + (frame + 1) * per_frame
            mask[frame * per_frame : (frame + 1) * per_frame, :end] = 1
        return mask.bool()


@torch.no_grad()
def concatenating_step(backbone, frames, start, past):
    """One step of the release's method: output and the new cache, which the caller passes to the next step.

    Args:
        backbone: In eval mode.
        frames: Normalised, [1, S, 3, H, W].
        start: Index of the first of them in the stream.
        past: Cache that the last step returned; None before the first.
    """
    indices = torch.arange(start, start + frames.shape[1], device=frames.device)
    context = ConcatenatingContext(past, frames.shape[1])
    return backbone.encode(frames, indices, context), context.present


@torch.no_grad()
def recompute(backbone, frames):
    """All frames at once, bidirectional; the newest frame's features are the last of the output."""
    indices = torch.arange(frames.shape[1], device=frames.device)
    return backbone.encode(frames, indices, BidirectionalContext())
