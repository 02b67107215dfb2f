"""Data of the action recognition probes: training clips with augmentation, test clips from several views."""

import os
from typing import Any, ClassVar, Literal

from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.evaluation_samples import with_transform
from omnistream.data.videos.clip_transforms import ClipAugmentation, SpatialViews
from omnistream.data.videos.kinetics import Kinetics
from omnistream.data.videos.labelled_videos import LabelledVideos
from omnistream.data.videos.something_something import SomethingSomething


class ActionData(EvaluationDataModule):
    """Clips of a data set in its official splits, as V-JEPA 2 samples them; see `LabelledVideos` for one clip.

    Training clips go through `ClipAugmentation`, the others through `SpatialViews`. Validation and test read the same
    split: the published numbers are of the validation split, which also chooses among the settings. With `holdout`,
    validation is on training clips that are not trained on, seen as in the test. Data sets are opened when a run needs
    them.

    Args:
        root: Folder of the data set.
        num_frames: Frames of a segment.
        stride: Nominal distance between them.
        num_segments: Segments of a clip, in training, too.
        size: Side of the squares that the model sees.
        num_views: Squares of a clip in evaluation.
        augment: Augment training clips; otherwise training sees the single central view.
        eval_split: Split of validation and test.
        short_side: Resize the shorter side to this length while decoding; null for the published transforms of frames
            in full size.
        holdout: Share of the training clips for validation.
        options: Arguments of `EvaluationDataModule`.
    """

    reader: ClassVar[type[LabelledVideos]]

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        num_frames: int = 16,
        stride: int = 4,
        num_segments: int = 1,
        size: int = 256,
        num_views: int = 3,
        augment: bool = True,
        eval_split: Literal["val", "test"] = "val",
        short_side: int | None = None,
        holdout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.eval_split, self.augment, self.holdout = root, eval_split, augment, holdout
        self.size, self.num_views = size, num_views
        self.clips: dict[str, Any] = {
            "num_frames": num_frames,
            "stride": stride,
            "num_segments": num_segments,
            "short_side": short_side,
            "seed": self.seed,
        }
        self.augmentation = ClipAugmentation(size) if augment else SpatialViews(size, 1)
        self.views = SpatialViews(size, num_views)

    def setup(self, stage: str) -> None:
        """Open the splits of a stage.

        Raises:
            DatasetNotFoundError: If one is not found.
            ValueError: If the classes are not those of the model, videos to evaluate have no label, or `holdout` leaves
                nothing.
        """
        if self.train is None and (stage == "fit" or (stage == "validate" and self.holdout)):
            self.train = train = self._open("train", self.augmentation)
            if self.holdout:
                plain = with_transform(train, self.views)
                plain.random_windows = False
                self.train, self.val = self._hold_out(train, plain, self.holdout)
        if self.test is None:
            self.test = self._open(self.eval_split, self.views)
        if self.val is None and not self.holdout:
            self.val = self.test

    def _open(self, split: Any, transform: Any) -> LabelledVideos:
        dataset = self.reader(self.root, split, transform, **self.clips)
        if unlabelled := int((dataset.labels < 0).sum()):
            raise ValueError(
                f"{unlabelled} of {len(dataset)} videos of the {split} split have no label to compare with; "
                "evaluate on the validation split (data.eval_split val)"
            )
        expected = getattr(getattr(self.trainer, "lightning_module", None), "num_classes", None)
        if expected is not None and not dataset.fits(expected):
            raise ValueError(
                f"model.num_classes is {expected}, but {dataset.root} has {dataset.num_classes} classes; "
                "set it to that, or check data.root"
            )
        return dataset


class KineticsData(ActionData):
    """Kinetics for the probes; see `ActionData`."""

    reader = Kinetics


class SomethingSomethingData(ActionData):
    """Something-Something V2 for the probes; see `ActionData`."""

    reader = SomethingSomething
