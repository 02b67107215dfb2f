"""Self-supervision on images and clips: student and teachers, losses, masks and views."""

from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig
from omnistream.tasks.ssl.device_views import DistortionConfig
from omnistream.tasks.ssl.masking import ImageMaskConfig, VideoMaskConfig
from omnistream.tasks.ssl.module import SSLModule
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
