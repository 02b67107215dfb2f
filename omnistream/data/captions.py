"""Captions for folders of pictures, made from the name of the class."""

import re
from pathlib import Path

from torch.utils.data import Dataset

from omnistream.data.batch import CaptionClip, TextTarget
from omnistream.data.files import Split
from omnistream.data.images import ImageFolder
from omnistream.data.media.resize import Crop
from omnistream.data.quarantine import Quarantine
from omnistream.data.sampling import SampleKey

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
    """How to name what a picture shows, or None if its path does not tell.

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


class ImageFolderCaptions(Dataset[CaptionClip]):
    """Square pictures with a caption built from the name of their class.

    Args:
        root: Folder of class folders, as for `ImageFolder`.
        size: Side of the pictures in pixels.
        split: Take all pictures, or the training or held-out part of them.
        val_fraction: Held-out part.
        crop: Where the square is cut; by default at random in the training part, else at the centre.
        words: Table that names synsets; by default the one found beside the pictures, if any.
        seed: Determines random crops, replacements, and each sample's `seed`.
        quarantine: Records broken files; by default up to 20 % are skipped.

    Raises:
        NothingUsableError: If there is no picture that can be read.
        ValueError: If no name can be made for a picture.
    """

    collate = staticmethod(CaptionClip.collate)

    def __init__(
        self,
        root: str | Path,
        *,
        size: int,
        split: Split = "all",
        val_fraction: float = 0.1,
        crop: Crop | None = None,
        words: str | Path | None = None,
        seed: int = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        how: Crop = crop or ("random" if split == "train" else "center")
        self._images = ImageFolder(
            root, size=size, crop=how, split=split, val_fraction=val_fraction, seed=seed, quarantine=quarantine
        )
        table = words or find_synset_words(root)
        names = read_synset_words(table) if table else {}
        self._captions = {str(path): self._caption(path, names) for path in self._images.files}

    @property
    def quarantine(self) -> Quarantine:
        """The broken files met so far."""
        return self._images.quarantine

    def _caption(self, path: Path, names: dict[str, str]) -> str:
        parts = path.relative_to(self._images.root).parts
        folder = parts[0] if len(parts) > 1 else self._images.root.resolve().name
        name = class_words(folder, path.stem, names)
        if name is None:
            raise ValueError(f"{path}: cannot name the class; give `words`, a table such as LOC_synset_mapping.txt")
        return caption_of(name)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: int | SampleKey) -> CaptionClip:
        """The picture of this key with its caption, or a replacement if its file is broken.

        Raises:
            IndexError: If the index is outside the data set.
            TooManyBrokenFilesError: If more files are broken than the quarantine allows.
        """
        clip = self._images[key]
        assert isinstance(clip.name, str)
        target = TextTarget("caption", self._captions[clip.name])
        return CaptionClip(images=clip.images, target=target, name=clip.name, seed=clip.seed)
