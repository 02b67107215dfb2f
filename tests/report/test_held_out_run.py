"""The held-out figures of whole runs against direct computations, in which the models' places are known."""

import copy
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

import omnistream.report.held_out as held_out
from omnistream.backbone import create_model
from omnistream.data import MultiTaskDataModule, Source
from omnistream.data.batch import CaptionClip, FrameClip, SceneClip
from omnistream.data.world import WorldCaptions, WorldScenes
from omnistream.language.decoder import DecoderConfig
from omnistream.report.held_out import HeldOutFigures, batches_of_several, best_constant_abs_rel, train_heads
from omnistream.tasks import MultiTaskModule, OptimizerConfig
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.probing.action import ProbeConfig

SIZE = (32, 32)
DECODER = DecoderConfig(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16)
CAPTIONS = {"size": SIZE, "tasks": ("caption",)}
PROBE = ProbeConfig(num_layers=1, num_heads=2, lrs=(1e-2,), query_std=1.0)


class Colours(Dataset):
    """Clips in red, green or blue, in turn: what a clip shows is its class."""

    classes = ("red", "green", "blue")
    collate = staticmethod(FrameClip.collate)

    def __init__(self, num_samples):
        self.num_samples = num_samples

    def __len__(self):
        return self.num_samples

    def __getitem__(self, index):
        images = torch.randint(60, (2, 3, *SIZE), generator=torch.Generator().manual_seed(index)).byte()
        images[:, index % 3] += 190
        label, seed = torch.tensor(index % 3), torch.tensor(index)
        return FrameClip(images=images, label=label, name=str(index), seed=seed)


def trainer(callback, **options):
    return Trainer(
        max_steps=3,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **options,
    )


def fit(callback, tasks, sources, blind=False):
    """A short run; a blind backbone ends with the same features for all that it is shown."""
    backbone = create_model("vit_nano", layer_scale_init=0.5)
    if blind:
        nn.init.zeros_(backbone.norm.weight)
        backbone.norm.requires_grad_(False)
    module = MultiTaskModule(backbone, tasks, optimizer=OptimizerConfig(lr=3e-3, warmup_steps=1))
    run = trainer(callback)
    run.fit(module, MultiTaskDataModule(sources))
    return module, run


def geometry():
    return GeometryModule(features=16, out_channels=(8, 8, 16, 16), hidden=8)


def scenes(num_samples, split="train"):
    return WorldScenes(num_samples, split, num_frames=2, size=SIZE)


@pytest.fixture(scope="module")
def measured():
    """A run with depth and captions measured: 5 samples each, in batches of 2."""
    torch.manual_seed(0)
    callback = HeldOutFigures(
        scenes=scenes(5, "test"), captions=WorldCaptions(5, "test", **CAPTIONS), batch_size=2, baseline_steps=2
    )
    tasks = {"geometry": geometry(), "captioning": CaptioningModule(decoder=DECODER, num_generations=0)}
    captions = Source(WorldCaptions(8, **CAPTIONS), None, 2)
    module, run = fit(callback, tasks, {"geometry": Source(scenes(8), None, 2), "captioning": captions})
    return callback, module.eval(), run


def whole(dataset, kind):
    return next(iter(DataLoader(dataset, batch_size=len(dataset), collate_fn=kind.collate)))


def fresh(backbone, seed):
    """A backbone with the weights of its own initialisation under this seed."""
    model = copy.deepcopy(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.reset_parameters()
    return model.requires_grad_(False).eval()


def test_depth_rows_are_of_the_trained_model_a_constant_and_an_untrained_backbone(measured):
    callback, module, run = measured
    against_constant, against_untrained = callback.figures()[:2]
    task, untrained = module.objectives["geometry"], fresh(module.backbone, callback.seed + 1)
    source, config = run.datamodule.sources["geometry"], module.optimizer_config
    baseline = train_heads(task, untrained, source, config, 2, torch.device("cpu"), callback.seed)
    batch = whole(callback.scenes, SceneClip)
    targets = task.targets(batch)

    def error(heads, backbone):
        off = (heads.predict(backbone, batch.images).depth - targets.depth).abs() / targets.depth
        return float(off[targets.valid].double().mean())

    trained, other = error(task, module.backbone), error(baseline, untrained)
    constant = best_constant_abs_rel(targets.depth[targets.valid])
    assert min(abs(a - b) for a, b in pairwise(sorted([trained, other, constant]))) > 1e-3  # or nothing is shown
    assert (against_constant.value, against_constant.baseline) == pytest.approx((trained, constant), rel=1e-4)
    assert (against_untrained.value, against_untrained.baseline) == pytest.approx((trained, other), rel=1e-4)
    assert "best constant" in against_constant.baseline_name
    assert "untrained backbone" in against_untrained.baseline_name
    assert "5 held-out clips" in against_constant.name


def test_caption_rows_are_of_the_true_images_token_frequencies_and_other_images(measured):
    callback, module, _ = measured
    against_frequencies, against_other_images = callback.figures()[2:]
    task, batch = module.objectives["captioning"], whole(callback.captions, CaptionClip)

    def loss(images):
        exchanged = CaptionClip(images=images, target=batch.target, name=batch.name, seed=batch.seed)
        result = task.token_loss(module.backbone, exchanged)
        return float(result.total / result.count)

    true, other = loss(batch.images), loss(batch.images[[1, 0, 4, 2, 3]])  # the last batch has three samples
    counts = task.answer_token_counts(batch).double()
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * share.log()).sum())
    assert min(abs(a - b) for a, b in pairwise(sorted([true, other, entropy]))) > 1e-4
    assert (against_frequencies.value, against_frequencies.baseline) == pytest.approx((true, entropy), abs=1e-5)
    assert (against_other_images.value, against_other_images.baseline) == pytest.approx((true, other), abs=1e-5)
    assert "frequencies" in against_frequencies.baseline_name
    assert "another image" in against_other_images.baseline_name


def test_action_rows_tell_a_blind_backbone_from_the_untrained_one():
    callback = HeldOutFigures(
        actions_train=Colours(30), actions_test=Colours(13), token_grid=1, probe=PROBE, action_note="three colours"
    )
    fit(callback, {"geometry": geometry()}, {"geometry": Source(scenes(8), None, 2)}, blind=True)
    chance, untrained = callback.figures()[0::2], callback.figures()[1::2]
    # Three classes in 13 clips: one is seen 5 times, the others 4 times.
    assert [row.baseline for row in chance] == pytest.approx([5 / 13, 5 / 13])
    assert [row.baseline for row in untrained] == [1.0, 1.0]
    assert all(row.value <= 5 / 13 + 1e-6 for row in callback.figures())
    assert [row.value for row in chance] == [row.value for row in untrained]
    assert all("linear" in row.name and row.note == "three colours" for row in callback.figures()[:2])
    note = "three colours; mean of 2 probes with different seeds"
    assert all("attentive" in row.name and row.note == note for row in callback.figures()[2:])


def test_attentive_accuracies_are_means_over_seeds(monkeypatch):
    accuracies = {7: 0.2, 8: 0.3, 9: 0.7}
    monkeypatch.setattr(held_out, "fit_action_probe", lambda *_, seed, **__: SimpleNamespace(accuracy=accuracies[seed]))
    callback = HeldOutFigures(actions_train=Colours(6), actions_test=Colours(3), probe_seeds=3, seed=7)
    features = held_out.CachedFeatures(torch.zeros(3, 1, 4), torch.arange(3))
    assert callback._attentive_accuracy(features, features, 3) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="probe_seeds must be at least 1, got 0"):
        HeldOutFigures(probe_seeds=0)


def test_no_batch_holds_a_single_sample():
    assert batches_of_several(5, 2) == [[0, 1], [2, 3, 4]]
    assert batches_of_several(7, 3) == [[0, 1, 2], [3, 4, 5, 6]]
    assert batches_of_several(8, 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert batches_of_several(3, 1) == [[0, 1, 2]]
    assert batches_of_several(1, 4) == [[0]]


def test_what_could_not_be_measured_is_refused_before_training():
    alone = GeometryModule(create_model("vit_nano"), features=16, out_channels=(8, 8, 16, 16), hidden=8)
    loader = DataLoader(scenes(2), batch_size=2, collate_fn=SceneClip.collate)
    with pytest.raises(ValueError, match="measures a MultiTaskModule, got GeometryModule; remove the callback"):
        trainer(HeldOutFigures(scenes=scenes(2))).fit(alone, loader)
    named = {"geometry/real": Source(scenes(2), None, 2)}
    with pytest.raises(ValueError, match=r"a data source 'geometry', there are \['geometry/real'\]"):
        fit(HeldOutFigures(scenes=scenes(2)), {"geometry": geometry()}, named)
    captions = {"captioning": Source(WorldCaptions(2, **CAPTIONS), None, 2)}
    tasks = {"captioning": CaptioningModule(decoder=DECODER, num_generations=0)}
    with pytest.raises(ValueError, match="give at least two captions"):
        fit(HeldOutFigures(captions=WorldCaptions(1, **CAPTIONS)), tasks, captions)
