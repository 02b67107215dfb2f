import pytest
from omnistream.data.real import find_media
from PIL import Image

from omnistream.data.errors import DatasetNotFoundError


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_sample_folder(sample_data):
    media = find_media(sample_data)
    assert sorted(media.scenes.values()) == [96, 200]
    assert (media.videos.path.name, media.videos.count) == ("videos", 30)
    assert (media.images.path.name, media.images.count) == ("imagenet", 258)
    assert media.report.splitlines()[0] == "scenes: 2 with 296 frames"


def test_frames_of_a_scene_are_no_classes(sample_data):
    media = find_media(sample_data / "rgbd")
    assert len(media.scenes) == 2
    assert media.videos is None
    assert media.images is None
    assert media.report.endswith("videos: none\nimages: none")


def test_the_class_folders_with_most_pictures(tmp_path):
    for name in ("x/cat/0.png", "x/dog/0.png", "y/ant/0.png", "y/bee/0.png", "y/bee/1.png", "single/cat/0.png"):
        picture(tmp_path / name)
    (tmp_path / "clip.mp4").touch()
    media = find_media(tmp_path)
    assert (media.images.path, media.images.count) == (tmp_path / "y", 3)
    assert (media.videos.path, media.videos.count) == (tmp_path, 1)
    assert media.scenes_root is None


def test_nothing(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no scene .*, no video and no folder of class folders"):
        find_media(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_media(tmp_path / "absent")
