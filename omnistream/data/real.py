"""What a folder of real data holds: recorded scenes, videos and pictures."""

from dataclasses import dataclass
from pathlib import Path

from omnistream.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, existing_folder, find_files
from omnistream.data.quarantine import NothingUsableError
from omnistream.data.scenes.folder import find_sequences
from omnistream.data.scenes.sequence import SceneSequence


@dataclass(frozen=True)
class FoundFolder:
    """A folder that one of the readers can take as its root."""

    path: Path
    """The folder."""
    count: int
    """Files in it, or frames for a scene."""


@dataclass(frozen=True)
class RealMedia:
    """What was found below a folder; each part may be empty."""

    root: Path
    """Where was looked."""
    scenes_root: Path | None
    """Root for `SceneFolder`."""
    scenes: dict[str, int]
    """Frames of each sequence by `layout:name`."""
    videos: FoundFolder | None
    """Root for `VideoFolder`."""
    images: FoundFolder | None
    """Root for `ImageFolder` and `ImageFolderCaptions`: the folder of class folders with the most pictures."""

    @property
    def report(self) -> str:
        """One line per kind, for the user."""
        lines = [f"scenes: {len(self.scenes)} with {sum(self.scenes.values())} frames"]
        lines += [f"  {name}: {frames} frames" for name, frames in self.scenes.items()]
        lines.append(f"videos: {self.videos.count} files in {self.videos.path}" if self.videos else "videos: none")
        lines.append(f"images: {self.images.count} files in {self.images.path}" if self.images else "images: none")
        return "\n".join(lines)


def find_media(root: str | Path) -> RealMedia:
    """Scenes, videos and class folders of pictures below a folder; nothing is decoded.

    A folder `videos` or `images` directly below `root` is where that kind is looked for; otherwise everywhere.

    Raises:
        NothingUsableError: If there is no such folder, or nothing of any kind in it.
        MediaReadError: If a camera file is broken.
    """
    folder = existing_folder(root)
    scenes = find_sequences(folder)
    media = RealMedia(
        root=folder,
        scenes_root=folder if scenes else None,
        scenes={f"{layout}:{s.name}": len(s) for layout, sequences in scenes.items() for s in sequences},
        videos=_find_videos(_kind_folder(folder, "videos")),
        images=_find_class_folders(_kind_folder(folder, "images"), taken=_frame_folders(scenes)),
    )
    if not media.scenes and media.videos is None and media.images is None:
        raise NothingUsableError(
            f"{folder} holds no scene (deep-video-mvs or tsdf-fusion layout), no video and no folder of class folders "
            "with pictures"
        )
    return media


def _kind_folder(root: Path, kind: str) -> Path:
    return root / kind if (root / kind).is_dir() else root


def _find_videos(root: Path) -> FoundFolder | None:
    count = len(find_files(root, VIDEO_SUFFIXES))
    return FoundFolder(root, count) if count else None


def _frame_folders(scenes: dict[str, list[SceneSequence]]) -> set[Path]:
    """Folders with the frames of a scene, which are no classes of pictures."""
    every = [sequence for sequences in scenes.values() for sequence in sequences]
    return {path.parent for sequence in every for path in (*sequence.images, *sequence.depths)}


def _find_class_folders(root: Path, taken: set[Path]) -> FoundFolder | None:
    """The folder whose subfolders hold the most pictures, among those with two or more such subfolders."""
    counts: dict[Path, dict[Path, int]] = {}
    for path in find_files(root, IMAGE_SUFFIXES):
        if path.parent != root and path.parent not in taken:
            classes = counts.setdefault(path.parent.parent, {})
            classes[path.parent] = classes.get(path.parent, 0) + 1
    found = [FoundFolder(path, sum(classes.values())) for path, classes in counts.items() if len(classes) > 1]
    return max(found, key=lambda candidate: candidate.count, default=None)
