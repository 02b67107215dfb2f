"""Evaluation of odd data sets in any number of processes.

    python evaluation_runs.py FOLDER PROCESSES

leaves `results.json` in the folder: by stage, the metrics, and the labels of all samples that any process was given.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from torch.utils.data import Dataset
from torchmetrics import MeanMetric

from omnistream import distributed
from omnistream.data import FrameClip, MultiTaskDataModule, Source
from omnistream.data.sampling import sample_key


class Numbers(Dataset):
    """Clips whose label is their index."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> FrameClip:
        images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        label = torch.tensor(sample_key(key).index)
        return FrameClip(images=images, label=label, name=str(int(label)), seed=torch.tensor(0))


class Recorder(LightningModule):
    """Logs labels in place of losses, per sample and per batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("running", torch.zeros(1))  # makes DDP synchronise, as a batch norm would
        self.metrics = torch.nn.ModuleDict({name: MeanMetric() for name in ("one", "five", "two")})
        self.means, self.seen, self.results = distributed.Means(), [], {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        for name, clips in flat(batch).items():
            if clips is not None:
                with distributed.alone():
                    value = distributed.all_reduce(clips.label.float().max())
                self.means.add({name: value})
                self.metrics[name].update(clips.label.float())
                self.seen += [f"{name}/{label}" for label in clips.name]

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        self._finish("test")

    def _finish(self, stage: str) -> None:
        results: dict[str, Any] = {f"{name}/mean": float(metric.compute()) for name, metric in self.metrics.items()}
        results |= self.means.compute()
        parts: list[Any] = [self.seen]
        if distributed.is_distributed():
            parts = [None] * distributed.world_size()
            dist.all_gather_object(parts, self.seen)
        self.results[stage] = {"metrics": results, "seen": sorted(name for part in parts for name in part)}
        self.seen = []
        for metric in self.metrics.values():
            metric.reset()


def flat(batch: dict[str, Any]) -> dict[str, Any]:
    return {"one": batch["one"], **batch["many"]}


def evaluate(folder: Path, processes: int) -> dict[str, Any]:
    """Validate and test, and save the results."""
    sources = {
        "one": Source(Numbers(4), Numbers(1), 2, test=Numbers(1)),
        "many/five": Source(Numbers(4), Numbers(5), 2, test=Numbers(7)),
        "many/two": Source(Numbers(4), Numbers(2), 2, val_batch_size=1, test=Numbers(3)),
    }
    data, module = MultiTaskDataModule(sources), Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        (folder / "results.json").write_text(json.dumps(module.results))
    return module.results


if __name__ == "__main__":
    evaluate(Path(sys.argv[1]), int(sys.argv[2]))
