import math
from dataclasses import asdict, replace

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from omnistream.backbone import create_model
from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.evaluation import CachedFeatures, FeatureBatch
from omnistream.tasks.probing import AttentiveActionProbe, LinearActionProbe, ProbeConfig
from omnistream.tasks.probing.attention_images import draw_attention
from omnistream.tasks.probing.clip_features import clip_tokens

SMALL = ProbeConfig(num_layers=2, num_heads=2, lrs=(3e-3, 1e-8))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Clips(Dataset):
    """A moving bar whose colour is the class: an untrained backbone tells colours, but hardly times, apart."""

    collate = staticmethod(FrameClip.collate)

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


def trainer(**kwargs):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return lightning.Trainer(enable_model_summary=False, **options, **kwargs)


@pytest.mark.parametrize("cache", [False, True])
def test_attentive_probes_learn_and_the_better_one_is_reported(cache):
    probe = AttentiveActionProbe(create_model("vit_nano"), 4, probe=SMALL, cache=cache)
    run = trainer(max_epochs=6)
    data = EvaluationDataModule(Clips(64), Clips(32), holdout=0.2, batch_size=8)
    run.fit(probe, data)
    (found,) = run.test(probe, data, verbose=False)
    assert found["test/accuracy"] == found["test/accuracy/0"] == 1.0 > found["test/accuracy/1"]
    assert found["test/accuracy_majority"] == 0.25
    assert probe.test_results()["selection"]["setting"] == {"lr": 3e-3, "weight_decay": 0.01}
    assert probe.test_results()["settings"]["probe"]["num_layers"] == 2
    assert probe.confusion.tolist() == [[8 * (row == column) for column in range(4)] for row in range(4)]
    classes = probe.test_results()["per_class"]
    assert (classes.names, classes.values, classes.counts) == (["0", "1", "2", "3"], [1.0] * 4, [8] * 4)
    assert set(probe.draw_results()) == {"confusion"}


def test_linear_probe_through_a_trainer_and_a_checkpoint(tmp_path):
    def probe():
        torch.manual_seed(0)
        return LinearActionProbe(create_model("vit_nano"), 4, token_grid=2)

    data = EvaluationDataModule(Clips(64), Clips(30), batch_size=16)
    first, run = probe(), trainer(max_epochs=1, default_root_dir=str(tmp_path))
    run.fit(first, data)
    assert run.test(first, data, verbose=False)[0]["test/accuracy"] == 1.0
    run.save_checkpoint(tmp_path / "linear.ckpt")
    again = probe()
    assert run.test(again, data, ckpt_path=tmp_path / "linear.ckpt", verbose=False)[0]["test/accuracy"] == 1.0
    with pytest.raises(ValueError, match=r"set trainer.max_epochs and devices to 1"):
        trainer(max_epochs=2).fit(probe(), data)


def batch_of_views(frames=4, views=3):
    clips = [replace(Clips(2, frames)[i], images=torch.randint(0, 255, (views, frames, 3, 32, 32), dtype=torch.uint8))
             for i in range(2)]  # fmt: skip
    return FrameClip.collate(clips)


def segment_tokens(module, images, first):
    return module.backbone(module.backbone.normalize(images[:, first : first + 2])).last.flatten(1, 3)


@pytest.mark.parametrize("across", [True, False])
def test_probabilities_are_averaged_over_views_and_tokens_of_segments_joined(across):
    batch = batch_of_views()
    module = AttentiveActionProbe(
        create_model("vit_nano"), 4, probe=SMALL, frames_per_segment=2, attend_across_segments=across
    )
    module.configure_model()
    module.eval()
    head, expected = module.heads[0], 0
    with torch.no_grad():
        for view in batch.images.unbind(1):
            segments = [segment_tokens(module, view, first) for first in (0, 2)]
            for tokens in [torch.cat(segments, dim=1)] if across else segments:
                expected = expected + head(tokens).softmax(-1) / (3 if across else 6)
        torch.testing.assert_close(module.predict(head, module.extract(batch).features), expected)


def test_segments_apart_are_samples_in_training():
    batch = FrameClip.collate([Clips(2)[i] for i in range(2)])
    module = AttentiveActionProbe(
        create_model("vit_nano"), 4, probe=SMALL, frames_per_segment=2, attend_across_segments=False
    ).train()
    features, target = module.extract(batch)
    assert target.tolist() == [0, 0, 1, 1]
    for row, (sample, first) in enumerate([(0, 0), (0, 2), (1, 0), (1, 2)]):
        expected = segment_tokens(module, batch.images[sample : sample + 1], first)[0]
        torch.testing.assert_close(features[row], expected)


def test_tokens_of_single_frames_know_nothing_of_time():
    backbone = create_model("vit_nano").eval()
    images = torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8)
    order = [2, 0, 3, 1]

    def frames(**options):
        own = [clip_tokens(backbone, clip, **options).unflatten(1, (4, 16)) for clip in (images, images[:, order])]
        return own[0][:, order], own[1]

    torch.testing.assert_close(*frames(per_frame=True))
    shuffled, again = frames()
    assert (shuffled - again).abs().max() > 1e-3
    batch = FrameClip.collate([Clips(2)[i] for i in range(2)])
    module = AttentiveActionProbe(backbone, 4, probe=SMALL, per_frame=True).eval()
    module.configure_model()
    flipped = replace(batch, images=batch.images.flip(1))
    found = [module.predict(module.heads[0], module.extract(one).features) for one in (batch, flipped)]
    torch.testing.assert_close(*found)
    assert module.options()["per_frame"] is True


def test_optimiser_and_schedule_are_v_jepas():
    probe = AttentiveActionProbe(create_model("vit_nano"), 4, probe=SMALL, selection="test")
    rates, run = [], trainer(max_epochs=2)
    probe.on_train_batch_end = lambda *_: rates.append(run.optimizers[0].param_groups[0]["lr"])
    run.fit(probe, EvaluationDataModule(Clips(16), batch_size=4))
    (optimizer,) = run.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    for group, lr, head in zip(optimizer.param_groups, SMALL.lrs, probe.heads, strict=True):
        assert (group["weight_decay"], group["betas"], group["eps"]) == (0.01, (0.9, 0.999), 1e-8)
        assert group["initial_lr"] == lr
        assert {id(p) for p in group["params"]} == {id(p) for p in head.parameters()}  # norms, biases, query too
    # No warm-up: the first step is made with cos(pi / N), and the rate after step i is that of step i + 1.
    expected = [0.5 * SMALL.lrs[0] * (1 + math.cos(math.pi * min(i + 1, 8) / 8)) for i in range(1, 9)]
    assert rates == pytest.approx(expected)


def test_draws_where_the_query_looks():
    batch = batch_of_views(frames=4)
    module = AttentiveActionProbe(create_model("vit_nano"), 4, probe=SMALL, frames_per_segment=2).eval()
    module.configure_model()
    drawn = module.draw(batch)
    assert {image.shape for image in drawn.values()} == {(3, 32, 128)}
    frames, lit = drawn.values()
    assert torch.equal(frames[:, :, 32:64], batch.images[0, 1, 1])  # the central view
    assert (lit <= frames).all()
    assert (lit < frames).float().mean() > 0.5


def test_the_brightest_place_has_most_attention():
    attention = torch.zeros(2, 2, 2)
    attention[1, 0, 1] = 0.5
    images = torch.full((4, 3, 32, 32), 200, dtype=torch.uint8)  # two frames for each time step
    lit = draw_attention(images, attention.flatten(), (2, 2))["attention of the query"]
    assert lit.shape == (3, 32, 64)
    assert int(lit[0, 4, 60]) == 200
    assert int(lit[0, 4, 4]) == int(lit[0, 28, 36]) == 30


def test_pooled_tokens_keep_the_order_of_segments_and_frames():
    backbone = create_model("vit_nano").eval()
    images = torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8)
    tokens = clip_tokens(backbone, images, frames_per_segment=2, token_grid=1)
    second = backbone(backbone.normalize(images[:, 2:])).last.mean((2, 3))
    torch.testing.assert_close(tokens[:, 2:], second)
    assert clip_tokens(backbone, images).shape == (2, 64, 64)


def accuracy_on_features(features, labels, num_train, config, epochs):
    """Test accuracy of a probe fitted to given features in place of clips."""
    backbone = nn.Identity()
    backbone.embed_dim = features.shape[-1]
    probe = AttentiveActionProbe(backbone, int(labels.max()) + 1, probe=config, selection="test")
    run = trainer(max_epochs=epochs)
    train = CachedFeatures([FeatureBatch(features[:num_train], labels[:num_train])])
    test = CachedFeatures([FeatureBatch(features[num_train:, None], labels[num_train:])])
    run.fit(probe, train.loader(32, shuffle=True))
    return run.test(probe, test.loader(50), verbose=False)[0]["test/accuracy"]


@pytest.mark.parametrize("num_positions", [None, 2])
def test_order_of_two_events_needs_time_in_the_features_or_in_the_probe(num_positions):
    # Two events, one after the other; the class is which came first.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 2
    features = 0.1 * torch.randn(240, 2, 16, generator=generator)
    features[torch.arange(240), 0, labels] += 1.0
    features[torch.arange(240), 1, 1 - labels] += 1.0
    config = ProbeConfig(num_layers=2, num_heads=4, lrs=(1e-2,), num_positions=num_positions)
    accuracy = accuracy_on_features(features, labels, 200, config, epochs=40)
    assert accuracy > 0.9 if num_positions else accuracy < 0.7


def test_probe_is_at_chance_where_labels_are_random():
    # A probe that saw the evaluated labels would do better than this.
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, 2, 16, generator=generator), torch.randint(4, (300,), generator=generator)
    config = ProbeConfig(num_layers=1, num_heads=4, lrs=(1e-3,))
    assert abs(accuracy_on_features(features, labels, 100, config, epochs=10) - 0.25) < 0.1


def test_mistakes_are_named():
    backbone = create_model("vit_nano")
    clips = torch.zeros(1, 3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="3 frames do not make segments of 2"):
        clip_tokens(backbone.eval(), clips, frames_per_segment=2)
    unlabelled = FrameClip(images=clips, label=torch.tensor([-1]), name=["x"], seed=torch.tensor([0]))
    module = AttentiveActionProbe(backbone, 4, probe=SMALL)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)"):
        module.validation_step(unlabelled, 0)
    too_high = replace(unlabelled, label=torch.tensor([4]))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\), got 4 to 4; check num_classes"):
        module.validation_step(too_high, 0)
    for wrong in ({"lrs": ()}, {"lrs": (0.0,)}, {"weight_decays": ()}, {"weight_decays": (-0.1,)}):
        with pytest.raises(ValueError, match="lrs must be positive"):
            ProbeConfig(**wrong)
    with pytest.raises(ValueError, match=r"query_std must be positive, got 0.0"):
        ProbeConfig(query_std=0.0)


def test_settings_are_the_papers_and_every_pair_is_one():
    assert asdict(ProbeConfig()) == {
        "num_layers": 4, "num_heads": 16, "lrs": (1e-4, 3e-4), "weight_decays": (0.01,), "num_positions": None,
        "query_std": 0.02, "activation_checkpointing": False,
    }  # fmt: skip
    config = ProbeConfig(num_layers=2, num_heads=2, lrs=(1e-3, 1e-2), weight_decays=(0.0, 0.1), query_std=1.0)
    module = AttentiveActionProbe(create_model("vit_nano"), 4, probe=config)
    pairs = [(setting["lr"], setting["weight_decay"]) for setting in module.settings()]
    assert pairs == [(1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)]
    options = module.options()
    assert (options["num_classes"], options["standardize"], options["attend_across_segments"]) == (4, False, True)
    assert (options["frames_per_segment"], options["token_grid"], options["per_frame"]) == (None, None, False)


def test_the_direction_of_a_reversed_clip_takes_features_with_time():
    """Clips and their reversals: single frames are right in half of them, whatever the weights of the probe."""
    backbone, images = create_model("vit_nano").eval(), torch.randint(0, 255, (6, 4, 3, 32, 32), dtype=torch.uint8)
    clips = FrameClip(
        images=torch.cat([images, images.flip(1)]),
        label=torch.tensor([0, 2, 0, 2, 0, 2, 1, 3, 1, 3, 1, 3]),
        name=[str(i) for i in range(12)],
        seed=torch.arange(12),
    )
    found = {}
    for per_frame in (True, False):
        module = AttentiveActionProbe(backbone, 4, probe=SMALL, per_frame=per_frame, opposites=True).eval()
        module.configure_model()
        scores = module.predict(module.heads[0], module.extract(clips).features)
        metric = module.metrics()["direction_accuracy"]
        # Scores of a clip and its reversal differ by rounding at most for single frames.
        metric.update((scores * 1e4).round() if per_frame else scores, clips.label)
        found[per_frame] = (metric.compute().item(), scores)
    assert found[True][0] == 0.5
    assert (found[False][1][:6] - found[False][1][6:]).abs().max() > 1e-4
    assert "direction_accuracy" not in AttentiveActionProbe(backbone, 4, probe=SMALL).metrics()
    with pytest.raises(ValueError, match="opposites need an even number of classes, got 5"):
        AttentiveActionProbe(backbone, 5, probe=SMALL, opposites=True)
