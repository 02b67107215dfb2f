"""The memory table of docs/streaming.md is what a cache of that size holds."""

import re
from pathlib import Path

import pytest
import torch

from omnistream.backbone import get_variant
from omnistream.backbone.sessions.kv_store import Int8Store, Placement, PlainStore, StoreShape, Workspace

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "streaming.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "dtype", "kind"),
    [
        ("float32", torch.float32, PlainStore),
        ("bfloat16, float16", torch.bfloat16, PlainStore),
        ("int8", None, Int8Store),
    ],
)
def test_the_memory_table_is_true(row, dtype, kind):
    stated = re.search(rf"^\| {row}[^|]*\| ([\d.]+) MB \| ([\d.]+) MB \|$", DOCUMENT, re.MULTILINE)
    arch = get_variant("vit_large")
    for number, tokens in zip(stated.groups(), (201, 1029), strict=True):
        shape = StoreShape(1, arch.num_heads, arch.head_dim, tokens, capacity=1)
        placement = Placement(torch.device("meta"), dtype or torch.bfloat16)
        store = kind(shape, placement, Workspace()) if kind is Int8Store else kind(shape, placement)
        assert arch.num_layers * store.num_bytes / 1e6 == pytest.approx(float(number), rel=0.01)
