"""Late frames of a ring are timed after all frames before them were encoded."""

from argparse import Namespace

import pytest
import streaming
from streaming_rows import parse_row

WINDOW = 4
ARGUMENTS = Namespace(rows=[parse_row(f"ring{WINDOW}-fp32")], variant="vit_nano", device="cpu")


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


@pytest.fixture
def compiling(sessions, monkeypatch):
    """Frames take 100 s each while the window fills, as if they were compiled, and then 1 s each."""
    now = [0.0]

    def slow(backbone, row, open_session=streaming.open_session):
        session = open_session(backbone, row)

        def step(frames, step=session.step):
            now[0] += 100 if int(session.frame_indices.sum()) <= WINDOW else 1
            return step(frames)

        session.step = step
        return session

    monkeypatch.setattr(streaming, "open_session", slow)
    monkeypatch.setattr(streaming, "time", Namespace(perf_counter=lambda: now[0]))


def test_compilation_is_not_taken_for_the_time_of_every_frame(compiling, sessions, monkeypatch):
    monkeypatch.setattr(streaming, "FLATNESS_LIMIT", 19)  # 25 frames in all, 6 of them before the first estimate
    assert "seconds" in streaming.flatness_child(ARGUMENTS, 16)
    monkeypatch.setattr(streaming, "FLATNESS_LIMIT", 18)
    assert "about 19 s, more than 18 s" in streaming.flatness_child(ARGUMENTS, 16)["note"]
    assert [session.frame_indices.tolist() for session in sessions] == [[10], [15], [6]]
