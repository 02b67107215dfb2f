"""One backbone, many objectives, one optimiser step (paper Sec. 3.3 and 4.2)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from omnistream.backbone import OmniStream
from omnistream.distributed import all_reduce, world_size
from omnistream.parallel import (
    average_gradients,
    compile_blocks,
    gradient_norm,
    scale_gradients,
    shard_backbone,
    shard_units,
)
from omnistream.tasks.objective import Objective, ObjectiveLoss
from omnistream.tasks.optimization import OptimizerConfig, build_optimizer
from omnistream.tasks.prediction import ClipFeatures, predict_features

logger = logging.getLogger(__name__)

REQUIRED = "REQUIRED"
"""Stands in a configuration for a checkpoint that only the user can name."""
PAPER_WEIGHTS = {"ssl": 0.1, "geometry": 1.0, "captioning": 1.0}
"""Paper Eq. 10."""


class NonFiniteLossError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names task and term."""


@dataclass(frozen=True)
class NonFiniteConfig:
    """What to do when a loss or gradient is NaN or infinite."""

    action: Literal["stop", "skip"] = "stop"
    """`stop` raises; `skip` drops the whole step: no update of the weights or of any teacher."""
    limit: int = 10
    """With `skip`: steps that may be dropped in a row before training stops after all."""


class MultiTaskModule(LightningModule):
    """Trains one backbone on several objectives at once.

    Each training step runs the tasks one after the other, and within a task its micro-batches: forward, then backward
    of the weighted loss, so only one graph is alive at a time. Then one optimiser step is made. A task set to null is
    left out.

    Random choices inside a step derive from (seed, step), so a resumed run repeats them.

    Args:
        backbone: The shared backbone.
        tasks: Objectives by name; null leaves one out (an ablation).
        weights: Factor of each task's loss; default the paper's 0.1 for `ssl` and 1 for the others.
        optimizer: Learning rate, warm-up, clipping.
        nonfinite: What to do about NaN or infinite losses.
        compile: Compile the transformer blocks.
        seed: Of the random choices within steps.
        init_from: Checkpoint of an earlier stage: its weights, heads and teachers are taken over, its optimiser,
            schedules and position in the data are not. (`--ckpt_path` continues a run; this starts the next.)
            `REQUIRED`, as in the second stage's configuration, is refused.

    Raises:
        ValueError: If no task is left, a weight belongs to no task, or `init_from` is `REQUIRED` or lacks weights of
            this module.
        FileNotFoundError: If there is no file `init_from`.
    """

    batch_count: Tensor
    """Training batches seen, dropped ones included; int64 scalar, saved."""

    def __init__(
        self,
        backbone: OmniStream,
        tasks: dict[str, Objective | None],
        weights: dict[str, float] | None = None,
        optimizer: OptimizerConfig | None = None,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
        init_from: Path | str | None = None,
    ) -> None:
        super().__init__()
        if str(init_from) == REQUIRED:
            raise ValueError(
                "this stage goes on from an earlier one: pass its checkpoint, --model.init_from STAGE1.ckpt "
                "(or null, to train from the backbone as it is)"
            )
        self.automatic_optimization = False
        active = {name: task for name, task in tasks.items() if task is not None}
        if not active:
            raise ValueError(
                "every task is null: nothing to train; keep at least one of " + ", ".join(tasks or ["ssl"])
            )
        if unknown := sorted(set(weights or {}) - set(tasks)):
            raise ValueError(f"weights for tasks that do not exist: {unknown}; the tasks are {sorted(tasks)}")
        self.weights = {name: (weights or {}).get(name, PAPER_WEIGHTS.get(name, 1.0)) for name in active}
        self.optimizer_config = optimizer or OptimizerConfig()
        self.nonfinite = nonfinite or NonFiniteConfig()
        self.compile_blocks, self.seed = compile, seed
        self.backbone = backbone
        self.tasks = nn.ModuleDict(active)
        for name, task in active.items():
            try:
                task.build(backbone)
            except ValueError as error:
                raise ValueError(f"tasks.{name}: {error}") from error
        self.register_buffer("batch_count", torch.zeros((), dtype=torch.int64))
        if init_from is not None:
            self._take_over(Path(init_from))
        self._skipped_in_a_row = 0
        self._configured = False

    @property
    def objectives(self) -> dict[str, Objective]:
        """The active tasks by name."""
        return dict(self.tasks.items())  # type: ignore[arg-type]

    def _take_over(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint file at {path}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state.pop("batch_count", None)
        own = set(self.state_dict()) - {"batch_count"}
        if missing := sorted(own - set(state)):
            raise ValueError(f"{path} lacks {len(missing)} weights of this model, such as {missing[:3]}")
        left = sorted({".".join(key.split(".")[:2]) for key in set(state) - own})
        self.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
        logger.info("took over all weights from %s; not used: %s", path, ", ".join(left) or "nothing")

    def configure_model(self) -> None:
        """Compile and shard, once; called by Lightning before training and before loading a checkpoint."""
        if self._configured:
            return
        self._configured = True
        if self.compile_blocks:
            compile_blocks(self)
        if self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            shard_backbone(self.backbone, mesh)
            for task in self.objectives.values():
                for backbone in task.own_backbones():
                    shard_backbone(backbone, mesh)
                shard_units(task.fsdp_units(), mesh)

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and cosine decay over `trainer.max_steps`."""
        return build_optimizer(self, self.optimizer_config, self.trainer.max_steps)

    def on_fit_start(self) -> None:
        """Tell the tasks how long training is, for their schedules.

        Raises:
            ValueError: If a gradient scaler is at work: clipping and the check for infinities would see scaled
            gradients.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError("gradients are not scaled here: set trainer.precision to bf16-mixed or 32-true")
        for task in self.objectives.values():
            task.total_steps = self.trainer.max_steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One optimiser step over all tasks."""
        if missing := sorted(set(self.tasks) - set(batch)):
            raise ValueError(f"no data for task(s) {missing}; the data module gives {sorted(batch)}")
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        torch.manual_seed((self.seed * 1_000_003 + int(self.batch_count)) % 2**63)
        self.batch_count += 1
        problem = self._accumulate(batch) or self._finish_gradients()
        if problem:
            self._drop_step(problem)
            optimizer.zero_grad()
            return
        self._skipped_in_a_row = 0
        lrs = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        for task in self.objectives.values():
            task.after_step(self.backbone, self.global_step)
        for name, lr in zip(("train/lr", "train/lr_backbone"), lrs, strict=False):
            self.log(name, lr, batch_size=1)

    def _accumulate(self, batch: dict[str, Any]) -> str | None:
        """Forward and backward of every task; returns what became non-finite, if anything did."""
        for name, task in self.objectives.items():
            for part, micro_batch in task.micro_batches(batch[name]).items():
                path = f"{name}/{part}" if part else name
                with self._local_backward():
                    loss = task.compute(self.backbone, micro_batch, self.global_step)
                    if problem := self._nonfinite_term(path, loss):
                        return problem
                    self.manual_backward(self.weights[name] * loss.total)
                self._log_terms("train", path, loss.terms | loss.details)
        return None

    @contextmanager
    def _local_backward(self) -> Iterator[None]:
        """Under DDP, keep gradients local: they are averaged once, after the last task."""
        strategy = self.trainer.strategy
        blocked = isinstance(strategy, DDPStrategy)
        with strategy.block_backward_sync() if blocked else nullcontext():  # type: ignore[attr-defined]
            yield

    def _nonfinite_term(self, path: str, loss: ObjectiveLoss) -> str | None:
        """Name of the first non-finite term on any process, the same answer on all of them.

        Also makes the terms averages over processes, which is what is logged: one collective serves both.
        """
        names = [*loss.terms, "loss"]
        values = torch.stack([value.detach().float() for value in (*loss.terms.values(), loss.total)])
        means = all_reduce(values) / world_size()
        loss.terms = dict(zip(names, means.unbind(), strict=True))
        if means.isfinite().all():
            return None
        bad = int((~means.isfinite()).float().argmax())
        return f"the {names[bad]} of task {path} is not finite ({values[bad].item()} on this process)"

    def _finish_gradients(self) -> str | None:
        """Average, measure and clip the gradients; returns a problem if their norm is not finite."""
        average_gradients(self.parameters())
        groups = {"backbone": self.backbone, **self.objectives}
        norms = {name: gradient_norm(module.parameters()) for name, module in groups.items()}
        total = torch.stack([norm.to(self.device) for norm in norms.values()]).norm()
        if not total.isfinite():
            bad = next((name for name, norm in norms.items() if not norm.isfinite()), "all together")
            return f"the gradient of {bad} is not finite ({total.item()})"
        self.log_dict({f"grad_norm/{name}": norm for name, norm in norms.items()}, batch_size=1)
        self.log("grad_norm/total", total, batch_size=1)
        if self.optimizer_config.grad_clip is not None:
            scale_gradients(self.parameters(), (self.optimizer_config.grad_clip / (total + 1e-6)).clamp(max=1.0))
        return None

    def _drop_step(self, problem: str) -> None:
        where = f"step {self.global_step} (batch {int(self.batch_count) - 1}): {problem}"
        self._skipped_in_a_row += 1
        if self.nonfinite.action == "stop":
            raise NonFiniteLossError(f"{where}; set model.nonfinite.action to 'skip' to drop such steps")
        if self._skipped_in_a_row > self.nonfinite.limit:
            raise NonFiniteLossError(
                f"{where}; {self._skipped_in_a_row} steps in a row, the limit is {self.nonfinite.limit}"
            )
        logger.warning("dropped %s", where)

    def _log_terms(self, stage: str, path: str, terms: dict[str, Tensor]) -> None:
        values = {f"{stage}/{path}/{term}": value.detach() for term, value in terms.items()}
        self.log_dict(values, batch_size=1, sync_dist=stage != "train", add_dataloader_idx=False)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Losses and metrics of every task whose batch is there."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in validation, on the test sets."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: dict[str, Any]) -> None:
        for name, task in self.objectives.items():
            if not has_data(batch.get(name)):
                continue
            for part, micro_batch in task.micro_batches(batch[name]).items():
                path = f"{name}/{part}" if part else name
                loss = task.compute(self.backbone, micro_batch, self.global_step)
                self._log_terms(stage, path, {**loss.terms, "loss": loss.total})
                task.update_metrics(self.backbone, micro_batch, loss)

    def on_validation_epoch_end(self) -> None:
        """Log every task's metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log every task's metrics."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, task in self.objectives.items():
            values = {f"{stage}/{name}/{key}": value for key, value in task.compute_metrics().items()}
            self.log_dict(values, batch_size=1, sync_dist=False)

    def predict_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, list[ClipFeatures]]:
        """Features of the clips of every source in the batch that has any, by source."""
        return predict_features(self.backbone, batch)


def has_data(batch: Any) -> bool:
    """Whether a task's validation batch holds anything: loaders that have ended give None, alone or in a dictionary."""
    return any(has_data(part) for part in batch.values()) if isinstance(batch, dict) else batch is not None
