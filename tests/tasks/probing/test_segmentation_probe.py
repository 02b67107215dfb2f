import json
import shutil
import sys

import lightning
import pytest
import segmentation_runs
import torch
import torch.nn.functional as F
from ade20k_files import write_ade20k
from probe_runs import check_two_processes
from torch import nn

from omnistream.backbone import create_model
from omnistream.cli import main
from omnistream.data import EvaluationDataModule, LabelledImage
from omnistream.data.images import ADE20K, ADE20KDataModule
from omnistream.data.label_colours import colour_classes
from omnistream.evaluation.sliding_window import sliding_windows
from omnistream.tasks.probing import LinearSegmentationHead, SegmentationProbe
from omnistream.tasks.probing.segmentation import segmentation_loss, warmup_one_cycle

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""Lightning's about few workers and steps."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ade20k(tmp_path_factory.mktemp("data") / "ADEChallengeData2016", {"train": 12, "val": 3})


def probe(**options):
    torch.manual_seed(0)
    defaults = {"num_classes": 4, "window": 32, "stride": 21, "lr": 0.03, "warmup_steps": 2}
    return SegmentationProbe(create_model("vit_nano"), **defaults | options)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return lightning.Trainer(
        default_root_dir=str(folder), accelerator="cpu", enable_checkpointing=False, **quiet | options
    )


def batch_of(size=(40, 56), labels=(50, 70), count=2):
    g = torch.Generator().manual_seed(0)
    return LabelledImage(
        images=torch.randint(256, (count, 1, 3, *size), generator=g).to(torch.uint8),
        labels=torch.randint(4, (count, *labels), generator=g).to(torch.uint8),
        name=[str(n) for n in range(count)],
        seed=torch.arange(count),
    )


@pytest.mark.parametrize(
    ("iteration", "lr"),
    [
        (0, 1.0e-9),
        (1, 1.0e-9),
        (2, 6.676493e-7),
        (750, 4.899838e-4),
        (1499, 9.612666e-4),
        (1500, 9.618833e-4),
        (1501, 9.965296e-4),
        (10000, 8.535534e-4),
        (20000, 5.0e-4),
        (39999, 1.542e-12),
    ],
)
def test_learning_rates_of_the_official_code(iteration, lr):
    assert 1e-3 * warmup_one_cycle(iteration, 40000, 1500) == pytest.approx(lr, rel=5e-4 if lr < 1e-11 else 1e-6)


def test_every_step_takes_the_learning_rate_of_the_schedule(root, tmp_path):
    module, run, found = probe(lr=1e-3, warmup_steps=3), trainer(tmp_path, max_steps=8, limit_val_batches=0), []
    module.on_train_batch_start = lambda *_: found.append(run.optimizers[0].param_groups[0]["lr"])
    run.fit(module, ADE20KDataModule(root, size=32, batch_size=4, num_workers=0))
    assert found == pytest.approx([1e-3 * warmup_one_cycle(step, 8, 3) for step in range(8)], rel=1e-9)
    (optimizer,) = run.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], len(group["params"])) == ((0.9, 0.999), 1e-3, 4)


def test_head_is_dropout_norm_and_one_convolution():
    head = LinearSegmentationHead(1024, 150)
    assert sum(p.numel() for p in head.parameters()) == 155_798
    assert [type(layer).__name__ for layer in head] == ["Dropout2d", "FeatureBatchNorm", "Conv2d"]
    assert float(head[2].weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert head[2].bias.abs().max() == 0
    assert head[0].p == 0.1
    head(torch.randn(4, 1024, 2, 2) * 3 + 1)
    head.eval()
    x = torch.randn(1, 1024, 2, 3)
    norm = (x - head[1].running_mean[:, None, None]) / (head[1].running_var[:, None, None] + 1e-5).sqrt()
    expected = torch.einsum("b d h w, c d -> b c h w", norm, head[2].weight[:, :, 0, 0])
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-4)


def test_defaults_are_those_of_ade20k():
    module = SegmentationProbe(create_model("vit_nano"))
    published = {"num_classes": 150, "window": 512, "stride": 341, "warmup_steps": 1500, "dropout": 0.1}
    assert module.options() == published
    assert module.settings() == [{"lr": 1e-3, "weight_decay": 1e-3}]
    assert module.protocol == "segmentation/ade20k"


def test_ignored_pixels_are_in_the_denominator():
    logits = (2 * torch.sin(0.37 * torch.arange(72.0))).view(2, 4, 3, 3)
    target = torch.arange(18).view(2, 3, 3) % 5
    target[target == 4] = 255
    assert float(segmentation_loss(logits, target)) == pytest.approx(1.752995, abs=1e-6)
    assert float(F.cross_entropy(logits, target, ignore_index=255)) == pytest.approx(2.103593, abs=1e-6)


def test_loss_is_at_the_size_of_the_labels():
    logits, target = torch.randn(1, 4, 2, 3), torch.randint(4, (1, 8, 12))
    upsampled = F.interpolate(logits, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(probe().loss(logits, target), F.cross_entropy(upsampled, target))


def test_features_are_patches_of_crops_and_of_all_windows():
    module, batch = probe(), batch_of()
    module.eval()
    tokens = module.features(batch)
    windows = sliding_windows(40, 56, 32, 21)
    assert tokens.shape == (2, len(windows), 64, 4, 4)
    for n, window in enumerate(windows):
        images = module.backbone.normalize(window.of(batch.images))
        expected = module.backbone(images).last[:, 0].permute(0, 3, 1, 2)
        torch.testing.assert_close(tokens[:, n], expected)
    module.train()
    crops = batch_of((32, 32), (32, 32))
    expected = module.backbone(module.backbone.normalize(crops.images)).last[:, 0].permute(0, 3, 1, 2)
    torch.testing.assert_close(module.features(crops), expected)


def test_predictions_have_the_size_of_the_labels():
    """Against a direct computation: logits per window at 32 pixels, their mean at 40 x 56, bilinearly at 50 x 70."""
    module, batch = probe(), batch_of()
    module.configure_model()
    module.eval()
    nn.init.normal_(module.heads[0][2].weight)
    features = module.extract(batch).features
    total, count = torch.zeros(2, 4, 40, 56), torch.zeros(40, 56)
    for n, (top, left, size) in enumerate(sliding_windows(40, 56, 32, 21)):
        logits = F.interpolate(module.heads[0](features[:, n]), (size, size), mode="bilinear", align_corners=False)
        total[..., top : top + size, left : left + size] += logits
        count[top : top + size, left : left + size] += 1
    expected = F.interpolate(total / count, (50, 70), mode="bilinear", align_corners=False).argmax(1)
    found = module.predict_batch(module.heads[0], features, batch)
    assert found.shape == (2, 50, 70)
    assert (found == expected).float().mean() > 0.999
    module.heads[0][2].bias.data.fill_(torch.nan)
    assert (module.predict_batch(module.heads[0], features, batch) == -1).all()


def test_pictures_of_the_first_sample():
    module, batch = probe(), batch_of()
    module.configure_model()
    module.eval()
    batch.labels[0, :5] = 255
    drawn = module.draw(batch)
    assert list(drawn) == ["image", "truth", "prediction"]
    assert torch.equal(drawn["image"], batch.images[0, 0])
    assert torch.equal(drawn["truth"], colour_classes(batch.labels[0]))
    predicted = module.predict_batch(module.heads[0], module.extract(batch).features, batch)[0]
    predicted[:5] = 255
    assert torch.equal(drawn["prediction"], colour_classes(predicted))


def test_it_learns_bands_and_reports_the_last_and_the_best(root, tmp_path):
    module, run = probe(), trainer(tmp_path, max_steps=12, val_check_interval=3, check_val_every_n_epoch=None)
    data = ADE20KDataModule(root, size=32, hue=0.02, batch_size=4, num_workers=0)
    found, values = [], []
    module.on_validation_end = lambda: found.append((float(run.callback_metrics["val/miou"]), run.global_step))
    run.fit(module, data)
    assert [step for _, step in found] == [3, 6, 9, 12]
    (tested,) = run.test(module, data, verbose=False)
    results = module.test_results()
    values = {name: metric.value for name, metric in results["metrics"].items()}
    assert values["miou"] == tested["test/miou"] == pytest.approx(found[-1][0])
    assert values["miou_best"] == max(found)[0]
    assert results["selection"] == {
        "on": "val",
        "metric": "miou_best",
        "step": next(s for v, s in found if v == max(found)[0]),
    }
    assert values["miou"] > 0.5 > 3 * values["miou_majority"] / 2
    assert set(values) == {"miou", "aacc", "macc", "miou_majority", "miou_best"}
    assert results["settings"]["window"] == 32
    classes = results["per_class"]
    assert (classes.metric, classes.unit, classes.names) == ("iou", "pixels", ["0", "1", "2", "3"])
    assert sum(classes.values) / 4 == pytest.approx(values["miou"])
    labels = torch.cat([sample.labels.flatten() for sample in (data.val[i] for i in range(3))])
    assert classes.counts == labels[labels != 255].bincount(minlength=4).tolist()


def test_a_validation_alone_does_not_change_the_best(root, tmp_path):
    module, data = probe(), ADE20KDataModule(root, size=32, batch_size=4, num_workers=0)
    trainer(tmp_path).validate(module, data, verbose=False)
    assert module.best is None
    checkpoint = {"state_dict": module.state_dict()}
    module.best = (0.25, 7)
    module.on_save_checkpoint(checkpoint)
    again = probe()
    again.on_load_checkpoint(checkpoint)
    assert again.best == (0.25, 7)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_results_of_one(root, tmp_path, strategy):
    check_two_processes(segmentation_runs, root, tmp_path, strategy, tolerance=5e-3)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(root, tmp_path):
    ends = {}
    for name, options in (("whole", {}), ("resumed", {"ckpt_path": tmp_path / "half.ckpt"})):
        module, run = probe(dropout=0.0), trainer(tmp_path, max_steps=5, limit_val_batches=0)
        if name == "whole":
            module.on_train_batch_end = lambda *_, run=run: (
                run.save_checkpoint(tmp_path / "half.ckpt") if run.global_step == 2 else None
            )
        run.fit(module, ADE20KDataModule(root, size=32, batch_size=5, num_workers=0), **options)
        ends[name] = module.heads[0].state_dict()
    for key, value in ends["whole"].items():
        assert torch.equal(ends["resumed"][key], value), key


CONFIG = """\
model:
  backbone: {{class_path: omnistream.backbone.create_model, init_args: {{variant: vit_nano}}}}
  window: 32
  stride: 21
  lr: 0.03
  warmup_steps: 2
data: {{root: {root}, size: 32, hue: 0.02, batch_size: 4, num_workers: 0}}
trainer:
  max_steps: 8
  val_check_interval: 2
  accelerator: cpu
  enable_progress_bar: false
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: runs, name: ade20k, version: ""}}}}
"""


@pytest.mark.slow
def test_fit_validate_test_and_resume_from_the_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    (tmp_path / "mini.yaml").write_text(CONFIG.format(root=root))
    command = ["-c", "segmentation/ade20k", "-c", "mini.yaml"]
    main(["fit", *command, "--trainer.max_steps", "4"])
    main(["fit", *command, "--ckpt_path", "runs/ade20k"])
    checkpoint = torch.load(next((tmp_path / "runs").rglob("last.ckpt")), weights_only=True)
    assert checkpoint["global_step"] == 8
    assert checkpoint["best_miou"][1] in (2, 4, 6, 8)
    main(["validate", *command, "--ckpt_path", "runs/ade20k"])
    main(["test", *command, "--ckpt_path", "runs/ade20k"])
    results = json.loads(next((tmp_path / "runs").rglob("results.json")).read_text())
    assert results["protocol"] == "segmentation/ade20k"
    assert results["num_samples"] == 3
    assert results["skipped"] == 0
    assert results["metrics"]["miou_best"]["value"] == pytest.approx(checkpoint["best_miou"][0])
    assert results["metrics"]["miou"]["value"] > results["metrics"]["miou_majority"]["value"]
    assert results["settings"]["num_classes"] == 150
    with pytest.raises(SystemExit):
        main(["test", *command, "--ckpt_path", "runs/ade20k", "--data.root", str(tmp_path)])
    assert "lacks images or annotations; expected images/{training,validation}" in capsys.readouterr().err


@pytest.mark.slow
def test_real_images_from_the_command_line(sample_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    for kind in ("images", "annotations"):
        for folder in ("training", "validation"):
            shutil.copytree(sample_data / "segmentation" / "sceneparsing" / kind, tmp_path / "real" / kind / folder)
    (tmp_path / "mini.yaml").write_text(CONFIG.format(root="real"))
    command = ["-c", "segmentation/ade20k", "-c", "mini.yaml", "--data.size", "64", "--data.batch_size", "3"]
    command += ["--model.window", "64", "--model.stride", "43"]
    main(["fit", *command])
    main(["test", *command, "--ckpt_path", "runs/ade20k"])
    results = json.loads(next((tmp_path / "runs").rglob("results.json")).read_text())
    assert (results["num_samples"], results["skipped"]) == (3, 0)
    assert 0 < results["metrics"]["miou_majority"]["value"] < results["metrics"]["miou_best"]["value"] < 1


def test_mistakes_are_named(root):
    with pytest.raises(ValueError, match="features of random crops cannot be cached"):
        probe(cache=True)
    with pytest.raises(ValueError, match="num_classes must be from 1 to 255, got 0"):
        probe(num_classes=0)
    few = probe(num_classes=3)
    with pytest.raises(ValueError, match=r"an image of \['0', '1'\] holds class 3, but model.num_classes is 3"):
        few.extract(batch_of())
    with pytest.raises(ValueError, match="side of 56 pixels is shorter than the sliding window of 64"):
        probe(window=64).eval().extract(batch_of())
    data = EvaluationDataModule(test=ADE20K(root, "val"), eval_batch_size=2)
    with pytest.raises(ValueError, match=r"LabelledImage\.images: samples of one batch differ in shape"):
        next(iter(data.test_dataloader()))
