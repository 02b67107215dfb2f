"""Cache on disk of the indexes of video files, so that each file is read completely only once.

There is one small file per video in the folder `videos` of `$OMNISTREAM_CACHE`, else `$XDG_CACHE_HOME/omnistream`, else
`~/.cache/omnistream`. It is named after the absolute path of the video and contains the video's size and modification
time; if these differ, it is ignored. Files are replaced atomically, so any number of processes may share the folder,
and everything in it may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections import OrderedDict
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.orientation import Orientation
from omnistream.data.media.video_index import VideoIndex
from omnistream.data.media.video_info import VideoInfo, VideoRecord
from omnistream.paths import apply_umask, cache_folder

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Increased when the stored content, or how it is computed, changes."""

_MOST_IN_MEMORY = 4096
"""Number of records; that of a minute of video takes about 15 kB."""

_Key = tuple[str, int, int]
_memory: OrderedDict[_Key, VideoRecord] = OrderedDict()


def load_record(path: str | Path) -> VideoRecord | None:
    """The record of a file in its current state; None if there is none.

    Raises:
        VideoReadError: If the file does not exist.
    """
    key = _key(path)
    record = _memory.get(key) or _load(key)
    if record is None:
        return None
    if record.info.path != str(path):
        record = replace(record, info=replace(record.info, path=str(path)))
    return _keep(key, record)


def store_record(record: VideoRecord) -> VideoRecord:
    """Store the record of a file in its current state.

    Raises:
        VideoReadError: If the file does not exist.
    """
    key = _key(record.info.path)
    try:
        _store(key, record)
    except OSError as error:
        _warn_once(f"{cache_folder('videos')} cannot be written ({error.strerror}); every run will index videos again")
    return _keep(key, record)


def _key(path: str | Path) -> _Key:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise VideoReadError(path, error.strerror or str(error)) from None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns  # noqa: PTH100


def _keep(key: _Key, record: VideoRecord) -> VideoRecord:
    _memory[key] = record
    _memory.move_to_end(key)
    while len(_memory) > _MOST_IN_MEMORY:
        _memory.popitem(last=False)
    return record


def _file(path: str) -> Path:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    return cache_folder("videos") / digest[:2] / f"{digest[2:32]}.npz"


def _identity(key: _Key) -> list[str | int]:
    """What must match for a stored record to be valid, including the version of the decoder."""
    return [_FORMAT, *key, av.__version__, av.ffmpeg_version_info]


def _load(key: _Key) -> VideoRecord | None:
    try:
        with np.load(_file(key[0]), allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            if header["identity"] != _identity(key):
                return None
            info = header["info"]
            info["orientation"], info["doubts"] = Orientation(*info["orientation"]), tuple(info["doubts"])
            names = [field.name for field in fields(VideoIndex)]
            return VideoRecord(VideoInfo(**info), VideoIndex(**{name: arrays[name] for name in names}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s) and is rebuilt", _file(key[0]), error)
        return None


def _store(key: _Key, record: VideoRecord) -> None:
    header = json.dumps({"identity": _identity(key), "info": asdict(record.info)})
    arrays = {field.name: getattr(record.index, field.name) for field in fields(VideoIndex)}
    target = _file(key[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, header=np.array(header), **arrays)
        apply_umask(Path(temporary))
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@lru_cache(maxsize=16)
def _warn_once(message: str) -> None:
    logger.warning(message)
