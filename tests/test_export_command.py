"""`omnistream export`: files that run, and one line for every mistake."""

import json
import zipfile

import onnxruntime
import pytest
import torch
from processes import REPOSITORY, run_python

from omnistream.backbone import OmniStream, create_model
from omnistream.cli import main

SMALL = ["--variant", "vit_nano", "--size", "8", "16"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "nano.pt"
    torch.manual_seed(3)
    torch.save(OmniStream("vit_nano").state_dict(), path)
    return str(path)


def backbone(checkpoint, **options):
    return create_model("vit_nano", checkpoint=checkpoint, **options).eval()


def test_pt2(checkpoint, tmp_path, capsys):
    out = tmp_path / "step.pt2"
    options = ["--window", "2", "--sink", "0", "--layers", "1", "--camera-token", "--aspect-ratio", "0.5"]
    main(["export", checkpoint, str(out), *SMALL, *options, "--rope-layout", "official"])
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    assert "vit_nano, frames 8 x 16, uint8" in printed
    assert f"examples/run_pt2.py {out}" in printed

    step = torch.export.load(out).module()
    model = backbone(checkpoint, rope_layout="official")
    ratio = torch.tensor([0.5])
    session = model.stream(window=2, sink=0, layers=(1,), camera_token=True, aspect_ratio=ratio)
    for _ in range(4):
        images = torch.randint(0, 256, (1, 3, 8, 16), dtype=torch.uint8)
        result = step(images, torch.tensor([False]))
        expected = session.step(model.normalize(images)[:, None])
        torch.testing.assert_close(result["camera"], expected.camera[:, 0], atol=3e-5, rtol=0)
        torch.testing.assert_close(result["block_1"], expected.patches[1][:, 0], atol=3e-5, rtol=0)


def test_the_sink_is_the_checkpoints_own(tmp_path):
    OmniStream("vit_nano", sink=2).save_pretrained(tmp_path / "saved")
    main(["export", str(tmp_path / "saved"), str(tmp_path / "step.pt2"), "--size", "8", "8", "--window", "3"])
    with zipfile.ZipFile(tmp_path / "step.pt2") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("omnistream.json")]
        assert json.loads(archive.read(name))["sink"] == 2


def test_an_existing_file_is_kept(checkpoint, tmp_path, capsys):
    out = tmp_path / "step.pt2"
    out.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main(["export", checkpoint, str(out), *SMALL, "--window", "2"])
    assert f"{out} exists; choose another name or add --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    main(["export", checkpoint, str(out), *SMALL, "--window", "2", "--overwrite"])
    assert zipfile.is_zipfile(out)


def test_a_run_folder_and_paths_with_variables(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"backbone.{name}": value for name, value in torch.load(checkpoint, weights_only=True).items()}
    torch.save({"state_dict": state}, folder / "last.ckpt")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    main(["export", "~/runs/version_0", "$RESULTS/step.pt2", *SMALL, "--window", "2"])
    assert zipfile.is_zipfile(tmp_path / "results" / "step.pt2")


@pytest.mark.parametrize(("option", "images"), [([], "uint8 RGB, 0 to 255"), (["--normalized"], "normalised RGB")])
def test_the_example_runs_a_pt2_in_bfloat16(checkpoint, tmp_path, option, images):
    out = tmp_path / "step.pt2"
    main(["export", checkpoint, str(out), *SMALL, "--window", "2", "--dtype", "bf16", *option])
    output = run_python([str(REPOSITORY / "examples/run_pt2.py"), str(out), "--frames", "2"], cwd=tmp_path)
    assert f"images: {images}, window 2" in output
    assert "last: [1, 1, 2, 64] torch.bfloat16" in output


@pytest.mark.slow
def test_onnx(checkpoint, tmp_path, capsys):
    out = tmp_path / "step.bin"
    main(["export", checkpoint, str(out), *SMALL, "--format", "onnx", "--cache", "growing", "--normalized"])
    assert "frames 8 x 16, normalised" in capsys.readouterr().out
    inputs = {value.name: value for value in onnxruntime.InferenceSession(out).get_inputs()}
    assert inputs["images"].type == "tensor(float)"
    assert inputs["keys_3"].shape == [1, "frames", 7, 2, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step.pt2", "--size", "8", "8"], "set --window: the number of frames that the step remembers"),
        (["step.tar", "--size", "8", "8"], "cannot tell the format from 'step.tar'; add --format pt2 or --format onnx"),
        (["step.pt2"], "the following arguments are required: --size; see `omnistream export --help`"),
        (["step.pt2", "--size", "8", "8", "--cache", "growing"], "--cache growing is for --format onnx"),
        (["step.pt2", *SMALL, "--window", "2", "--sink", "3"], "sink must be between 0 and the window (2), got 3"),
        (["step.onnx", *SMALL, "--cache", "growing", "--sink", "5"], "leave --window and --sink out"),
        (["step.onnx", *SMALL, "--cache", "growing", "--window", "5"], "leave --window and --sink out"),
        (["step.onnx", *SMALL, "--window", "2", "--dtype", "bf16"], "needs float32 or float16"),
        (["step.onnx", *SMALL, "--window", "2", "--cache-dtype", "bf16"], "got torch.bfloat16"),
        (["step.pt2", *SMALL, "--window", "2", "--variant", "vit_giant"], "unknown backbone variant 'vit_giant'"),
        (["step.pt2", *SMALL, "--window", "2", "--size", "8", "9"], "multiples of the patch size 8"),
        (["step.pt2", *SMALL, "--window", "2", "--device", "tpu"], "device 'tpu' cannot be used"),
        ([".", *SMALL, "--window", "2", "--format", "pt2"], ". is a folder; OUT is a file"),
    ],
)
def test_mistakes(checkpoint, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["export", checkpoint, *arguments])
    errors = capsys.readouterr().err
    assert errors.startswith("omnistream: error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_weights(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(tmp_path / "no.pt"), str(tmp_path / "a.pt2"), *SMALL, "--window", "2"])
    assert "no weights at" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", checkpoint, str(tmp_path / "a.pt2"), *SMALL, "--window", "2", "--device", "cuda"])
    assert "device 'cuda' cannot be used" in capsys.readouterr().err
