"""Peak memory of one step of the objective with 65,536 prototypes; prints MiB added and the loss.

python prototypes_memory.py CHUNK_SIZE
"""

import sys
from pathlib import Path

import torch

from omnistream.backbone import create_model
from omnistream.data.batch import ViewBatch
from omnistream.tasks.ssl import SSLHeadConfig, SSLLossConfig, SSLModule


def make_clips() -> ViewBatch:
    """Two clips of four frames of 96 pixels, 70 % of their patches masked: 1,600 patches in all."""
    masks = torch.zeros(2, 2, 4, 12, 12, dtype=torch.bool)
    masks[..., :10, :10] = True
    return ViewBatch(
        global_crops=torch.randint(0, 256, (2, 2, 4, 3, 96, 96), dtype=torch.uint8),
        local_crops=torch.randint(0, 256, (2, 2, 4, 3, 32, 32), dtype=torch.uint8),
        masks=masks,
        seed=torch.arange(2),
        name=["noise"] * 2,
    )


def peak_mib() -> float:
    """Largest resident size of this program so far; `getrusage` would count the one that started it too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    torch.manual_seed(0)
    backbone = create_model("vit_nano")
    heads = SSLHeadConfig(num_prototypes=65536, hidden_dim=256, bottleneck_dim=64)
    module = SSLModule(heads=heads, losses=SSLLossConfig(chunk_size=int(sys.argv[1])), head_warmup_steps=0)
    module.build(backbone)
    clips = make_clips()
    before = peak_mib()
    loss = module.compute(backbone, clips, step=0)
    loss.total.backward()
    print(peak_mib() - before, loss.total.item())
