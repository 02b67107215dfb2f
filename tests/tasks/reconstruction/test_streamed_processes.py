"""Evaluations of streams over processes, and over thousands of frames."""

import re
from pathlib import Path

import pytest
from processes import run_python

from omnistream.evaluation import EvaluationResult

SCRIPT = str(Path(__file__).with_name("streamed_runs.py"))


def comparable(row):
    """All but what a clock says."""
    return row | {"details": {key: value for key, value in row["details"].items() if key != "seconds_per_frame"}}


@pytest.mark.parametrize("count", [2])
def test_processes_share_the_videos_and_give_the_table_of_one(tmp_path, count):
    folders = {devices: tmp_path / str(devices) for devices in (1, count)}
    for devices, folder in folders.items():
        printed = run_python([SCRIPT, "shared", str(folder), str(devices)], tmp_path)
        assert "sync_dist" not in printed  # Lightning's warning, once for every metric
    for name in ("depth", "pose"):
        one, several = (EvaluationResult.read(folder / name / "results.json") for folder in folders.values())
        assert several.metrics == one.metrics
        assert (several.num_samples, several.skipped, several.environment["processes"]) == (5, 0, count)
        rows, expected = several.settings["sequences"], one.settings["sequences"]
        assert [row["name"] for row in rows] == [f"test/{index:03d}" for index in range(5)]  # each once
        assert list(map(comparable, rows)) == list(map(comparable, expected))
        assert len(list((folders[count] / name / "sequences").glob("*.json"))) == 5


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    """2,000 frames take no more than a few; without a window, their features alone would be 30 MiB of cache."""
    peaks, caches = [], []
    for frames in (50, 2000):
        found = re.search(r"peak (\d+) cache (\d+)", run_python([SCRIPT, "long", str(frames)], tmp_path, timeout=900))
        peaks.append(int(found[1]))
        caches.append(int(found[2]))
    assert caches[0] == caches[1]
    assert peaks[1] < peaks[0] + 25
