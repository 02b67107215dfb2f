import pytest
from PIL import Image

from omnistream.data.batch import TextTarget
from omnistream.data.captions.image_folder_captions import (
    ImageFolderCaptions,
    caption_of,
    class_words,
    find_synset_words,
    read_synset_words,
)
from omnistream.data.transforms import square_crop

TAB = "n01440764\ttench, Tinca tinca\nn02128757\tsnow leopard, ounce, Panthera uncia\n"
SPACE = "n01440764 tench, Tinca tinca\n\nn02128757 snow leopard, ounce\n"


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)


@pytest.mark.parametrize("text", [TAB, SPACE])
def test_synset_tables(tmp_path, text):
    table = tmp_path / "words.txt"
    table.write_text(text)
    assert read_synset_words(table) == {"n01440764": "tench", "n02128757": "snow leopard"}


def test_bad_table(tmp_path):
    table = tmp_path / "words.txt"
    table.write_text("n01440764\ttench\ntench\n")
    with pytest.raises(ValueError, match=r"words.txt, line 2: expected a synset and its names, got 'tench'"):
        read_synset_words(table)


@pytest.mark.parametrize(
    ("folder", "stem", "expected"),
    [
        ("n02128757", "n02128757_7", "snow leopard"),
        ("n01443537", "n01443537_electric_ray", "electric ray"),
        ("n01443537", "n01443537_1234", None),
        ("golden_retriever", "001", "golden retriever"),
    ],
)
def test_class_words(folder, stem, expected):
    assert class_words(folder, stem, {"n02128757": "snow leopard"}) == expected


def test_article():
    assert caption_of("eel") == "a photo of an eel"
    assert caption_of("Airedale") == "a photo of an Airedale"
    assert caption_of("tench") == "a photo of a tench"


def test_captions_of_a_folder(tmp_path):
    root = tmp_path / "train"
    write(root / "n01440764" / "n01440764_10.JPEG")
    write(root / "red_fox" / "x.png")
    with pytest.raises(ValueError, match=r"n01440764_10\.JPEG: cannot name the class; give `words`"):
        ImageFolderCaptions(root, square_crop(32))
    (tmp_path / "LOC_synset_mapping.txt").write_text(SPACE)
    assert find_synset_words(root) == (tmp_path / "LOC_synset_mapping.txt").resolve()
    data = ImageFolderCaptions(root, square_crop(32))
    assert [data[i].target for i in range(2)] == [
        TextTarget("caption", "a photo of a tench"),
        TextTarget("caption", "a photo of a red fox"),
    ]
    batch = data.collate([data[0], data[1]])
    assert batch.images.shape == (2, 1, 3, 32, 32)
    assert [target.text for target in batch.target] == ["a photo of a tench", "a photo of a red fox"]


def test_caption_stays_with_its_image_when_another_is_broken(tmp_path):
    write(tmp_path / "cat" / "0.png")
    write(tmp_path / "dog" / "0.png")
    (tmp_path / "cat" / "0.png").write_text("broken")
    data = ImageFolderCaptions(tmp_path)
    assert data[0].target.text == "a photo of a dog"
    assert data.broken_files.count == 1


def test_sample_photos(sample_data):
    data = ImageFolderCaptions(sample_data / "images" / "imagenet", square_crop(16))
    assert data[0].target.text == "a photo of a goldfish"
    assert data[1].target.text == "a photo of an electric ray"
