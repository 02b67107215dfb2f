"""Video object segmentation on a frozen backbone: the masks of the first frame are propagated through the video."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn
from torchmetrics import Metric
from torchvision.utils import draw_segmentation_masks, make_grid

from omnistream import distributed
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.data.batch import MaskedVideo
from omnistream.data.videos.davis import mask_palette, write_mask
from omnistream.evaluation.frozen import FrozenProbe, Setting
from omnistream.evaluation.label_propagation import LabelPropagation, PropagationConfig, labels_to_mask, patch_labels
from omnistream.evaluation.video_features import Encoding, encode_video
from omnistream.metrics import ObjectScores, ScoreDecay, ScoreMean, ScoreRecall, object_scores, score_statistics

_COLUMNS = ("Sequence", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


class VideoObjectSegmentation(FrozenProbe):
    """DAVIS by label propagation (paper App. C.2): nothing is trained, so there is `validate` and `test` but no `fit`.

    A video is encoded once, as one stream through the key-value cache where the backbone has one. The label of a patch
    comes from the most similar patches of the first frame and of the last few; see `PropagationConfig`.

    Scores are those of the official tool: means over all objects of all videos, without the first and the last frame.
    `j_and_f_first_mask` is that of the first mask copied to all frames, a baseline. A test writes the predicted masks
    to the folder `masks` of the log folder, as `<sequence>/00000.png` for the official tool, and the scores of every
    object to `per-sequence_results.csv` beside it.

    Args:
        backbone: The model to evaluate.
        propagation: Constants of label propagation.
        encoding: How a video is encoded; see `encode_video`.
        frames_per_step: Frames that are encoded at once.
        session: What a stream remembers, for backbones that stream; the paper's remembers all frames.
        save_masks: Write the predicted masks.
        protocol: Stable name of the evaluation.
    """

    needs_training = False

    def __init__(
        self,
        backbone: nn.Module,
        *,
        propagation: PropagationConfig = PropagationConfig(),  # noqa: B008 (frozen)
        encoding: Encoding = "auto",
        frames_per_step: int = 1,
        session: SessionOptions = SessionOptions(),  # noqa: B008 (frozen)
        save_masks: bool = True,
        protocol: str = "vos",
    ) -> None:
        super().__init__(backbone, protocol=protocol)
        self.propagation, self.encoding, self.frames_per_step = propagation, encoding, frames_per_step
        self.session, self.save_masks = session, save_masks
        self._folder: Path | None = None
        self._rows: list[dict[str, str]] = []
        self._tracked: tuple[str, Tensor] | None = None
        """Name and predicted masks of the last video."""
        self._extremes: dict[str, tuple[float, str, Tensor]] = {}
        """Score, name and plot of the videos tracked worst and best by this process."""

    def setup(self, stage: str) -> None:
        """Refuse to be trained.

        Raises:
            ValueError: In `fit`.
        """
        if stage == "fit":
            raise ValueError("label propagation has nothing to train; run omnistream test in place of fit")

    def make_head(self, setting: Setting) -> nn.Module:
        """Nothing: labels are propagated without weights."""
        return nn.Identity()

    def metrics(self) -> dict[str, Metric]:
        """J&F, then J and F with their recall and decay, and the baseline."""
        kinds: dict[str, Callable[[], Metric]] = {"mean": ScoreMean, "recall": ScoreRecall, "decay": ScoreDecay}
        single = {f"{measure}_{name}": kind() for measure in ("j", "f") for name, kind in kinds.items()}
        return {"j_and_f": ScoreMean(), **single, "j_and_f_first_mask": ScoreMean()}

    def options(self) -> dict[str, Any]:
        """Arguments that decide the masks."""
        kept = {"encoding": self.encoding, "session": self.session.state()}
        return {"propagation": asdict(self.propagation), **kept}

    @torch.no_grad()
    def track(
        self, images: UInt8[Tensor, "T 3 H W"], first_mask: UInt8[Tensor, "h w"], num_objects: int
    ) -> UInt8[Tensor, "T h w"]:
        """Masks of all frames of a video from that of the first.

        Args:
            images: The frames, as the backbone should see them but not normalised.
            first_mask: Object ids of the first frame, in any size; masks have that size.
            num_objects: Highest id.
        """
        self.check_frozen()
        options: dict[str, Any] = {"frames_per_step": self.frames_per_step, "session": self.session}
        features = encode_video(self.backbone, images, encoding=self.encoding, **options)  # type: ignore[arg-type]
        first = next(features)
        labels = patch_labels(first_mask, (first.shape[0], first.shape[1]), num_objects)
        video, masks = LabelPropagation(first, labels, self.propagation), [first_mask]
        size, frame_size = (first_mask.shape[0], first_mask.shape[1]), (images.shape[-2], images.shape[-1])
        for frame in features:
            masks.append(labels_to_mask(video.step(frame), size, frame_size, self.propagation.upsampling))
        return torch.stack(masks)

    def on_test_start(self) -> None:
        """Find the log folder."""
        folder = self.trainer.log_dir or self.trainer.default_root_dir  # a collective: on every process
        self._folder = None if getattr(self.trainer, "fast_dev_run", False) else Path(folder)
        self._rows, self._extremes = [], {}

    def _evaluate(self, batch: MaskedVideo | None, testing: bool = False) -> None:
        for video in [] if batch is None else _videos(batch):
            target, num_objects = video.masks, int(video.num_objects)  # type: ignore[arg-type]
            masks = self.track(video.images, target[0], num_objects)
            scores = object_scores(masks[1:-1], target[1:-1], num_objects)
            copied = object_scores(target[:1].expand_as(target)[1:-1], target[1:-1], num_objects)
            self._update(scores, copied)
            if testing:
                self._keep(video, masks, scores)

    def _update(self, scores: ObjectScores, copied: ObjectScores) -> None:
        metrics: Any = self.head_metrics[0]
        metrics["j_and_f"].update((scores.region + scores.boundary) / 2)
        metrics["j_and_f_first_mask"].update((copied.region + copied.boundary) / 2)
        for measure, values in (("j", scores.region), ("f", scores.boundary)):
            for name in ("mean", "recall", "decay"):
                metrics[f"{measure}_{name}"].update(values)

    def _keep(self, video: MaskedVideo, masks: UInt8[Tensor, "T h w"], scores: ObjectScores) -> None:
        """What a test leaves of a video: masks, a line per object, a plot of the worst and of the best."""
        name = str(video.name)
        self._tracked = name, masks
        self._rows += _rows(name, scores)
        score = float((scores.region + scores.boundary).mean() / 2)
        for title, better in (("lowest", -1), ("highest", 1)):
            if title not in self._extremes or better * score > better * self._extremes[title][0]:
                self._extremes[title] = score, name, draw_masks(video, masks)
        if self._folder is not None and self.save_masks:
            folder = self._folder / "masks" / name
            folder.mkdir(parents=True, exist_ok=True)
            for frame, mask in zip(video.frame_names, masks.cpu(), strict=True):
                write_mask(folder / f"{frame}.png", mask)

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and write those of every object."""
        super().on_test_epoch_end()
        rows = [row for part in distributed.gather_objects(self._rows) for row in part]
        if self._folder is not None and self.trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "per-sequence_results.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, _COLUMNS)
                writer.writeheader()
                writer.writerows(sorted(rows, key=lambda row: row["Sequence"]))

    def draw(self, batch: MaskedVideo) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """Frames of the first video over time, with the true and the predicted masks."""
        video = _videos(batch)[0]
        name = str(video.name)
        if self._tracked is None or self._tracked[0] != name:
            self._tracked = name, self.track(video.images, video.masks[0], int(video.num_objects))  # type: ignore[arg-type]
        return {f"{name}: frames, true masks, predicted masks": draw_masks(video, self._tracked[1])}

    def draw_results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """The videos with the lowest and the highest J&F, of those that this process tracked."""
        return {
            f"{title} J&F: {name}, {score:.3f}": plot for title, (score, name, plot) in sorted(self._extremes.items())
        }


def _videos(batch: MaskedVideo) -> list[MaskedVideo]:
    """The samples of a batch."""
    columns = (batch.images, batch.masks, batch.num_objects, batch.name, batch.frame_names)
    names = ("images", "masks", "num_objects", "name", "frame_names")
    return [MaskedVideo(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]  # type: ignore[arg-type]


def _rows(name: str, scores: ObjectScores) -> list[dict[str, str]]:
    columns = [column.tolist() for values in scores for column in score_statistics(values)]
    return [
        dict(zip(_COLUMNS, (f"{name}_{k}", *(f"{value:.6f}" for value in values)), strict=True))
        for k, values in enumerate(zip(*columns, strict=True), start=1)
    ]


def draw_masks(
    video: MaskedVideo, masks: UInt8[Tensor, "T h w"], *, num_frames: int = 6, width: int = 160
) -> UInt8[Tensor, "3 H W"]:
    """Rows of frames, true masks and predicted masks over time, the first and the last frame included.

    Args:
        video: With the true masks.
        masks: Predicted ones.
        num_frames: Frames shown, evenly spread.
        width: Of a tile in pixels.
    """
    T, H, W = masks.shape
    size = (max(1, round(width * H / W)), width)
    shown = torch.linspace(0, T - 1, min(num_frames, T)).round().long().tolist()
    images = F.interpolate(video.images[shown].float().cpu(), size, mode="area").round().to(torch.uint8)
    rows = [*images]
    for ids in (video.masks, masks):
        small = F.interpolate(ids[shown][:, None].cpu(), size, mode="nearest-exact")[:, 0]
        rows += [_overlay(image, mask, int(video.num_objects)) for image, mask in zip(images, small, strict=True)]  # type: ignore[arg-type]
    return make_grid(torch.stack(rows), nrow=len(shown), padding=2, pad_value=255)


def _overlay(image: UInt8[Tensor, "3 H W"], mask: UInt8[Tensor, "H W"], num_objects: int) -> UInt8[Tensor, "3 H W"]:
    colours: Sequence[tuple[int, int, int]] = mask_palette(num_objects + 1)[1:]
    ids = torch.arange(1, num_objects + 1)[:, None, None]
    return draw_segmentation_masks(image, mask == ids, alpha=0.6, colors=list(colours))
