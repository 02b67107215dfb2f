"""Self-supervised objective on images and clips (paper Sec. 3.3 and Appendix A): DINO + iBOT + 0.1 KoLeo + Gram."""

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from omnistream.backbone import OmniStream
from omnistream.data.batch import ViewBatch
from omnistream.distributed import world_size
from omnistream.tasks.nonfinite import NonFiniteConfig
from omnistream.tasks.objective import Objective, ObjectiveLoss
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.plots import Plot
from omnistream.tasks.ssl.config import SSLHeadConfig, SSLLossConfig, TeacherConfig
from omnistream.tasks.ssl.device_views import DeviceViews, DistortionConfig, device_views
from omnistream.tasks.ssl.dino import dino_loss, pair_shares, pool_frames
from omnistream.tasks.ssl.gram import gram_loss, resize_patches
from omnistream.tasks.ssl.heads import ProjectionHead
from omnistream.tasks.ssl.ibot import PatchTargets, ibot_loss, patch_targets
from omnistream.tasks.ssl.koleo import koleo_loss
from omnistream.tasks.ssl.plots import ssl_plots
from omnistream.tasks.ssl.schedules import cosine, linear
from omnistream.tasks.ssl.sinkhorn import sinkhorn_knopp
from omnistream.tasks.ssl.teacher import EMATeacher, GramTeacher


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


class SSLModule(Objective):
    """Student and EMA teacher on global and local views of images (T=1) and clips.

    The teacher sees the global crops; the student sees them masked, and local crops. DINO compares the CLS averaged
    over frames, iBOT the masked patches, KoLeo spreads the student's CLS, Gram (images only) keeps patch similarities.
    Sinkhorn-Knopp balances the teacher's targets over all processes, which must therefore run the same kind of batch at
    the same time. Both teachers are part of the checkpoint.

    Batches: a ViewBatch, or {"image": ViewBatch, "video": ViewBatch} of which either may be missing.

    Args:
        backbone: Given when fitted alone.
        optimizer: Used when fitted alone.
        heads: Size of the heads.
        losses: Weights and options of the terms.
        teacher: Momentum and temperature.
        distortions: Colours of the views.
        head_warmup_steps: Steps in which the gradients of the DINO and iBOT heads do not reach the backbone, so that
            random heads do not harm pre-trained weights; KoLeo and Gram need no head and act from the start. 0 is the
            paper as written.
        nonfinite: Used when fitted alone.
        compile: Used when fitted alone.
        seed: Used when fitted alone.

    Source: paper eq. 5, 11-15; facebookresearch/dinov3: dinov3/train/ssl_meta_arch.py.
    """

    task_name = "ssl"

    def __init__(
        self,
        backbone: OmniStream | None = None,
        optimizer: OptimizerConfig | None = None,
        *,
        heads: SSLHeadConfig | None = None,
        losses: SSLLossConfig | None = None,
        teacher: TeacherConfig | None = None,
        distortions: DistortionConfig | None = None,
        head_warmup_steps: int = 1000,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, nonfinite=nonfinite, compile=compile, seed=seed)
        self.heads, self.losses = heads or SSLHeadConfig(), losses or SSLLossConfig()
        self.teacher_config, self.distortions = teacher or TeacherConfig(), distortions or DistortionConfig()
        self.head_warmup_steps = head_warmup_steps
        self.record_arguments(locals())
        self.attach(backbone)

    def build(self, backbone: OmniStream) -> None:
        """Make the heads and copy backbone and heads into the teachers."""
        self.patch_size = backbone.patch_size
        self.dino_head, self.ibot_head = self._head(backbone.embed_dim), self._head(backbone.embed_dim)
        self.teacher = EMATeacher(backbone, self.dino_head, self.ibot_head)
        self.gram_teacher = GramTeacher(backbone) if self.losses.gram > 0 else None

    def fsdp_units(self) -> list[nn.Module]:
        """The heads of student and teacher: each is called by itself."""
        return [self.dino_head, self.ibot_head, self.teacher.dino_head, self.teacher.ibot_head]

    def _head(self, embed_dim: int) -> ProjectionHead:
        return ProjectionHead(
            embed_dim,
            hidden_dim=self.heads.hidden_dim,
            bottleneck_dim=self.heads.bottleneck_dim,
            num_prototypes=self.heads.num_prototypes,
            num_layers=self.heads.num_layers,
        )

    def micro_batches(self, batch: "ViewBatch | dict[str, ViewBatch | None]") -> dict[str, ViewBatch]:
        """Images and clips one after the other.

        Raises:
            ValueError: If there is neither.
        """
        if isinstance(batch, ViewBatch):
            return {"image" if batch.global_crops.shape[2] == 1 else "video": batch}
        parts = {name: part for name, part in batch.items() if part is not None}
        if not parts:
            raise ValueError("self-supervision needs an image or a video batch, got neither")
        return parts

    def compute(self, backbone: nn.Module, batch: ViewBatch, step: int) -> ObjectiveLoss:
        """Loss of one batch of images or of clips.

        Raises:
            ValueError: If the batch has no masks; `MultiCropDataset` draws them.
        """
        views = device_views(batch, self.patch_size, self.distortions)
        dino_targets, ibot_targets = self._teacher_targets(views, self.teacher_temperature(step))
        scale = 0.0 if step < self.head_warmup_steps else 1.0
        terms = self._student_terms(backbone, views, dino_targets, ibot_targets, scale)
        total = weigh(terms, self.losses, batch.global_crops.shape[1], batch.local_crops.shape[1])
        logs = {name: value.detach() for name, value in terms.items()}
        return ObjectiveLoss(total, logs | self._entropies(dino_targets))

    def _normalize(self, images: Tensor) -> Tensor:
        return self.teacher.backbone.normalize(images)

    @torch.no_grad()
    def _teacher_targets(self, views: DeviceViews, temperature: float) -> tuple[Float[Tensor, "G B K"], PatchTargets]:
        output = self.teacher.backbone(self._normalize(views.globals))
        options = self.losses
        logits = self.teacher.dino_head(pool_frames(output.cls))
        probabilities = sinkhorn_knopp(logits, temperature, options.sinkhorn_iterations)
        targets = self.teacher.ibot_head(
            views.masked(output.last),
            lambda features, prototypes: patch_targets(
                features, prototypes, temperature, options.sinkhorn_iterations, options.chunk_size
            ),
        )
        return rearrange(probabilities, "(g b) k -> g b k", b=views.num_samples), targets

    def _student_terms(
        self, backbone: nn.Module, views: DeviceViews, dino_targets: Tensor, ibot_targets: PatchTargets, scale: float
    ) -> dict[str, Tensor]:
        options, num_samples = self.losses, views.num_samples
        output = backbone(self._normalize(views.globals), masks=views.masks)
        cls = pooled = pool_frames(output.cls)
        num_crops = len(cls)
        if len(views.locals):
            pooled = torch.cat([cls, pool_frames(backbone(self._normalize(views.locals)).cls)])
        # While the heads warm up, only gradients through randomly initialised heads are held back.
        logits = rearrange(self.dino_head(_ScaleGradient.apply(pooled, scale)), "(v b) k -> v b k", b=num_samples)
        num_global = num_crops // num_samples
        temperature = options.student_temperature
        terms = {"dino_global": dino_loss(logits[:num_global], dino_targets, temperature, ignore_diagonal=True)}
        if len(views.locals):
            terms["dino_local"] = dino_loss(logits[num_global:], dino_targets, temperature)
        weights = views.masked_weights
        terms["ibot"] = self.ibot_head(
            _ScaleGradient.apply(views.masked(output.last), scale),
            lambda features, prototypes: ibot_loss(
                features, prototypes, ibot_targets, weights, num_crops, temperature, options.chunk_size
            ),
        )
        terms["koleo"] = torch.stack([self._koleo(crop) for crop in cls.split(num_samples)]).mean()
        if self.gram_teacher is not None and output.last.shape[1] == 1:
            terms["gram"] = self._gram(self.gram_teacher, output.last[:, 0], views.undistorted)
        return terms

    def _koleo(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
        return koleo_loss(
            cls,
            num_neighbours=self.losses.koleo_neighbours,
            across_processes=self.losses.koleo_across_processes,
            group_size=self.losses.koleo_group_size,
        )

    def _gram(
        self, teacher: GramTeacher, patches: Float[Tensor, "B h w D"], images: UInt8[Tensor, "B 1 3 H W"]
    ) -> Float[Tensor, ""]:
        with torch.no_grad():
            anchors = teacher(self._normalize(images)).last[:, 0]
            anchors = resize_patches(anchors, (patches.shape[1], patches.shape[2]))
        return gram_loss(
            rearrange(patches, "b h w d -> b (h w) d"),
            rearrange(anchors, "b h w d -> b (h w) d"),
            normalize=self.losses.gram_normalize,
            image_level=self.losses.gram_image_level,
            remove_negative=self.losses.gram_remove_negative,
            remove_only_teacher_negative=self.losses.gram_remove_only_teacher_negative,
        )

    def _entropies(self, targets: Float[Tensor, "G B K"]) -> dict[str, Tensor]:
        """The range of the DINO loss: entropy of the targets, loss of a uniform student, and the minimum."""
        num_crops, num_samples, num_prototypes = targets.shape
        rows = num_crops * num_samples * world_size()
        return {
            "teacher_entropy": torch.special.entr(targets).sum(-1).mean(),
            "uniform_entropy": targets.new_full((), math.log(num_prototypes)),
            "least_entropy": targets.new_full((), math.log(max(1.0, num_prototypes / rows))),
        }

    def teacher_temperature(self, step: int) -> float:
        """Temperature of the teacher at a step."""
        first, final = self.teacher_config.temperature
        return linear(step, first, final, self.teacher_config.temperature_warmup_steps)

    def teacher_momentum(self, step: int) -> float:
        """Momentum of the average at a step.

        Raises:
            ValueError: If it changes over the run and the length of the run is not known.
        """
        first, last = self.teacher_config.momentum
        if first == last:
            return first
        if self.total_steps is None or self.total_steps < 1:
            raise ValueError("the momentum schedule needs the length of the run: set trainer.max_steps")
        return cosine(step, first, last, self.total_steps)

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """Move the teachers after an optimiser step."""
        self.teacher.update(backbone, self.dino_head, self.ibot_head, self.teacher_momentum(step - 1))
        every = self.teacher_config.gram_update_steps
        if self.gram_teacher is not None and every is not None and step % every == 0:
            self.gram_teacher.update(self.teacher.backbone)

    def plots(
        self, backbone: nn.Module, batch: "ViewBatch | dict[str, ViewBatch | None]", limit: int
    ) -> dict[str, Plot]:
        """Views with their masks, and patch features, of the first image and clip; see `tasks.plots.HasPlots`."""
        return {
            f"{part}/{name}": plot
            for part, views in self.micro_batches(batch).items()
            for name, plot in ssl_plots(backbone, views, self.patch_size, self.distortions).items()
        }


def weigh(terms: dict[str, Tensor], config: SSLLossConfig, num_global: int, num_local: int) -> Tensor:
    """Weighted sum of the terms that are there; `koleo` is a mean over global crops and enters as their sum.

    Source: paper eq. 5 and 15; facebookresearch/dinov3: dinov3/train/ssl_meta_arch.py.
    """
    global_share, local_share = pair_shares(num_global, num_local)
    weights = {
        "dino_global": config.dino * global_share,
        "dino_local": config.dino * local_share,
        "ibot": config.ibot,
        "koleo": config.koleo * num_global,
        "gram": config.gram,
    }
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
