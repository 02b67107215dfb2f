import pytest
import torch

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.sampling import SampleKey
from omnistream.data.scenes import ClipSampling, SceneFolder, find_sequences

SMALL = {"size": 32, "sampling": ClipSampling(num_frames=4, max_interval=3)}


def frame_numbers(clip):
    return (clip.images[:, 0].float().mean((1, 2)) / 5).round().int().tolist()


@pytest.fixture
def root(tmp_path, write_scene):
    write_scene("deep_video_mvs", tmp_path / "a" / "000")
    write_scene("tsdf_fusion", tmp_path / "b", num_frames=10)
    return tmp_path


def test_finds_both_layouts_at_any_depth(root):
    found = find_sequences(root)
    assert {layout: [len(s) for s in sequences] for layout, sequences in found.items()} == {
        "deep_video_mvs": [20],
        "tsdf_fusion": [10],
    }


def test_one_training_clip_per_start(root):
    data = SceneFolder(root, **SMALL, split="all")
    assert len(data) == (20 - 3) + (10 - 3)
    assert [frame_numbers(data[i])[0] for i in range(len(data))] == [*range(17), *range(7)]


def test_held_out_part_is_the_end_of_every_sequence(root):
    train = SceneFolder(root, **SMALL, val_fraction=0.4)
    val = SceneFolder(root, **SMALL, split="val", val_fraction=0.4)
    seen = [frame_numbers(train[SampleKey(epoch, i)]) for epoch in range(3) for i in range(9)]
    assert max(max(numbers) for numbers in seen) == 11  # of 20 frames
    assert len(val) == 2 + 1
    assert [frame_numbers(val[i]) for i in range(3)] == [[12, 13, 14, 15], [16, 17, 18, 19], [6, 7, 8, 9]]
    assert frame_numbers(val[SampleKey(7, 1)]) == [16, 17, 18, 19]
    assert torch.equal(val[SampleKey(7, 1)].seed, val[1].seed)


def test_clips_depend_on_seed_epoch_and_index_only(root):
    make = lambda seed: SceneFolder(root, **SMALL, split="all", enlarge=15, seed=seed)  # noqa: E731
    clip, again, other_epoch, other_seed = make(0)[3], make(0)[3], make(0)[SampleKey(1, 3)], make(1)[3]
    for name in ("images", "depth", "intrinsics", "camera_to_world", "seed"):
        assert torch.equal(getattr(clip, name), getattr(again, name))
    assert not torch.equal(clip.intrinsics, other_epoch.intrinsics)
    assert not torch.equal(clip.seed, other_seed.seed)
    assert (clip.intrinsics == clip.intrinsics[0]).all()  # one crop for all frames of a clip


def test_both_layouts_in_one_batch(root):
    data = SceneFolder(root, **SMALL, split="all")
    batch = data.collate([data[0], data[20]])
    assert batch.images.shape == (2, 4, 3, 32, 32)
    assert batch.depth.shape == batch.valid.shape == (2, 4, 32, 32)
    assert batch.intrinsics.shape == (2, 4, 3, 3)
    assert batch.is_metric.tolist() == [True, True]


def test_collections_are_marked(root):
    sampling = ClipSampling(num_frames=4, video_prob=0.0)
    clip = SceneFolder(root, size=32, sampling=sampling, split="all")[0]
    assert not bool(clip.is_video)


@pytest.mark.parametrize("broken", ["images", "depth"])
def test_broken_frames_are_replaced_and_counted(root, broken):
    path = root / "a" / "000" / broken / "00003.png"
    path.write_text("broken")
    data = SceneFolder(root, **SMALL, split="all", broken_files=BrokenFiles(limit=1))
    assert torch.isfinite(data[0].depth).all()
    assert list(data.broken_files.reasons) == [str(path)]


def test_depth_of_another_size_is_an_error(root):
    source = root / "b" / "frame-000000.depth.png"
    from PIL import Image

    with Image.open(source) as depth:
        depth.crop((0, 0, 10, 10)).save(root / "a" / "000" / "depth" / "00003.png")
    data = SceneFolder(root, **SMALL, split="all")
    assert data[0].images.shape == (4, 3, 32, 32)
    assert "is (10, 10), its picture (48, 64)" in data.broken_files.summary()


def test_errors_at_construction(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no clip of 30 frames fits the train part .* the longest has 16"):
        SceneFolder(root, size=32, sampling=ClipSampling(num_frames=30))
    with pytest.raises(ValueError, match="val_fraction"):
        SceneFolder(root, size=32, val_fraction=1.0)
    with pytest.raises(ValueError, match="expected a positive size"):
        SceneFolder(root, size=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for folders with K.txt.*; folders with camera-intrinsics.txt"):
        SceneFolder(tmp_path / "empty", size=32)
