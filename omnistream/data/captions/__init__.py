"""Images and videos with text, one file per data set."""

from omnistream.data.captions.image_folder_captions import ImageFolderCaptions

__all__ = ["ImageFolderCaptions"]
