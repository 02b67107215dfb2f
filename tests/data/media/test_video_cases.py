"""Kinds of files that were once read wrongly: generated ones, and the original ones if their folder is available."""

import numpy as np
import pytest
import torch

from omnistream.data.media import probe_video, read_frames, verify_video
from tests.data.media.field_video import write_field_video
from tests.data.media.video_files import NUM_FRAMES, RATE, read_numbers, sequential
from tests.data.media.video_matrix import recipes

ALL = list(range(NUM_FRAMES))


@pytest.mark.parametrize("name", ["libx264-b2-ts", "libx265-open-ts", "libx265-b2-ts", "libx264-b2-wmv"])
def test_b_frames_in_transport_streams_and_wmv(made, name):
    path = made(recipes()[name])
    assert [read_numbers(read_frames(path, [number]))[0] for number in ALL] == ALL


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_recovery_points_of_an_intra_refresh_are_not_key_frames(made, suffix):
    path = made(recipes()[f"libx264-refresh-{suffix}"])
    assert [read_numbers(read_frames(path, [number]))[0] for number in ALL] == ALL
    assert "key frames that are not start points" in probe_video(path).doubts


@pytest.mark.parametrize("paired", [False, True], ids=["packet_per_field", "packet_per_frame"])
@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "mov", "avi", "flv"])
def test_two_fields_are_one_frame(tmp_path, suffix, paired):
    path = write_field_video(tmp_path / f"fields.{suffix}", paired=paired)
    info = probe_video(path)
    assert (info.num_frames, info.fps, info.duration) == (NUM_FRAMES, RATE, NUM_FRAMES / RATE)
    expected = sequential(path)
    for positions in ([number] for number in ALL):
        frames = read_frames(path, positions)
        assert torch.equal(frames, expected[positions])
        assert read_numbers(frames) == positions
    assert verify_video(path) == NUM_FRAMES
    assert "fields" in probe_video(path).doubts


def test_fields_without_timestamps_are_counted_in_pairs(tmp_path):
    path = write_field_video(tmp_path / "fields.264")
    assert read_numbers(read_frames(path, ALL)) == ALL


def test_an_unpaired_field_is_shown_as_the_decoder_does(tmp_path):
    whole = write_field_video(tmp_path / "fields.264").read_bytes()
    unit = b"\0\0\0\1"
    parts = whole.split(unit)  # empty, two parameter sets, two fields, two fields, a frame, ...
    path = tmp_path / "lost.264"
    path.write_bytes(unit.join(parts[:6] + parts[7:]))  # without the second field of frame 1
    expected = sequential(path)
    assert probe_video(path).num_frames == len(expected)
    assert torch.equal(read_frames(path, range(len(expected))), expected)


def grey_numbers(frames):
    return [round((float(frame.float().mean()) - 8) / 2) for frame in frames]


def bit_numbers(frames):
    strip = frames[:, 0, 44:52].float()
    return [sum(int(s[:, 16 * b + 21 : 16 * b + 27].mean() > 128) << b for b in range(8)) for s in strip]


@pytest.mark.parametrize(
    ("name", "numbers", "wanted"),
    [
        ("ts_wrong_frames/a.ts", grey_numbers, [0, 10, 50, 100]),
        ("ts_wrong_frames/a.mp4", grey_numbers, [0, 10, 50, 100]),
        ("ts_wrong_frames/b.ts", grey_numbers, [0, 10, 50, 100]),
        ("ts_wrong_frames/c.wmv", grey_numbers, [0, 10, 50, 100]),
        ("intra_refresh/r.mp4", bit_numbers, [30, 35, 60, 65, 90]),
        ("field_coded_h264/paff.ts", bit_numbers, [0, 5, 10, 20, 23]),
    ],
)
def test_the_original_cases(sample_cases, name, numbers, wanted):
    path = sample_cases / name
    assert numbers(read_frames(path, wanted)) == wanted
    assert [numbers(read_frames(path, [number]))[0] for number in wanted] == wanted
    assert torch.equal(read_frames(path, wanted), sequential(path, wanted))
    info = probe_video(path)
    assert info.fps == 25
    assert verify_video(path) == info.num_frames == (24 if name.startswith("field") else 120)


@pytest.mark.parametrize("name", ["m.mp4", "hflip.mp4"])
def test_the_original_mirrored_cases(sample_cases, name):
    path = sample_cases / "mirrored_video" / name
    stored = sequential(path, [0])
    assert torch.equal(read_frames(path, [0]), stored.flip(-1))
    assert not np.array_equal(stored, stored.flip(-1))
