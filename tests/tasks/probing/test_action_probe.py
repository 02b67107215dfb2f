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
from omnistream.tasks.probing.clip_features import clip_tokens, spatial_views

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
    probe = AttentiveActionProbe(create_model("vit_nano"), 4, probe=SMALL, num_crops=1, cache=cache)
    run = trainer(max_epochs=6)
    data = EvaluationDataModule(Clips(64), Clips(32), holdout=0.2, batch_size=8)
    run.fit(probe, data)
    (found,) = run.test(probe, data, verbose=False)
    assert found["test/accuracy"] == found["test/accuracy/0"] == 1.0 > found["test/accuracy/1"]
    assert found["test/accuracy_majority"] == 0.25
    assert probe.test_results()["selection"]["setting"] == {"lr": 3e-3, "weight_decay": 0.01}
    assert probe.test_results()["settings"]["probe"]["num_layers"] == 2


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


def test_views_are_averaged_as_probabilities_and_segments_are_joined():
    batch = FrameClip.collate([Clips(2, frames=4, size=(32, 48))[i] for i in range(2)])
    module = AttentiveActionProbe(create_model("vit_nano"), 4, probe=SMALL, frames_per_segment=2, num_crops=3).eval()
    module.configure_model()
    with torch.no_grad():
        expected = 0
        for start in (0, 8, 16):
            crop = batch.images[..., start : start + 32]
            segments = [
                module.backbone(module.backbone.normalize(crop[:, i : i + 2])).last.flatten(1, 3) for i in (0, 2)
            ]
            expected = expected + module.heads[0](torch.cat(segments, dim=1)).softmax(-1) / 3
        torch.testing.assert_close(module.predict(module.heads[0], module.extract(batch).features), expected)


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
    with pytest.raises(ValueError, match="lrs must be positive"):
        ProbeConfig(lrs=())
