"""Damaged and truncated files: frames that depend on damage are refused, after a jump as when read from the start."""

import av
import numpy as np
import pytest

from omnistream.data.media import VideoReadError, probe_video, read_frames, verify_video
from omnistream.data.media.mp4_boxes import missing_index
from omnistream.data.media.video_decode import ExactReader, open_video
from omnistream.data.media.video_probe import probe_record
from tests.data.media.video_files import NUM_FRAMES, RATE, read_numbers
from tests.data.media.video_matrix import recipes

ALL = list(range(NUM_FRAMES))


def payload(path, number):
    """Byte offset and size of a packet in its file."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    return path.read_bytes().index(bytes(packet), packet.pos), packet.size


def outcome(path, index, position):
    """The frame's bytes, or None if it is refused."""
    with open_video(str(path)) as (container, stream):
        try:
            ((_, frame),) = ExactReader(str(path), index, container, stream).frames(np.array([position]))
        except VideoReadError:
            return None
        return frame.to_ndarray(format="rgb24").tobytes()


@pytest.mark.parametrize("name", ["libx264-pyramid-mp4", "libx264-open-mkv", "mpeg4-b2-avi"])
def test_damage_is_the_same_from_a_jump_as_from_the_start(made, tmp_path, name):
    source = made(recipes()[name])
    data, rng = bytearray(source.read_bytes()), np.random.default_rng(0)
    for number in (17, 30, 31):
        place, size = payload(source, number)
        for byte in rng.integers(size // 3, size, size=3):
            data[place + byte] ^= 0xFF
    path = tmp_path / f"damaged{source.suffix}"
    path.write_bytes(data)
    record = probe_record(path)
    assert len(record.index.starts) > 2
    sequential_index = record.index.from_the_start_only()
    refused = 0
    for position in range(record.info.num_frames):
        jumped, from_start = (outcome(path, index, position) for index in (record.index, sequential_index))
        if position < record.index.first_position(int(record.index.starts[1])):
            assert jumped == from_start
        elif from_start is not None:
            assert jumped == from_start  # damage does not reach past a start point
        refused += jumped is None
    assert refused < record.info.num_frames


def test_damage_reaches_up_to_the_next_start_point_and_no_further(made, tmp_path):
    source = made(recipes()["libx264-closed-mp4"])  # groups of 10 frames
    whole = probe_record(source)
    data = bytearray(source.read_bytes())
    place, size = payload(source, 13)
    data[place + 8 : place + size] = bytes(size - 8)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert probe_video(path).num_frames == whole.info.num_frames
    served = [position for position in ALL if outcome(path, probe_record(path).index, position) is not None]
    assert served == [*range(13), *range(20, 48)]
    assert read_numbers(read_frames(path, [12, 20, 47])) == [12, 20, 47]
    with pytest.raises(VideoReadError, match=r"damaged.mp4: frame 15 is damaged \(packet 13 of the video stream\)"):
        read_frames(path, [2, 15, 30])
    with pytest.raises(VideoReadError, match="frame 13 is damaged"):
        verify_video(path)
    assert probe_video(path).backend == "pyav"


def faststart(source, path):
    """The same packets with the index at the front, so that a truncated file still opens."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return path


@pytest.mark.parametrize(
    "name", ["libx264-b2-mp4", "libx264-b2-mkv", "libvpx-closed-webm", "mpeg4-b0-avi", "flv-gop-flv", "mpeg4-b2-mov"]
)
def test_a_truncated_file_reports_the_promised_and_found_frames(made, tmp_path, caplog, name):
    source = made(recipes()[name])
    if source.suffix in (".mp4", ".mov"):
        source = faststart(source, tmp_path / f"front{source.suffix}")
    path = tmp_path / f"cut{source.suffix}"
    place, size = payload(source, 28)
    path.write_bytes(source.read_bytes()[: place + size // 2])
    info = probe_video(path)
    assert info.promised_frames == pytest.approx(NUM_FRAMES, abs=1)
    assert info.num_frames in (28, 29)
    assert info.fps == RATE
    text = f"truncated: the header promises {info.promised_frames} frames, the file holds {info.num_frames}"
    assert f"{path}: {text}" in caplog.text
    with pytest.raises(VideoReadError, match=text):
        verify_video(path)
    last_whole = info.num_frames - 4
    assert read_numbers(read_frames(path, [0, last_whole])) == [0, last_whole]
    caplog.clear()
    probe_video(path)
    assert not caplog.text


def test_a_file_that_ends_inside_a_packet_refuses_its_last_frame(made, tmp_path):
    """MPEG-4's decoder conceals the missing part without an error; the demuxer reports it."""
    source = faststart(made(recipes()["mpeg4-b0-mp4"]), tmp_path / "front.mp4")
    path = tmp_path / "cut.mp4"
    path.write_bytes(source.read_bytes()[:-4])
    assert probe_video(path).num_frames == NUM_FRAMES
    assert read_numbers(read_frames(path, [46])) == [46]
    with pytest.raises(VideoReadError, match="frame 47 is damaged"):
        read_frames(path, [47])


def test_whole_files_promise_what_they_hold(made):
    for name in (
        "libx264-b2-mp4",
        "libx264-b2-mkv",
        "mpeg4-b2-avi",
        "libvpx-hidden-webm",
        "flv-gop-flv",
        "libx264-b2-ts",
    ):
        assert probe_video(made(recipes()[name])).promised_frames is None


@pytest.mark.parametrize("suffix", ["mp4", "mov", "3gp"])
def test_a_missing_index_is_reported(made, tmp_path, suffix):
    codec = {"3gp": "h263-gop"}.get(suffix, "mpeg4-intra")
    data = made(recipes()[f"{codec}-{suffix}"]).read_bytes()
    index, path = data.rindex(b"moov") - 4, tmp_path / f"clip.{suffix}"
    for length, fault in ((index, "missing"), (index // 2, "missing"), (index + 40, "incomplete")):
        path.write_bytes(data[:length])
        message = rf"cannot be opened as a video \(truncated, .* its index \(moov\) is {fault}\)"
        with pytest.raises(VideoReadError, match=message):
            probe_video(str(path))


@pytest.mark.parametrize("large", [False, True])
def test_boxes_with_any_header_are_read(tmp_path, large):
    path = tmp_path / "clip.mp4"
    ftyp, body = (16).to_bytes(4, "big") + b"ftypisom" + bytes(4), bytes(20)
    mdat = (1).to_bytes(4, "big") + b"mdat" + (36).to_bytes(8, "big") if large else (28).to_bytes(4, "big") + b"mdat"
    path.write_bytes(ftyp + mdat + body + (8).to_bytes(4, "big") + b"moov")
    assert missing_index(path) is None
    path.write_bytes(ftyp + mdat + body)
    assert "is missing" in missing_index(path)
    path.write_bytes(ftyp + bytes(4) + b"mdat" + body)  # a recording that was not finished
    assert "is missing" in missing_index(path)
    path.write_bytes(b"RIFF" + body)
    assert missing_index(path) is None
    assert missing_index("rtsp://camera/1") is None
