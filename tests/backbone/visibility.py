"""The oracle of what a frame sees, spelled out as lists."""


def visible_frames(frame: int, window: int | None, sink: int) -> list[int]:
    """Frames that `frame` sees, itself included.

    Without a window all frames up to it; with a window W, the first `sink` frames, the latest W - sink, and itself: W
    counts remembered frames, as in the release's streaming.
    """
    if window is None or frame <= window:
        return list(range(frame + 1))
    return [*range(sink), *range(frame - (window - sink), frame + 1)]
