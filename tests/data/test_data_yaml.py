"""Data sets with their transforms are written in YAML as docs/data.md shows."""

import re

import pytest
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from processes import REPOSITORY
from torch.utils.data import Dataset


@pytest.fixture
def example():
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    return yaml.safe_load(block)


def build(settings):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Dataset, "data")
    return parser.instantiate(parser.parse_object({"data": settings})).data


def test_images_with_a_transform(example, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "imagenet" / "val" / "cat").mkdir(parents=True)
    Image.new("RGB", (300, 400)).save(tmp_path / "imagenet" / "val" / "cat" / "0.png")
    assert build(example["val"])[0].images.shape == (1, 3, 224, 224)


def test_scenes_with_a_reader_and_a_transform(example, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANNET", str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path} holds no scannetv2_train.txt"):
        build(example["train"])
