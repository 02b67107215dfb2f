"""Example images of an evaluation on a page."""

from pathlib import Path

from PIL import Image

from omnistream.report.page import ReportPage


def add_examples(page: ReportPage, folder: Path, title: str) -> None:
    """The PNG files that `ExampleImages` wrote into a folder, under a heading; nothing if there is none."""
    paths = sorted(folder.glob("*.png"))
    if paths:
        page.add_heading(title)
    for path in paths:
        with Image.open(path) as image:
            image.load()  # text may follow the pixels
            name, caption = str(image.info.get("Title", path.stem)), str(image.info.get("Description", ""))
        page.add_plot(name, path.read_bytes(), caption)
