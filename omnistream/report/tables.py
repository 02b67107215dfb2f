"""Tables of text, for the page and the terminal."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check that every row has a cell per column."""
        if wrong := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, but a row {wrong[0]}")

    def markdown(self) -> str:
        """The table in Markdown, with aligned columns; a bar inside a cell is escaped."""
        cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in (self.columns, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        note = f"\n\n{self.note}" if self.note else ""
        return f"## {self.title}\n\n" + "\n".join(lines) + note

    def to_json(self) -> dict[str, object]:
        """The table as plain values."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}
