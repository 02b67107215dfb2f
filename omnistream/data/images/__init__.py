"""Images, one file per data set."""

from omnistream.data.images.image_folder import ImageFolder
from omnistream.data.images.nyuv2 import NYUv2
from omnistream.data.images.nyuv2_data import NYUv2DataModule
from omnistream.data.images.nyuv2_labeled import NYUv2Labeled

__all__ = ["ImageFolder", "NYUv2", "NYUv2DataModule", "NYUv2Labeled"]
