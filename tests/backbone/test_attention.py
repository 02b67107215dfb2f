import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from visibility import visible_frames

from omnistream.backbone.attention import ClipContext, check_window

WINDOWS = [(None, 1), (4, 1), (4, 0), (6, 2), (1, 0), (1, 1), (2, 2), (12, 1)]


def dense_attention(query, key, value, num_frames, window, sink):
    """The slow twin: one call under a boolean mask of all tokens by all tokens."""
    per_frame = query.shape[2] // num_frames
    frames = torch.zeros(num_frames, num_frames, dtype=torch.bool)
    for frame in range(num_frames):
        frames[frame, visible_frames(frame, window, sink)] = True
    mask = frames.repeat_interleave(per_frame, 0).repeat_interleave(per_frame, 1)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def test_visible_frames_without_a_window_are_all_up_to_now():
    assert visible_frames(3, None, 1) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("frame", "window", "sink", "expected"),
    [
        (4, 4, 1, [0, 1, 2, 3, 4]),
        (6, 4, 1, [0, 3, 4, 5, 6]),
        (6, 4, 0, [2, 3, 4, 5, 6]),
        (9, 6, 2, [0, 1, 5, 6, 7, 8, 9]),
        (7, 1, 0, [6, 7]),
        (7, 1, 1, [0, 7]),
        (7, 2, 2, [0, 1, 7]),
    ],
)
def test_visible_frames_of_a_window_are_sink_recent_and_itself(frame, window, sink, expected):
    assert visible_frames(frame, window, sink) == expected


@pytest.mark.parametrize(("window", "sink"), WINDOWS)
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_clip_attention_and_its_gradients_equal_the_dense_mask(window, sink, num_frames):
    tensors = [torch.randn(2, 3, num_frames * 5, 8, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    *qkv, weight = tensors
    fast = ClipContext(num_frames, window, sink).attend(0, *qkv)
    slow = dense_attention(*qkv, num_frames, window, sink)
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad((out * weight.detach()).sum(), qkv) for out in (fast, slow)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_clip_attention_is_causal_bit_for_bit():
    query, key, value = torch.randn(3, 2, 3, 6 * 5, 8)
    before = ClipContext(6).attend(0, query, key, value)
    changed = [tensor.clone() for tensor in (query, key, value)]
    for tensor in changed:
        tensor[:, :, 4 * 5 :] = torch.randn(2, 3, 2 * 5, 8)
    after = ClipContext(6).attend(0, *changed)
    assert torch.equal(before[:, :, : 4 * 5], after[:, :, : 4 * 5])
    assert not torch.equal(before[:, :, 4 * 5 :], after[:, :, 4 * 5 :])


@pytest.mark.parametrize(("window", "sink"), [(0, 0), (2, 3), (None, -1), (3, -1)])
def test_windows_that_cannot_hold_their_sink_are_refused(window, sink):
    with pytest.raises(ValueError, match=r"window must be at least 1|sink must be between"):
        check_window(window, sink)
