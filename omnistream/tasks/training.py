"""The training loop of all objectives: forward, backward, guard, clip, step (paper Sec. 4.2).

Written once: `MultiTaskModule` runs it over its tasks, an `Objective` fitted alone over itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from omnistream.backbone import OmniStream
from omnistream.distributed import Means, alone
from omnistream.parallel import (
    average_gradients,
    compile_blocks,
    gather_parameters,
    gradient_norm,
    release_parameters,
    scale_gradients,
    shard_backbone,
    shard_units,
)
from omnistream.tasks.checkpoints import CheckpointedModule
from omnistream.tasks.contract import Task
from omnistream.tasks.nonfinite import NonFiniteConfig, NonFiniteGuard, nonfinite_part
from omnistream.tasks.optimization import OptimizerConfig, build_optimizer
from omnistream.tasks.prediction import ClipFeatures, predict_features
from omnistream.tasks.step_numbers import StepNumbers


class TrainingModule(CheckpointedModule):
    """Trains a backbone on one or several objectives.

    Each training step runs the tasks one after the other, and within a task its micro-batches: forward, then backward
    of the weighted loss, so only one graph is alive at a time. Then one optimiser step is made. Losses are computed in
    the trainer's precision by the backbone and in float32 by heads and losses; the backward pass runs outside autocast,
    so the gradients of what was computed in float32 are float32 too.

    Random choices inside a step derive from (seed, batch), so a resumed run repeats them. The host waits for
    the device once in a step; everything logged comes from that one read.

    Subclasses set `backbone`, `objectives` and `weights`, and say in `task_batches` which task gets what of a batch.

    Args:
        optimizer: Learning rate, warm-up, clipping, accumulation.
        nonfinite: What to do about NaN or infinite losses.
        compile: Compile the transformer blocks.
        seed: Of the random choices within steps.
    """

    backbone: OmniStream | None
    weights: dict[str, float]
    """Factor of each task's loss."""
    batch_count: Tensor
    """Training batches seen, dropped ones included; int64 scalar, saved by the module that is fitted."""

    def __init__(
        self,
        optimizer: OptimizerConfig | None,
        nonfinite: NonFiniteConfig | None,
        compile: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.optimizer_config = optimizer or OptimizerConfig()
        self.nonfinite = nonfinite or NonFiniteConfig()
        self.compile_blocks, self.seed = compile, seed
        self._batches = 0  # `batch_count` on the host
        self._guard = NonFiniteGuard(self.nonfinite)
        self._means = Means()  # of an evaluation
        self._numbers, self._batches_in_step = StepNumbers(), 0
        self._configured = False

    def count_batches(self) -> None:
        """Make this the module that is fitted: its checkpoints hold the number of batches."""
        self.register_buffer("batch_count", torch.zeros((), dtype=torch.int64))

    @property
    def objectives(self) -> dict[str, Any]:
        """The tasks by name, each a `Task`."""
        raise NotImplementedError

    def task_batches(self, batch: Any) -> dict[str, Any]:
        """Every task's part of a batch of the data module; a task without data may be missing."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Compile and shard, once; called by Lightning before training and before loading a checkpoint."""
        if self._configured:
            return
        self._configured = True
        if self.compile_blocks:
            compile_blocks(self)
        if self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            assert self.backbone is not None
            shard_backbone(self.backbone, mesh)
            for task in self._tasks():
                for backbone in task.own_backbones():
                    shard_backbone(backbone, mesh)
                shard_units(task.fsdp_units(), mesh)

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and cosine decay over `trainer.max_steps`."""
        return build_optimizer(self, self.optimizer_config, self.trainer.max_steps)

    def _tasks(self) -> list[Task]:
        return list(self.objectives.values())

    def on_fit_start(self) -> None:
        """Put a backbone that is trained into train mode, and set the length of training for the tasks' schedules.

        `OmniStream.from_pretrained` returns a backbone in eval mode, and Lightning leaves modes as they are.

        Raises:
            ValueError: If a gradient scaler is at work: clipping and the check for infinities would see scaled
            gradients.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError("gradients are not scaled here: set trainer.precision to bf16-mixed or 32-true")
        assert self.backbone is not None
        if any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.train()
        for task in self._tasks():
            task.total_steps = self.trainer.max_steps

    def on_train_start(self) -> None:
        """Read the number of batches, which a checkpoint may have set; an interrupted step is repeated."""
        self._batches = int(self.batch_count)
        self._numbers, self._batches_in_step = StepNumbers(), 0

    @property
    def is_step_complete(self) -> bool:
        """Whether no gradients wait for further batches of an accumulated step; a checkpoint does not hold them."""
        return self._batches_in_step == 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Forward and backward of all tasks, and an optimiser step once enough batches were seen."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        if self._batches_in_step == 0:
            optimizer.zero_grad()
        torch.manual_seed((self.seed * 1_000_003 + self._batches) % 2**63)
        self._batches += 1
        self.batch_count += 1
        self._batches_in_step += 1
        self._accumulate(self.task_batches(batch))
        if self._batches_in_step < self.optimizer_config.accumulate_grad_batches:
            return
        problem = self._finish_gradients()
        where = f"step {self.global_step} (batch {self._batches - 1})"
        self._numbers, self._batches_in_step = StepNumbers(), 0
        if not self._guard.accepts(problem, where):
            optimizer.zero_grad()
            return
        lrs = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        assert self.backbone is not None
        for task in self._tasks():
            task.after_step(self.backbone, self.global_step)
        self._log_numbers(dict(zip(("train/lr", "train/lr_backbone"), lrs, strict=False)))

    def _accumulate(self, batches: dict[str, Any]) -> None:
        """Forward and backward of every task."""
        if missing := sorted(set(self.objectives) - set(batches)):
            raise ValueError(f"no data for task(s) {missing}; the data module gives {sorted(batches)}")
        assert self.backbone is not None
        for name, task in self.objectives.items():
            factor = self.weights[name] / self.optimizer_config.accumulate_grad_batches
            for part, micro_batch in task.micro_batches(batches[name]).items():
                with self._local_backward():
                    loss = task.compute(self.backbone, micro_batch, self.global_step)
                    # Lightning's autocast would compute gradients of float32 operations in bfloat16.
                    with torch.autocast(self.device.type, enabled=False):
                        self.manual_backward(factor * loss.total)
                path = f"train/{name}/{part}" if part else f"train/{name}"
                terms = {f"{path}/{term}": value for term, value in {**loss.terms, "loss": loss.total}.items()}
                self._numbers.add(terms, {f"{path}/{term}": value for term, value in loss.details.items()})

    @contextmanager
    def _local_backward(self) -> Iterator[None]:
        """Under DDP, keep gradients local: they are averaged once, after the last task."""
        strategy = self.trainer.strategy
        blocked = isinstance(strategy, DDPStrategy)
        with strategy.block_backward_sync() if blocked else nullcontext():  # type: ignore[attr-defined]
            yield

    def _finish_gradients(self) -> str | None:
        """Average, measure, check, log and clip; returns what is not finite, if anything."""
        parameters = list(self.parameters())
        averaged, processes = average_gradients(parameters)
        norms = self._gradient_norms()
        total = torch.stack(list(norms.values())).norm()
        self._numbers.add({}, {f"grad_norm/{name}": norm for name, norm in {**norms, "total": total}.items()})
        report = self._numbers.read(processes.to(self.device))
        if (problem := nonfinite_part(report)) is not None:
            return problem
        for parameter, count in zip(averaged, report.counts, strict=True):
            if not count:
                parameter.grad = None  # no process used it: the optimiser must not see a gradient of zero
        self._log_numbers(report.means | report.local)
        if self.optimizer_config.grad_clip is not None:
            scale_gradients(parameters, (self.optimizer_config.grad_clip / (total + 1e-6)).clamp(max=1.0))
        return None

    def _gradient_norms(self) -> dict[str, Tensor]:
        assert self.backbone is not None
        groups = {"backbone": self.backbone.parameters()}
        groups |= {name: task.own_parameters() for name, task in self.objectives.items()}
        return {name: gradient_norm(parameters).to(self.device) for name, parameters in groups.items()}

    def _log_numbers(self, values: dict[str, float]) -> None:
        # As tensors on the CPU: Lightning would copy a number to the device, and read it from there for the log.
        self.log_dict({name: torch.tensor(value) for name, value in values.items()}, batch_size=1)

    def on_validation_start(self) -> None:
        """Gather sharded parameters: processes have batches of their own, and not equally many."""
        gather_parameters(self)

    def on_test_start(self) -> None:
        """As for validation."""
        gather_parameters(self)

    def on_validation_end(self) -> None:
        """Shard the parameters again."""
        release_parameters(self)

    def on_test_end(self) -> None:
        """As for validation."""
        release_parameters(self)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Losses and metrics of every task whose batch is there."""
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in validation, on the test sets."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Any) -> None:
        assert self.backbone is not None
        batches = self.task_batches(batch)
        for name, task in self.objectives.items():
            if not has_data(batches.get(name)):
                continue
            for part, micro_batch in task.micro_batches(batches[name]).items():
                path = f"{stage}/{name}/{part}" if part else f"{stage}/{name}"
                with alone():  # a batch is one process's own, and another may have none: wait for nobody
                    loss = task.compute(self.backbone, micro_batch, self.global_step)
                    task.update_metrics(self.backbone, micro_batch, loss)
                self._means.add({f"{path}/{term}": value for term, value in {**loss.terms, "loss": loss.total}.items()})

    def on_validation_epoch_end(self) -> None:
        """Log losses and metrics over the batches of all processes."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """As for validation."""
        self._log_evaluation("test")

    def _log_evaluation(self, stage: str) -> None:
        values: dict[str, Any] = dict(self._means.compute())
        for name, task in self.objectives.items():
            values |= {f"{stage}/{name}/{key}": value for key, value in task.compute_metrics().items()}
        self.log_dict(values, batch_size=1, sync_dist=False)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[ClipFeatures]]:
        """Features of the clips of every source in the batch that has any, by source."""
        assert self.backbone is not None
        return predict_features(self.backbone, batch if isinstance(batch, dict) else {"clips": batch})


def has_data(batch: Any) -> bool:
    """Whether a task's validation batch holds anything: loaders that have ended give None, alone or in a dictionary."""
    return any(has_data(part) for part in batch.values()) if isinstance(batch, dict) else batch is not None
