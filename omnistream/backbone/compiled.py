"""A compiled streaming session: one graph once the window is full, a few while it fills."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnistream.backbone.attention import check_window
from omnistream.backbone.frame_step import Features, StepOptions, check_static_dtype
from omnistream.backbone.kv_cache import cache_dtype_of
from omnistream.backbone.model import BackboneOutput, OmniStream
from omnistream.backbone.session_checks import check_aspect_ratio, check_frames, chosen_rows
from omnistream.backbone.static_step import StaticStep

FIRST_SLOTS = 8
"""Frame slots at the start; they double until the window or `max_frames` is reached, so few lengths are compiled."""
MANY = 1 << 20
_FROM_BACKBONE = "backbone"


class CompiledSession:
    """Encodes B streams frame by frame like `StreamSession`, through `torch.compile`.

    The cache holds 8, 16, 32, ... frames while the stream grows, and each of these sizes is compiled once, when it is
    reached; slots that are still empty are masked. With a window the sizes end at W + 1 slots. From then on the mask is
    gone and every step runs one and the same graph: no memory is allocated, nothing waits for the device. Without a
    window the last size is `max_frames`, or there is no last one.

    On CUDA the default mode records CUDA graphs. Features are copied out of their memory, which the next step
    overwrites, so they stay valid as long as they are kept.

    Args:
        backbone: Model to use; it is not copied.
        window: Remembered frames W; None for all. Default: the backbone's.
        sink: First frames never forgotten. Default: the backbone's.
        cache_dtype: Dtype of cache and attention, e.g. `torch.bfloat16`; None for the backbone's. Not `int8`.
        max_frames: Without a window: refuse more frames.
        layers: Blocks whose patch outputs are returned.
        camera_token: Add the camera token.
        aspect_ratio: Height over width per stream [B], told to the camera token.
        backend: Of `torch.compile`.
        mode: Of `torch.compile`; default `reduce-overhead` (CUDA graphs) on CUDA and `default` elsewhere with inductor.

    Raises:
        ValueError: For a window that cannot hold its sink, a layer that does not exist, or an 8-bit cache.
    """

    def __init__(
        self,
        backbone: OmniStream,
        *,
        window: int | str | None = _FROM_BACKBONE,
        sink: int | str = _FROM_BACKBONE,
        cache_dtype: torch.dtype | str | None = None,
        max_frames: int | None = None,
        layers: Sequence[int] = (),
        camera_token: bool = False,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        backend: str = "inductor",
        mode: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.window: int | None = backbone.window if window == _FROM_BACKBONE else window  # type: ignore[assignment]
        self.sink: int = backbone.sink if sink == _FROM_BACKBONE else sink  # type: ignore[assignment]
        check_window(self.window, self.sink)
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1 (or None to grow), got {max_frames}")
        self.cache_dtype, self.max_frames = cache_dtype_of(cache_dtype), max_frames
        check_static_dtype(self.cache_dtype)
        backbone.check_layers(layers)
        self.layers, self.camera_token = tuple(layers), camera_token
        if aspect_ratio is not None:
            check_aspect_ratio(aspect_ratio)
        self.aspect_ratio = None if aspect_ratio is None else tuple(aspect_ratio.tolist())
        self.backend, self.mode = backend, mode
        self.frame_indices = torch.zeros(0, dtype=torch.int64)
        """Frames seen so far by each stream, int64 [B] on the CPU."""
        self.static: StaticStep | None = None
        """The step that is compiled, with the cache; None before the first frame."""

    def step(self, frames: Float[Tensor, "B S 3 H W"]) -> BackboneOutput:
        """Features of the next S >= 1 frames of every stream, one frame after the other.

        Args:
            frames: Normalised frames (see `OmniStream.normalize`).

        Raises:
            ValueError: If the frames are not floats of this shape, batch or image size differ from the first step's,
                dtype or device from the backbone's, or `max_frames` is exceeded.
        """
        check_frames(frames)
        # Buffers made in inference mode could not be written outside it.
        with torch.inference_mode(False), torch.no_grad():
            return self._encode(frames)

    def _encode(self, frames: Tensor) -> BackboneOutput:
        B, S, _, H, W = frames.shape
        step = self._begin(B, H, W) if self.static is None else self.static
        expected = (step.options.batch_size, *step.options.image_size)
        if expected != (B, H, W):
            raise ValueError(
                f"a session keeps batch, height and width of its first step {expected}, got {(B, H, W)}; "
                "open another session"
            )
        if (frames.dtype, frames.device) != (self._images.dtype, self._images.device):
            raise ValueError(
                f"frames must be {self._images.dtype} on {self._images.device} as the backbone is, "
                f"got {frames.dtype} on {frames.device}"
            )
        last = int(self.frame_indices.max()) + S
        if self.window is None and self.max_frames is not None and last > self.max_frames:
            raise ValueError(
                f"the stream has reached max_frames={self.max_frames}; reset it, raise max_frames, or set a window"
            )
        outputs = [self._next(step, frames[:, i]) for i in range(S)]
        stacked = {name: torch.stack([output[name] for output in outputs], dim=1) for name in outputs[0]}
        return BackboneOutput(
            patches={layer: stacked[f"block_{layer}"] for layer in self.layers},
            last=stacked["last"],
            cls=stacked["cls"],
            registers=stacked["registers"],
            camera=stacked.get("camera"),
        )

    def _begin(self, batch_size: int, height: int, width: int) -> StaticStep:
        import torch._dynamo  # takes a second

        options = StepOptions(
            image_size=(height, width),
            batch_size=batch_size,
            window=self.window,
            sink=self.sink,
            layers=self.layers,
            camera_token=self.camera_token,
            aspect_ratio=self.aspect_ratio,
            cache_dtype=self.cache_dtype,
        )
        step = StaticStep(self.backbone, options, num_slots=self._bounded(FIRST_SLOTS))
        device = step.frame.device
        mode = self.mode or ("reduce-overhead" if device.type == "cuda" and self.backend == "inductor" else None)
        self._compiled = torch.compile(step, fullgraph=True, dynamic=False, backend=self.backend, mode=mode)
        self._no_reset = torch.zeros(batch_size, dtype=torch.bool, device=device)
        self._images = step.blank_images()  # one place and stride for the input, however many frames come at once
        self._fix_addresses(step)
        self.static, self.frame_indices = step, torch.zeros(batch_size, dtype=torch.int64)
        return step

    def _bounded(self, num_slots: int) -> int:
        limit = self.max_frames if self.window is None else self.window + 1
        return num_slots if limit is None else min(num_slots, limit)

    def _fix_addresses(self, step: StaticStep) -> None:
        """Tell the compiler that the state stays where it is, so that a CUDA graph may change it in place."""
        keys, values = step.cache()
        for buffer in (step.frame, *keys, *values, self._images, self._no_reset):
            torch._dynamo.mark_static_address(buffer)

    def _next(self, step: StaticStep, images: Tensor) -> Features:
        """Features of one frame per stream, in memory of their own."""
        if int(self.frame_indices.max()) >= step.num_slots < (more := self._bounded(2 * step.num_slots)):
            step.grow(more)
            self._fix_addresses(step)
        # A stream's own frame fills the last slot before it attends, so frame W needs no mask.
        masked = self.window is None or int(self.frame_indices.min()) < self.window
        self._images.copy_(images)
        torch.compiler.cudagraph_mark_step_begin()
        # The sizes of all sessions of a process count against one limit, and every one of them is wanted.
        with torch._dynamo.config.patch(recompile_limit=MANY, accumulated_recompile_limit=MANY):
            features = self._compiled(self._images, self._no_reset, masked)
        self.frame_indices += 1
        return {name: value.clone() for name, value in features.items()}

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None = None) -> None:
        """Start streams anew: those in `rows` (numbers, or a mask), or all.

        The cache stays allocated, and full-window steps mask again.

        Raises:
            ValueError: If there is no such stream.
        """
        if self.static is None:
            return  # no stream has begun
        chosen = chosen_rows(rows, len(self.frame_indices))
        self.frame_indices[chosen] = 0
        self.static.restart(chosen.to(self.static.frame.device))

    @property
    def num_bytes(self) -> int:
        """Memory held by the cache."""
        if self.static is None:
            return 0
        keys, values = self.static.cache()
        return sum(t.numel() * t.element_size() for t in [*keys, *values])
