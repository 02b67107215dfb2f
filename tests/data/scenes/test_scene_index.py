import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from omnistream.data.path_table import StringTable
from omnistream.data.scenes import DeepVideoMVS, SceneFolder, SceneSequence, TSDFFusion, index_cache
from omnistream.data.scenes import reader as reader_module
from omnistream.data.scenes.index_cache import SceneIndex, load_index, save_index


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNISTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scenes"


@pytest.fixture
def root(tmp_path, write_scene):
    write_scene("deep_video_mvs", tmp_path / "data" / "a", num_frames=4)
    write_scene("deep_video_mvs", tmp_path / "data" / "b", num_frames=3)
    return tmp_path / "data"


class Counting(DeepVideoMVS):
    """Records how often it looked at a sequence."""

    opened = 0

    def open_sequence(self, path):
        Counting.opened += 1
        return super().open_sequence(path)


def opened(root):
    """Number of sequences that a new reader had to look at, and what it found."""
    Counting.opened = 0
    found = {sequence.name: list(sequence.frames) for sequence in Counting(root).index()}
    return Counting.opened, found


FOUND = {"a": ["00003.png", "00004.png", "00005.png", "00006.png"], "b": ["00003.png", "00004.png", "00005.png"]}


def test_a_tree_that_did_not_change_is_not_searched_again(root):
    assert opened(root) == (2, FOUND)
    assert opened(root) == (0, FOUND)
    link = root.parent / "link"
    link.symlink_to(root)
    assert opened(link) == (0, FOUND)


def remove_depth(root, write_scene):
    (root / "a" / "depth" / "00004.png").unlink()


def edit_poses(root, write_scene):
    path = root / "a" / "poses.txt"
    before = path.stat()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace("e", "E"), *lines[2:]]) + "\n")  # same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same time


def add_sequence(root, write_scene):
    write_scene("deep_video_mvs", root / "c", num_frames=3)


def rename_sequence(root, write_scene):
    (root / "b").rename(root / "z")


def link_sequence(root, write_scene):
    write_scene("deep_video_mvs", root.parent / "elsewhere", num_frames=3)
    (root / "link").symlink_to(root.parent / "elsewhere")


def replace_depth(root, write_scene):
    path = root / "a" / "depth" / "00004.png"
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").rename(path)


CHANGES = [remove_depth, edit_poses, add_sequence, rename_sequence, link_sequence, replace_depth]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tree_is_searched_again(root, write_scene, change):
    opened(root)
    change(root, write_scene)
    count, found = opened(root)
    assert count >= 2
    assert opened(root) == (0, found)


def test_files_of_single_frames_are_not_looked_at(tmp_path, write_scene, monkeypatch):
    root = tmp_path / "data"
    write_scene("tsdf_fusion", root / "a", num_frames=3)
    write_scene("scannet", root / "scene0000_00", num_frames=3)
    seen = []
    state = index_cache._state
    monkeypatch.setattr(index_cache, "_state", lambda path: seen.append(path) or state(path))
    SceneFolder(root).index()
    files = {path.relative_to(root).as_posix() for path in seen if path.is_file()}
    intrinsics = {f"scene0000_00/intrinsic/intrinsic_{kind}.txt" for kind in ("color", "depth")}
    assert files == {"a/camera-intrinsics.txt", *intrinsics}
    assert {path for path in seen if path.is_dir()} == {root, *(path for path in root.rglob("*") if path.is_dir())}


@pytest.mark.parametrize("name", ["a/camera-intrinsics.txt", "scene0000_00/intrinsic/intrinsic_depth.txt"])
def test_a_rewritten_description_is_noticed(tmp_path, write_scene, name):
    root = tmp_path / "data"
    write_scene("tsdf_fusion", root / "a", num_frames=3)
    write_scene("scannet", root / "scene0000_00", num_frames=3)
    assert len(SceneFolder(root).index()) == 2
    (root / name).write_text("x")
    reader = SceneFolder(root)
    assert len(reader.index()) == 1
    assert [path for path, _ in reader.broken] == [str(root / name)]


def test_a_reader_looks_once(root, monkeypatch):
    walks = []
    signature = reader_module.tree_signature
    monkeypatch.setattr(reader_module, "tree_signature", lambda *given: walks.append(given) or signature(*given))
    reader = DeepVideoMVS(root)
    assert reader.index() is reader.index()
    assert len(walks) == 1


def test_what_changed_is_found(root, write_scene):
    opened(root)
    remove_depth(root, write_scene)
    assert opened(root)[1]["a"] == ["00003.png", "00005.png", "00006.png"]
    (root / "a" / "depth" / "00004.png").touch()
    assert len(opened(root)[1]["a"]) == 4


def test_readers_splits_and_versions_have_separate_indexes(root, cache):
    DeepVideoMVS(root).index()
    with pytest.raises(FileNotFoundError):
        TSDFFusion(root).index()
    opened(root)
    assert len(list(cache.glob("*.npz"))) == 3
    newer = type("Counting", (Counting,), {"index_version": 2, "__module__": Counting.__module__})
    newer(root).index()
    assert len(list(cache.glob("*.npz"))) == 4


def test_broken_sequences_are_remembered(root):
    (root / "b" / "K.txt").write_text("x")
    for _ in range(2):
        reader = Counting(root)
        assert [sequence.name for sequence in reader.index()] == ["a"]
        assert [path for path, _ in reader.broken] == [str(root / "b" / "K.txt")]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_a_damaged_index_is_rebuilt(root, cache, content):
    opened(root)
    (path,) = cache.glob("*.npz")
    path.write_bytes(content)
    assert opened(root) == (2, FOUND)
    assert opened(root) == (0, FOUND)


def test_a_truncated_index_is_rebuilt(root, cache):
    opened(root)
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-40])
    assert opened(root) == (2, FOUND)


def test_pickles_are_not_loaded(root, cache):
    opened(root)
    (path,) = cache.glob("*.npz")
    np.savez(path, signature=np.array([print], dtype=object), allow_pickle=True)
    assert opened(root) == (2, FOUND)
    path.write_bytes(pickle.dumps({}))
    assert opened(root) == (2, FOUND)


def test_a_read_only_cache_is_not_an_error(root, cache):
    cache.parent.mkdir(parents=True)
    cache.touch()  # a file where the folder should be
    assert opened(root) == (2, FOUND)
    assert opened(root) == (2, FOUND)


def index_with(number):
    frames = StringTable.of(f"{number}-{i}" for i in range(500))
    return SceneIndex([SceneSequence(f"s{number}", frames, is_video=number % 2 == 0, is_metric=False)], [("p", "r")])


def write_often(path, number):
    for _ in range(10):
        save_index(Path(path), "same", index_with(number))


def test_concurrent_writers_leave_a_valid_index(tmp_path):
    path = tmp_path / "index.npz"
    save_index(path, "same", index_with(0))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(str(path), number)) for number in range(3)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers) or reads < 5:
        index = load_index(path, "same")
        assert index is not None  # never half a file
        number = int(index.sequences[0].name[1:])
        assert list(index.sequences[0].frames[:3]) == [f"{number}-0", f"{number}-1", f"{number}-2"]
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["index.npz"]  # no drafts are left


def test_an_index_is_read_as_written(tmp_path):
    index = SceneIndex(
        [SceneSequence("a/ü", StringTable.of(["1", "", "2"]), False, True), SceneSequence("b", StringTable.of(["x"]))],
        [("p/q", "is broken"), ("r", "too")],
    )
    save_index(tmp_path / "i.npz", "s", index)
    loaded = load_index(tmp_path / "i.npz", "s")
    assert load_index(tmp_path / "i.npz", "t") is None
    assert loaded.broken == index.broken
    assert [(s.name, list(s.frames), s.is_video, s.is_metric, s.num_frames) for s in loaded.sequences] == [
        ("a/ü", ["1", "", "2"], False, True, 3),
        ("b", ["x"], True, True, 1),
    ]
