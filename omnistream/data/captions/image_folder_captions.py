"""Captions for folders of images, made from the name of the class."""

import os
import re
from pathlib import Path

from omnistream.data.batch import CaptionClip, TextTarget
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.images.image_folder import ImageFolder
from omnistream.data.sampling import SampleKey
from omnistream.data.splits import Split
from omnistream.data.transforms import ImageTransform
from omnistream.paths import expand_path

_SYNSET = re.compile(r"n\d{8}")
_TABLES = ("imagenet_synset_to_lemma.txt", "LOC_synset_mapping.txt", "synset_words.txt")


def read_synset_words(path: str | Path) -> dict[str, str]:
    """The first name of every synset in a table with lines of a synset, white space, and names divided by commas.

    Raises:
        ValueError: If a line has another form.
    """
    words: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        synset, _, names = line.strip().replace("\t", " ", 1).partition(" ")
        if not _SYNSET.fullmatch(synset) or not names.strip():
            raise ValueError(f"{path}, line {number}: expected a synset and its names, got {line!r}")
        words[synset] = names.split(",")[0].strip()
    return words


def find_synset_words(root: str | Path) -> Path | None:
    """The synset table in a folder or one of the two above it, if there is one."""
    folder = Path(root).resolve()
    for place in (folder, *folder.parents[:2]):
        for name in _TABLES:
            if (place / name).is_file():
                return place / name
    return None


def class_words(folder: str, stem: str, words: dict[str, str]) -> str | None:
    """How to name what an image shows, or None if its path does not tell.

    A synset is looked up in the table, else taken from a file name such as `n01443537_goldfish`. Any other folder name
    is itself the name. Underscores are read as spaces.
    """
    if not _SYNSET.fullmatch(folder):
        return " ".join(folder.replace("_", " ").split()) or None
    if folder in words:
        return words[folder]
    name = stem.removeprefix(folder).replace("_", " ").strip()
    return name if name and not name.isdigit() else None


def caption_of(name: str) -> str:
    """The sentence for a class name."""
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"a photo of {article} {name}"


class ImageFolderCaptions(FileDataset[CaptionClip]):
    """Images with a caption built from the name of their class; the folder is one of `ImageFolder`'s.

    Args:
        root: Folder of class folders, as for `ImageFolder`.
        transform: Applied to the image, uint8 [1, 3, H, W].
        split: The training or held-out part of the folder; null for all of it.
        val_fraction: Held-out fraction.
        words: Table that names synsets; by default the one found beside the images, if any.
        seed: Determines what `transform` draws, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If there is no image that can be read.
        ValueError: If no name can be made for an image.
    """

    collate = staticmethod(CaptionClip.collate)

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: ImageTransform | None = None,
        *,
        split: Split | None = None,
        val_fraction: float = 0.1,
        words: str | os.PathLike[str] | None = None,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(seed, broken_files)
        self.images = ImageFolder(
            root, transform, split=split, val_fraction=val_fraction, seed=seed, broken_files=self.broken_files
        )
        table = expand_path(words) if words else find_synset_words(self.images.root)
        self._words = read_synset_words(table) if table else {}
        self._check_names()

    def _check_names(self) -> None:
        """Notice before training, not in the middle of it, if a name is missing; mostly by a look at the folders."""
        table = self.images.files.table
        for number, folder in enumerate(table.folders):
            if class_words(self._class_of(folder), "", self._words) is None:
                for position in table.positions(number):
                    self._caption(table[position], folder)

    def __len__(self) -> int:
        return len(self.images)

    def _class_of(self, folder: str) -> str:
        """Name of the class folder; that of the root for images that lie in it."""
        return folder.split("/")[0] or self.images.root.resolve().name

    def _caption(self, path: Path, folder: str) -> str:
        name = class_words(self._class_of(folder), path.stem, self._words)
        if name is None:
            raise ValueError(f"{path}: cannot name the class; give `words`, a table such as LOC_synset_mapping.txt")
        return caption_of(name)

    def _read(self, key: SampleKey) -> CaptionClip:
        clip = self.images._read(key)
        caption = self._caption(self.images.files[key.index], self.images.files.folder(key.index))
        return CaptionClip(images=clip.images, target=TextTarget("caption", caption), name=clip.name, seed=clip.seed)
