"""Run an exported streaming step with torch alone: `python run_pt2.py step.pt2`.

Make the file with: omnistream export CHECKPOINT step.pt2 --window 16 --size 256 256
Load only files that you or people you trust have made: a .pt2 can run code when it is loaded.
"""

import argparse
import json
import time

import torch


def main() -> None:
    """Stream random frames through the step and print what comes out and how fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()

    extra = {"omnistream.json": ""}
    step = torch.export.load(arguments.file, extra_files=extra).module()
    about = json.loads(extra["omnistream.json"])
    print(f"{about['variant']}, images: {about['images']}, window {about['window']}, sink {about['sink']}")

    batch, (height, width) = about["batch_size"], about["image_size"]
    device = next(step.buffers()).device
    for index in range(arguments.frames):
        # Here goes your camera: uint8 RGB [batch, 3, height, width], or normalised floats, as the file says.
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=device)
        if not about["images"].startswith("uint8"):
            mean, std = (torch.tensor(about[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
            images = ((images / 255 - mean) / std).to(getattr(torch, about["images_dtype"]))
        # True restarts a stream; the step remembers everything else itself.
        reset = torch.full((batch,), index == 0, device=device)
        start = time.perf_counter()
        features = step(images, reset)
        if device.type == "cuda":
            torch.cuda.synchronize()
        milliseconds = 1000 * (time.perf_counter() - start)
        print(f"frame {index}: {milliseconds:.1f} ms, cls mean {features['cls'].float().mean():+.4f}")
    for name, value in features.items():
        print(f"{name}: {list(value.shape)} {value.dtype}")


if __name__ == "__main__":
    main()
