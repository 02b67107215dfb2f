"""A folder of images as a stream."""

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import IMAGE_SUFFIXES
from omnistream.data.media import ImageReadError, read_image
from omnistream.errors import UsageError
from omnistream.streaming.frames import DEFAULT_SOURCE, USUAL_FPS, Frame, SourceOptions, Subsampler
from omnistream.streaming.problems import Problems


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts `frame2` before `frame10`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


class FolderSource:
    """Images of a folder, at a fixed rate.

    Args:
        files: Images in order.
        name: The source as given by the user.
        problems: Receives the images that cannot be read.
        options: `frame_rate` determines the timestamps.
    """

    def __init__(
        self, files: Iterable[Path], name: str, problems: Problems, options: SourceOptions = DEFAULT_SOURCE
    ) -> None:
        self.files = list(files)
        self.name, self.problems, self.sampler = name, problems, Subsampler(options.fps)
        self.frame_rate = options.frame_rate or USUAL_FPS
        self.fps = self.sampler.rate(self.frame_rate)
        self.total: int | None = round(len(self.files) * self.fps / self.frame_rate)

    def __iter__(self) -> Iterator[Frame]:
        """The images."""
        for index, path in enumerate(self.files):
            time = index / self.frame_rate
            if not self.sampler.take(time):
                continue
            try:
                yield Frame(index, time, read_image(path))
            except ImageReadError as error:
                self.problems.skip(str(error))

    def close(self) -> None:
        """Nothing is open between images."""


def find_images(path: Path) -> list[Path]:
    """Images of a folder, or those that match a pattern such as `folder/*.color.png`, in natural order.

    Raises:
        DatasetNotFoundError: If there are no images.
        UsageError: If a folder holds both colour images and depth maps; the message suggests a pattern.
    """
    found = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
    files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise DatasetNotFoundError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){_subfolders(path)}")
    if path.is_dir():
        _refuse_depth(path, files)
    return sorted(files, key=lambda file: natural_key(file.name))


def _subfolders(path: Path) -> str:
    """Hint naming the subfolders that hold images, such as `rgb` and `depth`."""
    if not path.is_dir():
        return ""
    folders = (folder for folder in sorted(path.iterdir()) if folder.is_dir())
    found = [str(f) for f in folders if any(file.suffix.lower() in IMAGE_SUFFIXES for file in f.iterdir())]
    return f"; there are some in {', '.join(found[:5])}" if found else ""


def _refuse_depth(folder: Path, files: list[Path]) -> None:
    """Refuse a folder in which some file names are those of depth maps and others of colour images."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        kinds[re.sub(r"\d+", "*", glob.escape(file.name))].append(file)
    if len(kinds) == 1:
        return
    depth = [pattern for pattern, members in kinds.items() if _is_depth(members[0])]
    color = sorted(kinds.keys() - set(depth), key=lambda pattern: -len(kinds[pattern]))
    if depth and color:
        raise UsageError(
            f"{folder} holds colour images and depth maps ({', '.join([*color, *depth][:5])}); give a pattern that "
            f"matches the colour images alone: '{folder / color[0]}'"
        )


def _is_depth(path: Path) -> bool:
    """Whether an image is a depth map: by its name, or because it is greyscale with more than 8 bits."""
    if re.search(r"depth", path.stem, re.IGNORECASE):
        return True
    try:
        with Image.open(path) as image:
            return image.mode.startswith("I") or image.mode == "F"
    except (OSError, Image.DecompressionBombError):
        return False
