"""A depth probe, trained and tested in any number of processes.

    python depth_runs.py ROOT FOLDER STRATEGY PROCESSES

trains on the NYUv2 in ROOT with four images per step over all processes, and leaves `results.json` and the head's
weights `head.pt` in the folder.
"""

import json
import sys
from pathlib import Path

import torch
from lightning import Trainer

from omnistream.backbone import create_model
from omnistream.data import EvaluationDataModule
from omnistream.data.images import NYUv2
from omnistream.parallel import FSDP2Strategy  # noqa: F401 (registers the strategy)
from omnistream.tasks.probing import DepthConfig, LinearDepthProbe


def run(root: Path, folder: Path, strategy: str = "auto", processes: int = 1) -> None:
    """Train with a loss that is a mean over images, on whole ones with equally many measured pixels, and test."""
    torch.manual_seed(0)
    depth = DepthConfig(lrs=(0.03,), losses={"l1": 1.0})
    module = LinearDepthProbe(create_model("vit_nano"), depth=depth, eigen_crop=False)
    train, test = (NYUv2(root, split) for split in ("train", "test"))
    data = EvaluationDataModule(train, test, batch_size=4 // processes, eval_batch_size=1, endless=True)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_steps=6,
        gradient_clip_val=35.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        metrics = {name: metric.value for name, metric in module.test_results()["metrics"].items()}
        (folder / "results.json").write_text(json.dumps(metrics))
        torch.save(module.heads[0].state_dict(), folder / "head.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
