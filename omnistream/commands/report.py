"""`omnistream report`: results of evaluations beside published numbers, in the terminal and as one HTML page."""

from dataclasses import dataclass
from pathlib import Path

from omnistream.commands.arguments import CommandParser
from omnistream.errors import UsageError

_DESCRIPTION = """\
Lay the results of evaluations beside the tables of the paper and other published numbers.

FOLDERS are run folders, or folders of them; every results.json at any depth is read. Results of the same weights share
a column. Tables are printed as Markdown; --html also writes a page with the example images of the evaluations.
"""
_EXAMPLES = """\
examples:
  omnistream report runs
  omnistream report runs/imagenet/version_0 runs/nyuv2/version_0 --html report.html
"""


@dataclass(frozen=True)
class ReportOptions:
    """Results to compare."""

    folders: tuple[Path, ...]
    """Folders with results.json, at any depth, or such files."""
    html: Path | None = None
    """Also write this self-contained page, and its numbers beside it as .json."""


def run(arguments: list[str]) -> None:
    """Print the tables, and write the page."""
    parser = CommandParser("report", _DESCRIPTION, _EXAMPLES)
    parser.add_options(ReportOptions, positional=True)
    options = parser.parse(arguments)[ReportOptions]
    if not options.folders:
        raise UsageError("name at least one folder with results; see `omnistream report --help`")
    if options.html is not None and options.html.suffix != ".html":
        raise UsageError(f"--html is a file that ends in .html, got {options.html}")
    from omnistream.report import ReportPage
    from omnistream.report.classes import class_table
    from omnistream.report.comparison import compare, find_results, model_names
    from omnistream.report.examples import add_examples
    from omnistream.report.published import load_published

    results = find_results(options.folders)
    tables = compare(results, load_published())
    if options.html is not None:
        page = ReportPage("Results beside published numbers")
        for table in tables:
            page.add_table(table)
        names = model_names(results)
        for one in results:
            if classes := class_table(one.result, names[one.model]):
                page.add_table(classes)
            add_examples(page, one.path.parent / "examples", one.result.protocol)
        page.write(options.html)
    print("\n\n".join(table.markdown() for table in tables))
    if options.html is not None:
        print(f"\nThe page of these tables: {options.html.resolve()}")
