"""Images, one file per data set."""

from omnistream.data.images.image_folder import ImageFolder
from omnistream.data.images.imagenet import ImageNet
from omnistream.data.images.imagenet_probing import ImageNetProbing

__all__ = ["ImageFolder", "ImageNet", "ImageNetProbing"]
