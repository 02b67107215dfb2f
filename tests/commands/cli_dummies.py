"""Stand-ins for model and data with configurations of them, and ways to run the command on these."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from real_model import MODEL
from torch import nn

from omnistream.cli import main


class Backbone(nn.Module):
    def __init__(self, variant: str = "vit_nano", width: int = 4) -> None:
        super().__init__()
        self.variant, self.width = variant, width


class Task(LightningModule):
    def __init__(self, backbone: Backbone | None = None) -> None:
        super().__init__()


@dataclass(frozen=True)
class LossWeights:
    dino: float = 1.0
    koleo: float = 0.1


class SelfSupervision(Task):
    def __init__(
        self,
        prototypes: int = 16,
        loss: LossWeights = LossWeights(),
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(backbone)
        self.prototypes, self.loss = prototypes, loss


class Geometry(Task):
    def __init__(self, num_layers: int = 4, backbone: Backbone | None = None) -> None:
        super().__init__(backbone)
        if num_layers < 1:
            raise ValueError(f"num_layers must be positive, got {num_layers}; use 1 to 4")
        self.num_layers = num_layers


@dataclass
class Optimizer:
    lr: float = 1e-4
    kind: Literal["adam", "sgd"] = "sgd"


class Multi(LightningModule):
    """The signature of MultiTaskModule with nothing behind it; remembers the last one built."""

    last: "Multi"

    def __init__(
        self,
        backbone: Backbone,
        tasks: dict[str, Task | None],
        weights: dict[str, float] | None = None,
        optimizer: Optimizer = Optimizer(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.tasks, self.weights, self.optimizer_config, self.backbone = tasks, weights, optimizer, backbone
        self.scale = nn.Parameter(torch.ones(()))
        Multi.last = self

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.scale * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def __init__(self, root: str | None = None) -> None:
        super().__init__()
        self.root = root

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.root is not None and not Path(self.root).is_dir():
            raise FileNotFoundError(f"no folder {self.root}; set data.root to the folder with the clips")
        return torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)


CONFIG = f"""\
# A dummy of the multi-task configuration
model:
  class_path: {__name__}.Multi
  init_args:
    backbone:
      class_path: {__name__}.Backbone
      init_args: {{variant: vit_small, width: 8}}
    tasks:
      ssl:
        class_path: {__name__}.SelfSupervision
        init_args: {{prototypes: 32}}
      geometry:
        class_path: {__name__}.Geometry
        init_args: {{num_layers: 2}}
      captioning: null
    weights: {{ssl: 0.1, geometry: 1.0}}
data:
  class_path: {__name__}.Data
trainer: {{max_steps: 1, accelerator: cpu, logger: false, enable_checkpointing: false, enable_progress_bar: false,
  enable_model_summary: false}}
"""


REAL_CONFIG = f"""\
{MODEL}\
data: {{class_path: {__name__}.Data}}
trainer: {{max_steps: 1, accelerator: cpu, logger: false}}
"""


def built(config: Path, *arguments: str) -> Multi:
    main(["fit", "-c", str(config), *arguments])
    return Multi.last


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("omnistream: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("omnistream: error: ")
