"""The depth probe: features, evaluation, training, and the commands."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import depth_runs
import pytest
import torch
from lightning import Trainer
from nyu_files import write_split_folder
from probe_runs import check_two_processes
from torch import nn

from omnistream.backbone import BackboneOutput, create_model
from omnistream.cli import main
from omnistream.data import DepthImage, EvaluationDataModule
from omnistream.data.images import NYUv2DataModule
from omnistream.evaluation import FeatureBatch, TimmBackbone
from omnistream.tasks.probing import DepthConfig, LinearDepthProbe
from omnistream.tasks.probing.depth import enlarge, pad_to_patches
from omnistream.tasks.probing.depth_losses import depth_loss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Pixels(nn.Module):
    """A backbone whose tokens are the mean colours of 4x4 patches."""

    embed_dim, patch_size, num_layers = 3, 4, 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def normalize(self, images):
        return images.float() / 255

    def forward(self, images, *, layers=()):
        B, T, _, H, W = images.shape
        last = images.reshape(B, T, 3, H // 4, 4, W // 4, 4).mean((4, 6)).permute(0, 1, 3, 4, 2)
        nothing = torch.zeros(B, T, 3)
        return BackboneOutput(patches={}, last=last, cls=nothing, registers=nothing[:, :, None], camera=None)


def batch(size=(24, 32), count=2):
    """Images from dark (near) to bright (far)."""
    generator = torch.Generator().manual_seed(count)
    depth = 0.5 + 5 * torch.rand(count, 1, 1, generator=generator) + 4 * torch.linspace(0, 1, size[1]).expand(size)
    image = (depth * 25).byte()[:, None].repeat(1, 3, 1, 1)
    names, seed = [str(i) for i in range(count)], torch.arange(count)
    return DepthImage(image=image, depth=depth, name=names, seed=seed)


def probe(backbone=None, **options):
    torch.manual_seed(0)
    module = LinearDepthProbe(backbone or Pixels(), **options)
    module.configure_model()
    return module


def trainer(folder, **options):
    settings = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0} | options
    return Trainer(
        accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, **settings
    )


def test_targets_in_evaluation_are_inside_range_and_box():
    module = probe().eval()
    sample = batch((48, 64))
    sample.depth[0, 20, 30], sample.depth[0, 21, 30] = 10.0, 0.001
    sample.depth[0, 22, 30], sample.depth[0, 23, 30] = 9.999, 0.0011
    target = module.targets(sample)
    assert [float(target[0, row, 30]) for row in range(20, 24)] == pytest.approx([0, 0, 9.999, 0.0011])
    rows, columns = (target[1] > 0).any(1).nonzero(), (target[1] > 0).any(0).nonzero()
    assert [int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())] == [4, 46, 4, 59]
    assert torch.equal(probe(eigen_crop=False).eval().targets(sample)[1], sample.depth[1])
    assert torch.equal(module.train().targets(sample), sample.depth)


def test_padding_is_in_the_middle_and_comes_off_again():
    images = torch.ones(1, 3, 427, 565)
    padded = pad_to_patches(images, 16)
    assert padded.shape == (1, 3, 432, 576)
    inside = padded[0, 0].nonzero()
    assert inside.min(0).values.tolist() == [2, 5]
    assert inside.max(0).values.tolist() == [2 + 426, 5 + 564]
    assert pad_to_patches(images[..., :480, :544], 17).shape[-2:] == (442, 544)
    columns = torch.arange(36.0) * 16 + 7.5  # the centre of a patch, in pixels of the padded image
    pixels = enlarge(columns.expand(1, 27, 36), 16, (427, 565))
    torch.testing.assert_close(pixels[0, 100, 20:500], torch.arange(25.0, 505.0))


def test_features_are_the_last_tokens_of_images_as_clips_of_one_frame():
    backbone = create_model("vit_nano").eval()
    module = probe(backbone).train()
    sample = batch()
    expected = backbone(backbone.normalize(sample.image)[:, None]).last[:, 0]
    torch.testing.assert_close(module.extract(sample).features, expected)
    module.eval()
    assert module.extract(sample).features.shape == (2, 1, 3, 4, 64)
    module.on_test_start()
    views = module.extract(sample).features
    mirrored = backbone(backbone.normalize(sample.image.flip(-1))[:, None]).last[:, 0]
    torch.testing.assert_close(views[:, 1], mirrored)
    module.on_test_end()
    assert module.extract(sample).features.shape[1] == 1


def test_flip_test_averages_depth_of_both_images():
    module = probe().eval()
    module.heads[0].linear.weight.data.normal_()
    sample = batch((24, 30))  # padded to 24 x 32
    module.on_test_start()
    features = module.extract(sample).features
    both = module.predict(module.heads[0], features)
    first, second = (module.heads[0](view) for view in features.unbind(1))
    torch.testing.assert_close(both, (first + second.flip(-1)) / 2)
    torch.testing.assert_close(second.flip(-1), first)  # these tokens do not know left from right
    assert not torch.allclose(second, first, atol=1e-3)
    assert probe(flip_test=False).flip_test is False


def test_depth_and_loss_are_in_float32_under_mixed_precision():
    module, target = probe(Pixels()), 1 + torch.rand(2, 8, 8)
    module.train()
    inputs = torch.randn(2, 2, 2, 3)
    features = FeatureBatch(inputs, target)
    module.log = lambda *_, **__: None
    module.heads[0].linear.weight.data.normal_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.training_step(features, 0)
        module.eval()
        depth = module.prediction(module.heads[0], inputs[:, None], features)
    assert torch.equal(depth, module.prediction(module.heads[0], inputs[:, None], features))
    assert torch.equal(loss, module.train().training_step(features, 0))


def test_prediction_is_enlarged_bilinearly_and_clamped():
    module = probe(min_depth=1.0, max_depth=3.0)
    features = torch.tensor([[0.0, 4.0], [0.0, 4.0]])[
        None, None, ..., None
    ]  # one view; the head takes their only channel
    matched = module.predict_batch(nn.Flatten(-2), features, FeatureBatch(features, torch.zeros(1, 8, 8)))
    assert matched.shape == (1, 8, 8)
    assert matched[0, 0].tolist() == pytest.approx([1, 1, 1, 1.5, 2.5, 3, 3, 3])


def test_variance_joins_the_loss_after_100_steps():
    module = probe(depth=DepthConfig(losses={"sig": 2.0, "l1": 0.5}))
    sample = batch()
    prediction = module.heads[0](module.train().extract(sample).features)
    depth = enlarge(prediction, 4, (24, 32))
    values = []
    for step in (0, 99, 100):
        module._trainer = type("Trainer", (), {"global_step": step})()
        values.append(module.loss(prediction, sample.depth))
        expected = 2 * depth_loss("sig", depth, sample.depth, step < 100) + 0.5 * depth_loss("l1", depth, sample.depth)
        torch.testing.assert_close(values[-1], expected)
    assert values[0] == values[1] < values[2]


def test_metrics_are_named_and_the_first_is_rmse():
    module = probe()
    assert list(module.metrics()) == [
        "rmse", "abs_rel", "log10", "rmse_log", "silog", "sq_rel", "a1", "a2", "a3", "rmse_constant",
    ]  # fmt: skip
    better = [metric.higher_is_better for metric in module.metrics().values()]
    assert better == [False] * 6 + [True] * 3 + [False]
    assert [module.metrics()[f"a{k}"].threshold for k in (1, 2, 3)] == [1.25, 1.25**2, 1.25**3]


def test_training_learns_depth_and_the_better_rate_is_chosen(tmp_path):
    class Walls(torch.utils.data.Dataset):
        collate = staticmethod(DepthImage.collate)

        def __len__(self):
            return 24

        def __getitem__(self, index):
            one = batch(count=index + 1)
            return replace(one, image=one.image[-1], depth=one.depth[-1], name="wall", seed=one.seed[-1])

    module = probe(depth=DepthConfig(lrs=(1e-6, 0.1), sig_warmup_steps=5), eigen_crop=False)
    run = trainer(tmp_path, max_epochs=15, gradient_clip_val=35.0)
    data = EvaluationDataModule(Walls(), Walls(), val=Walls(), batch_size=8)
    run.fit(module, data)
    (found,) = run.test(module, data, verbose=False)
    assert found["test/rmse"] == found["test/rmse/1"] < 0.5 * found["test/rmse_constant"]
    assert found["test/rmse/0"] > 0.8 * found["test/rmse_constant"]
    results = module.test_results()
    assert results["selection"]["setting"] == {"lr": 0.1, "weight_decay": 1e-4}
    assert results["settings"]["depth"]["num_bins"] == 256
    assert results["metrics"]["rmse"].stderr > 0
    group = run.optimizers[0].param_groups[1]
    assert group["betas"] == (pytest.approx(0.95, abs=1e-3), 0.99)
    assert group["weight_decay"] == 1e-4


def test_head_finds_depth_of_the_world_better_than_any_constant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    common = [
        "-c", "depth/world", "--model.backbone.variant", "vit_nano", "--data.train.num_samples", "96",
        "--data.test.num_samples", "16", "--data.val", "null", "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    main(["fit", *common, "--trainer.max_epochs", "30"])
    main(["test", *common, "--ckpt_path", "runs/depth_world/version_0"])
    (path,) = Path().rglob("results.json")
    results = json.loads(path.read_text())
    assert results["protocol"] == "depth/world"
    rmse, constant = (results["metrics"][name]["value"] for name in ("rmse", "rmse_constant"))
    assert rmse < 0.8 * constant


def test_drawn_depth_has_one_colour_scale():
    module = probe().eval()
    sample = batch((48, 64))
    sample.depth[0, 0, :3] = 0
    drawn = module.draw(sample)
    truth, prediction, error = list(drawn)[1:]
    assert next(iter(drawn)) == "input"
    assert torch.equal(drawn["input"], sample.image[0])
    assert truth.removeprefix("truth") == prediction.removeprefix("prediction")
    assert all(image.shape == (3, 48, 64) and image.dtype == torch.uint8 for image in drawn.values())
    assert drawn[truth][:, 0, 0].tolist() == [128] * 3
    assert drawn[error][:, 0, 0].tolist() == [128] * 3
    assert drawn[error][:, 20, 30].tolist() != [128] * 3
    with torch.no_grad():  # a head that knows the truth draws the truth
        module.predict_batch = lambda head, features, batch: sample.depth[:1]
        drawn = module.draw(sample)
    assert torch.equal(drawn[truth][:, 1:], drawn[prediction][:, 1:])


def test_per_frame_models_of_timm_can_be_probed():
    backbone = TimmBackbone("vit_tiny_patch16_224", image_size=32)
    features = probe(backbone).train().extract(batch((32, 32))).features
    assert features.shape == (2, 2, 2, 192)


@pytest.mark.usefixtures("no_type_checks")
def test_bad_settings_are_refused():
    for options in ({"lrs": ()}, {"lrs": (0.0,)}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match="lrs must be positive"):
            DepthConfig(**options)
    for options in ({"warmup_fraction": 1.0}, {"losses": {}}):
        with pytest.raises(ValueError, match="warmup_fraction must be in"):
            DepthConfig(**options)


def test_no_rate_is_chosen_on_test_images_unasked(tmp_path):
    data = NYUv2DataModule(write_split_folder(tmp_path), crop_size=(40, 48))
    module = probe(depth=DepthConfig(lrs=(1e-3, 1e-2)))
    with pytest.raises(
        ValueError, match=r"several settings would be chosen among on the test images: set data.holdout"
    ):
        trainer(tmp_path, max_steps=1).fit(module, data)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_results_of_one(tmp_path, strategy):
    check_two_processes(depth_runs, write_split_folder(tmp_path / "nyu", train=12), tmp_path, strategy)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path):
    root, ends = write_split_folder(tmp_path / "nyu"), {}
    for name, options in (("whole", {}), ("resumed", {"ckpt_path": tmp_path / "half.ckpt"})):
        torch.manual_seed(0)
        module, run = probe(create_model("vit_nano")), trainer(tmp_path, max_steps=5, limit_val_batches=0)
        if name == "whole":
            module.on_train_batch_end = lambda *_, run=run: (
                run.save_checkpoint(tmp_path / "half.ckpt") if run.global_step == 2 else None
            )
        run.fit(module, NYUv2DataModule(root, crop_size=(40, 48), batch_size=4), **options)
        ends[name] = module.heads[0].state_dict()
    for key, value in ends["whole"].items():
        assert torch.equal(ends["resumed"][key], value), key


def test_commands(tmp_path, monkeypatch):
    root = write_split_folder(tmp_path / "nyu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    common = [
        "-c", "depth/nyuv2", "--model.backbone.variant", "vit_nano", "--data.root", str(root),
        "--data.crop_size", "[40, 48]", "--data.batch_size", "2", "--data.num_workers", "0",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.devices", "1",
    ]  # fmt: skip
    steps = ["--trainer.val_check_interval", "2", "--trainer.max_steps"]
    main(["fit", *common, *steps, "2"])
    run = Path("runs/depth_nyuv2/version_0")
    main(["fit", *common, *steps, "4", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    last = Path("runs/depth_nyuv2/version_1/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=False)
    assert checkpoint["global_step"] == 4
    assert not [key for key in checkpoint["state_dict"] if key.startswith("backbone.")]
    next(root.rglob("sync_depth_00101.png")).write_bytes(b"broken")
    main(["validate", *common, "--ckpt_path", str(last)])
    main(["test", *common, "--ckpt_path", str(last)])
    (path,) = Path().rglob("results.json")
    results = json.loads(path.read_text())
    assert results["protocol"] == "depth/nyuv2"
    assert (results["num_samples"], results["skipped"]) == (2, 1)
    assert results["metrics"]["rmse"]["higher_is_better"] is False
    assert 0 < results["metrics"]["rmse"]["value"] < 10
    assert results["settings"]["sweep"] == [{"lr": 1e-3, "weight_decay": 1e-4}]
    assert results["settings"]["flip_test"] is True
