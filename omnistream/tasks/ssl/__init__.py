"""Self-supervision on images and clips: student and teachers, losses, masks and views."""

from omnistream.data.masking import ImageMaskConfig, VideoMaskConfig
from omnistream.data.views import CropConfig, MultiCropDataset
from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig
from omnistream.tasks.ssl.device_views import DistortionConfig
from omnistream.tasks.ssl.module import SSLModule

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
