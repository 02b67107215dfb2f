"""Parallelism, applied to finished modules from outside: compile, FSDP2 sharding, gradient averaging and norms.

Source of the order (activation checkpointing, compile per block, shard): pytorch/torchtitan and
facebookresearch/dinov3.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from omnistream.backbone import OmniStream
from omnistream.backbone.weights.files import read_run
from omnistream.distributed import is_distributed, world_size
from omnistream.run_config import find_checkpoint


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


RECOMPILE_LIMIT = 128
"""Limit of compiled variants of one function, which is reached if every batch has another size."""


def compile_blocks(module: nn.Module, **options: Any) -> None:
    """Compile every transformer block of every backbone inside `module`, in place.

    Args:
        module: The module; copies made of it later are not compiled.
        options: Of `torch.compile`.
    """
    for backbone in backbones(module):
        for block in backbone.blocks:
            block.compile(**options)
            assert block._compiled_call_impl is not None
            block._compiled_call_impl = _with_more_variants(block._compiled_call_impl)


def _with_more_variants(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same compiled call, for more sizes than torch's 8 of one function.

    All blocks of all backbones share their functions, and a step with several tasks has more kinds of calls than that:
    by size, number of frames, and with or without gradient.
    """
    import torch._dynamo  # takes a second

    settings = {
        "recompile_limit": RECOMPILE_LIMIT,
        "accumulated_recompile_limit": 4 * RECOMPILE_LIMIT,
        "allow_unspec_int_on_nn_module": True,  # otherwise the number of each block would make a variant
    }

    @wraps(call)
    def limited(*args: Any, **kwargs: Any) -> Any:
        # Around every call, as torch keeps its settings per thread: a backward pass recomputes blocks in another one.
        with torch._dynamo.config.patch(settings):
            return call(*args, **kwargs)

    return limited


def backbones(module: nn.Module) -> list[OmniStream]:
    """All backbones inside a module: student and teachers."""
    return [m for m in module.modules() if isinstance(m, OmniStream)]


def shard_backbone(backbone: OmniStream, mesh: DeviceMesh) -> None:
    """FSDP2: one unit per block, one for the rest; streams work on the sharded model too."""
    for block in backbone.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(backbone, "encode")


def shard_units(units: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """FSDP2: every module in `units` that has parameters becomes a unit; inner ones must come first."""
    for unit in units:
        if not isinstance(unit, FSDPModule) and any(True for _ in unit.parameters()):
            # An outermost unit would otherwise stay whole after a forward without gradient, as a teacher's heads do.
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def gather_parameters(module: nn.Module) -> None:
    """FSDP2: hold all parameters whole until `release_parameters`, so that no forward waits for another process.

    For evaluation, where processes have different numbers of batches. Every process must call it.
    """
    for unit in module.modules():  # an outer unit comes before its inner ones, as FSDP2 wants it
        if isinstance(unit, FSDPModule):
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()


def release_parameters(module: nn.Module) -> None:
    """Undo `gather_parameters`."""
    for unit in module.modules():
        if isinstance(unit, FSDPModule):
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], Tensor]:
    """Average over processes the gradients that no wrapper has averaged: those of parameters which are not sharded.

    One flat buffer per dtype. A parameter without a gradient on this process counts as zero, as it may have one
    elsewhere; one that no process used gets a gradient of zero, which the caller may take away once it has read the
    numbers: reading them here would wait for the device.

    Returns:
        The parameters, and on how many processes each has a gradient [N], on their device; nothing in one process.
    """
    averaged = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)] if is_distributed() else []
    if not averaged:
        return [], torch.zeros(0)
    used = torch.tensor([float(p.grad is not None) for p in averaged])
    used = used.to(averaged[0].device, non_blocking=True)
    dist.all_reduce(used)
    for dtype in sorted({p.dtype for p in averaged}, key=str):
        group = [p for p in averaged if p.dtype == dtype]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
        dist.all_reduce(flat)
        flat /= world_size()
        for parameter, gradient in zip(group, flat.split([p.numel() for p in group]), strict=True):
            parameter.grad = gradient.view_as(parameter).clone()
    return averaged, used


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients, of sharded and of whole parameters together; a scalar on their device."""
    parameters = list(parameters)
    whole: list[Tensor] = []
    sharded: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            (sharded if isinstance(parameter.grad, DTensor) else whole).append(local_tensor(parameter.grad))

    def squares(tensors: list[Tensor]) -> Tensor:
        return torch.stack(torch._foreach_norm(tensors)).square().sum()

    total = squares(whole) if whole else torch.zeros((), device=parameters[0].device if parameters else None)
    if sharded:
        part = squares(sharded)
        dist.all_reduce(part)
        total = total.to(part.device) + part
    return total.sqrt()


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply all gradients by a scalar, in place."""
    gradients = [local_tensor(p.grad) for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor.to(gradients[0].device))


def _parameters_without_state(module: nn.Module, saved: dict[str, Any]) -> list[nn.Parameter]:
    """Trainable parameters that had no gradient before the state of the optimiser was saved, and so no moments in it.

    Args:
        module: Whose parameters the state numbers, as Lightning reads it.
        saved: State of the optimiser.
    """
    numbered = enumerate(module.parameters())
    return [parameter for number, parameter in numbered if parameter.requires_grad and number not in saved["state"]]


def _fill_missing_state(optimizer: torch.optim.Optimizer) -> None:
    """Give parameters that have had no gradient the state with which Adam starts: no steps, moments of zero."""
    known: dict[str, Tensor] = next((state for state in optimizer.state.values() if state), {})
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        if known and parameter.requires_grad and not optimizer.state.get(parameter):
            optimizer.state[parameter] = {
                key: torch.zeros_like(value if key == "step" else parameter) for key, value in known.items()
            }


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy` with all processes sharing the data: `--trainer.strategy fsdp2`.

    (Its own default makes the processes of a node a tensor-parallel group, which would train on the same data.)
    Checkpoints are single files that any number of processes, or `checkpoint=` of a backbone, can read.

    Args:
        save_distributed_checkpoint: Write a folder with a part per process instead, for models that no process can
        hold.
        options: Of `ModelParallelStrategy`.
    """

    def __init__(self, save_distributed_checkpoint: bool = False, **options: Any) -> None:
        super().__init__(save_distributed_checkpoint=save_distributed_checkpoint, **options)

    def load_checkpoint(self, checkpoint_path: Path | str, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint, without the weights of tasks that the model does not have.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If a single file cannot be read, is no checkpoint of a run, or its weights do not fit the model.
        """
        module: Any = self.lightning_module
        path = find_checkpoint(self.broadcast(checkpoint_path))
        if not self._is_sharded:
            return super(ModelParallelStrategy, self).load_checkpoint(path, weights_only=weights_only)
        strict, without_state = module.strict_loading, []
        if path.is_file() and hasattr(module, "take_weights"):
            saved = read_run(path)[1]
            kept = module.take_weights(saved["state_dict"], strict=True)
            if self.optimizers:
                without_state = _parameters_without_state(module, saved["optimizer_states"][0])
            if len(kept) < len(saved["state_dict"]) or without_state:
                module.strict_loading = False  # the weights were just checked
        try:
            content = super().load_checkpoint(path, weights_only=weights_only)
        finally:
            module.strict_loading = strict
        for parameter in without_state:  # given by torch, with a step count of 1
            self.optimizers[0].state.pop(parameter, None)
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Weights of a module without a sharded part; those of one with such parts were read with the checkpoint."""
        if not self._is_sharded:
            super(ModelParallelStrategy, self).load_model_state_dict(checkpoint, strict=strict)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the state of optimisers is still to be loaded, as of a module without a sharded part."""
        return not self._is_sharded

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """State of the optimisers of a module without a sharded part."""
        super(ModelParallelStrategy, self).load_optimizer_state_dict(checkpoint)

    @property
    def _is_sharded(self) -> bool:
        """Whether a part of the module is sharded, which Lightning takes for granted; of a probe, none is."""
        assert self.lightning_module is not None
        return any(isinstance(unit, FSDPModule) for unit in self.lightning_module.modules())

    def setup(self, trainer: Any) -> None:
        """Set the module up; the state of one without a sharded part is a single file."""
        super().setup(trainer)
        self._save_distributed_checkpoint &= self._is_sharded

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State of the optimiser; in a folder with moments of zero, as Adam starts, where there has been no gradient.

        The reader of such folders wants the moments of every trainable parameter.
        """
        if not self._is_sharded:
            return super(ModelParallelStrategy, self).optimizer_state(optimizer)
        if self._save_distributed_checkpoint:
            _fill_missing_state(getattr(optimizer, "optimizer", optimizer))
        return super().optimizer_state(optimizer)

    def setup_environment(self) -> None:
        """Build a mesh whose data-parallel axis holds every process."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Fully sharded (FSDP2) over all processes", override=True)
