import re
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from ade20k_files import write_ade20k
from PIL import Image

from omnistream.data import DatasetNotFoundError
from omnistream.data.images import ADE20K, ADE20KDataModule
from omnistream.data.images.ade20k import read_labels, reduce_zero_label
from omnistream.data.sampling import SampleKey
from omnistream.data.segmentation_transforms import segmentation_augmentation


@pytest.fixture
def root(tmp_path):
    return write_ade20k(tmp_path / "ADEChallengeData2016")


def test_labels_are_shifted_once():
    stored = torch.tensor([0, 1, 150, 255], dtype=torch.uint8)
    assert reduce_zero_label(stored).tolist() == [255, 0, 149, 255]
    assert reduce_zero_label(stored).dtype == torch.uint8


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("val", 3)])
def test_samples_are_the_files(root, split, count):
    data = ADE20K(root, split)
    assert len(data) == count
    for index in range(count):
        name = f"ADE_{split}_{index + 1:08d}"
        folder = {"train": "training", "val": "validation"}[split]
        sample = data[index]
        assert sample.name == str(root / "images" / folder / f"{name}.jpg")
        image = np.array(Image.open(root / "images" / folder / f"{name}.jpg"))
        assert np.array_equal(sample.images[0].permute(1, 2, 0).numpy(), image)
        stored = np.array(Image.open(root / "annotations" / folder / f"{name}.png")).astype(int)
        assert np.array_equal(sample.labels.numpy(), np.where(stored == 0, 255, stored - 1))
    assert ADE20K(root.parent, split)[0].name == data[0].name  # the folder around the archive's


def test_the_real_samples(tmp_path, sample_data):
    source = sample_data / "segmentation" / "sceneparsing"
    for kind in ("images", "annotations"):
        shutil.copytree(source / kind, tmp_path / kind / "validation")
    data = ADE20K(tmp_path, "val")
    assert [tuple(data[i].images.shape[-2:]) for i in range(3)] == [(512, 683), (364, 500), (300, 400)]
    shares = [float((data[i].labels == 255).float().mean()) for i in range(3)]
    assert shares == pytest.approx([0.010, 0.095, 0.017], abs=6e-4)


def test_dinov3s_list_decides_files_and_order(root):
    lines = ["validation/ADE_val_00000003.jpg", "validation/ADE_val_00000001.jpg"]
    (root / "ADE20K_object150_val.txt").write_text("\n".join(lines) + "\n\n")
    data = ADE20K(root, "val")
    assert [data[i].name for i in range(len(data))] == [str(root / "images" / line) for line in lines]
    assert data[0].labels.shape == data[0].images.shape[-2:] == (40, 65)
    (root / "ADE20K_object150_val.txt").write_text("validation/ADE_val_00000009.jpg\n")
    with pytest.raises(
        DatasetNotFoundError, match=r"2 files of .*_val.txt do not exist, such as .*ADE_val_00000009.jpg"
    ):
        ADE20K(root, "val")
    (root / "ADE20K_object150_val.txt").write_text("\n")
    with pytest.raises(DatasetNotFoundError, match=r"_val.txt is empty; expected images/"):
        ADE20K(root, "val")


def test_crops_differ_from_epoch_to_epoch_and_repeat(root):
    data = ADE20K(root, "train", segmentation_augmentation(32), seed=3)
    first, again, later = (data[SampleKey(epoch, 2)] for epoch in (0, 0, 1))
    assert first.images.shape == (1, 3, 32, 32)
    assert first.labels.shape == (32, 32)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, later.images)


def test_wrong_trees_say_what_was_expected(root, tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"no such folder: .*nowhere; expected images/\{training,validation\}"
    ):
        ADE20K(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"empty lacks images or annotations; expected images/"):
        ADE20K(tmp_path / "empty")
    shutil.rmtree(root / "images" / "validation")
    with pytest.raises(DatasetNotFoundError, match="holds no images of the val split"):
        ADE20K(root, "val")
    with pytest.raises(ValueError, match="no official split 'test': the splits are train, val"):
        ADE20K(root, "test")


def test_the_full_release_is_refused(sample_data):
    with pytest.raises(
        DatasetNotFoundError, match=r"ADE20K_2021_17_01 is the full ADE20K.*150 classes; expected images/"
    ):
        ADE20K(sample_data / "segmentation" / "ade20k_full")


def test_an_image_without_annotation_is_named(root):
    (root / "annotations" / "training" / "ADE_train_00000005.png").unlink()
    with pytest.raises(
        ValueError, match="of 8 images and 7 annotations of the train split 1 lack the other, such as ADE_tr"
    ):
        ADE20K(root, "train")


def test_classes_have_the_names_of_the_release(root, sample_data):
    assert ADE20K(root, "val").class_names is None
    path = root / "objectInfo150.txt"
    shutil.copy(sample_data / "segmentation" / "sceneparsing" / path.name, path)
    names = ADE20K(root, "val").class_names
    assert (names[:3], names[-1], len(names)) == (["wall", "building", "sky"], "flag", 150)
    lines = path.read_text().splitlines()
    for wrong in (lines[:-1], lines[1:], ["Idx,Name", *lines[1:]]):
        path.write_text("\n".join(wrong))
        with pytest.raises(ValueError, match=r"objectInfo150.txt: expected the columns Idx to Name.* and 150 rows"):
            ADE20K(root, "val").class_names  # noqa: B018


def test_an_incomplete_data_set_is_said(root, caplog):
    ADE20K(root, "val")
    assert "holds 3 images of the val split; ADE20K has 2000" in caplog.text


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b"no image"), "labels cannot be read"),
        (lambda path: Image.new("RGB", (59, 40)).save(path), "labels of mode RGB; expected 8 bits"),
        (lambda path: Image.new("L", (59, 40), 151).save(path), "holds label 151; there are 150 classes"),
        (lambda path: Image.new("L", (59, 41), 1).save(path), r"height and width are \(41, 59\), its image \(40, 59\)"),
    ],
)
def test_broken_files_are_left_out_of_an_evaluation_and_replaced_in_training(root, write, reason, caplog):
    write(root / "annotations" / "validation" / "ADE_val_00000001.png")
    module = ADE20KDataModule(root, size=32, num_workers=0)
    module.setup("test")
    loader = module.test_dataloader()
    names = [None if batch is None else batch.name[0][-7:] for batch in loader]
    assert names == [None, "002.jpg", "003.jpg"]
    assert loader.dataset.num_skipped == 1
    assert re.search(f"skipped broken file number 1: .*ADE_val_00000001.png: .*{reason}", caplog.text)
    write(root / "annotations" / "training" / "ADE_train_00000001.png")
    training = ADE20K(root, "train")
    assert not training[0].name.endswith("ADE_train_00000001.jpg")
    assert training.broken_files.count == 1


def test_palettes_are_read_as_numbers(tmp_path):
    image = Image.fromarray(np.array([[0, 3], [150, 255]], dtype=np.uint8), mode="P")
    image.putpalette([255 - i % 256 for i in range(768)])
    image.save(tmp_path / "labels.png")
    assert read_labels(tmp_path / "labels.png").tolist() == [[0, 3], [150, 255]]


def test_data_module_finds_what_a_stage_needs(root):
    module = ADE20KDataModule(root, size=32, batch_size=4, num_workers=0)
    shutil.rmtree(root / "images" / "training")
    module.setup("test")
    batches = list(module.test_dataloader())
    assert [tuple(batch.images.shape) for batch in batches] == [(1, 1, 3, 32, w) for w in (47, 50, 52)]
    assert [tuple(batch.labels.shape) for batch in batches] == [(1, 40, w) for w in (59, 62, 65)]
    with pytest.raises(DatasetNotFoundError, match="no images of the train split"):
        module.setup("fit")


def test_training_batches(root):
    module = ADE20KDataModule(root, size=32, batch_size=4, num_workers=0)
    module.setup("fit")
    batches = list(islice(module.train_dataloader(), 4))
    assert [tuple(batch.images.shape) for batch in batches] == [(4, 1, 3, 32, 32)] * 4
    first, again = (
        {name: image for batch in part for name, image in zip(batch.name, batch.images, strict=True)}
        for part in (batches[:2], batches[2:])
    )
    assert first.keys() == again.keys() == {str(image) for image, _ in module.train.files}
    assert not any(torch.equal(first[name], again[name]) for name in first)
