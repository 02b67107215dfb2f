"""Frozen probing on the procedural world: `python benchmarks/world_probes.py RUN --video VIDEO_RUN [--write]`.

Every protocol is run from the command line with its packaged `world` configuration, for a trained backbone (RUN, such
as a run of the quickstart) and for one with random weights, with several seeds of weights and heads. A protocol is
learnable if the trained backbone beats the random one, and both beat the trivial predictor that the protocol reports.

With VIDEO_RUN, a run of `omnistream fit -c geometry_world`, actions are also probed without knowledge of time: what
tells an action from its reversal has to be in the features. Those of single frames (`--model.per_frame true`) cannot;
those of the stream can. `direction_accuracy` is 0.5 by chance. `--write` records the table in
`benchmarks/results/world_probes.md`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import header, markdown_table, write

from omnistream.evaluation import EvaluationResult

PROTOCOLS = {
    "classification": ("top1", True),
    "knn": ("top1", False),
    "segmentation": ("miou", True),
    "depth": ("rmse", True),
    "action": ("accuracy", True),
    "vos": ("j_and_f", False),
}
"""Main metric of each protocol, and whether it trains heads."""
WITHOUT_TIME = ["--model.probe.num_positions", "9"]
"""The probe of actions knows the place of a token in its frame, and not its frame."""


def runs(protocols, trained, video):
    """Title, protocol, backbone, checkpoint and options of every row."""
    for protocol in protocols:
        for backbone, checkpoint in (("trained", trained), ("random", None)):
            yield protocol, protocol, backbone, checkpoint, []
    if video:
        title, alone = "action, time unknown", ["--model.per_frame", "true"]
        yield title, "action", "trained on video, streamed", video, WITHOUT_TIME
        yield title, "action", "trained on video, single frames", video, [*WITHOUT_TIME, *alone]
        yield title, "action", "random, streamed", None, WITHOUT_TIME


def omnistream(folder, *arguments):
    """Run the command; its output is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "omnistream", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise SystemExit(f"omnistream {' '.join(arguments)}:\n{done.stdout.decode()[-3000:]}")


def evaluate(protocol, trains, checkpoint, seed, options):
    """Metrics of one run."""
    with tempfile.TemporaryDirectory() as folder:
        model = ["--model.backbone.checkpoint", str(checkpoint)] if checkpoint else []
        common = ["-c", f"{protocol}/world", "--seed_everything", str(seed), *model, *options]
        if trains:
            omnistream(folder, "fit", *common)
        last = ["--ckpt_path", "last"] if trains else []
        omnistream(folder, "test", *common, *last, *([] if checkpoint else ["--random"]))
        (path,) = Path(folder).rglob("results.json")
        return EvaluationResult.read(path).metrics


def row(title, protocol, model, found):
    """One line of the table: mean and standard deviation over the seeds of every metric."""
    cells = []
    for name in found[0]:
        values = [metrics[name].value for metrics in found]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{name} {statistics.mean(values):.3f}{spread}")
    main = PROTOCOLS[protocol][0]
    first = next((cell for cell in cells if cell.split()[0] == main), cells[0])
    return [title, model, first, "; ".join(cell for cell in cells if cell != first)]


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint with the trained backbone")
    parser.add_argument("--video", type=Path, help="run folder or checkpoint of a backbone trained on videos")
    parser.add_argument("--protocols", nargs="*", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="record the table")
    arguments = parser.parse_args()
    trained, video = (path and path.resolve() for path in (arguments.checkpoint, arguments.video))
    rows = []
    for title, protocol, backbone, checkpoint, options in runs(arguments.protocols, trained, video):
        trains = PROTOCOLS[protocol][1]
        found = [evaluate(protocol, trains, checkpoint, seed, options) for seed in range(arguments.seeds)]
        rows.append(row(title, protocol, backbone, found))
        print(" | ".join(rows[-1]), flush=True)
    command = "python benchmarks/world_probes.py RUN --video VIDEO_RUN --write"
    lines = header("Frozen probes on the procedural world", "cpu", command=command)
    lines += markdown_table(["protocol", "backbone", f"mean of {arguments.seeds} seeds", "others"], rows)
    write(lines, Path(__file__).parent / "results" / "world_probes.md" if arguments.write else None)


if __name__ == "__main__":
    main()
