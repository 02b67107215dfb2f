"""Streams that fail or are interrupted: messages, the files that are left, and stopping at once."""

import errno
import functools
import http.server
import json
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
import torch
from stream_clips import decoded

from omnistream.backbone import create_model
from omnistream.cli import main
from omnistream.streaming import Frame, StreamOptions, outputs, run_stream
from omnistream.streaming.features import FeatureFiles
from omnistream.streaming.problems import Problems

RANDOM = ["--random", "--variant", "vit_nano", "--size", "32"]


def ending(capsys, *arguments):
    """Exit code, and the last line on stderr."""
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:  # the latter would end pytest
        main(["stream", *map(str, arguments)])
    assert isinstance(caught.value, SystemExit)
    return caught.value.code, capsys.readouterr().err.strip().splitlines()[-1]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def vit_nano():
    return create_model("vit_nano").eval()


@pytest.fixture
def full_disk():
    """Limits files to 64 KiB: a larger write fails as on a full disk."""
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

    def __init__(self, events):
        self.events = events

    def write(self, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self.events.append("closed")
        raise RuntimeError("and now this")

    def summary(self):
        return {}


def test_the_first_error_is_reported_and_every_writer_closed(make_video, tmp_path, capsys, monkeypatch):
    events, make, video, out = [], outputs.make_writers, make_video("clip.mp4", 3), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [Failing(events), *make(*given), Failing(events)])
    assert ending(capsys, video, "--out", out, *RANDOM) == (2, "omnistream: error: [Errno 28] No space left on device")
    assert events == ["closed", "closed"]
    assert (summary(out)["ended"], summary(out)["frames"]) == ("failed", 0)


class Interrupted(Failing):
    """A writer that is interrupted while it closes."""

    def write(self, step):
        pass

    def close(self):
        self.events.append("interrupted")
        raise KeyboardInterrupt


def test_ctrl_c_while_writers_close_leaves_none_open(make_video, tmp_path, capsys, monkeypatch):
    events, make, video, out = [], outputs.make_writers, make_video("clip.mp4", 3), tmp_path / "out"
    writers = [Interrupted(events), Interrupted(events)]
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [*writers, *make(*given)])
    assert ending(capsys, video, "--out", out, *RANDOM, "--features", "cls") == (130, "omnistream: interrupted")
    assert events == ["interrupted", "interrupted"]
    assert (summary(out)["ended"], summary(out)["frames"]) == ("interrupted", 3)
    assert len(np.load(out / "features.npz")["cls_00000000"]) == 3


def test_a_disk_without_room_for_the_summary(make_video, tmp_path, capsys, monkeypatch):
    """The error of the stream is reported rather than that of the summary, and no empty summary is left."""
    video, out = make_video("clip.mp4", 3), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [Failing([])])
    monkeypatch.setattr("pathlib.Path.replace", lambda *given: (_ for _ in ()).throw(OSError("no room")))
    assert ending(capsys, video, "--out", out, *RANDOM) == (2, "omnistream: error: [Errno 28] No space left on device")
    assert list(out.iterdir()) == []


class Silent:
    """Three frames, then nothing until it is released."""

    name, fps, total = "silent", 30.0, None

    def __init__(self):
        self.over, self.interrupted = threading.Event(), None

    def __iter__(self):
        for i in range(3):
            yield Frame(i, i / 30, torch.full((3, 16, 16), 50 * i, dtype=torch.uint8))
        os.kill(os.getpid(), signal.SIGINT)
        self.interrupted = self.over.wait(30)  # only a hang takes this long

    def close(self):
        pass


class Counting:
    def __init__(self):
        self.steps = []

    def write(self, step):
        self.steps.append([frame.index for frame in step.frames])

    def close(self):
        pass

    def summary(self):
        return {}


def test_stopping_while_the_source_is_silent_keeps_the_frames_so_far(vit_nano):
    source, writer = Silent(), Counting()
    reading = set(threading.enumerate())
    options = StreamOptions(size="16", chunk=2)
    result = run_stream(vit_nano, source, lambda: [writer], options, Problems(), progress=False)
    source.over.set()
    for thread in set(threading.enumerate()) - reading:
        thread.join(30)
    assert source.interrupted
    assert result.ended == "interrupted"
    assert writer.steps == [[0, 1], [2]]


def test_stopping_before_the_first_frame_of_a_silent_source(vit_nano):
    class Mute(Silent):
        def __iter__(self):
            os.kill(os.getpid(), signal.SIGINT)
            self.over.wait(30)
            yield from ()

    source = Mute()
    with pytest.raises(KeyboardInterrupt):
        run_stream(vit_nano, source, list, StreamOptions(), Problems(), progress=False)
    source.over.set()


def test_a_stop_within_a_chunk(vit_nano):
    class Interrupted(Silent):
        def __iter__(self):
            for i in range(6):
                if i == 3:
                    signal.raise_signal(signal.SIGINT)
                yield Frame(i, i / 30, torch.full((3, 16, 16), 50, dtype=torch.uint8))

    writer = Counting()
    options = StreamOptions(size="16", chunk=100)
    result = run_stream(vit_nano, Interrupted(), lambda: [writer], options, Problems(), progress=False)
    assert result.ended == "interrupted"
    assert 3 <= result.frames < 6
    assert writer.steps == [list(range(result.frames))]


def test_an_error_of_the_source_is_the_error_of_the_stream(vit_nano):
    class Broken(Silent):
        def __iter__(self):
            yield Frame(0, 0.0, torch.zeros(3, 16, 16, dtype=torch.uint8))
            raise ValueError("no more")

    results = []
    with pytest.raises(ValueError, match="no more"):
        run_stream(vit_nano, Broken(), list, StreamOptions(), Problems(), finish=results.append, progress=False)
    assert [(result.ended, result.error, result.frames) for result in results] == [("failed", "no more", 1)]


def test_an_address_that_falls_silent(make_video, tmp_path, capsys):
    """FFmpeg waits for data with a timeout of ten minutes; Ctrl-C does not."""
    content = make_video("clip.ts", 400, codec="mpeg2video").read_bytes()
    over, interrupted = threading.Event(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(content)))
            self.end_headers()
            self.wfile.write(content)
            while not list(tmp_path.glob("out/features_pca.mp4")) and not over.wait(0.05):
                pass
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.append(over.wait(60))  # only a hang takes this long

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/clip.ts"
        try:
            main(["stream", address, "--out", str(tmp_path / "out"), *RANDOM, "--fit-frames", "1", "--timeout", "600"])
        finally:
            over.set()
            server.shutdown()
    assert interrupted == [True]
    assert "interrupted" in capsys.readouterr().out
    assert 0 < summary(tmp_path / "out")["frames"] <= 400


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


def test_a_second_interrupt_stops_at_once(make_video, tmp_path, capsys, monkeypatch):
    make, video, out = outputs.make_writers, make_video("clip.mp4", 6), tmp_path / "out"
    monkeypatch.setattr(outputs, "make_writers", lambda *given: [*make(*given), Stuck(1, 2)])
    assert ending(capsys, video, "--out", out, *RANDOM, "--features", "cls") == (130, "omnistream: interrupted")
    assert (summary(out)["ended"], summary(out)["frames"]) == ("interrupted", 1)
    assert "error" not in summary(out)
    assert len(decoded(out / "features_pca.mp4")) == 2
    assert len(np.load(out / "features.npz")["cls_00000000"]) == 2
