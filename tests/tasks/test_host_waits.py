"""A training step makes the host wait for the device once, to read all its numbers.

Counted on a pretended device. The trainer's own parts (optimiser wrapper, loggers, progress bar) are replaced, so waits
inside Lightning are not seen here.
"""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from multitask_runs import first_batch, make_module
from pretend_device import DEVICE, OnDevice, counted_waits, to_device

from omnistream.backbone import create_model
from omnistream.tasks.geometry import GeometryLossConfig
from omnistream.tasks.training import TrainingModule


def ready_to_step(module: TrainingModule) -> tuple[TrainingModule, dict[str, torch.Tensor]]:
    """A module on the pretended device with what a trainer would give it, and the dictionary it logs into."""
    to_device(module.train())
    logged: dict[str, torch.Tensor] = {}
    trained = [p for p in module.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-3)
    optimizer = MagicMock(spec=LightningOptimizer, param_groups=adam.param_groups)
    optimizer.step, optimizer.zero_grad = adam.step, adam.zero_grad
    module._trainer = SimpleNamespace(global_step=1, strategy=None)
    module.optimizers = lambda: optimizer
    module.lr_schedulers = MagicMock()
    module.manual_backward = lambda loss: loss.backward()
    module.log_dict = lambda values, **_: logged.update(values)
    for task in module.objectives.values():
        task.total_steps = 10
    return module, logged


def steps_of(module: TrainingModule, batch: object, count: int) -> tuple[list[str], dict[str, torch.Tensor]]:
    module, logged = ready_to_step(module)
    with counted_waits() as waits:
        module.on_train_start()  # reads the position in the data, once in a run
        waits.clear()
        for index in range(count):
            module.training_step(module.transfer_batch_to_device(batch, DEVICE, 0), index)
        return list(waits), logged


def test_the_pretended_device_notices_waits():
    mask = OnDevice(torch.tensor([True, False]))
    value = OnDevice(torch.ones(2))
    with counted_waits() as waits:
        value.sum().item()
        value[mask]
        bool((value > 0).all())
        value.tolist()
        value.cpu()
        torch.ones(2).to(DEVICE)
        torch.ones(2).to(DEVICE, non_blocking=True)
        torch.ones(2, device=DEVICE)
        torch.where(mask, value, 0)
        assert len(waits) == 6, waits


@pytest.mark.parametrize("quantile", [None, 0.9])
def test_a_step_over_all_tasks_waits_once(quantile):
    module = make_module()
    module.objectives["geometry"].loss_config = GeometryLossConfig(valid_quantile=quantile)
    waits, logged = steps_of(module, first_batch(), count=2)
    assert [wait.rsplit(":", 1)[0] for wait in waits] == 2 * ["copy to the host (_to_copy) at tasks/step_numbers.py"]
    assert "train/captioning/token" in logged
    assert "grad_norm/total" in logged
    # Logged from the host: a logger or progress bar that reads them waits for nothing.
    assert not any(isinstance(value, OnDevice) for value in logged.values())


def test_an_objective_alone_waits_once():
    backbone = create_model("vit_nano")
    module = make_module().objectives["ssl"]
    alone = type(module)(backbone, heads=module.heads, teacher=module.teacher_config, losses=module.losses)
    waits, _ = steps_of(alone, first_batch()["ssl"], count=1)
    assert len(waits) == 1, waits
