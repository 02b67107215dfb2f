"""A pretended accelerator on the CPU: computes as usual, and counts where the host would wait for the device.

Tensors "on the device" are wrapped, claim another device, and hold a CPU tensor. Every operation passes through
`__torch_dispatch__`: one whose result depends on values that the host must know (`item`, `nonzero`, boolean indices), a
copy back, and a blocking copy to the device are waits. On a GPU, torch.cuda.set_sync_debug_mode reports the same ones.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")  # a device of every build; real meta tensors are never made here
WAITS: list[str] = []
_AUTOCAST = torch.autocast
_READING = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal",
    "is_nonzero", "repeat_interleave",
}  # fmt: skip


class OnDevice(torch.Tensor):
    """A tensor that claims to be on `DEVICE`."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnDevice":
        self = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device="meta",
            requires_grad=inner.requires_grad,
        )  # fmt: skip
        self.inner = inner.detach()
        return self

    def tolist(self) -> Any:
        return self.cpu().tolist()  # as torch does, but not for subclasses

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _note(what: str) -> None:
    frames = [f for f in traceback.extract_stack() if "/omnistream/" in f.filename and "pretend" not in f.filename]
    place = f"{frames[-1].filename.rsplit('/omnistream/', 1)[1]}:{frames[-1].lineno}" if frames else "outside"
    WAITS.append(f"{what} at {place}")


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function._schema.name.removeprefix("aten::").removesuffix("_")
    on_device = False

    def unwrap(value: Any) -> Any:
        nonlocal on_device
        if isinstance(value, OnDevice):
            on_device = True
            return value.inner
        return value

    plain_args, plain_kwargs = tree_map(unwrap, args), tree_map(unwrap, kwargs)
    target = plain_kwargs.get("device")
    if target is not None:
        target = torch.device(target)
        plain_kwargs = {**plain_kwargs, "device": torch.device("cpu")}
    if on_device and target is not None and target.type == "cpu":
        _note(f"copy to the host ({name})")
        return function(*plain_args, **plain_kwargs)
    to_device = target is not None and target.type == DEVICE.type and not on_device
    if to_device and name == "_to_copy" and plain_args[0].numel() and not plain_kwargs.get("non_blocking"):
        _note("blocking copy to the device")
    if name == "copy" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
        blocking = not (plain_args[2] if len(plain_args) > 2 else plain_kwargs.get("non_blocking", False))
        if blocking and plain_args[1].numel() > 0:
            _note("blocking copy between host and device")
    if on_device and name in _READING:
        _note(name)
    if on_device and name in ("index", "index_put", "_index_put_impl"):
        if any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in plain_args[1]):
            _note(f"boolean {name}")
        if any(isinstance(i, torch.Tensor) and not isinstance(i, OnDevice) and i.ndim for i in args[1]):
            _note(f"blocking copy of host indices ({name})")
    out = function(*plain_args, **plain_kwargs)
    if function._schema.name.endswith("_") and on_device:  # in place: the wrapper stays the same object
        return args[0] if function._schema.returns else None
    if not (on_device or to_device):
        return out
    return tree_map(lambda value: OnDevice(value) if isinstance(value, torch.Tensor) else value, out)


class _Factories(TorchDispatchMode):
    """Makes tensors on the pretended device where code asks for it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == DEVICE.type:
            return _run(function, args, kwargs)
        return function(*args, **kwargs)


def to_device(module: torch.nn.Module) -> torch.nn.Module:
    """Replace all parameters and buffers of a module."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                moved = torch.nn.Parameter(OnDevice(parameter.detach()), requires_grad=parameter.requires_grad)
                part._parameters[name] = moved
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
        if hasattr(part, "_device"):
            part._device = DEVICE
    return module


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """The waits of the block, with the line of this library that caused each."""
    WAITS.clear()
    with _Factories(), mock.patch.object(torch, "autocast", _autocast):
        yield WAITS


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return _AUTOCAST("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)
