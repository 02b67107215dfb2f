"""The base of evaluations of streamed geometry: a model sees a video frame by frame, and no video goes uncounted."""

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from omnistream import distributed
from omnistream.data.batch import SceneFrame
from omnistream.data.evaluation_samples import EvaluationSamples
from omnistream.data.geometry_videos import GeometryVideo, GeometryVideos
from omnistream.data.media.errors import MediaReadError
from omnistream.evaluation.environment import versions
from omnistream.evaluation.models import FrameGeometry, StreamingGeometry
from omnistream.evaluation.results import MetricValue
from omnistream.tasks.reconstruction.origin import model_origin, model_settings, videos_origin
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.records import SequenceRecords, outcome_key, plain
from omnistream.tasks.reconstruction.summary import IN_MEANS, summarize


class PredictedFrame(NamedTuple):
    """What a model said about one frame, on the CPU."""

    depth: Float[Tensor, "h w"]
    confidence: Float[Tensor, "h w"] | None
    camera_to_world: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    ray_camera_to_world: Float[Tensor, "4 4"] | None
    """Pose of a second source, for models that have one."""


class StreamedEvaluation(LightningModule):
    """Runs a model over videos strictly frame by frame and scores each video; `omnistream test` alone.

    Every video is one stream: the model is reset before its first frame, then given one frame at a time. The outcome of
    a video is written to `sequences/<name>.json` in the log folder when it is finished, and a test that was stopped
    goes on from there with `resume`. No video vanishes: one with a broken file, or without anything to compare with, is
    named in `results.json` and counted as skipped; a prediction that is not finite makes the mean NaN.

    Test batches are lists of one `GeometryVideo`; several processes share the videos.

    Args:
        geometry: The model, a `StreamingGeometry`. One with a method `open` is told the name of every video, and
            says in `missing`, as `SavedPredictions` does, what it does not predict for it.
        checkpoint: Given to the model's `load_checkpoint`: a run folder, checkpoint or name.
        protocol: Stable name of the evaluation.
        resume: Log folder of a stopped test. Its videos are taken over if everything that decides their outcomes is the
            same: the model, its precision and settings, files and settings of the data, and the library's version.
        num_plotted_frames: Most frames of a video that are kept for plots.

    Raises:
        ValueError: If the model cannot be evaluated, or loads no checkpoint and one is given.
    """

    weights_option = "--model.checkpoint"
    """Where weights are given on the command line."""
    scored_parts: ClassVar[tuple[Literal["depth", "poses", "intrinsics"], ...]] = ("depth", "poses")
    """What is scored. A video for which a model says that such a prediction is `missing` is refused. Where it is not
    depth, the true depth is not read: a map that is missing or broken does not matter."""

    def __init__(
        self,
        geometry: nn.Module,
        checkpoint: str | None = None,
        *,
        protocol: str,
        resume: str | None = None,
        num_plotted_frames: int = 8,
    ) -> None:
        super().__init__()
        if not isinstance(geometry, StreamingGeometry):
            raise ValueError(
                f"geometry must have reset() and step(images), as omnistream.evaluation.StreamingGeometry says; "
                f"{type(geometry).__name__} has not"
            )
        if num_plotted_frames < 1:
            raise ValueError(f"num_plotted_frames must be at least 1, got {num_plotted_frames}")
        if checkpoint is not None:
            if not hasattr(geometry, "load_checkpoint"):
                raise ValueError(f"{type(geometry).__name__} loads no checkpoint; leave out {self.weights_option}")
            geometry.load_checkpoint(checkpoint)  # type: ignore[operator]
        self.geometry = geometry.requires_grad_(False).eval()
        self.checkpoint, self.protocol, self.resume = checkpoint, protocol, resume
        self.num_plotted_frames = num_plotted_frames
        self._records = SequenceRecords(None)
        self._origin: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        """Of outcomes, by the names of the videos."""
        self._outcomes: list[SequenceOutcome] = []
        self._metrics: dict[str, MetricValue] = {}
        self._seconds: list[float] = []
        """For each frame of the video so far."""

    # What an evaluation adds.

    @abstractmethod
    def score(
        self, video: GeometryVideo, stream: Iterator[tuple[SceneFrame, PredictedFrame]]
    ) -> tuple[SequenceOutcome, ReconstructedVideo | None]:
        """The outcome of one video, and what plots need.

        Args:
            video: The video.
            stream: Frames with their truth, and predictions; the model runs while this is read.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Arguments that decide the metrics, as plain values."""

    # What they share.

    @property
    def judged_model(self) -> nn.Module:
        """The model that the results are of."""
        return self.geometry

    @property
    def needs_training(self) -> bool:
        """Whether the model has no weights yet."""
        return not getattr(self.geometry, "has_weights", True)

    def setup(self, stage: str) -> None:
        """Refuse anything but a test.

        Raises:
            ValueError: In `fit`, `validate` and `predict`.
        """
        if stage != "test":
            self._refuse()

    def training_step(self, *_: Any) -> NoReturn:
        """Refuse; without this method Lightning would ask for it."""
        self._refuse()

    def configure_optimizers(self) -> NoReturn:
        """Refuse; without this method Lightning would ask for it."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(f"{self.protocol} has nothing to train or to validate; run omnistream test")

    def configure_model(self) -> None:
        """Give a model without weights random ones, which the command line allows with `--random` alone."""
        if self.needs_training and hasattr(self.geometry, "use_random_weights"):
            self.geometry.use_random_weights()  # type: ignore[operator]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> NoReturn:
        """Refuse.

        Raises:
            ValueError: Always: weights are those of the model, not of this module.
        """
        raise ValueError(f"the checkpoint of an evaluated model goes to {self.weights_option}")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Videos are not in memory yet; frames are moved one by one."""
        return batch

    def on_test_start(self) -> None:
        """Find the log folder, and what a stopped test has left.

        Raises:
            FileNotFoundError: If `resume` holds nothing.
        """
        folder = self.trainer.log_dir or self.trainer.default_root_dir  # a collective: on every process
        kept = None if getattr(self.trainer, "fast_dev_run", False) else Path(folder)
        self._records = SequenceRecords(kept, self.resume)
        videos, self._outcomes, self._keys = self._videos(), [], {}
        self._origin = {
            "model": model_origin(self.geometry),
            "precision": [str(self.trainer.precision), torch.get_float32_matmul_precision()],
            "evaluation": [type(self).__qualname__, self.options()],
            "data": None if videos is None else videos_origin(videos.reader),
            "versions": versions(),
        }
        if self.resume is not None and videos is not None:
            every = [videos[index] for index in range(len(videos))]
            found = sum(self._records.finished(video.name, self._key(video)) is not None for video in every)
            why = "" if found else "; what is there was made with another model, other settings or other data"
            rank_zero_info(f"{self.protocol}: {found} of {len(every)} videos are taken over from {self.resume}{why}")

    def test_step(self, batch: list[GeometryVideo] | None, batch_idx: int) -> Any:
        """Evaluate one video.

        Returns:
            A `ReconstructedVideo` for plots; None if the video was taken over or could not be read.

        Raises:
            ValueError: If a batch has several videos, or the model's predictions do not fit the frames.
        """
        if batch is None:  # this process has no video left
            return None
        if len(batch) != 1:
            raise ValueError(f"{self.protocol} needs batches of one video, got {len(batch)}; set data.batch_size to 1")
        video, plotted = batch[0], None
        outcome = self._records.finished(video.name, key := self._key(video))
        if outcome is None:
            outcome, plotted = self._evaluate(video)
        self._records.write(outcome, key)
        self._outcomes.append(outcome)
        return plotted

    def _evaluate(self, video: GeometryVideo) -> tuple[SequenceOutcome, ReconstructedVideo | None]:
        if not len(video):
            reason = f"none of its {video.sequence.num_frames} frames is among the chosen ones"
            return SequenceOutcome(name=video.name, status="no truth", reason=reason), None
        self._seconds = []
        try:
            with closing(self._stream(video)) as stream:  # type: ignore[type-var]  # a generator
                outcome, plotted = self.score(video, stream)
        except MediaReadError as error:
            outcome, plotted = SequenceOutcome(name=video.name, status="unreadable", reason=str(error)), None
        seen = len(self._seconds)
        time_per_frame = {"seconds_per_frame": sum(self._seconds) / seen} if seen else {}
        return replace(outcome, num_frames=seen, details={**outcome.details, **time_per_frame}), plotted

    def _stream(self, video: GeometryVideo) -> Iterator[tuple[SceneFrame, PredictedFrame]]:
        """Frames and predictions, one after the other.

        Raises:
            ValueError: If there are too few or too many predictions, the part that is scored is missing, or one does
                not fit; names video and frame.
        """
        geometry: Any = self.geometry
        if hasattr(geometry, "open"):
            geometry.open(video.name)
        for part, place in getattr(geometry, "missing", {}).items():
            if part in self.scored_parts:
                raise ValueError(f"{video.name}: {self.protocol} needs predicted {part}; there is no {place}")
        geometry.reset()
        size: torch.Size | None = None
        with closing(video.frames("depth" in self.scored_parts)) as frames:  # type: ignore[type-var]  # a generator
            for index, frame in enumerate(frames):
                start = time.perf_counter()
                try:
                    predicted = _predicted(geometry.step(frame.image[None].to(self.device)), size)
                except ValueError as error:
                    raise ValueError(f"{video.name}, frame {index}: {error}") from error
                self._seconds.append(time.perf_counter() - start)
                size = predicted.depth.shape
                yield frame, predicted
        if left := getattr(geometry, "num_left", 0):
            raise ValueError(f"{video.name}: there are {left} more predictions than its {len(video)} frames")

    def on_test_epoch_end(self) -> None:
        """Put the means of all processes together.

        Raises:
            ValueError: If no video could be scored.
        """
        parts = distributed.gather_objects(self._outcomes)
        self._outcomes = sorted((one for part in parts for one in part), key=lambda one: one.name)
        self._metrics = summarize(self._outcomes)
        shown = {f"test/{name}": value.value for name, value in self._metrics.items() if "/" not in name}
        self.log_dict(shown, batch_size=1, sync_dist=True)  # equal on all processes
        self._warn_if_incomplete()
        if self.trainer.is_global_zero:
            self._records.keep_only([one.name for one in self._outcomes])

    def _warn_if_incomplete(self) -> None:
        """Name the videos that the metrics lack, which a terminal would not show otherwise."""
        videos = self._videos()
        left_out = [f"{name} (no files)" for name in ([] if videos is None else videos.missing_names)]
        left_out += [f"{one.name} ({one.status})" for one in self._outcomes if one.status not in IN_MEANS]
        if left_out:
            total = len(self._outcomes) + (0 if videos is None else videos.missing)
            more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
            rank_zero_warn(
                f"{self.protocol}: the metrics are of {total - len(left_out)} of {total} videos; "
                f"left out: {', '.join(left_out[:10])}{more}"
            )

    def test_results(self) -> dict[str, Any]:
        """Fields of `EvaluationResult` after a test."""
        counted = [one for one in self._outcomes if one.status in IN_MEANS]
        videos = self._videos()
        settings = {
            **self.options(),
            "model": model_settings(self.geometry),
            "resets": "before every video",
            "frames_per_step": 1,
            "num_frames": sum(one.num_frames for one in counted),
            "videos": None if videos is None else videos.settings(),
            "sequences": [plain(one) for one in self._outcomes],
        }
        return {
            "protocol": self.protocol,
            "metrics": self._metrics,
            "num_samples": len(counted),
            "skipped": len(self._outcomes) - len(counted),
            "settings": settings,
        }

    def _videos(self) -> GeometryVideos | None:
        """The data set of the test."""
        loaders = self.trainer.test_dataloaders
        dataset = getattr(loaders[0] if isinstance(loaders, list) else loaders, "dataset", None)
        dataset = dataset.dataset if isinstance(dataset, EvaluationSamples) else dataset
        return dataset if isinstance(dataset, GeometryVideos) else None

    def _key(self, video: GeometryVideo) -> str:
        """Of everything that decides the outcome of a video."""
        if video.name not in self._keys:
            data = self._origin["data"] or videos_origin(video.reader)
            read = getattr(self.geometry, "predictions_sha256", None)
            predictions = None if read is None else read(video.name)
            origin = {**self._origin, "data": data, "predictions": predictions, "video": video.settings()}
            self._keys[video.name] = outcome_key(origin)
        return self._keys[video.name]


def spread(num_frames: int, most: int) -> list[int]:
    """At most this many positions, evenly spread over a video, the first and the last included."""
    return sorted(set(torch.linspace(0, num_frames - 1, min(most, num_frames)).round().long().tolist()))


def _predicted(found: Any, size: torch.Size | None) -> PredictedFrame:
    """The prediction of one step of one frame.

    Args:
        found: What the model returned.
        size: Of the depth maps before.

    Raises:
        ValueError: If it is not one prediction, or a part has another shape than it should have.
    """
    if len(found) != 1:
        raise ValueError(f"the model gave {len(found)} predictions for one frame")
    one: FrameGeometry = found[0]
    if one.depth.ndim != 2 or one.depth.numel() == 0 or (size is not None and one.depth.shape != size):
        before = "" if size is None else f", those before have {' x '.join(map(str, size))}"
        raise ValueError(f"the predicted depth has the shape {tuple(one.depth.shape)}{before}")
    rays = getattr(one, "ray_camera_to_world", None)
    for name, value, shape in (("pose", one.camera_to_world, (4, 4)), ("intrinsics", one.intrinsics, (3, 3))):
        if tuple(value.shape) != shape:
            raise ValueError(f"the predicted {name} has the shape {tuple(value.shape)}, not {shape}")
    confidence = getattr(one, "confidence", None)
    maps = [None if value is None else value.detach().float().cpu() for value in (one.depth, confidence)]
    poses = [None if value is None else value.detach().double().cpu() for value in (one.camera_to_world, rays)]
    return PredictedFrame(maps[0], maps[1], poses[0], one.intrinsics.detach().float().cpu(), poses[1])  # type: ignore[arg-type]
