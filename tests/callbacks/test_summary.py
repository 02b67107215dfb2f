"""The table of parameters."""

from lightning import LightningModule, Trainer
from torch import nn

from omnistream.callbacks import ParameterSummary
from omnistream.callbacks.summary import parameter_table


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(1000, 1000)
        self.tasks = nn.ModuleDict({"ssl": nn.Linear(100, 100, bias=False), "geometry": nn.Linear(1000, 5000)})
        self.tasks["ssl"].requires_grad_(False)


def test_one_row_for_each_task():
    assert parameter_table(Model()).splitlines() == [
        "part            class   parameters  trained",
        "backbone        Linear      1.00 M   1.00 M",
        "tasks.ssl       Linear      0.01 M   0.00 M",
        "tasks.geometry  Linear      5.00 M   5.00 M",
        "all             Model       6.02 M   6.01 M",
    ]


def test_printed_once_and_without_operations(caplog):
    with caplog.at_level("INFO", "lightning.pytorch"):
        trainer = Trainer(callbacks=[ParameterSummary()], enable_model_summary=False, accelerator="cpu", logger=False)
        for callback in trainer.callbacks:
            callback.on_fit_start(trainer, Model())
    assert caplog.text.count("tasks.geometry") == 1
    assert "FLOPs" not in caplog.text
