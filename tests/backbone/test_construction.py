"""How a backbone is named, built and documented: in Python, in YAML and in help texts."""

import inspect
import pydoc
import re
from typing import get_type_hints

import pytest
import torch
import yaml
from lightning import LightningDataModule, LightningModule

import omnistream
from omnistream.backbone import OmniStream, StreamingViT, create_model
from omnistream.backbone.omnistream import ModelKeywords
from omnistream.commands.train import OmniStreamCLI

ARGUMENTS = [name for name in inspect.signature(OmniStream).parameters]


def build(config):
    """The module that the command line builds, and its configuration as it is saved."""
    cli = OmniStreamCLI(
        LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, run=False,
        args=[f"--config={config}"], save_config_callback=None,
    )  # fmt: skip
    return cli.model, cli.parser.dump(cli.config, skip_none=False)


@pytest.fixture
def configured(tmp_path):
    """Builds the module with this backbone, saves its configuration and builds it again from that."""

    def configured(class_path, **init_args):
        backbone = {"class_path": class_path, "init_args": init_args}
        head = {"features": 8, "out_channels": [8, 8, 8, 8], "hidden": 8}
        model = {"class_path": "omnistream.tasks.geometry.GeometryModule", "init_args": {"backbone": backbone, **head}}
        scenes = {"class_path": "omnistream.data.world.WorldScenes", "init_args": {"num_samples": 2}}
        data = {"class_path": "omnistream.data.MultiTaskDataModule", "init_args": {"sources": {"a": {"train": scenes}}}}
        settings = {"model": model, "data": data, "trainer": {"logger": False, "accelerator": "cpu"}}
        (tmp_path / "written.yaml").write_text(yaml.safe_dump(settings))
        first, saved = build(tmp_path / "written.yaml")
        (tmp_path / "config.yaml").write_text(saved)
        again, saved_again = build(tmp_path / "config.yaml")
        assert saved_again == saved
        return [module.backbone for module in (first, again)]

    return configured


@pytest.mark.parametrize("name", ["omnistream", "omnistream.backbone"])
def test_constructors_stand_in_yaml(name, configured, tmp_path):
    saved = create_model("vit_nano", window=7, rope_layout="official")
    saved.save_pretrained(tmp_path / "saved")
    for backbone in configured(f"{name}.OmniStream", variant="vit_nano", window=3):
        assert (backbone.variant, backbone.window) == ("vit_nano", 3)
    for backbone in configured(f"{name}.create_model", variant="vit_nano", sink=0, checkpoint=str(tmp_path / "saved")):
        assert torch.equal(backbone.cls_token, saved.cls_token)
        assert (backbone.sink, backbone.window, backbone.rope_layout) == (0, None, "rotation")
    for backbone in configured(f"{name}.OmniStream.from_pretrained", source=str(tmp_path / "saved"), sink=3):
        assert torch.equal(backbone.cls_token, saved.cls_token)
        assert (backbone.sink, backbone.window, backbone.rope_layout) == (3, 7, "official")


def test_keywords_of_from_pretrained_are_the_arguments():
    hints = get_type_hints(StreamingViT.__init__)
    assert {name: hints[name] for name in ARGUMENTS} == get_type_hints(ModelKeywords)


def test_arguments_are_documented_where_users_look():
    for text in (pydoc.render_doc(OmniStream, renderer=pydoc.plaintext), OmniStream.__doc__):
        for name in ARGUMENTS:
            assert re.search(rf"\b{name}: [A-Z`].{{20,}}", text), name
    assert omnistream.OmniStream is OmniStream
