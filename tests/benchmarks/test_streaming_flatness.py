"""Late frames of a ring are timed after all frames before them were encoded."""

from argparse import Namespace

import pytest
import streaming
from streaming_rows import parse_row

ARGUMENTS = Namespace(rows=[parse_row("ring4-fp32")], variant="vit_nano", device="cpu")


@pytest.fixture
def sessions(monkeypatch):
    """The sessions that were opened, in a measurement that is short."""
    opened = []

    def noted(backbone, row, open_session=streaming.open_session):
        opened.append(open_session(backbone, row))
        return opened[-1]

    monkeypatch.setattr(streaming, "open_session", noted)
    monkeypatch.setattr(streaming, "FLATNESS_STARTS", (7, 12))
    monkeypatch.setattr(streaming, "FLATNESS_FRAMES", 3)
    return opened


def test_every_frame_is_encoded(sessions):
    seconds = streaming.flatness_child(ARGUMENTS, 16)["seconds"]
    assert {start: len(times) for start, times in seconds.items()} == {"7": 3, "12": 3}
    assert [session.frame_indices.tolist() for session in sessions] == [[10], [15]]


def test_what_would_take_too_long_says_so(sessions, monkeypatch):
    monkeypatch.setattr(streaming, "FLATNESS_LIMIT", 0)
    assert "more than 0 s" in streaming.flatness_child(ARGUMENTS, 16)["note"]
    assert sessions[0].frame_indices.tolist() == [6]  # an estimate is made once the window is full
