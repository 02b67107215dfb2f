import pytest
from PIL import Image

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.media_folder import find_media


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_sample_folder(sample_data):
    media = find_media(sample_data)
    assert sorted(media.scenes.values()) == [96, 200]
    assert (media.videos.path.name, media.videos.count) == ("videos", 30)
    assert (media.images.path.name, media.images.count) == ("imagenet", 258)
    assert media.summary.splitlines()[0] == "scenes: 2 with 296 frames"


def test_frames_of_a_scene_are_not_classes(sample_data):
    media = find_media(sample_data / "rgbd")
    assert len(media.scenes) == 2
    assert media.videos is None
    assert media.images is None
    assert media.summary.endswith("videos: none\nimages: none")


def test_the_class_folders_with_most_images(tmp_path):
    for name in ("x/cat/0.png", "x/dog/0.png", "y/ant/0.png", "y/bee/0.png", "y/bee/1.png", "single/cat/0.png"):
        save_image(tmp_path / name)
    (tmp_path / "clip.mp4").touch()
    media = find_media(tmp_path)
    assert (media.images.path, media.images.count) == (tmp_path / "y", 3)
    assert (media.videos.path, media.videos.count) == (tmp_path, 1)
    assert media.scenes == {}


def test_links_are_followed(tmp_path):
    for name in ("store/cat/0.png", "store/dog/0.png"):
        save_image(tmp_path / name)
    (tmp_path / "set").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").touch()
    (tmp_path / "set" / "videos").symlink_to(tmp_path / "videos")
    media = find_media(tmp_path / "set")
    assert (media.images.path, media.images.count) == (tmp_path / "set", 2)
    assert (media.videos.path, media.videos.count) == (tmp_path / "set" / "videos", 1)


def test_the_root_may_start_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "clip.mp4").touch()
    assert find_media("~/x").videos.path == tmp_path / "x"


def test_a_folder_without_media(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no scene, no video and no folder .* Set `root`"):
        find_media(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_media(tmp_path / "absent")
