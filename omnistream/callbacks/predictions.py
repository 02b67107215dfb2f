"""Writes what `omnistream predict` gives to files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from safetensors.torch import save_file

from omnistream import distributed
from omnistream.paths import apply_umask
from omnistream.tasks.prediction import ClipFeatures


class PredictionWriter(BasePredictionWriter):
    """One file per clip: `<folder>/<source>/<index>.safetensors` with `cls` [T, D] and `last` [T, h, w, D].

    The index is the clip's in its data set; the file's metadata tell the clip's name. Nothing is kept in memory.
    `omnistream predict` adds this callback where none of its kind is named.

    Args:
        folder: Where to write; `predictions` in the log folder by default.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__("batch")
        self.folder = None if folder is None else Path(folder)
        self._clips: Counter[str] = Counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and tell the trainer not to collect what goes to files."""
        log_dir = trainer.log_dir  # a collective: every process must ask
        if stage != "predict":
            return
        if self.folder is None:
            self.folder = Path(log_dir or trainer.default_root_dir) / "predictions"
        trainer.predict_loop.return_predictions = False

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: dict[str, list[ClipFeatures]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the clips of one batch."""
        assert self.folder is not None
        loaders: Any = trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        # As `EvaluationSampler` deals batches out: this is number batch_idx of this process.
        start = (batch_idx * distributed.world_size() + distributed.rank()) * loader.batch_sampler.batch_size
        for source, clips in prediction.items():
            (self.folder / source).mkdir(parents=True, exist_ok=True)
            self._clips[source] += len(clips)
            for index, clip in enumerate(clips, start):
                tensors = {"cls": clip.cls.contiguous(), "last": clip.last.contiguous()}
                path = self.folder / source / f"{index:06d}.safetensors"
                save_file(tensors, path, metadata={"name": clip.name})
                apply_umask(path)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the files are.

        Raises:
            ValueError: If there are none.
        """
        if not self._clips:
            raise ValueError(
                "nothing was predicted: the validation sets hold no whole clips (self-supervision has crops)"
            )
        rank_zero_info(f"Features of {sum(self._clips.values())} clips: {self.folder}")
