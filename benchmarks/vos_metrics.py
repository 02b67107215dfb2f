"""How fast J and F of DAVIS are: ours beside the official tool, on the same masks and with the same results.

    python benchmarks/vos_metrics.py CHECKOUT [--python PYTHON] [--target FOLDER --preds FOLDER] [--write]

CHECKOUT is a clone of davisvideochallenge/davis2017-evaluation; PYTHON an interpreter that has its packages (numpy,
scipy, opencv-python-headless, scikit-image, tqdm), by default this one. Both start from masks of object ids in memory:
neither reads files. Splitting masks into objects, which the official functions need, is timed by itself. By default
masks are discs that move in frames of 854x480, with predictions that are a few pixels off; two folders of PNGs replace
them. `--write` records the table in `benchmarks/results`.
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
from PIL import Image

from omnistream.metrics import object_scores, score_statistics

TOLERANCE = 1e-6
OFFICIAL = """
import json, sys, time, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import cv2, numpy as np
from davis2017.evaluation import DAVISEvaluation
from davis2017.utils import db_statistics
cv2.setNumThreads(int(sys.argv[3]))
masks, seconds, splitting = np.load(sys.argv[2]), [], []

def split(masks, count):  # as davis2017/davis.py and davis2017/results.py do it after reading
    tmp = np.ones((count, *masks.shape))
    tmp = tmp * np.arange(1, count + 1)[:, None, None, None]
    return (tmp == masks[None, ...]) > 0

for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    target, preds = (split(masks[name].astype(float), int(masks["target"][0].max())) for name in ("target", "preds"))
    splitting.append(time.perf_counter() - start)
    start = time.perf_counter()
    scores = DAVISEvaluation._evaluate_semisupervised(target, preds, None, ("J", "F"))
    found = [[db_statistics(values) for values in measure] for measure in scores]
    seconds.append(time.perf_counter() - start)
result = {"scores": np.array(scores).tolist(), "statistics": np.array(found).tolist()}
print(json.dumps({"seconds": seconds, "splitting": splitting, **result}))
"""


def moving_discs(num_frames, num_objects, shift, seed=0):
    """Object ids of frames of 854x480; all centres of a prediction are `shift` pixels off."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:480, :854]
    centres, speeds = (
        generator.uniform((80, 120), (400, 730), (num_objects, 2)),
        generator.uniform(-3, 3, (num_objects, 2)),
    )
    radii, frames = generator.uniform(30, 110, num_objects), np.zeros((num_frames, 480, 854), np.uint8)
    for t in range(num_frames):
        for k in range(num_objects):
            row, column = centres[k] + speeds[k] * t + shift
            frames[t][(y - row) ** 2 + (x - column) ** 2 <= radii[k] ** 2] = k + 1
    return frames


def read(folder):
    """All masks of a folder, of the files in order."""
    masks = np.stack([np.array(Image.open(path)) for path in sorted(Path(folder).expanduser().glob("*.png"))])
    return np.where(masks == 255, 0, masks)


def official(arguments, target, preds):
    """Seconds per round, scores and statistics of the official tool."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "masks.npz", target=target, preds=preds)
        options = [str(arguments.checkout), f"{folder}/masks.npz", str(arguments.threads), str(arguments.rounds)]
        found = subprocess.run(
            [arguments.python, "-c", OFFICIAL, *options], stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(found.stdout.splitlines()[-1])


def ours(arguments, target, preds):
    """The same of this library."""
    target, preds, seconds = torch.from_numpy(target), torch.from_numpy(preds), []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        scores = object_scores(preds, target, int(target[0].max()))
        found = [torch.stack(score_statistics(values), dim=-1) for values in scores]
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "scores": torch.stack(scores).tolist(), "statistics": torch.stack(found).tolist()}


def compare(arguments, name, target, preds):
    """A row of the table; raises if the results differ."""
    theirs, own = official(arguments, target, preds), ours(arguments, target, preds)
    for key in ("scores", "statistics"):
        difference = float(np.abs(np.array(theirs[key]) - np.array(own[key])).max())
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name}: {key} differ from the official ones by {difference}")
    objects, frames = int(target[0].max()), len(target)
    times = (theirs["splitting"], theirs["seconds"], own["seconds"])
    splitting, slow, fast = (1e3 * statistics.median(seconds) / (objects * frames) for seconds in times)
    boundary, ratios = float(np.mean(theirs["scores"][1])), (slow / fast, (splitting + slow) / fast)
    figures = [f"{value:.2f}" for value in (splitting, slow, fast)] + [f"{ratio:.1f}" for ratio in ratios]
    return name, objects, frames, f"{boundary:.3f}", *figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="clone of davisvideochallenge/davis2017-evaluation")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has its packages")
    parser.add_argument("--target", type=Path, help="folder of true masks in place of discs")
    parser.add_argument("--preds", type=Path, help="folder of predicted masks")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many counts")
    parser.add_argument("--threads", type=int, default=2, help="of both")
    parser.add_argument("--write", action="store_true", help="record the results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.target and arguments.preds:
        videos = {"real masks": (read(arguments.target), read(arguments.preds))}
    else:
        videos = {
            f"{objects} objects, {shift} px off": tuple(moving_discs(arguments.frames, objects, s) for s in (0, shift))
            for objects in (1, 2, 5)
            for shift in (3, 12)
        }
    command = "python benchmarks/vos_metrics.py davis2017-evaluation --write"
    lines = header("J and F of DAVIS", "cpu", threads=arguments.threads, modules=(np,), command=command)
    rows = [compare(arguments, name, *masks) for name, masks in videos.items()]
    lines += ["Milliseconds per object and frame; medians.", ""]
    columns = ["splitting", "official", "ours", "official / ours", "with splitting / ours"]
    lines += markdown_table(["masks", "objects", "frames", "F", *columns], rows)
    write(lines, Path(__file__).parent / "results" / "vos_metrics.md" if arguments.write else None)


if __name__ == "__main__":
    main()
