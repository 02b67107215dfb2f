"""A segmentation probe, trained and tested in any number of processes.

    python segmentation_runs.py ROOT FOLDER STRATEGY PROCESSES

trains on the ADE20K in ROOT with four images per step over all processes; see `probe_runs.train_and_test`.
"""

from pathlib import Path

import torch
from probe_runs import main, train_and_test

from omnistream.backbone import create_model
from omnistream.data.images import ADE20KDataModule
from omnistream.tasks.probing import SegmentationProbe


def run(root: Path, folder: Path, strategy: str = "auto", processes: int = 1) -> None:
    """Train without dropout, which would differ, and test."""
    torch.manual_seed(0)
    backbone = create_model("vit_nano")
    module = SegmentationProbe(backbone, 4, window=32, stride=21, lr=0.03, warmup_steps=2, dropout=0.0)
    data = ADE20KDataModule(root, size=32, hue=0.02, batch_size=4 // processes, num_workers=0)
    validation = {"val_check_interval": 3, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    train_and_test(module, data, folder, strategy, processes, **validation)


if __name__ == "__main__":
    main(run)
