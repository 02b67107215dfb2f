"""Evaluates the trained model at the end of a run, next to a backbone that was never trained."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from omnistream.data import EvaluationDataModule, MultiTaskDataModule
from omnistream.evaluation import CachedFeatures, ClosedFormProbe, EvaluationResult, FrozenProbe, ResultsWriter
from omnistream.report.rows import MetricRow
from omnistream.tasks.multitask import MultiTaskModule

logger = logging.getLogger(__name__)

OBJECTIVES = "objectives"
"""The evaluation of the trained tasks on their own test sets."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of the report: a metric, its baseline, and the bounds it has to meet."""

    title: str
    """First column."""
    evaluation: str
    """`objectives`, or the name of a probe."""
    metric: str
    """Key of the result, such as `geometry/abs_rel`."""
    baseline: str
    """`untrained` for the same metric with the untrained backbone, or another key of the same result."""
    baseline_title: str
    """What the baseline is, such as "best constant depth"."""
    unit: str = ""
    at_most: float | None = None
    """Largest value, or ratio to the baseline, that passes."""
    at_least: float | None = None
    """Smallest value, or ratio to the baseline, that passes."""
    judged: Literal["value", "ratio"] = "ratio"
    """Which number the bounds apply to."""
    note: str = ""
    """Written under the title."""

    def row(self, trained: dict[str, EvaluationResult], untrained: dict[str, EvaluationResult]) -> MetricRow | None:
        """The row; None if the metric or its baseline was not evaluated."""
        result = trained.get(self.evaluation)
        other = untrained.get(self.evaluation) if self.baseline == "untrained" else result
        key = self.metric if self.baseline == "untrained" else self.baseline
        if result is None or other is None or self.metric not in result.metrics or key not in other.metrics:
            return None
        return MetricRow(
            name=self.title,
            value=result.metrics[self.metric].value,
            unit=self.unit,
            baseline=other.metrics[key].value,
            baseline_name=self.baseline_title,
            at_most=self.at_most,
            at_least=self.at_least,
            judged=self.judged,
            note=self.note,
        )


class HeldOutEvaluation(Callback):
    """Runs the evaluations that a user could run, when fitting ends: the objectives' test sets and probes.

    Each is run by a `Trainer` of its own, once for the trained backbone and once for one of the same shape that was
    never trained, and writes `<log_dir>/evaluation/<trained or untrained>/<name>/results.json`. For the latter, the
    heads of `retrained` tasks are trained on it for as many steps as the run made, on the same batches.

    Args:
        protocol: Stable name under which the objectives are reported.
        retrained: Tasks whose heads are trained on the untrained backbone too.
        steps: Training steps of those heads; None for as many as the run made.
        data: Training and test set of the probes, read once.
        probes: By name: what makes a probe of a backbone. Probes with the same features share them.
        probe_epochs: Passes over cached features; probes in closed form need one.
        comparisons: Rows of the report. One whose metric was not evaluated, because the model lacks the task, is left
            out.
        seed: Of the untrained backbone and of the heads.

    Raises:
        ValueError: If there are probes but no data for them.
    """

    def __init__(
        self,
        protocol: str = OBJECTIVES,
        retrained: list[str] = [],  # noqa: B006 (never changed)
        steps: int | None = None,
        data: EvaluationDataModule | None = None,
        probes: dict[str, Callable[[nn.Module], FrozenProbe]] = {},  # noqa: B006
        probe_epochs: int = 20,
        comparisons: list[Comparison] = [],  # noqa: B006
        seed: int = 0,
    ) -> None:
        if probes and (data is None or data.train is None or data.test is None):
            raise ValueError("HeldOutEvaluation: probes need data with a train and a test set")
        self.protocol, self.retrained, self.steps = protocol, retrained, steps
        self.data, self.probes, self.probe_epochs = data, probes, probe_epochs
        self.comparisons, self.seed = comparisons, seed
        self.trained: dict[str, EvaluationResult] = {}
        self.untrained: dict[str, EvaluationResult] = {}

    def metric_rows(self) -> list[MetricRow]:
        """Rows of the comparisons whose metrics were evaluated."""
        rows = [(comparison, comparison.row(self.trained, self.untrained)) for comparison in self.comparisons]
        if missing := sorted({f"{one.evaluation}: {one.metric}" for one, row in rows if row is None}):
            logger.info("not evaluated, and left out of the report: %s", ", ".join(missing))
        return [row for _, row in rows if row is not None]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before training that everything can be evaluated after it.

        Raises:
            ValueError: If there is more than one process, or the model or data are not those of several tasks.
        """
        if trainer.world_size > 1:
            raise ValueError("HeldOutEvaluation runs in one process; remove the callback or set trainer.devices to 1")
        if not isinstance(pl_module, MultiTaskModule):
            raise ValueError(
                f"HeldOutEvaluation evaluates a MultiTaskModule, got {type(pl_module).__name__}; remove the callback, "
                "or give the objective as the only one of a MultiTaskModule"
            )
        sources = getattr(getattr(trainer, "datamodule", None), "sources", {})
        if missing := sorted(set(self.retrained) & set(pl_module.objectives) - set(sources)):
            raise ValueError(
                f"HeldOutEvaluation trains the heads of {missing} on data sources of the same name, there are "
                f"{sorted(sources)}; rename one, or change the callback's `retrained`"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run all evaluations."""
        assert isinstance(pl_module, MultiTaskModule)  # on_fit_start
        assert pl_module.backbone is not None
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "evaluation"
        datamodule: MultiTaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        device = pl_module.device
        untrained = self._untrained(pl_module.backbone)
        with isolate_rng(), _quiet():
            if any(source.test is not None for source in datamodule.sources.values()):
                logger.info("evaluating the objectives on their test sets")
                into = folder / "trained" / OBJECTIVES
                try:
                    self.trained[OBJECTIVES] = self._test(pl_module, datamodule, into, device)
                finally:  # they still belong to the run
                    pl_module.trainer, datamodule.trainer = trainer, trainer
            if tasks := [name for name in self.retrained if name in pl_module.objectives]:
                logger.info("training and evaluating the heads of %s on an untrained backbone", ", ".join(tasks))
                single, data = self._heads_on(untrained, pl_module, datamodule, tasks)
                steps = self.steps or trainer.global_step
                _trainer(device, folder, max_steps=steps, limit_val_batches=0).fit(single, data)
                self.untrained[OBJECTIVES] = self._test(single, data, folder / "untrained" / OBJECTIVES, device)
            if self.probes:
                self._probe(copy.deepcopy(pl_module.backbone), untrained, folder, device)

    def _untrained(self, backbone: nn.Module) -> nn.Module:
        """A backbone of the same shape with fresh weights, never trained, without random positions."""
        fresh: Any = copy.deepcopy(backbone)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            fresh.reset_parameters()
        fresh.rope_rescale = None
        return fresh.requires_grad_(False).eval()

    def _test(self, module: LightningModule, data: Any, folder: Path, device: torch.device) -> EvaluationResult:
        protocol = None if isinstance(module, FrozenProbe) else self.protocol
        writer = ResultsWriter(folder / "results.json", protocol=protocol)
        _trainer(device, folder, writer).test(module, data, verbose=False)
        assert writer.result is not None
        return writer.result

    def _heads_on(
        self, backbone: nn.Module, module: MultiTaskModule, datamodule: MultiTaskDataModule, tasks: list[str]
    ) -> tuple[MultiTaskModule, MultiTaskDataModule]:
        """Fresh heads of these tasks for another backbone, and the run's data for them, in the run's order."""
        torch.manual_seed(self.seed)
        heads: Any = {name: copy.deepcopy(module.objectives[name]) for name in tasks}  # rebuilt for the backbone
        weights = {name: module.weights[name] for name in tasks}
        single = MultiTaskModule(backbone, heads, weights, module.optimizer_config, seed=self.seed)  # type: ignore[arg-type]
        sources: Any = {name: datamodule.sources[name] for name in tasks}
        return single, MultiTaskDataModule(sources, datamodule.num_workers, datamodule.seed, datamodule.pin_memory)

    def _probe(self, trained: nn.Module, untrained: nn.Module, folder: Path, device: torch.device) -> None:
        """Results of all probes on both backbones."""
        assert self.data is not None
        logger.info("probing frozen features: %s", ", ".join(self.probes))
        # Read once, for both backbones.
        train, test = (list(self.data.in_order(dataset)) for dataset in (self.data.train, self.data.test))
        for name, backbone, results in (("trained", trained, self.trained), ("untrained", untrained, self.untrained)):
            features: dict[str, tuple[CachedFeatures, CachedFeatures]] = {}
            for key, make in self.probes.items():
                torch.manual_seed(self.seed)
                probe = make(backbone).to(device)
                shared = f"{type(probe).features.__qualname__} {probe.feature_options()}"
                if shared not in features:
                    features[shared] = probe.extract_all(train, training=True), probe.extract_all(test, training=False)
                results[key] = self._fit_probe(probe, *features[shared], folder / name / key, device)

    def _fit_probe(
        self, probe: FrozenProbe, train: CachedFeatures, test: CachedFeatures, folder: Path, device: torch.device
    ) -> EvaluationResult:
        assert self.data is not None
        epochs = 1 if isinstance(probe, ClosedFormProbe) else self.probe_epochs
        loader = train.loader(self.data.batch_size, shuffle=True, seed=self.seed)
        _trainer(device, folder, max_epochs=epochs, limit_val_batches=0).fit(probe, loader)
        return self._test(probe, test.loader(256), folder, device)


def _trainer(device: torch.device, folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """A trainer without logs, bar and checkpoints on one device."""
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's messages about the trainers inside."""
    names = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.pytorch")
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
