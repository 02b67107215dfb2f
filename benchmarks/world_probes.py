"""Frozen probing on the procedural world: `python benchmarks/world_probes.py CHECKPOINT [--write]`.

Every protocol is run from the command line with its packaged `world` configuration, for a trained backbone and for one
with random weights, with several seeds of weights and heads. Action probes are also run on single frames
(`--model.per_frame true`). A protocol is learnable if the trained backbone beats the random one, and both beat the
trivial predictor that the protocol reports. `--write` records the table in `benchmarks/results/world_probes.md`.
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
MODELS = {"trained": [], "random": [], "trained, per frame": ["--model.per_frame", "true"]}


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


def row(protocol, model, found):
    """One line of the table: mean and standard deviation over the seeds of every metric."""
    cells = []
    for name in found[0]:
        values = [metrics[name].value for metrics in found]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{name} {statistics.mean(values):.3f}{spread}")
    main = PROTOCOLS[protocol][0]
    first = next((cell for cell in cells if cell.split()[0] == main), cells[0])
    return [protocol, model, first, "; ".join(cell for cell in cells if cell != first)]


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint with the trained backbone")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="record the table")
    arguments = parser.parse_args()
    rows = []
    for protocol in arguments.protocols:
        for model, options in MODELS.items():
            if options and protocol != "action":
                continue
            checkpoint = arguments.checkpoint.resolve() if model.startswith("trained") else None
            found = [
                evaluate(protocol, PROTOCOLS[protocol][1], checkpoint, seed, options) for seed in range(arguments.seeds)
            ]
            rows.append(row(protocol, model, found))
            print(" | ".join(rows[-1]), flush=True)
    lines = header(
        "Frozen probes on the procedural world", "cpu", command="python benchmarks/world_probes.py RUN --write"
    )
    lines += markdown_table(["protocol", "backbone", f"mean of {arguments.seeds} seeds", "others"], rows)
    write(lines, Path(__file__).parent / "results" / "world_probes.md" if arguments.write else None)


if __name__ == "__main__":
    main()
