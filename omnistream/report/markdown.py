"""Tables and links to images as one Markdown file."""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from omnistream.report.examples import read_texts
from omnistream.report.tables import Table


def markdown_report(
    title: str, tables: Iterable[Table], images: Iterable[tuple[str, Iterable[Path]]], folder: Path
) -> str:
    """The text of the file.

    Args:
        title: Heading of the file.
        tables: In order.
        images: Headings, and the PNG files under each.
        folder: In which the file will lie: links to images are relative to it.
    """
    parts = [f"# {title}", *(table.markdown() for table in tables)]
    for heading, paths in images:
        parts.append(f"## {heading}")
        for path in paths:
            name, caption = read_texts(path)
            link = quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
            parts.append("\n\n".join(filter(None, (f"![{name}]({link})", caption))))
    return "\n\n".join(parts) + "\n"
