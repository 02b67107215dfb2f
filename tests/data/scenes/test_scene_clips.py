from dataclasses import replace

import pytest
import torch
from PIL import Image

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError, TooManyBrokenFilesError
from omnistream.data.sampling import SampleKey
from omnistream.data.scenes import ClipSampling, DeepVideoMVS, SceneClips, SceneCrop, SceneFolder

SAMPLING = ClipSampling(num_frames=4, max_interval=3)


def make(root, seed=0, **options):
    return SceneClips(SceneFolder(root), SAMPLING, SceneCrop(32), seed, **options)


def frame_numbers(clip):
    return (clip.images[:, 0].float().mean((1, 2)) / 5).round().int().tolist()


@pytest.fixture
def root(tmp_path, write_scene):
    write_scene("deep_video_mvs", tmp_path / "a" / "000")
    write_scene("tsdf_fusion", tmp_path / "b", num_frames=10)
    return tmp_path


def test_finds_all_layouts_at_any_depth(root, write_scene):
    write_scene("scannet", root / "c" / "scene0000_00", num_frames=5)
    write_scene("sens", root / "c" / "scene0001_00.sens", num_frames=6)
    assert {sequence.name: sequence.num_frames for sequence in SceneFolder(root).index()} == {
        "deep_video_mvs:a/000": 20,
        "tsdf_fusion:b": 10,
        "scannet:c/scene0000_00": 5,
        "scannet:c/scene0001_00.sens": 6,
    }


def test_one_training_clip_per_start(root):
    data = make(root)
    assert len(data) == (20 - 3) + (10 - 3)
    assert [frame_numbers(data[i])[0] for i in range(len(data))] == [*range(17), *range(7)]


def test_held_out_part_is_the_end_of_every_sequence(root):
    train = make(root, split="train", val_fraction=0.4)
    val = make(root, split="val", val_fraction=0.4)
    seen = [frame_numbers(train[SampleKey(epoch, i)]) for epoch in range(3) for i in range(9)]
    assert max(max(numbers) for numbers in seen) == 11  # of 20 frames
    assert len(val) == 2 + 1
    assert [frame_numbers(val[i]) for i in range(3)] == [[12, 13, 14, 15], [16, 17, 18, 19], [6, 7, 8, 9]]
    assert frame_numbers(val[SampleKey(7, 1)]) == [16, 17, 18, 19]
    assert torch.equal(val[SampleKey(7, 1)].seed, val[1].seed)


def test_clips_depend_on_seed_epoch_and_index_only(root):
    def clip(seed, key):
        torch.manual_seed(seed + 100)  # global state must not matter
        return SceneClips(SceneFolder(root), SAMPLING, SceneCrop(32, enlarge=15), seed)[key]

    first, again, other_epoch, other_seed = clip(0, 3), clip(0, 3), clip(0, SampleKey(1, 3)), clip(1, 3)
    for name in ("images", "depth", "intrinsics", "camera_to_world", "seed"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.intrinsics, other_epoch.intrinsics)
    assert not torch.equal(first.seed, other_seed.seed)
    assert (first.intrinsics == first.intrinsics[0]).all()  # one crop for all frames of a clip


def test_both_layouts_in_one_batch(root):
    data = make(root)
    batch = data.collate([data[0], data[20]])
    assert batch.images.shape == (2, 4, 3, 32, 32)
    assert batch.depth.shape == batch.valid.shape == (2, 4, 32, 32)
    assert batch.intrinsics.shape == (2, 4, 3, 3)
    assert batch.is_metric.tolist() == [True, True]


def test_clips_out_of_order_are_marked(root):
    sampling = ClipSampling(num_frames=4, video_prob=0.0)
    assert not bool(SceneClips(SceneFolder(root), sampling, SceneCrop(32))[0].is_video)


class Views(DeepVideoMVS):
    """The same files read as an unordered collection of views of unknown scale."""

    index_version = 2

    def open_sequence(self, path):
        return super().open_sequence(path)._replace(is_video=False, is_metric=False)


@pytest.mark.parametrize("fixed", [False, True])
def test_collections_of_views_give_no_videos(root, fixed):
    clip = SceneClips(Views(root), SAMPLING, SceneCrop(32), fixed=fixed)[2]
    assert not bool(clip.is_video)
    assert not bool(clip.is_metric)
    assert (sorted(frame_numbers(clip)) == frame_numbers(clip)) is fixed


class Official(DeepVideoMVS):
    """A data set whose authors published splits."""

    splits = ("train", "val")

    def find(self):
        return [path for path in super().find() if path.name.startswith(self.split or "")]


@pytest.fixture
def divided(tmp_path, write_scene):
    for name in ("train_0", "val_0"):
        write_scene("deep_video_mvs", tmp_path / name, num_frames=9)
    return tmp_path


def test_official_splits(divided):
    train, val, every = (SceneClips(Official(divided, split), SAMPLING) for split in ("train", "val", None))
    assert [[s.name for s in data.sequences] for data in (train, val, every)] == [
        ["train_0"],
        ["val_0"],
        ["train_0", "val_0"],
    ]
    assert len(train) == 6
    assert len(val) == 2  # fixed clips of consecutive frames
    assert [frame_numbers(val[i]) for i in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(SceneClips(Official(divided, "val"), SAMPLING, fixed=False)) == 6


def test_splits_that_do_not_exist_are_refused(divided):
    with pytest.raises(ValueError, match="Official has no official split 'test': the splits are train, val, or null"):
        Official(divided, "test")
    with pytest.raises(ValueError, match="DeepVideoMVS has no official split 'val': it has none; use null"):
        DeepVideoMVS(divided, "val")
    with pytest.raises(ValueError, match="official val split; leave `split` of the clips null"):
        SceneClips(Official(divided, "val"), SAMPLING, split="train")


def test_without_transform_frames_keep_their_size(root):
    clip = SceneClips(DeepVideoMVS(root), SAMPLING)[0]
    assert clip.images.shape == (4, 3, 48, 64)


@pytest.mark.parametrize("broken", ["images", "depth"])
def test_broken_frames_are_replaced_and_counted(root, broken):
    path = root / "a" / "000" / broken / "00003.png"
    path.write_text("broken")
    data = make(root, broken_files=BrokenFiles(limit=1))
    assert torch.isfinite(data[0].depth).all()
    assert list(data.broken_files.reasons) == [str(path)]


def test_sequences_that_cannot_be_opened_are_reported_and_counted(root, caplog):
    (root / "a" / "000" / "poses.txt").write_text("1 0 zero")
    data = make(root, broken_files=BrokenFiles(limit=1))
    assert [sequence.name for sequence in data.sequences] == ["tsdf_fusion:b"]
    assert list(data.broken_files.reasons) == [str(root / "a" / "000" / "poses.txt")]
    assert "poses.txt: expected numbers in the shape" in caplog.text
    with pytest.raises(TooManyBrokenFilesError, match=r"1 of 20 files are broken, 0 are allowed: .*poses.txt"):
        make(root, broken_files=BrokenFiles(limit=0))


def test_links_and_home_in_the_root(root, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    (home / "recordings").mkdir()
    (home / "recordings" / "linked").symlink_to(root / "a")
    monkeypatch.setenv("HOME", str(home))
    clip = SceneClips(DeepVideoMVS("~/recordings"), SAMPLING)[0]
    assert clip.name.startswith(f"{home}/recordings/linked/000:")


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("layout", ["tsdf_fusion", "deep_video_mvs", "scannet"])
def test_exif_orientation_is_ignored_because_depth_belongs_to_the_stored_pixels(
    tmp_path, write_scene, layout, orientation
):
    write_scene(layout, tmp_path / "s", num_frames=4)
    before = SceneClips(SceneFolder(tmp_path), SAMPLING)[0].images
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in [*tmp_path.rglob("*.color.jpg"), *tmp_path.rglob("images/*.png"), *tmp_path.rglob("color/*.jpg")]:
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif.tobytes(), quality=100, subsampling=0)
    clip = SceneClips(SceneFolder(tmp_path), SAMPLING)[0]
    assert clip.images.shape == before.shape
    assert (clip.images.int() - before.int()).abs().float().mean() < 2  # JPEG, twice
    assert clip.depth.shape[1:] == (48, 64)


def test_errors_at_construction(root, tmp_path):
    long = ClipSampling(num_frames=30)
    with pytest.raises(
        DatasetNotFoundError, match=r"no clip of 30 frames fits the train part of .* the longest has 16\. Lower `samp"
    ):
        SceneClips(SceneFolder(root), long, SceneCrop(32), split="train")
    with pytest.raises(DatasetNotFoundError, match=r"no clip of 30 frames fits a sequence; the longest has 20"):
        SceneClips(SceneFolder(root), long, SceneCrop(32))
    with pytest.raises(ValueError, match="val_fraction"):
        make(root, split="val", val_fraction=1.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected folders with K.txt.*; or folders with camera-"):
        make(tmp_path / "empty")


def test_a_frame_without_a_pose_is_a_broken_one(root, caplog):
    class Lost(DeepVideoMVS):
        """Gives NaN for the pose of one frame in the middle."""

        def read(self, sequence, positions):
            frames = super().read(sequence, positions)
            return [
                replace(frame, camera_to_world=frame.camera_to_world * torch.nan) if position == 10 else frame
                for position, frame in zip(positions, frames, strict=True)
            ]

    data = SceneClips(Lost(root / "a"), ClipSampling(num_frames=4, max_interval=1), SceneCrop(32))
    for index in range(len(data)):
        assert data[index].camera_to_world.isfinite().all()
    assert "a/000: frame 00013.png has no intrinsics or no pose" in caplog.text
