"""How fast the procedural world is drawn: `OMP_NUM_THREADS=1 python benchmarks/world.py [--write]`.

Prints frames per second of clips and samples per second of captions, and with `--write` records them in
`benchmarks/results/world.md`. Rates are per second of processor time, so that other programs on the machine do not
count, and per second of wall time.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import skimage
from common import header, markdown_table, write

from omnistream.data.world import WorldActions, WorldCaptions, WorldConfig, WorldScenes, render_clip


def rate(draw, count, frames):
    """Frames per second of processor time and of wall time, after one call that loads the photographs."""
    draw(0)
    cpu, wall = time.process_time(), time.perf_counter()
    for index in range(1, count + 1):
        draw(index)
    return frames * count / (time.process_time() - cpu), frames * count / (time.perf_counter() - wall)


def best_constant(count):
    """Abs Rel of the best constant on depth divided by its mean in each clip."""
    shares = []
    for seed in range(count):
        clip = render_clip(seed)
        shares.append(clip.depth[clip.valid] / clip.depth[clip.valid].mean())
    grid = np.linspace(0.2, 1.5, 131)
    return min(np.mean([np.abs(constant / share - 1).mean() for share in shares]) for constant in grid)


def table(clips):
    """All rows as (what, unit, per processor second, per wall second)."""
    rows = []
    for size in (64, 224):
        count = clips if size == 64 else max(clips // 8, 2)
        square = (size, size)
        scenes = WorldScenes(10_000, size=square).__getitem__
        rows.append((f"scenes, T=8, {size} px", "frames", *rate(scenes, count, 8)))
        smooth = WorldScenes(10_000, size=square, config=WorldConfig(supersample=2)).__getitem__
        rows.append((f"scenes, T=8, {size} px, 2x2 rays a pixel", "frames", *rate(smooth, max(count // 4, 1), 8)))
        actions = WorldActions(10_000, size=square).__getitem__
        rows.append((f"actions, T=8, {size} px", "frames", *rate(actions, count, 8)))
        for task in ("caption", "ocr", "grounding", "region"):
            words = WorldCaptions(10_000, size=square, tasks=(task,)).__getitem__
            rows.append((f"{task}, T=1, {size} px", "samples", *rate(words, count, 1)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=80, help="clips per row at 64 px; an eighth of it at 224 px")
    parser.add_argument("--write", action="store_true", help="record the results")
    arguments = parser.parse_args()
    command = "OMP_NUM_THREADS=1 python benchmarks/world.py --write"
    lines = header("Procedural world: speed", "cpu", modules=(np, skimage), command=command)
    rows = [(what, unit, f"{cpu:.0f}", f"{wall:.0f}") for what, unit, cpu, wall in table(arguments.clips)]
    lines += markdown_table(["what", "unit", "per second of processor time", "per second of wall time"], rows)
    constant = best_constant(100)
    lines += ["", f"Abs Rel of the best constant depth, each clip's mean divided out, 100 clips: {constant:.3f}"]
    write(lines, Path(__file__).parent / "results" / "world.md" if arguments.write else None)


if __name__ == "__main__":
    main()
