"""Six steps of linear classifiers on a small ImageNet, in any number of processes, six images a step in all.

    python classification_runs.py FOLDER PROCESSES STRATEGY

writes `results_PROCESSES.json` and `heads_PROCESSES.json` to the folder.
"""

import json
import sys
from pathlib import Path

import torch
from lightning import Trainer

import omnistream.parallel  # noqa: F401  # registers fsdp2
from omnistream.backbone import create_model
from omnistream.data.images import ImageNetProbing
from omnistream.evaluation import ResultsWriter
from omnistream.tasks.probing import LinearClassification


def fit(folder: Path, processes: int, strategy: str) -> None:
    """Fit and test with the ImageNet in `FOLDER/imagenet`."""
    torch.manual_seed(0)
    backbone = create_model("vit_nano", layer_scale_init=0.5)
    probe = LinearClassification(backbone, 3, lrs=(1e-2, 1.0), protocol="classification/mini")
    size = 6 // processes
    data = ImageNetProbing(folder / "imagenet", image_size=32, batch_size=size, eval_batch_size=2, num_workers=0)
    trainer = Trainer(
        max_steps=6,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        logger=False,
        callbacks=[ResultsWriter(folder / f"results_{processes}.json")],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(probe, data)
    weights = {name: value.tolist() for name, value in probe.heads.named_parameters()}
    trainer.test(probe, data, verbose=False)
    if trainer.is_global_zero:
        (folder / f"heads_{processes}.json").write_text(json.dumps({"weights": weights}))


if __name__ == "__main__":
    fit(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
