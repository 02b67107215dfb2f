"""Training in two processes where samples of the second one's share are broken.

    python broken_share_runs.py FOLDER

leaves in the folder, for each data set and cache, samples per step or the error: `seen_RANK.json`. Last comes a batch
of images without any sample in one process, which ends the program.
"""

import json
import sys
from pathlib import Path

from probes import ColourProbe, Colours, backbone, trainer

from omnistream.data import EvaluationDataModule, FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.media.errors import ImageReadError

COUNT = 12
ODD = range(1, COUNT, 2)


class BrokenColours(FileDataset):
    """Every second file is broken."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self):
        super().__init__(0, BrokenFiles(0.6))

    def __len__(self):
        return COUNT

    def _read(self, key):
        if key.index in ODD:
            raise ImageReadError(f"{key.index}.jpg", "damaged")
        return Colours(COUNT)[key.index]


class NoneForBroken(Colours):
    """None in place of some samples of the second share."""

    def __init__(self, broken):
        super().__init__(COUNT)
        self.broken = broken

    def __getitem__(self, index):
        return None if index in self.broken else super().__getitem__(index)

    @staticmethod
    def collate(samples):
        read = [sample for sample in samples if sample is not None]
        return FrameClip.collate(read) if read else None


class Recorder(ColourProbe):
    """Keeps the numbers of samples per step."""

    def training_step(self, batch, batch_idx):
        self.seen.append(len(self.extract(batch).target))
        return super().training_step(batch, batch_idx)


DATASETS = {"replaced": BrokenColours, "some": lambda: NoneForBroken((1, 3, 5)), "none": lambda: NoneForBroken(ODD)}
CACHES = {"images": False, "memory": True, "folder": "features"}
CASES = [("replaced", "images"), *((kind, cache) for kind in DATASETS for cache in ("memory", "folder"))]


def fit(folder: Path, kind: str, cache: str) -> "tuple[int, list[int] | str]":
    """Train for two epochs; returns the rank and what happened."""
    found = CACHES[cache]
    probe = Recorder(backbone(), cache=folder / kind if found == "features" else found)
    probe.seen = []
    run = trainer(folder, devices=2, strategy="ddp", max_epochs=2, limit_val_batches=0)
    try:
        run.fit(probe, EvaluationDataModule(DATASETS[kind](), batch_size=2))
    except ValueError as error:
        return run.global_rank, str(error)
    return run.global_rank, probe.seen


if __name__ == "__main__":
    place, happened = Path(sys.argv[1]), {}
    for case in CASES:
        rank, happened["-".join(case)] = fit(place, *case)
    (place / f"seen_{rank}.json").write_text(json.dumps(happened))
    try:
        rank, error = fit(place, "none", "images")
    except RuntimeError:  # of the process group
        error = "the other process has ended"
    sys.exit(f"at the end: {error}")
