"""Validation and test of all objectives on odd data sets in any number of processes.

    python multitask_evaluation_runs.py FOLDER STRATEGY PROCESSES

leaves `metrics.json` in the folder: what was logged, by stage. In two processes, one gets no batch of some sets.
"""

import json
import sys
from pathlib import Path

from lightning import Trainer
from multitask_runs import SIZE, make_module
from torch.utils.data import Dataset

from omnistream.data import MultiTaskDataModule, Source
from omnistream.data.views import CropConfig, MultiCropDataset
from omnistream.data.world import WorldCaptions, WorldFrames, WorldScenes


def views(num_samples: int, num_frames: int) -> Dataset:
    crops = CropConfig(global_size=32, local_size=16, patch_size=8)
    return MultiCropDataset(WorldFrames(num_samples, "val", num_frames=num_frames, size=(40, 40)), crops)


def scenes(num_samples: int) -> Dataset:
    return WorldScenes(num_samples, "val", num_frames=2, size=SIZE)


def captions(num_samples: int) -> Dataset:
    return WorldCaptions(num_samples, "val", size=SIZE, tasks=("caption",))


def make_data() -> MultiTaskDataModule:
    return MultiTaskDataModule(
        {
            "ssl/image": Source(views(4, 1), views(3, 1), 2, test=views(1, 1)),
            "ssl/video": Source(views(4, 2), views(1, 2), 2, test=views(2, 2)),
            "geometry": Source(scenes(4), scenes(5), 2, test=scenes(1)),
            "captioning": Source(captions(4), captions(5), 2, test=captions(1)),
        }
    )


def evaluate(folder: Path, strategy: str = "auto", processes: int = 1) -> dict[str, dict[str, float]]:
    """Validate and test, and write down what was logged."""
    module = make_module()
    module.tasks["captioning"].num_generations = 3  # of five: two of one process's and one of the other's
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    data = make_data()
    (validated,) = trainer.validate(module, data, verbose=False)
    (tested,) = trainer.test(module, data, verbose=False)
    results = {"val": dict(validated), "test": dict(tested)}
    if trainer.is_global_zero:
        (folder / "metrics.json").write_text(json.dumps(results))
    return results


if __name__ == "__main__":
    evaluate(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
