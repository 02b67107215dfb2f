"""Tables, interleaving, peak memory, plans and verdicts."""

from argparse import Namespace
from itertools import count
from pathlib import Path

import av
import common
import pytest
from common import child, interleaved, markdown_table
from floor import Rates
from stream_command import write_video
from streaming import groups_that_fit, plan
from streaming_bounds import bounds
from streaming_report import Results, report, size_table
from streaming_rows import parse_row

PEAKS = """
import torch
from common import PeakMemory

peak = PeakMemory("cpu")
torch.ones(64 * 2**18)  # 64 MiB, dropped at once
freed = peak.added()
peak.restart()
print(json.dumps([freed, peak.added()]))
"""


def test_markdown_table():
    assert markdown_table(["", "T = 16"], [["a|b", "1.0 ms"]]) == [
        "|  | T = 16 |",
        "| --- | --- |",
        "| a\\|b | 1.0 ms |",
    ]
    with pytest.raises(ValueError, match="needs 2 cells, got 1"):
        markdown_table(["", "T = 16"], [["alone"]])


def test_rows_take_turns(monkeypatch):
    order, clock = [], count(0, 2)
    monkeypatch.setattr("common.time.perf_counter", lambda: next(clock))
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, {"a": 3, "b": 1})
    assert order == ["a", "b", "a", "a"]
    assert seconds == {"a": [2, 2, 2], "b": [2]}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_sees_what_was_freed(tmp_path):
    # In a process of its own: here, what other tests have freed would be counted against it.
    script = tmp_path / "script.py"
    folder = str(Path(common.__file__).parent)
    script.write_text(f"import json, sys\nsys.path.insert(0, {folder!r})\n" + PEAKS)
    freed, restarted = child(script, [])
    assert 60 * 2**20 < freed < 80 * 2**20
    assert restarted < 16 * 2**20


def test_a_child_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    script = tmp_path / "script.py"
    script.write_text("import json, os, sys\nassert len(sys.argv) == 2, 'two'\nprint(json.dumps(dict(os.environ)))\n")
    environment = child(script, ["one"], threads=3)
    assert (environment["OMP_NUM_THREADS"], environment["GOMP_SPINCOUNT"]) == ("3", "20000")
    with pytest.raises(RuntimeError, match="ended with 1: AssertionError: two"):
        child(script, ["one", "two"])
    script.write_text("import time\ntime.sleep(30)\n")
    with pytest.raises(RuntimeError, match="took longer than 1 s"):
        child(script, [], timeout=1)


@pytest.fixture
def results():
    rows = [parse_row(f"{method}-fp32") for method in ("recompute", "concat", "growing", "alone", "ring16")]
    found = Results("cpu", "vit_small", rows)
    found.add_rates("fp32", Rates(1e10, 1e11, 1e11))
    times = {"recompute": [9.0], "concat": [0.4, 0.6, 4.0], "growing": [0.2, 0.3, 2.0], "alone": [0.1, 0.2, 1.0]}
    for method, seconds in times.items():
        found.cells[224, 64, f"{method}-fp32"] = {"seconds": seconds, "memory": {"bytes": 2**20}}
    found.cells[224, 64, "ring16-fp32"] = {"note": "skipped: over budget (about 9 s a frame)"}
    found.flatness[224, "ring16-fp32"] = {"seconds": {"100": [1.0, 1.0, 1.0], "900": [1.05, 1.2, 0.9]}}
    return found


def test_ratios_are_of_neighbours_in_time(results):
    assert results.ratio(224, 64, "concat-fp32", "growing-fp32") == pytest.approx(2)
    assert results.ratio(224, 64, "recompute-fp32", "growing-fp32") == pytest.approx(30)  # medians: one call only
    assert results.ratio(224, 64, "growing-fp32", "ring16-fp32") is None
    assert results.drift(224, "ring16-fp32") == pytest.approx(1.05)


def test_verdicts(results):
    verdicts = {what.split(": ", 1)[1]: verdict for what, _, _, verdict in bounds(results)}
    assert verdicts["concat-fp32 / growing-fp32"] == "met"
    assert verdicts["recompute-fp32 / growing-fp32"] == "met"
    assert verdicts["growing-fp32 / alone-fp32"] == "missed"
    assert verdicts["ring16-fp32, frames 900-999 against 100-199, relative difference"] == "met"
    assert verdicts["concat-fp32 / growing-bf16"] == "not run"
    assert {verdict for what, _, _, verdict in bounds(results) if what.startswith("GPU")} == {"not run"}
    results.variant = "vit_large"  # another model's times say nothing about the bound
    assert {verdict for *_, verdict in bounds(results)} == {"not run"}


def test_record(results):
    table = "\n".join(size_table(results, 224, [64]))
    assert "| concatenating cache, dense mask, fp32 | 600.0 ms, 1 MiB |" in table
    assert "| ours, ring of 16, fp32 | skipped: over budget (about 9 s a frame) |" in table
    # 56.6 GFLOP over 100 GFLOP/s: reference sizes of ViT-S, 64 frames of 201 tokens.
    flops = 2 * 201 * 12 * 12 * 384**2 + 2 * 196 * 768 * 384 + 4 * 201 * 64 * 201 * 384 * 12
    assert f"| floor of growing-fp32 | {flops / 1e8:.1f} ms (FLOPs) |" in table
    results.cells[224, 64, "alone-fp32"]["memory"] = {"note": "failed: ended with -9: no message"}
    assert "200.0 ms, memory failed: ended with -9: no message |" in "\n".join(size_table(results, 224, [64]))
    args = Namespace(device="cpu", threads=2, sizes=[224], lengths=[64])
    text = "\n".join(report(results, args))
    assert text.startswith("# Streaming")
    assert "2 threads" in text


def test_cells_that_do_not_fit_are_skipped(monkeypatch):
    args = Namespace(device="cpu", variant="vit_small", budget=10, repeats=5)
    rates = Rates(1e10, 1e11, 1e11)
    monkeypatch.setattr("streaming.free_bytes", lambda device: 2**30)
    assert plan(parse_row("growing-fp32"), args, 224, 16, rates) == (6, None)
    allowed, note = plan(parse_row("recompute-fp32"), args, 224, 64, rates)
    assert (allowed, note) == (0, "skipped: over budget (about 36 s a frame)")
    allowed, note = plan(parse_row("concat-fp32"), args, 224, 128, rates)
    assert (allowed, note[:21]) == (0, "skipped: over memory ")
    rows = [parse_row(name) for name in ("concat-fp32", "growing-fp32", "ring16-fp32")]
    grouped = groups_that_fit(rows, args, 224, 64)
    assert [[row.method for row in group] for group in grouped] == [["concat"], ["growing", "ring"]]


def test_generated_video_has_the_frames_asked_for(tmp_path):
    write_video(tmp_path / "video.mp4", 7, 64)
    with av.open(str(tmp_path / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 7
    assert frames[0].shape == (64, 64, 3)
    assert (frames[0] != frames[1]).mean() > 0.5
