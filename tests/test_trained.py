"""`omnistream.load`: a trained model with its heads, clip and stream alike.

Tolerance: the same sums in another order, in float32, on values around 1.
"""

import subprocess
import sys

import pytest
import torch
import yaml

import omnistream
from omnistream.backbone import create_model
from omnistream.evaluation import StreamingGeometry
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.geometry.inference import FirstCamera, Images
from omnistream.trained import TrainedModel, load

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
FIELDS = ("depth", "confidence", "camera_to_world", "intrinsics", "points")
HEAD = {"features": 8, "out_channels": [8, 8, 8, 8], "hidden": 8}


@pytest.fixture(scope="module")
def model():
    """A model whose camera head turns and moves the camera."""
    torch.manual_seed(1)
    backbone = create_model("vit_nano", layer_scale_init=0.5).eval()
    geometry = GeometryModule(features=8, out_channels=(8, 8, 8, 8), hidden=8).eval()
    geometry.build(backbone)
    for parameter in geometry.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return TrainedModel(backbone, geometry.eval()).eval()


def clip(*leading, size=(32, 48)):
    return torch.randint(0, 256, (*leading, 3, *size), dtype=torch.uint8)


def same(found, expected, **kept):
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **(kept or CLOSE), equal_nan=True)


# The fit of a camera to rays at random magnifies rounding errors, and for some frames there is none.
@pytest.mark.parametrize(("cameras", "close"), [("head", CLOSE), ("rays", {"atol": 2e-3, "rtol": 2e-3})])
def test_a_stream_gives_what_the_clip_gives(model, cameras, close):
    images = clip(6)
    expected, stream = model.infer(images, cameras=cameras), model.stream(cameras=cameras)
    assert expected.depth.shape == expected.confidence.shape == (6, 32, 48)
    assert expected.camera_to_world.shape == (6, 4, 4)
    assert expected.intrinsics.shape == (6, 3, 3)
    assert expected.points.shape == (6, 32, 48, 3)
    for start, stop in ((0, 1), (1, 3), (3, 6)):
        same(stream.step(images[start:stop]), expected[start:stop], **close)
    assert expected.camera_to_world.isfinite().all(-1).all(-1).sum() >= 3
    if cameras == "rays":
        return
    stream.reset()
    one = stream.step(images[0])
    assert one.depth.shape == (32, 48)
    torch.testing.assert_close(one.depth, expected.depth[0], **CLOSE)
    assert torch.equal(one.camera_to_world, torch.eye(4))
    assert stream.step(images[1]).camera_to_world.shape == (4, 4)


def test_the_first_camera_is_the_world(model):
    images = clip(2, 3)
    found = model.infer(images)
    raw = model.geometry.predict(model.backbone, images)
    assert torch.equal(found.camera_to_world[:, 0], torch.eye(4).expand(2, 4, 4))
    assert (found.camera_to_world[:, 1] - torch.eye(4)).abs().max() > 1e-3
    # Both the pixel's ray and its camera are seen from the first camera.
    torch.testing.assert_close(found.depth, raw.depth)
    from omnistream.cameras import decode_pose, invert_pose

    poses, intrinsics = decode_pose(raw.pose, (32, 48))
    inverse = invert_pose(poses[:, :1])
    torch.testing.assert_close(found.camera_to_world, inverse @ poses, **CLOSE)
    torch.testing.assert_close(found.intrinsics, intrinsics)
    points = raw.points @ inverse[..., None, :3, :3].mT + inverse[..., None, None, :3, 3]
    torch.testing.assert_close(found.points, points, **CLOSE)


def test_streams_start_anew_one_by_one(model):
    images, stream = clip(2, 4), model.stream()
    stream.step(images[:, :2])
    stream.reset([1])
    found = stream.step(images[:, 2:])
    same(found[1:2], model.infer(images[:, 2:])[1:2])
    expected = model.infer(images[:1])
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name)[:1], getattr(expected, name)[:, 2:], **CLOSE)


def test_a_camera_that_is_not_known_is_not_the_first():
    poses = torch.eye(4).repeat(2, 3, 1, 1)
    poses[..., 0, 3] = torch.tensor([[5.0, 6.0, 8.0], [1.0, 2.0, 3.0]])
    points, first = torch.zeros(2, 3, 7, 3), FirstCamera()
    poses[0, 0] = torch.nan
    moved, seen = first(poses[:, :2], points[:, :2])
    assert moved[0, 0].isnan().all()
    assert torch.equal(moved[0, 1], torch.eye(4))
    assert moved[1, :, 0, 3].tolist() == [0, 1]
    assert seen[:, 1, 0].tolist() == [[-6, 0, 0], [-1, 0, 0]]
    assert first(poses[:, 2:], points[:, 2:])[0][:, 0, 0, 3].tolist() == [2, 2]
    first.reset(torch.tensor([False, True]))
    assert first(poses[:, 2:], points[:, 2:])[0][:, 0, 0, 3].tolist() == [2, 0]


def test_images_may_be_floats_single_or_batched(model):
    images = clip(2, 3)
    expected = model.infer(images)
    same(model.infer(images.float() / 255), expected)
    for i in range(2):
        same(model.infer(images[i]), expected[i])
    assert [len(part) for part in expected] == [3, 3]
    assert expected[0][2].depth.shape == (32, 48)
    single = model.infer(images[0, 0])
    with pytest.raises(IndexError, match="a single frame"):
        single[0]
    torch.testing.assert_close(single.depth, expected.depth[0, 0], **CLOSE)
    assert single.intrinsics.shape == (3, 3)


def test_sides_that_are_no_multiple_are_rounded_and_results_have_the_size_of_the_images(model):
    images = clip(2, size=(37, 43))
    found = model.infer(images)  # encoded at 40 x 40
    assert found.depth.shape == (2, 37, 43)
    assert found.points.shape == (2, 37, 43, 3)
    resized = torch.nn.functional.interpolate(images / 255, (40, 40), mode="bicubic", antialias=True).clamp(0, 1)
    expected = model.infer(resized)
    torch.testing.assert_close(found.camera_to_world, expected.camera_to_world, **CLOSE)
    scale = torch.tensor([43 / 40, 37 / 40, 1])
    torch.testing.assert_close(found.intrinsics, scale[:, None] * expected.intrinsics, **CLOSE)
    assert (found.depth.mean() - expected.depth.mean()).abs() < 0.05 * expected.depth.mean()
    same(model.stream().step(images), found)
    small = model.infer(images, size=(16, 24))
    assert small.depth.shape == (2, 37, 43)
    same(model.stream(size=(16, 24)).step(images), small)
    assert model.infer(clip(1, size=(3, 5))).depth.shape == (1, 3, 5)
    with pytest.raises(ValueError, match="multiples of the patch size 8, got height 20"):
        model.infer(images, size=(20, 24))


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), r"must be RGB of shape .* got \(2, 32, 32, 3\)"),
        (torch.zeros(32, 32, dtype=torch.uint8), "must be RGB of shape"),
        (torch.zeros(0, 3, 32, 32, dtype=torch.uint8), r"got \(0, 3, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), r"must be uint8, or floats from 0 to 1, got torch\.int64"),
        (torch.full((1, 3, 32, 32), 200.0), "must be from 0 to 1, got 200 to 200"),
        (torch.full((1, 3, 32, 32), torch.nan), "must be from 0 to 1, got nan"),
    ],
)
def test_images_that_do_not_fit_are_refused(model, images, message):
    for call in (model.infer, model.stream().step):
        with pytest.raises(ValueError, match=message):
            call(images)


def test_values_of_images_are_read_once(model, monkeypatch):
    reads = []
    for name in ("min", "max", "aminmax"):
        read = getattr(torch.Tensor, name)

        def counted(images, *args, name=name, read=read, **options):
            if images.shape[-3:] == (3, 32, 32):
                reads.append(name)
            return read(images, *args, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    for dtype, expected in ((torch.float32, ["aminmax"]), (torch.uint8, [])):
        reads.clear()
        Images.prepare(torch.ones(2, 3, 32, 32, dtype=dtype), model.backbone, None)
        assert reads == expected


def test_options_of_a_stream_go_through(model):
    stream = model.stream(window=2, sink=0, layers=(1,))
    assert (stream.session.options.window, stream.session.options.layers) == (2, (1,))
    images = clip(6)
    expected = [model.infer(images[:6])[0:2], stream.step(images[:2])]
    same(*expected)
    model.backbone.window, before = 2, model.backbone.window
    model.backbone.sink = 0
    try:
        windowed = model.infer(images)
    finally:
        model.backbone.window, model.backbone.sink = before, 1
    same(stream.step(images[2:]), windowed[2:6])


def test_without_heads_the_message_says_what_is_missing():
    model = TrainedModel(create_model("vit_nano"), origin="weights.pth (vit_nano)")
    for call in (lambda: model.infer(clip(1)), model.stream):
        with pytest.raises(ValueError, match=r"^weights.pth \(vit_nano\) has no geometry heads, .* model.backbone$"):
            call()


@pytest.fixture
def run(tmp_path, model):
    """The folder of a run as `omnistream fit` writes it: config.yaml and checkpoints/."""

    def write(name="runs/small/version_0", *, alone=False, hyper_parameters=False, config=True):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        backbone = {"class_path": "omnistream.backbone.OmniStream", "init_args": {"variant": "vit_nano", "window": 5}}
        head = {"class_path": "omnistream.tasks.geometry.GeometryModule", "init_args": dict(HEAD)}
        module = {"backbone": backbone, "tasks": {"shapes": head, "ssl": {"class_path": "my.Task", "init_args": {}}}}
        described = {"class_path": "omnistream.tasks.MultiTaskModule", "init_args": module}
        if alone:
            described = {"class_path": head["class_path"], "init_args": {"backbone": backbone, **HEAD}}
        if config:
            (folder / "config.yaml").write_text(yaml.safe_dump({"model": described}))
        prefix = "" if alone else "tasks.shapes."
        state = {f"backbone._orig_mod.{key}": value for key, value in model.backbone.state_dict().items()}
        state |= {prefix + key: value for key, value in model.geometry.state_dict().items()}
        content = {"state_dict": state, "pytorch-lightning_version": "2.6"}
        if hyper_parameters:
            content["hyper_parameters"] = described["init_args"]
        torch.save(content, folder / "checkpoints" / "last.ckpt")
        return folder

    return write


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("hyper_parameters", [False, True])
def test_a_run_gives_backbone_and_heads(run, model, alone, hyper_parameters, monkeypatch):
    folder = run(alone=alone, hyper_parameters=hyper_parameters, config=not hyper_parameters)
    monkeypatch.chdir(folder.parents[2])
    monkeypatch.setenv("RUNS", str(folder.parents[1]))
    images = clip(3)
    expected = model.infer(images)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    for source in (checkpoint, folder, folder / "checkpoints", "runs/small/version_0", "$RUNS/small", "runs/small"):
        loaded = omnistream.load(source)
        assert (loaded.backbone.variant, loaded.backbone.window) == ("vit_nano", 5)
        assert not any(module.training for module in loaded.modules())
        same(loaded.infer(images), expected, atol=0, rtol=0)
        assert loaded.captioning is None
        assert loaded.origin == f"{source} (vit_nano, geometry heads)"
    assert torch.equal(loaded.normalize(images), loaded.backbone.normalize(images))
    assert load(folder, window=None).backbone.window is None
    assert load(folder, heads=()).geometry is None


def test_heads_that_are_loaded_are_not_reported_as_left_out(run, caplog):
    load(run())
    assert not [record for record in caplog.records if "not taken over" in record.getMessage()]


def test_the_newest_version_of_a_run_is_meant(run):
    first, second = run("runs/small/version_9"), run("runs/small/version_10")
    state = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
    state["state_dict"]["backbone._orig_mod.cls_token"] += 1
    torch.save(state, second / "checkpoints" / "last.ckpt")
    newest, older = load(first.parent), load(first)
    torch.testing.assert_close(newest.backbone.cls_token, older.backbone.cls_token + 1)
    (first.parent / "version_11").mkdir()  # has not saved anything yet
    assert torch.equal(load(first.parent).backbone.cls_token, newest.backbone.cls_token)


def test_other_files_in_the_folder_of_a_run_are_not_its_weights(run, model):
    folder = run()
    torch.save({"features": torch.ones(3)}, folder / "predictions.pt")
    assert torch.equal(load(folder).backbone.cls_token, model.backbone.cls_token)
    model.backbone.save_pretrained(folder)  # model.safetensors is
    assert load(folder).geometry is None


def test_a_stream_is_what_evaluations_ask_for(model):
    images, stream = clip(2), model.stream()
    assert isinstance(stream, StreamingGeometry)
    found = stream.step(images)
    assert len(found) == 2
    for i, frame in enumerate(found):
        assert (frame.depth.shape, frame.camera_to_world.shape, frame.intrinsics.shape) == ((32, 48), (4, 4), (3, 3))
        assert torch.equal(frame.depth, found.depth[i])


def test_weights_alone_give_a_backbone(tmp_path, model):
    model.backbone.save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert torch.equal(loaded.backbone.cls_token, model.backbone.cls_token)
    assert (loaded.geometry, loaded.captioning) == (None, None)


def test_what_cannot_be_loaded_is_said(run, tmp_path):
    folder = run(config=False)
    with pytest.raises(ValueError, match=r"nothing describes the model in .*last.ckpt: .* give config="):
        load(folder)
    config = run("other") / "config.yaml"
    assert load(folder, config=config).geometry is not None
    assert load(folder, heads=()).geometry is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no weights .* a run \(checkpoints/last.ckpt\)"):
        load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no weights at nowhere: no such file or folder"):
        load("nowhere")
    with pytest.raises(ValueError, match="heads are geometry, captioning, got 'depth'"):
        load(folder, heads=("depth",), config=config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(features=16), r"does not fit its description: .* tasks\.shapes\."),
        (lambda head: head.update(features="many"), r"settings of GeometryModule: .*features"),
        (lambda head: head.update(colour=1), r"settings of GeometryModule: .*colour"),
        (lambda head: head.update(loss={"class_path": "os.system", "init_args": {}}), r"name the class 'os\.system'"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(run, change, message):
    folder = run()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config["model"]["init_args"]["tasks"]["shapes"]["init_args"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_named_dataclasses_of_this_library_are_settings(run):
    folder = run(hyper_parameters=True)
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    loss = {"class_path": "omnistream.tasks.geometry.losses.GeometryLossConfig", "init_args": {"ray_confidence": True}}
    content["hyper_parameters"]["tasks"]["shapes"]["init_args"]["loss"] = loss
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    assert load(folder).geometry.loss_config.ray_confidence


def test_public_names_come_when_they_are_used():
    code = (
        "import sys, time; start = time.process_time(); import omnistream; seconds = time.process_time() - start; "
        "assert 'torch' not in sys.modules; assert set(omnistream.__all__) <= set(dir(omnistream)); "
        "assert not hasattr(omnistream, 'nothing'); print(seconds); "
        "from omnistream import OmniStream, create_model; assert 'omnistream.tasks' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2
    for name in omnistream.__all__:
        assert getattr(omnistream, name) is not None
