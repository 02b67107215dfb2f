"""The loop: frames from a source through a streaming session to writers."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from omnistream.backbone import OmniStream, StreamHead
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.session import Session
from omnistream.data.media import VideoReadError
from omnistream.data.media.resize import resize_images
from omnistream.errors import one_line
from omnistream.streaming.frame_size import FrameSize
from omnistream.streaming.frames import Frame, Source
from omnistream.streaming.interrupt import stop_on_signals
from omnistream.streaming.memory import cuda_bytes, cuda_peak, peak_rss, rss
from omnistream.streaming.problems import Problems
from omnistream.streaming.reader import frames_until
from omnistream.streaming.writer import Step, Writer

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How frames go through the model.

    Raises:
        ValueError: If a value is out of range.
    """

    size: str = "224"
    """Size of the frames: 224 or short:224 (shorter side), or long:512, rounded to whole patches; or 240x320 (height x
    width), multiples of the patch size."""
    max_frames: int | None = None
    """Stop after this many frames."""
    chunk: int = 1
    """Frames per step; longer steps are faster, but results come later."""
    session: SessionOptions = SessionOptions()  # noqa: RUF009 (frozen)
    """Options of the streaming session; `layers` are those that the writers need."""

    def __post_init__(self) -> None:
        FrameSize.parse(self.size)
        for name in ("chunk", "max_frames"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """Result of `run_stream`."""

    frames: int
    """Frames encoded."""
    seconds: float
    """Time from the first frame to the last."""
    size: tuple[int, int]
    """Height and width of the encoded frames."""
    source_size: tuple[int, int]
    """Height and width of the source's first frame."""
    ended: str
    """`end of source`, `max_frames`, `interrupted` or `failed`."""
    error: str | None
    """Why it failed; None if it did not."""
    peak_rss: int
    """Peak resident memory in bytes."""
    peak_cuda: int | None
    """Peak memory of tensors on the GPU in bytes; None without a GPU."""


def run_stream(
    backbone: OmniStream,
    source: Source,
    make_writers: Callable[[], Sequence[Writer]],
    options: StreamOptions,
    problems: Problems,
    heads: Mapping[str, StreamHead] | None = None,
    *,
    finish: Callable[[StreamResult], None] = lambda result: None,
    progress: bool = True,
) -> StreamResult:
    """Run a source through the backbone and pass every step to the writers.

    SIGINT ends the stream after the current step, even if its chunk is not full or the source sends nothing; a second
    one raises KeyboardInterrupt in the middle of the step. The writers are always closed, so their files are complete.
    If several errors occur, as on a full disk, the first is raised.

    Args:
        backbone: In eval mode, on the device and in the dtype to use.
        source: Source of the frames; it is not closed.
        make_writers: Called when the first frame has arrived, so that a source without frames leaves no files.
        options: See `StreamOptions`.
        problems: Receives changes of the frame size.
        heads: Attached to the session.
        finish: Called with the result after the writers are closed, also before an error is raised.
        progress: Show a progress bar on a terminal.

    Raises:
        VideoReadError: If the source gives no frame at all.
        KeyboardInterrupt: After a second SIGINT, or one before the first frame.
    """
    with stop_on_signals() as stop, closing(frames_until(stop, source)) as frames:
        first = next(frames, None)
        if first is None and stop.requested:
            raise KeyboardInterrupt
        if first is None:
            raise VideoReadError(source.name, "contains no usable frame")
        source_size = (first.image.shape[-2], first.image.shape[-1])
        size = FrameSize.parse(options.size).of(*source_size, backbone.patch_size)
        prepared = _prepare(chain([first], frames), source_size, size, problems)
        session = backbone.stream(options.session, heads=heads)
        tally = _Tally(size, source_size, backbone.mean.device)
        writers = make_writers()
        try:
            with _closing(writers), _bar(source, options, progress) as bar:
                for step_frames in _chunks(islice(prepared, options.max_frames), options.chunk):
                    step = _encode(step_frames, backbone, session)
                    for writer in writers:
                        writer.write(step)
                    tally.frames += len(step_frames)
                    bar.set_postfix_str(_memory(tally.device), refresh=False)
                    bar.update(len(step_frames))
        except BaseException as error:
            failed = None if isinstance(error, KeyboardInterrupt) else error
            with suppress(OSError):  # a full disk may have no room for the summary either
                finish(tally.result("failed" if failed else "interrupted", failed))
            raise
        full = tally.frames == options.max_frames
        result = tally.result("interrupted" if stop.requested else "max_frames" if full else "end of source")
        finish(result)
    return result


@dataclass
class _Tally:
    """State of a running stream."""

    size: tuple[int, int]
    source_size: tuple[int, int]
    device: torch.device
    frames: int = 0
    start: float = field(default_factory=time.monotonic)

    def result(self, ended: str, error: BaseException | None = None) -> StreamResult:
        return StreamResult(
            frames=self.frames,
            seconds=time.monotonic() - self.start,
            size=self.size,
            source_size=self.source_size,
            ended=ended,
            error=None if error is None else one_line(error) or type(error).__name__,
            peak_rss=peak_rss(),
            peak_cuda=cuda_peak(self.device),
        )


def _encode(frames: list[tuple[Frame, Tensor]], backbone: OmniStream, session: Session) -> Step:
    images = torch.stack([image for _, image in frames])
    normalized = backbone.normalize(images.to(backbone.mean.device))[None].to(backbone.patch_embed.weight.dtype)
    return Step([frame for frame, _ in frames], images, session.step(normalized))


@contextmanager
def _closing(writers: Sequence[Writer]) -> Iterator[None]:
    """Close all writers in any case, Ctrl-C included; of several errors the first is raised."""
    errors: list[BaseException] = []
    try:
        yield
    except BaseException as error:
        errors.append(error)
    for writer in writers:
        try:
            writer.close()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _prepare(
    frames: Iterator[Frame], first_size: tuple[int, int], size: tuple[int, int], problems: Problems
) -> Iterator[tuple[Frame, UInt8[Tensor, "3 H W"]]]:
    """Frames with their images resized to the size of the stream; a change of the source's size is reported."""
    current = first_size
    for frame in frames:
        found = (frame.image.shape[-2], frame.image.shape[-1])
        if found != current:
            problems.note(
                f"frame {frame.index} is {found[1]}x{found[0]}, before it {current[1]}x{current[0]}; resized to the "
                f"{size[1]}x{size[0]} of the stream"
            )
            current = found
        yield frame, resize_images(frame.image, size)


def _chunks(frames: Iterator[tuple[Frame, Tensor]], length: int) -> Iterator[list[tuple[Frame, Tensor]]]:
    """Lists of `length` frames, the last with what is left."""
    while chunk := list(islice(frames, length)):
        yield chunk


def _bar(source: Source, options: StreamOptions, progress: bool) -> tqdm:
    totals = [total for total in (source.total, options.max_frames) if total is not None]
    # tqdm's own format switches to seconds per frame below one frame per second.
    counted = "{l_bar}{bar}| {n_fmt}/{total_fmt}" if totals else "{desc}: {n_fmt}"
    left = "<{remaining}" if totals else ""
    # Without a terminal every refresh would print another line.
    return tqdm(
        total=min(totals) if totals else None,
        unit=" frames",
        desc="stream",
        bar_format=f"{counted} frames [{{elapsed}}{left}, {{rate_noinv_fmt}}{{postfix}}]",
        disable=None if progress else True,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def _memory(device: torch.device) -> str:
    cuda = cuda_bytes(device)
    return f"{rss() / MIB:.0f} MiB" + ("" if cuda is None else f", GPU {cuda / MIB:.0f} MiB")
