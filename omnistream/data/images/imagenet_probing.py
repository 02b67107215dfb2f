"""ImageNet-1K for probes of frozen features: the published transforms, and training by steps."""

import os

from torch.utils.data import DataLoader

from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.classification_transforms import center_crop, random_resized_crop
from omnistream.data.evaluation_samples import with_transform
from omnistream.data.images.imagenet import ImageNet


class ImageNetProbing(EvaluationDataModule):
    """Training and validation images of `ImageNet`; the latter are also the test set, as ImageNet's own has no labels.

    Training images are needed for training and for nearest neighbours only.

    Args:
        root: The data set, in any tree that `ImageNet` reads.
        image_size: Side of the images in pixels, a multiple of the patch size.
        augment: Random crops and flips in training; False for cached features.
        holdout: Share of the training images that chooses among the settings in place of the official validation set.
        batch_size: Images per process and training step; the learning rates of the probe are scaled with the product
            over all processes, published: 1024.
        eval_batch_size: Images per validation or test batch; by default `batch_size`.
        num_workers: Worker processes per loader.
        seed: Of the order, the crops and what is held out.
        endless: Training without epochs; see `EvaluationDataModule`.

    Source: facebookresearch/dinov3 dinov3/eval/linear.py, dinov3/data/transforms.py.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        image_size: int = 224,
        augment: bool = True,
        holdout: float = 0.0,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        num_workers: int = 8,
        seed: int = 0,
        endless: bool = True,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            endless=endless,
        )
        self.root, self.image_size, self.augment, self.holdout = root, image_size, augment, holdout

    def setup(self, stage: str) -> None:
        """Find the images that a stage needs.

        Raises:
            DatasetNotFoundError: If they are not there.
            ValueError: If train and val differ in their classes, or `holdout` leaves nothing.
        """
        plain = center_crop(self.image_size)
        if self.test is None:
            self.test = self.val = ImageNet(self.root, "val", plain, seed=self.seed)
        if stage != "fit" or self.train is not None:
            return
        transform = random_resized_crop(self.image_size) if self.augment else plain
        train = ImageNet(self.root, "train", transform, seed=self.seed)
        self.train = train
        if self.holdout:
            self.train, self.val = self._hold_out(train, with_transform(train, plain), self.holdout)

    def reference_dataloader(self) -> DataLoader:
        """Training images with the transform of evaluation, each once and in order."""
        return self.in_order(ImageNet(self.root, "train", center_crop(self.image_size), seed=self.seed))
