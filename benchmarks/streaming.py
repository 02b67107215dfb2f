"""Latency and peak memory of the T-th frame of a stream: ours, recomputation, the release's method, and the floor.

    python benchmarks/streaming.py --out benchmarks/results/streaming.md            # ViT-S at 224 px on this machine
    python benchmarks/streaming.py --sizes 224,512 --lengths 16,64 --rows concat-fp32,growing-fp32,growing-bf16
    python benchmarks/streaming.py --device cuda --variant vit_large --sizes 224,512

All rows of one T run in one process and take turns; peak memory comes from a process of its own per row and T. A cell
that would take longer than `--budget` seconds, by its FLOPs and the rates just measured, or more memory than is free,
is skipped and says so. How each row is prepared: `streaming_rows.py`; the release's method: `baselines.py`; the floor:
`floor.py`.
"""

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from common import DTYPES, PeakMemory, child, interleaved, write
from floor import Rates, measure_rates
from stream_command import command_speed
from streaming_report import Results, report
from streaming_rows import (
    RecomputeCall,
    copied_bytes,
    default_rows,
    make_backbone,
    make_call,
    open_session,
    parse_row,
    row_bytes,
    row_cost,
)

from omnistream.backbone import get_variant

FLATNESS_STARTS = (100, 900)
FLATNESS_FRAMES = 100
FLATNESS_LIMIT = 900
"""Seconds that the frames of one row may take once its window is full."""
UNAVAILABLE = (ImportError, ValueError, RuntimeError, TypeError)


def free_bytes(device):
    """Memory that a cell may take."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024


def first_line(error):
    """What a cell says about an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def plan(row, args, size, num_frames, rates):
    """Calls that fit the budget, or why there are none."""
    seconds = rates.estimate(
        row_cost(row, args.variant, size, num_frames), copied_bytes(row, args.variant, size, num_frames)
    )
    if seconds > args.budget:
        return 0, f"skipped: over budget (about {seconds:.0f} s a frame)"
    needed = row_bytes(row, args.variant, size, num_frames)
    if needed > 0.9 * free_bytes(args.device):
        return 0, f"skipped: over memory (about {needed / 2**30:.1f} GiB)"
    return min(args.repeats + 1, max(1, int(args.budget / seconds))), None


def groups_that_fit(rows, args, size, num_frames):
    """Rows in groups whose states fit into memory together."""
    limit, groups, used = 0.8 * free_bytes(args.device), [[]], 0.0
    for row in rows:
        needed = row_bytes(row, args.variant, size, num_frames)
        if groups[-1] and used + needed > limit:
            groups.append([])
            used = 0.0
        groups[-1].append(row)
        used += needed
    return groups


def time_group(rows, calls_allowed, args, size, num_frames, cells):
    """Seconds of rows that take turns; the first call of each warms up where the budget allows more than one."""
    backbones, calls, repeats = {}, {}, {}
    for row in rows:
        if row.dtype not in backbones:
            backbones[row.dtype] = make_backbone(args.variant, row.dtype, args.device)
        try:
            call = make_call(row, backbones[row.dtype], size, num_frames)
            if calls_allowed[row.name] > 1:
                call()
        except UNAVAILABLE as error:
            cells[row.name] = {"note": f"not available: {first_line(error)}"}
            continue
        calls[row.name], repeats[row.name] = call, max(1, calls_allowed[row.name] - 1)
    for name, seconds in interleaved(calls, repeats, args.device).items():
        cells[name] = {"seconds": seconds}


def latency_child(args, size, num_frames):
    """Cells of one T, and the rates measured beside them."""
    arch = get_variant(args.variant)
    used = list(dict.fromkeys(row.dtype for row in args.rows))
    rates = {name: measure_rates(arch, size, num_frames, DTYPES[name], args.device) for name in used}
    cells, allowed = {}, {}
    for row in args.rows:
        allowed[row.name], note = plan(row, args, size, num_frames, rates[row.dtype])
        if note:
            cells[row.name] = {"note": note}
    groups = groups_that_fit([row for row in args.rows if allowed[row.name]], args, size, num_frames)
    for group in groups:
        time_group(group, allowed, args, size, num_frames, cells)
    return {"cells": cells, "rates": {name: asdict(rate) for name, rate in rates.items()}, "groups": len(groups)}


def memory_child(args, size, num_frames):
    """Peak bytes of model, state and one frame."""
    (row,) = args.rows
    # The libraries' own pages become resident with their first use: before the zero point.
    RecomputeCall(make_backbone("vit_nano", row.dtype, args.device), 64, 2)()
    peak = PeakMemory(args.device)
    backbone = make_backbone(args.variant, row.dtype, args.device)
    peak.restart()
    call = make_call(row, backbone, size, num_frames)
    call()
    return {"bytes": peak.added()}


def flatness_child(args, size):
    """Seconds of frames 100 to 199 and 900 to 999: two streams, encoded from their first frame on, then take turns."""
    (row,) = args.rows
    backbone = make_backbone(args.variant, row.dtype, args.device)
    frame = torch.randn(1, 1, 3, size, size, device=args.device).to(DTYPES[row.dtype])
    steps, still = {}, sum(FLATNESS_STARTS) + len(FLATNESS_STARTS) * FLATNESS_FRAMES
    for start in FLATNESS_STARTS:
        session = open_session(backbone, row)
        for index in range(start):
            if index == row.window + 1:  # all sizes are compiled, which no later frame waits for
                begin = time.perf_counter()
            session.step(frame)
            still -= 1
            if index <= row.window:
                continue
            left = still * (time.perf_counter() - begin) / (index - row.window)
            if left > FLATNESS_LIMIT:
                return {"note": f"frames 900 to 999 not run: about {left:.0f} s, more than {FLATNESS_LIMIT} s"}
        steps[str(start)] = lambda session=session: session.step(frame)
    return {"seconds": interleaved(steps, dict.fromkeys(steps, FLATNESS_FRAMES), args.device)}


def run_child(args, kind, size, num_frames, rows):
    """What a child of this kind measured, or a note."""
    arguments = ["--child", kind, "--device", args.device, "--variant", args.variant, "--sizes", size]
    arguments += ["--lengths", num_frames, "--rows", ",".join(row.name for row in rows), "--threads", args.threads]
    arguments += ["--repeats", args.repeats, "--budget", args.budget]
    try:
        return child(__file__, arguments, args.threads, timeout=300 + FLATNESS_LIMIT + 3 * args.budget * len(rows))
    except RuntimeError as error:
        return {"note": f"failed: {first_line(error)}"}


def measure(args):
    """All cells."""
    results = Results(args.device, args.variant, args.rows)
    for size in args.sizes:
        for num_frames in args.lengths:
            print(f"{size} px, T={num_frames}: latency", file=sys.stderr, flush=True)
            timed = run_child(args, "latency", size, num_frames, args.rows)
            results.groups[size, num_frames] = timed.get("groups", 1)
            for name, rate in timed.get("rates", {}).items():
                results.add_rates(name, Rates(**rate))
            for row in args.rows:
                cell = timed["cells"][row.name] if "cells" in timed else timed
                if "seconds" in cell and row.method != "alone" and not args.no_memory:
                    print(f"{size} px, T={num_frames}: memory of {row.name}", file=sys.stderr, flush=True)
                    cell["memory"] = run_child(args, "memory", size, num_frames, [row])
                results.cells[size, num_frames, row.name] = cell
        for row in args.rows:
            if row.window is not None:
                print(f"{size} px: frames 100 and 900 of {row.name}", file=sys.stderr, flush=True)
                results.flatness[size, row.name] = run_child(args, "flatness", size, FLATNESS_STARTS[0], [row])
    if args.command_frames:
        print("the stream command", file=sys.stderr, flush=True)
        results.command = command_speed(
            args.variant, args.sizes[0], args.command_frames, args.device, args.threads, 60 + 10 * args.budget
        )
    return results


def parse_arguments():
    """Arguments; rows as objects."""

    def numbers(text):
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--variant", default="vit_small")
    parser.add_argument("--sizes", type=numbers, default=[224], help="image sides in pixels")
    parser.add_argument("--lengths", type=numbers, default=[16, 32, 64, 128, 256, 512], help="values of T")
    parser.add_argument("--dtypes", default="fp32,bf16", help="dtypes of our rows")
    parser.add_argument("--rows", help="e.g. concat-fp32,growing-bf16,int8-bf16,ring16-fp32; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="timed calls per cell")
    parser.add_argument("--budget", type=float, default=120, help="seconds a cell may take")
    parser.add_argument("--no-memory", action="store_true", help="latency only")
    parser.add_argument("--command-frames", type=int, default=200, help="frames for the stream command; 0 for none")
    parser.add_argument("--out", type=Path, help="Markdown file to record the run in")
    parser.add_argument("--child", choices=["latency", "memory", "flatness"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that torch can use; there is none")
    try:
        get_variant(args.variant)
        args.rows = [parse_row(name) for name in args.rows.split(",")] if args.rows else None
        args.rows = args.rows or default_rows(args.dtypes.split(","), args.device)
    except ValueError as error:
        parser.error(str(error))
    return args


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.child:
        children = {"latency": latency_child, "memory": memory_child}
        if args.child == "flatness":
            print(json.dumps(flatness_child(args, args.sizes[0])))
        else:
            print(json.dumps(children[args.child](args, args.sizes[0], args.lengths[0])))
        return
    write(report(measure(args), args), args.out)


if __name__ == "__main__":
    main()
