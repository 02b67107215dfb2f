import json
import math
import re
from urllib.parse import unquote

import pytest
import torch

from omnistream.cli import main
from omnistream.evaluation import EvaluationResult, MetricValue
from omnistream.evaluation.results import ClassScores
from omnistream.plots.png import encode_png
from omnistream.report import Table
from omnistream.report.classes import class_table
from omnistream.report.comparison import compare, find_results, model_names
from omnistream.report.obtained import how_obtained
from omnistream.report.published import PublishedTable, load_published, parse_published
from omnistream.report.reconstructions import DrawnSequence

DATE = "2026-01-0{}T00:00:00+00:00"
SIZES = {"classification/imagenet": 50000, "depth/nyuv2": 654, "segmentation/ade20k": 2000}


def write(folder, protocol, metrics, model="a", name="vit_large", day=1, num_samples=None, **fields):
    values = {
        key: MetricValue(value=value, higher_is_better=True, stderr=error) for key, (value, error) in metrics.items()
    }
    result = EvaluationResult(
        protocol=protocol, metrics=values, num_samples=num_samples or SIZES.get(protocol, 7),
        environment={"date": DATE.format(day)},
        model={"class": "OmniStream", "name": name, "weights_sha256": model * 64}, **fields,
    )  # fmt: skip
    result.write(folder / "results.json")


def cells(tables, title, benchmark):
    """Cells of a row by column."""
    (table,) = [table for table in tables if table.title.startswith(title)]
    row = next(row for row in table.rows if row[0].startswith(benchmark))
    return dict(zip(table.columns, row, strict=True))


@pytest.fixture
def runs(tmp_path):
    write(tmp_path / "in1k" / "test", "classification/imagenet", {"top1": (0.8512, 0.0016), "top5": (0.97, None)})
    write(tmp_path / "nyu", "depth/nyuv2", {"rmse": (0.3771, None)}, skipped=2)
    write(
        tmp_path / "other", "segmentation/ade20k", {"miou": (0.5154, None)}, model="b", name="vit_small_patch16_dinov3",
        selection={"on": "val", "metric": "miou_best", "step": 35000},
    )  # fmt: skip
    choice = {"on": "val", "metric": "top1", "index": 3, "setting": {"lr": 1e-2}}
    write(tmp_path / "world", "classification/world", {"top1": (0.5, 0.02)}, selection=choice)
    return tmp_path


class TestTables:
    def test_results_stand_beside_the_paper_in_its_units(self, runs):
        tables = compare(find_results([runs]), load_published())
        own = "yours: vit_large (aaaaaa)"
        imagenet = cells(tables, "Table 2", "ImageNet")
        assert imagenet["benchmark"] == "ImageNet-1K linear, top-1 [%] ↑"
        assert (imagenet[own], imagenet["OmniStream"], imagenet["DINOv3-L"]) == ("85.1 ± 0.2", "84.7", "86.7")
        assert (imagenet["V-JEPA2-L"], imagenet["yours: vit_small_patch16_dinov3 (bbbbbb)"]) == ("-", "missing")
        nyu = cells(tables, "Table 2", "NYUv2")
        assert (nyu["benchmark"], nyu[own], nyu["OmniStream"]) == ("NYUv2 linear, RMSE [m] ↓", "0.377", "0.377")
        assert cells(tables, "Table 2", "ADE20K")["yours: vit_small_patch16_dinov3 (bbbbbb)"] == "51.5"
        assert cells(tables, "Table 8", "ADE20K")["w/o 3D Geometry"] == "42.3"
        assert cells(tables, "Table 8", "DAVIS")[own] == "missing"
        assert cells(tables, "Table 3", "KITTI video depth, δ")["CUT3R"] == "88.1"
        assert cells(tables, "Table 4", "TUM-dynamics pose, RPE rot")["OmniStream"] == "0.601"

    def test_a_result_of_another_test_set_is_marked(self, runs):
        write(runs / "few", "segmentation/ade20k", {"miou": (0.491, None)}, num_samples=3)
        write(runs / "one", "vos/davis2017", {"j_and_f": (0.716, 0.01)}, num_samples=1)
        write(runs / "videos", "action/k400", {"accuracy": (0.857, None)}, num_samples=19877)
        tables = compare(find_results([runs]), load_published())
        own = "yours: vit_large (aaaaaa)"
        assert cells(tables, "Table 2", "ADE20K")[own] == "49.1 (3 of 2000 images)"
        assert cells(tables, "Table 8", "DAVIS")[own] == "71.6 ± 1.0 (1 of 30 videos)"
        assert cells(tables, "Table 2", "K400")[own] == "85.7"
        write(runs / "gone", "action/k400", {"accuracy": (0.8, None)}, num_samples=19000, skipped=877, day=2)
        assert cells(compare(find_results([runs]), load_published()), "Table 2", "K400")[own] == (
            "80.0 (19000 of 19877 videos)"
        )
        assert cells(tables, "Other published", "ADE20K")[own] == "49.1 (3 of 2000 images)"

    def test_what_was_chosen_is_a_setting_or_a_step(self, runs):
        tables = compare(find_results([runs]), load_published())
        assert cells(tables, "All results", "classification/world")["chosen on"] == "val, setting 3"
        assert cells(tables, "All results", "segmentation/ade20k")["chosen on"] == "val, step 35000"
        assert cells(tables, "All results", "depth/nyuv2")["chosen on"] == "-"

    def test_other_numbers_say_whose_and_whether_comparable(self, runs):
        tables = compare(find_results([runs]), load_published())
        (others,) = [table for table in tables if table.title == "Other published numbers"]
        rows = [dict(zip(others.columns, row, strict=True)) for row in others.rows]
        dinov3 = {row["benchmark"].split(",")[0]: row for row in rows if row["model"] == "DINOv3 ViT-L"}
        assert {name: row["published"] for name, row in dinov3.items()} == {
            "ADE20K linear": "54.9", "NYUv2 linear": "0.352", "DAVIS 2017 val": "79.9",
        }  # fmt: skip
        assert dinov3["DAVIS 2017 val"]["same protocol"] == "no"
        assert "MODEL_CARD.md" in dinov3["ADE20K linear"]["source"]
        assert dinov3["NYUv2 linear"]["yours: vit_large (aaaaaa)"] == "0.377"
        assert {"TIPSv2 L/14", "V-JEPA 2.1 ViT-G"} <= {row["model"] for row in rows}

    def test_every_result_is_listed_with_what_it_came_from(self, runs):
        tables = compare(find_results([runs]), load_published())
        (every,) = [table for table in tables if table.title == "All results"]
        found = {row[:2]: row for row in every.rows}
        assert len(found) == 5
        world = found["classification/world", "top1 ↑"]
        assert world[2:7] == ("0.5 ± 0.02", "vit_large (aaaaaa)", "7", "0", "val, setting 3")
        assert found["depth/nyuv2", "rmse ↑"][5] == "2"
        assert world[7] == str((runs / "world" / "results.json").resolve())

    def test_of_several_results_the_newest_counts(self, runs):
        write(runs / "again", "depth/nyuv2", {"rmse": (0.4, None)}, day=3)
        write(runs / "nearly", "depth/nyuv2", {"rmse": (0.5, None)}, day=2)
        tables = compare(find_results([runs]), load_published())
        assert cells(tables, "Table 2", "NYUv2")["yours: vit_large (aaaaaa)"] == "0.400"

    def test_models_are_known_by_their_weights(self, runs):
        write(runs / "third", "depth/nyuv2", {"rmse": (0.4, None)}, model="c")
        names = model_names(find_results([runs]))
        assert list(names.values()).count("vit_large (aaaaaa)") == 1
        assert names["c" * 64] == "vit_large (cccccc)"


class TestPublished:
    def test_a_number_must_be_described(self):
        content = {
            "sources": {"s": {"title": "S", "url": "https://s"}},
            "benchmarks": {"b": {"title": "B", "protocol": "p", "metric": "m", "unit": "%", "higher_is_better": True}},
            "tables": [],
        }
        number = {"benchmark": "b", "model": "M", "value": 1, "source": "s", "same_protocol": "yes", "note": ""}
        assert parse_published(content | {"numbers": [number]}).numbers[0].value == 1
        for wrong in ({"benchmark": "x"}, {"source": "x"}):
            with pytest.raises(ValueError, match=r"'x'.* is not described"):
                parse_published(content | {"numbers": [number | wrong]})
        with pytest.raises(ValueError, match="must be yes, no or unknown, got 'maybe'"):
            parse_published(content | {"numbers": [number | {"same_protocol": "maybe"}]})
        table = {"title": "T", "source": "s", "note": "", "columns": {"M": {"x": 1.0}}}
        with pytest.raises(ValueError, match=r"'x' .* is not described"):
            parse_published(content | {"numbers": [], "tables": [table]})


class TestMarkdown:
    def test_columns_are_aligned_and_bars_escaped(self):
        text = Table(title="T", columns=("a", "long"), rows=(("x|y", "1"), ("z", "22")), note="N.").markdown()
        assert text == ("## T\n\n| a    | long |\n|------|------|\n| x\\|y | 1    |\n| z    | 22   |\n\nN.")
        with pytest.raises(ValueError, match="has 2 columns, but a row"):
            Table(title="T", columns=("a", "b"), rows=(("1",),))


def classes(count, absent=0):
    values = [math.nan] * absent + [(k + 1) / (count + 1) for k in range(count)][::-1]
    names = [f"class {k}" for k in range(count + absent)]
    return ClassScores(
        metric="iou", names=names, values=values, counts=[1000 + k for k in range(count + absent)], unit="pixels"
    )


class TestClasses:
    def test_the_worst_and_the_best_ten_stand_beside_each_other(self, tmp_path):
        write(tmp_path, "segmentation/ade20k", {"miou": (0.5, None)}, per_class=classes(24, absent=2))
        (found,) = find_results([tmp_path])
        table = class_table(found.result, "vit_large")
        assert table.title == "Classes of segmentation/ade20k, vit_large"
        assert table.columns == ("lowest iou", "value", "pixels", "highest iou", "value", "pixels")
        assert len(table.rows) == 10
        assert table.rows[0] == ("class 25", "4.0 %", "1,025", "class 2", "96.0 %", "1,002")
        assert table.rows[9] == ("class 16", "40.0 %", "1,016", "class 11", "60.0 %", "1,011")
        assert table.note == "Of 26 classes, 2 do not occur."

    def test_of_few_classes_each_is_shown_once(self):
        result = EvaluationResult(protocol="a", metrics={}, num_samples=1, per_class=classes(3))
        table = class_table(result, "m")
        assert [(row[0], row[3]) for row in table.rows] == [("class 2", "class 0"), ("class 1", "")]
        assert table.note == "Of 3 classes."
        assert class_table(EvaluationResult(protocol="a", metrics={}, num_samples=1), "m") is None
        result = EvaluationResult(protocol="a", metrics={}, num_samples=1, per_class=classes(20))
        assert len({name for row in class_table(result, "m").rows for name in (row[0], row[3])}) == 20

    def test_the_page_has_them_and_the_terminal_has_not(self, runs, capsys):
        write(runs / "classes", "segmentation/world", {"miou": (0.5, None)}, per_class=classes(3))
        main(["report", str(runs), "--html", str(runs / "report.html")])
        page = (runs / "report.html").read_text()
        assert page.count("<h2>Classes of ") == 1
        assert "<h2>Classes of segmentation/world, vit_large (aaaaaa)</h2>" in page
        assert "class 2" not in capsys.readouterr().out


class TestCommand:
    def test_prints_tables_and_writes_a_page_with_examples(self, runs, capsys):
        examples = runs / "nyu" / "examples"
        examples.mkdir()
        image = torch.full((4, 6, 3), 9, dtype=torch.uint8).numpy()
        (examples / "0000.png").write_bytes(encode_png(image, title="Test batch 1", caption="input, prediction"))
        main(["report", str(runs / "nyu"), str(runs / "in1k"), "--html", str(runs / "out" / "report.html")])
        printed = capsys.readouterr().out
        assert re.search(r"\| ImageNet-1K linear, top-1 \[%\] ↑ +\| 85.1 ± 0.2 +\| 84.7 +\| 86.7 ", printed)
        assert "vit_small" not in printed
        page = (runs / "out" / "report.html").read_text()
        assert page.count('src="data:image/png;base64,') == 1
        assert "Test batch 1" in page
        assert "input, prediction" in page
        assert '<td class="soft">missing</td>' in page
        assert 'href="https://arxiv.org/abs/2603.12265"' in page
        assert not re.search(r'(src|href)="(?!data:|https://(arxiv|github))', page)  # nothing else is loaded
        numbers = json.loads((runs / "out" / "report.json").read_text())
        assert [table["title"][:7] for table in numbers["tables"][:2]] == ["Table 2", "Table 8"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "required: FOLDERS"),
            (["nothing"], "no such folder: nothing"),
            (["."], "no results.json below .; `omnistream test` writes one"),
            ([".", "--html", "report.pdf"], "--html is a file that ends in .html, got report.pdf"),
            ([".", "--htm", "x.html"], "there is no option --htm"),
        ],
    )
    def test_mistakes_are_one_line(self, arguments, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            main(["report", *arguments])
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    def test_files_that_cannot_be_read_are_named(self, runs, caplog):
        (runs / "old").mkdir()
        (runs / "old" / "results.json").write_text('{"schema": "omnistream/results/0"}')
        assert len(find_results([runs])) == 4
        assert "old/results.json is not a results file of schema" in caplog.text
        with pytest.raises(FileNotFoundError, match="1 cannot be read"):
            find_results([runs / "old"])
        assert len(find_results([runs / "nyu" / "results.json"])) == 1


SETTINGS = {
    "alignments": ["scale", "metric"], "max_depth": 70.0, "clip_to": 70.0,
    "model": {
        "session": {"window": 16, "sink": 1, "cache_dtype": "int8", "time_mode": "official"}, "cameras": "head",
    },
    "resets": "before every video", "frames_per_step": 1, "num_frames": 1064,
    "videos": {
        "list": "depth", "missing_sequences": ["cave_2"],
        "frames": {"start": 30, "stop": 140, "stride": 3, "count": 90},
        "images": {"long_side": 512, "multiple": 16, "fit": "crop"},
    },
    "sequences": [
        {"name": "alley_1", "status": "scored", "reason": ""},
        {"name": "ambush_2", "status": "unreadable", "reason": "a.dpt is truncated"},
        {"name": "temple_3", "status": "not finite", "reason": "frame 3"},
    ],
}  # fmt: skip


class TestReconstruction:
    def test_benchmarks_have_the_published_numbers_of_sequences(self):
        sizes = {one.protocol: (one.num_samples, one.samples) for one in load_published().benchmarks.values()}
        expected = {"sintel": 23, "bonn": 5, "bonn_by_index": 5, "kitti": 13}
        assert {key: value for key, value in sizes.items() if key.startswith("video_depth/")} == {
            f"video_depth/{name}": (count, "sequences") for name, count in expected.items()
        }
        assert {key: value for key, value in sizes.items() if key.startswith("camera_pose/")} == {
            f"camera_pose/{name}": (count, "sequences") for name, count in (("sintel", 14), ("tum", 8), ("scannet", 94))
        }

    def test_standard_errors_and_missing_sequences_stand_beside_the_paper(self, tmp_path):
        write(
            tmp_path / "a", "video_depth/sintel", {"abs_rel": (0.3141, 0.021), "delta1": (0.583, 0.04)}, num_samples=22
        )
        write(tmp_path / "b", "camera_pose/scannet", {"ate": (0.076, 0.002)}, num_samples=94)
        tables, own = compare(find_results([tmp_path]), load_published()), "yours: vit_large (aaaaaa)"
        assert cells(tables, "Table 3", "Sintel video depth, Abs")[own] == "0.314 ± 0.021 (22 of 23 sequences)"
        assert cells(tables, "Table 3", "Sintel video depth, δ")[own] == "58.3 ± 4.0 (22 of 23 sequences)"
        assert cells(tables, "Table 4", "ScanNet pose, ATE")[own] == "0.076 ± 0.002"
        assert cells(tables, "Table 4", "TUM-dynamics pose, ATE")[own] == "missing"

    def test_published_numbers_of_bonn_are_those_by_index(self, tmp_path):
        write(tmp_path / "a", "video_depth/bonn", {"abs_rel": (0.06, None)}, num_samples=5)
        write(tmp_path / "b", "video_depth/bonn_by_index", {"abs_rel": (0.07, None)}, num_samples=5)
        tables, own = compare(find_results([tmp_path]), load_published()), "yours: vit_large (aaaaaa)"
        for title in ("Table 2", "Table 3"):
            stamps, index = (cells(tables, title, f"BONN video depth by {how}, Abs") for how in ("timestamps", "index"))
            assert (stamps[own], stamps["OmniStream"], stamps["CUT3R"]) == ("0.060", "-", "-")
            assert (index[own], index["OmniStream"], index["CUT3R"]) == ("0.070", "0.072", "0.078")
        (others,) = [table for table in tables if table.title == "Other published numbers"]
        rows = [dict(zip(others.columns, row, strict=True)) for row in others.rows]
        stamps = [row for row in rows if row["benchmark"].startswith("BONN video depth by timestamps, Abs")]
        assert {row["model"]: (row["published"], row["same protocol"]) for row in stamps} == {
            "OmniStream": ("0.072", "no"), "Spann3R": ("0.144", "no"), "CUT3R": ("0.078", "no"),
            "Point3R": ("0.066", "no"),
        }  # fmt: skip

    def test_every_system_and_alignment_is_there(self, tmp_path):
        metrics = {"abs_rel": (0.4, None), "metric/abs_rel": (1.1, None), "scale_shift/delta1": (0.5, None)}
        write(tmp_path / "a", "video_depth/sintel", metrics, num_samples=23)
        tables = compare(find_results([tmp_path]), load_published())
        for title in ("Table 3", "Table 4"):
            (table,) = [table for table in tables if table.title.startswith(title)]
            assert table.columns[2:] == ("OmniStream", "Spann3R", "CUT3R", "Point3R")
            assert all(row[2:] != ("-",) * 4 for row in table.rows if "timestamps" not in row[0])
        assert "doubtful" in next(table.note for table in tables if table.title.startswith("Table 3"))
        own, title = "yours: vit_large (aaaaaa)", "Video depth under other"
        metric = cells(tables, title, "Sintel video depth, metric, Abs")
        assert (metric[own], metric["CUT3R"], metric["MonST3R-GA"]) == ("1.100", "1.029", "-")
        affine = cells(tables, title, "Sintel video depth, scale and shift, δ")
        assert (affine[own], affine["CUT3R"], affine["MonST3R-GA"]) == ("50.0", "55.7", "59.0")
        index = cells(tables, title, "BONN video depth by index, scale and shift, Abs")
        assert (index["CUT3R"], index["MonST3R-GA"]) == ("0.074", "0.066")

    def test_rows_must_hold_every_published_value(self):
        assert PublishedTable("T", "s", "", {"M": {"b": 1.0, "a": 2.0}}).rows == ["b", "a"]
        assert PublishedTable("T", "s", "", {"M": {"b": 1.0}}, ["a", "b"]).rows == ["a", "b"]
        with pytest.raises(ValueError, match="the rows of 'T' lack b"):
            PublishedTable("T", "s", "", {"M": {"b": 1.0}}, ["a"])


class TestObtained:
    def obtained(self, folder, settings, **fields):
        write(folder, "video_depth/sintel", {"abs_rel": (0.3, None)}, num_samples=21, settings=settings, **fields)
        results = find_results([folder])
        return how_obtained(results, model_names(results))

    def test_what_decides_a_number_is_declared(self, tmp_path):
        checkpoint = {"path": "x.ckpt", "sha256": "0123456789abcdef"}
        table, _ = self.obtained(tmp_path, SETTINGS, skipped=1, checkpoint=checkpoint)
        assert table.title == "How these were obtained"
        assert dict(zip(table.columns, table.rows[0], strict=True)) == {
            "protocol": "video_depth/sintel",
            "model": "vit_large (aaaaaa)",
            "sequences": "list depth; 21 scored, 1 skipped; without files: cave_2",
            "frames": "30 to 139, every 3., first 90; 1064 in all",
            "resets": "before every video; 1 frame per step",
            "session": "window 16, sink 1; cache int8; time official; poses: head",
            "alignment": "scale (also metric); truth below 70; clipped to 70",
            "images": "longer side 512, centre crop to multiples of 16",
            "hashes": "weights aaaaaaaaaaaa, file 0123456789ab",
        }

    def test_sequences_without_a_score_are_named(self, tmp_path):
        _, table = self.obtained(tmp_path, SETTINGS)
        assert [row[2:] for row in table.rows] == [
            ("ambush_2", "unreadable", "a.dpt is truncated"), ("temple_3", "not finite", "frame 3"),
        ]  # fmt: skip

    def test_the_plainest_protocol(self, tmp_path):
        frames = {"start": 0, "stop": None, "stride": 1, "count": None}
        settings = {
            "alignments": ["sim3"], "resets": "before every video", "frames_per_step": 2,
            "model": {"session": {"window": None, "sink": 1, "cache_dtype": None, "time_mode": "absolute"}},
            "videos": {"list": None, "picked": None, "frames": frames, "images": None},
        }  # fmt: skip
        (table,) = self.obtained(tmp_path, settings)
        assert table.rows[0][2:8] == (
            "all that are there; 21 scored, 0 skipped", "all", "before every video; 2 frames per step",
            "all frames; cache of the model", "sim3", "as stored",
        )  # fmt: skip

    def test_sequences_picked_by_hand_are_named(self, tmp_path):
        (table,) = self.obtained(tmp_path, {"videos": {"list": None, "picked": ["alley_1", "market_2"]}})
        assert table.rows[0][2] == "picked by hand: alley_1, market_2; 21 scored, 0 skipped"

    def test_what_is_not_declared_is_said(self, tmp_path):
        (table,) = self.obtained(tmp_path, {})
        assert table.rows[0][2] == "list not declared; 21 scored, 0 skipped"
        assert set(table.rows[0][3:8]) == {"not declared"}

    def test_other_evaluations_have_no_such_row(self, runs):
        results = find_results([runs])
        assert how_obtained(results, model_names(results)) == []


class TestFiles:
    def test_pictures_are_on_the_page_and_linked_from_markdown(self, tmp_path, capsys):
        for run, model in (("one run", "a"), ("two", "b")):
            write(tmp_path / run, "video_depth/sintel", {"abs_rel": (0.3, 0.1)}, model=model, settings=SETTINGS)
            folder = tmp_path / run / "reconstruction" / "alley_1"
            folder.mkdir(parents=True)
            DrawnSequence("alley_1", "alley_1", "alley_1: Abs Rel 0.3", 0.3).write(folder)
            pixels = torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()
            (folder / "depth.png").write_bytes(encode_png(pixels, title="alley_1: depth", caption="One scale."))
        page, text = tmp_path / "out" / "report.html", tmp_path / "out" / "report.md"
        main(["report", str(tmp_path), "--html", str(page), "--markdown", str(text)])
        printed = capsys.readouterr().out
        assert "## How these were obtained" in printed
        assert str(text.resolve()) in printed
        html = page.read_text()
        assert "video_depth/sintel, vit_large (bbbbbb): alley_1: Abs Rel 0.3" in html
        assert html.count('src="data:image/png;base64,') == 2
        assert "list depth" in html
        written = text.read_text()
        assert written.startswith("# Results beside published numbers\n\n## Table 2")
        assert written.count("![alley_1: depth](../") == 2
        links = re.findall(r"!\[.*?\]\((.*?)\)\n\nOne scale\.", written)
        assert sorted(links)[0] == "../one%20run/reconstruction/alley_1/depth.png"
        assert all((text.parent / unquote(link)).is_file() for link in links)

    def test_another_ending_is_refused(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            main(["report", str(tmp_path), "--markdown", "report.txt"])
        assert "--markdown is a file that ends in .md, got report.txt" in capsys.readouterr().err
