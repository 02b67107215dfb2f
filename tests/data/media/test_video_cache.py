import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from omnistream.data.media import VideoReadError, probe_video, read_frames, verify_video, video_cache, video_probe
from omnistream.data.media.video_probe import probe_record
from omnistream.paths import CACHE_VARIABLE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache on disk and in memory."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(video_cache, "_memory", video_cache._memory.__class__())
    return tmp_path / "cache" / "videos"


@pytest.fixture
def clip(videos, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(videos("open_gop").read_bytes())
    return path


@pytest.fixture
def scans(monkeypatch):
    """Paths of the files whose packets were read."""
    paths, scan = [], video_probe.scan_packets
    monkeypatch.setattr(video_probe, "scan_packets", lambda path, *rest: paths.append(path) or scan(path, *rest))
    return paths


def forget_memory():
    video_cache._memory.clear()


def test_a_file_is_examined_once(cache, clip, scans):
    first = probe_record(clip)
    forget_memory()
    second = probe_record(clip)
    assert len(scans) == 1
    assert first.info == second.info
    assert second.info.orientation.size(2, 1) == (2, 1)
    for name in ("checksums", "order", "starts", "stamps"):
        stored, made = getattr(second.index, name), getattr(first.index, name)
        assert np.array_equal(stored, made)
        assert stored.dtype == made.dtype
    assert probe_record(clip) is probe_record(clip)


def test_another_process_uses_the_cache(cache, clip, scans):
    probe_video(clip)
    code = (
        "import sys; from omnistream.data.media import read_frames, video_probe; video_probe.scan_packets = None; "
        "print(tuple(read_frames(sys.argv[1], [3, 40]).shape))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(clip)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(2, 3, 64, 64)"


def test_a_changed_file_is_examined_again(cache, clip, videos, scans):
    assert probe_video(clip).codec == "h264"
    clip.write_bytes(videos("vp9").read_bytes())
    os.utime(clip, ns=(1, 1))
    assert probe_video(clip).codec == "vp9"
    os.utime(clip, ns=(2, 2))
    probe_video(clip)
    assert len(scans) == 3
    clip.unlink()
    with pytest.raises(VideoReadError, match="No such file"):
        probe_video(clip)


def test_the_path_is_the_requested_one(cache, clip, monkeypatch, scans):
    probe_video(clip)
    monkeypatch.chdir(clip.parent)
    assert probe_video("clip.mp4").path == "clip.mp4"
    assert probe_video(clip).path == str(clip)
    assert len(scans) == 1


def test_another_decoder_version_invalidates_the_cache(cache, clip, monkeypatch, scans):
    probe_video(clip)
    forget_memory()
    monkeypatch.setattr(video_cache.av, "ffmpeg_version_info", "0.1")
    probe_video(clip)
    assert len(scans) == 2


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torn", b"no archive"])
def test_a_damaged_record_is_rebuilt(cache, clip, scans, content, caplog):
    probe_video(clip)
    forget_memory()
    (file,) = cache.rglob("*.npz")
    file.write_bytes(content)
    assert probe_video(clip).num_frames == 48
    assert len(scans) == 2
    assert "is damaged" in caplog.text
    forget_memory()
    probe_video(clip)
    assert len(scans) == 2


def test_a_folder_that_cannot_be_written_is_named_once(tmp_path, clip, videos, monkeypatch, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    monkeypatch.setattr(video_cache, "_memory", video_cache._memory.__class__())
    other = tmp_path / "other.mp4"
    other.write_bytes(videos("closed").read_bytes())
    assert [probe_video(path).num_frames for path in (clip, other, clip)] == [48, 48, 48]
    assert caplog.text.count("cannot be written") == 1


def test_memory_is_bounded(cache, clip, monkeypatch):
    monkeypatch.setattr(video_cache, "_MOST_IN_MEMORY", 2)
    for number in range(4):
        path = clip.with_name(f"{number}.mp4")
        path.write_bytes(clip.read_bytes())
        probe_video(path)
    assert [Path(key[0]).name for key in video_cache._memory] == ["2.mp4", "3.mp4"]


def test_whole_files_are_decoded_once(cache, clip, monkeypatch):
    assert verify_video(clip) == 48
    forget_memory()
    monkeypatch.setattr("omnistream.data.media.video._exact_frames", lambda *_: pytest.fail("decoded again"))
    assert verify_video(clip) == 48
    assert probe_video(clip).whole


def test_results_of_decoding_are_cached(cache, made, scans):
    """In H.263 in AVI all frames are marked as key frames, which only a jump to one shows to be wrong."""
    from tests.data.media.video_matrix import recipes

    path = made(recipes()["h263-gop-avi"])
    assert len(probe_record(path).index.starts) == 48
    frames = read_frames(path, [7])
    forget_memory()
    assert probe_record(path).index.starts.tolist() == [0]
    assert (read_frames(path, [7]) == frames).all()
    assert len(scans) == 1


def test_misleading_packets_lead_to_decoding_once(cache, clip, scans):
    record = probe_record(clip)
    swapped = record.index.order.copy()
    swapped[[20, 21]] = swapped[[21, 20]]
    wrong = video_cache.replace(record, index=video_cache.replace(record.index, order=swapped))
    video_cache.store_record(wrong)
    frames = read_frames(clip, [20, 21])
    assert np.array_equal(probe_record(clip).index.order, record.index.order)
    assert len(scans) == 2
    assert (read_frames(clip, [20, 21]) == frames).all()


def test_concurrent_writers_leave_a_valid_record(cache, clip):
    record, key = probe_record(clip), video_cache._key(clip)

    def write_and_read(_):
        video_cache._store(key, record)
        return video_cache._load(key)

    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(write_and_read, range(64)))
    assert all(each is not None and each.info == record.info for each in loaded)
    assert [file.suffix for file in cache.rglob("*") if file.is_file()] == [".npz"]
