"""Modules whose checkpoints can be loaded without further settings, and by models without some of the tasks."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from omnistream.backbone.weights.files import read_run
from omnistream.tasks.hyperparameters import constructor_arguments, from_plain

logger = logging.getLogger(__name__)


class CheckpointedModule(LightningModule):
    """Saves its constructor arguments as plain data, and checks the weights that it is given."""

    def record_arguments(self, given: dict[str, Any]) -> None:
        """Keep constructor arguments as hyper-parameters, so that `load_from_checkpoint` can build this module again.

        Args:
            given: `locals()` of the constructor.
        """
        self.hparams.clear()
        self.hparams.update(constructor_arguments(self, given))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the weights of tasks that this module does not have, with a warning.

        Raises:
            ValueError: If training is to be continued without a task, or the weights are those of another
                configuration.
        """
        state = checkpoint.get("state_dict")
        if not state:
            return  # sharded: the strategy has loaded the weights, and called `take_weights`
        checkpoint["state_dict"] = self.take_weights(state, strict=self._trainer is not None)

    def take_weights(self, saved: dict[str, Tensor], strict: bool) -> dict[str, Tensor]:
        """What `checkpoints.take_weights` leaves of the weights in a checkpoint; `load_state_dict` checks the rest."""
        resuming = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        strict = strict and self.strict_loading
        return take_weights(self.state_dict(), saved, self.absent_tasks(saved), resuming=resuming, strict=strict)

    def absent_tasks(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Prefixes of those weights of a checkpoint that belong to tasks which this module does not have."""
        return ()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Path | str, **options: Any) -> Any:  # type: ignore[override]
        """A module with the settings and weights of a checkpoint that its training wrote.

        Args:
            checkpoint_path: The file, or the folder of the run.
            options: Arguments of Lightning's method of this name (`map_location`, `strict`, ...), and constructor
                arguments that replace the saved ones.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If the file is damaged, is no checkpoint of a run or could run code, or its weights do not fit.
        """
        path, saved = read_run(checkpoint_path)  # mapped: Lightning's own reader below is the one that copies tensors
        arguments = saved.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {})
        kept = {name: from_plain(value) for name, value in arguments.items() if name not in options}
        return super().load_from_checkpoint(path, **{"weights_only": True, **kept, **options})


def take_weights(
    own: dict[str, Tensor], saved: dict[str, Tensor], absent: tuple[str, ...], *, resuming: bool, strict: bool
) -> dict[str, Tensor]:
    """The weights of a checkpoint without those of absent tasks, which are named in a warning.

    Args:
        own: State of the module.
        saved: State in the checkpoint.
        absent: Prefixes of the weights of tasks that the module does not have.
        resuming: Whether training is continued, for which every task must be there.
        strict: Whether everything else must fit.

    Raises:
        ValueError: If a task is missing for resuming, or the weights are those of another configuration.
    """
    tasks = ", ".join(prefix.rstrip(".") for prefix in absent)
    if absent and resuming:
        raise ValueError(
            f"the checkpoint also trained {tasks}, and a continued run needs the state of its optimiser; to go on "
            "without, start a new run with --model.init_from in place of --ckpt_path"
        )
    kept = {key: value for key, value in saved.items() if not key.startswith(absent)}
    if strict and (problems := _differences(own, kept)):
        raise ValueError(
            f"the checkpoint is of another configuration: {'; '.join(problems)}; "
            "give the configuration it was trained with"
        )
    if absent:
        logger.warning("the checkpoint also holds %s, which this model leaves out: not loaded", tasks)
    return kept


def _differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """The reasons why weights cannot be loaded, a few words each."""
    common = [key for key in own if key in given]
    shapes = [
        f"{key} {tuple(given[key].shape)} in place of {tuple(own[key].shape)}"
        for key in common
        if given[key].shape != own[key].shape
    ]
    found = {
        "have another shape": shapes,
        "are missing": [key for key in own if key not in given],
        "are unknown": [key for key in given if key not in own],
    }
    return [f"{len(keys)} weights {what} (such as {keys[0]})" for what, keys in found.items() if keys]
