import pytest

from omnistream.tasks.ssl.schedules import cosine, linear


def test_temperature():
    values = [linear(i, 0.04, 0.07, 30) for i in (0, 15, 29, 30, 99)]
    assert values == pytest.approx([0.04, 0.055, 0.069, 0.07, 0.07])
    assert linear(0, 0.04, 0.07, 0) == 0.07


def test_momentum():
    momentum = [cosine(i, 0.992, 1.0, 1000) for i in (0, 250, 500, 999, 1000, 2000)]
    assert momentum == pytest.approx([0.992, 0.993171573, 0.996, 0.99999998, 1.0, 1.0], rel=1e-8)
