"""A small but complete multi-task run, for tests that start it in other processes too.

    python multitask_runs.py FOLDER STRATEGY PROCESSES STEPS [CHECKPOINT]

prints nothing and leaves `losses.pt` in the folder; with a checkpoint it goes on from there. Strategies are the
trainer's with a variant behind a dash: `fsdp2-folders` (checkpoints are folders), `ddp-ssl` (that objective alone),
`fsdp2-folders-ssl` (both), `ddp-rescale` (RoPE is rescaled at random, which `rescale-RANK.pt` lists).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

from omnistream.backbone import OmniStream, create_model, model
from omnistream.backbone.rope import draw_scale
from omnistream.data import MultiTaskDataModule, Source
from omnistream.data.views import CropConfig, MultiCropDataset
from omnistream.data.world import WorldCaptions, WorldFrames, WorldScenes
from omnistream.language.decoder import DecoderConfig
from omnistream.parallel import FSDP2Strategy  # also registers the strategy fsdp2
from omnistream.tasks import MultiTaskModule, NonFiniteConfig, Objective, OptimizerConfig
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.hyperparameters import from_plain
from omnistream.tasks.ssl import SSLModule
from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig
from omnistream.tasks.training import TrainingModule

GLOBAL_BATCH = 4
SIZE = (32, 32)


def make_tasks() -> dict[str, Objective]:
    """All three objectives."""
    # Neighbours are searched across the global batch, so that two processes can equal one.
    losses = SSLLossConfig(koleo_across_processes=True)
    return {
        "ssl": SSLModule(
            heads=SSLHeadConfig(num_prototypes=16, hidden_dim=32, bottleneck_dim=16),
            losses=losses,
            teacher=TeacherConfig(momentum=(0.9, 1.0), temperature_warmup_steps=2),
            head_warmup_steps=1,
        ),
        "geometry": GeometryModule(features=16, out_channels=(8, 8, 16, 16), hidden=8),
        "captioning": CaptioningModule(
            decoder=DecoderConfig(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16),
            max_new_tokens=8,
            num_generations=1,
        ),
    }


def make_backbone(rope_rescale: float | None = None) -> OmniStream:
    """The smallest backbone; every process draws its own rescale, so that two can equal one only without."""
    return create_model("vit_nano", layer_scale_init=0.5, rope_rescale=rope_rescale)


def make_module(rope_rescale: float | None = None, **options: Any) -> MultiTaskModule:
    """All three objectives at once."""
    torch.manual_seed(0)
    tasks, optimizer = make_tasks(), OptimizerConfig(lr=1e-3, warmup_steps=2)
    return MultiTaskModule(make_backbone(rope_rescale), tasks, **{"optimizer": optimizer, **options})


def make_alone(name: str, **options: Any) -> Objective:
    """One objective with its backbone, the same weights as in a `MultiTaskModule` of that one."""
    torch.manual_seed(0)
    task, optimizer = make_tasks()[name], OptimizerConfig(lr=1e-3, warmup_steps=2)
    settings = {key: from_plain(value) for key, value in task.hparams.items()}
    return type(task)(**{**settings, "backbone": make_backbone(), "optimizer": optimizer, **options})


def make_data(batch_size: int = GLOBAL_BATCH, num_workers: int = 0, only: str | None = None) -> MultiTaskDataModule:
    """Procedural clips of two frames, 32 pixels wide; of all tasks or only of one."""
    crops = CropConfig(global_size=32, local_size=16, patch_size=8)

    def views(num_frames: int) -> Dataset:
        frames = WorldFrames(12, num_frames=num_frames, size=(40, 40))
        return MultiCropDataset(frames, crops)

    captions = WorldCaptions(12, size=SIZE, tasks=("caption", "region"))
    sources = {
        "ssl/image": Source(views(1), views(1), batch_size),
        "ssl/video": Source(views(2), None, batch_size),
        "geometry": Source(
            WorldScenes(12, num_frames=2, size=SIZE), WorldScenes(4, "val", num_frames=2, size=SIZE), batch_size
        ),
        "captioning": Source(captions, WorldCaptions(4, "val", size=SIZE, tasks=("caption",)), batch_size),
    }
    if only is not None:
        sources = {name: source for name, source in sources.items() if name.partition("/")[0] == only}
    return MultiTaskDataModule(sources, num_workers=num_workers)


def first_batch() -> dict[str, Any]:
    """The first training batch of every task, as the data module gives it."""
    data, batch = make_data(), {}
    for name, source in data.sources.items():
        task, _, part = name.partition("/")
        loaded = next(iter(data._train_loader(name, source)))
        batch[task] = batch.get(task, {}) | {part: loaded} if part else loaded
    return batch


class Recorder(Callback):
    """Keeps every training loss and gradient norm, bit for bit."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Append this step's numbers."""
        # Details, which a batch may lack, stay in callback_metrics from an earlier step.
        values = {k: v for k, v in trainer.callback_metrics.items() if k.split("/")[-1] not in ("caption", "region")}
        self.history.append({k: v.item() for k, v in values.items() if k.startswith(("train/", "grad_norm/"))})


def fit(
    folder: Path,
    steps: int = 4,
    strategy: str = "auto",
    devices: int = 1,
    checkpoint: Path | None = None,
    module: MultiTaskModule | None = None,
    data: MultiTaskDataModule | None = None,
    **options: Any,
) -> list[dict[str, float]]:
    """Train and return the numbers of every step."""
    recorder = Recorder()
    strategy, _, variant = strategy.partition("-")
    folders, alone = variant.startswith("folders"), variant.removeprefix("folders-")
    if alone in ("ssl", "geometry", "captioning"):
        module, data = make_alone(alone), make_data(GLOBAL_BATCH // devices, only=alone)
    if variant == "rescale":
        module = make_module(rope_rescale=2.0)
        draws = record_draws()
    callbacks = [
        recorder,
        *options.pop("callbacks", []),
        ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
    ]
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        strategy=FSDP2Strategy(save_distributed_checkpoint=True) if folders else strategy,
        devices=devices,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{"limit_val_batches": 0, **options},
    )
    trainer.fit(module or make_module(), data or make_data(GLOBAL_BATCH // devices), ckpt_path=checkpoint)
    if variant == "rescale":
        model.draw_scale = draw_scale
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(draws, folder / f"rescale-{trainer.global_rank}.pt")
    if trainer.global_rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(recorder.history, folder / "losses.pt")
    return recorder.history


def record_draws() -> list[float]:
    """The RoPE factors of every later forward pass in train mode."""
    draws = []

    def recorded(limit: float) -> float:
        draws.append(draw_scale(limit))
        return draws[-1]

    model.draw_scale = recorded
    return draws


def poisoned(module: MultiTaskModule, bad_steps: set[int], value: float = float("nan")) -> MultiTaskModule:
    """Make the geometry loss non-finite at some batches."""
    poison(module, module.objectives["geometry"], bad_steps, value)
    return module


def poison(module: TrainingModule, task: Objective, bad_steps: set[int], value: float = float("nan")) -> None:
    """Make a task's loss non-finite at some batches of the module that is fitted."""
    compute = task.compute

    def bad(backbone: Any, batch: Any, step: int) -> Any:
        loss = compute(backbone, batch, step)
        if int(module.batch_count) - 1 in bad_steps:
            loss.total = loss.total * value
            loss.terms["ray"] = loss.terms["ray"] * value
        return loss

    task.compute = bad  # type: ignore[method-assign]


__all__ = ["NonFiniteConfig", "first_batch", "fit", "make_data", "make_module", "poison", "poisoned"]

if __name__ == "__main__":
    fit(
        Path(sys.argv[1]),
        strategy=sys.argv[2],
        devices=int(sys.argv[3]),
        steps=int(sys.argv[4]),
        checkpoint=Path(sys.argv[5]) if len(sys.argv) > 5 else None,
    )
