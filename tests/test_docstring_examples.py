"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import omnistream

PACKAGE = Path(omnistream.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("omnistream", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_example(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_some_modules_have_examples():
    assert len(WITH_EXAMPLES) >= 3
