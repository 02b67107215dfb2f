"""A stream that fails or is interrupted: what is said, what is left, and what can be broken off."""

import errno
import functools
import json
import os
import resource
import signal
import time

import numpy as np
import pytest
from stream_clips import decoded

from omnistream.cli import main
from omnistream.streaming import outputs
from omnistream.streaming.features import FeatureFiles

RANDOM = ["--random", "--variant", "vit_nano", "--size", "32"]


def ending(capsys, *arguments):
    """Exit code, and the last line on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["stream", *map(str, arguments)])
    return caught.value.code, capsys.readouterr().err.strip().splitlines()[-1]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def full_disk():
    """No file grows past 64 KiB, which a write answers with an error, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("file_format", ["npz", "safetensors"])
def test_a_full_disk(make_video, tmp_path, capsys, monkeypatch, request, file_format):
    monkeypatch.setattr(outputs, "FeatureFiles", functools.partial(FeatureFiles, chunk_bytes=2**17))
    video, out = make_video("clip.mp4", 60), tmp_path / "out"
    request.getfixturevalue("full_disk")
    given = ["--out", out, *RANDOM, "--features", "last,0,1,2,3", "--features-format", file_format, "--fit-frames", 1]
    code, line = ending(capsys, video, *given)
    assert code == 2
    assert line.startswith("omnistream: error: ")
    assert os.strerror(errno.EFBIG) in line
    facts = summary(out)
    assert (facts["ended"], facts["error"]) == ("failed", line.removeprefix("omnistream: error: "))
    assert 0 < facts["frames"] < 60
    assert len(decoded(out / "features_pca.mp4")) >= facts["frames"]
    assert not list(out.rglob("*.tmp"))


class Failing:
    """A writer that cannot write, and then cannot close."""

    def __init__(self, told):
        self.told = told

    def write(self, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self.told.append("closed")
        raise RuntimeError("and now this")

    def summary(self):
        return {}


def test_the_first_error_is_told_and_every_writer_closed(make_video, tmp_path, capsys, monkeypatch):
    told, make, video, out = [], outputs.make_writers, make_video("clip.mp4", 3), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [Failing(told), *make(*given), Failing(told)])
    assert ending(capsys, video, "--out", out, *RANDOM) == (2, "omnistream: error: [Errno 28] No space left on device")
    assert told == ["closed", "closed"]
    assert (summary(out)["ended"], summary(out)["frames"]) == ("failed", 0)


def test_a_disk_without_room_for_the_summary(make_video, tmp_path, capsys, monkeypatch):
    """The error of the stream is told, not that of the summary; an empty one is not left."""
    video, out = make_video("clip.mp4", 3), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [Failing([])])
    monkeypatch.setattr("pathlib.Path.replace", lambda *given: (_ for _ in ()).throw(OSError("no room")))
    assert ending(capsys, video, "--out", out, *RANDOM) == (2, "omnistream: error: [Errno 28] No space left on device")
    assert list(out.iterdir()) == []


class Stuck:
    """A writer whose second step is interrupted twice while it waits."""

    def __init__(self, *times):
        self.times, self.steps = times, 0

    def write(self, step):
        self.steps += 1
        if self.steps == 2:
            for _ in self.times:
                signal.raise_signal(signal.SIGINT)
            time.sleep(1)

    def close(self):
        pass

    def summary(self):
        return {}


def test_interrupted_twice_breaks_off(make_video, tmp_path, capsys, monkeypatch):
    make, video, out = outputs.make_writers, make_video("clip.mp4", 6), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [*make(*given), Stuck(1, 2)])
    assert ending(capsys, video, "--out", out, *RANDOM, "--features", "cls") == (130, "omnistream: interrupted")
    assert (summary(out)["ended"], summary(out)["frames"]) == ("interrupted", 1)
    assert "error" not in summary(out)
    assert len(decoded(out / "features_pca.mp4")) == 2
    assert len(np.load(out / "features.npz")["cls_00000000"]) == 2
