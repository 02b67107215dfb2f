import copy
import math

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from omnistream.backbone import create_model
from omnistream.data.batch import FrameClip
from omnistream.tasks.probing import (
    ActionProbeModule,
    ProbeConfig,
    cache_features,
    clip_tokens,
    fit_action_probe,
    freeze,
)
from omnistream.tasks.probing.action import probe_optimizer
from omnistream.tasks.probing.features import spatial_views

SMALL = ProbeConfig(num_layers=2, num_heads=2, lrs=(3e-3, 1e-8))


class _Clips(Dataset):
    """A moving bar whose colour is the class: an untrained backbone tells colours, but hardly times, apart."""

    def __init__(self, length: int, frames: int = 4, size: tuple[int, int] = (32, 32)) -> None:
        self.length, self.frames, self.size = length, frames, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> FrameClip:
        label = index % 4
        H, W = self.size
        images = torch.zeros(self.frames, 3, H, W, dtype=torch.uint8)
        for t in range(self.frames):
            bar = images[t, :, :, t * 8 : t * 8 + 8]
            bar[:] = 40 + (index * 7) % 50
            bar[label % 3] = 200 if label < 3 else 0
        return FrameClip(images=images, label=torch.tensor(label), name=str(index), seed=torch.tensor(index))


def _loader(length, **kwargs):
    return DataLoader(_Clips(length, **kwargs), batch_size=8, collate_fn=FrameClip.collate)


def _trainer(**kwargs):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return lightning.Trainer(enable_model_summary=False, **options, **kwargs)


def test_probe_learns_and_the_backbone_stays_bit_identical():
    torch.manual_seed(0)
    backbone = create_model("vit_nano")
    before = copy.deepcopy(backbone.state_dict())
    module = ActionProbeModule(backbone, 4, probe=SMALL, num_crops=1)
    trainer = _trainer(max_epochs=6)
    trainer.fit(module, _loader(64))
    (results,) = trainer.validate(module, _loader(32), verbose=False)
    assert results["val/accuracy"] == 1.0
    assert results["val/accuracy"] == results["val/accuracy_lr0.003_wd0.01"] > results["val/accuracy_lr1e-08_wd0.01"]
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_backbone_is_in_evaluation_mode_even_while_training():
    module = ActionProbeModule(create_model("vit_nano"), 4, probe=SMALL)
    module.train()
    assert module.probes.training
    assert not any(m.training for m in module.backbone.modules())


def test_every_probe_trains_as_if_alone():
    batch = FrameClip.collate([_Clips(8)[i] for i in range(8)])
    config = ProbeConfig(num_layers=1, num_heads=2, lrs=(1e-2, 1e-3), weight_decays=(0.0, 0.4))
    module = ActionProbeModule(create_model("vit_nano"), 4, probe=config, num_crops=1)
    module.log = lambda *args, **kwargs: None
    alone = copy.deepcopy(module.probes[3])
    optimizer, _ = probe_optimizer(module.probes, config, 10)
    module.training_step(batch, 0).backward()
    optimizer.step()
    single, _ = probe_optimizer([alone], ProbeConfig(lrs=(1e-3,), weight_decays=(0.4,)), 10)
    loss = torch.nn.functional.cross_entropy(alone(clip_tokens(module.backbone, batch.images)), batch.label)
    loss.backward()
    single.step()
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), module.probes[3].parameters(), strict=True))


def test_schedule_starts_after_one_step_and_ends_at_zero():
    probe = torch.nn.Linear(2, 2)
    optimizer, schedule = probe_optimizer([probe], ProbeConfig(lrs=(2.0,)), 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1 + math.cos(math.pi * i / 4) for i in (1, 2, 3, 4)])


def test_views_are_averaged_as_probabilities_and_segments_are_joined():
    batch = FrameClip.collate([_Clips(2, frames=4, size=(32, 48))[i] for i in range(2)])
    module = ActionProbeModule(create_model("vit_nano"), 4, probe=SMALL, frames_per_segment=2, num_crops=3).eval()
    with torch.no_grad():
        expected = 0
        for start in (0, 8, 16):
            crop = batch.images[..., start : start + 32]
            segments = [
                module.backbone(module.backbone.normalize(crop[:, i : i + 2])).last.flatten(1, 3) for i in (0, 2)
            ]
            expected = expected + module.probes[0](torch.cat(segments, dim=1)).softmax(-1) / 3
        torch.testing.assert_close(module.probabilities(batch)[0], expected)


@pytest.mark.parametrize(
    ("size", "crops", "starts"),
    [((256, 455), 3, [0, 99, 198]), ((256, 455), 1, [99]), ((300, 256), 3, [0, 22, 44]), ((32, 32), 3, [0, 0, 0])],
)
def test_crops_lie_along_the_longer_side(size, crops, starts):
    H, W = size
    side = min(size)
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    images = torch.stack([rows // 2, columns // 2, rows * 0]).to(torch.uint8)[None, None]
    for view, start in zip(spatial_views(images, crops), starts, strict=True):
        expected = images[..., start : start + side] if W > H else images[..., start : start + side, :]
        assert torch.equal(view, expected)


def test_pooled_tokens_keep_the_order_of_segments_and_frames():
    backbone = freeze(create_model("vit_nano"))
    images = torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8)
    tokens = clip_tokens(backbone, images, frames_per_segment=2, token_grid=1)
    second = backbone(backbone.normalize(images[:, 2:])).last.mean((2, 3))
    torch.testing.assert_close(tokens[:, 2:], second)
    assert clip_tokens(backbone, images).shape == (2, 64, 64)


def test_quick_probe_on_cached_features():
    torch.manual_seed(0)
    backbone = create_model("vit_nano")
    train = cache_features(backbone, _loader(96), token_grid=2)
    held_out = cache_features(backbone, _loader(40), token_grid=2)
    assert train.tokens.shape == (96, 4 * 4, 64)
    assert backbone.training
    assert all(p.requires_grad for p in backbone.parameters())
    state = torch.get_rng_state()
    result = fit_action_probe(*train, *held_out, num_classes=4, epochs=15, batch_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert result.accuracy == 1.0
    assert result.chance == 0.25
    assert torch.equal(result.predictions, held_out.labels)
    again = fit_action_probe(*train, *held_out, num_classes=4, epochs=15, batch_size=16)
    assert again[1:4] == result[1:4]


@pytest.mark.parametrize("position_embedding", [False, True])
def test_order_of_two_events_needs_time_in_the_features_or_in_the_probe(position_embedding):
    # Two events, one after the other; the class is which came first.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 2
    features = 0.1 * torch.randn(240, 2, 16, generator=generator)
    features[torch.arange(240), 0, labels] += 1.0
    features[torch.arange(240), 1, 1 - labels] += 1.0
    result = fit_action_probe(
        *(features[:200], labels[:200], features[200:], labels[200:]),
        num_classes=2,
        config=ProbeConfig(num_layers=2, num_heads=4, lrs=(1e-2,)),
        position_embedding=position_embedding,
        epochs=40,
        batch_size=32,
    )
    assert result.accuracy > 0.9 if position_embedding else result.accuracy < 0.7


def test_quick_probe_is_at_chance_where_labels_are_random():
    # A probe that saw the evaluated labels would do better than this.
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, 2, 16, generator=generator), torch.randint(4, (300,), generator=generator)
    result = fit_action_probe(features[:100], labels[:100], features[100:], labels[100:], num_classes=4, epochs=10)
    assert abs(result.accuracy - 0.25) < 0.1


def test_mistakes_are_named():
    backbone = create_model("vit_nano")
    clips = torch.zeros(1, 3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="evaluation mode"):
        clip_tokens(backbone.train(), clips)
    with pytest.raises(ValueError, match="3 frames do not make segments of 2"):
        clip_tokens(freeze(backbone), clips, frames_per_segment=2)
    with pytest.raises(ValueError, match="loader is empty"):
        cache_features(backbone, [])
    unlabelled = FrameClip(images=clips, label=torch.tensor([-1]), name=["x"], seed=torch.tensor([0]))
    with pytest.raises(ValueError, match="labelled clips"):
        cache_features(backbone, [unlabelled])
    module = ActionProbeModule(backbone, 4, probe=SMALL)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)"):
        module.validation_step(unlabelled, 0)
    with pytest.raises(ValueError, match="lrs must be positive"):
        ProbeConfig(lrs=())
