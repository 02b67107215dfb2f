"""A segmentation probe, trained and tested in any number of processes.

    python segmentation_runs.py ROOT FOLDER STRATEGY PROCESSES

trains on the ADE20K in ROOT with four images per step over all processes, and leaves `results.json` and the head's
weights `head.pt` in the folder.
"""

import json
import sys
from pathlib import Path

import torch
from lightning import Trainer

from omnistream.backbone import create_model
from omnistream.data.images import ADE20KDataModule
from omnistream.parallel import FSDP2Strategy  # noqa: F401 (registers the strategy)
from omnistream.tasks.probing import SegmentationProbe


def run(root: Path, folder: Path, strategy: str = "auto", processes: int = 1) -> None:
    """Train without dropout, which would differ, and test."""
    torch.manual_seed(0)
    backbone = create_model("vit_nano")
    module = SegmentationProbe(backbone, 4, window=32, stride=21, lr=0.03, warmup_steps=2, dropout=0.0)
    data = ADE20KDataModule(root, size=32, hue=0.02, batch_size=4 // processes, num_workers=0)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_steps=6,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
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
