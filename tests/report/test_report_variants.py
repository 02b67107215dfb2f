"""Results of one model that differ in settings which change them stand side by side."""

import pytest

from omnistream.evaluation import EvaluationResult, MetricValue
from omnistream.report.comparison import compare, find_results, model_names
from omnistream.report.published import load_published

SESSION = {"window": None, "sink": 0}
VIDEOS = {
    "reader": "Sintel",
    "options": ["final"],
    "list": "depth",
    "frames": {"count": None},
    "images": {"fit": "crop"},
}


def write(
    folder, value, day, *, protocol="video_depth/sintel", session=SESSION, videos=VIDEOS, weights="a" * 64, name="vit",
    **settings,
):  # fmt: skip
    metrics = {"abs_rel": MetricValue(value=value, higher_is_better=False)}
    model = {"class": "TrainedStream", "name": name, "weights_sha256": weights}
    settings = {"model": {"class": "TrainedStream", "session": session}, "videos": videos, **settings}
    date = {"date": f"2026-01-0{day}", "precision": settings.pop("precision", "32-true")}
    EvaluationResult(
        protocol=protocol, metrics=metrics, num_samples=14, model=model, settings=settings, environment=date
    ).write(folder / "results.json")


def own_columns(folder, benchmark="Sintel video depth, Abs"):
    """Columns of the results beside the paper's table 3, with the values of a benchmark."""
    tables = compare(find_results([folder]), load_published())
    (table,) = [table for table in tables if table.title.startswith("Table 3")]
    row = next(row for row in table.rows if row[0].startswith(benchmark))
    return {name: cell for name, cell in zip(table.columns, row, strict=True) if name.startswith("yours")}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"session": {"window": 4, "sink": 0}}, ("session window none", "session window 4")),
        ({"videos": VIDEOS | {"frames": {"count": 16}}}, ("frames count none", "frames count 16")),
        ({"videos": VIDEOS | {"images": {"fit": "resize"}}}, ("images fit crop", "images fit resize")),
        ({"max_depth": 70}, ("max_depth none", "max_depth 70")),
        ({"precision": "bf16-mixed"}, ("precision 32-true", "precision bf16-mixed")),
    ],
)
def test_no_result_takes_the_place_of_one_with_other_settings(tmp_path, changed, words):
    write(tmp_path / "a", 0.1, 1)
    write(tmp_path / "b", 0.2, 2, **changed)
    found = own_columns(tmp_path)
    assert list(found) == [f"yours: vit (aaaaaa): {word}" for word in words]
    first, second = found.values()
    assert first.startswith("0.1")
    assert second.startswith("0.2")


def test_other_lists_and_hand_picked_sequences_stand_side_by_side(tmp_path):
    for day, names in enumerate((["a"], ["b"]), start=1):
        write(tmp_path / str(day), day / 10, day, videos=VIDEOS | {"list": None, "picked": names})
    assert [name.rpartition(": ")[2] for name in own_columns(tmp_path)] == ['picked ["a"]', 'picked ["b"]']


def test_the_same_settings_are_one_column_with_the_newest(tmp_path):
    write(tmp_path / "a", 0.1, 1)
    write(tmp_path / "b", 0.2, 2)
    write(tmp_path / "c", 0.3, 1, protocol="video_depth/bonn", max_depth=70)  # of another protocol: no difference
    (column,) = own_columns(tmp_path).items()
    assert column[0] == "yours: vit (aaaaaa)"
    assert column[1].startswith("0.2")


def test_models_without_weights_are_known_by_name_and_folder(tmp_path):
    for day, name in enumerate(("cut3r", "monst3r"), start=1):
        write(tmp_path / name, day / 10, day, weights=None, name=name)
    assert list(model_names(find_results([tmp_path])).values()) == ["cut3r", "monst3r"]
    assert [cell[:3] for cell in own_columns(tmp_path).values()] == ["0.1", "0.2"]
