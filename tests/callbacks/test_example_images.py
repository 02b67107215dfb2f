import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from omnistream.callbacks import ExampleImages
from omnistream.callbacks.example_images import row_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*logger.*:UserWarning")
IMAGES = torch.randint(256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Plain(LightningModule):
    """Does nothing in a test."""

    def test_step(self, batch, batch_idx):
        pass


class Drawing(Plain):
    """Draws the first image of a batch, and one colour for the whole test."""

    def draw(self, batch):
        return {"input": batch[0], "nothing": torch.zeros_like(batch[0])}

    def draw_results(self):
        return {"Confusions / all": torch.full((3, 5, 7), 200, dtype=torch.uint8)}


def evaluate(folder, module, **options):
    callback = ExampleImages(**options)
    run = Trainer(
        accelerator="cpu", callbacks=[callback], default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.test(module, DataLoader(IMAGES, 2), verbose=False)
    return callback


def test_first_samples_of_the_first_batches_and_the_results_are_written(tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "0007.png").write_bytes(b"of an earlier test")
    callback = evaluate(tmp_path, Drawing(), num_batches=3, size=16)
    assert callback.folder == tmp_path / "examples"
    files = sorted(path.name for path in callback.folder.iterdir())
    assert files == ["0000.png", "0001.png", "0002.png", "results-Confusions-all.png"]
    with Image.open(callback.folder / "0001.png") as image:
        image.load()
        assert image.info["Title"] == "Test batch 2"
        assert image.info["Description"] == "input, nothing"
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    assert torch.equal(pixels[24:40, 12:28], IMAGES[2].permute(1, 2, 0))
    assert pixels[24:40, 40:56].max() == 0
    with Image.open(callback.folder / "results-Confusions-all.png") as image:
        image.load()
        assert (image.size, image.info["Title"]) == ((7, 5), "Confusions / all")


def test_a_probe_that_draws_nothing_is_named(tmp_path):
    with pytest.warns(UserWarning, match="no effect: Plain has no method draw or draw_results"):
        evaluate(tmp_path, Plain())
    assert not (tmp_path / "examples").exists()
    with pytest.raises(ValueError, match="at least 1, got 0 and 320"):
        ExampleImages(num_batches=0)


def test_images_of_different_sizes_share_a_row():
    image = row_of({"a": torch.zeros(3, 8, 8).byte(), "b": torch.zeros(3, 40, 20).byte()}, size=16)
    assert image.shape == (16 + 24 + 12, 16 + 8 + 3 * 12, 3)
    assert (image[24:40, 12:28] == 0).all()
    assert (image[24:40, 40:48] == 0).all()
    assert (image[41:, :] == 255).all()
