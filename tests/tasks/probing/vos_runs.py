"""Video object segmentation in two processes: `python vos_runs.py DAVIS FOLDER` tests and leaves the results there."""

import sys
from pathlib import Path

import lightning
from colour_backbone import Colours

from omnistream.data.videos import DAVISDataModule
from omnistream.evaluation import ResultsWriter
from omnistream.tasks.probing import VideoObjectSegmentation

if __name__ == "__main__":
    root, folder = map(Path, sys.argv[1:])
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[ResultsWriter()],
    )
    data = DAVISDataModule(root, short_side=40, multiple=8)
    trainer.test(VideoObjectSegmentation(Colours()), data, verbose=False)
