"""A small probe, its data, and a trainer for tests."""

import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import nn
from torch.utils.data import Dataset

from omnistream.backbone import create_model
from omnistream.data.batch import FrameClip
from omnistream.evaluation import FrozenProbe
from omnistream.metrics import TopKAccuracy


class Colours(Dataset):
    """Images in red, green or blue, in turn, with noise: what an image shows is its class."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, num_samples, offset=0):
        self.num_samples, self.offset = num_samples, offset

    def __len__(self):
        return self.num_samples

    def __getitem__(self, index):
        if index >= self.num_samples:
            raise IndexError
        images = torch.randint(60, (1, 3, 16, 16), generator=torch.Generator().manual_seed(self.offset + index)).byte()
        images[:, index % 3] += 120
        return FrameClip(images=images, label=torch.tensor(index % 3), name=str(index), seed=torch.tensor(index))


class ColourProbe(FrozenProbe):
    """One linear layer on the class token."""

    def __init__(self, backbone, lrs=(1e-2,), **options):
        super().__init__(backbone, protocol="toy/colours", **options)
        self.lrs = lrs

    def settings(self):
        return [{"lr": lr} for lr in self.lrs]

    def features(self, batch):
        return self.backbone(self.backbone.normalize(batch.images)).cls.mean(1)

    def targets(self, batch):
        return batch.label

    def make_head(self, setting):
        return nn.Linear(self.backbone.embed_dim, 3)

    def loss(self, prediction, target):
        return F.cross_entropy(prediction, target)

    def metrics(self):
        return {"accuracy": TopKAccuracy()}


def backbone(seed=0):
    torch.manual_seed(seed)
    return create_model("vit_nano", layer_scale_init=0.5)


def trainer(folder, *callbacks, max_epochs=3, **options):
    settings = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0} | options
    return Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
