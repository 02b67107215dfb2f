"""`omnistream stream` from end to end."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from stream_clips import decoded, shaded_image
from stream_runs import RANDOM, ROOT, process, stream, summary

from omnistream.backbone import create_model
from omnistream.commands.stream import speed
from omnistream.trained import load


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        stream(*arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


@pytest.mark.parametrize(
    ("frames", "seconds", "expected"),
    [(20, 2.0, "10.0 frames/s"), (3, 2.0, "1.5 frames/s"), (2, 45.0, "0.044 frames/s"), (0, 0.0, "0 frames/s")],
)
def test_speed_of_a_slow_stream_is_not_zero(frames, seconds, expected):
    assert speed(frames, seconds) == expected


def test_everything_from_a_trained_checkpoint(trained, make_video, tmp_path, capsys):
    video, out = make_video("clip.mp4", 20), tmp_path / "out"
    options = ["--window", 6, "--size", 32, "--features", "last,cls,1", "--fit-frames", 5, "--chunk", 3]
    stream(video, "--checkpoint", trained, "--out", out, *options, "--cameras", "rays")
    assert "20 frames (end of source)" in capsys.readouterr().out
    assert len(decoded(out / "features_pca.mp4")) == len(decoded(out / "depth.mp4")) == 20
    facts = summary(out)
    assert (facts["frames"], facts["skipped"], facts["frame_size"]) == (20, 0, {"height": 32, "width": 48})
    assert set(facts["files"]) == {path.name for path in out.iterdir()} - {"summary.json", "intrinsics.txt"}

    model = load(trained)
    images = torch.stack([torch.from_numpy(frame).movedim(-1, 0) for frame in decoded(video)])
    expected = model.backbone.stream(window=6, layers=(1,), camera_token=True, aspect_ratio=torch.tensor([32 / 48]))
    output = expected.step(model.backbone.normalize(images)[None])
    with np.load(out / "features.npz", allow_pickle=False) as stored:
        for name, found in (("cls", output.cls), ("last", output.last), ("layer_1", output.patches[1])):
            # 1e-4: the order of summation differs between chunks of three frames and one of twenty.
            np.testing.assert_allclose(stored[f"{name}_00000000"], found[0], rtol=1e-4, atol=1e-4)
    assert len(np.loadtxt(out / "poses.txt", ndmin=2)) == facts["files"]["poses.txt"]["poses"]


def test_a_run_folder_stands_for_its_checkpoint(trained, make_video, tmp_path, capsys):
    video, run = make_video("clip.mp4", 2), trained.parents[1]
    for number, checkpoint in enumerate((trained, run)):
        stream(video, "--checkpoint", checkpoint, "--out", tmp_path / str(number), "--size", 32)
    files = [(tmp_path / str(number) / "poses.txt").read_bytes() for number in range(2)]
    assert files[0] == files[1]
    assert "geometry heads" in summary(tmp_path / "1")["model"]
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(trained.read_bytes())
    stream(video, "--checkpoint", alone, "--config", run / "config.yaml", "--out", tmp_path / "3", "--size", 32)
    assert (tmp_path / "3" / "poses.txt").read_bytes() == files[0]
    (tmp_path / "empty").mkdir()
    assert "no" in failure(capsys, video, "--checkpoint", tmp_path / "empty", "--out", tmp_path / "4")


def test_depth_as_numbers(trained, make_video, tmp_path, capsys):
    video, given = make_video("clip.mp4", 4), ["--checkpoint", trained, "--size", 32, "--heads", "depth"]
    stream(video, "--out", tmp_path / "png", *given, "--depth-format", "png")
    stream(video, "--out", tmp_path / "npz", *given, "--depth-format", "npz")
    files = sorted((tmp_path / "png" / "depth").iterdir())
    assert [file.name for file in files] == [f"{i:08d}.png" for i in range(4)]
    facts = summary(tmp_path / "png")["files"]["depth"]
    with np.load(tmp_path / "npz" / "depth.npz", allow_pickle=False) as stored:
        expected = stored["depth_00000000"]
    found = np.stack([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_allclose(found / facts["scale"], expected, rtol=0, atol=0.5001 / facts["scale"])
    stream(video, "--out", tmp_path / "png", *given, "--depth-format", "png", "--max-frames", 1, "--overwrite")
    assert [file.name for file in (tmp_path / "png" / "depth").iterdir()] == ["00000000.png"]
    stream(video, "--out", tmp_path / "tum", *given, "--depth-format", "png", "--depth-scale", "100")
    assert summary(tmp_path / "tum")["files"]["depth"]["scale"] == 100
    assert "--depth-scale is for --depth-format png" in failure(
        capsys, video, "--out", tmp_path / "x", *given, "--depth-format", "npz", "--depth-scale", "100"
    )


@pytest.mark.parametrize("cameras", ["head", "rays"])
def test_the_first_camera_is_the_origin(trained, make_video, tmp_path, cameras):
    stream(make_video("clip.mp4", 5), "--checkpoint", trained, "--out", tmp_path, "--overwrite", "--size", 32,
           "--cameras", cameras)  # fmt: skip
    lines = [line for line in (tmp_path / "poses.txt").read_text().splitlines() if not line.startswith("#")]
    facts = summary(tmp_path)["files"]
    if cameras == "head":
        assert len(lines) == 5
    assert [line.split(" ", 1)[1] for line in lines[:1]] == ["0 0 0 0 0 0 1"] * min(len(lines), 1)
    assert facts["poses.txt"]["poses"] == len(lines)
    assert facts["points.ply"]["frames_without_points"] == (facts["poses.txt"]["first_camera"] or 0 if lines else 5)


def test_a_truncated_file_is_in_the_summary(make_video, tmp_path, capsys):
    video = make_video("clip.mkv", 60)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    stream(video, "--out", tmp_path / "out", *RANDOM)
    facts = summary(tmp_path / "out")
    assert re.search(
        r"clip.mkv: truncated: the header promises 2.4 s, the file ends after [01].\d s", facts["truncated"]
    )
    assert facts["truncated"] in capsys.readouterr().err
    assert facts["ended"] == "end of source"


def test_a_folder_with_depth_maps_is_a_one_line_error(tmp_path, capsys):
    for i in range(2):
        Image.fromarray(shaded_image(i)).save(tmp_path / f"frame-{i}.color.jpg")
        Image.fromarray(np.full((32, 48), 1000, np.uint16)).save(tmp_path / f"frame-{i}.depth.png")
    line = failure(capsys, tmp_path, "--out", tmp_path / "out", *RANDOM)
    assert line.endswith(f"give a pattern that matches the colour images alone: '{tmp_path}/frame-*.color.jpg'")
    stream(tmp_path / "frame-*.color.jpg", "--out", tmp_path / "out", *RANDOM)
    assert summary(tmp_path / "out")["frames"] == 2


def test_paths_are_expanded(make_video, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    create_model("vit_nano").save_pretrained(tmp_path / "saved")
    make_video("clip.mp4", 2)
    stream("~/clip.mp4", "--out", "$RESULTS/out", "--checkpoint", "~/saved", "--size", 32)
    assert summary(tmp_path / "results" / "out")["frames"] == 2


def test_window_and_sink_come_from_the_checkpoint(make_video, tmp_path):
    backbone, video, out = (
        create_model("vit_nano", window=3, sink=2).eval(),
        make_video("clip.mp4", 8),
        tmp_path / "out",
    )
    backbone.save_pretrained(tmp_path / "saved")
    stream(video, "--checkpoint", tmp_path / "saved", "--out", out, "--size", 32, "--features", "cls")
    assert (summary(out)["options"]["window"], summary(out)["options"]["sink"]) == (3, 2)
    images = torch.stack([torch.from_numpy(frame).movedim(-1, 0) for frame in decoded(video)])
    expected, other = (
        backbone.stream(window=3, sink=sink).step(backbone.normalize(images)[None]).cls[0] for sink in (2, 1)
    )
    found = torch.from_numpy(np.load(out / "features.npz")["cls_00000000"])
    # 1e-4: the order of summation differs between single frames and all at once.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - other).abs().max() > 1e-3


def test_heads_can_be_chosen(trained, make_video, tmp_path):
    video = make_video("clip.mp4", 3)
    stream(video, "--checkpoint", trained, "--out", tmp_path / "a", "--size", 32, "--heads", "pose")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "features_pca.mp4", "poses.txt", "intrinsics.txt", "summary.json"
    }  # fmt: skip
    stream(video, "--checkpoint", trained, "--out", tmp_path / "b", "--size", 32, "--heads", "none")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"features_pca.mp4", "summary.json"}


def test_a_folder_with_a_broken_image_and_a_change_of_size(tmp_path, capsys):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for i in range(6):
        Image.fromarray(shaded_image(i, (32, 48) if i < 4 else (64, 64))).save(frames / f"{i}.png")
    (frames / "2.png").write_bytes(b"broken")
    stream(frames, "--out", out, *RANDOM, "--frame-rate", 10, "--max-frames", 5)
    facts = summary(out)
    assert (facts["frames"], facts["skipped"], facts["ended"]) == (5, 1, "max_frames")
    assert "2.png: " in facts["problems"][0]
    assert "frame 4 is 64x64, before it 48x32; resized to the 48x32 of the stream" in facts["problems"][1]
    assert "2.png" in capsys.readouterr().err
    assert len(decoded(out / "features_pca.mp4")) == 5
    with pytest.raises(SystemExit):
        stream(frames, "--out", out, *RANDOM)
    stream(frames, "--out", out, *RANDOM, "--max-frames", 1, "--overwrite")
    assert summary(out)["frames"] == 1


def test_a_second_run_replaces_the_files_of_the_first(trained, make_video, tmp_path):
    video, out = make_video("clip.mp4", 5), tmp_path / "out"
    given = ["--out", out, "--size", 32, "--features", "cls", "--features-format", "safetensors", "--overwrite"]
    stream(video, "--checkpoint", trained, *given)
    (out / "mine.txt").write_text("kept")
    (out / "features" / "features-00000099.safetensors").touch()
    stream(video, *RANDOM, *given, "--max-frames", 2)
    assert {path.name for path in out.iterdir()} == {"features_pca.mp4", "features", "summary.json", "mine.txt"}
    assert [path.name for path in (out / "features").iterdir()] == ["features-00000000.safetensors"]


def test_a_bad_option_leaves_the_files_of_an_earlier_run(trained, make_video, tmp_path, capsys):
    video, out = make_video("clip.mp4", 3), tmp_path / "out"
    stream(video, "--checkpoint", trained, "--out", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    given = ["--checkpoint", trained, "--out", out, "--overwrite"]
    assert "point_stride must be at least 1, got 0" in failure(capsys, video, *given, "--point-stride", "0")
    assert "fit_frames must be at least 1, got 0" in failure(capsys, video, *given, "--fit-frames", "0")
    assert "depth_range must be increasing, got 2.0,1.0" in failure(capsys, video, *given, "--depth-range", "2,1")
    assert "depth_scale must be a positive number" in failure(
        capsys, video, *given, "--depth-format", "png", "--depth-scale", "-5"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_errors_are_one_line(trained, make_video, tmp_path, capsys):
    video, out = make_video("clip.mp4", 2), tmp_path / "out"
    (tmp_path / "broken.mp4").write_bytes(b"broken" * 100)
    given = ["--out", out, "--checkpoint", trained]
    assert "no weights: give --checkpoint, or --random" in failure(capsys, video, "--out", out)
    assert "--random needs --variant" in failure(capsys, video, "--out", out, "--random")
    assert "either --checkpoint or --random" in failure(capsys, video, *given, "--random")
    assert "broken.mp4: cannot be opened" in failure(capsys, tmp_path / "broken.mp4", *given)
    assert "--heads: expected some of depth, pose, points" in failure(capsys, video, *given, "--heads", "normals")
    assert "needs geometry heads" in failure(capsys, video, "--out", out, *RANDOM, "--heads", "depth")
    assert "--depth-range: expected first or running or 2" in failure(capsys, video, *given, "--depth-range", "near")
    assert "device 'tpu'" in failure(capsys, video, *given, "--device", "tpu")
    assert "window" in failure(capsys, video, *given, "--window", "1", "--sink", "5")
    assert "--window: expected a whole number or backbone or all" in failure(capsys, video, *given, "--window", "some")
    assert "got '²'" in failure(capsys, video, *given, "--window", "²")
    assert "limit of 67108864 pixels; choose a smaller size" in failure(capsys, video, *given, "--size", "long:100000")
    assert "floating-point cache, got cache_dtype int8" in failure(
        capsys, video, *given, "--compile", "--cache-dtype", "int8"
    )
    assert "--out" in failure(capsys, video)
    assert "no camera 987" in failure(capsys, "987", *given)
    assert "is a file" in failure(capsys, video, "--out", video, *RANDOM)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "nan"], "--fps: expected a number, got 'nan'"),
        (["--frame-rate", "1e-9"], "frame_rate must be from 0.001 to 1000.0 frames per second, got 1e-09"),
        (["--frame-rate", "-3"], "frame_rate must be from 0.001 to 1000.0 frames per second, got -3.0"),
        (["--timeout", "-1"], "timeout must be a positive number of seconds, got -1.0"),
        (["--timeout", "inf"], "--timeout: expected a number, got 'inf'"),
        (["--timeout", "soon"], "--timeout: expected a number, got 'soon'"),
        (["--timeout", "5"], "timeout is for network addresses"),
        (["--frame-rate", "10"], "frame_rate is for folders of images"),
        (["--size", "big"], "size must look like 224, short:224, long:512 or 240x320"),
        (["--chunk", "0"], "error: chunk must be at least 1, got 0"),
        (["--max-frames", "0"], "error: max_frames must be at least 1, got 0"),
        (["--window", "-1"], "window must be at least 1 (`all` remembers all frames), got -1"),
        (["--config", "config.yaml"], "--config describes a checkpoint; leave it out with --random"),
        (["--window", "all", "--sink", "2"], "--window all forgets no frame, so --sink has no effect"),
        (
            ["--depth-range", "first"],
            "--depth-range is for the output depth, which is not written: this model has no geometry heads",
        ),
        (["--cameras", "head"], "--cameras is for the output pose or points"),
        (["--depth-format", "png"], "--depth-format is for the output depth"),
        (["--depth-scale", "5000"], "--depth-scale is for the output depth"),
        (["--max-points", "5"], "--max-points is for the output points"),
        (["--point-stride", "4"], "--point-stride is for the output points"),
        (["--point-confidence", "0"], "--point-confidence is for the output points"),
        (["--features-format", "npz"], "--features-format needs --features, which names the features to store"),
        (["--features-dtype", "fp16"], "--features-dtype needs --features"),
    ],
)
def test_options_without_effect_or_with_invalid_values_are_refused(make_video, tmp_path, capsys, arguments, message):
    line = failure(capsys, make_video("clip.mp4", 1), "--out", tmp_path / "out", *RANDOM, *arguments)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_options_of_heads_that_are_left_out(trained, make_video, tmp_path, capsys):
    video, given = make_video("clip.mp4", 1), ["--checkpoint", trained, "--out", tmp_path / "out", "--heads", "pose"]
    assert "--max-points is for the output points" in failure(capsys, video, *given, "--max-points", "5")
    stream(video, *given, "--cameras", "rays")
    assert (summary(tmp_path / "out")["options"]["cameras"], summary(tmp_path / "out")["frames"]) == ("rays", 1)


def test_examples_with_the_quickstart_give_its_size(capsys):
    with pytest.raises(SystemExit, match="0"):
        stream("--help")
    pages = [capsys.readouterr().out, *((ROOT / name).read_text() for name in ("docs/stream_command.md", "README.md"))]
    for page in pages:
        lines = [line for line in page.splitlines() if re.match(r"\s*omnistream stream .*quickstart", line)]
        assert len(lines) == 1
        assert "--size 64" in lines[0]


def test_a_source_without_a_usable_frame(tmp_path, capsys):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for i in range(3):
        (frames / f"{i}.png").write_bytes(b"broken")
    assert "contains no usable frame" in failure(capsys, frames, "--out", out, *RANDOM)
    assert not out.exists()


@pytest.mark.parametrize(("dtype", "cache"), [("bf16", "bf16"), ("fp16", "fp32"), ("fp32", "int8")])
def test_fewer_bits_are_close(trained, make_video, tmp_path, dtype, cache):
    video, base = make_video("clip.mp4", 4), ["--checkpoint", trained, "--size", "32", "--features", "cls"]
    stream(video, "--out", tmp_path / "a", *base)
    stream(video, "--out", tmp_path / "b", *base, "--dtype", dtype, "--cache-dtype", cache)
    a, b = (np.load(tmp_path / name / "features.npz")["cls_00000000"] for name in "ab")
    # bfloat16 has three digits; features have a standard deviation of 1 and pass four blocks.
    assert np.abs(a - b).max() < 0.1
    assert not np.array_equal(a, b)


FLAT = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.streaming import run_stream, Frame, StreamOptions
from omnistream.trained import load
from omnistream.streaming.depth import DepthArrays
from omnistream.streaming.features import FeatureFiles
from omnistream.streaming.memory import rss
from omnistream.streaming.outputs import OutputOptions, make_writers
from omnistream.streaming.problems import Problems
from omnistream.tasks.geometry import GeometryStream

class Plain:
    name, fps, total = "plain", 25.0, 600
    def __iter__(self):
        for i in range(600):  # plain images: encoding noise takes ten times as long
            yield Frame(i, i / 25, torch.full((3, 32, 32), i % 256, dtype=torch.uint8))
    def close(self): pass

class Probe:
    found = []
    def write(self, step):
        if step.frames[-1].index in (151, 599):
            self.found.append(rss())
    def close(self): pass
    def summary(self): return {}

model, folder = load(sys.argv[1]), Path(".")
outputs = OutputOptions(heads=("depth", "pose", "points"), max_points=2000)
depth = DepthArrays(folder, chunk_bytes=2**18)
features = FeatureFiles(folder, ["last", "0", "1", "2", "3"], chunk_bytes=2**18)
writers = [*make_writers(folder, 25.0, outputs), depth, features, Probe()]
options = StreamOptions(size="32x32", chunk=2, session=SessionOptions(window=4, layers=(0, 1, 2, 3)))
heads = {"geometry": GeometryStream(model.geometry)}
run_stream(model.backbone, Plain(), lambda: writers, options, Problems(), heads, progress=False)
assert (folder / "features.npz").stat().st_size > 10 * 2**20
print(*Probe.found)
"""


def test_memory_is_flat(trained, tmp_path):
    running = process(["-c", FLAT, trained], tmp_path)
    try:
        stdout, stderr = running.communicate(timeout=600)
    finally:
        running.kill()
    assert running.returncode == 0, stderr
    early, late = map(int, stdout.split())
    assert late - early < 4 * 2**20  # 9 MiB of features and 900 images were written in between


@pytest.mark.slow
def test_every_sample_video(sample_data, tmp_path, capsys):
    """The 26 intact videos give all frames listed in the README; only one of the four broken ones gives no frame."""
    suffixes = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif"}
    videos = sorted(path for path in (sample_data / "videos").rglob("*") if path.suffix in suffixes)
    assert len(videos) == 30
    unusable = []
    for i, video in enumerate(videos):
        try:
            stream(video, "--out", tmp_path / str(i), *RANDOM, "--size", "16", "--window", 2, "--max-frames", 100)
        except SystemExit as stopped:
            unusable.append((video.name, stopped.code))
        else:
            facts = summary(tmp_path / str(i))
            assert len(decoded(tmp_path / str(i) / "features_pca.mp4")) == facts["frames"] > 0
            assert facts["skipped"] == 0 or video.parent.name == "corrupted"
    assert unusable == [("bikes_truncated.mp4", 2)]
