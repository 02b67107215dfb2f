import pytest
import torch
import torch.nn.functional as F

from omnistream.evaluation.sliding_window import average_windows, cut_windows, sliding_windows, window_starts


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (512, [0]),
        (513, [0, 1]),
        (683, [0, 171]),
        (853, [0, 341]),
        (854, [0, 341, 342]),
        (910, [0, 341, 398]),
        (1200, [0, 341, 682, 688]),
    ],
)
def test_positions_of_the_official_code(length, starts):
    assert window_starts(length, 512, 341) == starts


@pytest.mark.parametrize(
    ("length", "stride", "starts"), [(8, 1, [0]), (10, 1, [0, 1, 2]), (16, 8, [0, 8]), (17, 8, [0, 8, 9])]
)
def test_strides_of_one_pixel_and_of_a_whole_window(length, stride, starts):
    assert window_starts(length, 8, stride) == starts


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 13), (20, 11), (9, 9)])
def test_windows_cover_the_image_row_by_row(height, width):
    seen = torch.zeros(height, width)
    windows = sliding_windows(height, width, 8, 5)
    for window in windows:
        part = window.of(seen)
        assert part.shape == (8, 8)
        part += 1
    assert (seen > 0).all()
    assert windows == sorted(windows)


def test_average_of_what_was_cut_is_the_image():
    images = torch.randn(2, 3, 9, 14)
    windows = cut_windows(images, 8, 5)
    assert windows.shape == (2, 6, 3, 8, 8)
    torch.testing.assert_close(average_windows(lambda n: windows[:, n], 9, 14, 8, 5), images)


def test_average_is_the_official_one():
    """Upsampled logits are padded to the image and summed, and divided by how many windows there are."""
    logits = torch.randn(6, 1, 4, 2, 2)
    total, count = torch.zeros(1, 4, 9, 14), torch.zeros(9, 14)
    for n, (top, left) in enumerate((y, x) for y in (0, 1) for x in (0, 5, 6)):
        own = F.interpolate(logits[n], (8, 8), mode="bilinear", align_corners=False)
        total += F.pad(own, (left, 14 - left - 8, top, 9 - top - 8))
        count += F.pad(torch.ones(8, 8), (left, 14 - left - 8, top, 9 - top - 8))
    torch.testing.assert_close(average_windows(lambda n: logits[n], 9, 14, 8, 5), total / count)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="side of 400 pixels is shorter than the sliding window of 512"):
        window_starts(400, 512, 341)
    with pytest.raises(ValueError, match="stride of sliding windows must be from 1 to their size 512, got 600"):
        window_starts(800, 512, 600)
    with pytest.raises(ValueError, match="got 0"):
        window_starts(800, 512, 0)
