"""The progress bar of a stream."""

import io
import re
import sys

import pytest
import torch

from omnistream.backbone import create_model
from omnistream.streaming import Frame, StreamOptions, run_stream
from omnistream.streaming.problems import Problems


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Grey:
    name, fps = "grey", 30.0

    def __init__(self, total):
        self.total = total

    def __iter__(self):
        for i in range(4):
            yield Frame(i, i / 30, torch.full((3, 16, 16), 128, dtype=torch.uint8))

    def close(self):
        pass


SPEED = r", +[\d.]+ frames/s, \d+ MiB\]"


@pytest.mark.parametrize(
    ("total", "limit", "shown"),
    [
        (50, 4, r"stream: 100%\|.*\| 4/4 frames \[\d\d:\d\d<00:00" + SPEED),
        (None, None, r"stream: 4 frames \[\d\d:\d\d" + SPEED),
    ],
)
def test_progress_bar(total, limit, shown, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    options = StreamOptions(size="16", max_frames=limit)
    run_stream(create_model("vit_nano").eval(), Grey(total), list, options, Problems(print))
    assert re.fullmatch(shown, terminal.getvalue().rstrip().rsplit("\r", 1)[-1])
