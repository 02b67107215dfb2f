import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError, TooManyBrokenFilesError
from omnistream.data.images import ImageFolder
from omnistream.data.sampling import SampleKey
from omnistream.data.splits import split_positions
from omnistream.data.transforms import square_crop


def write(path, shade, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


@pytest.fixture
def root(tmp_path):
    for number in range(5):
        write(tmp_path / "zebra" / f"{number}.png", 100 + number)
        write(tmp_path / "ant" / f"{number}.PNG", number)
    write(tmp_path / ".cache" / "x.png", 255)
    return tmp_path


def test_labels_follow_sorted_folders(root):
    data = ImageFolder(root)
    assert data.classes == ["ant", "zebra"]
    assert [int(data[i].label) for i in range(len(data))] == [0] * 5 + [1] * 5
    clip = data[7]
    assert clip.images.shape == (1, 3, 4, 6)
    assert clip.images.unique().tolist() == [102]
    assert clip.name == str(root / "zebra" / "2.png")


def test_given_classes_fix_the_labels(root):
    data = ImageFolder(root, classes=["zebra", "lion", "ant"])
    assert int(data[0].label) == 2
    with pytest.raises(ValueError, match=r"not in `classes`: \['zebra'\]"):
        ImageFolder(root, classes=["ant"])


def test_images_without_class_folder(tmp_path):
    write(tmp_path / "a.png", 1)
    data = ImageFolder(tmp_path)
    assert int(data[0].label) == -1
    assert data.classes == []


def test_split_is_a_partition(root):
    parts = {split: set(ImageFolder(root, split=split, val_fraction=0.2).files) for split in (None, "train", "val")}
    assert parts["train"] | parts["val"] == parts[None]
    assert not parts["train"] & parts["val"]
    assert len(parts["val"]) == 2
    with pytest.raises(DatasetNotFoundError, match="10 images are too few for the val split"):
        ImageFolder(root, split="val", val_fraction=0.05)
    with pytest.raises(ValueError, match="For data with a folder per split, set `root` to that folder"):
        ImageFolder(root, split="test")


@pytest.mark.parametrize("length", [0, 1, 4, 5, 23])
@pytest.mark.parametrize("fraction", [0.5, 0.2, 0.1])
def test_every_kth_item_is_held_out(length, fraction):
    every = round(1 / fraction)
    val = split_positions(length, "val", fraction)
    assert list(val) == [i for i in range(length) if i % every == every - 1]
    assert list(split_positions(length, "train", fraction)) == [i for i in range(length) if i not in val]
    assert list(split_positions(length, None, fraction)) == list(range(length))


@pytest.mark.parametrize("fraction", [0.0, 0.7])
def test_bad_fractions(fraction):
    with pytest.raises(ValueError, match="val_fraction"):
        split_positions(1, "val", fraction)


def test_a_transform_is_applied_and_depends_on_seed_epoch_and_index_only(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 20:40] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(image).save(tmp_path / "a" / "x.png")
    centre = ImageFolder(tmp_path, square_crop(40))[0].images
    assert centre.shape == (1, 3, 40, 40)
    assert torch.equal(centre[0, 0], torch.from_numpy(image[:, 10:50, 0]))
    data = ImageFolder(tmp_path, square_crop(40, random=True), seed=3)
    before = torch.get_rng_state()
    crops = [data[SampleKey(epoch, 0)].images for epoch in range(6)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(crops[2], data[SampleKey(2, 0)].images)
    assert len({tuple(crop[0, 0, 0].tolist()) for crop in crops}) > 2
    other_seed = ImageFolder(tmp_path, square_crop(40, random=True), seed=4)
    assert any(not torch.equal(crop, other_seed[SampleKey(epoch, 0)].images) for epoch, crop in enumerate(crops))


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "a" / "x.jpg", exif=exif.tobytes())
    assert ImageFolder(tmp_path)[0].images.shape == (1, 3, 8, 4)


def test_links_to_class_folders_are_followed(tmp_path):
    for name in ("store/cat/0.png", "store/dog/0.png", "set/ant/0.png"):
        write(tmp_path / name, 1)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    assert ImageFolder(tmp_path / "set").classes == ["ant", "cat", "dog"]


@pytest.mark.parametrize("written", ["~/photos", "$PHOTOS", "${PHOTOS}"])
def test_home_and_variables_in_the_root(tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHOTOS", str(tmp_path / "photos"))
    write(tmp_path / "photos" / "a" / "0.png", 1)
    assert ImageFolder(written)[0].name == str(tmp_path / "photos" / "a" / "0.png")


def test_broken_images_are_replaced_and_counted(root):
    (root / "ant" / "0.PNG").write_text("broken")
    data = ImageFolder(root, square_crop(4), broken_files=BrokenFiles(limit=3))
    names = [data[i].name for i in range(len(data))]
    assert names[1:] == [str(path) for path in data.files[1:]]
    assert names[0] != str(data.files[0])
    assert list(data.broken_files.reasons) == [str(root / "ant" / "0.PNG")]


def test_too_many_broken_images(root):
    for number in range(4):
        (root / "zebra" / f"{number}.png").write_text("broken")
    data = ImageFolder(root, broken_files=BrokenFiles(limit=0.3))
    with pytest.raises(
        TooManyBrokenFilesError, match=r"4 of 10 files are broken, 3 are allowed: .*zebra/0.png \(not an i"
    ):
        [data[index] for index in range(len(data))]


def test_nothing_usable(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such folder: .*absent; expected a folder of .* Set `root`"):
        ImageFolder(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no images; expected a folder of class folders with images"):
        ImageFolder(tmp_path)
    (tmp_path / "a.jpg").write_text("broken")
    with pytest.raises(
        DatasetNotFoundError, match=r"holds no readable images; all 1 are broken: .*a.jpg: not an image"
    ):
        ImageFolder(tmp_path)


def test_the_same_in_workers(root):
    data = ImageFolder(root, square_crop(4, random=True))
    keys = [[SampleKey(1, i), SampleKey(2, i)] for i in range(4)]
    alone, worker = (
        list(DataLoader(data, batch_sampler=keys, collate_fn=data.collate, num_workers=workers)) for workers in (0, 1)
    )
    for a, b in zip(alone, worker, strict=True):
        assert a.images.shape == (2, 1, 3, 4, 4)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.seed, b.seed)
        assert a.name == b.name


def test_sample_photos(sample_data):
    data = ImageFolder(sample_data / "images" / "imagenet", square_crop(32))
    assert len(data) == 258
    batch = data.collate([data[i] for i in range(0, 258, 9)])
    assert batch.images.shape == (29, 1, 3, 32, 32)
    assert data.broken_files.count == 0
