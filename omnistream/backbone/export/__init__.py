"""The step as one graph: `.pt2` and ONNX."""
