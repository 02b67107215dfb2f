import pytest

from omnistream.tasks.ssl.schedules import inclusive_warmup_cosine, warmup_then_cosine


@pytest.mark.parametrize(
    ("step", "value"),
    [
        (0, 0.0),
        (1, 2.5e-8),
        (2000, 5e-5),
        (3999, 9.9975e-5),
        (4000, 1e-4),
        (32000, 4.99985975e-5),
        (59998, 7.868e-14),
        (59999, 0.0),
        (70000, 0.0),
    ],
)
def test_learning_rate_form(step, value):
    assert warmup_then_cosine(step, 0.0, 1e-4, 0.0, 4000, 60000) == pytest.approx(value, rel=1e-4, abs=1e-17)


def test_temperature_forms():
    assert [warmup_then_cosine(i, 0.04, 0.07, 0.07, 30, 100) for i in (15, 29, 30, 99)] == pytest.approx(
        [0.055, 0.069, 0.07, 0.07]
    )
    values = [inclusive_warmup_cosine(i, 0.07, 0.07, 100, 30, 0.04) for i in (1, 15, 29)]
    assert values == pytest.approx([0.0410344828, 0.0555172414, 0.07], rel=1e-8)


def test_cosine_warm_up():
    values = [warmup_then_cosine(i, 0.0, 0.0, 2.0, 10, 20, cosine=5) for i in (9, 10, 11, 12, 13, 14, 15, 19)]
    assert values == pytest.approx([0, 0, 0.292893, 1, 1.707107, 2, 2, 2], abs=1e-6)


def test_momentum_and_inclusive_learning_rate():
    momentum = [inclusive_warmup_cosine(i, 0.992, 1.0, 1000) for i in (250, 500, 999, 1000)]
    assert momentum == pytest.approx([0.993171573, 0.996, 0.99999998, 1.0], rel=1e-8)
    rates = [inclusive_warmup_cosine(i, 1e-3, 1e-6, 1000, 100) for i in (1, 99, 100, 550, 999)]
    assert rates == pytest.approx([1.01010101e-5, 1e-3, 1e-3, 5.005e-4, 1.00304312e-6], rel=1e-7)
