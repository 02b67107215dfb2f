"""How fast depth videos and camera paths are scored: ours beside CUT3R's scorer and evo, on the same data.

    python benchmarks/geometry_scoring.py CHECKOUT [--python PYTHON] [--frames 50] [--poses 10000] [--write]

CHECKOUT is a clone of CUT3R/CUT3R, of which `eval/video_depth/tools.py` is run on the CPU as its
`eval/video_depth/eval_depth.py` does: predictions are resized by OpenCV, then all frames are scored at once. PYTHON is
an interpreter that has evo, torch, opencv-python-headless, scipy and tqdm, by default this one. Nothing is read from
files within the measured time. Both give the same numbers: those of a path to 1e-6, and those of depth to 1e-4 at the
same scale. The scale itself, ten steps of reweighted least squares, is only defined to about 1e-3: a pixel that fits to
the last digit of float32 gets a weight of up to 1e8, so which pixels do decides. `--write` records the table in
`benchmarks/results`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import header, markdown_table, write

from omnistream.cameras import make_pose, matrix_from_quaternion
from omnistream.metrics import DepthPairs, trajectory_errors

DEPTH_TOLERANCE, SCALE_TOLERANCE, PATH_TOLERANCE = 1e-4, 1e-3, 1e-6
SIZES = {"Sintel": ((208, 512), (436, 1024), 70.0), "BONN": ((384, 512), (480, 640), None)}
"""Height and width of prediction and truth, and what aligned depth is clipped to."""
ERRORS = (0, 1, 2, 3, 5, 6, 7)
"""Of their values, those that `DepthErrors` has: the fifth is a delta below 1, the last the number of pixels."""
THEIR_DEPTH = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import cv2, numpy as np, torch
from eval.video_depth.tools import depth_evaluation
data, threads, clip_to = np.load(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(threads), cv2.setNumThreads(threads)
preds, target = data["preds"], data["target"]
height, width = target.shape[1:]

def score(count):
    resized = [cv2.resize(p, (width, height), interpolation=cv2.INTER_CUBIC) for p in preds[:count]]
    stacks = np.stack(resized), np.stack(list(target[:count]))
    return resized, depth_evaluation(*stacks, max_depth=70, align_with_scale=True, post_clip_max=clip_to)

score(2)
start = time.perf_counter()
resized, (found, _, aligned, _) = score(len(preds))
seconds = time.perf_counter() - start
scale = float(aligned.double().sum() / np.sum(resized, dtype=np.float64))
print(json.dumps({"seconds": seconds, "values": list(found.values()), "scale": scale}))
"""
THEIR_PATH = """
import json, sys, time
import numpy as np
from evo import main_ape, main_rpe
from evo.core.metrics import PoseRelation, Unit
from evo.core.trajectory import PoseTrajectory3D
data = np.load(sys.argv[1])

def score(count):
    stamps = np.arange(count, dtype=float)
    target, preds = (
        PoseTrajectory3D(data[name][:count, :3].copy(), data[name][:count, [6, 3, 4, 5]].copy(), stamps)
        for name in ("target", "preds")
    )
    how = {"align": True, "correct_scale": True}
    pairs = how | {"delta": 1, "delta_unit": Unit.frames, "rel_delta_tol": 0.01, "all_pairs": True}
    translation, rotation = PoseRelation.translation_part, PoseRelation.rotation_angle_deg
    results = [main_ape.ape(target, preds, pose_relation=translation, **how)]
    results += [main_rpe.rpe(target, preds, pose_relation=part, **pairs) for part in (translation, rotation)]
    return [float(result.stats["rmse"]) for result in results]

score(10)
start = time.perf_counter()
found = score(len(data["preds"]))
print(json.dumps({"seconds": time.perf_counter() - start, "values": found}))
"""


def depth_video(name, num_frames, seed=0):
    """Walls and a far background, with holes; predictions have another scale and noise."""
    generator, (small, large, _) = np.random.default_rng(seed), SIZES[name]
    y, x = np.mgrid[: large[0], : large[1]].astype(np.float32)
    target = np.stack([3 + 2 * np.sin(x / 90 + t / 9) * np.cos(y / 70) + y / large[0] for t in range(num_frames)])
    rows, columns = (np.linspace(0, large[i] - 1, small[i]).round().astype(int) for i in (0, 1))
    preds = target[:, rows][:, :, columns] * generator.normal(0.4, 0.03, (num_frames, *small))
    target[:, : large[0] // 6] = 1e5  # the sky
    target[generator.random(target.shape) < 0.1] = 0
    return preds.astype(np.float32), target.astype(np.float32 if name == "Sintel" else np.float64)


def camera_path(num_poses, seed=0):
    """Position and quaternion x, y, z, w of a walk, and of a noisy prediction of it in another frame and scale."""
    generator = np.random.default_rng(seed)
    turns = np.cumsum(generator.normal(0, 0.02, (num_poses, 4)), 0) + np.array([0, 0, 0, 3])
    centres = np.cumsum(generator.normal(0, 0.05, (num_poses, 3)), 0)
    target = np.concatenate([centres, turns / np.linalg.norm(turns, axis=1, keepdims=True)], 1)
    noisy = turns + generator.normal(0, 0.003, turns.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    return np.concatenate([0.3 * (centres + generator.normal(0, 0.1, centres.shape)) + 5, noisy], 1), target


def poses(rows):
    """Matrices of positions and quaternions."""
    rows = torch.from_numpy(rows)
    return make_pose(matrix_from_quaternion(rows[:, 3:]), rows[:, :3])


def theirs(python, code, options):
    """What a program of others prints, from a process of its own."""
    command = [python, "-c", code, *map(str, options)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def in_turns(rounds, their_call, our_call):
    """Median seconds of both, and what each returned last."""
    seconds = ([], [])
    for _ in range(rounds):
        their_result = their_call()
        seconds[0].append(their_result["seconds"])
        start = time.perf_counter()
        our_result = our_call()
        seconds[1].append(time.perf_counter() - start)
    return *map(statistics.median, seconds), their_result, our_result


def check(name, found, expected, tolerance):
    """Largest relative difference.

    Raises:
        SystemExit: If it is above the tolerance.
    """
    found, expected = np.array(found, float), np.array(expected, float)
    difference = float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-12)))
    if not difference <= tolerance:
        raise SystemExit(f"{name}: {found} differs from {expected} by {difference:.1e} of the value")
    return f"{difference:.0e}"


def our_depth(preds, target, clip_to, alignment="scale"):
    with DepthPairs(70.0, memory_limit=1 << 30) as pairs:
        for frame, truth in zip(torch.from_numpy(preds), torch.from_numpy(target), strict=True):
            pairs.add(frame, truth)
        return pairs.errors([alignment], clip_to)[alignment]


def depth_row(arguments, name, data):
    """Of the table."""
    (_, (height, width), clip_to), (preds, target) = SIZES[name], depth_video(name, arguments.frames)
    np.savez(data, preds=preds, target=target)
    our_depth(preds[:2], target[:2], clip_to)
    options = [arguments.checkout, data, arguments.threads, json.dumps(clip_to)]
    slow, fast, expected, found = in_turns(
        arguments.rounds,
        lambda: theirs(arguments.python, THEIR_DEPTH, options),
        lambda: our_depth(preds, target, clip_to),
    )
    at_their_scale = our_depth(preds * np.float32(expected["scale"]), target, clip_to, "metric")
    of_values = check(name, at_their_scale.errors, [expected["values"][i] for i in ERRORS], DEPTH_TOLERANCE)
    of_scale = check(f"scale of {name}", [found.scale], [expected["scale"]], SCALE_TOLERANCE)
    title = f"depth, {arguments.frames} frames of {width}x{height}"
    return title, f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.1f}", of_values, of_scale


def path_row(arguments, data):
    """Of the table."""
    preds, target = camera_path(arguments.poses)
    np.savez(data, preds=preds, target=target)
    paths = poses(preds), poses(target)
    trajectory_errors(*paths)
    slow, fast, expected, found = in_turns(
        arguments.rounds, lambda: theirs(arguments.python, THEIR_PATH, [data]), lambda: trajectory_errors(*paths)
    )
    of_values = check("path", found, expected["values"], PATH_TOLERANCE)
    return f"path of {arguments.poses} poses", f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.1f}", of_values, "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="clone of CUT3R/CUT3R")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has its packages, and evo")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--poses", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many, taken in turns")
    parser.add_argument("--threads", type=int, default=2, help="of both")
    parser.add_argument("--write", action="store_true", help="record the results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data.npz"
        rows = [depth_row(arguments, name, data) for name in SIZES] + [path_row(arguments, data)]
    command = "python benchmarks/geometry_scoring.py CUT3R --write"
    lines = header("Scoring of depth videos and camera paths", "cpu", arguments.threads, (np,), command)
    lines += ["Seconds per video or path, medians; theirs is CUT3R's scorer (depth, `scale`) and evo (path).", ""]
    lines += markdown_table(["input", "theirs", "ours", "theirs / ours", "values differ by", "scales differ by"], rows)
    write(lines, Path(__file__).parent / "results" / "geometry_scoring.md" if arguments.write else None)


if __name__ == "__main__":
    main()
