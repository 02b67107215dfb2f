"""The multi-task training step: frame-causal attention by prefixes against the same step with a dense mask.

One step is what `MultiTaskModule` does: every task's micro-batches one after the other, forward and weighted backward,
then clipping and Adam. Weights and batches are the same; only the attention differs. Each kind runs in processes of its
own, alternating, best of the repeats; time is that of the process over all threads on a CPU, memory the peak it adds.

    python benchmarks/multitask.py                                          # the quickstart's sizes
    python benchmarks/multitask.py --variant vit_small --size 224 --frames 16 --batch 1
    python benchmarks/multitask.py --device cuda --dtype bfloat16 --variant vit_large --size 224 --frames 16 --batch 1

No result is recorded yet: not run to the end.
"""

import argparse
import json
import platform
import subprocess
import sys
import time

import torch
from attention import DenseContext, peak_bytes

import omnistream.backbone.model as model_module
from omnistream.backbone import create_model, get_variant
from omnistream.data.world import WorldCaptions, WorldFrames, WorldScenes
from omnistream.parallel import gradient_norm, scale_gradients
from omnistream.tasks import MultiTaskModule
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.ssl import SSLModule
from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig
from omnistream.tasks.ssl.views import CropConfig, MultiCropDataset


def make_module(args):
    """All objectives; heads of the quickstart's size, so that the backbone decides."""
    tasks = {
        "ssl": SSLModule(
            heads=SSLHeadConfig(num_prototypes=1024, hidden_dim=256, bottleneck_dim=64),
            losses=SSLLossConfig(gram=0.0),
            teacher=TeacherConfig(momentum=(0.99, 0.99)),
            head_warmup_steps=0,
        ),
        "geometry": GeometryModule(features=32, out_channels=(24, 32, 48, 48), hidden=16, ray_down_ratio=2),
        "captioning": CaptioningModule(),
    }
    return MultiTaskModule(create_model(args.variant, layer_scale_init=1.0, rope_rescale=None), tasks).to(args.device)


def make_batch(args):
    """One batch per task, `args.batch` clips of `args.frames` frames and as many images."""
    patch = get_variant(args.variant).patch_size
    crops = CropConfig(global_size=args.size, local_size=args.size // 2 // patch * patch, patch_size=patch)

    def collate(dataset):
        return dataset.collate([dataset[i] for i in range(args.batch)]).to(args.device)

    def views(frames):
        side = args.size * 5 // 4
        return collate(MultiCropDataset(WorldFrames(8, num_frames=frames, size=(side, side)), crops))

    size = (args.size, args.size)
    return {
        "ssl": {"image": views(1), "video": views(args.frames)},
        "geometry": collate(WorldScenes(8, num_frames=args.frames, size=size)),
        "captioning": collate(WorldCaptions(8, size=size)),
    }


def step(module, batch, optimizer):
    """One optimiser step; returns the weighted loss."""
    total = 0.0
    for name, task in module.objectives.items():
        for part in task.micro_batches(batch[name]).values():
            loss = module.weights[name] * task.compute(module.backbone, part, step=0).total
            loss.backward()
            total += loss.item()
    scale_gradients(module.parameters(), (1 / gradient_norm(module.parameters())).clamp(max=1.0))
    optimizer.step()
    optimizer.zero_grad()
    return total


def measure(args):
    """Seconds and added peak bytes of the fastest step, and the loss of the first, which both kinds must share."""
    if args.kind == "dense":
        model_module.ClipContext = DenseContext
    torch.manual_seed(0)
    module, batch = make_module(args), make_batch(args)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
    before = peak_bytes(args.device)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    seconds, losses = [], []
    for _ in range(args.steps + 1):
        start = clock()
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            losses.append(step(module, batch, optimizer))
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return {"seconds": min(seconds[1:]), "bytes": peak_bytes(args.device) - before, "loss": losses[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_tiny")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed steps per process, after one to warm up")
    parser.add_argument("--repeats", type=int, default=2, help="processes per kind")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--kind", choices=["prefix", "dense"], help="measure one kind in this process and print it")
    args = parser.parse_args()
    if args.kind:
        print(json.dumps(measure(args)))
        return
    results = {"prefix": [], "dense": []}
    for _ in range(args.repeats):
        for kind, runs in results.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    losses = [run["loss"] for runs in results.values() for run in runs]
    if max(losses) - min(losses) > (1e-3 if args.dtype == "float32" else 5e-2) * abs(losses[0]):
        raise SystemExit(f"the two kinds disagree: losses {losses}")
    best = {kind: {k: min(run[k] for run in runs) for k in ("seconds", "bytes")} for kind, runs in results.items()}
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()} CPU"
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.dtype}")
    print(f"{args.variant}, {args.size} px, T={args.frames}, batch {args.batch} per source")
    for kind, numbers in best.items():
        print(f"{kind:>7}: {numbers['seconds']:.3f} s, {numbers['bytes'] / 2**20:.0f} MiB added at the peak")
    time_ratio = best["dense"]["seconds"] / best["prefix"]["seconds"]
    memory_ratio = best["dense"]["bytes"] / best["prefix"]["bytes"]
    print(f"dense / prefix: time {time_ratio:.2f}, memory {memory_ratio:.2f}")


if __name__ == "__main__":
    main()
