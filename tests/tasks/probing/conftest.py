"""Small ImageNets for the probes that classify images."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "data" / "images"))
from imagenet_trees import write_devkit_tree, write_folders, write_kaggle


@pytest.fixture
def trees():
    """Functions that write one, by the name of its tree."""
    return {"folders": write_folders, "kaggle": write_kaggle, "devkit": write_devkit_tree}


@pytest.fixture
def imagenet(tmp_path):
    """Three classes in class folders: 12 training images, 7 validation images."""
    return write_folders(tmp_path / "imagenet")
