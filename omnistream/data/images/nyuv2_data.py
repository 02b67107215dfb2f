"""Data of the depth probe on NYUv2."""

import os
from typing import Any, Literal

from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.depth_transforms import nyuv2_augmentation
from omnistream.data.evaluation_samples import with_transform
from omnistream.data.images.nyuv2 import NYUImages, NYUSplit, NYUv2
from omnistream.data.images.nyuv2_labeled import NYUv2Labeled


class NYUv2DataModule(EvaluationDataModule):
    """NYUv2 with the published augmentation for training, and whole images for validation and test.

    Training has no epochs: it runs for `trainer.max_steps`, all batches have the same size, and it resumes exactly.
    Validation is on the test images, as published: it shows how the training goes and nothing may be chosen on it. With
    `holdout`, it is on training images that are not trained on.

    Args:
        root: The folder of the data set; see `NYUv2` and `NYUv2Labeled`.
        layout: `split` for the folder with nyu_train.txt and nyu_test.txt; `labeled` for nyu_depth_v2_labeled.mat,
            whose 795 training images are far fewer than the 24,231 of published figures; results name it.
        crop_size: Height and width of training crops.
        depth_scale: Metres per stored unit of the split folder; see `NYUv2`.
        holdout: Share of the training images for validation.
        batch_size: Images per process and training step.
        eval_batch_size: Images per batch of validation and test.
        num_workers: Worker processes per loader.
        seed: Of order, augmentation and what is held out.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        layout: Literal["split", "labeled"] = "split",
        crop_size: tuple[int, int] = (416, 544),
        depth_scale: float | None = None,
        holdout: float = 0.0,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed, endless=True
        )
        if layout not in ("split", "labeled") or not 0 <= holdout < 1:
            raise ValueError(f"layout must be split or labeled and holdout in [0, 1), got {layout!r} and {holdout}")
        if layout == "labeled" and depth_scale is not None:
            raise ValueError("depth_scale is of the split folder; nyu_depth_v2_labeled.mat is in metres")
        self.root, self.layout, self.depth_scale = root, layout, depth_scale
        self.crop_size, self.holdout = crop_size, holdout

    @property
    def variant(self) -> str | None:
        """`labeled` for that layout, which trains on other images than published figures."""
        return "labeled" if self.layout == "labeled" else None

    def setup(self, stage: str) -> None:
        """Find the data that a stage needs.

        Raises:
            ValueError: If a setting would be chosen on the test images, or `holdout` leaves nothing.
        """
        if stage in ("fit", "validate") and self.holdout:
            train = self._images("train", nyuv2_augmentation(self.crop_size))
            self.train, self.val = self._hold_out(train, with_transform(train, None), self.holdout)
        elif stage == "fit":
            self.train = self._images("train", nyuv2_augmentation(self.crop_size))
        if stage in ("fit", "validate") and not self.holdout:
            self._check_choice()
            self.val = self._images("test")
        if stage == "test":
            self.test = self._images("test")

    def _images(self, split: NYUSplit, transform: Any = None) -> NYUImages:
        if self.layout == "labeled":
            return NYUv2Labeled(self.root, split, transform, seed=self.seed)
        return NYUv2(self.root, split, transform, depth_scale=self.depth_scale, seed=self.seed)

    def _check_choice(self) -> None:
        module = self._module
        if getattr(module, "selection", "") == "val" and len(module.settings()) > 1:
            raise ValueError(
                "several settings would be chosen among on the test images: set data.holdout, for example to 0.05, or "
                "model.selection to test, which says so in results.json"
            )
