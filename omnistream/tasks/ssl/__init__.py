"""Self-supervision on images and clips: student and teachers, losses, masks and views."""

from omnistream.tasks.ssl.masking import ImageMaskConfig, VideoMaskConfig
from omnistream.tasks.ssl.module import DistortionConfig, SSLHeadConfig, SSLLossConfig, SSLModule, TeacherConfig
from omnistream.tasks.ssl.views import CropConfig, MultiCropDataset

__all__ = [
    "CropConfig",
    "DistortionConfig",
    "ImageMaskConfig",
    "MultiCropDataset",
    "SSLHeadConfig",
    "SSLLossConfig",
    "SSLModule",
    "TeacherConfig",
    "VideoMaskConfig",
]
