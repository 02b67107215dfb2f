"""The release's time coordinates (reference: Go2Heart/OmniStream, model/) against the dense twin at those times."""

import pytest
import torch

from omnistream.backbone.time_mode import check_time_mode, clip_times, stream_times

CPU = torch.device("cpu")
FLOAT32 = {"atol": 3e-5, "rtol": 0}


def clip(num_frames):
    return torch.randn(1, num_frames, 3, 16, 24)


def stream(model, images, **options):
    session = model.stream(**options)
    return torch.cat([session.step(frame).last for frame in images.split(1, dim=1)], dim=1)


def twin(dense_forward, model, images, times, **options):
    return dense_forward(model, images, times=times, **options)[-1, ..., 5:, :].unflatten(-2, (2, 3)).float()


def test_absolute_time_is_the_index():
    assert clip_times(40, None, "absolute", CPU).tolist() == list(range(40))
    assert clip_times(40, 4, "absolute", CPU).tolist() == list(range(40))
    assert stream_times(torch.tensor([[3, 4], [50, 51]]), 4, "absolute").tolist() == [[3, 4], [50, 51]]


def test_official_time_squeezes_long_clips_and_stops_at_the_window():
    assert clip_times(16, None, "official", CPU).tolist() == list(range(16))
    # The release divides the index by max(16, T), ours by 16.
    torch.testing.assert_close(clip_times(24, None, "official", CPU) / 16, torch.arange(24).double() / 24)
    assert stream_times(torch.tensor([3, 20]), None, "official").tolist() == [3, 20]
    assert stream_times(torch.tensor([3, 4, 5, 20]), 4, "official").tolist() == [3, 4, 4, 4]
    assert clip_times(7, 4, "official", CPU).tolist() == [0, 1, 2, 3, 4, 4, 4]


@torch.no_grad()
def test_official_clips_beyond_16_frames_differ_from_their_own_stream_and_ours_do_not(build, dense_forward):
    images, model = clip(24), build(time_mode="official", rope_layout="official")
    full, streamed = model(images).last, stream(model, images)
    torch.testing.assert_close(full, twin(dense_forward, model, images, torch.arange(24) * 16 / 24), **FLOAT32)
    torch.testing.assert_close(streamed, twin(dense_forward, model, images, torch.arange(24)), **FLOAT32)
    # As measured on the release: frame 0 agrees, frame 1 is off, the last one more so.
    off = (full - streamed).abs().amax((0, 2, 3, 4))
    assert off[0] < 3e-5
    assert 0.05 < off[1] < off[23]
    absolute = build(rope_layout="official")
    torch.testing.assert_close(absolute(images).last, stream(absolute, images), **FLOAT32)


@torch.no_grad()
def test_up_to_16_frames_both_modes_are_the_same(build):
    images = clip(16)
    one, other = (build(time_mode=mode)(images).last for mode in ("absolute", "official"))
    torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize(("window", "sink"), [(4, 1), (4, 0), (6, 2), (1, 0), (1, 1), (2, 2)])
@torch.no_grad()
def test_official_window_stands_still_in_streams_of_any_chunking_and_clips(build, dense_forward, window, sink):
    images, model = clip(10), build(rope_layout="official", window=window, sink=sink, time_mode="official")
    times = torch.arange(10).clamp(max=window)
    expected = twin(dense_forward, model, images, times, window=window, sink=sink)
    torch.testing.assert_close(model(images).last, expected, **FLOAT32)
    torch.testing.assert_close(stream(model, images), expected, **FLOAT32)
    session = model.stream()
    chunks = [session.step(chunk).last for chunk in images.split([3, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected, **FLOAT32)


@torch.no_grad()
def test_official_window_loses_the_order_of_time_and_ours_keeps_it(build):
    # Two remembered frames change places: with one time for both nothing tells.
    model, images = build(window=3, sink=0), clip(12)

    def last_frame(mode, order):
        session = model.stream(time_mode=mode, layers=(0,))
        return [session.step(images[:, n : n + 1]).patches[0] for n in order][-1]

    orders = [[*range(8), 8, 9, 10, 11], [*range(8), 8, 10, 9, 11]]
    lost, kept = ([last_frame(mode, order) for order in orders] for mode in ("official", "absolute"))
    torch.testing.assert_close(*lost, **FLOAT32)
    assert (kept[0] - kept[1]).abs().max() > 1e-2


@pytest.mark.usefixtures("no_type_checks")
def test_sessions_take_the_backbones_mode_and_may_choose_another(build):
    model = build(time_mode="official")
    assert model.stream().options.time_mode == "official"
    assert model.stream(time_mode="absolute").options.time_mode == "absolute"
    for refuse in (lambda: check_time_mode("window"), lambda: model.stream(time_mode="window")):
        with pytest.raises(ValueError, match="time_mode must be one of"):
            refuse()
