"""What the programs have in common that train and test a probe in any number of processes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from processes import run_python

from omnistream.parallel import FSDP2Strategy  # noqa: F401 (registers the strategy)


def train_and_test(
    module: Any, data: Any, folder: Path, strategy: str = "auto", processes: int = 1, **options: Any
) -> None:
    """Train for six steps; leaves `results.json` and the head's weights `head.pt` in the folder.

    Args:
        module: The probe.
        data: Its data module.
        folder: Where to write.
        strategy: `auto`, `ddp` or `fsdp2`.
        processes: Their number.
        options: For the trainer.
    """
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_steps=6,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        **options,
    )
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        metrics = {name: metric.value for name, metric in module.test_results()["metrics"].items()}
        (folder / "results.json").write_text(json.dumps(metrics))
        torch.save(module.heads[0].state_dict(), folder / "head.pt")


def main(run: Callable[[Path, Path, str, int], None]) -> None:
    """Call `run` with the arguments ROOT FOLDER STRATEGY PROCESSES of the program."""
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))


def check_two_processes(program: Any, root: Path, folder: Path, strategy: str, tolerance: float = 1e-4) -> None:
    """Compare what a program, imported as a module, leaves in one and in two processes.

    Args:
        program: It has a function `run`.
        root: Its data.
        folder: Where to write.
        strategy: Of the two processes.
        tolerance: Of the metrics; sums are in another order, and a pixel may then change its class.
    """
    one, two = folder / "one", folder / "two"
    one.mkdir()
    two.mkdir()
    program.run(root, one)
    tests = Path(__file__).parent
    run_python([program.__file__, str(root), str(two), strategy, "2"], folder, [tests, tests.parents[1]])
    heads = [torch.load(place / "head.pt", weights_only=True) for place in (one, two)]
    for name, values in heads[0].items():
        torch.testing.assert_close(heads[1][name], values, atol=1e-5, rtol=1e-4)
    results = [json.loads((place / "results.json").read_text()) for place in (one, two)]
    assert results[1] == pytest.approx(results[0], abs=tolerance)
