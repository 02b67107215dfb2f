"""Which tensors of a checkpoint are the backbone: it may be nested, wrapped, averaged, and one network among others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from omnistream.backbone.weights.formats import TELLTALES, StateDict

WRAPPERS = {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of keys that DDP, torch.compile, Lightning Fabric, FSDP and activation checkpointing add, at any depth."""
COUNTERS = {"n_averaged"}
"""What `torch.optim.swa_utils.AveragedModel` stores beside the weights."""

_ROLES = {
    "gram": r"gram",
    "average": r"teacher|ema|averaged|target|momentum",
    "student": r"student|online",
}
_PREFERENCE = {"own": 0, "average": 1, "plain": 2, "student": 3, "gram": 4}


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint whose layout is known."""

    prefix: str
    """What its keys begin with: empty, or ending with a dot."""
    layout: str
    """See `formats.detect_layout`."""
    role: str
    """`own` (the backbone of a training module of this library), `average`, `plain`, `student` or `gram`."""

    @property
    def name(self) -> str:
        """Its place in the checkpoint."""
        return self.prefix.removeprefix("state_dict.").removesuffix(".") or "the top level"


def flatten(content: Mapping[Any, Any]) -> StateDict:
    """All tensors of nested dictionaries by their dotted keys, without the parts that wrappers added.

    Raises:
        ValueError: If two tensors get the same key.
    """
    found: StateDict = {}
    for key, value in _named_tensors(content, ""):
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if name in found:
            raise ValueError(f"two tensors are called {name} once the names of wrappers are removed, one of them {key}")
        found[name] = value
    return found


def _named_tensors(content: Mapping[Any, Any], prefix: str) -> list[tuple[str, Tensor]]:
    found = []
    for key, value in content.items():
        if isinstance(value, Tensor) and isinstance(key, str):
            found.append((prefix + key, value))
        elif isinstance(value, Mapping) and isinstance(key, str):
            found += _named_tensors(value, f"{prefix}{key}.")
    return found


def find_networks(state: StateDict) -> list[Network]:
    """All networks of a known layout in a flat state dict, the preferred one first."""
    layouts: dict[str, str] = {}
    for telltale, layout in TELLTALES.items():
        for key in state:
            if key == telltale or key.endswith(f".{telltale}"):
                layouts.setdefault(key.removesuffix(telltale), layout)
    # The release contains its inner model, which counts as a network only if it is alone.
    inner = {f"{prefix}patch_embed." for prefix in layouts}
    networks = [Network(prefix, layout, _role(prefix, layout)) for prefix, layout in layouts.items()]
    return sorted((n for n in networks if n.prefix not in inner), key=lambda n: _PREFERENCE[n.role])


def _role(prefix: str, layout: str) -> str:
    if layout == "ours" and prefix.removeprefix("state_dict.") == "backbone.":
        return "own"
    for role, words in _ROLES.items():
        if re.search(rf"(^|[._])({words})([._]|$)", prefix.lower()):
            return role
    return "plain"


def choose_network(networks: list[Network], part: str | None) -> Network:
    """Choose one network.

    Args:
        networks: From `find_networks`; at least one.
        part: A word of its place in the checkpoint, such as `student`, or the whole place; None for the preferred one:
            the backbone of a checkpoint of this library, else the averaged weights (teacher, EMA), else the others.

    Raises:
        ValueError: If there is no such network, or several that are equally good.
    """
    names = ", ".join(network.name for network in networks)
    if part is not None:
        chosen = [network for network in networks if network.name == part]
        chosen = chosen or [network for network in networks if f".{part}." in f".{network.prefix}"]
        if not chosen:
            raise ValueError(f"no network {part!r} (it has: {names})")
    else:
        chosen = [network for network in networks if network.role == networks[0].role]
    if len(chosen) > 1:
        raise ValueError(f"several networks ({', '.join(n.name for n in chosen)}); choose one with part=")
    return chosen[0]


def extract(state: StateDict, part: str | None = None) -> tuple[StateDict, list[str]]:
    """The tensors of one network without its prefix, and what else the checkpoint holds.

    A state dict in no known layout is returned as it is.

    Args:
        state: From `flatten`.
        part: See `choose_network`.

    Raises:
        ValueError: See `choose_network`.
    """
    networks = find_networks(state)
    if not networks:
        if part is not None:
            raise ValueError(f"no network {part!r} in a known layout")
        return state, []
    network = choose_network(networks, part)
    others = [other for other in networks if other != network]
    prefix, parent = network.prefix, _parent(network.prefix)
    taken, beside = {}, set()
    for key, value in state.items():
        if any(key.startswith(other.prefix) and not prefix.startswith(other.prefix) for other in others):
            continue
        if key.startswith(prefix) and (name := key.removeprefix(prefix)) not in COUNTERS:
            taken[name] = value
        elif key.startswith(parent):
            beside.add(key.removeprefix(parent).split(".")[0])
    left_out = [f"{', '.join(f'{name}.*' for name in sorted(beside))} (beside the backbone)"] if beside else []
    left_out += [f"{other.name} (another network; choose it with part={_word(other, networks)!r})" for other in others]
    return taken, left_out


def _parent(prefix: str) -> str:
    head, dot, _ = prefix.removesuffix(".").rpartition(".")
    return head + dot


def _word(network: Network, networks: list[Network]) -> str:
    """The shortest `part` that means this network, preferably what it is in training."""
    others = {word for other in networks if other != network for word in other.name.split(".")}
    words = [word for word in network.name.split(".") if word not in others]
    telling = [word for word in words if _role(f"{word}.", "") != "plain"]
    return next(iter(telling or words), network.name)
