import logging
import os
from pathlib import Path

import numpy as np
import pytest

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import VIDEO_SUFFIXES, dataset_root, find_files, walk_folders
from omnistream.data.path_table import PathTable, Selection, StringTable
from tests.data.media.video_matrix import recipes


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root):
    return [path.relative_to(root).as_posix() for path in find_files(root, {".png"})]


def test_files_by_suffix_folder_by_folder_in_order(tmp_path):
    touch(tmp_path, "b/2.png", "b/10.PNG", "b/x.txt", "a/c/1.png", "a.b/1.png", "z.png", ".hidden/1.png", "b/.2.png")
    (tmp_path / "d.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert found(tmp_path) == ["z.png", "a/c/1.png", "a.b/1.png", "b/10.PNG", "b/2.png"]


def test_every_container_that_is_read_is_found(tmp_path):
    assert {f".{recipe.suffix}" for recipe in recipes().values()} <= VIDEO_SUFFIXES
    names = ["00001.MTS", "00002.m2ts", "a.asf", "a.f4v", "a.mxf", "a.ogg", "a.ogv", "a.vob", "b.3g2", "b.M2V"]
    touch(tmp_path, "x.txt", *names)
    assert [path.name for path in find_files(tmp_path, VIDEO_SUFFIXES)] == names


def test_links_to_folders_are_followed_once(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path, "store/cat/1.png", "root/real/1.png")
    (root / "one").symlink_to(tmp_path / "store" / "cat")
    (root / "two").symlink_to(tmp_path / "store" / "cat")
    (root / "a_link_to_real").symlink_to(root / "real")
    (root / "chain").symlink_to(root / "two")
    assert found(root) == ["chain/1.png", "real/1.png"]  # a real folder keeps its name, else the first link counts


def test_links_that_are_left_out_are_named(tmp_path, caplog):
    root = tmp_path / "ds"
    touch(tmp_path, "store/cat/1.png", "store/cat/young/2.png", "ds/dog/3.png")
    (root / "cat").symlink_to(tmp_path / "store" / "cat")
    (root / "kitten").symlink_to(tmp_path / "store" / "cat")
    (root / "young").symlink_to(tmp_path / "store" / "cat" / "young")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # named once
            assert found(root) == ["cat/1.png", "cat/young/2.png", "dog/3.png"]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{root}/kitten leads to the same folder as {root}/cat and is left out")
    assert second.startswith(f"{root}/young leads to the same folder as {root}/cat/young and is left out")


def test_circular_links_are_followed_once(tmp_path, caplog):
    root = tmp_path / "root"
    touch(root, "a/1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "itself").symlink_to(root / "a")
    (root / "x").symlink_to(root / "y")
    (root / "y").symlink_to(root / "x")
    assert found(root) == ["a/1.png"]
    assert not caplog.records  # nothing is left out


def test_a_link_above_the_root_does_not_repeat_it(tmp_path):
    touch(tmp_path, "root/1.png", "beside/2.png")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    assert found(tmp_path / "root") == ["1.png", "up/beside/2.png"]


def test_a_linked_folder_may_link_on(tmp_path):
    touch(tmp_path, "first/1.png", "second/2.png", "root/0.png")
    (tmp_path / "first" / "next").symlink_to(tmp_path / "second")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "first")
    assert found(tmp_path / "root") == ["0.png", "linked/1.png", "linked/next/2.png"]


def test_the_root_may_be_a_link(tmp_path):
    touch(tmp_path, "store/1.png")
    (tmp_path / "root").symlink_to(tmp_path / "store")
    assert found(tmp_path / "root") == ["1.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_folders_that_may_not_be_listed_are_reported(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a").chmod(0)
    try:
        with caplog.at_level(logging.WARNING):
            assert found(tmp_path) == ["b/1.png"]
    finally:
        (tmp_path / "a").chmod(0o700)
    assert "a may not be listed; its files are left out" in caplog.text


def test_walk_gives_every_folder_with_its_files(tmp_path):
    touch(tmp_path, "b/2", "b/1", "c/d/3")
    assert dict(walk_folders(tmp_path)) == {"": [], "b": ["1", "2"], "c": [], "c/d": ["3"]}


def test_a_missing_root_says_what_was_expected_and_what_to_change(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such folder: .*/x; expected a zoo. Set `home` to such"):
        dataset_root(tmp_path / "x", "a zoo", "home")
    again = DatasetNotFoundError("a message from a worker process")
    assert str(again) == "a message from a worker process"


STRINGS = ["", "a", "ü" * 90, "x" * 255, *(f"frame-{i:06d}.png" for i in range(200)), os.fsdecode(b"\xff\xfe")]


@pytest.mark.parametrize("strings", [[], ["one"], STRINGS, STRINGS[:64], STRINGS[:65], ["y" * 300, *STRINGS]])
def test_string_tables_give_back_what_they_hold(strings):
    table = StringTable.of(strings)
    assert list(table) == strings
    assert table[1:3] == strings[1:3]
    if strings:
        assert table[-1] == strings[-1]
    with pytest.raises(IndexError):
        table[len(strings)]


def test_path_tables_take_little_more_than_the_bytes_of_the_names(tmp_path):
    """113 million images with names like ImageNet's take 2.5 GB, which all workers share, not 44 GB in each."""
    names = [[f"n{c:08d}_{i * 7919 % 10**6:06d}.JPEG" for i in range(1300)] for c in range(40)]
    folders = [f"collection/of/many/images/train/n{c:08d}" for c in range(40)]
    table = PathTable(
        root=tmp_path,
        folders=StringTable.of(folders),
        first=np.arange(41) * 1300,
        names=StringTable.of(name for group in names for name in group),
    )
    name_bytes = len(names[0][0])
    assert len(table) == 40 * 1300
    assert table.nbytes / len(table) < name_bytes + 1.25
    assert table[1300 * 7 + 5] == tmp_path / folders[7] / names[7][5]
    assert [table.positions(folder) for folder in (0, 39)] == [range(1300), range(39 * 1300, 40 * 1300)]
    assert not any(isinstance(value, list | dict) for value in vars(table).values())


def test_a_table_of_found_files_is_as_small(tmp_path):
    touch(
        tmp_path,
        *(f"a_folder_with_a_long_name/{i // 250}/a_name_of_thirty_two_letters{i:04d}.png" for i in range(1000)),
    )
    table = find_files(tmp_path, {".png"})
    assert len(table) == 1000
    assert table.nbytes / len(table) < 36 + 2


def test_a_selection_shares_the_table(tmp_path):
    touch(tmp_path, *(f"{folder}/{i}.png" for folder in "ab" for i in range(5)))
    table = find_files(tmp_path, {".png"})
    part = Selection(table, range(1, 10, 4))
    assert list(part) == [tmp_path / "a/1.png", tmp_path / "b/0.png", tmp_path / "b/4.png"]
    assert [part.folder(i) for i in range(3)] == ["a", "b", "b"]
    assert part[1:] == [tmp_path / "b/0.png", tmp_path / "b/4.png"]
    assert part.table is table
    assert isinstance(part[0], Path)
