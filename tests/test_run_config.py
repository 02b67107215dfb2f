"""A run folder stands for its checkpoint, wherever a checkpoint is asked for."""

import os
from pathlib import Path

import pytest

from omnistream.run_config import find_checkpoint, list_checkpoints, newest_checkpoint


def write(path: Path, seconds: int) -> Path:
    """An empty file of a given age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def run(tmp_path):
    """A run with two milestones; the later one was written first, as after copying."""
    folder = tmp_path / "runs" / "version_0"
    write(folder / "checkpoints" / "step=200.ckpt", 10)
    write(folder / "checkpoints" / "step=100.ckpt", 20)
    return folder


def test_a_file_is_itself(run):
    path = run / "checkpoints" / "step=200.ckpt"
    assert find_checkpoint(str(path)) == path


def test_last_comes_first_then_the_newest(run):
    assert find_checkpoint(run).name == "step=100.ckpt"
    last = write(run / "checkpoints" / "last.ckpt", 5)
    assert find_checkpoint(run) == last
    assert find_checkpoint(run / "checkpoints") == last
    newer = write(run / "checkpoints" / "last-v1.ckpt", 6)
    assert find_checkpoint(run) == newer
    assert [path.name for path in list_checkpoints(run)][:2] == ["step=200.ckpt", "step=100.ckpt"]


def test_a_distributed_checkpoint_is_a_folder(run):
    folder = run / "checkpoints" / "step=300.ckpt"
    write(folder / ".metadata", 30)
    os.utime(folder, (30, 30))
    assert find_checkpoint(folder) == folder
    assert find_checkpoint(run) == folder


def test_tilde_and_variables(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    monkeypatch.setenv("RUN", run.name)
    assert find_checkpoint("~/$RUN") == run / "checkpoints" / "step=100.ckpt"


def test_nothing_there(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no checkpoint and no run folder at {tmp_path / 'gone'}"):
        find_checkpoint(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint \(checkpoints/last.ckpt or .*\) in {tmp_path}"):
        find_checkpoint(tmp_path)


def test_the_newest_of_several_runs(run):
    other = run.parent / "version_1"
    newest = write(other / "checkpoints" / "last.ckpt", 15)
    assert newest_checkpoint([other, run]) == run / "checkpoints" / "step=100.ckpt"
    os.utime(newest, (25, 25))
    assert newest_checkpoint([run, other]) == newest
    assert newest_checkpoint([run.parent / "version_2"]) is None
