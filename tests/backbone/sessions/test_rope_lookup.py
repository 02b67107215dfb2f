"""The looked-up tables against those computed in float64."""

import pytest
import torch

from omnistream.backbone.rope import rope_tables
from omnistream.backbone.sessions.rope_lookup import RopeLookup


@pytest.mark.parametrize("layout", ["rotation", "official", "spatial"])
@pytest.mark.parametrize("head_dim", [32, 64])
def test_lookup_equals_rope_tables_at_any_frame(layout, head_dim):
    frames = torch.tensor([0, 1, 2, 15, 16, 255, 256, 257, 65_535, 65_536, 1_234_567, 16_777_217, 4_294_967_295])
    lookup = RopeLookup(3, 2, 5, head_dim, layout)
    expected = rope_tables(frames, 3, 2, 5, head_dim, layout)
    # Four float32 angles of up to pi are added, each rounded to 1.2e-7.
    for result, table in zip(lookup(frames), expected, strict=True):
        assert result.shape == (13, 11, head_dim)
        torch.testing.assert_close(result, table, atol=2e-6, rtol=0)


def test_lookup_needs_no_float64():
    program = torch.export.export(RopeLookup(2, 2, 5, 32, "rotation"), (torch.tensor([1, 70_000]),))
    dtypes = {node.meta["val"].dtype for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)}
    assert dtypes == {torch.float32, torch.int64}
