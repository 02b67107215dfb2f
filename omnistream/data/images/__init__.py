"""Images, one file per data set."""

from omnistream.data.images.ade20k import ADE20K, ADE20KDataModule
from omnistream.data.images.image_folder import ImageFolder

__all__ = ["ADE20K", "ADE20KDataModule", "ImageFolder"]
