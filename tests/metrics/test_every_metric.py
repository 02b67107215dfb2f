"""The checks that every metric of the library must pass; what is particular to one has its own file."""

import pickle

import pytest
import torch
from metric_cases import CASES
from metric_tester import assert_equal, rows, updated
from processes import gloo, run_ranks
from torchmetrics import Metric

from omnistream import metrics
from omnistream.metrics.mean import SampleMean, WeightedMean

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
every_metric = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_public_metric_has_a_case_and_a_direction():
    public = {value for name in metrics.__all__ if isinstance(value := getattr(metrics, name), type)}
    public = {one for one in public if issubclass(one, Metric)} - {SampleMean, WeightedMean}
    tested = {base for case in CASES for base in case.metric.__mro__}
    assert public <= tested
    assert all(isinstance(one.higher_is_better, bool) for one in public)
    assert sorted(metrics.__all__) == metrics.__all__


@every_metric
class TestEveryMetric:
    def test_batches_in_any_order_are_the_whole(self, case):
        inputs = case.make(7)
        expected = case.expected(inputs)
        assert expected.isfinite()
        for batches in ([range(7)], [[6], [3, 0, 5], [], [4], [1, 2]]):
            assert_equal(case, updated(case.new(), inputs, batches).compute(), expected)

    def test_reset_starts_afresh(self, case):
        inputs, metric = case.make(7), case.new()
        updated(metric, inputs, [range(7)]).compute()
        metric.reset()
        some = rows(inputs, [1, 2, 4])
        assert_equal(case, updated(metric, some, [range(3)]).compute(), case.expected(some))

    def test_nothing_is_nan(self, case):
        nothing = rows(case.make(7), [])
        assert case.new().compute().isnan()
        assert updated(case.new(), nothing, [[]]).compute().isnan()
        assert case.expected(nothing).isnan()

    def test_a_broken_prediction_is_noticed(self, case):
        if case.broken is None:
            pytest.skip("predictions cannot be NaN")
        inputs = case.broken(case.make(7))
        assert updated(case.new(), inputs, [range(4), range(4, 7)]).compute().isnan()
        assert case.expected(inputs).isnan()

    def test_it_travels_between_processes(self, case):
        inputs = case.make(7)
        metric = pickle.loads(pickle.dumps(updated(case.new(), inputs, [range(4)])))
        assert_equal(case, updated(metric, inputs, [range(4, 7)]).compute(), case.expected(inputs))
        assert metric.state_dict() == {}


SHARES = ([[0, 2, 4, 6], [1, 3, 5]], [list(range(7)), []])


def _update_and_compare(rank, folder):
    with gloo(rank, folder):
        for case in CASES:
            inputs = case.make(7)
            for shares in SHARES:
                assert_equal(case, updated(case.new(), inputs, [shares[rank]]).compute(), case.expected(inputs))


def test_two_processes_give_the_value_of_one(tmp_path):
    """An odd number of samples: 4 and 3; then all of them in one process and none in the other."""
    run_ranks(_update_and_compare, str(tmp_path))


def test_standard_error_of_a_mean_is_that_of_its_values():
    class Mean(SampleMean):
        def update(self, values):
            self.add(values)

    metric, values = Mean(), torch.tensor([0.0, 1.0, 1.0, 4.0])
    metric.update(values[:1])
    metric.update(values[1:])
    assert metric.compute() == 1.5
    torch.testing.assert_close(metric.standard_error, values.std() / 2)
    metric.reset()
    metric.update(values[:1])
    metric.compute()
    assert metric.standard_error.isnan()


class TestMeansOverSequences:
    def test_value_and_standard_error(self):
        """The published example: 300 and 100 pixels, and a sequence without any."""
        metric = metrics.SequenceError()
        metric.update(torch.tensor([0.1]), torch.tensor([300.0]))
        metric.compute()
        assert metric.standard_error.isnan()
        metric.update(torch.tensor([0.4, 0.0]), torch.tensor([100.0, 0.0]))
        assert metric.compute() == torch.tensor(0.175)
        assert metric.num_sequences == 2
        expected = 2**0.5 * ((300 * 0.075) ** 2 + (100 * 0.225) ** 2) ** 0.5 / 400
        torch.testing.assert_close(metric.standard_error, torch.tensor(expected))

    def test_equal_weights_are_the_usual_mean(self):
        values = torch.tensor([0.0, 1.0, 1.0, 4.0])
        metric = metrics.SequenceAccuracy()
        metric.update(values, torch.full((4,), 7e6))
        assert metric.compute() == 1.5
        torch.testing.assert_close(metric.standard_error, values.std() / 2)

    def test_the_standard_error_is_that_of_drawing_sequences_at_random(self):
        """Of 2,000 draws of 200 sequences whose values have nothing to do with their weights."""
        values, weights = torch.randn(2000, 200), torch.rand(2000, 200) + 0.1
        means = (values * weights).sum(1) / weights.sum(1)
        errors = []
        for value, weight in zip(values[:200], weights[:200], strict=True):
            metric = metrics.SequenceError()
            metric.update(value, weight)
            metric.compute()
            errors.append(float(metric.standard_error))
        assert sum(errors) / len(errors) == pytest.approx(float(means.std()), rel=0.05)
