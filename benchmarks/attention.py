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
import platform
import resource
import subprocess
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

import omnistream.backbone.model as model_module
from omnistream.backbone import create_model


class DenseContext:
    """The baseline: every layer attends under one mask over all tokens of the clip."""

    def __init__(self, num_frames, window=None, sink=1):
        self.num_frames = num_frames
        self.mask = None

    def attend(self, layer, query, key, value):
        if self.mask is None:
            frames = torch.arange(self.num_frames, device=query.device)
            frames = frames.repeat_interleave(query.shape[2] // self.num_frames)
            self.mask = frames[:, None] >= frames
        return scaled_dot_product_attention(query, key, value, attn_mask=self.mask)


def peak_bytes(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(args):
    """Seconds and added peak bytes of the fastest step, and a loss that both kinds must share."""
    if args.kind == "dense":
        model_module.ClipContext = DenseContext
    torch.manual_seed(0)
    model = create_model(args.variant, layer_scale_init=1.0, rope_rescale=None).to(args.device).train()
    clips = torch.randn(args.batch, args.frames, 3, args.size, args.size, device=args.device)
    before = peak_bytes(args.device)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(args.steps + 1):
        start = clock()
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            output = model(clips)
        loss = output.last.float().square().mean() + output.cls.float().sin().mean()
        loss.backward()
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        model.zero_grad(set_to_none=True)
    return {"seconds": min(seconds[1:]), "bytes": peak_bytes(args.device) - before, "loss": loss.item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_tiny")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="timed steps per process, after one to warm up")
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
    if max(losses) - min(losses) > (1e-4 if args.dtype == "float32" else 1e-2):
        raise SystemExit(f"the two kinds disagree: losses {losses}")
    best = {kind: {k: min(run[k] for run in runs) for k in ("seconds", "bytes")} for kind, runs in results.items()}
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()} CPU"
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.dtype}")
    print(f"{args.variant}, {args.size} px, T={args.frames}, batch {args.batch}")
    for kind, numbers in best.items():
        print(f"{kind:>7}: {numbers['seconds']:.3f} s, {numbers['bytes'] / 2**20:.0f} MiB added at the peak")
    dense, prefix = best["dense"], best["prefix"]
    time_ratio, memory_ratio = dense["seconds"] / prefix["seconds"], dense["bytes"] / prefix["bytes"]
    print(f"dense / prefix: time {time_ratio:.2f}, memory {memory_ratio:.2f}")


if __name__ == "__main__":
    main()
