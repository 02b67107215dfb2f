"""Frames per second of the whole `omnistream stream` command on a generated video."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

FRAMES_PER_SECOND = 30
WINDOW = 16


def write_video(path, num_frames, size):
    """A square MPEG-4 video of a drifting gradient, every frame different."""
    rows, columns = np.mgrid[:size, :size]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for index in range(num_frames):
            channels = (rows + 3 * index, columns - 2 * index, rows + columns + index)
            image = np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def command_speed(variant, size, num_frames, device, threads, timeout):
    """One line: frames per second that the command reports in summary.json, or why there are none."""
    environment = {"GOMP_SPINCOUNT": "20000", **os.environ, "OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        video, out = Path(folder) / "video.mp4", Path(folder) / "out"
        write_video(video, num_frames, size)
        options = ["--random", "--variant", variant, "--size", str(size), "--window", str(WINDOW)]
        command = [sys.executable, "-m", "omnistream", "stream", str(video), *options, "--out", str(out)]
        shown = " ".join(["omnistream stream VIDEO", *options, "--out DIR"])
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"`{shown}`: not run to the end, took longer than {timeout:.0f} s"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"`{shown}`: not run, the command ended with {done.returncode}: {last}"
        speed = json.loads((out / "summary.json").read_text())["frames_per_second"]
        written = ", ".join(sorted(file.name for file in out.iterdir()))
    return f"`{shown}`, {num_frames} frames of a {size} px video, wrote {written}: {speed:.2f} frames/s"
