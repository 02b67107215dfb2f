import numpy as np
import pytest
import torch
from PIL import Image

from omnistream.data.media import DepthReadError, read_depth_png


def save(path, values):
    Image.fromarray(np.asarray(values)).save(path)
    return path


def test_scale_and_invalid_values(tmp_path):
    path = save(tmp_path / "d.png", np.array([[0, 1500], [65535, 40000]], np.uint16))
    assert torch.equal(read_depth_png(path), torch.tensor([[0, 1.5], [65.535, 40.0]]))
    clean = read_depth_png(path, scale=0.0002, invalid=(0, 65535))
    assert torch.equal(clean, torch.tensor([[0, 0.3], [0, 8.0]]))
    assert clean.dtype == torch.float32


def test_other_images_are_refused(tmp_path):
    with pytest.raises(DepthReadError, match="expected 16-bit grey, got mode L"):
        read_depth_png(save(tmp_path / "grey.png", np.zeros((2, 2), np.uint8)))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DepthReadError, match=r"text\.png: not an image"):
        read_depth_png(tmp_path / "text.png")
    with pytest.raises(DepthReadError, match="no such file"):
        read_depth_png(tmp_path / "absent.png")
    with pytest.raises(DepthReadError, match="over the limit of 3 pixels"):
        read_depth_png(save(tmp_path / "d.png", np.ones((2, 2), np.uint16)), max_pixels=3)


def test_damaged(tmp_path):
    noise = np.random.default_rng(0).integers(1, 60000, (64, 64)).astype(np.uint16)
    whole = save(tmp_path / "d.png", noise).read_bytes()
    (tmp_path / "d.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DepthReadError, match="damaged depth map"):
        read_depth_png(tmp_path / "d.png")
