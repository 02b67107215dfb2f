"""A depth probe, trained and tested in any number of processes.

    python depth_runs.py ROOT FOLDER STRATEGY PROCESSES

trains on the NYUv2 in ROOT with four images per step over all processes; see `probe_runs.train_and_test`.
"""

from pathlib import Path

import torch
from probe_runs import main, train_and_test

from omnistream.backbone import create_model
from omnistream.data import EvaluationDataModule
from omnistream.data.images import NYUv2
from omnistream.tasks.probing import DepthConfig, LinearDepthProbe


def run(root: Path, folder: Path, strategy: str = "auto", processes: int = 1) -> None:
    """Train with a loss that is a mean over images, on whole ones with equally many measured pixels, and test."""
    torch.manual_seed(0)
    depth = DepthConfig(lrs=(0.03,), losses={"l1": 1.0})
    module = LinearDepthProbe(create_model("vit_nano"), depth=depth, eigen_crop=False)
    train, test = (NYUv2(root, split) for split in ("train", "test"))
    data = EvaluationDataModule(train, test, batch_size=4 // processes, eval_batch_size=1, endless=True)
    train_and_test(module, data, folder, strategy, processes, gradient_clip_val=35.0)


if __name__ == "__main__":
    main(run)
