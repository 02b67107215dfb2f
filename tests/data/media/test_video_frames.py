import builtins
import multiprocessing

import av
import numpy as np
import pytest
import torch

from omnistream.data.media import VideoReadError, probe_video, read_frames, verify_video
from omnistream.data.media import video as video_module

NAMES = ["closed", "open_gop", "x265", "vp9", "av1", "mpeg4_avi", "narrow", "deep"]
SELECTIONS = [[10], [22], [0, 11, 22, 33, 44], list(range(0, 48, 7)), [30, 5, 5, 47, 30], list(range(48))]

needs_decord = pytest.mark.skipif(video_module._decord() is None, reason="decord is not installed")


def sequential(path, indices):
    """The slow, obvious twin: decode everything with PyAV, pick, turn upright."""
    wanted, pictures = set(indices), {}
    with av.open(str(path)) as container:
        for position, frame in enumerate(container.decode(video=0)):
            if position in wanted:
                turned = np.rot90(frame.to_ndarray(format="rgb24"), (frame.rotation % 360) // 90)
                pictures[position] = torch.from_numpy(turned.transpose(2, 0, 1).copy())
            if position >= max(wanted):
                break
    return torch.stack([pictures[i] for i in indices])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("indices", SELECTIONS, ids=str)
def test_frames_are_the_ones_asked_for(videos, read_numbers, name, indices):
    assert read_numbers(read_frames(videos(name), indices)) == indices


@needs_decord
@pytest.mark.parametrize(("name", "wrong"), [("open_gop", [0, 14, 25, 36, 47]), ("x265", [0, 14, 26, 37, 37])])
def test_decord_alone_is_wrong_where_the_guard_says_so(videos, read_numbers, name, wrong):
    assert read_numbers(read_frames(videos(name), [0, 11, 22, 33, 44], backend="decord")) == wrong


def test_hidden_frames_of_an_edit_list_are_not_counted(videos, read_numbers):
    path = videos("edit_list")  # the first 3 of 48 are hidden
    assert read_numbers(read_frames(path, [0, 10, 22, 44])) == [3, 13, 25, 47]


@needs_decord
def test_both_readers_turn_frames_upright(videos):
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
    with pytest.raises(VideoReadError, match="need 589824 of 100000 bytes"):
        read_frames(videos("closed"), range(48), max_bytes=100000)


def test_large_frames_that_are_resized_take_the_reader_that_resizes_one_by_one(videos, monkeypatch):
    monkeypatch.setattr(video_module, "_read_decord", lambda *_: pytest.fail("decord holds all frames at full size"))
    assert read_frames(videos("closed"), range(48), short_side=16, max_bytes=100000).shape == (48, 3, 16, 16)


def test_without_decord_pyav_reads(videos, read_numbers, monkeypatch):
    real = builtins.__import__

    def without_decord(name, *args, **kwargs):
        if name == "decord":
            raise ImportError("no wheel for this machine")
        return real(name, *args, **kwargs)

    video_module._decord.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_decord)
    try:
        assert read_numbers(read_frames(videos("closed"), [5, 40])) == [5, 40]
        with pytest.raises(VideoReadError, match="decord is not installed"):
            read_frames(videos("closed"), [5], backend="decord")
    finally:
        video_module._decord.cache_clear()


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


def test_truncated_matroska_serves_what_is_there(videos, read_numbers, tmp_path):
    data = videos("vp9").read_bytes()
    path = tmp_path / "cut.webm"
    path.write_bytes(data[: len(data) // 2])
    info = probe_video(path)
    assert 0 < info.num_frames < 48
    served = read_numbers(read_frames(path, range(info.num_frames - 1)))
    assert served == list(range(info.num_frames - 1))


def sample_videos(root):
    suffixes = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")
    return sorted(p for p in (root / "videos").rglob("*") if p.suffix in suffixes and p.parent.name != "corrupted")


def test_every_sample_clip_equals_sequential_decoding(sample_data):
    paths = sample_videos(sample_data)
    assert len(paths) == 26
    for number, path in enumerate(paths):
        info = probe_video(path)
        rng = np.random.default_rng(number)
        indices = sorted({*range(0, info.num_frames, 1 + info.num_frames // 6), *rng.integers(info.num_frames, size=5)})
        indices = [int(i) for i in indices]
        assert torch.equal(read_frames(path, indices), sequential(path, indices)), path.name


@pytest.mark.parametrize(
    ("name", "served", "refused", "reason"),
    [
        ("bikes_truncated.mp4", None, [0], "cannot be opened as a video"),
        ("decord_corrupted.mp4", [0, 13, 27], [5, 49], "breaks off after 28 frames"),
        ("demo_flipped_bytes.mp4", [0, 20, 57], [0, 100, 213], "frame 100 is damaged"),
        ("flipping_a_pancake_truncated.mkv", [0, 75, 149], None, None),
    ],
)
def test_broken_sample_clips(sample_data, name, served, refused, reason):
    path = sample_data / "videos" / "corrupted" / name
    if served:
        assert torch.equal(read_frames(path, served), sequential(path, served))
    if refused:
        with pytest.raises(VideoReadError, match=reason):
            # decord would hide the damage inside packets, or not, depending on how far its thread has got
            read_frames(path, refused, backend="pyav")


def test_verify_finds_damage_that_decord_hides(sample_data):
    path = sample_data / "videos" / "corrupted" / "demo_flipped_bytes.mp4"
    with pytest.raises(VideoReadError, match="frame 59 is damaged"):
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
