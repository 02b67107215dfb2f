"""The code in docs/streaming.md runs, and its memory table is what a cache of that size holds."""

import re
from pathlib import Path

import pytest
import torch

from omnistream.backbone import get_variant
from omnistream.backbone.sessions.kv_store import Int8Store, Placement, PlainStore, StoreShape, Workspace

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "streaming.md").read_text(encoding="utf-8")


def test_the_code_runs(capsys):
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL):
        exec(code, names)
    assert capsys.readouterr().out == "torch.Size([2, 1, 4, 4, 64]) torch.Size([2, 1, 4, 4, 64])\n"
    assert names["fork"].frame_indices.tolist() == names["session"].frame_indices.tolist() == [3, 3]


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
