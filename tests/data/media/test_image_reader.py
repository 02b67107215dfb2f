import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from omnistream.data.media import ImageReadError, read_image

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14  # [H=2, W=3, 3]


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_rgb(tmp_path):
    image = read_image(save(tmp_path / "a.png", Image.fromarray(PIXELS)))
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()))


def test_content_decides_not_the_suffix(tmp_path):
    assert read_image(save(tmp_path / "a.JPEG", Image.fromarray(PIXELS), format="PNG")).shape == (3, 2, 3)


def test_greyscale_is_repeated(tmp_path):
    image = read_image(save(tmp_path / "a.png", Image.fromarray(PIXELS[..., 0])))
    assert torch.equal(image, torch.from_numpy(PIXELS[..., 0])[None].expand(3, 2, 3))


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert read_image(save(tmp_path / "a.png", image))[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]


def test_cmyk(tmp_path):
    cyan = Image.fromarray(np.tile(np.array([255, 0, 0, 0], np.uint8), (1, 1, 1)).reshape(1, 1, 4), "CMYK")
    assert read_image(save(tmp_path / "a.tif", cyan))[:, 0, 0].tolist() == [0, 255, 255]


def test_transparent_pixels_become_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)
    image = read_image(save(tmp_path / "a.png", Image.fromarray(rgba, "RGBA")))
    assert image[:, 0].T.tolist() == [[255, 255, 255], [10, 20, 30]]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (0, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(save(tmp_path / "a.png", Image.fromarray(PIXELS), exif=exif))
    assert torch.equal(image, torch.from_numpy(np.rot90(PIXELS, turns).transpose(2, 0, 1).copy()))


def test_size_is_bounded_before_decoding(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    with pytest.raises(ImageReadError, match="3x2 is over the limit of 5 pixels"):
        read_image(path, max_pixels=5)
    assert read_image(path, max_pixels=6).shape == (3, 2, 3)


def test_errors_name_file_and_reason(tmp_path):
    whole = save(tmp_path / "whole.jpg", Image.fromarray(np.tile(PIXELS, (50, 50, 1)))).read_bytes()
    cases = {"text.jpg": (b"hello", "not an image"), "cut.jpg": (whole[: len(whole) // 2], "damaged image")}
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageReadError, match=f"{name}: {reason}"):
            read_image(tmp_path / name)
    with pytest.raises(ImageReadError, match="no such file"):
        read_image(tmp_path / "absent.jpg")
    deep = save(tmp_path / "deep.png", Image.fromarray(np.full((2, 2), 3000, np.uint16)))
    with pytest.raises(ImageReadError, match="more than 8 bits"):
        read_image(deep)


def test_error_survives_a_worker_process():
    error = ImageReadError("a.jpg", "damaged")
    assert str(pickle.loads(pickle.dumps(error))) == "a.jpg: damaged"
    assert str(ImageReadError(str(error))) == str(error)  # how torch's loader rebuilds it


def test_odd_sample_photos(sample_data):
    folder = sample_data / "images" / "imagenet"
    turned = read_image(folder / "n02951585" / "n02951585_can_opener.JPEG")
    assert turned.shape == (3, 392, 294)  # stored 392 wide and 294 high with orientation 6
    assert read_image(folder / "n03337140" / "n03337140_file.JPEG").shape[0] == 3  # orientation 0 is invalid
