"""Two processes must give what one process gives with all the data."""

from pathlib import Path

import pytest
import torch
from processes import gloo, run_ranks
from ssl_examples import make_batch, make_module, rows, spread_prototypes
from ssl_oracle import MASKS, PATCH_TARGETS, SINKHORN, TEMPERATURE, close, sines
from torch.distributed.device_mesh import init_device_mesh

from omnistream.backbone import create_model
from omnistream.parallel import shard_backbone, shard_units
from omnistream.tasks.ssl import SSLLossConfig, SSLModule, TeacherConfig
from omnistream.tasks.ssl.ibot import patch_targets
from omnistream.tasks.ssl.koleo import koleo_loss
from omnistream.tasks.ssl.sinkhorn import sinkhorn_knopp

FIRST_SHARES = {"even": 2, "uneven": 1, "all": 4}


def _objective() -> tuple[torch.nn.Module, SSLModule]:
    torch.manual_seed(0)
    backbone = create_model("vit_nano", rope_rescale=None)
    losses = SSLLossConfig(koleo_across_processes=True, chunk_size=3)
    teacher = TeacherConfig(momentum=(0.9, 0.9), temperature=(0.07, 0.07))
    module = make_module(backbone, losses=losses, teacher=teacher)
    spread_prototypes(module)
    return backbone, module


def _losses(rank: int) -> dict[str, torch.Tensor]:
    out = {}
    logits, masked = sines(4, 6, a=0.7, b=0.3), sines(4, 5, 6, a=0.9, b=0.1)[MASKS[:, 0, 0]]
    for name, first in FIRST_SHARES.items():
        part = slice(0, first) if rank == 0 else slice(first, None)
        out[f"sinkhorn/{name}"] = sinkhorn_knopp(logits[part], TEMPERATURE)
    for name, first in {"uneven": 2, "all": 6}.items():
        part = slice(0, first) if rank == 0 else slice(first, None)
        targets = patch_targets(masked[part], torch.eye(6), TEMPERATURE, chunk_size=2)
        out[f"ibot/{name}"] = targets.probabilities(slice(None))
    features = sines(4, 4, a=1.3, b=0.2)[2 * rank : 2 * rank + 2]
    out["koleo/global"] = koleo_loss(features, across_processes=True)
    out["koleo/groups"] = koleo_loss(features, across_processes=True, group_size=2)
    return out


def _sharded_step(rank: int) -> dict[str, torch.Tensor]:
    backbone, module = _objective()
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    for network in (backbone, *module.own_backbones()):
        shard_backbone(network, mesh)
    shard_units(module.fsdp_units(), mesh)
    # All masked crops of the second half lie on one process; the other one has none.
    result = module.compute(backbone, rows(_batch(), slice(2 * rank, 2 * rank + 2)), step=0)
    result.total.backward()
    module.after_step(backbone, 1)
    full = {
        f"gradient/{i}": p.grad.full_tensor() for i, p in enumerate(_parameters(backbone, module)) if p.grad is not None
    }
    return full | {f"term/{name}": value for name, value in result.terms.items()} | {"total": result.total.detach()}


def _parameters(backbone: torch.nn.Module, module: SSLModule) -> list[torch.nn.Parameter]:
    return [*backbone.parameters(), *module.dino_head.parameters(), *module.ibot_head.parameters()]


def _batch():
    batch = make_batch(samples=4)
    batch.masks[2:] = False
    return batch


def _work(rank: int, folder: str) -> None:
    with gloo(rank, folder):
        torch.save(_losses(rank) | _sharded_step(rank), Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("gloo")
    run_ranks(_work, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", FIRST_SHARES)
def test_sinkhorn_balances_over_processes(results, name):
    assert len(results[0][f"sinkhorn/{name}"]) == FIRST_SHARES[name]
    close(torch.cat([result[f"sinkhorn/{name}"] for result in results]), SINKHORN, 2e-6)


@pytest.mark.parametrize("name", ["uneven", "all"])
def test_patch_targets_balance_over_processes(results, name):
    close(torch.cat([result[f"ibot/{name}"] for result in results]), PATCH_TARGETS, 2e-6)


def test_koleo_over_processes_and_in_groups(results):
    close(torch.stack([result["koleo/global"] for result in results]), [-0.062612, 0.059855])
    close(torch.stack([result["koleo/groups"] for result in results]), [-0.190064, 0.054871])


def test_sharded_objective_equals_one_process(results):
    backbone, module = _objective()
    result = module.compute(backbone, _batch(), step=0)
    result.total.backward()
    for name, value in {**{f"term/{k}": v for k, v in result.terms.items()}, "total": result.total}.items():
        close((results[0][name] + results[1][name]) / 2, value, 1e-5)
    compared = 0
    for i, parameter in enumerate(_parameters(backbone, module)):
        if f"gradient/{i}" in results[0]:
            tolerance = 1e-4 * parameter.grad.abs().max().item() + 1e-7
            close(results[0][f"gradient/{i}"], parameter.grad, tolerance)
            compared += 1
    assert compared > 40
