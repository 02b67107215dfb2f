import csv
import logging
import shutil

import numpy as np
import pytest
import torch
from imagenet_trees import (
    COLOURS,
    VAL_CLASSES,
    WNIDS,
    val_name,
    write_devkit_tree,
    write_folders,
    write_image,
    write_kaggle,
)
from PIL import Image, ImageOps

from omnistream.data import DatasetNotFoundError
from omnistream.data.classification_transforms import center_crop, random_resized_crop
from omnistream.data.images import ImageNet
from omnistream.data.images import imagenet as imagenet_module
from omnistream.data.sampling import SampleKey

TREES = {"folders": write_folders, "kaggle": write_kaggle, "devkit": write_devkit_tree}


@pytest.mark.parametrize("tree", TREES)
def test_labels_are_those_of_the_image_in_every_tree(tree, tmp_path):
    root = TREES[tree](tmp_path)
    train, val = ImageNet(root, "train"), ImageNet(root, "val")
    assert (len(train), len(val)) == (12, 7)
    assert train.classes == val.classes == list(WNIDS)
    for data in (train, val):
        for index in range(len(data)):
            sample = data[index]
            color = sample.images.float().mean((0, 2, 3))
            assert COLOURS[int(sample.label)][int(color.argmax())] == max(COLOURS[int(sample.label)])
            assert int(color.argmax()) == int(sample.label) == data.label(index)
    labels = {int(sample.name.rsplit("_", 1)[1][:-5]): int(sample.label) for sample in val}
    assert [labels[number] for number in range(1, 8)] == list(VAL_CLASSES)


def test_names_of_classes_come_from_the_tree(tmp_path):
    root = write_kaggle(tmp_path)
    names = ["tench", "goldfish", "English springer"]
    assert ImageNet(root, "val").class_names == names
    assert ImageNet(root / "ILSVRC", "val").class_names == names  # the inner folder is a root as well
    (root / "LOC_synset_mapping.txt").unlink()
    assert ImageNet(root, "val").class_names == list(WNIDS)
    (root / "labels.txt").write_text("n01443537,golden fish\n")
    assert ImageNet(root, "val").class_names == [WNIDS[0], "golden fish", WNIDS[2]]


@pytest.mark.parametrize("tree", TREES)
def test_validation_images_need_no_training_images(tree, tmp_path):
    root = TREES[tree](tmp_path)
    for train in root.rglob("train"):
        shutil.rmtree(train)
    assert ImageNet(root, "val").classes == list(WNIDS)
    with pytest.raises(DatasetNotFoundError, match=r"has no folder train.*Kaggle's ILSVRC/Data/CLS-LOC"):
        ImageNet(root, "train")


def test_images_are_as_stored(tmp_path):
    write_folders(tmp_path, per_class=1)
    path = next((tmp_path / "train" / WNIDS[0]).iterdir())
    turned = Image.fromarray(np.arange(24 * 32, dtype=np.uint32).reshape(24, 32).astype(np.uint8))  # mode L
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(path, "PNG", exif=exif)  # and a PNG by another name, as there is one in ImageNet
    assert ImageOps.exif_transpose(Image.open(path)).size == (24, 32)
    images = ImageNet(tmp_path, "train")[0].images
    assert images.shape == (1, 3, 24, 32)
    assert torch.equal(images[0, 1], torch.from_numpy(np.array(turned)))


class TestMistakes:
    def test_no_folder_no_images_no_labels(self, tmp_path):
        with pytest.raises(DatasetNotFoundError, match="no such folder"):
            ImageNet(tmp_path / "nowhere", "val")
        with pytest.raises(DatasetNotFoundError, match=r"has no folder val, nor ILSVRC/Data/CLS-LOC/val"):
            ImageNet(tmp_path, "val")
        (tmp_path / "val").mkdir()
        with pytest.raises(DatasetNotFoundError, match="val holds no images"):
            ImageNet(tmp_path, "val")
        write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 0, 0)
        with pytest.raises(DatasetNotFoundError, match=r"nothing labels them.*LOC_val_solution.csv of Kaggle"):
            ImageNet(tmp_path, "val")
        with pytest.raises(ValueError, match=r"no official split 'test': the splits are train, val"):
            ImageNet(tmp_path, "test")

    def test_an_incomplete_validation_set(self, tmp_path):
        root = write_kaggle(tmp_path)
        (root / "ILSVRC/Data/CLS-LOC/val" / f"{val_name(3)}.JPEG").unlink()
        with pytest.raises(DatasetNotFoundError, match=rf"lacks 1 of the 7 images .*, such as {val_name(3)}"):
            ImageNet(root, "val")

    def test_an_image_without_label(self, tmp_path):
        root = write_devkit_tree(tmp_path)
        write_image(root / "val" / f"{val_name(8)}.JPEG", 0, 0)
        with pytest.raises(DatasetNotFoundError, match=rf"1 images are not in ILSVRC2012_val.*, such as {val_name(8)}"):
            ImageNet(root, "val")

    def test_different_classes_in_train_and_val(self, tmp_path):
        root = write_folders(tmp_path)
        shutil.rmtree(root / "train" / WNIDS[1])
        with pytest.raises(ValueError, match=r"train has 2 classes and val 3; only one of them has \['n01443537'\]"):
            ImageNet(root, "val")

    def test_images_beside_class_folders(self, tmp_path):
        root = write_folders(tmp_path)
        write_image(root / "train" / "stray.JPEG", 0, 0)
        with pytest.raises(DatasetNotFoundError, match="images beside class folders"):
            ImageNet(root, "train")

    def test_damaged_label_files(self, tmp_path):
        kaggle = write_kaggle(tmp_path / "kaggle")
        for damaged in (
            "ImageId,PredictionString\nILSVRC2012_val_00000001,\n",
            "image,label\n",
            "",
            "image,label\na,b\n",
        ):
            (kaggle / "LOC_val_solution.csv").write_text(damaged)
            with pytest.raises(ValueError, match="expected rows with the columns ImageId and PredictionString"):
                ImageNet(kaggle, "val")
        devkit = write_devkit_tree(tmp_path / "devkit")
        truth = devkit / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        truth.write_text("3\n4\n")  # 4 is a class of classes
        with pytest.raises(ValueError, match=r"expected ids of classes in meta\.mat, one a line; got 4"):
            ImageNet(devkit, "val")
        truth.with_name("meta.mat").write_bytes(b"no mat file")
        with pytest.raises(ValueError, match=r"is not the devkit's meta\.mat"):
            ImageNet(devkit, "val")
        truth.with_name("meta.mat").unlink()
        with pytest.raises(DatasetNotFoundError, match=r"meta\.mat is missing"):
            ImageNet(devkit, "val")

    def test_all_files_broken(self, tmp_path):
        (tmp_path / "val" / WNIDS[0]).mkdir(parents=True)
        (tmp_path / "val" / WNIDS[0] / "a.JPEG").write_bytes(b"\xff\xd8\xff")
        with pytest.raises(DatasetNotFoundError, match="holds no readable images; all 1 are broken"):
            ImageNet(tmp_path, "val")

    def test_another_number_of_images_than_imagenets_is_said(self, tmp_path, caplog, monkeypatch):
        for number in range(1000):
            folder = tmp_path / "val" / f"n{number:08d}"
            folder.mkdir(parents=True)
            (folder / "a.JPEG").touch()
        monkeypatch.setattr(imagenet_module, "require_readable", lambda *_: None)
        with caplog.at_level(logging.WARNING):
            data = ImageNet(tmp_path, "val")
        assert "holds 1000 images; ImageNet-1K has 50000" in caplog.text
        assert data.label(999) == 999


class TestTransforms:
    def test_evaluation_equals_pillow(self, tmp_path):
        """Resize the shorter side to 256, cut the central 224; Pillow rounds after each of its two passes."""
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC)
        resized = image.resize((341, 256), Image.Resampling.BICUBIC)
        left, top = round((341 - 224) / 2), 16
        expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
        found = center_crop(224)(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]
        assert found.shape == (3, 224, 224)
        difference = np.abs(found.numpy().astype(int) - expected.astype(int))
        assert difference.max() <= 2
        assert difference.mean() < 0.1
        assert center_crop(64)(torch.zeros(1, 3, 30, 50, dtype=torch.uint8)).shape == (1, 3, 64, 64)
        assert center_crop(64).transforms[0].size == [73]

    def test_training_crops_are_the_published_ones(self):
        crop, flip = random_resized_crop(224).transforms
        assert (crop.scale, crop.ratio, crop.size) == ((0.08, 1.0), (3 / 4, 4 / 3), (224, 224))
        assert crop.interpolation == center_crop(224).transforms[0].interpolation
        assert crop.interpolation.value == "bicubic"
        assert flip.p == 0.5

    def test_crops_are_new_in_every_epoch_and_the_same_in_every_run(self, tmp_path):
        write_folders(tmp_path)
        data = ImageNet(tmp_path, "train", random_resized_crop(16))
        first, again, later = (data[SampleKey(epoch, 3)].images for epoch in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, later)


def test_real_photographs(sample_data, tmp_path):
    """All 258 photographs lie in class folders; as stored, also the turned one."""
    rows = {row["file"]: row for row in csv.DictReader((sample_data / "images" / "index.csv").open())}
    (tmp_path / "train").symlink_to(sample_data / "images" / "imagenet")
    data = ImageNet(tmp_path, "train")
    assert len(data) == 258
    assert data.classes == sorted(row["synset"] for row in rows.values())
    turned = next(i for i in range(258) if data.files[i].name == "n02951585_can_opener.JPEG")
    assert data[turned].images.shape == (1, 3, 294, 392)
    grey = [row["file"] for row in rows.values() if row["mode"] == "L"]
    sample = data[next(i for i in range(258) if str(data.files[i]).endswith(grey[0].partition("/")[2]))]
    assert torch.equal(sample.images[0, 0], sample.images[0, 2])
