"""Small modules and batches for the tests of the whole objective."""

from dataclasses import fields

import torch

from omnistream.backbone import OmniStream, create_model
from omnistream.data.batch import ViewBatch
from omnistream.data.photometric import PhotometricConfig
from omnistream.tasks.ssl import DistortionConfig, SSLHeadConfig, SSLLossConfig, SSLModule, TeacherConfig

HEADS = SSLHeadConfig(num_prototypes=16, hidden_dim=32, bottleneck_dim=16)
PLAIN = DistortionConfig(PhotometricConfig(), PhotometricConfig(), PhotometricConfig())


def make_module(
    backbone: OmniStream | None = None,
    *,
    losses: SSLLossConfig | None = None,
    teacher: TeacherConfig | None = None,
    distortions: DistortionConfig | None = None,
    head_warmup_steps: int = 0,
    total_steps: int = 100,
) -> SSLModule:
    module = SSLModule(
        heads=HEADS,
        losses=losses,
        teacher=teacher,
        distortions=distortions,
        head_warmup_steps=head_warmup_steps,
    )
    module.build(backbone if backbone is not None else create_model("vit_nano"))
    module.total_steps = total_steps
    return module


def spread_prototypes(module: SSLModule, factor: float = 50) -> None:
    """Prototypes as long as after training, so that targets are far from uniform."""
    for head in (module.dino_head, module.ibot_head, module.teacher.dino_head, module.teacher.ibot_head):
        head.last_layer.weight.data.mul_(factor)


def make_batch(samples: int = 4, frames: int = 1, num_local: int = 2, seed: int = 0) -> ViewBatch:
    """Noise; every second crop is masked."""
    generator = torch.Generator().manual_seed(seed)

    def noise(views: int, size: int) -> torch.Tensor:
        shape = (samples, views, frames, 3, size, size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    masks = torch.zeros(samples, 2, frames, 4, 4, dtype=torch.bool)
    for sample in range(samples):
        masks[sample, sample % 2, :, 1:3, : 2 + sample % 3] = True
    return ViewBatch(
        global_crops=noise(2, 32),
        local_crops=noise(num_local, 16),
        masks=masks,
        seed=torch.arange(samples) + 1000 * seed,
        name=["noise"] * samples,
    )


def rows(batch: ViewBatch, part: slice) -> ViewBatch:
    """Some samples of a batch."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return ViewBatch(**{name: None if value is None else value[part] for name, value in values.items()})
