import builtins
import multiprocessing

import av
import numpy as np
import pytest
import torch

from omnistream.data.media import VideoReadError, decord_reader, probe_video, read_frames, verify_video, video_decode
from omnistream.data.media import video as video_module
from omnistream.data.media.video_probe import probe_record
from tests.data.media.conftest import needs_decord
from tests.data.media.video_files import Recipe, sequential

NAMES = ["closed", "open_gop", "x265", "vp9", "av1", "mpeg4_avi", "narrow", "deep"]
SELECTIONS = [[10], [22], [0, 11, 22, 33, 44], list(range(0, 48, 7)), [30, 5, 5, 47, 30], list(range(48))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("indices", SELECTIONS, ids=str)
def test_frames_are_the_requested_ones(videos, read_numbers, name, indices):
    assert read_numbers(read_frames(videos(name), indices)) == indices


@needs_decord
@pytest.mark.parametrize(
    ("name", "reason"),
    [("open_gop", "open group"), ("x265", "open group"), ("edit_list", "edit list"), ("odd", "odd frame size")],
)
def test_decord_is_refused_where_it_may_return_wrong_frames(videos, name, reason):
    with pytest.raises(VideoReadError, match=f"decord may return wrong frames: .*{reason}"):
        read_frames(videos(name), [0, 11], backend="decord")


@needs_decord
def test_decord_reads_only_verified_files(videos, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(videos("closed").read_bytes())
    frames = read_frames(path, [11, 22])
    verify_video(path)
    calls = []
    monkeypatch.setattr(video_module, "_read_pyav", lambda *_: calls.append("pyav"))
    assert torch.equal(read_frames(path, [11, 22]), frames)
    assert not calls


@needs_decord
def test_pyav_takes_over_where_decord_fails(videos, monkeypatch):
    path = videos("closed")
    verify_video(path)

    def fails(*_):
        raise VideoReadError(path, "decord: no")

    monkeypatch.setattr(video_module, "read_with_decord", fails)
    assert read_frames(path, [7]).shape == (1, 3, 64, 64)
    with pytest.raises(VideoReadError, match="decord: no"):
        read_frames(path, [7], backend="decord")


def test_hidden_frames_of_an_edit_list_are_not_counted(videos, read_numbers):
    path = videos("edit_list")  # the first 3 of 48 are hidden
    assert read_numbers(read_frames(path, [0, 10, 22, 44])) == [3, 13, 25, 47]


@needs_decord
def test_both_readers_rotate_frames_upright(videos):
    path = videos("turned")
    frames = [read_frames(path, [1, 40], backend=backend) for backend in ("decord", "pyav")]
    assert frames[0].shape == (2, 3, 128, 64)
    assert torch.equal(*frames)


def test_positions_past_the_end_give_the_last_frame(videos, read_numbers):
    assert read_numbers(read_frames(videos("closed"), [46, 47, 48, 500])) == [46, 47, 47, 47]


@pytest.mark.parametrize("indices", [[], [3, -1]])
def test_bad_positions(videos, indices):
    with pytest.raises(ValueError, match="expected one or more frame positions from 0"):
        read_frames(videos("closed"), indices)


@pytest.mark.parametrize("name", ["closed", "open_gop"])
def test_resized_frames_equal_resizing_afterwards(videos, name):
    full = read_frames(videos(name), [0, 20])
    small = read_frames(videos(name), [0, 20], short_side=24)
    expected = torch.nn.functional.interpolate(full, size=(24, 24), mode="bicubic", antialias=True)
    assert torch.equal(small, expected)


def test_clip_size_is_bounded_before_decoding(videos):
    with pytest.raises(VideoReadError, match="need 589824 bytes, the limit is 100000"):
        read_frames(videos("closed"), range(48), max_bytes=100000)


def test_large_frames_that_are_resized_take_the_reader_that_resizes_one_by_one(videos, monkeypatch):
    verify_video(videos("closed"))
    monkeypatch.setattr(video_module, "_read_decord", lambda *_, **__: pytest.fail("it holds all frames at full size"))
    assert read_frames(videos("closed"), range(48), short_side=16, max_bytes=100000).shape == (48, 3, 16, 16)


def test_pyav_is_used_without_decord(videos, read_numbers, monkeypatch):
    real = builtins.__import__

    def without_decord(name, *args, **kwargs):
        if name == "decord":
            raise ImportError("no wheel for this machine")
        return real(name, *args, **kwargs)

    decord_reader.decord_module.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_decord)
    try:
        assert read_numbers(read_frames(videos("closed"), [5, 40])) == [5, 40]
        with pytest.raises(VideoReadError, match="decord is not installed"):
            read_frames(videos("closed"), [5], backend="decord")
    finally:
        decord_reader.decord_module.cache_clear()


def _read_in_child(path, queue):
    torch.set_num_threads(1)
    queue.put(read_frames(path, [7, 33])[:, 0, 0, 0].tolist())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_can_read_after_its_parent(videos):
    path = videos("closed")
    expected = read_frames(path, [7, 33])[:, 0, 0, 0].tolist()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(path, queue), daemon=True)
    child.start()
    assert queue.get(timeout=30) == expected
    child.join(10)


def test_only_what_lies_between_a_start_point_and_the_frame_is_decoded(videos, monkeypatch):
    path, numbers = videos("closed"), []  # groups of 5 frames
    frames = video_decode.Cursor._frames
    monkeypatch.setattr(
        video_decode.Cursor,
        "_frames",
        lambda self, number, packet: numbers.append(number) or frames(self, number, packet),
    )
    read_frames(path, [33, 34, 46], backend="pyav")
    assert numbers[0] == 0  # names the encoder
    assert set(numbers[1:]) <= {*range(30, 38), *range(45, 48)}


def test_jumps_over_many_packets_seek(made, monkeypatch):
    recipe = Recipe("mp4", "libx264", {"g": "20", "bf": "2"}, num_frames=600)
    path = made(recipe)
    expected = sequential(path)
    sought = []
    seek = video_decode.Cursor._seek
    monkeypatch.setattr(video_decode.Cursor, "_seek", lambda self, *args: sought.append(args[0]) or seek(self, *args))
    for positions in ([599], [0, 10, 420, 425, 430], [300, 310]):
        assert torch.equal(read_frames(path, positions, backend="pyav"), expected[positions])
    assert sought == [592, 416, 296]  # key frames every 8 frames: nothing moves


@pytest.mark.parametrize("suffix", ["ts", "mkv", "flv", "avi", "wmv", "mpg"])
def test_seeking_in_other_containers(made, suffix):
    codec = "mpeg2video" if suffix == "mpg" else "libx264"
    path = made(Recipe(suffix, codec, {"g": "20", "bf": "2"}, num_frames=600))
    expected = sequential(path)
    for positions in ([599], [0, 10, 420, 425, 430], [300, 310]):
        assert torch.equal(read_frames(path, positions, backend="pyav"), expected[positions])
    assert len(probe_record(path).index.starts) > 1, "a seek came down too late"


def test_decoding_starts_at_the_beginning_if_packets_are_not_found(made, monkeypatch):
    path = made(Recipe("mp4", "libx264", {"g": "20", "bf": "2"}, num_frames=600))
    expected = sequential(path)
    monkeypatch.setattr(video_decode.Cursor, "_seek", lambda *_: False)
    assert torch.equal(read_frames(path, [450], backend="pyav"), expected[[450]])
    assert probe_record(path).index.starts.tolist() == [0]


def sample_videos(root):
    suffixes = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")
    return sorted(p for p in (root / "videos").rglob("*") if p.suffix in suffixes and p.parent.name != "corrupted")


def upright(path, indices):
    """Uses the angle reported by PyAV; no sample is mirrored."""
    with av.open(str(path)) as container:
        turns = (next(container.decode(video=0)).rotation % 360) // 90
    return torch.rot90(sequential(path, indices), turns, (-2, -1))


@pytest.mark.slow
def test_every_sample_clip_equals_sequential_decoding(sample_data):
    paths = sample_videos(sample_data)
    assert len(paths) == 26
    for number, path in enumerate(paths):
        info = probe_video(path)
        rng = np.random.default_rng(number)
        indices = sorted({*range(0, info.num_frames, 1 + info.num_frames // 6), *rng.integers(info.num_frames, size=5)})
        indices = [int(i) for i in indices]
        expected = upright(path, indices)
        assert info.num_frames == len(sequential(path)), path.name
        assert torch.equal(read_frames(path, indices), expected), path.name
        assert verify_video(path) == info.num_frames, path.name
        # The file is verified now, so decord is used if it is exact for it, and PyAV if decord cannot open it.
        assert torch.equal(read_frames(path, indices), expected), path.name


def sequential_while_it_lasts(path, indices):
    images = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            images.append(frame.to_ndarray(format="rgb24"))
            if len(images) > max(indices):
                break
    return torch.from_numpy(np.stack([images[i] for i in indices])).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "served", "refused", "reason"),
    [
        ("bikes_truncated.mp4", None, [0], r"its index \(moov\) is missing"),
        ("decord_corrupted.mp4", [0, 13, 27], [5, 48], r"frame 48 is damaged \(packet 30"),
        ("demo_flipped_bytes.mp4", [0, 20, 57], [0, 100, 213], r"frame 100 is damaged \(packet 58"),
        ("flipping_a_pancake_truncated.mkv", [0, 75, 149], None, None),
    ],
)
def test_broken_sample_clips(sample_data, name, served, refused, reason):
    path = sample_data / "videos" / "corrupted" / name
    if served:
        assert torch.equal(read_frames(path, served), sequential_while_it_lasts(path, served))
    if refused:
        with pytest.raises(VideoReadError, match=reason):
            read_frames(path, refused)


def test_verify_finds_damage_that_decord_hides(sample_data):
    path = sample_data / "videos" / "corrupted" / "demo_flipped_bytes.mp4"
    with pytest.raises(VideoReadError, match="frame 58 is damaged"):
        verify_video(path)
    assert verify_video(sample_data / "videos" / "mmaction2" / "demo.mp4") == 280


@needs_decord
@pytest.mark.parametrize(("name", "turns"), [("video_0.mov", 0), ("video_90.mov", 3), ("video_180.mov", 2)])
def test_rotation_of_sample_clips(sample_data, name, turns):
    path = sample_data / "videos" / "decord" / name
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = torch.from_numpy(np.rot90(stored, turns).transpose(2, 0, 1).copy())
    for backend in ("decord", "pyav"):
        assert torch.equal(read_frames(path, [0], backend=backend)[0], expected)
