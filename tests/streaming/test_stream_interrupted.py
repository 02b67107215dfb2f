"""Ctrl-C at every point of `omnistream stream`, run in separate processes."""

import http.server
import re
import signal
import threading
import time

import numpy as np
from stream_clips import decoded
from stream_runs import RANDOM, process, summary


def test_ctrl_c_leaves_complete_files(trained, make_video, tmp_path):
    video, out = make_video("clip.mp4", 5000), tmp_path / "out"
    arguments = ["--checkpoint", trained, "--out", out, "--window", 4, "--size", 32, "--features", "cls"]
    running = process(["-m", "omnistream", "stream", video, *arguments, "--fit-frames", 1], tmp_path)
    try:
        deadline = time.monotonic() + 600  # only a hang takes this long, also on a starved machine
        while not ((out / "points.ply").exists() and (out / "depth.mp4").exists()):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=600)
    finally:
        running.kill()
    assert running.returncode == 0, stderr
    assert "interrupted" in stdout
    facts = summary(out)
    count = facts["frames"]
    assert 0 < count < 5000
    assert len(decoded(out / "features_pca.mp4")) == len(decoded(out / "depth.mp4")) == count
    with np.load(out / "features.npz", allow_pickle=False) as stored:
        assert sum(len(stored[name]) for name in stored.files if name.startswith("cls")) == count
    header, _, body = (out / "points.ply").read_bytes().partition(b"end_header\n")
    points = int(re.search(rb"element vertex (\d+)", header)[1])
    assert len(body) == points * 19 > 0
    assert len(np.loadtxt(out / "poses.txt", ndmin=2)) == facts["files"]["poses.txt"]["poses"]


class SilentServer(http.server.ThreadingHTTPServer):
    """Sends its data, and then nothing until it is closed."""

    def __init__(self, content=b""):
        server, self.sent, self.over = self, threading.Event(), threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if content:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(content)
                server.sent.set()
                server.over.wait(600)  # only a hang takes this long

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server_port}/clip.ts"

    def __exit__(self, *exception):
        self.over.set()
        self.shutdown()
        super().__exit__(*exception)


def test_ctrl_c_while_an_address_is_silent(make_video, tmp_path):
    """The process ends while its thread still waits in FFmpeg."""
    content, out = make_video("clip.ts", 400, codec="mpeg2video").read_bytes(), tmp_path / "out"
    with SilentServer(content) as server:
        options = [*RANDOM, "--fit-frames", 1, "--chunk", 8, "--features", "cls", "--timeout", 600]
        running = process(["-m", "omnistream", "stream", server.address, "--out", out, *options], tmp_path)
        try:
            while not ((out / "features_pca.mp4").exists() and server.sent.is_set()):
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            stdout, stderr = running.communicate(timeout=300)
        finally:
            running.kill()
    assert running.returncode == 0, stderr
    assert "(interrupted)" in stdout
    with np.load(out / "features.npz", allow_pickle=False) as stored:
        assert sum(len(stored[name]) for name in stored.files if name.startswith("cls")) == summary(out)["frames"] > 0


def test_ctrl_c_while_an_address_is_opened(tmp_path):
    with SilentServer() as server:
        options = ["--out", tmp_path / "out", *RANDOM, "--timeout", 600]
        running = process(["-m", "omnistream", "stream", server.address, *options], tmp_path)
        try:
            assert server.sent.wait(300)
            running.send_signal(signal.SIGINT)
            _, stderr = running.communicate(timeout=300)
        finally:
            running.kill()
    assert (running.returncode, stderr) == (130, "omnistream: interrupted\n")
    assert not (tmp_path / "out").exists()
