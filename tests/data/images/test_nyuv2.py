"""NYUv2 in both layouts."""

import builtins
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nyu_files import scene, write_labeled, write_split_folder
from PIL import Image

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError, TooManyBrokenFilesError
from omnistream.data.evaluation_samples import EvaluationSamples, KeyedSubset
from omnistream.data.images import NYUv2, NYUv2DataModule, NYUv2Labeled
from omnistream.data.sampling import SampleKey


@pytest.fixture
def root(tmp_path):
    return write_split_folder(tmp_path)


def test_split_folder_is_read_in_sorted_order_in_metres(root):
    data = NYUv2(root, "test")
    assert [pair.image.name for pair in data.pairs] == [f"rgb_{n:05d}.jpg" for n in (100, 101, 102)]
    assert len(NYUv2(root)) == 6
    sample, (image, depth) = data[1], scene(101)
    torch.testing.assert_close(sample.depth, torch.from_numpy(depth).float(), atol=6e-4, rtol=0)
    assert sample.depth[0, 0] == 0
    assert (sample.image.int() - torch.from_numpy(image).permute(2, 0, 1).int()).abs().max() <= 3
    assert sample.image.dtype == torch.uint8
    assert sample.name == str(root / "test_room" / "rgb_00101.jpg")
    assert data.num_files == 6


def test_transform_draws_anew_in_every_epoch_and_not_otherwise(root):
    drawn = NYUv2(root, "train", lambda image, depth: (image, depth + torch.rand(())), seed=3)
    first = drawn[SampleKey(0, 2)].depth
    assert torch.equal(first, drawn[2].depth)
    assert not torch.equal(first, drawn[SampleKey(1, 2)].depth)


def test_other_units_are_recognised_and_can_be_given(tmp_path):
    write_split_folder(tmp_path, scale=10 / 65535)
    with pytest.raises(ValueError, match=r"is not in millimetres, NYUv2 ends at 10 m; set depth_scale"):
        NYUv2(tmp_path, "test")
    sample = NYUv2(tmp_path, "test", depth_scale=10 / 65535)[0]
    torch.testing.assert_close(sample.depth, torch.from_numpy(scene(100)[1]).float(), atol=1e-4, rtol=0)


def test_one_far_depth_map_is_no_other_unit(root):
    depth = root / "test_room" / "sync_depth_00100.png"
    Image.fromarray(np.full((48, 64), 10001, np.uint16)).save(depth)
    assert len(NYUv2(root, "test")) == 3


@pytest.mark.usefixtures("no_type_checks")
def test_trees_that_are_not_nyuv2(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such file: .*nyu_test.txt; expected nyu_train.txt \(24,231"):
        NYUv2(root / "train_room", "test")
    (root / "nyu_depth_v2_labeled.mat").touch()
    (root / "nyu_train.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"which is the layout `labeled`"):
        NYUv2(root, "train")
    (root / "nyu_train.txt").write_text("\n")
    with pytest.raises(DatasetNotFoundError, match="is empty"):
        NYUv2(root, "train")
    (root / "nyu_train.txt").write_text("<!DOCTYPE html>\n")
    with pytest.raises(ValueError, match=r"expected lines `rgb depth focal`, got '<!DOCTYPE html>'; is it the list"):
        NYUv2(root, "train")
    with pytest.raises(ValueError, match="split must be train or test, got 'val'"):
        NYUv2(root, "val")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"broken")])
def test_missing_and_broken_files_are_replaced_in_training_and_left_out_of_a_test(root, damage, caplog):
    damage(root / "train_room" / "rgb_00002.jpg")
    damage(root / "test_room" / "sync_depth_00101.png")
    train = NYUv2(root, "train")
    assert len({train[i].name for i in range(6)}) == 5
    assert train.broken_files.count == 1
    samples = EvaluationSamples(NYUv2(root, "test"))
    assert [None if samples[i] is None else Path(samples[i].name).stem for i in range(3)] == [
        "rgb_00100", None, "rgb_00102",
    ]  # fmt: skip
    assert re.search(
        r"skipped broken file number 1: .*test_room/sync_depth_00101.png: (no such file|not an image)", caplog.text
    )


def test_most_files_must_be_there(root):
    for number in (100, 101):
        (root / "test_room" / f"sync_depth_{number:05d}.png").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"2 of 6 files of .*nyu_test.txt are missing, such as .*00100.png"):
        NYUv2(root, "test")
    with pytest.raises(DatasetNotFoundError, match="2 of 6 files"):
        NYUv2(root, "test", broken_files=BrokenFiles(1))
    samples = EvaluationSamples(NYUv2(root, "test", broken_files=BrokenFiles(2)))
    assert [samples[i] is None for i in range(3)] == [True, True, False]


def test_image_and_depth_of_different_size_are_refused(root):
    write_split_folder(root / "other", size=(40, 64))
    (root / "other" / "test_room" / "rgb_00100.jpg").rename(root / "test_room" / "rgb_00100.jpg")
    samples = EvaluationSamples(NYUv2(root, "test", broken_files=BrokenFiles(0)))
    with pytest.raises(TooManyBrokenFilesError, match=r"differ in size: \(40, 64\) and \(48, 64\)"):
        samples[0]


def test_real_depth_maps_in_this_layout(sample_data, tmp_path):
    folder = sample_data / "rgbd" / "deep_video_mvs" / "hololens-dataset" / "000"
    pairs = list(zip(sorted((folder / "images").iterdir()), sorted((folder / "depth").iterdir()), strict=True))[:3]
    for name in ("images", "depth"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "nyu_test.txt").write_text("".join(f"/images/{i.name} /depth/{d.name} 500\n" for i, d in pairs))
    data = NYUv2(tmp_path, "test")
    depth = data[0].depth
    assert len(data) == 3
    assert 0.3 < depth[depth > 0].median() < 10


class TestLabeled:
    @pytest.fixture(scope="class")
    def labeled(self, tmp_path_factory):
        pytest.importorskip("h5py", reason="the extra nyu is not installed")
        return write_labeled(tmp_path_factory.mktemp("labeled"))

    def test_axes_are_turned_and_the_split_counts_from_one(self, labeled):
        data = NYUv2Labeled(labeled, "test", black_frame=False)
        assert data.indices == [1, 2]
        assert NYUv2Labeled(labeled, "train").indices == [0, 3, 4]
        image, depth = scene(2, (480, 640))
        assert np.array_equal(data[1].image.permute(1, 2, 0).numpy(), image)
        torch.testing.assert_close(data[1].depth, torch.from_numpy(depth).float())

    def test_frame_is_black_as_in_the_split_folder(self, labeled):
        sample = NYUv2Labeled(labeled, "test")[0]
        lit = (sample.image > 0).all(0)
        rows, columns = lit.any(1).nonzero(), lit.any(0).nonzero()
        assert [int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())] == [7, 473, 7, 631]

    def test_depth_with_holes_filled(self, labeled):
        assert (NYUv2Labeled(labeled, "test")[0].depth == 0).any()
        assert (NYUv2Labeled(labeled, "test", depth="filled")[0].depth > 0).all()

    def test_it_travels_to_workers(self, labeled):
        data = NYUv2Labeled(labeled, "test")
        assert torch.equal(pickle.loads(pickle.dumps(data))[1].depth, data[1].depth)

    def test_bad_files(self, labeled, tmp_path):
        with pytest.raises(
            DatasetNotFoundError, match=r"no such file: .*labeled.mat; expected nyu_depth_v2_labeled.mat"
        ):
            NYUv2Labeled(tmp_path)
        (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"half a download")
        (tmp_path / "splits.mat").write_bytes((labeled / "splits.mat").read_bytes())
        with pytest.raises(ValueError, match="not a whole HDF5 file"):
            NYUv2Labeled(tmp_path)
        (tmp_path / "splits.mat").write_bytes(b"<html>" * 30)
        with pytest.raises(ValueError, match=r"splits.mat: expected a MATLAB file with trainNdxs"):
            NYUv2Labeled(tmp_path)
        small = write_labeled(tmp_path / "small", count=2, size=(16, 16))
        with pytest.raises(ValueError, match=r"expected trainNdxs from 1 to the 2 images"):
            NYUv2Labeled(small)

    def test_data_module_reads_it(self, labeled):
        data = NYUv2DataModule(labeled, layout="labeled")
        data.setup("test")
        assert len(data.test) == 2


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    for name in ("nyu_depth_v2_labeled.mat", "splits.mat"):
        (tmp_path / name).touch()
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"needs h5py; install it with: pip install 'omnistream\[nyu\]'"):
        NYUv2Labeled(tmp_path)


class TestDataModule:
    def test_training_is_augmented_and_evaluation_is_whole(self, root):
        data = NYUv2DataModule(root, crop_size=(40, 48), batch_size=4)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch.image.shape == (4, 3, 40, 48)
        assert batch.depth.shape == (4, 40, 48)
        (*_, last) = data.val_dataloader()
        assert last.image.shape == (1, 3, 48, 64)
        assert len(data.val) == 3
        with pytest.raises(ValueError, match="there is no test set"):
            data.test_dataloader()

    def test_held_out_images_are_whole_and_not_trained_on(self, root):
        data = NYUv2DataModule(root, crop_size=(40, 48), holdout=0.34)
        data.setup("fit")
        assert isinstance(data.val, KeyedSubset)
        assert len(data.val) == 2
        assert data.val[0].depth.shape == (48, 64)
        held, kept = ({part[i].name for i in range(len(part))} for part in (data.val, data.train))
        assert not held & kept
        assert len(held | kept) == 6
        one = NYUv2DataModule(root, holdout=0.17)
        one.setup("validate")
        assert len(one.val) == 1
        for holdout in (0.01, 0.99):
            with pytest.raises(ValueError, match="leaves nothing"):
                NYUv2DataModule(root, holdout=holdout).setup("validate")

    def test_a_test_needs_no_training_list(self, root):
        (root / "nyu_train.txt").unlink()
        data = NYUv2DataModule(root)
        data.setup("test")
        assert len(list(data.test_dataloader())) == 3

    @pytest.mark.usefixtures("no_type_checks")
    def test_arguments(self, root):
        with pytest.raises(ValueError, match="layout must be split or labeled"):
            NYUv2DataModule(root, layout="mat")
        with pytest.raises(ValueError, match="is in metres"):
            NYUv2DataModule(root, layout="labeled", depth_scale=0.001)
