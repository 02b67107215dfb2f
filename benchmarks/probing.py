"""What a frozen probe costs over its backbone: `python benchmarks/probing.py [--write]`.

- Images per second of `omnistream test` of a finished linear probe (13 heads on the class token and the mean patch
  token), from its start to its results, over those of the bare backbone on the same images: at least 90 %.
- Seconds of an epoch of training that computes the features, over one that reads them from a folder: at least 20.

Both sides take turns in one process, and the best of the repeats counts. `--write` records the results in
`benchmarks/results/probing.md`. The default takes two minutes on two cores.
"""

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path

import lightning
import torch
import yaml
from common import header, markdown_table, synchronize, write
from lightning import Callback
from torch.utils.data import Dataset

from omnistream.backbone import create_model
from omnistream.cli import main as omnistream
from omnistream.data.batch import FrameClip

TEST_SHARE, EPOCH_RATIO = 0.9, 20.0
"""Bounds: share of the bare forward's throughput, and recomputed over cached epoch."""


class RandomImages(Dataset):
    """Noise in memory, so that reading costs nothing."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, num_samples: int, size: int, num_classes: int = 1000, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(256, (num_samples, 1, 3, size, size), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(num_classes, (num_samples,), generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return FrameClip(images=self.images[index], label=self.labels[index], name="", seed=torch.tensor(index))


class EpochSeconds(Callback):
    """Writes the seconds of every epoch of training to a JSON file."""

    def __init__(self, path: str) -> None:
        self.path, self.seconds, self.start = Path(path), [], 0.0

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        synchronize(pl_module.device.type)
        self.seconds.append(time.perf_counter() - self.start)
        self.path.write_text(json.dumps(self.seconds))


def config(args, folder):
    """Settings of the runs, whose model is saved in the folder."""
    images = {"num_samples": args.images, "size": args.size}
    return {
        "seed_everything": 0,
        "model": {
            "class_path": "omnistream.tasks.probing.LinearClassification",
            "init_args": {
                "backbone": {
                    "class_path": "omnistream.create_model",
                    "init_args": {"variant": args.variant, "checkpoint": str(folder / "backbone")},
                }
            },
        },
        "data": {
            "class_path": "omnistream.data.EvaluationDataModule",
            "init_args": {
                "train": {"class_path": "probing.RandomImages", "init_args": images | {"seed": 1}},
                "test": {"class_path": "probing.RandomImages", "init_args": images},
                "batch_size": args.batch,
            },
        },
        "trainer": {
            "accelerator": "gpu" if args.device == "cuda" else "cpu",
            "devices": 1,
            "default_root_dir": str(folder),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "dirpath": str(folder / "heads"),
                        "filename": "probe",
                        "enable_version_counter": False,
                    },
                },
                {
                    "class_path": "omnistream.callbacks.ResultsWriter",
                    "init_args": {"path": str(folder / "results.json")},
                },
                {"class_path": "probing.EpochSeconds", "init_args": {"path": str(folder / "epochs.json")}},
            ],
        },
    }


def epochs(settings, folder, count, cache):
    """Seconds of the fastest of some epochs; `cache` as for a probe."""
    options = ["--model.cache", str(cache).lower() if isinstance(cache, bool) else str(cache)]
    omnistream(["fit", "-c", str(settings), "--trainer.max_epochs", str(count), *options])
    return min(json.loads((folder / "epochs.json").read_text()))


def tested(settings, folder):
    """Seconds of a test of the finished probe, from its start to its results."""
    omnistream(["test", "-c", str(settings), "--ckpt_path", str(folder / "heads" / "probe.ckpt")])
    return json.loads((folder / "results.json").read_text())["wall_time_seconds"]


@torch.no_grad()
def forwarded(backbone, images, args):
    """Seconds of the backbone alone on the images."""
    synchronize(args.device)
    start = time.perf_counter()
    for batch in images.split(args.batch):
        backbone(backbone.normalize(batch.to(args.device)))
    synchronize(args.device)
    return time.perf_counter() - start


def measure(args, folder):
    """Seconds of each kind, best of its repeats."""
    torch.manual_seed(0)
    backbone = create_model(args.variant, layer_scale_init=1.0).eval().to(args.device)
    backbone.save_pretrained(folder / "backbone")
    settings = folder / "probe.yaml"
    settings.write_text(yaml.safe_dump(config(args, folder)))
    images = RandomImages(args.images, args.size).images
    seconds = {
        "recomputed": epochs(settings, folder, args.repeats, False),
        "cached": epochs(settings, folder, args.repeats + 3, folder / "features"),
    }
    forwarded(backbone, images[: args.batch], args)  # to warm up
    pairs = [(tested(settings, folder), forwarded(backbone, images, args)) for _ in range(args.repeats)]
    seconds["test"], seconds["forward"] = (min(column) for column in zip(*pairs, strict=True))
    return seconds


def table(seconds, num_images):
    """Lines of the result."""
    share, ratio = seconds["forward"] / seconds["test"], seconds["recomputed"] / seconds["cached"]
    rows = [
        ["bare backbone", f"{num_images / seconds['forward']:.2f} images/s", "", "", ""],
        ["`omnistream test`", f"{num_images / seconds['test']:.2f} images/s", f"{100 * share:.1f} % of the backbone",
         f"at least {100 * TEST_SHARE:.0f} %", verdict(share, TEST_SHARE)],
        ["epoch, features computed", f"{seconds['recomputed']:.3f} s", "", "", ""],
        ["epoch, features from a folder", f"{seconds['cached']:.3f} s", f"{ratio:.1f} times faster",
         f"at least {EPOCH_RATIO:.0f}", verdict(ratio, EPOCH_RATIO)],
    ]  # fmt: skip
    return markdown_table(["what", "speed", "ratio", "bound", "result"], rows)


def verdict(value, bound):
    """Whether a lower bound is met, in words."""
    return "met" if value >= bound else "missed"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_small")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2, help="tests, and epochs of each kind")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--write", action="store_true", help="record the results")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        seconds = measure(args, Path(folder))
    lines = header("Frozen probes: cost over the backbone", args.device, modules=(lightning,))
    lines += [f"{args.variant}, {args.size} px, {args.images} images, batch {args.batch}, float32", ""]
    lines += table(seconds, args.images)
    write(lines, Path(__file__).parent / "results" / "probing.md" if args.write else None)


if __name__ == "__main__":
    main()
