"""Timestamps that are shifted, jump, repeat or are missing; edit lists; streams that are cut and joined."""

from fractions import Fraction

import av
import pytest
import torch

from omnistream.data.media import probe_video, read_frames, verify_video
from omnistream.data.media.video_probe import probe_record
from tests.data.media.video_files import NUM_FRAMES, RATE, Recipe, read_numbers, sequential
from tests.data.media.video_matrix import H264, HEVC, recipes

ALL = list(range(NUM_FRAMES))


def remuxed(source, path, *, shift=0, first=0, missing=()):
    """The packets from `first` on, `shift` seconds later, those in `missing` without timestamps."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            if number < first:
                continue
            ticks = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = copy
            new.mux(packet)
    return path


def assert_exact(path):
    """Check that single positions and a clip equal sequential decoding, and return the numbers shown."""
    expected = sequential(path)
    assert probe_video(path).num_frames == len(expected)
    for position in {0, *range(2, len(expected), 5), len(expected) - 1}:
        assert torch.equal(read_frames(path, [position])[0], expected[position]), position
    some = list(range(1, len(expected), 3))
    assert torch.equal(read_frames(path, some), expected[some])
    assert verify_video(path) == len(expected)
    if not probe_video(path).doubts:
        assert torch.equal(read_frames(path, some, backend="decord"), expected[some])
    return read_numbers(expected)


@pytest.mark.parametrize("structure", ["libx264-b2", "libx264-open", "libx265-open", "mpeg4-b2"])
@pytest.mark.parametrize(("suffix", "hidden"), [("mp4", 3), ("mp4", 13), ("mov", 13)])
def test_frames_before_an_edit_list_are_not_counted(made, tmp_path, structure, suffix, hidden):
    path = remuxed(made(recipes()[f"{structure}-mp4"]), tmp_path / f"a.{suffix}", shift=Fraction(-hidden, RATE))
    assert assert_exact(path) == ALL[hidden:]
    info = probe_video(path)
    assert (info.num_frames, info.fps, info.promised_frames) == (NUM_FRAMES - hidden, RATE, None)
    assert "edit list" in info.doubts


def test_frames_after_an_edit_list_are_not_counted(made, tmp_path):
    """The edit is shortened to 24 of 48 frames, and the file is not reported as truncated."""
    data = bytearray(remuxed(made(recipes()["libx264-b2-mp4"]), tmp_path / "b.mp4").read_bytes())
    entry = data.find(b"elst") + 12
    assert int.from_bytes(data[entry : entry + 4], "big") == 2000  # ms
    data[entry : entry + 4] = (1000).to_bytes(4, "big")
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    numbers = assert_exact(path)
    assert numbers == ALL[: len(numbers)]
    assert 24 <= len(numbers) <= 26
    assert probe_video(path).promised_frames is None


@pytest.mark.parametrize(
    "seconds", [Fraction(-13, RATE), Fraction(5), Fraction(95440)], ids=["before", "after", "wrap"]
)
@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv"])
@pytest.mark.parametrize("structure", ["libx264-b2", "libx265-open"])
def test_timestamps_may_start_anywhere(made, tmp_path, structure, suffix, seconds):
    """At 95,440 s, the timestamps of a transport stream are about to wrap around to 0."""
    path = remuxed(made(recipes()[f"{structure}-mp4"]), tmp_path / f"a.{suffix}", shift=seconds)
    assert assert_exact(path) == ALL
    info = probe_video(path)
    assert (info.fps, info.promised_frames) == (RATE, None)


STAMPS = tuple([0, 10, 25, 30, 31, 60] + [60 + 7 * k + k % 3 * 2 for k in range(1, 43)])
SPAN = Fraction(STAMPS[-1] - STAMPS[0], 240)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi", "wmv"])
@pytest.mark.parametrize(("codec", "options"), [("libx264", H264["b2"]), ("libx265", HEVC["open"])])
def test_variable_rate(made, codec, options, suffix):
    if codec == "libx265" and suffix in ("avi", "wmv"):
        pytest.skip("FFmpeg does not write it")
    path = made(Recipe(suffix, codec, options, stamps=STAMPS))
    assert assert_exact(path) == ALL
    # AVI and WMV store only decoding timestamps: those of the last B-frames are earlier
    assert probe_video(path).fps == pytest.approx(
        float((NUM_FRAMES - 1) / SPAN), rel=0.04 if suffix in ("avi", "wmv") else 0.002
    )


@pytest.mark.parametrize(("suffix", "first"), [("ts", 1), ("mkv", 12), ("mp4", 14), ("ts", 14)])
@pytest.mark.parametrize(
    "structure", ["libx264-open", "libx265-open", "mpeg2video-b2", "libx264-refresh", "libx264-mbaff"]
)
def test_streams_may_start_anywhere(made, tmp_path, structure, first, suffix):
    """Random access gives the frames that sequential decoding gives, even at a start that lacks its references."""
    path = remuxed(made(recipes()[f"{structure}-ts"]), tmp_path / f"a.{suffix}", first=first)
    numbers = assert_exact(path)
    assert numbers[-20:] == ALL[-20:]
    assert probe_video(path).promised_frames is None


@pytest.mark.parametrize(
    "names",
    [
        ("libx264-b2-ts", "libx264-b2-ts"),
        ("libx264-b2-ts", "libx264-pyramid-ts"),  # other parameter sets in the second half
        ("libx264-pyramid-ts", "libx264-mbaff-ts"),
        ("libx265-open-ts", "libx265-b2-ts"),
        ("mpeg2video-b2-mpg", "mpeg2video-b2-mpg"),
        ("libx264-b2-h264", "libx264-b2-h264"),
    ],
)
def test_joined_streams(made, tmp_path, names):
    paths = [made(recipes()[name]) for name in names]
    path = tmp_path / f"joined{paths[0].suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in paths))
    assert assert_exact(path) == ALL + ALL
    assert probe_video(path).fps == RATE


def test_a_transport_stream_cut_anywhere(made, tmp_path):
    path = tmp_path / "cut.ts"
    path.write_bytes(made(recipes()["libx264-b2-ts"]).read_bytes()[188 * 20 + 100 :])
    assert assert_exact(path)[-30:] == ALL[-30:]


def test_missing_timestamps_do_not_matter(made, tmp_path):
    """An elementary stream has no timestamps at all."""
    record = probe_record(made(recipes()["libx264-pyramid-h264"]))
    assert record.index.starts.tolist() == [0]
    assert record.info.fps == RATE


def test_the_encoder_named_in_the_first_packet_is_known_after_a_jump(made, tmp_path):
    """XviD streams need its own inverse transform; in many AVI files, only the first packet names the encoder."""
    data = made(Recipe("avi", "mpeg4", {"g": "8", "qscale": "6"}, width=128)).read_bytes()
    name = b"Lavc" + data.split(b"Lavc", 1)[1].split(b"\0", 1)[0]
    head, _, rest = data.partition(name)
    path = tmp_path / "xvid.avi"
    path.write_bytes(head + b"XviD0046".ljust(len(name), b"\0") + rest.replace(name, b"\0" * len(name)))
    plain = tmp_path / "plain.avi"
    plain.write_bytes(data)
    assert not torch.equal(sequential(path), sequential(plain))
    assert len(probe_record(path).index.starts) == 6
    assert_exact(path)
