"""Image classification by nearest neighbours among the training images: a test without training."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from omnistream import distributed
from omnistream.data.batch import FrameClip
from omnistream.evaluation.frozen import Setting
from omnistream.metrics import knn_votes, nearest_neighbors
from omnistream.tasks.probing.classification import ImageClassification, image_features


class KNNClassification(ImageClassification):
    """Weighted votes of the training images whose class tokens are most similar; see `knn_votes`.

    Every number of neighbours is a setting, and the best one on the test set is reported, with those of the others
    beside it. There is nothing to fit: `omnistream test` and `validate` compute the features of all training images
    first. Every process keeps all of them, which for ImageNet-1K and ViT-L takes 5.2 GB.

    Args:
        backbone: The model to evaluate.
        num_classes: Classes.
        ks: Numbers of neighbours; one above the number of training images counts as that.
        temperature: Divides the cosine similarities.
        protocol: Stable name of the evaluation.

    Raises:
        ValueError: If a number is not positive.

    Source: facebookresearch/dinov3 dinov3/eval/knn.py (ks, temperature, weights).
    """

    needs_training = False

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 1000,
        *,
        ks: tuple[int, ...] = (10, 20, 100, 200),
        temperature: float = 0.07,
        protocol: str = "knn",
    ) -> None:
        super().__init__(backbone, num_classes, protocol=protocol, selection="test")
        if not ks or min(ks) < 1 or temperature <= 0:
            raise ValueError(f"ks and temperature must be positive, got {ks} and {temperature}")
        self.ks, self.temperature = ks, temperature
        self.bank: Tensor | None = None
        """Normalised features of the training images, [N, D]; none of a checkpoint's business."""
        self.bank_target: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Check what only a trainer knows.

        Raises:
            ValueError: If it is to be trained, or the data has other classes.
        """
        if stage == "fit":
            raise ValueError("nearest neighbours are not trained: run omnistream test (or validate) without fit")
        super().setup(stage)

    def features(self, batch: FrameClip) -> Float[Tensor, "B D"]:
        """The class token of the image."""
        return image_features(self.backbone, batch.images, mean_patch=False)

    def feature_options(self) -> dict[str, Any]:
        """What the features are."""
        return {"features": "cls of the last block"}

    def settings(self) -> list[Setting]:
        """Numbers of neighbours."""
        return [{"k": k} for k in self.ks]

    def make_head(self, setting: Setting) -> nn.Module:
        """Picks the votes of one number of neighbours."""
        return _VotesOf(self.ks.index(int(setting["k"])))

    def on_validation_start(self) -> None:
        """Compute the features of the training images."""
        self.remember()

    def on_test_start(self) -> None:
        """Compute the features of the training images."""
        super().on_test_start()
        self.remember()

    def remember(self) -> None:
        """Take over the features of the training images of all processes, in the order of the data set.

        Raises:
            ValueError: If the data comes from no data module with training data, or there are no training images.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "reference_dataloader"):
            raise ValueError("nearest neighbours are training images: test with an EvaluationDataModule that has them")
        features, targets = [torch.zeros(0, int(self.backbone.embed_dim))], [torch.zeros(0, dtype=torch.int64)]  # type: ignore[arg-type]
        quiet = distributed.rank() > 0 or self.trainer.progress_bar_callback is None
        for batch in tqdm(data.reference_dataloader(), desc="training images", disable=quiet, leave=False):
            if batch is None:
                features.append(features[0])
                targets.append(targets[0])
                continue
            found = self.extract_outside_steps(batch)
            features.append(F.normalize(found.features, dim=-1).cpu())
            targets.append(found.target.cpu())
        self.bank = distributed.gather_batches([part.to(self.device) for part in features])
        self.bank_target = distributed.gather_batches([part.to(self.device) for part in targets])
        if not len(self.bank):
            raise ValueError("there are no training images to look for neighbours among")

    def _inputs(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B S C"]:
        """The votes for every number of neighbours, from one search."""
        if self.bank is None or self.bank_target is None:
            raise RuntimeError("the features of the training images are not there yet; call remember")
        found = nearest_neighbors(features, self.bank, max(self.ks))
        return knn_votes(
            found.similarity, self.bank_target[found.position], self.num_classes, self.ks, self.temperature
        )

    def options(self) -> dict[str, Any]:
        """Arguments that decide features, classes and votes."""
        count = 0 if self.bank is None else len(self.bank)
        return super().options() | {"temperature": self.temperature, "training_images": count}


class _VotesOf(nn.Module):
    """The votes of one number of neighbours."""

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position

    def forward(self, votes: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        return votes[:, self.position]
