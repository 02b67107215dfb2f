import math
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from ssl_examples import HEADS, PLAIN, make_batch, make_module, spread_prototypes
from ssl_oracle import MASKS, TEMPERATURE, close, sines
from torch.utils.data import DataLoader, Dataset

from omnistream.backbone import create_model
from omnistream.data.batch import FrameClip, ViewBatch
from omnistream.data.photometric import PhotometricConfig, photometric
from omnistream.data.sampling import SampleKey
from omnistream.tasks.multitask import MultiTaskModule
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.ssl import CropConfig, MultiCropDataset, SSLLossConfig, SSLModule, TeacherConfig
from omnistream.tasks.ssl.device_views import device_views
from omnistream.tasks.ssl.dino import dino_loss
from omnistream.tasks.ssl.gram import gram_loss
from omnistream.tasks.ssl.ibot import ibot_loss, mask_weights, patch_targets
from omnistream.tasks.ssl.koleo import koleo_loss
from omnistream.tasks.ssl.module import weigh
from omnistream.tasks.ssl.schedules import cosine
from omnistream.tasks.ssl.sinkhorn import sinkhorn_knopp

CONSTANT = TeacherConfig(momentum=(0.9, 0.9), temperature=(0.07, 0.07))


@pytest.mark.parametrize(("num_local", "total"), [(2, 10.752460), (3, 11.847053)])
def test_recorded_value_of_the_whole_objective(num_local, total):
    targets = sinkhorn_knopp(sines(4, 6, a=0.7, b=0.3), TEMPERATURE).view(2, 2, 6)
    identity, masked = torch.eye(6), MASKS[:, 0, 0]
    patches = patch_targets(sines(4, 5, 6, a=0.9, b=0.1)[masked], identity, TEMPERATURE)
    terms = {
        "dino_global": dino_loss(sines(2, 2, 6, a=0.3, b=1.0), targets, ignore_diagonal=True),
        "dino_local": dino_loss(sines(num_local, 2, 6, a=0.5, b=0.2), targets),
        "ibot": ibot_loss(sines(4, 5, 6, a=0.4, b=0.6)[masked], identity, patches, mask_weights(MASKS), 4),
        "koleo": torch.stack([koleo_loss(crop) for crop in sines(2, 2, 4, a=1.3, b=0.2)]).mean(),
        "gram": gram_loss(sines(4, 5, 3, a=0.8, b=0.1), sines(4, 5, 3, a=0.6, b=0.4)),
    }
    close(terms["koleo"], -0.067597)
    close(terms["gram"], 0.619995)
    close(weigh(terms, SSLLossConfig(), 2, num_local), total)


@pytest.mark.parametrize(("frames", "step", "temperature"), [(1, 0, 0.04), (1, 15, 0.055), (3, 30, 0.07)])
def test_terms_equal_a_plain_computation(frames, step, temperature):
    """Student, teacher and gram teacher differ, and views are distorted: every term must use the right ones."""
    module = make_module(teacher=TeacherConfig(temperature=(0.04, 0.07), temperature_warmup_steps=30))
    batch = make_batch(samples=3, frames=frames)
    spread_prototypes(module)
    backbone, teacher = create_model("vit_nano").eval(), module.teacher
    for number, network in enumerate((teacher.backbone, module.gram_teacher.backbone)):
        torch.manual_seed(number)
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    terms = module.compute(backbone, batch, step=step).terms

    def see(network, crops, distortion, salt, masks=None):
        pixels = photometric(crops, batch.seed, distortion, salt)
        return network(backbone.normalize(pixels), masks=masks)

    presets = [PhotometricConfig.global_1(), PhotometricConfig.global_2()]
    seen = [see(teacher.backbone, batch.global_crops[:, g], presets[g], g) for g in range(2)]
    student = [see(backbone, batch.global_crops[:, g], presets[g], g, batch.masks[:, g]) for g in range(2)]
    local = [see(backbone, batch.local_crops[:, i], PhotometricConfig.local(), 2 + i) for i in range(2)]
    logits = teacher.dino_head(torch.cat([out.cls.mean(1) for out in seen]))
    q = sinkhorn_knopp(logits, temperature).view(2, 3, -1)

    def cross(view, target):
        return -(target * F.log_softmax(module.dino_head(view.cls.mean(1)) / 0.1, -1)).sum(-1).mean()

    close(terms["dino_global"], (cross(student[0], q[1]) + cross(student[1], q[0])) / 2)
    close(terms["dino_local"], sum(cross(view, q[g]) for view in local for g in range(2)) / 4)

    masks = [batch.masks[:, g] for g in range(2)]
    logits = torch.cat([teacher.ibot_head(out.last[mask]) for out, mask in zip(seen, masks, strict=True)])
    targets, total, start = sinkhorn_knopp(logits, temperature), torch.zeros(()), 0
    for out, mask in zip(student, masks, strict=True):
        for sample in range(3):
            count = int(mask[sample].sum())
            if count:
                log_p = F.log_softmax(module.ibot_head(out.last[sample][mask[sample]]) / 0.1, -1)
                total = total - (targets[start : start + count] * log_p).sum(-1).mean()
            start += count
    close(terms["ibot"], total / 6)
    close(terms["koleo"], (koleo_loss(student[0].cls.mean(1)) + koleo_loss(student[1].cls.mean(1))) / 2)
    assert ("gram" in terms) == (frames == 1)
    if frames == 1:
        plain = [backbone.normalize(batch.global_crops[:, g]) for g in range(2)]  # not distorted
        anchors = torch.cat([module.gram_teacher.backbone(view).last for view in plain]).flatten(1, 3)
        close(terms["gram"], gram_loss(torch.cat([out.last for out in student]).flatten(1, 3), anchors))
        assert terms["gram"] > 1e-3


def test_start_values():
    module, batch = make_module(teacher=CONSTANT), make_batch(samples=8)
    result = module.compute(create_model("vit_nano"), batch, step=0)
    for name in ("dino_global", "dino_local"):
        assert result.terms[name].item() == pytest.approx(math.log(16), abs=0.05)
    assert result.terms["ibot"].item() == pytest.approx(0.5 * math.log(16), abs=0.05)  # half of the crops are masked
    assert result.terms["uniform_entropy"].item() == pytest.approx(math.log(16))
    assert result.terms["least_entropy"] == 0
    assert 0 < result.terms["teacher_entropy"] <= math.log(16) + 1e-5


def test_gram_is_zero_where_the_student_is_still_the_gram_teacher():
    backbone = create_model("vit_nano", rope_layout="spatial").eval()
    module, batch = make_module(backbone, distortions=PLAIN), make_batch()
    unmasked = replace(batch, masks=torch.zeros_like(batch.masks))
    assert module.compute(backbone, unmasked, step=0).terms["gram"] < 1e-10
    assert module.compute(backbone, batch, step=0).terms["gram"] > 1e-6


def test_larger_gram_crops_are_reduced_for_student_and_teacher():
    backbone, batch = create_model("vit_nano").eval(), make_batch()
    module = make_module(backbone)
    wide = F.interpolate(batch.global_crops.flatten(0, 2).float(), scale_factor=2, mode="nearest").byte()
    large = replace(batch, global_crops=wide.view(4, 2, 1, 3, 64, 64))
    views = device_views(large, 8, PLAIN)
    assert views.globals.shape[-1] == 32
    assert views.undistorted.shape[-1] == 64
    assert module.compute(backbone, large, step=0).terms["gram"].isfinite()


def test_crops_for_another_patch_size_are_refused():
    message = (
        "global crops of 32 px with 4 mask cells a side do not fit a backbone of patch size 16: set crops.patch_size"
    )
    with pytest.raises(ValueError, match=message):
        device_views(make_batch(), 16, PLAIN)


def test_masked_pixels_do_not_reach_the_student():
    backbone = create_model("vit_nano").eval()
    torch.nn.init.normal_(backbone.mask_token)
    module, batch = make_module(backbone, distortions=PLAIN), make_batch(frames=2)
    hidden = batch.masks.repeat_interleave(8, 3).repeat_interleave(8, 4).unsqueeze(3)
    noise = torch.randint_like(batch.global_crops, 256)
    changed = replace(batch, global_crops=torch.where(hidden, noise, batch.global_crops))
    visible = replace(batch, global_crops=torch.where(hidden, batch.global_crops, noise))

    def terms(part):
        views = device_views(part, 8, PLAIN)
        targets = module._teacher_targets(device_views(batch, 8, PLAIN), 0.07)
        return module._student_terms(backbone, views, *targets, scale=1.0)

    expected = terms(batch)
    for name, value in terms(changed).items():
        assert torch.equal(value, expected[name]), name
    assert any(not torch.equal(value, expected[name]) for name, value in terms(visible).items())


def test_gradients_reach_student_and_heads_only():
    backbone = create_model("vit_nano")
    module = make_module(backbone)
    module.train()
    module.compute(backbone, make_batch(), step=0).total.backward()
    without = {name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"camera_token", "aspect_embed.weight", "aspect_embed.bias"}
    for head in (module.dino_head, module.ibot_head):
        assert all(p.grad.any() for p in head.parameters())
    assert all(p.grad is None for p in [*module.teacher.parameters(), *module.gram_teacher.parameters()])
    assert not module.teacher.backbone.training
    assert not module.gram_teacher.backbone.training


def _backbone_gradients(step, **weights):
    """Gradients of the backbone at a step, and of the heads, with five steps of head warm-up."""
    torch.manual_seed(0)
    backbone = create_model("vit_nano", layer_scale_init=0.5, rope_rescale=None)
    module = make_module(backbone, head_warmup_steps=5, losses=SSLLossConfig(**weights))
    module.compute(backbone, make_batch(), step=step).total.backward()
    heads = [*module.dino_head.parameters(), *module.ibot_head.parameters()]
    return [p.grad for p in backbone.parameters() if p.grad is not None], [p.grad for p in heads]


def test_head_warm_up_holds_back_only_what_passes_through_the_heads():
    warming, heads = _backbone_gradients(step=4)
    assert all(gradient.any() for gradient in heads)
    without_heads, _ = _backbone_gradients(step=4, dino=0.0, ibot=0.0)
    assert any(gradient.any() for gradient in without_heads)
    for held, alone in zip(warming, without_heads, strict=True):
        assert torch.equal(held, alone)
    for term in ("koleo", "gram"):  # each of them acts from the start
        weights = {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "gram": 0.0, term: 1.0}
        assert any(gradient.any() for gradient in _backbone_gradients(step=0, **weights)[0]), term
    for term in ("dino", "ibot"):
        weights = {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "gram": 0.0, term: 1.0}
        assert not any(gradient.any() for gradient in _backbone_gradients(step=4, **weights)[0]), term
        assert any(gradient.any() for gradient in _backbone_gradients(step=5, **weights)[0]), term


def _sample(batch: ViewBatch, index: int) -> ViewBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return ViewBatch(**{name: None if value is None else value[index] for name, value in values.items()})


def test_sample_order_does_not_matter():
    backbone, batch = create_model("vit_nano").eval(), make_batch()
    module = make_module(backbone)
    swapped = ViewBatch.collate([_sample(batch, i) for i in (2, 0, 3, 1)])
    expected = module.compute(backbone, batch, step=0).terms
    for name, value in module.compute(backbone, swapped, step=0).terms.items():
        close(value, expected[name])


def test_no_local_crops_and_no_masked_crops():
    backbone, batch = create_model("vit_nano"), make_batch(num_local=0)
    module = make_module(backbone)
    result = module.compute(backbone, replace(batch, masks=torch.zeros_like(batch.masks)), step=0)
    assert "dino_local" not in result.terms
    assert result.terms["ibot"] == 0
    result.total.backward()
    close(result.total, result.terms["dino_global"] + 0.2 * result.terms["koleo"] + result.terms["gram"])


def test_batches_of_images_and_clips():
    module, image, video = make_module(), make_batch(), make_batch(frames=2)
    assert list(module.micro_batches({"image": image, "video": video})) == ["image", "video"]
    assert list(module.micro_batches({"image": image, "video": None})) == ["image"]
    assert list(module.micro_batches(video)) == ["video"]
    with pytest.raises(ValueError, match="image or a video batch"):
        module.micro_batches({})
    with pytest.raises(ValueError, match="no masks"):
        module.compute(create_model("vit_nano"), replace(image, masks=None), step=0)


def test_plots_show_the_first_sample():
    batch = make_batch(frames=2)
    plot = make_module(distortions=PLAIN).plots(create_model("vit_nano").eval(), batch, limit=1)["video/views"]
    assert torch.equal(plot.global_crops, batch.global_crops[0].float() / 255)
    assert torch.equal(plot.local_crops, batch.local_crops[0].float() / 255)
    assert torch.equal(plot.masks, batch.masks[0])


def test_schedules_of_the_teacher():
    module = make_module(teacher=TeacherConfig(temperature_warmup_steps=30), total_steps=1000)
    assert [module.teacher_temperature(i) for i in (0, 15, 30, 500)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert module.teacher_momentum(500) == pytest.approx(0.997)
    assert make_module(teacher=TeacherConfig(temperature_warmup_steps=0)).teacher_temperature(0) == 0.07
    module.total_steps = None
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        module.teacher_momentum(0)


def test_gram_teacher_follows_the_ema_teacher_when_asked():
    backbone = create_model("vit_nano")
    module = make_module(backbone, teacher=replace(CONSTANT, gram_update_steps=2))
    backbone.cls_token.data += 1
    initial = module.gram_teacher.backbone.cls_token.clone()
    module.after_step(backbone, 1)
    assert torch.equal(module.gram_teacher.backbone.cls_token, initial)
    module.after_step(backbone, 2)
    close(module.gram_teacher.backbone.cls_token, initial + 0.19, 1e-5)
    assert module.gram_teacher.num_updates == 1


class _Follow:
    """Averages the student alongside, with plain code."""

    def __init__(self, parameter: torch.Tensor) -> None:
        self.value = parameter.detach().clone()

    def step(self, parameter: torch.Tensor, momentum: float) -> None:
        self.value = momentum * self.value + (1 - momentum) * parameter.detach()


@pytest.mark.parametrize("alone", [True, False])
def test_fit_moves_the_teacher_once_per_step(alone, tmp_path):
    backbone, optimizer = create_model("vit_nano"), OptimizerConfig(lr=1e-2, warmup_steps=0)
    module: LightningModule
    if alone:
        ssl = module = SSLModule(backbone, optimizer, heads=HEADS, head_warmup_steps=0)
    else:
        ssl = SSLModule(heads=HEADS, head_warmup_steps=0)
        module = MultiTaskModule(backbone, {"ssl": ssl}, optimizer=optimizer)
    batch = {"image": make_batch(), "video": make_batch(frames=2)}
    inner, student_parts = (
        ssl.after_step,
        {"backbone": backbone, "dino_head": ssl.dino_head, "ibot_head": ssl.ibot_head},
    )
    follow = {name: [_Follow(p) for p in part.parameters()] for name, part in student_parts.items()}

    def after_step(student, step):
        for name, part in student_parts.items():
            for followed, parameter in zip(follow[name], part.parameters(), strict=True):
                followed.step(parameter, cosine(step - 1, 0.994, 1.0, 3))
        inner(student, step)

    ssl.after_step = after_step
    batches = DataLoader([batch if alone else {"ssl": batch}] * 3, batch_size=None)
    trainer = Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module, batches)
    for name, part in student_parts.items():
        teachers = list(getattr(ssl.teacher, name).parameters())
        for teacher, followed in zip(teachers, follow[name], strict=True):
            close(teacher, followed.value, 1e-6)
        moved = [(teacher - p).abs().max() for teacher, p in zip(teachers, part.parameters(), strict=True)]
        assert max(moved) > 1e-3, name
    assert "train/ssl/image/ibot" in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    prefix = "" if alone else "tasks.ssl."
    assert torch.equal(saved[f"{prefix}teacher.dino_head.last_layer.weight"], ssl.teacher.dino_head.last_layer.weight)
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not any(id(p) in trained for p in ssl.teacher.parameters())


def _stripes(count: int) -> torch.Tensor:
    """Pictures that differ in orientation, frequency and colour of a grating: uint8 [N, 1, 3, 48, 48]."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    angle, frequency = torch.rand(2, count, 1, 1, generator=generator) * torch.tensor([3.14, 0.8]).view(2, 1, 1, 1)
    wave = torch.sin((frequency + 0.2) * (x * angle.cos() + y * angle.sin()))
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    return ((0.5 + 0.5 * wave.unsqueeze(1)) * colour * 255).byte().unsqueeze(1)


class Pictures(Dataset):
    """Sixteen plots with another seed in every epoch."""

    def __init__(self) -> None:
        self.images = _stripes(16)

    def __getitem__(self, key: SampleKey) -> FrameClip:
        seed = torch.tensor(100 * key.epoch + key.index)
        return FrameClip(images=self.images[key.index], label=torch.tensor(-1), name=str(key.index), seed=seed)

    def __len__(self) -> int:
        return len(self.images)


def test_it_learns_without_collapse():
    torch.manual_seed(0)
    plots, steps = Pictures(), 40
    dataset = MultiCropDataset(plots, CropConfig(global_size=32, local_size=16, patch_size=8))
    backbone = create_model("vit_nano", layer_scale_init=1.0)
    teacher = TeacherConfig(momentum=(0.9, 1.0), temperature=(0.07, 0.07))
    losses = SSLLossConfig(gram=0.0)
    module = make_module(backbone, losses=losses, teacher=teacher, distortions=PLAIN, total_steps=steps)
    spread_prototypes(module, 10)
    trained = [*backbone.parameters(), *module.dino_head.parameters(), *module.ibot_head.parameters()]
    optimizer, history = torch.optim.Adam(trained, lr=1e-3), []
    for step in range(steps):
        batch = dataset.collate([dataset[SampleKey(step, i)] for i in range(16)])
        result = module.compute(backbone, batch, step)
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        module.after_step(backbone, step + 1)
        history.append(torch.stack([result.terms[name] for name in ("dino_global", "dino_local", "ibot")]))
    start, end = torch.stack(history[:5]).mean(0), torch.stack(history[-5:]).mean(0)
    assert (end < start).all(), (start, end)
    assert (end[:2] < math.log(16) - 0.15).all(), end  # a student that knows nothing ends at ln 16
    with torch.no_grad():
        features = F.normalize(module.teacher.backbone(backbone.normalize(plots.images)).cls[:, 0], dim=-1)
    similarity = (features @ features.T)[~torch.eye(16, dtype=torch.bool)]
    assert similarity.mean() < 0.8  # 1 would be the same features for all plots
