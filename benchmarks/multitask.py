"""The multi-task training step: frame-causal attention by prefixes against the same step with a dense mask.

One step is what `MultiTaskModule` does: every task's micro-batches one after the other, forward and weighted backward,
then clipping and Adam. Weights and batches are the same; only the attention differs. Each kind runs in processes of its
own, alternating, best of the repeats; time is that of the process over all threads on a CPU, memory the peak it adds.

    python benchmarks/multitask.py                                          # two minutes on two cores
    python benchmarks/multitask.py --size 64 --frames 8 --batch 2
    python benchmarks/multitask.py --variant vit_small --size 224 --frames 16 --batch 1
    python benchmarks/multitask.py --device cuda --dtype bfloat16 --variant vit_large --size 224 --frames 16 --batch 1

Recorded (one thread of an x86_64 CPU shared with other work, torch 2.14.1, float32), dense / prefix:

    vit_tiny, 96 px, T=16, batch 1, best of 2 steps:      time 1.33 (5.87 s / 4.41 s),     memory 1.19 (741 / 622 MiB)
"""

import argparse
import json

import torch
from baselines import DenseContext
from common import PeakMemory, add_step_arguments, compare_kinds, timed_steps

import omnistream.backbone.model as model_module
from omnistream.backbone import create_model, get_variant
from omnistream.data.views import CropConfig, MultiCropDataset
from omnistream.data.world import WorldCaptions, WorldFrames, WorldScenes
from omnistream.parallel import gradient_norm, scale_gradients
from omnistream.tasks import MultiTaskModule
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.ssl import SSLModule
from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig

KINDS = ("prefix", "dense")


def make_module(args):
    """All objectives, with small heads, so that the backbone decides."""
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
            total += loss.detach().item()
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
    peak = PeakMemory(args.device)
    seconds, loss = timed_steps(lambda: step(module, batch, optimizer), args.steps, args)
    return {"seconds": min(seconds), "bytes": peak.added(), "loss": loss}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_step_arguments(parser, KINDS, frames=16, batch=1, size=96, repeats=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.kind:
        print(json.dumps(measure(args)))
        return
    compare_kinds(__file__, args, KINDS, 1e-2 if args.dtype == "float32" else 0.5)


if __name__ == "__main__":
    main()
