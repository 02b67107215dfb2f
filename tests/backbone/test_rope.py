import math
from decimal import Decimal, getcontext

import pytest
import torch

from omnistream.backbone.rope import check_layout, draw_scale, element_angles, patch_coordinates, rope_tables, rotate

LAYOUTS = ["rotation", "official", "spatial"]


def at(t, y, x, head_dim, layout):
    """Angles of one token, [d]."""
    position = [torch.tensor([float(v)], dtype=torch.float64) for v in (t, y, x)]
    return element_angles(*position, head_dim, layout)[0]


def turned(vector, angles):
    """One vector [d] turned by angles [d], through `rotate`."""
    return rotate(vector.view(1, 1, 1, -1), angles.cos().float()[None], angles.sin().float()[None]).flatten()


def test_patch_coordinates_are_cell_centres():
    torch.testing.assert_close(
        patch_coordinates(14)[[0, 1, 13]], torch.tensor([-0.928571, -0.785714, 0.928571]).double(), atol=1e-6, rtol=0
    )


def test_spatial_layout_of_a_grid_of_1x2_has_dinov3s_angles():
    # facebookresearch/dinov3, head width 8: periods 1 and 10.
    expected = torch.tensor([0, 0, math.pi, 0.314159, 0, 0, math.pi, 0.314159])
    cos, sin = rope_tables(torch.tensor([0]), 1, 2, 3, 8, "spatial")
    assert cos.shape == sin.shape == (1, 5, 8)
    assert torch.equal(cos[0, :3], torch.ones(3, 8))
    assert torch.equal(sin[0, :3], torch.zeros(3, 8))
    torch.testing.assert_close(cos[0, 3:], torch.stack([expected, expected]).cos(), atol=1e-6, rtol=0)
    torch.testing.assert_close(sin[0, 3:], torch.stack([-expected, expected]).sin(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        # Numbers of Go2Heart/OmniStream: model/layers/rope3d.py, a vector of ones at (t, y, x) = (0.25, 0.5, -0.375).
        (
            "official",
            [
                *(-1, -0.29212, 0.64204, -1, -1, -0.29212, 0.64204, 0.40259),
                *(-1.41421, 0.05698, 0.73892, 1, -1.41421, 0.05698, 0.73892, 1.3557),
            ],
        ),
        # The same with both members of a pair turned by the angle of its axis.
        (
            "rotation",
            [
                *(-1, -0.29212, 0.64204, -1, 0, 1.41307, 1.20582, 0.40259),
                *(-1, 1.38371, 1.26007, 1, -1.41421, 0.05698, 0.73892, 1.3557),
            ],
        ),
    ],
)
def test_golden_vector_of_width_16(layout, expected):
    result = turned(torch.ones(16), at(0.25, 0.5, -0.375, 16, layout))
    torch.testing.assert_close(result, torch.tensor(expected), atol=1e-5, rtol=0)


def test_golden_vector_of_width_16_spatial():
    periods = [1, math.sqrt(10), 10, math.sqrt(1000)]
    angles = torch.tensor([2 * math.pi * v / p for v in (0.5, -0.375) for p in periods])
    expected = torch.cat([angles.cos() - angles.sin(), angles.cos() + angles.sin()])
    result = turned(torch.ones(16), at(0.25, 0.5, -0.375, 16, "spatial"))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_pair_to_axis_map_of_the_rotation_layout():
    def axis(e):
        moved = [
            bool((at(*p, 64, "rotation")[[e, e + 32]] != 0).all()) for p in ((0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3))
        ]
        assert sum(moved) == 1
        return "tyx"[moved.index(True)]

    assert "".join(axis(e) for e in range(32)) == "yyyt" * 4 + "xxxt" * 4
    time = at(0.01, 0, 0, 64, "rotation")[3:32:4]
    torch.testing.assert_close(time, 2 * math.pi * 0.01 / 100 ** (torch.arange(8).double() / 16))


@pytest.mark.parametrize("layout", ["rotation", "spatial"])
def test_rotation_keeps_norms(layout):
    vector = torch.randn(64)
    torch.testing.assert_close(turned(vector, at(1.3, 0.7, -0.4, 64, layout)).norm(), vector.norm())


def test_official_layout_is_no_rotation():
    vector = torch.randn(64)
    assert abs(turned(vector, at(1.3, 0.7, -0.4, 64, "official")).norm() - vector.norm()) > 0.1


@pytest.mark.parametrize(
    ("layout", "shift", "invariant"),
    [
        ("rotation", (0.2, 0, 0), True),
        ("rotation", (0, 0.2, 0), True),
        ("rotation", (0, 0, 0.2), True),
        ("rotation", (2.7, -0.3, 0.2), True),
        ("official", (0.2, 0, 0), True),
        ("official", (0, 0.2, 0), False),
        ("official", (0, 0, 0.2), False),
        ("spatial", (0, 0.2, -0.1), True),
    ],
)
def test_scores_depend_on_relative_position_only(layout, shift, invariant):
    query, key = torch.randn(2, 64)
    positions = ((0, 0.1, 0.2), (0.5, 0.3, -0.1))

    def score(offset):
        moved = [at(*(p + o for p, o in zip(position, offset, strict=True)), 64, layout) for position in positions]
        return turned(query, moved[0]) @ turned(key, moved[1])

    difference = (score((0, 0, 0)) - score(shift)).abs()
    assert difference < 2e-5 if invariant else difference > 0.1


def test_spatial_layout_ignores_time():
    assert torch.equal(at(0, 0.3, 0.2, 16, "spatial"), at(7, 0.3, 0.2, 16, "spatial"))


@pytest.mark.parametrize("frame", [15, 5_000_003, 80_000_001])
def test_angles_are_exact_for_frame_indices_in_the_millions(frame):
    getcontext().prec = 60
    angles = []
    for j in range(8):
        turns = Decimal(frame) / 16 / (Decimal(100) ** (Decimal(j) / 16))
        angles.append(2 * math.pi * float(turns % 1))
    expected = torch.tensor(angles, dtype=torch.float64)
    result = at(frame / 16, 0, 0, 64, "rotation")[3:32:4]
    # float64 keeps 5e6 turns to about 1e-9 of a turn.
    assert ((result - expected).sin().abs() < 1e-7).all()
    assert (result.cos() - expected.cos()).abs().max() < 1e-7
    cos, sin = rope_tables(torch.tensor([frame]), 1, 1, 0, 64, "rotation")
    torch.testing.assert_close(cos[0, 0, 3:32:4].double(), expected.cos(), atol=2e-7, rtol=0)
    torch.testing.assert_close(sin[0, 0, 3:32:4].double(), expected.sin(), atol=2e-7, rtol=0)


def test_tables_follow_frame_row_column_order_and_scales():
    cos, sin = rope_tables(torch.tensor([4, 9]), 2, 3, 1, 16, "rotation", time_scale=1.5, space_scale=0.7)
    y, x = patch_coordinates(2), patch_coordinates(3)
    for i, frame in enumerate((4, 9)):
        for row in range(2):
            for column in range(3):
                angles = at(frame / 16 * 1.5, y[row] * 0.7, x[column] * 0.7, 16, "rotation")
                token = 1 + 3 * row + column
                torch.testing.assert_close(cos[i, token], angles.cos().float())
                torch.testing.assert_close(sin[i, token], angles.sin().float())


def test_rotation_is_computed_in_float32():
    query = torch.randn(1, 2, 5, 16, dtype=torch.bfloat16)
    cos, sin = (table.flatten(0, 1) for table in rope_tables(torch.tensor([3]), 1, 5, 0, 16, "rotation"))
    result = rotate(query, cos, sin)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, rotate(query.float(), cos, sin).bfloat16())


def test_rescale_factor_is_log_uniform_between_its_limits():
    draws = torch.tensor([draw_scale(2.0) for _ in range(2000)]).log2()
    assert draws.min() > -1.0001
    assert draws.max() < 1.0001
    # A uniform variable on [-1, 1]: mean 0 +- 0.013, standard deviation 0.577.
    assert draws.mean().abs() < 0.05
    assert (draws.std() - 1 / math.sqrt(3)).abs() < 0.03


def test_bad_layouts_are_refused():
    with pytest.raises(ValueError, match="rope_layout must be one of"):
        check_layout("interleaved", 64)
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        check_layout("rotation", 12)
