"""Example images of an evaluation on a page."""

from pathlib import Path

from PIL import Image

from omnistream.report.page import ReportPage


def read_texts(path: Path) -> tuple[str, str]:
    """Title and description that are stored in a PNG file; the name of the file where it has no title."""
    with Image.open(path) as image:
        image.load()  # text may follow the pixels
        return str(image.info.get("Title", path.stem)), str(image.info.get("Description", ""))


def add_examples(page: ReportPage, folder: Path, title: str) -> None:
    """The PNG files that `ExampleImages` wrote into a folder, under a heading; nothing if there is none."""
    paths = sorted(folder.glob("*.png"))
    if paths:
        page.add_heading(title)
    for path in paths:
        name, caption = read_texts(path)
        page.add_plot(name, path.read_bytes(), caption)


def example_images(folder: Path, title: str) -> list[tuple[str, list[Path]]]:
    """The same files under their heading, for a report that links to them; nothing if there is none."""
    paths = sorted(folder.glob("*.png"))
    return [(title, paths)] if paths else []
