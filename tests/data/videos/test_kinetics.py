import logging
import re

import pytest
import torch
from action_files import KINETICS_CLASSES, write_csv, write_kinetics, write_video

from omnistream.data.broken_files import BrokenFiles
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.media import video_decode
from omnistream.data.sampling import SampleKey
from omnistream.data.videos import Kinetics, KineticsData, SpatialViews


def brightness(clip):
    return clip.images.float().mean((-3, -2, -1))


@pytest.fixture
def root(tmp_path):
    write_kinetics(tmp_path)
    return tmp_path


@pytest.mark.parametrize("folders", [True, False])
def test_files_are_found_with_or_without_class_folders(tmp_path, folders):
    write_kinetics(tmp_path, folders=folders)
    data = Kinetics(tmp_path, "val", num_frames=2, stride=1)
    assert data.classes == KINETICS_CLASSES
    assert [int(data[i].label) for i in range(len(data))] == [0, 1, 2, 0, 1, 2]
    assert data[1].name.endswith("-_v001_a-bc_000010_000020.mp4")
    assert data.missing == 0
    for index in range(3):
        assert float(brightness(data[index])[0]) == pytest.approx(20 + 90 * index, abs=6)


def test_classes_are_those_of_the_training_file(root):
    rows = [("tai chi", "-_v002_a-bc", 20, 30, "validate"), ("tai chi", "-_v005_a-bc", 50, 60, "train")]
    write_csv(root / "annotations" / "val.csv", rows, "label,youtube_id,time_start,time_end,split")
    data = Kinetics(root, "val", num_frames=2, stride=1)
    assert data.classes == KINETICS_CLASSES
    assert data.labels.tolist() == [2]  # the row of another split is not read
    (root / "annotations" / "train.csv").unlink()
    assert Kinetics(root, "val", num_frames=2, stride=1).classes == ["tai chi"]
    write_csv(root / "annotations" / "train.csv", [("abseiling", "x", 0, 10, "train")])
    with pytest.raises(ValueError, match=r"val.csv: 1 classes are not in train.csv, such as 'tai chi'"):
        Kinetics(root, "val")


def test_the_test_split_may_lack_labels(root):
    write_video(root / "test" / "---QUuC4vJs_000084_000094.mp4", 6)
    header = "youtube_id,time_start,time_end,split"
    (root / "annotations" / "test.csv").write_text(header + "\n---QUuC4vJs,84,94,test\n")
    data = Kinetics(root, "test", num_frames=2, stride=1)
    assert data.labels.tolist() == [-1]
    assert data.classes == KINETICS_CLASSES


def test_replacements_come_first(root):
    name = "-_t000_a-bc_000000_000010.mp4"
    write_video(root / "replacement" / "replacement_for_corrupted_k400" / name, 6, value=250)
    data = Kinetics(root, num_frames=2, stride=1)
    assert data[0].name == str(root / "replacement" / "replacement_for_corrupted_k400" / name)
    assert data[1].name.startswith(str(root / "train"))


def test_a_list_of_paths_and_labels(root):
    (root / "annotations" / "val.csv").unlink()
    names = sorted(path.relative_to(root).as_posix() for path in (root / "val").rglob("*.mp4"))
    lines = [f"{names[0]} 5", f"{root}/{names[1]} 0", "", f"{names[2]}::7"]
    (root / "val.csv").write_text("\n".join(lines))
    data = Kinetics(root, "val", num_frames=2, stride=1)
    assert data.labels.tolist() == [5, 0, 7]
    assert [data[i].name for i in range(3)] == [str(root / name) for name in names[:3]]
    assert data.classes == []
    assert data.num_classes == 8
    assert data.fits(400)
    assert not data.fits(7)
    (root / "val.csv").write_text("a.mp4 first\n")
    with pytest.raises(ValueError, match=r"val.csv, line 1: expected a path and the number of a class, got"):
        Kinetics(root, "val")


def test_missing_videos_are_counted(root, caplog):
    rows = [(label, f"gone{i:07d}", 0, 10, "val") for i, label in enumerate(KINETICS_CLASSES)]
    write_csv(root / "annotations" / "val.csv", [*rows, ("tai chi", "-_v002_a-bc", 20, 30, "val")])
    with caplog.at_level(logging.WARNING):
        data = Kinetics(root, "val", num_frames=2, stride=1)
    assert (len(data), data.missing, data.labels.tolist()) == (1, 3, [2])
    assert "3 of 4 videos of the val split are not in" in caplog.text
    assert "gone0000000_000000_000010" in caplog.text
    write_csv(root / "annotations" / "val.csv", rows)
    with pytest.raises(DatasetNotFoundError, match=r"holds none of the 3 videos of .*val.csv, such as gone0000000_"):
        Kinetics(root, "val")


def test_held_out_clips_are_seen_as_in_the_test_and_not_trained_on(root):
    data = KineticsData(root, num_frames=2, stride=1, size=32, num_views=3, holdout=0.34, seed=1)
    data.setup("fit")
    assert sorted([*data.train.indices, *data.val.indices]) == list(range(6))
    assert (len(data.val), len(data.test), data.test.split) == (2, 6, "val")
    whole = Kinetics(root, "train", SpatialViews(32, 3), num_frames=2, stride=1)
    whole.random_windows = False
    for place, index in enumerate(data.val.indices):
        held = data.val[place]
        assert torch.equal(held.images, whole[index].images)
        assert held.images.shape == (3, 2, 3, 32, 32)
        assert data.train.dataset[index].images.shape == (2, 3, 32, 32)
    alone = KineticsData(root, num_frames=2, stride=1, size=32, holdout=0.34, seed=1)
    alone.setup("validate")
    assert alone.val.indices == data.val.indices
    with pytest.raises(ValueError, match="leaves nothing"):
        KineticsData(root, num_frames=2, stride=1, holdout=0.01).setup("fit")


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no train.csv or train.txt; expected .* Set `root`"):
        Kinetics(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        Kinetics(tmp_path / "none")
    write_csv(tmp_path / "annotations" / "train.csv", [("tai chi", "x", "ten", 20, "train")])
    with pytest.raises(ValueError, match="expected time_start and time_end in seconds"):
        Kinetics(tmp_path)
    with pytest.raises(ValueError, match="num_segments must be at least 1"):
        Kinetics(tmp_path, num_segments=0)


def test_segments_are_transformed_one_by_one_and_views_stand_before_frames(root):
    seen = []
    data = Kinetics(root, "val", lambda x: seen.append(len(x)) or x, num_frames=2, stride=1, num_segments=3)
    clip = data[0]
    assert clip.images.shape == (6, 3, 48, 64)
    assert seen == [2, 2, 2]
    # 6 frames, 3 segments of 2: the second branch, frames 0 and 0 of the pattern, shifted by 2
    assert ((brightness(clip) - brightness(clip)[0]) / 2).round().tolist() == [0, 0, 2, 2, 4, 4]
    views = Kinetics(root, "val", SpatialViews(32, 3), num_frames=2, stride=1, num_segments=3)[0]
    assert views.images.shape == (3, 6, 3, 32, 32)


def test_training_windows_are_random_and_evaluation_is_not(tmp_path):
    write_kinetics(tmp_path, per_class=1, num_frames=40)
    train, val = (Kinetics(tmp_path, split, num_frames=2, stride=4) for split in ("train", "val"))
    assert len({float(brightness(train[SampleKey(epoch, 0)])[0]) for epoch in range(12)}) > 4
    assert torch.equal(train[SampleKey(3, 0)].images, train[SampleKey(3, 0)].images)
    assert all(torch.equal(val[SampleKey(epoch, 0)].images, val[0].images) for epoch in range(3))
    assert brightness(val[0]).round().tolist() == pytest.approx([20 + 2 * 16, 20 + 2 * 23], abs=2)


def test_only_what_a_clip_needs_is_decoded(tmp_path, monkeypatch):
    write_kinetics(tmp_path, per_class=1, num_frames=60)
    decoded = []
    frames = video_decode.Cursor._frames
    monkeypatch.setattr(
        video_decode.Cursor, "_frames", lambda self, n, packet: decoded.append(n) or frames(self, n, packet)
    )
    Kinetics(tmp_path, "val", num_frames=2, stride=2)[0]  # frames 28 and 31, with a key frame every 10
    assert max(decoded) < 40
    assert len(set(decoded)) <= 21


def test_broken_videos_are_replaced_and_counted(root, sample_data):
    source = sample_data / "videos" / "corrupted" / "bikes_truncated.mp4"
    (victim,) = (root / "train").rglob("-_t001*.mp4")
    victim.write_bytes(source.read_bytes())
    data = Kinetics(root, num_frames=2, stride=1, broken_files=BrokenFiles(limit=1))
    clip = data[1]
    assert clip.name != str(victim)
    assert list(data.broken_files.reasons) == [str(victim)]
    with pytest.raises(ValueError, match=re.escape(str(victim))):
        Kinetics(root, num_frames=2, stride=1, broken_files=BrokenFiles(limit=0))[1]


def test_real_videos(tmp_path, sample_data):
    videos = {
        "arm wrestling": "mmaction2/demo.mp4", "cleaning pool": "mmaction2/test.mp4",
        "flipping pancake": "decord/flipping_a_pancake.mkv",
    }  # fmt: skip
    rows = []
    for number, (label, file) in enumerate(videos.items()):
        source = sample_data / "videos" / file
        name = f"sample{number:05d}"
        target = tmp_path / "val" / f"{name}_000000_000010{source.suffix}"
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(source)
        rows.append((label, name, 0, 10, "val"))
    write_csv(tmp_path / "annotations" / "val.csv", rows)
    data = Kinetics(tmp_path, "val", SpatialViews(32, 3), num_segments=2)
    for index in range(3):
        assert data[index].images.shape == (3, 32, 3, 32, 32)
        assert data[index].images.float().std() > 20
