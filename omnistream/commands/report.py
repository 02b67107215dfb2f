"""`omnistream report`: results of evaluations beside published numbers, in the terminal, as a page or Markdown file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnistream.commands.arguments import CommandParser
from omnistream.errors import UsageError

if TYPE_CHECKING:
    from omnistream.report import Table

_DESCRIPTION = """\
Lay the results of evaluations beside the tables of the paper and other published numbers.

FOLDERS are run folders, or folders of them; every results.json at any depth is read. Results of the same weights share
a column. Tables are printed as Markdown; --html also writes a page that needs nothing else, with the images of the
evaluations, and --markdown a file that links to them.
"""
TITLE = "Results beside published numbers"
_EXAMPLES = """\
examples:
  omnistream report runs
  omnistream report runs/imagenet/version_0 runs/nyuv2/version_0 --html report.html
  omnistream report runs --markdown report.md
"""


@dataclass(frozen=True)
class ReportOptions:
    """Results to compare."""

    folders: tuple[Path, ...]
    """Folders with results.json, at any depth, or such files."""
    html: Path | None = None
    """Also write this self-contained page, and its numbers beside it as .json."""
    markdown: Path | None = None
    """Also write the tables and links to images as this Markdown file."""


def run(arguments: list[str]) -> None:
    """Print the tables, and write the page."""
    parser = CommandParser("report", _DESCRIPTION, _EXAMPLES)
    parser.add_options(ReportOptions, positional=True)
    options = parser.parse(arguments)[ReportOptions]
    if not options.folders:
        raise UsageError("name at least one folder with results; see `omnistream report --help`")
    for option, path, ending in (("html", options.html, ".html"), ("markdown", options.markdown, ".md")):
        if path is not None and path.suffix != ending:
            raise UsageError(f"--{option} is a file that ends in {ending}, got {path}")
    from omnistream.report.classes import class_table
    from omnistream.report.comparison import compare, find_results, model_names
    from omnistream.report.obtained import how_obtained
    from omnistream.report.published import load_published

    results = find_results(options.folders)
    names = model_names(results)
    tables = [*compare(results, load_published()), *how_obtained(results, names)]
    folders = [(one.path.parent, f"{one.result.protocol}, {names[one.model]}") for one in results]
    classes = [table for one in results if (table := class_table(one.result, names[one.model]))]  # long for a terminal
    written = {}
    if options.html is not None:
        written["page"] = _write_page(options.html, folders, [*tables, *classes])
    if options.markdown is not None:
        written["file"] = _write_markdown(options.markdown, folders, [*tables, *classes])
    print("\n\n".join(table.markdown() for table in tables))
    for kind, path in written.items():
        print(f"\nThe {kind} of these tables: {path.resolve()}")


def _write_page(path: Path, folders: list[tuple[Path, str]], tables: "list[Table]") -> Path:
    from omnistream.report import ReportPage
    from omnistream.report.examples import add_examples
    from omnistream.report.reconstructions import add_reconstructions

    page = ReportPage(TITLE)
    for table in tables:
        page.add_table(table)
    for folder, title in folders:
        add_examples(page, folder / "examples", title)
        add_reconstructions(page, folder / "reconstruction", title)
    return page.write(path)


def _write_markdown(path: Path, folders: list[tuple[Path, str]], tables: "list[Table]") -> Path:
    from omnistream.report.examples import example_images
    from omnistream.report.markdown import markdown_report
    from omnistream.report.reconstructions import reconstruction_images

    images = []
    for folder, title in folders:
        images += example_images(folder / "examples", title)
        images += reconstruction_images(folder / "reconstruction", title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown_report(TITLE, tables, images, path.parent), encoding="utf-8")
    return path
