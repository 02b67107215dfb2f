"""A model with tasks and its data, for tests of the commands that are about checkpoints and folders."""

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Model(LightningModule):
    """A backbone and a layer per task.

    Args:
        width: Of the backbone.
        tasks: Tasks by name; null leaves one out.
        init_from: Taken for the sake of its name.
    """

    def __init__(self, tasks: dict[str, int | None], width: int = 2, init_from: str | None = None) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.tasks = nn.ModuleDict({name: nn.Linear(width, size) for name, size in tasks.items() if size is not None})

    def forward(self, batch: Tensor) -> Tensor:
        features = self.backbone(batch)
        return torch.stack([task(features).square().mean() for task in self.tasks.values()]).sum()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/loss", self(batch))

    def predict_step(self, batch: Tensor, batch_idx: int) -> dict[str, list]:
        return {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


class Data(LightningDataModule):
    """Four samples.

    Args:
        broken: Fail when they are asked for.
    """

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken

    def train_dataloader(self) -> DataLoader:
        if self.broken:
            raise FileNotFoundError("no clips there")
        return DataLoader(torch.ones(4, 2), batch_size=1)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


CONFIG = f"""\
model:
  class_path: {__name__}.Model
  init_args: {{tasks: {{ssl: 2, geometry: 3}}}}
data: {{class_path: {__name__}.Data}}
trainer:
  accelerator: cpu
  max_steps: 1
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  logger: {{class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {{save_dir: runs, name: small}}}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 1, save_last: true, save_top_k: 0}}
"""
