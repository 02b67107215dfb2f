"""The streaming step as one graph: `.pt2` and ONNX."""

from omnistream.backbone.export.files import check_onnx_installed, export_onnx, export_step
from omnistream.backbone.export.onnx_step import GrowingOnnxStep, RingOnnxStep

__all__ = ["GrowingOnnxStep", "RingOnnxStep", "check_onnx_installed", "export_onnx", "export_step"]
