import re
import shutil

import numpy as np
import pytest
import torch
from davis_files import ids_of, write_davis
from PIL import Image
from torch.utils.data import DataLoader

from omnistream.data import DatasetNotFoundError
from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import TooManyBrokenFilesError
from omnistream.data.evaluation_samples import EvaluationSamples
from omnistream.data.media.errors import ImageReadError
from omnistream.data.videos import DAVIS, DAVISDataModule, ResizeFrames
from omnistream.data.videos.davis import mask_palette, write_mask

SEQUENCES = {"tennis": (48, 64), "bike": (40, 72)}


@pytest.fixture
def root(tmp_path):
    return write_davis(tmp_path / "DAVIS", SEQUENCES)


def test_sequences_are_whole_videos_with_ids(root):
    videos = DAVIS(root)
    assert len(videos) == 2
    for index, (name, (H, W)) in enumerate(SEQUENCES.items()):  # in the order of the list
        video = videos[index]
        assert (video.name, video.num_objects) == (name, 2)
        assert video.frame_names == [f"{t:05d}" for t in range(6)]
        assert video.images.shape == (6, 3, H, W)
        assert video.images.dtype == video.masks.dtype == torch.uint8
        for t in range(6):
            ids = ids_of(t, (H, W), start=index)
            assert np.array_equal(video.masks[t].numpy(), np.where(ids == 255, 0, ids))
            red = video.images[t, 0].float()
            assert abs(float(red[video.masks[t] == 1].mean()) - 225) < 12 < float(red[video.masks[t] != 1].mean())


def test_frames_are_resized_and_masks_are_not(root):
    video = DAVIS(root, transform=ResizeFrames(32, multiple=8), sequences=["bike"])[0]
    assert video.images.shape == (6, 3, 32, 56)
    assert video.masks.shape == (6, 40, 72)


@pytest.mark.parametrize(
    ("rule", "size", "short_side", "expected"),
    [
        ("dino", (480, 854), 480, (480, 832)),
        ("dino", (480, 910), 480, (480, 896)),
        ("dino", (480, 1152), 480, (480, 1152)),
        ("dino", (854, 480), 480, (832, 480)),
        ("dino", (1080, 1920), 480, (480, 832)),
        ("dinov3", (480, 854), 480, (480, 864)),
        ("dinov3", (480, 854), 960, (960, 1712)),
        ("dinov3", (480, 1152), 480, (480, 1152)),
        ("dinov3", (854, 480), 470, (864, 480)),
    ],
)
def test_sizes_are_those_of_dino_and_dinov3(rule, size, short_side, expected):
    resize = ResizeFrames(short_side, rule)
    assert resize.size(*size) == expected
    if short_side == 480:
        assert resize(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[-2:] == expected


def test_dino_does_not_smooth_and_dinov3_resizes_as_pillow():
    image = torch.randint(0, 256, (1, 3, 96, 192), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    halved = ResizeFrames(48, "dino", 8)(image)[0].float()
    # Without antialiasing, halving averages the 2 x 2 pixels around a centre.
    expected = torch.nn.functional.avg_pool2d(image[0].float(), 2)
    torch.testing.assert_close(halved, expected, atol=0.51, rtol=0)
    third = ResizeFrames(32, "dinov3")(image)[0]
    pillow = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((64, 32), Image.Resampling.BICUBIC)
    torch.testing.assert_close(third.int(), torch.from_numpy(np.array(pillow)).permute(2, 0, 1).int(), atol=1, rtol=0)


def test_written_masks_are_read_by_value_and_have_the_colours_of_the_benchmark(tmp_path):
    mask = torch.randint(0, 256, (20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_mask(tmp_path / "00000.png", mask)
    with Image.open(tmp_path / "00000.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), mask.numpy())
        colours = np.array(image.convert("RGB"))
    assert np.array_equal(colours, np.array(mask_palette(), np.uint8)[mask.numpy()])
    assert mask_palette(9) == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0),
    ]  # fmt: skip
    assert mask_palette()[255] == (224, 224, 192)


def test_palette_is_that_of_real_results(sample_data):
    with Image.open(sample_data / "vos/results/semi-supervised/osvos/bmx-trees/00010.png") as image:
        shown = image.getpalette()
    assert [tuple(shown[3 * i : 3 * i + 3]) for i in range(3)] == mask_palette(3)


def test_each_sequence_is_one_batch_of_validation_and_test(root):
    data = DAVISDataModule(root, short_side=40, multiple=8)
    assert [batch.name for batch in data.test_dataloader()] == [["tennis"], ["bike"]]
    assert [batch.masks.shape for batch in data.val_dataloader()] == [(1, 6, 48, 64), (1, 6, 40, 72)]
    with pytest.raises(ValueError, match="no train set"):
        data.train_dataloader()


def test_wrong_trees_are_named(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such folder.*expected the folder DAVIS of the release"):
        DAVIS(tmp_path / "elsewhere")
    with pytest.raises(DatasetNotFoundError, match=r"no file .*ImageSets/2017/train.txt; expected"):
        DAVIS(root, "train")
    with pytest.raises(ValueError, match="no official split 'test': the splits are train, val"):
        DAVIS(root, "test")
    with pytest.raises(ValueError, match="no sequences dog; it has tennis, bike"):
        DAVIS(root, sequences=["bike", "dog"])
    (root / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(DatasetNotFoundError, match="names no sequence"):
        DAVIS(root)


def test_frames_and_masks_must_match(root):
    (root / "Annotations/480p/bike/00003.png").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"bike: 6 frames .*, 5 masks .*only one of them has 00003"):
        DAVIS(root)
    assert len(DAVIS(root, sequences=["tennis"])) == 1
    for kind in ("JPEGImages", "Annotations"):
        shutil.rmtree(root / kind / "480p/tennis")
    with pytest.raises(DatasetNotFoundError, match="tennis holds 0 frames, at least 3"):
        DAVIS(root, sequences=["tennis"])


def test_three_frames_are_enough(tmp_path):
    assert len(DAVIS(write_davis(tmp_path, {"a": (32, 32)}, num_frames=3))) == 1
    with pytest.raises(DatasetNotFoundError, match="holds 2 frames"):
        DAVIS(write_davis(tmp_path / "short", {"a": (32, 32)}, num_frames=2))


def test_broken_masks_are_named(root):
    path = root / "Annotations/480p/bike/00000.png"
    videos = DAVIS(root, sequences=["bike"])
    with Image.open(path) as image:
        ids = np.array(image)
    Image.fromarray(np.where(ids > 0, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(ImageReadError, match=r"00000.png: no object 1 to 254 .* masks of DAVIS 2016"):
        videos[0]
    Image.fromarray(ids[:, :-1]).save(path)
    with pytest.raises(ImageReadError, match="a mask of 71x40 pixels, but its frame has 72x40"):
        videos[0]
    Image.fromarray(np.stack([ids] * 3, -1)).save(path)
    with pytest.raises(ImageReadError, match="mode RGB holds no object ids"):
        videos[0]
    path.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match="not an image in a format that Pillow reads"):
        videos[0]
    path.unlink()
    with pytest.raises(ImageReadError, match="no such file"):
        videos[0]


def test_frames_of_two_sizes_are_named(root):
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        path = root / kind / "480p/bike" / f"00002.{suffix}"
        Image.new("L", (30, 20)).save(path)
    with pytest.raises(ImageReadError, match=r"00002\.jpg: 30x20 pixels, but the first frame has 72x40"):
        DAVIS(root, sequences=["bike"])[0]


@pytest.mark.parametrize("file", ["JPEGImages/480p/bike/00003.jpg", "Annotations/480p/bike/00003.png"])
def test_a_sequence_with_a_broken_file_is_named_and_left_out_of_an_evaluation(root, file, caplog):
    with Image.open(root / file) as image:
        size = len((root / file).read_bytes())
        assert image.size == (72, 40)
    (root / file).write_bytes((root / file).read_bytes()[: size // 2])
    loader = DAVISDataModule(root).test_dataloader()
    assert [None if batch is None else batch.name[0] for batch in loader] == ["tennis", None]
    assert loader.dataset.num_skipped == 1
    assert re.search(f"skipped broken file number 1: .*{file}: damaged", caplog.text)
    with pytest.raises(ImageReadError, match="damaged"):  # never another sequence in its place
        DAVIS(root)[1]


def test_more_broken_sequences_than_allowed_end_the_evaluation(root):
    (root / "JPEGImages/480p/bike/00003.jpg").write_bytes(b"no image")
    videos = DAVIS(root, broken_files=BrokenFiles(0))
    with pytest.raises(
        TooManyBrokenFilesError, match=r"1 of 2 files are broken, 0 are allowed: .*bike/00003.jpg \(not an"
    ):
        EvaluationSamples(videos)[1]


def test_a_worker_passes_on_what_is_wrong(root):
    (root / "JPEGImages/480p/tennis/00001.jpg").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"00001.jpg: not an image"):
        next(iter(DataLoader(DAVIS(root), num_workers=1, collate_fn=DAVIS.collate)))


@pytest.mark.parametrize(("short_side", "rule"), [(48, "dino"), (8, "dinov3")])
def test_sides_below_the_multiple_are_refused(short_side, rule):
    with pytest.raises(ValueError, match=f"short_side {short_side} must be at least the multiple"):
        ResizeFrames(short_side, rule)


def test_unknown_rules_are_refused(no_type_checks):
    with pytest.raises(ValueError, match="rule must be dino or dinov3, got 'sam'"):
        ResizeFrames(480, "sam")
