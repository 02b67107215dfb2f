"""Images, one file per data set."""

from omnistream.data.images.image_folder import ImageFolder

__all__ = ["ImageFolder"]
