"""Run an exported streaming step in ONNX Runtime: `python run_onnx.py step.onnx`.

Make the file with: omnistream export CHECKPOINT step.onnx --format onnx --window 16 --size 256 256
Needs numpy and onnxruntime alone. The cache goes in and comes out: of a ring with fixed shapes, or of a growing one
(--cache growing), which starts empty and of which you may drop frames (axis 1) to forget them.
"""

import argparse
import json
import time

import numpy as np
import onnxruntime

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


def main() -> None:
    """Stream random frames through the step and print what comes out and how fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()

    session = onnxruntime.InferenceSession(arguments.file, providers=onnxruntime.get_available_providers())
    about = json.loads(session.get_modelmeta().custom_metadata_map["omnistream"])
    print(f"{about['variant']}, images: {about['images']}, cache {about['cache']}, window {about['window']}")

    # Zeros start a stream: frame index 0 and a blank cache; the axis without a fixed size is the number of past frames.
    state = {
        value.name: np.zeros([size if isinstance(size, int) else 0 for size in value.shape], TYPES[value.type])
        for value in session.get_inputs()
    }
    outputs = [value.name for value in session.get_outputs()]
    images_like = state.pop("images")
    generator = np.random.default_rng(0)
    for index in range(arguments.frames):
        # Here goes your camera: uint8 RGB [batch, 3, height, width], or normalised floats, as the file says.
        images = generator.integers(0, 256, images_like.shape, dtype=np.uint8)
        if images_like.dtype != np.uint8:
            mean, std = (np.array(about[key]).reshape(3, 1, 1) for key in ("mean", "std"))
            images = ((images / 255 - mean) / std).astype(images_like.dtype)
        start = time.perf_counter()
        results = dict(zip(outputs, session.run(None, {"images": images, **state}), strict=True))
        milliseconds = 1000 * (time.perf_counter() - start)
        state = {name: results.pop(f"next_{name}") for name in state}
        print(f"frame {index}: {milliseconds:.1f} ms, cls mean {results['cls'].mean():+.4f}")
    for name, value in results.items():
        print(f"{name}: {list(value.shape)} {value.dtype}")


if __name__ == "__main__":
    main()
