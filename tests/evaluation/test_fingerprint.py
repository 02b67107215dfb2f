"""Fingerprints: equal values have equal ones, and whatever differs has another."""

import copy
import functools
import math
import multiprocessing
import re
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from omnistream.data.broken_files import BrokenFiles
from omnistream.evaluation import fingerprint, model_fingerprint
from omnistream.evaluation.called_code import called_code
from omnistream.evaluation.fingerprint import _is_plain


class Colour(Enum):
    RED = 1
    BLUE = 2


class Shade(Enum):
    RED = 1


class Scale:
    """An object with state and methods."""

    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return x * self.factor

    def undo(self, x):
        return x / self.factor


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Numbers(list):
    """A list with a name."""

    def __init__(self, values, name=""):
        super().__init__(values)
        self.name = name


def scaled(factor, *, offset=0):
    return lambda x: factor * x + offset


def with_defaults(a=1, *, b=2):
    return a, b


def other_defaults(b=2):
    def with_defaults(a=1, *, b=b):
        return a, b

    return with_defaults


def generator(seed):
    return torch.Generator().manual_seed(seed)


DIFFERENT = {
    "plain": [0, 1, False, 0.0, "0", b"0", None, 0j, range(3), range(4), slice(1, 2), torch.float32, torch.float16],
    "devices and paths": [torch.device("cpu"), torch.device("meta"), Path("a"), Path("b"), "a"],
    "sequences": [[], (), [1], (1,), [1, 2], [2, 1], [[1], 2], [1, [2]], {1}, frozenset({1}), {1, 2}, deque([1])],
    "mappings": [{}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, OrderedDict(a=1)],
    "enums": [Colour.RED, Colour.BLUE, Shade.RED, 1],
    "tensors": [
        torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.int32), torch.ones(2, 3),
        torch.zeros(2, 3, dtype=torch.bfloat16), torch.eye(3)[:2], np.zeros((2, 3)), np.zeros((2, 3), np.float32),
        np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2).T, np.float64(0), torch.tensor(0.0),
        np.array([{}, 1], object), np.array([{}, 2], object),
    ],
    "functions": [
        scaled(2), scaled(3), scaled(2, offset=1), with_defaults, other_defaults(), other_defaults(3),
        lambda x: x + 1, lambda x: x + 2, lambda x: x.sin(), lambda x: x.cos(), math.sin, math.cos,
        functools.partial(with_defaults, 1), functools.partial(with_defaults, 2), functools.partial(with_defaults, a=1),
        functools.partial(with_defaults, b=1), functools.partial(scaled, 1),
    ],
    "methods": [Scale(2).apply, Scale(3).apply, Scale(2).undo, Scale.apply],
    "objects": [
        Scale(2), Scale(3), Scale, Slotted, Slotted(1), Slotted(2), Numbers([1]), Numbers([2]), Numbers([1], "a"),
        re.compile("a"), re.compile("b"), re.compile("a", re.IGNORECASE), generator(0), generator(1),
        BrokenFiles(1), BrokenFiles(2), nn.ReLU(), nn.GELU(), nn.GELU("tanh"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_values_that_differ_have_different_fingerprints(kind):
    found = [fingerprint(value) for value in DIFFERENT[kind]]
    same = [(a, b) for (a, one), (b, two) in combinations(enumerate(found), 2) if one == two]
    assert not same


@pytest.mark.parametrize("kind", DIFFERENT)
def test_the_same_value_made_again_has_the_same_fingerprint(kind):
    for value in DIFFERENT[kind]:
        assert fingerprint(value) == fingerprint(value)
        if kind not in ("functions", "methods") and not isinstance(value, torch.Generator):
            assert fingerprint(copy.deepcopy(value)) == fingerprint(value), value
    assert fingerprint(scaled(2)) == fingerprint(scaled(2))
    assert fingerprint(generator(4)) == fingerprint(generator(4))
    assert fingerprint({"x", "yy", "z"}) == fingerprint({"z", "yy", "x"})


def test_memory_layout_and_gradients_do_not_count():
    matrix = torch.arange(6.0).view(2, 3)
    assert fingerprint(matrix.T.contiguous().T) == fingerprint(matrix)
    assert fingerprint(nn.Parameter(matrix).data) == fingerprint(matrix)
    assert fingerprint(np.asfortranarray(matrix.numpy())) == fingerprint(matrix.numpy())


def test_an_object_inside_itself_is_followed_once_and_one_that_comes_twice_is_read_twice():
    inner = [1]
    assert fingerprint([inner, inner]) == fingerprint([[1], [1]])
    one, two = [1], [1]
    one.append(one)
    two.append([two])
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(two)


def test_what_processes_share_and_met_does_not_count_and_what_cannot_be_read_is_named():
    counter = multiprocessing.Value("q", 0)
    before = fingerprint([counter, 1])
    counter.value = 5
    assert fingerprint([counter, 1]) == before != fingerprint([counter, 2])
    with pytest.raises(ValueError, match=r"a lock has state that cannot be compared .*leave it out in __getstate__"):
        fingerprint({"lock": threading.Lock()})


def kinds():
    """Classes of the same name that differ in one thing each."""

    def base(**members):
        return type("Same", (), {"__module__": "somewhere", "__qualname__": "Same", **members})

    plain, other = (lambda self: 1), (lambda self: 2)
    parent = type("Same", (base(f=other),), {"__module__": "somewhere", "__qualname__": "Same", "f": plain})
    wrapped = functools.wraps(other)(lambda self: 3)
    return [
        base(), base(f=plain), base(f=other), base(g=plain), base(f=property(plain)), base(f=plain, g=other), parent,
        base(h=wrapped), base(h=staticmethod(plain)), base(k=classmethod(other)),
    ]  # fmt: skip


def test_classes_are_known_by_their_own_and_inherited_code():
    found = [fingerprint(kind) for kind in kinds()]
    again = [fingerprint(kind) for kind in kinds()]
    assert found == again
    assert found[1] == found[4]  # the code of a property is that of its function
    distinct = found[:4] + found[5:]
    assert len(set(distinct)) == len(distinct)


@dataclass
class Options:
    size: int
    names: tuple = ()


class Model(nn.Module):
    def __init__(self, size=3, **settings):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.LayerNorm(2)
        self.register_buffer("table", torch.arange(2.0), persistent=False)
        self.register_buffer("kept", torch.arange(2.0))
        self.size, self._private, self.object = size, 0, object()
        for name, value in settings.items():
            setattr(self, name, value)


class Other(Model):
    def forward(self, x):
        return x


def model(kind=Model, *args, change=lambda model: None, **settings):
    torch.manual_seed(0)
    made = kind(*args, **settings)
    change(made)
    return model_fingerprint(made)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({}, {"size": 4}),
        ({}, {"kind": Other}),
        ({}, {"extra": None}),
        ({"extra": Options(1)}, {"extra": Options(2)}),
        ({"extra": Colour.RED}, {"extra": Colour.BLUE}),
        ({"extra": {"a": (1, 2)}}, {"extra": {"a": (1, 3)}}),
        ({"extra": Path("a")}, {"extra": Path("b")}),
        ({}, {"change": lambda model: model.layer.weight.data.add_(1)}),
        ({}, {"change": lambda model: model.table.add_(1)}),
        ({}, {"change": lambda model: model.kept.add_(1)}),
        ({}, {"change": lambda model: setattr(model.norm, "eps", 1e-3)}),
    ],
)
def test_models_that_differ_have_different_fingerprints(one, two):
    assert model(**one) == model(**one)
    assert model(**one) != model(**two)


def test_what_a_probe_sets_and_objects_of_models_do_not_count():
    def change(model):
        model.eval().requires_grad_(False)
        model._private, model.object = 1, object()

    assert model(change=change) == model()


@pytest.mark.parametrize(
    "plain", [1, "a", (1, [2, {3}]), {"a": {"b": 1.0}}, Options(1, ("a",)), Colour.RED, Path("a"), None]
)
def test_plain_settings_are_plain_all_through(plain):
    assert _is_plain(plain)
    for container in ([plain, object()], {"a": [object()], "b": plain}, Options(1, (plain, object()))):
        assert not _is_plain(container)
    assert not _is_plain({object(): 1})
    assert not _is_plain(Options)


def test_names_of_methods_that_do_not_exist_have_no_code():
    assert called_code(nn.Module, "forward") == []
