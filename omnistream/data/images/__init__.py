"""Images, one file per data set."""

from omnistream.data.images.ade20k import ADE20K, ADE20KDataModule
from omnistream.data.images.image_folder import ImageFolder
from omnistream.data.images.imagenet import ImageNet
from omnistream.data.images.imagenet_probing import ImageNetProbing

__all__ = ["ADE20K", "ADE20KDataModule", "ImageFolder", "ImageNet", "ImageNetProbing"]
