import kitti_files
import numpy as np
import pytest
import torch
from PIL import Image

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.media import DepthReadError, MediaReadError
from omnistream.data.scenes import ClipSampling, KITTIDepth, SceneClips

DRIVE = "2011_09_26_drive_0002"


def frames_of(root, positions=(0,)):
    reader = KITTIDepth(root)
    (sequence,) = reader.index()
    return reader.read(sequence, list(positions))


@pytest.mark.parametrize("raw", [".", "raw"])
def test_values_are_read_as_written(tmp_path, raw):
    kitti_files.write_drive(tmp_path, raw=raw)
    kitti_files.write_calibration(tmp_path / raw / "2011_09_26")
    reader = KITTIDepth(tmp_path)
    (sequence,) = reader.index()
    assert (sequence.num_frames, sequence.is_video, sequence.is_metric) == (4, True, True)
    frames = reader.read(sequence, [0, 3])
    for frame, number in zip(frames, (5, 8), strict=True):  # not 3, of which there is only an image
        stored = kitti_files.stored_depth(number)
        assert torch.equal(frame.depth, torch.from_numpy((stored / 256).astype(np.float32)))
        assert torch.equal(frame.valid, torch.from_numpy(stored > 0))
        assert torch.equal(frame.image, torch.from_numpy(kitti_files.image(number)).permute(2, 0, 1))
        # the file puts the centre of pixel i at i
        assert frame.intrinsics.tolist() == [[70.25, 0, 61.5], [0, 70.5, 17.75], [0, 0, 1]]
        assert frame.camera_to_world.isnan().all()


def test_the_copies_of_the_evaluations_are_read(tmp_path):
    kitti_files.write_gathered(tmp_path)
    (frame,) = frames_of(tmp_path, [1])
    assert torch.equal(frame.depth, torch.from_numpy((kitti_files.stored_depth(6) / 256).astype(np.float32)))
    assert torch.equal(frame.image, torch.from_numpy(kitti_files.image(6)).permute(2, 0, 1))
    assert frame.intrinsics.isnan().all()


def test_the_first_110_frames_of_the_published_list(tmp_path):
    kitti_files.write_drive(tmp_path, frames=range(5, 120))
    kitti_files.write_drive(tmp_path, frames=range(5, 7), camera="03")
    kitti_files.write_drive(tmp_path, "2011_09_26_drive_0001", frames=range(5, 7), split="train")
    videos = GeometryVideos(KITTIDepth(tmp_path), "depth", FrameChoice(count=110), ModelImages(long_side=64))
    assert (len(videos.names), videos.missing, len(videos)) == (13, 12, 1)
    assert (videos[0].name, len(videos[0])) == (f"{DRIVE}_sync_02", 110)
    first = next(videos[0].frames())
    assert first.image.shape == (3, 16, 64)
    assert first.depth.shape == kitti_files.SIZE
    for name in (f"{DRIVE}_sync_02", f"val/{DRIVE}_sync/proj_depth/groundtruth/image_02"):
        chosen = GeometryVideos(KITTIDepth(tmp_path), [name, "2011_09_26_drive_0005_sync_02"])
        assert (chosen.names[0], chosen.missing_names) == (f"{DRIVE}_sync_02", ["2011_09_26_drive_0005_sync_02"])


def test_official_splits(tmp_path):
    kitti_files.write_drive(tmp_path)
    kitti_files.write_drive(tmp_path, "2011_09_26_drive_0001", split="train", camera="03")

    def names(split):
        reader = KITTIDepth(tmp_path, split)
        return [reader.published_name(sequence.name) for sequence in reader.index()]

    assert names("val") == [f"{DRIVE}_sync_02"]
    assert names("train") == ["2011_09_26_drive_0001_sync_03"]
    assert sorted(names(None)) == sorted(names("train") + names("val"))
    with pytest.raises(ValueError, match="no official split 'test'"):
        KITTIDepth(tmp_path, "test")


def test_all_frames_are_preferred_to_the_copies(tmp_path):
    depth, images = kitti_files.write_drive(tmp_path)
    kitti_files.write_gathered(tmp_path, frames=range(5, 7))
    assert [sequence.num_frames for sequence in KITTIDepth(tmp_path).index()] == [4]
    images.rename(images.parent / "elsewhere")  # the raw data were deleted after copying
    assert [sequence.num_frames for sequence in KITTIDepth(tmp_path).index()] == [2]
    depth.rename(depth.parent / "elsewhere")
    assert [sequence.num_frames for sequence in KITTIDepth(tmp_path).index()] == [2]


@pytest.mark.parametrize("inner", ["val", f"val/{DRIVE}_sync/proj_depth/groundtruth/image_02"])
def test_the_raw_data_must_be_below_the_root(tmp_path, inner):
    kitti_files.write_drive(tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"no images of this drive: there is no folder .*/image_02/data"):
        KITTIDepth(tmp_path / inner).index()
    (tmp_path / inner / "2011_09_26").symlink_to(tmp_path / "2011_09_26")
    assert len(KITTIDepth(tmp_path / inner).index()) == 1


def test_depth_without_an_image_is_named(tmp_path):
    _, images = kitti_files.write_drive(tmp_path)
    kitti_files.write_drive(tmp_path, "2011_09_26_drive_0005")
    (images / "0000000006.png").unlink()
    reader = KITTIDepth(tmp_path)
    assert [reader.published_name(sequence.name) for sequence in reader.index()] == ["2011_09_26_drive_0005_sync_02"]
    ((path, reason),) = reader.broken
    assert path.endswith("groundtruth/image_02/0000000006.png")
    assert reason == f"has no image in {images} (1 of 4 frames)"


def test_eight_bits_are_refused_and_an_empty_map_is_not(tmp_path):
    depth, _ = kitti_files.write_drive(tmp_path)
    stored = kitti_files.stored_depth(5)
    Image.fromarray(np.zeros_like(stored)).save(depth / "0000000005.png")
    Image.fromarray((stored // 256).astype(np.uint8)).save(depth / "0000000006.png")
    (empty,) = frames_of(tmp_path)
    assert not empty.valid.any()
    with pytest.raises(DepthReadError, match=r"0000000006\.png: expected 16-bit grey, got mode L"):
        frames_of(tmp_path, [1])


def test_broken_files_are_named(tmp_path):
    depth, images = kitti_files.write_drive(tmp_path)
    whole = (depth / "0000000005.png").read_bytes()
    (depth / "0000000005.png").write_bytes(whole[: len(whole) // 2])
    (images / "0000000006.png").write_bytes(b"")
    Image.fromarray(kitti_files.image(7)[:, :-1]).save(images / "0000000007.png")
    for position, message in enumerate(
        (
            r"groundtruth.*5\.png: damaged depth map",
            r"data/0000000006\.png: not an image",
            r"depth of \(36, 124\) for an",
        )
    ):
        with pytest.raises(MediaReadError, match=message) as caught:
            frames_of(tmp_path, [position])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "P_rect_02: 1 2 3", "P_rect_02: " + "x " * 12, "P_rect_02: 1\nP_rect_02: 1"])
def test_a_broken_calibration_is_named(tmp_path, content):
    kitti_files.write_drive(tmp_path)
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").write_text(content)
    with pytest.raises(
        DatasetNotFoundError, match=r"calib_cam_to_cam\.txt: expected one line `P_rect_02:` with 12 numbers"
    ):
        KITTIDepth(tmp_path).index()


def test_a_calibration_that_is_added_is_noticed(tmp_path):
    kitti_files.write_drive(tmp_path)
    assert frames_of(tmp_path)[0].intrinsics.isnan().all()
    kitti_files.write_calibration(tmp_path / "2011_09_26")
    assert frames_of(tmp_path)[0].intrinsics.isfinite().all()


def test_there_are_no_clips_without_poses(tmp_path):
    kitti_files.write_drive(tmp_path)
    with pytest.raises(ValueError, match=r"KITTIDepth of .* has frames without intrinsics or pose"):
        SceneClips(KITTIDepth(tmp_path), ClipSampling(num_frames=2))


def test_another_tree_is_refused_in_one_line(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(
        DatasetNotFoundError, match=r"holds no sequence; expected KITTI's .*groundtruth/image_02"
    ) as caught:
        KITTIDepth(tmp_path).index()
    assert "\n" not in str(caught.value)
