"""The evaluations at the end of whole runs against direct computations."""

import copy
from itertools import pairwise

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from omnistream.backbone import create_model
from omnistream.callbacks import Comparison, HeldOutEvaluation
from omnistream.data import EvaluationDataModule, MultiTaskDataModule, Source
from omnistream.data.batch import CaptionClip, FrameClip, SceneClip
from omnistream.data.world import WorldCaptions, WorldScenes
from omnistream.evaluation import EvaluationResult
from omnistream.language.decoder import DecoderConfig
from omnistream.metrics import constant_abs_rel, unigram_entropy
from omnistream.tasks import MultiTaskModule, OptimizerConfig
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.probing import AttentiveActionProbe, LinearActionProbe, ProbeConfig

SIZE = (32, 32)
DECODER = DecoderConfig(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16)
CAPTIONS = {"size": SIZE, "tasks": ("caption",)}
PROBE = ProbeConfig(num_layers=1, num_heads=2, lrs=(1e-2,), query_std=1.0)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Colours(Dataset):
    """Clips in red, green or blue, in turn: what a clip shows is its class. Counts how often it is read."""

    collate = staticmethod(FrameClip.collate)

    def __init__(self, num_samples):
        self.num_samples, self.reads = num_samples, 0

    def __len__(self):
        return self.num_samples

    def __getitem__(self, index):
        self.reads += 1
        images = torch.randint(60, (2, 3, *SIZE), generator=torch.Generator().manual_seed(index)).byte()
        images[:, index % 3] += 190
        label, seed = torch.tensor(index % 3), torch.tensor(index)
        return FrameClip(images=images, label=label, name=str(index), seed=seed)


def trainer(folder, *callbacks, max_steps=3, **options):
    return Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        default_root_dir=str(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **options,
    )


def fit(folder, callback, tasks, sources, blind=False):
    """A short run; a blind backbone ends with the same features for all that it is shown."""
    torch.manual_seed(0)
    backbone = create_model("vit_nano", layer_scale_init=0.5)
    if blind:
        nn.init.zeros_(backbone.norm.weight)
        backbone.norm.requires_grad_(False)
    module = MultiTaskModule(backbone, tasks, optimizer=OptimizerConfig(lr=3e-3, warmup_steps=1))
    run = trainer(folder, callback)
    run.fit(module, MultiTaskDataModule(sources))
    return module, run


def geometry():
    return GeometryModule(features=16, out_channels=(8, 8, 16, 16), hidden=8)


def scenes(num_samples, split="train"):
    return WorldScenes(num_samples, split, num_frames=2, size=SIZE)


def whole(dataset, kind):
    return next(iter(DataLoader(dataset, batch_size=len(dataset), collate_fn=kind.collate)))


def fresh(backbone, seed):
    """A backbone with the weights of its own initialisation under this seed."""
    model = copy.deepcopy(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.reset_parameters()
    model.rope_rescale = None
    return model.requires_grad_(False).eval()


COMPARISONS = [
    Comparison(title="depth", evaluation="objectives", metric="geometry/abs_rel",
               baseline="geometry/abs_rel_constant", baseline_title="constant", at_most=0.6),
    Comparison(title="depth", evaluation="objectives", metric="geometry/abs_rel",
               baseline="untrained", baseline_title="untrained", at_most=0.95),
    Comparison(title="captions", evaluation="objectives", metric="captioning/token_loss",
               baseline="captioning/token_loss_unigram", baseline_title="unigram", unit="nats"),
    Comparison(title="captions", evaluation="objectives", metric="captioning/token_loss",
               baseline="captioning/token_loss_other_image", baseline_title="other image", unit="nats"),
    Comparison(title="none", evaluation="actions", metric="accuracy", baseline="untrained", baseline_title=""),
]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run with depth and captions evaluated on 5 samples each, in batches of 2 and 3."""
    folder = tmp_path_factory.mktemp("run")
    callback = HeldOutEvaluation(protocol="tiny", retrained=["geometry"], steps=2, comparisons=COMPARISONS)
    tasks = {"geometry": geometry(), "captioning": CaptioningModule(decoder=DECODER, num_generations=0)}
    captions = Source(WorldCaptions(8, **CAPTIONS), None, 2, 3, test=WorldCaptions(5, "test", **CAPTIONS))
    sources = {"geometry": Source(scenes(8), None, 2, test=scenes(5, "test")), "captioning": captions}
    module, run = fit(folder, callback, tasks, sources)
    return callback, module.eval(), run, folder


def test_depth_is_beside_the_best_constant_and_an_untrained_backbone(evaluated):
    callback, module, run, _ = evaluated
    against_constant, against_untrained = callback.metric_rows()[:2]
    task, untrained = module.objectives["geometry"], fresh(module.backbone, callback.seed + 1)
    test = whole(run.datamodule.sources["geometry"].test, SceneClip)
    targets = task.targets(test)

    def error(heads, backbone):
        with torch.no_grad():
            off = (heads.predict(backbone, test.images).depth - targets.depth).abs() / targets.depth
        return float(off[targets.valid].double().mean())

    # The heads trained by hand: same first weights, batches, optimiser.
    torch.manual_seed(callback.seed)
    single = MultiTaskModule(untrained, {"geometry": geometry()}, optimizer=module.optimizer_config)
    before = copy.deepcopy(untrained.state_dict())
    trainer(".", max_steps=2).fit(single, MultiTaskDataModule({"geometry": run.datamodule.sources["geometry"]}))
    assert all(torch.equal(value, before[name]) for name, value in untrained.state_dict().items())
    trained, other = error(task, module.backbone), error(single.eval().objectives["geometry"], untrained)
    constant = float(constant_abs_rel(targets.depth, targets.valid))
    assert min(abs(a - b) for a, b in pairwise(sorted([trained, other, constant]))) > 1e-3  # or nothing is shown
    assert (against_constant.value, against_constant.baseline) == pytest.approx((trained, constant), abs=2e-3)
    assert (against_untrained.value, against_untrained.baseline) == pytest.approx((trained, other), rel=1e-4)
    assert against_constant.at_most == 0.6


def test_captions_are_beside_token_frequencies_and_other_images(evaluated):
    callback, module, run, _ = evaluated
    against_frequencies, against_other_images = callback.metric_rows()[2:]
    task, batch = module.objectives["captioning"], whole(run.datamodule.sources["captioning"].test, CaptionClip)

    def loss(images):
        exchanged = CaptionClip(images=images, target=batch.target, name=batch.name, seed=batch.seed)
        result = task.token_loss(module.backbone, exchanged)
        return float(result.total / result.count)

    true, other = loss(batch.images), loss(batch.images[[2, 0, 1, 4, 3]])  # in batches of three and two
    entropy = float(unigram_entropy(task.answer_token_counts(batch)))
    assert min(abs(a - b) for a, b in pairwise(sorted([true, other, entropy]))) > 1e-4
    assert (against_frequencies.value, against_frequencies.baseline) == pytest.approx((true, entropy), abs=1e-5)
    assert (against_other_images.value, against_other_images.baseline) == pytest.approx((true, other), abs=1e-5)
    assert against_frequencies.unit == "nats"


def test_every_evaluation_writes_its_results(evaluated):
    callback, module, run, folder = evaluated
    trained = EvaluationResult.read(folder / "evaluation" / "trained" / "objectives" / "results.json")
    untrained = EvaluationResult.read(folder / "evaluation" / "untrained" / "objectives" / "results.json")
    assert trained.metrics == callback.trained["objectives"].metrics
    assert trained.protocol == untrained.protocol == "tiny"
    assert trained.num_samples == 5
    assert trained.model["weights_sha256"] != untrained.model["weights_sha256"]
    assert trained.metrics["geometry/abs_rel"].higher_is_better is False
    assert set(untrained.metrics) == {name for name in trained.metrics if name.startswith("geometry/")}
    assert module.trainer is run  # the evaluations' own trainers are gone
    assert run.datamodule.trainer is run
    assert any(parameter.requires_grad for parameter in module.backbone.parameters())


def test_probes_tell_a_blind_backbone_from_the_untrained_one(tmp_path):
    train, test = Colours(30), Colours(13)
    rows = [
        Comparison(title=key, evaluation=key, metric="accuracy", baseline=baseline, baseline_title="")
        for key in ("linear", "attentive")
        for baseline in ("accuracy_majority", "untrained")
    ]
    callback = HeldOutEvaluation(
        data=EvaluationDataModule(train, test, batch_size=8),
        probes={
            "linear": lambda backbone: LinearActionProbe(backbone, 3, token_grid=1),
            "attentive": lambda backbone: AttentiveActionProbe(
                backbone, 3, probe=PROBE, token_grid=1, repetitions=2, cache=True, standardize=True
            ),
        },
        comparisons=rows,
    )
    fit(tmp_path, callback, {"geometry": geometry()}, {"geometry": Source(scenes(8), None, 2)}, blind=True)
    found = callback.metric_rows()
    chance, untrained = found[0::2], found[1::2]
    # Three classes in 13 clips: one is seen 5 times, the others 4 times.
    assert [row.baseline for row in chance] == pytest.approx([5 / 13, 5 / 13])
    assert [row.baseline for row in untrained] == [1.0, 1.0]
    assert all(row.value <= 5 / 13 + 1e-6 for row in found)
    assert (train.reads, test.reads) == (30, 13)  # once for both probes and both backbones
    assert {path.parent.name for path in (tmp_path / "evaluation").rglob("results.json")} == {"linear", "attentive"}


def test_probes_of_equal_features_share_them(tmp_path, monkeypatch):
    counts = []
    extract_all = LinearActionProbe.extract_all
    monkeypatch.setattr(
        "omnistream.evaluation.frozen.FrozenProbe.extract_all",
        lambda self, loader, **options: counts.append(self.token_grid) or extract_all(self, loader, **options),
    )
    callback = HeldOutEvaluation(
        data=EvaluationDataModule(Colours(6), Colours(3)),
        probes={
            str(i): (lambda backbone, grid=grid: LinearActionProbe(backbone, 3, token_grid=grid))
            for i, grid in enumerate((1, 1, 2))
        },
    )
    fit(tmp_path, callback, {"geometry": geometry()}, {"geometry": Source(scenes(8), None, 2)})
    assert counts == [1, 1, 2, 2] * 2  # training and test set, for the trained and the untrained backbone


def test_what_could_not_be_evaluated_is_refused_before_training(tmp_path):
    alone = GeometryModule(create_model("vit_nano"), features=16, out_channels=(8, 8, 16, 16), hidden=8)
    loader = DataLoader(scenes(2), batch_size=2, collate_fn=SceneClip.collate)
    with pytest.raises(ValueError, match="evaluates a MultiTaskModule, got GeometryModule; remove the callback"):
        trainer(tmp_path, HeldOutEvaluation()).fit(alone, loader)
    named = {"geometry/real": Source(scenes(2), None, 2)}
    with pytest.raises(ValueError, match=r"data sources of the same name, there are \['geometry/real'\]"):
        fit(tmp_path, HeldOutEvaluation(retrained=["geometry"]), {"geometry": geometry()}, named)
    with pytest.raises(ValueError, match="need data with a train and a test set"):
        HeldOutEvaluation(probes={"x": LinearActionProbe}, data=EvaluationDataModule(Colours(3)))
