"""One self-contained HTML page of a run, and the same numbers as JSON."""

import base64
import io
import json
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from omnistream.report.figures import FigureRow

COLUMNS = ("name", "value", "baseline", "ratio", "required", "result")
NUMERIC = ("value", "baseline", "ratio")
PHONE_WIDTH = 500
"""Pixels; wider plots are scrolled on a narrow screen, where they would be too small to read."""


class ReportPage:
    """Collects sections in the order they are added and writes them as one HTML file that needs nothing else.

    All text is escaped; plots are embedded as PNG. Beside the page goes a JSON file with the numbers of its tables.

    Args:
        title: Heading of the page.
        subtitle: One line under the heading; the time of writing where empty.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.figures: list[FigureRow] = []
        self.info: dict[str, str] = {}
        self._sections: list[str] = []

    def add_info(self, info: Mapping[str, object], title: str = "Run") -> "ReportPage":
        """A list of names and values: variant, parameters, steps, machine, versions, command."""
        values = {name: str(value) for name, value in info.items()}
        self.info |= values
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
        return self._add(title, f'<div class="card"><dl>{rows}</dl></div>')

    def add_figures(self, rows: Iterable[FigureRow], title: str = "Figures") -> "ReportPage":
        """A table of figures with baseline, ratio, required bound and result in plain words."""
        rows = list(rows)
        self.figures += rows
        return self._add(title, f'{_summary_html(rows)}<div class="card wide">{_figures_html(rows)}</div>')

    def add_plot(self, title: str, image: UInt8[np.ndarray, "H W 3"] | bytes, caption: str = "") -> "ReportPage":
        """A plot with its caption.

        Args:
            title: Heading above the plot, and its description for readers who cannot see it.
            image: Pixels, or the content of a PNG file.
            caption: What it shows.

        Raises:
            ValueError: If bytes are given that are no PNG.
        """
        png = image if isinstance(image, bytes) else encode_png(image)
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"plot {title!r}: expected pixels or a PNG file, got other bytes")
        width, height = struct.unpack(">II", png[16:24])  # of the header chunk, which comes first in every PNG
        size = f'width="{width}" height="{height}" style="--natural: {width}px"'
        data = base64.b64encode(png).decode()
        hint = '<p class="hint">Scroll sideways to see all of it.</p>' if width > PHONE_WIDTH else ""
        plot = f'{hint}<div class="wide"><img alt="{escape(title)}" {size} src="data:image/png;base64,{data}"></div>'
        text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._sections.append(f'<figure class="card"><h3>{escape(title)}</h3>{plot}{text}</figure>')
        return self

    def add_text(self, text: str, title: str = "") -> "ReportPage":
        """Paragraphs of plain text, separated by empty lines."""
        paragraphs = (part.strip() for part in text.split("\n\n"))
        return self._add(title, "".join(f"<p>{escape(part)}</p>" for part in paragraphs if part))

    def add_heading(self, title: str) -> "ReportPage":
        """A heading over the plots that follow."""
        return self._add(title, "")

    def add_collapsed(self, title: str, text: str) -> "ReportPage":
        """Preformatted text that opens on a click, such as the configuration."""
        content = f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
        return self._add("", f'<div class="card">{content}</div>')

    def _add(self, title: str, html: str) -> "ReportPage":
        heading = f"<h2>{escape(title)}</h2>" if title else ""
        self._sections.append(heading + html)
        return self

    def html(self) -> str:
        """The whole page."""
        template = Template((files("omnistream.report") / "page.html").read_text(encoding="utf-8"))
        subtitle = self.subtitle or f"written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        body = "\n".join(self._sections)
        return template.substitute(title=escape(self.title), subtitle=escape(subtitle), body=body)

    def to_json(self) -> dict[str, object]:
        """The numbers of the page as plain values."""
        return {"title": self.title, "info": self.info, "figures": [row.to_json() for row in self.figures]}

    def write(self, path: Path | str) -> Path:
        """Write the page, and its numbers to the same path with the ending `.json`; makes the folder where needed.

        Raises:
            ValueError: If the path does not end in `.html`.
        """
        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(f"report page: expected a path ending in .html, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        numbers = json.dumps(self.to_json(), indent=2, allow_nan=False)
        path.with_suffix(".json").write_text(numbers + "\n", encoding="utf-8")
        return path


def encode_png(image: UInt8[np.ndarray, "H W 3"], title: str = "", caption: str = "") -> bytes:
    """The image as a PNG file; title and caption travel in its text fields `Title` and `Description`."""
    info = PngInfo()
    info.add_itxt("Title", title)
    info.add_itxt("Description", caption)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def _summary_html(rows: list[FigureRow]) -> str:
    judged = [row for row in rows if row.passed is not None]
    if not judged:
        return ""
    passed = sum(bool(row.passed) for row in judged)
    word = "pass" if passed == len(judged) else "fail"
    return f'<p><span class="{word}">{passed} of {len(judged)}</span> figures with a required bound meet it.</p>'


def _figures_html(rows: list[FigureRow]) -> str:
    cells = [_cells(row) for row in rows]
    columns = [name for name in COLUMNS if any(row[name] for row in cells)]  # no empty column
    numeric = {name: ' class="number"' if name in NUMERIC else "" for name in COLUMNS}
    head = "".join(f"<th{numeric[name]}>{name}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(_cell_html(name, row[name], numeric[name]) for name in columns)}</tr>" for row in cells
    )
    return f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(row: FigureRow) -> dict[str, str]:
    """Escaped content of every column."""
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    baseline = "" if row.baseline is None else escape(format_number(row.baseline, row.unit))
    if baseline and row.baseline_name:
        baseline = f"<span>{baseline}<small>{escape(row.baseline_name)}</small></span>"
    return {
        "name": escape(row.name) + note,
        "value": escape(format_number(row.value, row.unit)),
        "baseline": baseline,
        "ratio": "" if row.ratio is None else format_number(row.ratio),
        "required": escape(row.bound),
        "result": f'<span class="{row.verdict}">{row.verdict}</span>' if row.bound else "",
    }


def _cell_html(name: str, content: str, css: str) -> str:
    return f'<td class="name">{content}</td>' if name == "name" else f'<td{css} data-label="{name}">{content}</td>'


def format_number(number: float, unit: str = "") -> str:
    """Four significant digits, thousands grouped; the unit behind a narrow space, "%" for shares in [0, 1]."""
    if unit == "%":
        return f"{100 * number:.1f} %"
    text = f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"
    return f"{text} {unit}" if unit else text
