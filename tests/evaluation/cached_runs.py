"""Validation on three cached samples in any number of processes.

    python cached_runs.py FOLDER PROCESSES CACHE

leaves `metrics_PROCESSES.json` in the folder; the cache is `memory` or `folder`.
"""

import json
import sys
from pathlib import Path

import torch
from probes import ColourProbe, Colours, backbone, trainer

from omnistream.data import EvaluationDataModule


def validate(folder: Path, processes: int, cache: str) -> None:
    """Validate a probe whose heads are not trained."""
    probe = ColourProbe(backbone(), cache=True if cache == "memory" else folder / "features")
    torch.manual_seed(0)
    probe.configure_model()
    data = EvaluationDataModule(val=Colours(3), batch_size=4)
    run = trainer(folder, devices=processes, strategy="ddp" if processes > 1 else "auto")
    run.validate(probe, data, verbose=False)
    if run.is_global_zero:
        metrics = {name: float(value) for name, value in run.callback_metrics.items()}
        (folder / f"metrics_{processes}.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    validate(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
