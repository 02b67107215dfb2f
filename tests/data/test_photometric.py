import pytest
import torch
import torchvision.transforms.v2.functional as TF

from omnistream.data import photometric as ph
from omnistream.data.photometric import PhotometricConfig, photometric

EVERYTHING = PhotometricConfig(
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    grayscale_probability=0.3,
    blur_probability=0.5,
    solarize_probability=0.3,
)


def _images(rows: int = 5, frames: int = 2, size: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (rows, frames, 3, size, size + 4), generator=generator, dtype=torch.uint8)
    images[0, 0, :, :4, :4] = 77  # a patch of pure grey has no hue
    return images


def _float(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def test_none_returns_the_pixels_exactly():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16).expand(2, 3, 3, 16, 16)
    out = photometric(images, torch.tensor([1, 2]), PhotometricConfig.none())
    assert out.dtype == torch.float32
    assert torch.equal(out, _float(images))
    assert torch.equal((out * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize("config", [EVERYTHING, PhotometricConfig.global_2(), PhotometricConfig.geometry()])
def test_identical_frames_stay_identical_and_values_stay_in_range(config):
    images = _images(rows=12, frames=1).expand(-1, 4, -1, -1, -1)
    out = photometric(images, torch.arange(12), config)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out - _float(images)).abs().flatten(1).amax(1).gt(0.05).sum() >= 6


def test_each_row_depends_on_its_own_seed_only():
    images, seeds = _images(rows=8), torch.arange(100, 108)
    out = photometric(images, seeds, EVERYTHING)
    order = torch.tensor([6, 1, 7, 0, 3, 2, 5, 4])
    assert torch.equal(photometric(images[order], seeds[order], EVERYTHING), out[order])
    assert torch.equal(photometric(images[3:4], seeds[3:4], EVERYTHING), out[3:4])
    assert not torch.equal(photometric(images, seeds + 1, EVERYTHING), out)
    assert not torch.equal(photometric(images, seeds, EVERYTHING, salt=1), out)


def test_changing_one_probability_leaves_the_other_choices_alone():
    images, seeds = _images(rows=20, frames=1), torch.arange(20)
    jitter = PhotometricConfig(brightness=0.5, jitter_probability=1.0)
    gray = PhotometricConfig(brightness=0.5, jitter_probability=1.0, grayscale_probability=0.5)
    a, b = photometric(images, seeds, jitter), photometric(images, seeds, gray)
    unchanged = torch.tensor([torch.equal(x, y) for x, y in zip(a, b, strict=True)])
    assert 4 <= unchanged.sum() <= 16
    assert torch.allclose(b[~unchanged], ph.grayscale(a[~unchanged]).expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (ph.adjust_brightness, TF.adjust_brightness, [0.4, 1.0, 1.7]),
        (ph.adjust_contrast, TF.adjust_contrast, [0.0, 0.6, 1.6]),
        (ph.adjust_saturation, TF.adjust_saturation, [0.0, 0.6, 1.9]),
        (ph.adjust_hue, TF.adjust_hue, [-0.5, -0.07, 0.0, 0.1, 0.31]),
    ],
)
def test_jitter_operations_agree_with_torchvision(ours, theirs, factors):
    images = _float(_images(rows=len(factors)))
    out = ours(images, torch.tensor(factors))
    for row, factor in enumerate(factors):
        torch.testing.assert_close(out[row], theirs(images[row], factor), atol=3e-6, rtol=0)


def test_grayscale_blur_and_solarize_agree_with_torchvision():
    images, sigmas = _float(_images(rows=3)), [0.1, 0.8, 2.0]
    torch.testing.assert_close(ph.grayscale(images), TF.rgb_to_grayscale(images), atol=1e-6, rtol=0)
    blurred = ph.gaussian_blur(images, torch.tensor(sigmas), 9)
    for row, sigma in enumerate(sigmas):
        torch.testing.assert_close(
            blurred[row], TF.gaussian_blur(images[row], [9, 9], [sigma, sigma]), atol=1e-6, rtol=0
        )
    expected = _float(TF.solarize(_images(rows=3), 128))
    torch.testing.assert_close(ph.solarize(images), expected, atol=1e-6, rtol=0)


def test_operations_are_applied_with_the_given_probability():
    images, seeds = _images(rows=1, frames=1, size=12).expand(2000, -1, -1, -1, -1), torch.arange(2000)
    original = _float(images)
    cases = [
        PhotometricConfig(grayscale_probability=0.2),
        PhotometricConfig(solarize_probability=0.2),
        PhotometricConfig(blur_probability=0.2, blur_sigma=(1.0, 2.0)),
        PhotometricConfig(hue=0.3, jitter_probability=0.2),
    ]
    for config in cases:
        changed = (photometric(images, seeds, config) - original).abs().flatten(1).amax(1) > 1e-4
        assert 0.16 < changed.float().mean() < 0.24  # five standard deviations


def test_presets_state_released_and_intended_blur():
    released = [PhotometricConfig.global_1(), PhotometricConfig.global_2(), PhotometricConfig.local()]
    assert [c.blur_probability for c in released] == [0.0, 0.9, 0.5]
    intended = [PhotometricConfig.global_1("intended"), PhotometricConfig.global_2("intended")]
    assert [c.blur_probability for c in intended] == [1.0, 0.1]
    assert [c.solarize_probability for c in released] == [0.0, 0.2, 0.0]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="hue"):
        PhotometricConfig(hue=0.6)
    with pytest.raises(ValueError, match="blur_probability"):
        PhotometricConfig(blur_probability=1.5)
    with pytest.raises(ValueError, match="odd"):
        PhotometricConfig(blur_kernel=8)
    with pytest.raises(ValueError, match="larger than 4 pixels"):
        photometric(_images(size=4)[:1], torch.tensor([1]), PhotometricConfig(blur_probability=1.0))


def test_empty_batch():
    out = photometric(_images()[:0], torch.zeros(0, dtype=torch.int64), EVERYTHING)
    assert out.shape == (0, 2, 3, 20, 24)


def test_mixed_precision_changes_nothing():
    images = torch.randint(0, 256, (8, 2, 3, 32, 32), dtype=torch.uint8)
    seeds, config = torch.arange(8), PhotometricConfig.global_1()
    expected = photometric(images, seeds, config)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(photometric(images, seeds, config), expected)
