"""Images, one file per data set."""

from omnistream.data.images.ade20k import ADE20K, ADE20KDataModule
from omnistream.data.images.image_folder import ImageFolder
from omnistream.data.images.imagenet import ImageNet
from omnistream.data.images.imagenet_probing import ImageNetProbing
from omnistream.data.images.nyuv2 import NYUv2
from omnistream.data.images.nyuv2_data import NYUv2DataModule
from omnistream.data.images.nyuv2_labeled import NYUv2Labeled

__all__ = [
    "ADE20K",
    "ADE20KDataModule",
    "ImageFolder",
    "ImageNet",
    "ImageNetProbing",
    "NYUv2",
    "NYUv2DataModule",
    "NYUv2Labeled",
]
