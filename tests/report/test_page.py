import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from omnistream.plots.png import encode_png
from omnistream.report import MetricRow, ReportPage
from omnistream.report.page import format_number

ROWS = [
    MetricRow(name="Depth <Abs Rel>", value=0.18, baseline=0.4, baseline_name="constant", at_most=0.6, judged="ratio"),
    MetricRow(name="Accuracy", value=0.25, unit="%", baseline=0.1, at_least=3, judged="ratio"),
    MetricRow(name="Loss", value=math.nan, at_most=5.0),
    MetricRow(name="Speed", value=12345.6, unit="frames/s"),
]


class Page(HTMLParser):
    """Collects table cells, tags, attributes and images."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.attributes, self.text, self._open = [], [], [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag  # every element is closed in order

    def handle_data(self, data):
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data


@pytest.fixture
def page(tmp_path):
    page = ReportPage("Run <1> & co")
    page.add_rows(ROWS).add_info({"command": "fit '<script>alert(1)</script>'"})
    page.add_plot("depth <0>", np.full((4, 6, 3), 7, np.uint8), 'a "quoted" caption & more')
    page.add_text("one <b>\n\ntwo", title="T").add_heading("H").add_collapsed("Configuration", "a: <1>\n$title")
    path = page.write(tmp_path / "deep" / "report.html")
    return Page(path.read_text()), json.loads(path.with_suffix(".json").read_text()), path.read_text()


class TestMetricRow:
    def test_ratio_and_verdict(self):
        assert ROWS[0].ratio == pytest.approx(0.45)
        assert [row.verdict for row in ROWS] == ["pass", "fail", "fail", "no bound"]
        assert [row.bound for row in ROWS] == ["ratio at most 0.6", "ratio at least 3", "value at most 5", ""]

    def test_bounds_are_inclusive_and_both_hold(self):
        assert MetricRow(name="x", value=2, at_least=2, at_most=2).passed
        assert not MetricRow(name="x", value=3, at_least=2, at_most=2).passed
        assert not MetricRow(name="x", value=1, at_least=2, at_most=2).passed

    def test_zero_baseline(self):
        assert MetricRow(name="x", value=1, baseline=0).ratio == math.inf
        assert not MetricRow(name="x", value=0, baseline=0, at_most=1, judged="ratio").passed

    def test_ratio_needs_a_baseline(self):
        with pytest.raises(ValueError, match="needs a baseline"):
            MetricRow(name="x", value=1, at_most=1, judged="ratio")


class TestPage:
    def test_table_has_the_numbers(self, page):
        parsed, _, _ = page
        assert parsed.rows[0] == ["name", "value", "baseline", "ratio", "required", "result"]
        assert parsed.rows[1] == ["Depth <Abs Rel>", "0.18", "0.4constant", "0.45", "ratio at most 0.6", "pass"]
        assert parsed.rows[2] == ["Accuracy", "25.0 %", "10.0 %", "2.5", "ratio at least 3", "fail"]
        assert parsed.rows[3] == ["Loss", "nan", "", "", "value at most 5", "fail"]
        assert parsed.rows[4] == ["Speed", "12,346 frames/s", "", "", "", ""]
        assert "1 of 3 results with a required bound meet it." in parsed.text

    def test_empty_columns_are_left_out(self):
        parsed = Page(ReportPage("x").add_rows([MetricRow(name="a", value=1)]).html())
        assert parsed.rows == [["name", "value"], ["a", "1"]]

    def test_json_has_the_same_numbers(self, page):
        parsed, numbers, _ = page
        assert [row["name"] for row in numbers["results"]] == [cells[0] for cells in parsed.rows[1:]]
        for row, source in zip(numbers["results"], ROWS, strict=True):
            assert row["verdict"] == source.verdict
            assert row["ratio"] == source.ratio
            assert row["value"] == (source.value if math.isfinite(source.value) else "nan")
        assert numbers["info"]["command"] == "fit '<script>alert(1)</script>'"
        assert numbers["title"] == "Run <1> & co"

    def test_text_is_escaped(self, page):
        parsed, _, _ = page
        assert "script" not in parsed.tags
        assert "b" not in parsed.tags
        for text in ("Run <1> & co", "<script>alert(1)</script>", "one <b>", "a: <1>\n$title", 'a "quoted" caption'):
            assert text in parsed.text

    def test_nothing_is_loaded_from_elsewhere(self, page):
        parsed, _, text = page
        assert not {"link", "script", "iframe", "object", "embed", "base"} & set(parsed.tags)
        sources = [value for _, name, value in parsed.attributes if name in ("src", "href", "srcset", "data", "action")]
        assert len(sources) == 1
        assert sources[0].startswith("data:image/png;base64,")
        assert not re.search(r"https?://|@import|url\(", text)

    def test_readable_on_a_phone_and_in_the_dark(self, page):
        parsed, _, text = page
        assert ("meta", "name", "viewport") in parsed.attributes
        assert "prefers-color-scheme: dark" in text
        assert "max-width: 640px" in text

    def test_plot_is_embedded_unchanged_with_its_size(self, tmp_path):
        import base64
        import io

        pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
        parsed = Page(ReportPage("x").add_plot("p", pixels).html())
        attributes = {name: value for tag, name, value in parsed.attributes if tag == "img"}
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
        assert (attributes["width"], attributes["height"]) == ("9", "5")

    def test_png_carries_title_and_caption(self, tmp_path):
        path = tmp_path / "x.png"
        path.write_bytes(encode_png(np.zeros((2, 2, 3), np.uint8), title="ä/0", caption="what"))
        with Image.open(path) as image:
            assert image.info["Title"] == "ä/0"
            assert image.info["Description"] == "what"

    def test_wrong_arguments(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.html"):
            ReportPage("x").write(tmp_path / "report.txt")
        with pytest.raises(ValueError, match="PNG"):
            ReportPage("x").add_plot("p", b"GIF89a")


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [(0.123456, "", "0.1235"), (1234567.0, "frames", "1,234,567 frames"), (0.5, "%", "50.0 %"), (1e-5, "", "1e-05")],
)
def test_format_number(number, unit, text):
    assert format_number(number, unit) == text
