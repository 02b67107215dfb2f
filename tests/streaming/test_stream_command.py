"""`omnistream stream` from end to end."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from stream_clips import decoded, picture
from stream_runs import RANDOM, ROOT, process, stream, summary

from omnistream.backbone import create_model
from omnistream.streaming.models import load_model


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        stream(*arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_everything_from_a_trained_checkpoint(trained, make_video, tmp_path, capsys):
    video, out = make_video("clip.mp4", 20), tmp_path / "out"
    options = ["--window", 6, "--size", 32, "--features", "last,cls,1", "--fit-frames", 5, "--chunk", 3]
    stream(video, "--checkpoint", trained, "--out", out, *options, "--cameras", "rays")
    assert "20 frames (end of source)" in capsys.readouterr().out
    assert len(decoded(out / "features_pca.mp4")) == len(decoded(out / "depth.mp4")) == 20
    facts = summary(out)
    assert (facts["frames"], facts["skipped"], facts["frame_size"]) == (20, 0, {"height": 32, "width": 48})
    assert set(facts["files"]) == {path.name for path in out.iterdir()} - {"summary.json", "intrinsics.txt"}

    model = load_model(trained)
    images = torch.stack([torch.from_numpy(frame).movedim(-1, 0) for frame in decoded(video)])
    expected = model.backbone.stream(window=6, layers=(1,), camera_token=True, aspect_ratio=torch.tensor([32 / 48]))
    output = expected.step(model.backbone.normalize(images)[None])
    with np.load(out / "features.npz", allow_pickle=False) as stored:
        for name, found in (("cls", output.cls), ("last", output.last), ("layer_1", output.patches[1])):
            # 1e-4: chunks of three frames sum in another order than one of twenty.
            np.testing.assert_allclose(stored[f"{name}_00000000"], found[0], rtol=1e-4, atol=1e-4)
    assert len(np.loadtxt(out / "poses.txt", ndmin=2)) == facts["files"]["poses.txt"]["poses"]


def test_window_and_sink_are_the_checkpoints_own(make_video, tmp_path):
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
    # 1e-4: single frames sum in another order than all at once.
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


def test_a_folder_with_a_broken_picture_and_a_change_of_size(tmp_path, capsys):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for i in range(6):
        Image.fromarray(picture(i, (32, 48) if i < 4 else (64, 64))).save(frames / f"{i}.png")
    (frames / "2.png").write_bytes(b"broken")
    stream(frames, "--out", out, *RANDOM, "--frame-rate", 10, "--max-frames", 5)
    facts = summary(out)
    assert (facts["frames"], facts["skipped"], facts["ended"]) == (5, 1, "max_frames")
    assert re.search(r"2.png: not an image", facts["problems"][0])
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
    assert "points need a stride" in failure(capsys, video, *given, "--point-stride", "0")
    assert "colours need at least one frame" in failure(capsys, video, *given, "--fit-frames", "0")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_mistakes_are_one_line(trained, make_video, tmp_path, capsys):
    video, out = make_video("clip.mp4", 2), tmp_path / "out"
    (tmp_path / "broken.mp4").write_bytes(b"broken" * 100)
    given = ["--out", out, "--checkpoint", trained]
    assert "no weights: give --checkpoint, or --random" in failure(capsys, video, "--out", out)
    assert "--random needs --variant" in failure(capsys, video, "--out", out, "--random")
    assert "either --checkpoint or --random" in failure(capsys, video, *given, "--random")
    assert "broken.mp4: cannot be opened" in failure(capsys, tmp_path / "broken.mp4", *given)
    assert "heads are depth, pose, points" in failure(capsys, video, *given, "--heads", "normals")
    assert "needs geometry heads" in failure(capsys, video, "--out", out, *RANDOM, "--heads", "depth")
    assert "depth range is first" in failure(capsys, video, *given, "--depth-range", "near")
    assert "device 'tpu'" in failure(capsys, video, *given, "--device", "tpu")
    assert "window" in failure(capsys, video, *given, "--window", "1", "--sink", "5")
    assert "window is a number of frames or all" in failure(capsys, video, *given, "--window", "some")
    assert "got '²'" in failure(capsys, video, *given, "--window", "²")
    assert "limit of 67108864 pixels; choose a smaller size" in failure(capsys, video, *given, "--size", "long:100000")
    assert "leave out --cache-dtype int8 or --compile" in failure(
        capsys, video, *given, "--compile", "--cache-dtype", "int8"
    )
    assert "--out" in failure(capsys, video)
    assert "no camera 987" in failure(capsys, "987", *given)
    assert "is a file" in failure(capsys, video, "--out", video, *RANDOM)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "nan"], "--fps: must be a number of frames per second from 0.001 to 1000, got 'nan'"),
        (["--frame-rate", "1e-9"], "--frame-rate: must be a number of frames per second from 0.001 to 1000"),
        (["--frame-rate", "-3"], "--frame-rate: must be a number of frames per second"),
        (["--timeout", "-1"], "--timeout: must be a positive number, got '-1'"),
        (["--timeout", "inf"], "--timeout: must be a positive number, got 'inf'"),
        (["--timeout", "soon"], "--timeout: must be a positive number, got 'soon'"),
        (["--timeout", "5"], "a timeout is for addresses; a camera is waited for"),
        (["--frame-rate", "10"], "a frame rate is for a folder of pictures"),
        (["--config", "config.yaml"], "--config describes a checkpoint; leave it out with --random"),
        (["--window", "all", "--sink", "2"], "with --window all nothing is forgotten; leave --sink out"),
        (["--depth-range", "first"], "--depth-range is about the output depth, which is not written"),
        (["--cameras", "head"], "--cameras is about the output pose"),
        (["--max-points", "5"], "--max-points is about the output points"),
        (["--point-stride", "4"], "--point-stride is about the output points"),
        (["--point-confidence", "0"], "--point-confidence is about the output points"),
        (["--features-format", "npz"], "--features-format is about stored features: say with --features which"),
        (["--features-dtype", "fp16"], "--features-dtype is about stored features"),
    ],
)
def test_options_without_effect_or_sense_are_refused(make_video, tmp_path, capsys, arguments, message):
    line = failure(capsys, make_video("clip.mp4", 1), "--out", tmp_path / "out", *RANDOM, *arguments)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_options_of_heads_that_are_left_out(trained, make_video, tmp_path, capsys):
    video, given = make_video("clip.mp4", 1), ["--checkpoint", trained, "--out", tmp_path / "out", "--heads", "pose"]
    assert "--max-points is about the output points" in failure(capsys, video, *given, "--max-points", "5")
    assert "the variant; give none" in failure(capsys, video, *given, "--variant", "vit_nano")
    stream(video, *given, "--cameras", "rays")
    assert (summary(tmp_path / "out")["options"]["cameras"], summary(tmp_path / "out")["frames"]) == ("rays", 1)


def test_examples_with_the_quickstart_tell_its_size(capsys):
    with pytest.raises(SystemExit, match="0"):
        stream("--help")
    pages = [capsys.readouterr().out, *((ROOT / name).read_text() for name in ("docs/stream_command.md", "README.md"))]
    for page in pages:
        lines = [line for line in page.splitlines() if re.match(r"\s*omnistream stream .*quickstart", line)]
        assert len(lines) == 1
        assert "--size 64" in lines[0]


def test_a_source_without_a_whole_frame(tmp_path, capsys):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for i in range(3):
        (frames / f"{i}.png").write_bytes(b"broken")
    assert "holds no frame that can be used" in failure(capsys, frames, "--out", out, *RANDOM)
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
from omnistream.streaming import load_model, run_stream, Frame, StreamOptions
from omnistream.streaming.frame_size import FrameSize
from omnistream.streaming.features import FeatureFiles
from omnistream.streaming.memory import rss
from omnistream.streaming.outputs import OutputOptions, make_writers
from omnistream.streaming.problems import Problems
from omnistream.tasks.geometry import GeometryStream

class Plain:
    name, fps, total = "plain", 25.0, 600
    def __iter__(self):
        for i in range(600):  # plain pictures: encoding noise takes ten times as long
            yield Frame(i, i / 25, torch.full((3, 32, 32), i % 256, dtype=torch.uint8))
    def close(self): pass

class Probe:
    found = []
    def write(self, step):
        if step.frames[-1].index in (151, 599):
            self.found.append(rss())
    def close(self): pass
    def summary(self): return {}

model, folder = load_model(sys.argv[1]), Path(".")
outputs = OutputOptions(heads=("depth", "pose", "points"), max_points=2000)
features = FeatureFiles(folder, ["last", "0", "1", "2", "3"], chunk_bytes=2**18)
writers = [*make_writers(folder, 25.0, outputs), features, Probe()]
options = StreamOptions(window=4, size=FrameSize(exact=(32, 32)), layers=(0, 1, 2, 3), chunk=2)
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
    assert late - early < 4 * 2**20  # 9 MiB of features and 900 pictures went to disk in between


@pytest.mark.slow
def test_every_sample_video(sample_data, tmp_path, capsys):
    """26 whole ones give all frames the README counts; of the four broken ones only one has no frame."""
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
