"""A small run of the real module, and a callback that sends it a signal."""

import os
import signal
import time
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import BasePredictionWriter
from real_model import MODEL

GEOMETRY_ALONE = MODEL[: MODEL.index("      ssl:")] + MODEL[MODEL.index("      geometry:") :]
SCENES = "class_path: omnistream.data.world.WorldScenes, init_args: {num_frames: 2, size: [16, 16]"
CONFIG = f"""\
{GEOMETRY_ALONE}\
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      geometry:
        train: {{{SCENES}, num_samples: 4}}}}
        val: {{{SCENES}, num_samples: 3, split: val}}}}
        test: {{{SCENES}, num_samples: 2, split: test}}}}
        batch_size: 2
        val_batch_size: 1
trainer:
  accelerator: cpu
  max_steps: 4
  val_check_interval: 2
  check_val_every_n_epoch: null
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: runs, name: small}}}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 4, save_last: true, filename: "{{step}}", auto_insert_metric_name: false}}
"""


class Signal(Callback):
    """Sends a signal to its own process when a hook of Lightning's is called.

    Args:
        hook: Name of the hook.
        call: Which of its calls, from 1.
        number: The signal.
    """

    def __init__(self, hook: str, call: int = 1, number: int = signal.SIGTERM) -> None:
        self.calls = 0

        def send(*_: Any) -> None:
            self.calls += 1
            if self.calls == call:
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


class Sleep(Callback):
    """Makes one step take long.

    Args:
        step: Which, from 1.
        seconds: How long.
    """

    def __init__(self, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Sleep, and go on sleeping after a signal."""
        if batch_idx + 1 == self.step:
            print("sleeping", flush=True)
            time.sleep(self.seconds)


class Fail(Callback):
    """Fails as a user's data does, at the start of a step.

    Args:
        step: Which, from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Fail."""
        if batch_idx + 1 == self.step:
            raise ValueError("broken clip")


class NoWriter(BasePredictionWriter):
    """Takes the place of the writer of features."""

    def __init__(self) -> None:
        super().__init__("batch")

    def write_on_batch_end(self, *_: Any) -> None:
        """Write nothing."""
