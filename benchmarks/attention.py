"""Training step of the backbone: frame-causal attention by prefixes against a dense boolean mask.

Both models have the same weights and see the same clips; only what `attend` does differs. The dense twin passes one
(T P) x (T P) mask, which is what one would write first. Reported are ratios dense / prefix of the time of one forward
and backward step and of the peak memory it adds, each measured in a process of its own, alternating, best of the
repeats. On a CPU the time is that of the process over all threads, so that other work on the machine counts little.

    python benchmarks/attention.py                          # vit_tiny at 64 px, T=8, batch 4
    python benchmarks/attention.py --variant vit_small --size 224 --frames 16 --batch 1
    python benchmarks/attention.py --device cuda --dtype bfloat16 --variant vit_large --size 224 --frames 16 --batch 2

Recorded (one thread of an x86_64 CPU shared with other work, torch 2.14.1, float32), dense / prefix:

    vit_tiny, 64 px, T=8, batch 4, best of 2 x 2 steps:   time 1.04 (0.865 s / 0.829 s),   memory 1.08 (403 / 372 MiB)
    vit_small, 224 px, T=16, batch 1, one step each:      time 1.36 (16.43 s / 12.11 s),   memory 1.30 (2197 / 1693 MiB)
"""

import argparse
import json

import torch
from baselines import DenseContext
from common import PeakMemory, add_step_arguments, compare_kinds, timed_steps

import omnistream.backbone.model as model_module
from omnistream.backbone import create_model

KINDS = ("prefix", "dense")


def measure(args):
    """Seconds and added peak bytes of the fastest step, and a loss that both kinds must share."""
    if args.kind == "dense":
        model_module.ClipContext = DenseContext
    torch.manual_seed(0)
    model = create_model(args.variant, layer_scale_init=1.0, rope_rescale=None).to(args.device).train()
    clips = torch.randn(args.batch, args.frames, 3, args.size, args.size, device=args.device)
    peak = PeakMemory(args.device)

    def step():
        output = model(clips)
        loss = output.last.float().square().mean() + output.cls.float().sin().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.item()

    seconds, loss = timed_steps(step, args.steps, args)
    return {"seconds": min(seconds), "bytes": peak.added(), "loss": loss}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_step_arguments(parser, KINDS, frames=8, batch=4, size=64, repeats=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.kind:
        print(json.dumps(measure(args)))
        return
    compare_kinds(__file__, args, KINDS, 1e-4 if args.dtype == "float32" else 1e-2)


if __name__ == "__main__":
    main()
