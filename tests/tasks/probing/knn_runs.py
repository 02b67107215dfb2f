"""Nearest neighbours among an odd number of images, one of them broken, in any number of processes.

    python knn_runs.py FOLDER PROCESSES

writes `results.json`, and the features of the training images, to the folder.
"""

import sys
from pathlib import Path

import torch
from lightning import Trainer

from omnistream.backbone import create_model
from omnistream.data.images import ImageNetProbing
from omnistream.evaluation import ResultsWriter
from omnistream.tasks.probing import KNNClassification


def run(folder: Path, processes: int) -> KNNClassification:
    """Test with the ImageNet in `FOLDER/imagenet`; batches of 4, so that processes have different numbers of them."""
    torch.manual_seed(0)
    probe = KNNClassification(create_model("vit_nano", layer_scale_init=0.5), 3, ks=(1, 3, 50), protocol="knn/mini")
    data = ImageNetProbing(folder / "imagenet", image_size=32, batch_size=4, num_workers=0)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        callbacks=[ResultsWriter(folder / f"results_{processes}.json")],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.test(probe, data, verbose=False)
    if trainer.is_global_zero:
        torch.save(
            {"bank": probe.bank, "target": probe.bank_target, "confusion": probe.confusion},
            folder / f"bank_{processes}.pt",
        )
    return probe


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
