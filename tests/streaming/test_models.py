"""What is rebuilt from a checkpoint, and what is refused."""

import pickle

import pytest
import torch
import yaml

from omnistream.backbone import create_model
from omnistream.errors import UsageError
from omnistream.streaming.models import load_model


@pytest.fixture
def copy(trained, tmp_path):
    """The checkpoint in a folder of its own, beside a config that the test may change."""
    config = yaml.safe_load((trained.parent.parent / "config.yaml").read_text())
    (tmp_path / "copy.ckpt").write_bytes(trained.read_bytes())

    def write(change=lambda config: None):
        change(config)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return tmp_path / "copy.ckpt"

    return write


def test_backbone_and_heads_of_a_training_checkpoint(trained):
    model = load_model(trained)
    assert (model.backbone.variant, model.backbone.rope_layout) == ("vit_nano", "official")
    assert not model.backbone.training
    assert not model.geometry.training
    assert model.geometry.loss_config.ray_confidence
    assert model.geometry.dense.reassemble.project[3].out_channels == 12
    state = torch.load(trained, weights_only=True)["state_dict"]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f"backbone.{name}"])
    for name, value in model.geometry.state_dict().items():
        assert torch.equal(value, state[f"tasks.shapes.{name}"])
    assert "geometry heads" in model.origin


def test_config_elsewhere(trained, tmp_path):
    alone = tmp_path / "a" / "b" / "c" / "alone.ckpt"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(trained.read_bytes())
    with pytest.raises(UsageError, match=r"no config.yaml in .*--config"):
        load_model(alone)
    assert load_model(alone, config=trained.parent.parent / "config.yaml").geometry is not None


def test_a_task_that_is_null_gives_no_heads(copy):
    path = copy(lambda config: config["model"]["init_args"]["tasks"].update(shapes=None))
    assert load_model(path).geometry is None


def test_an_objective_fitted_alone(tmp_path):
    from omnistream.tasks.geometry import GeometryModule

    module = GeometryModule(create_model("vit_nano"), features=8, out_channels=(8, 8, 8, 8), hidden=8)
    torch.save({"pytorch-lightning_version": "2.6.6", "state_dict": module.state_dict()}, tmp_path / "a.ckpt")
    backbone = {"class_path": "omnistream.backbone.OmniStream", "init_args": {"variant": "vit_nano"}}
    settings = {"backbone": backbone, "features": 8, "out_channels": [8, 8, 8, 8], "hidden": 8}
    model = {"class_path": "omnistream.tasks.geometry.GeometryModule", "init_args": settings}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    found = load_model(tmp_path / "a.ckpt")
    assert torch.equal(found.geometry.camera.fov.weight, module.camera.fov.weight)
    assert torch.equal(found.backbone.cls_token, module.backbone.cls_token)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["backbone"].update(class_path="os.system"), "'os.system'; only omnistream.backbone.OmniStream"),
        (
            lambda m: m["tasks"]["shapes"]["init_args"]["loss"].update(class_path="builtins.exec"),
            "name further classes",
        ),
        (lambda m: m["backbone"]["init_args"].update(variant="vit_giant"), "unknown backbone variant 'vit_giant'"),
        (lambda m: m["backbone"]["init_args"].update(window="soon"), "OmniStream: .*window"),
        (lambda m: m.update(backbone=None), "does not describe a backbone"),
    ],
)
def test_configurations_that_are_refused(copy, change, message):
    with pytest.raises(UsageError, match=message):
        load_model(copy(lambda config: change(config["model"]["init_args"])))


def test_weights_that_do_not_fit_the_configuration(copy):
    path = copy(lambda config: config["model"]["init_args"]["tasks"]["shapes"]["init_args"].update(hidden=9))
    with pytest.raises(ValueError, match=r"does not fit its configuration: .* of GeometryModule .*tasks\.shapes\."):
        load_model(path)


def test_yaml_with_python_tags_is_not_executed(copy, tmp_path):
    path = copy()
    (tmp_path / "config.yaml").write_text("model: !!python/object/apply:os.system ['touch x']")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_model(path)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path, capsys):
    torch.save({"pytorch-lightning_version": "2", "state_dict": Evil()}, tmp_path / "evil.ckpt", pickle_module=pickle)
    with pytest.raises(ValueError, match="damaged, or could run code"):
        load_model(tmp_path / "evil.ckpt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{}, {"state_dict": None}])
def test_a_checkpoint_without_weights_is_refused(tmp_path, content):
    torch.save({"pytorch-lightning_version": "2.6.6", **content}, tmp_path / "empty.ckpt")
    with pytest.raises(ValueError, match=r"empty.ckpt is a Lightning checkpoint without weights"):
        load_model(tmp_path / "empty.ckpt")


def test_plain_weights(tmp_path):
    backbone = create_model("vit_nano")
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    found = load_model(tmp_path / "weights.pth")
    assert torch.equal(found.backbone.cls_token, backbone.cls_token)
    assert found.geometry is None
    backbone.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_model(tmp_path / "saved").backbone.cls_token, backbone.cls_token)
    with pytest.raises(UsageError, match="belongs to a training checkpoint"):
        load_model(tmp_path / "weights.pth", variant="vit_nano", config="config.yaml")
