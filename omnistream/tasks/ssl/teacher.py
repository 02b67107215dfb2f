"""The two teachers: a moving average of the student, and a frozen copy of the initial backbone for Gram anchoring."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from omnistream.backbone import BackboneOutput, OmniStream
from omnistream.parallel import local_tensor


def _paired(teacher: nn.Module, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """This process's shards of both; they are sharded alike, so no communication is needed."""
    for module in (*teacher.modules(), *student.modules()):
        if isinstance(module, FSDPModule):
            module.reshard()  # FSDP2 leaves an outermost module whole after a forward pass without gradient
    targets, sources = ([local_tensor(p) for p in module.parameters()] for module in (teacher, student))
    if [t.shape for t in targets] != [s.shape for s in sources]:
        raise ValueError("teacher and student are not sharded alike; apply the same parallelism to both")
    return targets, sources


@torch.no_grad()
def update_average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set teacher to momentum * teacher + (1 - momentum) * student, for parameters; buffers are left alone.

    Raises:
        ValueError: If the two are not sharded alike.

    Source: facebookresearch/dinov3: dinov3/train/ssl_meta_arch.py.
    """
    targets, sources = _paired(teacher, student)
    torch._foreach_mul_(targets, momentum)
    torch._foreach_add_(targets, sources, alpha=1 - momentum)


@torch.no_grad()
def copy_parameters(target: nn.Module, source: nn.Module) -> None:
    """Overwrite the parameters of `target`; unlike an average with weight 0, this clears NaN and infinity."""
    torch._foreach_copy_(*_paired(target, source))


class EMATeacher(nn.Module):
    """Moving average of the student's backbone and heads; never trained, always in eval mode, saved in checkpoints.

    Args:
        backbone: Of the student; copied.
        dino_head: Likewise.
        ibot_head: Likewise.
    """

    def __init__(self, backbone: OmniStream, dino_head: nn.Module, ibot_head: nn.Module) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.dino_head = copy.deepcopy(dino_head)
        self.ibot_head = copy.deepcopy(ibot_head)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stays in eval mode: RoPE coordinates are not rescaled for the teacher."""
        return super().train(False)

    def update(self, backbone: nn.Module, dino_head: nn.Module, ibot_head: nn.Module, momentum: float) -> None:
        """Move towards the student; call once after each optimiser step."""
        update_average(self.backbone, backbone, momentum)
        update_average(self.dino_head, dino_head, momentum)
        update_average(self.ibot_head, ibot_head, momentum)


class GramTeacher(nn.Module):
    """Copy of the initial backbone that keeps DINOv3's spatial RoPE; never trained, always in eval mode.

    If it is updated from the EMA teacher it takes over that backbone's RoPE layout too. The number of updates is saved,
    and loading a checkpoint restores the layout that belongs to it.

    Args:
        backbone: At the start of training; copied.
    """

    num_updates: Tensor

    def __init__(self, backbone: OmniStream) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.updated_layout = backbone.rope_layout
        self.backbone.set_rope_layout("spatial")
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_restore_layout)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "GramTeacher":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> BackboneOutput:
        """Features of normalised images [B, 1, 3, H, W]."""
        return self.backbone(images)

    def update(self, teacher: nn.Module) -> None:
        """Copy the EMA teacher's backbone."""
        copy_parameters(self.backbone, teacher)
        self.backbone.set_rope_layout(self.updated_layout)
        self.num_updates += 1


def _restore_layout(gram: GramTeacher, incompatible_keys: Any) -> None:
    gram.backbone.set_rope_layout(gram.updated_layout if int(gram.num_updates) else "spatial")
