"""Depth of videos against CUT3R's scorer: its values on a formula and on degenerate sequences."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import run_python

from omnistream.data.media import read_depth_png
from omnistream.metrics.depth_alignment import fit_alignments, video_alignment
from omnistream.metrics.pair_store import PairStore, add_up
from omnistream.metrics.video_depth import (
    DepthPairs,
    SequenceDepth,
    resize_depth,
    sequence_depth_errors,
)

ORDER = torch.arange(24, dtype=torch.float64).view(2, 3, 4)
BASE = 1 + 0.5 * ORDER
PREDS = 0.3 * BASE + 0.2 + 0.05 * ORDER.sin()
TRUTH = torch.where(ORDER % 7 == 0, 0.0, torch.where(ORDER == 23, 80.0, BASE))


def values(found: SequenceDepth) -> list[float]:
    return [float(value) for value in found.errors]


@pytest.mark.parametrize(
    ("alignment", "maximum", "expected", "scale", "shift"),
    [
        ("metric", 70, [0.655475, 2.942639, 4.920783, 1.075578, 0, 0, 0], 1, 0),
        ("scale", 70, [0.074234, 0.035122, 0.296127, 0.114844, 0.894737, 1, 1], 3.086922, 0),
        ("scale_shift", 70, [0.065394, 0.027769, 0.261718, 0.103655, 0.894737, 1, 1], 3.129881, -0.097472),
        ("median", 70, [0.075143, 0.036049, 0.298082, 0.116186, 0.894737, 1, 1], 3.095237, 0),
        ("scale_shift_l2", 70, [0.023410, 0.003060, 0.113543, 0.032317, 1, 1, 1], 3.341723, -0.679049),
        ("metric", None, [0.670259, 6.414281, 17.677822, 1.246903, 0, 0, 0], 1, 0),
        ("scale", None, [0.115042, 2.914291, 15.179195, 0.437118, 0.85, 0.95, 0.95], 3.103956, 0),
        ("median", None, [0.113826, 2.916158, 15.186749, 0.437357, 0.85, 0.95, 0.95], None, 0),
        ("scale_shift_l2", None, [0.917427, 6.932045, 13.632996, 5.529500, 0.1, 0.25, 0.6], 8.939390, -9.899703),
    ],
)
def test_values_of_the_published_scorer(alignment, maximum, expected, scale, shift):
    found = sequence_depth_errors(PREDS, TRUTH, alignment, maximum)
    assert found.num_valid == (19 if maximum else 20)
    tolerance = 2e-5 if alignment == "scale_shift" else 2e-6  # 1,000 steps in float32; pairs in float32
    assert values(found) == pytest.approx(expected, abs=tolerance)
    assert scale is None or float(found.scale) == pytest.approx(scale, abs=tolerance)
    assert float(found.shift) == pytest.approx(shift, abs=tolerance)


def test_the_exact_fit_beats_every_neighbour():
    valid = (TRUTH > 0) & (TRUTH < 70)
    p, t = PREDS[valid], TRUTH[valid]

    def total(scale, shift):
        return float((scale * p + shift - t).abs().sum())

    scale, shift = video_alignment(p, t, "scale_shift_l1")
    best = total(scale, shift)
    assert best < total(*video_alignment(p, t, "scale_shift_l2"))
    for step in (1e-3, 1e-2, 0.1):
        for ds, dt in [(step, 0), (-step, 0), (0, step), (0, -step), (step, -step), (-step, step)]:
            assert best <= total(scale + ds, shift + dt) + 1e-7


SMALL = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("preds", "alignment", "expected"),
    [
        (2 * SMALL, "metric", {"abs_rel": 1, "sq_rel": 2.5, "rmse": 2.738613, "log_rmse": 0.693147, "delta1": 0}),
        (2 * SMALL, "scale", {"abs_rel": 0, "delta1": 1}),
        (0 * SMALL, "metric", {"abs_rel": 1, "rmse": 2.738613, "log_rmse": 12.318446}),
        (0 * SMALL, "scale_shift_l2", {"abs_rel": 0.572917}),
        (-SMALL, "metric", {"abs_rel": 2, "log_rmse": 12.318446}),
        (-SMALL, "scale", {"abs_rel": 1.001, "sq_rel": 2.505002, "rmse": 2.741352}),
        (5000 * SMALL, "metric", {"abs_rel": 4999}),
        (5000 * SMALL, "scale", {"abs_rel": 4.0, "log_rmse": 1.609438}),
        (5000 * SMALL, "median", {"abs_rel": 0}),
        (5000 * SMALL, "scale_shift_l2", {"abs_rel": 0}),
        (2 * SMALL, "median", {"abs_rel": 0, "delta1": 1}),
        (2 * SMALL, "scale_shift_l2", {"abs_rel": 0, "delta1": 1}),
        (-SMALL, "median", {"abs_rel": 0.333333}),
        (-SMALL, "scale_shift_l2", {"abs_rel": 0}),
        (SMALL / 1000, "metric", {"abs_rel": 0.999}),
        (SMALL / 1000, "scale", {"abs_rel": 0}),
        (torch.full_like(SMALL, 2.0), "metric", {"abs_rel": 0.458333}),
        (torch.full_like(SMALL, 2.0), "scale", {"abs_rel": 0.572917}),
        (torch.full_like(SMALL, 2.0), "scale_shift_l2", {"abs_rel": 0.572917}),
    ],
)
def test_degenerate_predictions(preds, alignment, expected):
    found = sequence_depth_errors(preds, SMALL, alignment, 70.0).errors
    assert {name: float(getattr(found, name)) for name in expected} == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("alignment", ["scale", "median"])
def test_no_scale_brings_zero_to_the_truth(alignment):
    found = sequence_depth_errors(0 * SMALL, SMALL, alignment, 70.0)
    assert found.errors.abs_rel.isnan()
    assert found.not_finite_frame is None


@pytest.mark.parametrize("alignment", ["metric", "scale", "median"])
def test_one_wrong_sign_counts_with_the_smallest_depth_in_logarithms(alignment):
    preds = SMALL.clone()
    preds[0, 0, 0] = -0.5
    found = sequence_depth_errors(preds, SMALL, alignment, 70.0).errors
    assert [float(x) for x in found[:5]] == pytest.approx([0.375, 0.5625, 0.75, 5.756463, 0.75], abs=1e-6)
    assert float(sequence_depth_errors(preds, SMALL, "scale_shift_l2").errors.abs_rel) == pytest.approx(
        0.126047, abs=1e-6
    )


def test_a_ratio_of_exactly_the_threshold_does_not_count():
    preds, truth = torch.tensor([[[[1.25, 1, 1.5625, 0.8]]], [[[1, 1.25, 1, 1]]]], dtype=torch.float64)
    found = sequence_depth_errors(preds, truth, "metric").errors
    assert [float(x) for x in found[4:]] == [0, 0.75, 1]
    assert [float(found.abs_rel), float(found.rmse)] == pytest.approx([0.303125, 0.346917], abs=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_makes_every_error_nan(bad):
    preds = SMALL.clone()
    preds[0, 1, 1] = bad
    found = sequence_depth_errors(preds, SMALL, "scale")
    assert all(value.isnan() for value in found.errors)
    assert found.num_valid == 4
    truth = SMALL.clone()
    truth[0, 1, 1] = torch.nan  # where nothing is compared, it does not matter
    assert values(sequence_depth_errors(preds, truth, "scale")) == pytest.approx([0, 0, 0, 0, 1, 1, 1], abs=1e-12)


def test_nothing_to_compare():
    found = sequence_depth_errors(SMALL, torch.zeros_like(SMALL), "scale")
    assert (values(found), found.num_valid) == ([0.0] * 7, 0)


def test_resized_as_opencv_does():
    resized = resize_depth(torch.tensor([[[1.0, 2, 4], [8, 16, 32]]]), (4, 5))[0]
    assert resized[0].tolist() == pytest.approx([0.236594, 0.325578, 0.523438, 0.862625, 1.097125], abs=1e-6)
    assert resized[-1].tolist() == pytest.approx([7.899404, 10.870423, 17.476562, 28.801380, 36.630867], abs=1e-5)


@pytest.mark.parametrize("size", [(9, 20), (4, 5), (7, 3), (7, 8)])
def test_each_of_several_maps_is_resized_as_in_float64(size):
    maps = 10 * torch.rand(2, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps.double()[None], size, mode="bicubic", align_corners=False)[0]
    torch.testing.assert_close(resize_depth(maps, size).double(), expected, rtol=0, atol=1e-5)


def test_a_map_of_one_value_keeps_it():
    assert resize_depth(torch.full((2, 5, 7), 2.3), (11, 13)).unique().tolist() == [torch.tensor(2.3).item()]


def test_bounds_are_strict_and_clips_come_after_the_alignment():
    truth = torch.tensor([[[10.0, 70.0, 69.0]]])
    assert sequence_depth_errors(truth, truth, "metric", 70.0).num_valid == 2
    preds = torch.tensor([[[10.0, 1.0, 100.0]]])
    assert float(sequence_depth_errors(preds, truth, "metric", 70.0, 70.0).errors.rmse) == pytest.approx(0.5**0.5)


def test_bad_arguments(no_type_checks):
    with pytest.raises(ValueError, match="2 predicted depth maps for 1 frames"):
        sequence_depth_errors(SMALL.expand(2, 2, 2), SMALL)
    with pytest.raises(ValueError, match="alignment must be one of metric, scale,"):
        sequence_depth_errors(SMALL, SMALL, "affine")


def red_kitchen(folder, *numbers):
    folder = folder / "rgbd" / "tsdf_fusion_python" / "data"
    return torch.stack([read_depth_png(folder / f"frame-{n:06d}.depth.png", scale=0.001) for n in numbers])


def hololens(folder, *numbers):
    folder = folder / "rgbd" / "deep_video_mvs" / "hololens-dataset" / "000" / "depth"
    return torch.stack([read_depth_png(folder / f"{n:05d}.png", scale=0.001) for n in numbers])


@pytest.mark.parametrize(
    ("read", "preds", "target", "num_valid", "expected"),
    [
        (
            red_kitchen,
            (0, 10, 20),
            (10, 20, 30),
            [277324, 272902, 271903],
            {
                "metric": [0.519280, 0.564570, 1.104330, 2.832841, 0.007911, 0.022293, 0.245724, 1],
                "scale": [0.088545, 0.129409, 0.539819, 2.752884, 0.901526, 0.929780, 0.948402, 1.998839],
                "median": [0.094309, 0.130437, 0.541399, 2.752932, 0.901824, 0.928841, 0.948459, 2.021528],
                "scale_shift_l2": [0.173881, 0.093950, 0.426252, 0.264651, 0.757123, 0.925580, 0.962621],
                "frame_median": [0.096209, 0.130212, 0.539258, 2.744065, 0.901580, 0.929966, 0.947978],
            },
        ),
        (
            hololens,
            (10, 20, 30),
            (13, 23, 33),
            [149518, 122698, 111581],
            {
                "metric": [0.637524, 1.256937, 2.163747, 6.585968, 0.004099, 0.009291, 0.338124, 1],
                "median": [0.586487, 1.175575, 2.099965, 6.565556, 0.111530, 0.672858, 0.719117, 2.847193],
                "scale_shift_l2": [0.506178, 0.653788, 1.343469, 0.517482, 0.282011, 0.588019, 0.796434],
            },
        ),
    ],
)
def test_real_depth(sample_data, read, preds, target, num_valid, expected):
    """All alignments in shared passes; values of the published scorer."""
    with DepthPairs(70.0) as pairs:
        for frame, truth in zip(0.5 * read(sample_data, *preds), read(sample_data, *target), strict=True):
            pairs.add(frame, truth)
        found = pairs.errors(list(expected))
    for alignment, row in expected.items():
        # Depths of whole millimetres hit the truth exactly, which gives a pixel a weight of up to 1e8: the steps of
        # `scale` depend on the rounding of single pixels, by 5e-4 of the scale between float32 and float64.
        tolerance, of_scale = (1e-4, 1e-3) if alignment == "scale" else (2e-5, 1e-6)
        assert found[alignment].num_valid == sum(num_valid)
        assert values(found[alignment]) == pytest.approx(row[:7], abs=tolerance), alignment
        assert row[7:] == [] or float(found[alignment].scale) == pytest.approx(row[7], abs=of_scale)


def test_the_published_scale_on_doubled_millimetres(sample_data):
    """Here rounding decides: the published program gives an Abs Rel of 0.366202 in float32, and the same steps 0.344 in
    float64, on the way to the optimum, which has 0.326396."""
    preds, truth = 0.5 * hololens(sample_data, 10, 20, 30), hololens(sample_data, 13, 23, 33)
    found = sequence_depth_errors(preds, truth, "scale", 70.0)
    assert 0.326396 < float(found.errors.abs_rel) < 0.3663
    at_its_scale = sequence_depth_errors(2.1368284 * preds, truth, "metric", 70.0)
    expected = [0.366202, 0.898268, 1.935681, 6.559140, 0.664838, 0.719328, 0.724102]
    assert values(at_its_scale) == pytest.approx(expected, abs=2e-5)


def test_real_depth_of_half_the_size(sample_data):
    preds, truth = 0.5 * red_kitchen(sample_data, 0, 10, 20), red_kitchen(sample_data, 10, 20, 30)
    found = sequence_depth_errors(preds[:, ::2, ::2], truth, "scale", 70.0)
    expected = [0.090633, 0.125307, 0.530926, 2.215680, 0.897392, 0.930580, 0.948337]
    assert values(found) == pytest.approx(expected, rel=2e-3)  # of the rounding of single pixels, as above


ALL = ["metric", "scale", "scale_shift", "scale_shift_l2", "scale_shift_l1", "median", "frame_median"]


def a_video(num_frames=5, size=(6, 7)):
    """Depth of which a third is unknown, none of it in the last frame, and predictions of half the size."""
    generator = torch.Generator().manual_seed(0)
    truth = 1 + 4 * torch.rand(num_frames, *size, generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = 0
    truth[-1] = -1
    preds = 0.4 * truth.clamp_min(1)[:, ::2, ::2] + 0.1 * torch.randn(num_frames, 3, 4, generator=generator)
    return preds, truth


def scored(alignments=ALL, clip_to=None, **options):
    with DepthPairs(4.5, **options) as pairs:
        for frame, truth in zip(*a_video(), strict=True):
            pairs.add(frame, truth)
        assert (pairs.num_frames, pairs.num_valid) == (5, int(((a_video()[1] > 0) & (a_video()[1] < 4.5)).sum()))
        return pairs.errors(alignments, clip_to)


class TestDepthPairs:
    @pytest.mark.parametrize("alignment", ALL)
    def test_frame_after_frame_is_the_whole_sequence(self, alignment):
        found = scored(clip_to=4.0)[alignment]
        alone = sequence_depth_errors(*a_video(), alignment, 4.5, 4.0)
        assert values(found) == values(alone)
        torch.testing.assert_close(found.scale, alone.scale, rtol=0, atol=0, equal_nan=True)

    def test_small_chunks_in_a_file_change_nothing(self, monkeypatch, tmp_path):
        monkeypatch.setattr("omnistream.metrics.depth_alignment._ADAM_STEPS", 20)
        expected = scored()
        monkeypatch.setattr("omnistream.metrics.pair_store.CHUNK", 3)
        monkeypatch.setattr("omnistream.metrics.pair_store.BLOCK", 7)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        for name, found in scored(memory_limit=0, folder=tmp_path).items():
            tolerance = 1e-6 if name == "scale_shift" else 1e-9  # of sums in float32
            assert values(found) == pytest.approx(values(expected[name]), rel=tolerance), name
        assert list(tmp_path.iterdir()) == []

    def test_alignments_share_the_passes(self, monkeypatch):
        passes, sums = [], PairStore.sums
        monkeypatch.setattr(PairStore, "sums", lambda store, function: passes.append(1) or sums(store, function))
        scored(["metric", "scale", "scale_shift_l2", "median"])
        assert len(passes) == 11 + 1

    def test_errors_of_frames(self):
        preds, truth = a_video()
        found = scored(["scale", "frame_median"])
        for name, one in found.items():
            assert one.frame_errors.abs_rel.isnan().tolist() == [False] * 4 + [True]
            for t in range(4):
                resized = resize_depth(preds[t : t + 1], (6, 7))[0].float().double()
                valid = (truth[t] > 0) & (truth[t] < 4.5)
                p, g = resized[valid], truth[t][valid].double()
                scale = g.median() / p.median() if name == "frame_median" else one.scale
                aligned = scale * p
                assert float(one.frame_errors.abs_rel[t]) == pytest.approx(float(((aligned - g).abs() / g).mean()))
                assert float(one.frame_errors.rmse[t]) == pytest.approx(float((aligned - g).square().mean().sqrt()))
        weights = torch.tensor([float(((t > 0) & (t < 4.5)).sum()) for t in truth])
        frames = found["frame_median"].frame_errors.rmse[:4]
        expected = float((weights[:4] * frames).sum() / weights.sum())
        assert float(found["frame_median"].errors.rmse) == pytest.approx(expected)
        pooled = (weights[:4] * found["scale"].frame_errors.rmse[:4].square()).sum() / weights.sum()
        assert float(found["scale"].errors.rmse) == pytest.approx(float(pooled.sqrt()))
        assert found["frame_median"].scale.shape == (5,)

    def test_the_first_frame_that_is_not_finite_is_named(self):
        with DepthPairs() as pairs:
            for frame in range(6):
                preds = SMALL[0].clone()
                if frame in (2, 4):
                    preds[0, 0] = torch.inf
                pairs.add(preds, SMALL[0] if frame != 2 else torch.zeros(2, 2))  # nothing is compared in frame 2
                assert pairs.not_finite_frame == (None if frame < 4 else 4)
            found = pairs.errors(["metric", "frame_median"])
        assert [one.not_finite_frame for one in found.values()] == [4, 4]
        assert all(torch.stack(one.errors).isnan().all() for one in found.values())
        assert found["metric"].frame_errors.rmse.shape == (6,)
        assert found["metric"].num_valid == 5 * 4

    def test_no_room_for_the_file(self, tmp_path):
        with (
            DepthPairs(memory_limit=0, folder=tmp_path / "gone") as pairs,
            pytest.raises(OSError, match=r"temporary file of pairs: No such file or directory; set TMPDIR: .*gone"),
        ):
            pairs.add(SMALL[0], SMALL[0])

    def test_an_unknown_alignment(self, no_type_checks):
        with pytest.raises(ValueError, match=r"alignment must be one of metric, .*, frame_median, got 'affine'"):
            scored(["affine"])


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_the_median_of_pairs_in_chunks(count):
    """The lower one, of numbers of both signs and of the same upper bits."""
    generator = torch.Generator().manual_seed(count)
    p = torch.randn(count, generator=generator).round(decimals=1)
    t = 3 + 1e-4 * torch.rand(count, generator=generator)
    p[p == 0] = -0.25
    chunks = list(zip(p.double().split(3), t.double().split(3), strict=True))
    fit = fit_alignments(lambda sums: add_up(sums(*chunk) for chunk in chunks), ["median"])["median"]
    assert float(fit.scale) == float(t.median().double() / p.median().double())
    assert float(fit.shift) == 0


MEMORY = """
import re, torch
from pathlib import Path
from omnistream.metrics import DepthPairs

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

truth = 1 + torch.rand(480, 640)
with DepthPairs(memory_limit=1 << 20) as pairs:
    pairs.add(truth[::2, ::2], truth)
    pairs.errors(["scale", "median"])
    Path("/proc/self/clear_refs").write_text("5")
    start = status("VmRSS")
    for _ in range(99):
        pairs.add(truth[::2, ::2], truth)
    pairs.errors(["scale", "median"])
    print(pairs.num_valid, status("VmHWM") - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    """100 full frames are 245 MB of pairs; one frame in the making takes about 10."""
    num_valid, added = run_python(["-c", MEMORY], tmp_path).split()[-2:]
    assert int(num_valid) == 100 * 480 * 640
    assert float(added) < 60
