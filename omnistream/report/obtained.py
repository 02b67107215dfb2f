"""How results of streaming geometry evaluations were obtained: frames, lists, resets, alignment, sizes and hashes.

Published numbers of one model differ by a factor of two or three where this is not said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omnistream.report.comparison import FoundResult
from omnistream.report.tables import Table

PROTOCOLS = ("video_depth", "camera_pose", "point_map")
UNKNOWN = "not declared"
_HASH_DIGITS = 12
_COLUMNS = ("protocol", "model", "sequences", "frames", "resets", "session", "alignment", "images", "hashes")
_UNSCORED_COLUMNS = ("protocol", "model", "sequence", "status", "reason")


def is_reconstruction(one: FoundResult) -> bool:
    """Whether a result is of a streaming geometry evaluation."""
    return one.result.protocol.partition("/")[0] in PROTOCOLS


def how_obtained(results: Sequence[FoundResult], names: Mapping[str, str]) -> list[Table]:
    """Frames, sequences, resets, window, alignment, image size and hashes of every result, and sequences without score.

    What a `results.json` does not say is named as such.

    Args:
        results: Of any evaluations.
        names: Of the models, by their fingerprints.

    Returns:
        No table if there is no such result.
    """
    found = [one for one in results if is_reconstruction(one)]
    if not found:
        return []
    rows = tuple(_row(one, names[one.model]) for one in found)
    note = "Hashes are the first digits of the SHA-256 of the weights and of the checkpoint."
    tables = [Table(title="How these were obtained", columns=_COLUMNS, rows=rows, note=note)]
    if unscored := tuple(row for one in found for row in _unscored(one, names[one.model])):
        note = "No sequence vanishes: those that are not finite make the mean NaN, the others count as skipped."
        tables.append(Table(title="Sequences without a score", columns=_UNSCORED_COLUMNS, rows=unscored, note=note))
    return tables


def _row(one: FoundResult, model: str) -> tuple[str, ...]:
    settings = one.result.settings
    videos = settings.get("videos") or {}
    return (
        one.result.protocol,
        model,
        _sequences(one, videos),
        _frames(settings, videos),
        _resets(settings),
        _session(settings),
        _alignment(settings),
        _images(videos),
        _hashes(one),
    )


def _sequences(one: FoundResult, videos: Mapping[str, Any]) -> str:
    parts = [_list(videos)]
    parts.append(f"{one.result.num_samples} scored, {one.result.skipped} skipped")
    if missing := videos.get("missing_sequences"):
        parts.append(f"without files: {', '.join(missing)}")
    return "; ".join(parts)


def _list(videos: Mapping[str, Any]) -> str:
    if name := videos.get("list"):
        return f"list {name}"
    if picked := videos.get("picked"):
        return f"picked by hand: {', '.join(picked)}"
    return "all that are there" if "picked" in videos else f"list {UNKNOWN}"


def _frames(settings: Mapping[str, Any], videos: Mapping[str, Any]) -> str:
    chosen = videos.get("frames")
    if not isinstance(chosen, Mapping):
        return UNKNOWN
    start, stop, stride, count = (chosen.get(name) for name in ("start", "stop", "stride", "count"))
    part = "all" if not start and stop is None else f"{start or 0} to {'the end' if stop is None else stop - 1}"
    text = part if stride in (None, 1) else f"{part}, every {stride}."
    text += "" if count is None else f", first {count}"
    total = settings.get("num_frames")
    return text if total is None else f"{text}; {total} in all"


def _resets(settings: Mapping[str, Any]) -> str:
    resets, step = settings.get("resets"), settings.get("frames_per_step")
    if resets is None:
        return UNKNOWN
    return f"{resets}; {step} frame{'' if step == 1 else 's'} per step" if step else str(resets)


def _session(settings: Mapping[str, Any]) -> str:
    model = settings.get("model") or {}
    session = model.get("session")
    if not isinstance(session, Mapping):
        return UNKNOWN
    window = session.get("window")
    parts = ["all frames" if window is None else f"window {window}, sink {session.get('sink')}"]
    parts.append(f"cache {session.get('cache_dtype') or 'of the model'}")
    if session.get("time_mode") not in (None, "absolute"):
        parts.append(f"time {session['time_mode']}")
    if model.get("cameras"):
        parts.append(f"poses: {model['cameras']}")
    return "; ".join(parts)


def _alignment(settings: Mapping[str, Any]) -> str:
    alignments = settings.get("alignments")
    if not alignments:
        return UNKNOWN
    first, *others = alignments
    parts = [str(first) + (f" (also {', '.join(others)})" if others else "")]
    if settings.get("max_depth") is not None:
        parts.append(f"truth below {settings['max_depth']:g}")
    if settings.get("clip_to") is not None:
        parts.append(f"clipped to {settings['clip_to']:g}")
    return "; ".join(parts)


def _images(videos: Mapping[str, Any]) -> str:
    if "images" not in videos:
        return UNKNOWN
    images = videos["images"]
    if images is None:
        return "as stored"
    how = {"crop": "centre crop", "resize": "resize"}.get(images.get("fit"), images.get("fit"))
    return f"longer side {images.get('long_side')}, {how} to multiples of {images.get('multiple')}"


def _hashes(one: FoundResult) -> str:
    weights = one.result.model.get("weights_sha256")
    checkpoint = (one.result.checkpoint or {}).get("sha256")
    shown = [f"{name} {value[:_HASH_DIGITS]}" for name, value in (("weights", weights), ("file", checkpoint)) if value]
    return ", ".join(shown) or UNKNOWN


def _unscored(one: FoundResult, model: str) -> list[tuple[str, ...]]:
    sequences = one.result.settings.get("sequences") or []
    return [
        (one.result.protocol, model, str(each.get("name")), str(each["status"]), str(each.get("reason", "")))
        for each in sequences
        if each.get("status", "scored") != "scored"
    ]
