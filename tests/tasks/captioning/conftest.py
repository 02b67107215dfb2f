import pytest
import torch

from omnistream.boxes import Box
from omnistream.data.batch import CaptionClip, Region, TextTarget

CAPTIONS = ("a red square", "two green stripes", "a blue sky over sand", "grey noise")


def _image(index: int, size: int = 32) -> torch.Tensor:
    image = torch.zeros(3, size, size, dtype=torch.uint8)
    if index == 0:
        image[0, 8:24, 8:24] = 255
    elif index == 1:
        image[1, :, 4:8] = 255
        image[1, :, 20:24] = 255
    elif index == 2:
        image[2, :16] = 255
        image[:2, 16:] = 180
    else:
        image[:] = torch.randint(0, 255, (1, size, size), generator=torch.Generator().manual_seed(0))
    return image


def _make_batch(targets: list[TextTarget], frames: int = 1) -> CaptionClip:
    return CaptionClip.collate(
        [
            CaptionClip(
                images=_image(i % 4)[None].repeat(frames, 1, 1, 1), target=target, name=str(i), seed=torch.tensor(i)
            )
            for i, target in enumerate(targets)
        ]
    )


@pytest.fixture
def make_batch():
    return _make_batch


@pytest.fixture
def captions() -> CaptionClip:
    return _make_batch([TextTarget("caption", text) for text in CAPTIONS])


@pytest.fixture
def mixed() -> CaptionClip:
    return _make_batch(
        [
            TextTarget("caption", "a red square"),
            TextTarget("ocr", "", (Region("HI", Box(0.1, 0.1, 0.4, 0.3)),)),
            TextTarget("grounding", "the sky", (Region("the sky", Box(0.0, 0.0, 1.0, 0.5)),)),
            TextTarget("region", "noise", (Region("", Box(0.25, 0.5, 0.75, 1.0)),)),
        ]
    )
