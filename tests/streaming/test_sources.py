"""Sources: order, time, broken frames, what can be opened."""

import functools
import http.server
import re
import threading

import av
import numpy as np
import pytest
import torch
from PIL import Image
from stream_clips import decoded, shaded_image, write_video

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.media import VideoReadError
from omnistream.errors import UsageError
from omnistream.streaming.folder_source import natural_key
from omnistream.streaming.frames import SourceOptions, Subsampler, public_name
from omnistream.streaming.problems import Problems
from omnistream.streaming.sources import camera_device, open_source
from omnistream.streaming.video_source import VideoSource
from tests.data.media.field_video import write_field_video
from tests.data.media.video_files import NUM_FRAMES, RATE, read_numbers


def frames_of(text, problems=None, **options):
    source = open_source(str(text), problems or Problems(), SourceOptions(**options))
    try:
        return list(source)
    finally:
        source.close()


def brightness(frame):
    return float(frame.image[:, :, -8:].float().mean())


def test_video_frames_in_order_with_their_times(make_video):
    frames = frames_of(make_video("clip.mp4", 12))
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)
    assert frames[0].image.shape == (3, 32, 48)
    # mpeg4 is lossy; neighbours differ by 5.
    assert [brightness(frame) for frame in frames] == pytest.approx([20 + 5 * i for i in range(12)], abs=2)


@pytest.mark.parametrize(
    ("fps", "kept"), [(None, range(30)), (10, range(0, 30, 3)), (15, range(0, 30, 2)), (60, range(30))]
)
def test_subsampling_by_timestamps_rounded_to_milliseconds(fps, kept):
    sampler = Subsampler(fps)
    assert [i for i in range(30) if sampler.take(round(i / 30, 3))] == list(kept)


def test_subsampling_of_a_variable_rate():
    sampler = Subsampler(1)
    times = [5.0, 5.4, 6.1, 6.2, 6.9, 7.05, 11.3, 11.4, 12.0, 12.5]
    assert [time for time in times if sampler.take(time)] == [5.0, 6.1, 7.05, 11.3, 12.0]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e-4, 1001])
def test_invalid_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"fps must be from 0.001 to 1000.0 frames per second"):
        SourceOptions(fps=rate)
    with pytest.raises(ValueError, match=r"frame_rate must be from 0.001"):
        SourceOptions(frame_rate=rate)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_invalid_timeouts_are_refused(seconds):
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
        SourceOptions(timeout=seconds)


def test_rate_of_a_subsampled_video(make_video):
    path = make_video("clip.mp4", 20)
    source = open_source(str(path), Problems(), SourceOptions(fps=5))
    assert (source.fps, source.total) == (5, 4)
    assert [frame.index for frame in source] == [0, 5, 10, 15]
    source.close()


def test_timestamps_of_a_variable_rate(make_video):
    times = [0.0, 0.1, 0.15, 0.4]
    frames = frames_of(make_video("clip.mov", 4, codec="png", times=times))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=2e-3)


def test_broken_packet_is_reported_and_skipped(make_video):
    path = make_video("clip.mov", 6, codec="png")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 4] == b"IHDR"]
    content[starts[3] - 12 : starts[3] + 12] = bytes(24)
    path.write_bytes(content)
    reported = []
    problems = Problems(reported.append)
    frames = frames_of(path, problems)
    assert [round((brightness(frame) - 20) / 5) for frame in frames] == [0, 1, 2, 4, 5]
    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5]
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in (0, 1, 2, 4, 5)], abs=1e-3)
    assert problems.skipped == 1
    assert "after frame 2 is broken" in reported[0]


@pytest.mark.parametrize(("suffix", "b_frames"), [("mp4", 0), ("mp4", 2), ("avi", 0)])
@pytest.mark.parametrize("number", [5, 6])
def test_frames_after_a_broken_packet_of_an_inter_coded_video(make_video, suffix, b_frames, number):
    """The packet's timestamp identifies the lost frame; B-frames are stored in another order than they are shown."""
    source, lost = VideoSource(str(make_video(f"clip.{suffix}", 16, b_frames=b_frames)), Problems()), []
    whole = source._packets

    class Broken:
        def __init__(self, packet):
            self.pts = packet.pts
            lost.append(number if suffix == "avi" else round(packet.pts * packet.time_base * 25))

        def decode(self):
            raise av.error.InvalidDataError(1094995529, "broken")

    source._packets = lambda: (Broken(packet) if i == number else packet for i, packet in enumerate(whole()))
    frames = list(source)
    source.close()
    assert [frame.index for frame in frames] == [i for i in range(16) if i not in lost]
    assert [frame.time for frame in frames] == pytest.approx([frame.index / 25 for frame in frames], abs=1e-3)
    assert (lost != [number]) == (b_frames > 0)


def test_problems_are_bounded():
    reported = []
    problems = Problems(reported.append, shown=3)
    for i in range(100):
        problems.skip(f"frame {i}")
    assert problems.skipped == 100
    assert problems.lines == ["frame 0", "frame 1", "frame 2"]
    assert len(reported) == 4


def test_folder_in_natural_order_with_a_broken_image(tmp_path):
    for i in (0, 1, 2, 9, 10, 11):
        Image.fromarray(shaded_image(i)).save(tmp_path / f"f{i}.png")
    (tmp_path / "f9.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not a frame")
    problems = Problems()
    frames = frames_of(tmp_path, problems, frame_rate=10)
    assert [brightness(frame) for frame in frames] == [20, 25, 30, 70, 75]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.4, 0.5])
    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5]
    assert problems.skipped == 1
    assert [frame.index for frame in frames_of(tmp_path, frame_rate=10, fps=5)] == [0, 2, 4]
    assert len(frames_of(tmp_path / "f1*.png")) == 3


def rgbd_folder(folder, color, depth, count=3):
    for i in range(count):
        Image.fromarray(shaded_image(i)).save(folder / color.format(i))
        Image.fromarray(np.full((32, 48), 1000 + i, np.uint16)).save(folder / depth.format(i))


@pytest.mark.parametrize(
    ("color", "depth", "pattern"),
    [
        ("frame-{:06d}.color.jpg", "frame-{:06d}.depth.png", "frame-*.color.jpg"),
        ("{:04d}.jpg", "{:04d}.png", "*.jpg"),
        ("rgb_{}.png", "d_{}.png", "rgb_*.png"),
        ("left[{}].png", "left[{}]_depth.png", "left[[]*].png"),
    ],
)
def test_a_folder_with_depth_suggests_a_pattern(tmp_path, color, depth, pattern):
    rgbd_folder(tmp_path, color, depth)
    with pytest.raises(UsageError) as caught:
        open_source(str(tmp_path), Problems())
    assert "holds colour images and depth maps" in str(caught.value)
    assert str(caught.value).endswith(f"matches the colour images alone: '{tmp_path / pattern}'")
    frames = frames_of(tmp_path / pattern)
    assert [brightness(frame) for frame in frames] == pytest.approx([20, 25, 30], abs=1)


def test_colour_images_of_several_names_are_one_stream(tmp_path):
    for i, name in enumerate(("a0.png", "a1.png", "b0.png")):
        Image.fromarray(shaded_image(i)).save(tmp_path / name)
    assert [brightness(frame) for frame in frames_of(tmp_path)] == [20, 25, 30]


def test_a_folder_of_folders_suggests_those_with_images(tmp_path):
    for name in ("rgb", "depth", "empty"):
        (tmp_path / name).mkdir()
    Image.fromarray(shaded_image(0)).save(tmp_path / "rgb" / "0.png")
    Image.fromarray(shaded_image(0)).save(tmp_path / "depth" / "0.png")
    with pytest.raises(DatasetNotFoundError, match=rf"there are some in {tmp_path / 'depth'}, {tmp_path / 'rgb'}$"):
        open_source(str(tmp_path), Problems())


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("a", "b", "c", "d", "upright"),
    [
        (1, 0, 0, 1, lambda image: image),
        (0, 1, -1, 0, lambda image: np.rot90(image, -1)),
        (-1, 0, 0, -1, lambda image: np.rot90(image, 2)),
        (0, -1, 1, 0, lambda image: np.rot90(image)),
        (-1, 0, 0, 1, lambda image: image[:, ::-1]),
        (1, 0, 0, -1, lambda image: image[::-1]),
        (0, 1, 1, 0, lambda image: image.swapaxes(0, 1)),
        (0, -1, -1, 0, lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
)
def test_rotated_and_mirrored_videos_are_upright(make_video, suffix, a, b, c, d, upright):
    one = 1 << 16
    path = make_video(
        f"clip.{suffix}", 2, codec="mpeg4", matrix=(a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    )
    stored = decoded(path)[1]
    found = frames_of(path)[1].image
    np.testing.assert_array_equal(found.movedim(0, -1).numpy(), upright(stored))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("paired", [False, True])
def test_fields_in_separate_packets_are_one_frame(tmp_path, suffix, paired):
    path = write_field_video(tmp_path / f"fields.{suffix}", paired=paired)
    source = open_source(str(path), Problems())
    frames = list(source)
    source.close()
    assert source.fps == RATE
    assert source.total in (None, NUM_FRAMES)
    assert read_numbers(torch.stack([frame.image for frame in frames])) == list(range(NUM_FRAMES))
    assert [frame.index for frame in frames] == list(range(NUM_FRAMES))
    times = np.array([frame.time for frame in frames])
    assert times - times[0] == pytest.approx(np.arange(NUM_FRAMES) / RATE, abs=2e-3)  # Matroska counts milliseconds
    assert source.problems.truncated is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_truncated_file_is_reported(make_video, suffix, b_frames):
    """MP4 states a number of frames, Matroska and AVI a duration."""
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = make_video(f"clip.{suffix}", 100, b_frames=b_frames, container_options=options)
    problems = Problems(shown=0)
    assert len(frames_of(path, problems)) == 100
    assert problems.truncated is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    reported = []
    problems = Problems(reported.append, shown=0)
    found = len(frames_of(path, problems))
    assert 10 < found < 80
    promised = r"100 frames, the file holds \d\d" if suffix == "mp4" else r"4\.0 s, the file ends after [123]\.\d s"
    line = rf"{re.escape(str(path))}: truncated: the header promises {promised}"
    assert re.fullmatch(line, problems.truncated)
    assert problems.truncated in reported


def test_a_stream_that_is_stopped_early_is_not_truncated(make_video):
    problems = Problems()
    source = open_source(str(make_video("clip.mkv", 100)), problems)
    for _ in zip(range(10), source, strict=False):
        pass
    source.close()
    assert problems.truncated is None


def test_audio_longer_than_the_video_is_not_a_truncation(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=8000)
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(shaded_image(index), format="rgb24")))
        for index in range(40):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts = 8000, 800 * index
            container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    problems = Problems()
    assert len(frames_of(path, problems)) == 25
    assert problems.truncated is None


def test_a_file_may_have_the_name_of_a_pattern(make_video, tmp_path):
    path = make_video("Talk [dQw4w9WgXcQ].mp4", 5)
    assert len(frames_of(path)) == 5
    with pytest.raises(UsageError, match="frame_rate is for folders of images"):
        open_source(str(path), Problems(), SourceOptions(frame_rate=5))
    Image.fromarray(shaded_image(0)).save(tmp_path / "f1.png")
    assert len(frames_of(tmp_path / "f[0-9].png")) == 1


def test_natural_order():
    names = ["b1", "a10", "a2", "2", "10", "a"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "a2", "a10", "b1"]


def test_address(make_video):
    path = make_video("clip.mp4", 5)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://user:secret@127.0.0.1:{server.server_port}"
        frames = frames_of(f"{address}/clip.mp4")
        with pytest.raises(VideoReadError, match="cannot be opened") as caught:
            frames_of(f"{address}/absent.mp4")
        server.shutdown()
    assert len(frames) == 5
    assert "secret" not in str(caught.value)


def test_live_time_starts_at_the_first_frame(make_video):
    path = make_video("clip.mov", 3, codec="png", times=[7.0, 7.1, 7.2])
    source = VideoSource(str(path), Problems(), live=True)
    assert [frame.time for frame in source] == pytest.approx([0, 0.1, 0.2], abs=2e-3)
    source.close()


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoReadError, match="cannot be opened"):
        open_source(str(tmp_path / "empty.mp4"), Problems())
    with pytest.raises(DatasetNotFoundError, match="holds no images"):
        open_source(str(tmp_path), Problems())
    with pytest.raises(FileNotFoundError, match="no file, folder"):
        open_source(str(tmp_path / "absent.mp4"), Problems())
    with pytest.raises(UsageError, match="must start with one of rtsp"):
        open_source("concat://a|b", Problems())
    with pytest.raises(VideoReadError, match=r"rtsp://127.0.0.1:9/live: cannot be opened"):
        open_source("rtsp://me:secret@127.0.0.1:9/live", Problems(), SourceOptions(timeout=2))


def test_a_camera_takes_no_timeout():
    with pytest.raises(UsageError, match="timeout is for network addresses; 0 is not one"):
        open_source("0", Problems(), SourceOptions(timeout=2))


def test_cameras():
    with pytest.raises(UsageError, match="no camera 987: /dev/video987 does not exist"):
        open_source("987", Problems())
    assert camera_device(1, "darwin") == ("1", "avfoundation")
    with pytest.raises(UsageError, match="Linux and macOS"):
        camera_device(0, "win32")


@pytest.mark.skipif("video4linux2,v4l2" not in av.formats_available, reason="FFmpeg without video4linux")
def test_a_device_that_is_not_a_camera():
    with pytest.raises(VideoReadError, match="/dev/null: cannot be opened"):
        VideoSource("/dev/null", Problems(), container_format="v4l2", live=True)


def test_public_name():
    assert public_name("rtsp://me:secret@host:554/live") == "rtsp://host:554/live"
    assert public_name("rtsp://admin:p@ss@cam/live") == "rtsp://cam/live"
    assert public_name("rtsp://admin:p s@@cam/live") == "rtsp://cam/live"
    assert public_name("rtsp://me:secret@cam/live@2x") == "rtsp://cam/live@2x"
    assert public_name("rtsp://cam/live@2x") == "rtsp://cam/live@2x"
    assert public_name("folder/a@b.mp4") == "folder/a@b.mp4"


def test_a_change_of_size_inside_a_video(tmp_path):
    """Two elementary streams in one file decode to frames of two sizes."""
    sizes = [(32, 48), (64, 32)]
    parts = [write_video(tmp_path / f"{i}.m2v", 3, size=size, codec="mpeg2video") for i, size in enumerate(sizes)]
    path = tmp_path / "both.m2v"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = [tuple(frame.image.shape[1:]) for frame in frames_of(path)]
    assert shapes[0] == (32, 48)
    assert shapes[-1] == (64, 32)


@pytest.mark.parametrize(
    ("name", "count", "shape"),
    [
        ("decord/video_90.mov", 3, (568, 320)),
        ("moviepy/fire2.mp4", 25, (720, 1280)),
        ("mmaction2/test.avi", 164, (240, 320)),
        ("imageio/newtonscradle.gif", 36, (150, 200)),
        ("something_something_v2/id_166766/vid.mp4", 49, (240, 427)),
    ],
)
def test_real_videos(sample_data, name, count, shape):
    frames = frames_of(sample_data / "videos" / name)
    assert len(frames) == count
    assert frames[0].image.shape == (3, *shape)
    times = np.array([frame.time for frame in frames])
    assert (np.diff(times) > 0).all()


def test_rotated_videos_agree(sample_data):
    upright = frames_of(sample_data / "videos/decord/video_0.mov")[0].image
    turned = frames_of(sample_data / "videos/decord/video_180.mov")[0].image
    stored = torch.from_numpy(decoded(sample_data / "videos/decord/video_180.mov")[0]).movedim(-1, 0)
    torch.testing.assert_close(turned, stored.flip(-1, -2))
    assert upright.shape == turned.shape


@pytest.mark.parametrize(
    ("name", "frames", "skipped", "rate"),
    [("decord_corrupted.mp4", 48, 2, 10), ("demo_flipped_bytes.mp4", 188, 92, 28)],
)
def test_damaged_videos_are_read_to_their_end(sample_data, name, frames, skipped, rate):
    problems = Problems()
    found = frames_of(sample_data / "videos/corrupted" / name, problems)
    assert len(found) == frames
    assert problems.skipped == skipped
    # Constant rates of 10 and 28 frames/s, so the time gives the position.
    assert [frame.index for frame in found] == [round(frame.time * rate) for frame in found]


def test_a_truncated_video_of_the_samples(sample_data):
    problems = Problems()
    assert len(frames_of(sample_data / "videos/corrupted/flipping_a_pancake_truncated.mkv", problems)) == 150
    assert "promises 10.4 s, the file ends after 5.0 s" in problems.truncated
