import json
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from classification_runs import fit
from processes import run_python
from safetensors.torch import save_file
from torch import nn

from omnistream.backbone import create_model
from omnistream.cli import main
from omnistream.data import EvaluationDataModule
from omnistream.data.batch import FrameClip
from omnistream.data.images import ImageNetProbing
from omnistream.data.world import WorldObjects
from omnistream.evaluation import EvaluationResult
from omnistream.tasks.probing import LinearClassification
from omnistream.tasks.probing.classification import LRS, image_features
from omnistream.tasks.probing.confusion import confusion_matrix, draw_confusion, most_confused

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class FixedTokens(nn.Module):
    """A backbone whose features are the oracle's: class token 7, patch tokens 0 to 23 as [2, 3, 4], large registers."""

    embed_dim = 4

    def normalize(self, images):
        return images.float()

    def forward(self, images):
        class Output:
            cls = torch.full((2, 1, 4), 7.0)
            last = torch.arange(24.0).view(2, 1, 1, 3, 4)
            registers = torch.full((2, 1, 4, 4), 1e6)

        return Output()


def test_features_are_class_token_and_mean_patch():
    images = torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8)
    expected = [[7, 7, 7, 7, 4, 5, 6, 7], [7, 7, 7, 7, 16, 17, 18, 19]]
    assert image_features(FixedTokens(), images).tolist() == expected
    assert image_features(FixedTokens(), images, mean_patch=False).tolist() == [row[:4] for row in expected]
    with pytest.raises(ValueError, match="clips of one frame, got 2 frames"):
        image_features(FixedTokens(), images.expand(2, 2, 3, 16, 16))


class TestHead:
    def test_size_and_first_weights(self):
        backbone = nn.Identity()
        backbone.embed_dim = 1024
        head = LinearClassification(backbone).make_head({})
        assert sum(p.numel() for p in head.parameters()) == 2_049_000
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.01)
        assert not head.bias.any()

    def test_one_for_each_of_the_13_learning_rates(self):
        probe = LinearClassification(FixedTokens(), 3)
        assert len(LRS) == 13
        assert (LRS[0], LRS[-1]) == (1e-5, 1e-1)
        assert all(2 <= b / a <= 2.5 + 1e-9 for a, b in pairwise(LRS))
        probe.configure_model()
        assert len(probe.heads) == 13
        assert probe.settings()[3] == {"lr": 1e-4}

    def test_arguments_are_checked(self):
        with pytest.raises(ValueError, match="num_classes must be positive, got 0"):
            LinearClassification(FixedTokens(), 0)
        with pytest.raises(ValueError, match="needs positive lrs"):
            LinearClassification(FixedTokens(), 3, lrs=(0.0,))


class TestOptimiser:
    @pytest.fixture
    def fitted(self, tmp_path):
        def fit(**options):
            data = EvaluationDataModule(Colours(64), Colours(9, 1), batch_size=32)
            probe = LinearClassification(create_model("vit_nano"), 3, **options)
            run = trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2)
            run.fit(probe, data)
            return run.optimizers[0]

        return fit

    def test_learning_rates_are_scaled_with_the_images_of_a_step(self, fitted):
        optimizer = fitted()
        assert type(optimizer) is torch.optim.SGD
        assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx([lr / 4 for lr in LRS])
        assert {(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.9, 0)}
        assert [group["lr"] for group in optimizer.param_groups] == [0.0] * 13

    def test_adamw_without_weight_decay(self, fitted):
        optimizer = fitted(optimizer="adamw", lrs=(1e-3,))
        assert type(optimizer) is torch.optim.AdamW
        assert optimizer.param_groups[0]["weight_decay"] == 0

    def test_schedule_is_the_published_cosine(self):
        probe = LinearClassification(FixedTokens(), 3)
        found = [0.4 * probe.schedule(step, 12_500) for step in (0, 1_250, 6_250, 12_499, 12_500)]
        assert found == pytest.approx([0.4, 0.390211, 0.2, 6.3e-9, 0.0], rel=3e-3, abs=1e-12)
        assert found[1] == pytest.approx(0.390211, abs=1e-6)
        # PyTorch's own, which the published code steps after every iteration
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
        reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
        for step in range(10):
            assert 0.4 * probe.schedule(step, 10) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
            optimizer.step()
            reference.step()

    def test_batch_size_must_be_known(self, tmp_path):
        probe = LinearClassification(create_model("vit_nano"), 3)
        loader = EvaluationDataModule(Colours(6), batch_size=3).train_dataloader()
        with pytest.raises(ValueError, match="scaled with the batch size: fit with an EvaluationDataModule"):
            trainer(tmp_path, max_epochs=1).fit(probe, loader)


class Colours(torch.utils.data.Dataset):
    """Images in three colours; the first test images have wrong labels."""

    collate = staticmethod(FrameClip.collate)
    classes = ("red", "green", "blue")

    def __init__(self, length, offset=0, wrong=0):
        self.length, self.offset, self.wrong = length, offset, wrong

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 * self.offset + index)
        images = torch.randint(60, (1, 3, 16, 16), generator=generator).byte()
        images[:, index % 3] += 150
        label = (index + (index < self.wrong)) % 3
        return FrameClip(images=images, label=torch.tensor(label), name=str(index), seed=torch.tensor(index))


def trainer(folder, **options):
    settings = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0} | options
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def test_learns_and_reports_the_best_head_and_its_confusions(tmp_path):
    data = EvaluationDataModule(Colours(48), Colours(30, 1, wrong=4), batch_size=16)
    probe = LinearClassification(create_model("vit_nano"), 3, lrs=(1e-9, 3.0), protocol="classification/colours")
    drawn = {}

    class Drawn(lightning.Callback):
        def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            drawn[batch_idx] = pl_module.draw(batch)

    run = trainer(tmp_path, max_epochs=20, callbacks=[Drawn()])
    assert probe.draw_results() == {}
    run.fit(probe, data)
    (found,) = run.test(probe, data, verbose=False)
    assert found["test/top1"] == found["test/top1/1"] == pytest.approx(26 / 30)
    assert found["test/top1/0"] < 0.7
    assert found["test/top5"] == 1.0
    labels = torch.tensor([int(Colours(30, 1, wrong=4)[i].label) for i in range(30)])
    assert found["test/top1_majority"] == pytest.approx(labels.bincount().max() / 30)
    results = probe.test_results()
    assert results["selection"]["setting"] == {"lr": 3.0}
    assert results["selection"]["values"] == pytest.approx([found["test/top1/0"], 26 / 30])
    assert results["settings"]["optimizer"] == "sgd"
    assert probe.confusion.tolist() == _expected(labels)  # only the wrong labels are off the diagonal
    assert probe.confusion.diagonal().sum() == 26
    classes = results["per_class"]
    assert (classes.metric, classes.names, classes.unit) == ("accuracy", ["red", "green", "blue"], "samples")
    assert classes.counts == labels.bincount().tolist()
    shares = [row[k] / sum(row) for k, row in enumerate(_expected(labels))]
    assert classes.values == pytest.approx(shares)
    assert min(shares) < 1  # or nothing is shown
    assert {len(titles) for titles in drawn.values()} == {1}
    assert next(iter(drawn[0])).startswith("green, predicted ")  # image 0 is red, its label is wrong
    assert torch.equal(next(iter(drawn[1].values())), Colours(30, 1)[16].images[0])
    (image,) = probe.draw_results().values()
    assert image.dtype == torch.uint8


def _expected(labels):
    table = [[0] * 3 for _ in range(3)]
    for index, label in enumerate(labels.tolist()):
        table[label][index % 3] += 1
    return table


def test_data_with_another_number_of_classes_is_refused(tmp_path):
    data = EvaluationDataModule(Colours(6), Colours(6), batch_size=3)
    probe = LinearClassification(create_model("vit_nano"), 4)
    with pytest.raises(ValueError, match=r"the data has 3 classes and the probe 4: .*set model.num_classes to 3"):
        trainer(tmp_path, max_epochs=1).fit(probe, data)
    with pytest.raises(ValueError, match="the data has 3 classes"):
        trainer(tmp_path).test(probe, data)


class TestConfusion:
    def test_rows_are_true_classes(self):
        found = confusion_matrix(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 1, 2]), 4)
        assert found.tolist() == [[1, 0, 0, 0], [0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0]]

    def test_most_confused_classes(self):
        table = torch.zeros(30, 30, dtype=torch.int64)
        table[3, 17], table[17, 3], table[5, 6], table[8, 9] = 3, 3, 5, 1  # 6, 5 and 1 in both directions together
        table[20, 20] = 50
        assert most_confused(table, 2) == [3, 17]
        assert most_confused(table, 4) == [3, 5, 6, 17]
        assert most_confused(table, 5) == [3, 5, 6, 17, 20]  # a pair is shown whole or not at all
        assert most_confused(table, 7) == [3, 5, 6, 8, 9, 17, 20]
        assert most_confused(table[:4, :4], 20) == [0, 1, 2, 3]

    def test_plot_is_darker_where_more_samples_are(self):
        table = torch.tensor([[8, 2], [0, 10]])
        image = draw_confusion(table, ["cat", "a rather long name of a dog"])
        assert image.shape[0] == 3
        assert draw_confusion(torch.eye(50, dtype=torch.int64), ["x"] * 50).shape[2] < 1200
        blue = (image[2].int() - image[0].int()).flatten()
        assert blue.max() > 60


class TestImageNetProbing:
    def test_validation_is_the_test_set_and_training_is_augmented(self, imagenet):
        data = ImageNetProbing(imagenet, image_size=32, batch_size=5, num_workers=0)
        data.setup("fit")
        assert data.val is data.test
        assert len(data.test) == 7
        batch = next(iter(data.train_dataloader()))
        assert batch.images.shape == (5, 1, 3, 32, 32)
        assert data.train.transform.transforms[0].scale == (0.08, 1.0)
        assert data.test.transform.transforms[0].size == [37]
        loader = data.reference_dataloader()
        assert sum(len(part.label) for part in loader) == 12
        assert torch.equal(next(iter(loader)).images[0], data.test.transform(plain_image(data.train, 0)))

    def test_testing_reads_no_training_images(self, imagenet):
        data = ImageNetProbing(imagenet, num_workers=0)
        data.setup("test")
        assert data.train is None
        assert ImageNetProbing(imagenet, augment=False).endless

    def test_held_out_images_are_seen_as_in_evaluation(self, imagenet):
        data = ImageNetProbing(imagenet, image_size=32, holdout=0.25, num_workers=0)
        data.setup("fit")
        assert sorted([*data.train.indices, *data.val.indices]) == list(range(12))
        assert len(data.val) == 3
        place = data.val.indices[1]
        expected = data.test.transform(plain_image(data.train.dataset, place))
        assert torch.equal(data.val[1].images, expected)


def plain_image(dataset, index):
    from omnistream.data.media import read_image

    return read_image(dataset.files[index], upright=False)[None]


def arguments(root, runs, *more):
    return [
        "-c", "classification/imagenet", f"--data.root={root}", "--data.image_size=32", "--data.num_workers=0",
        "--data.batch_size=6", "--model.num_classes=3", "--model.backbone.variant=vit_nano",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger",
        f"--trainer.logger.init_args.save_dir={runs}", "--trainer.logger.init_args.name=probe", *more,
    ]  # fmt: skip


@pytest.fixture
def command(monkeypatch, no_type_checks):
    monkeypatch.setattr(sys, "argv", ["omnistream"])


@pytest.mark.parametrize("tree", ["folders", "kaggle", "devkit"])
def test_from_the_command_line_to_the_results(tree, trees, tmp_path, command):
    root, steps = trees[tree](tmp_path / "data"), ["--trainer.max_steps=8", "--trainer.val_check_interval=4"]
    fast = ["--model.lrs=[1e-3,10.0]"]
    main(["fit", *arguments(root, tmp_path, *steps, *fast)])
    run = tmp_path / "probe" / "version_0"
    if tree == "folders":
        main(["validate", *arguments(root, tmp_path, *fast), "--ckpt_path", str(run)])
    main(["test", *arguments(root, tmp_path, *fast), "--ckpt_path", str(run)])
    (path,) = run.rglob("results.json")
    found = EvaluationResult.read(path)
    assert found.protocol == "classification/imagenet"
    assert (found.num_samples, found.skipped) == (7, 0)
    assert set(found.metrics) == {"top1", "top5", "top1_majority"}
    assert found.metrics["top1"].value == max(found.selection["values"]) >= 5 / 7
    assert found.metrics["top1_majority"].value == pytest.approx(3 / 7)
    assert found.selection["on"] == "test"
    assert found.settings["num_classes"] == 3


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_heads_without_training_are_refused(subcommand, imagenet, tmp_path, command, capsys):
    save_file(create_model("vit_nano").state_dict(), tmp_path / "backbone.safetensors")
    backbone = f"--model.backbone.checkpoint={tmp_path / 'backbone.safetensors'}"
    with pytest.raises(SystemExit, match="2"):
        main([subcommand, *arguments(imagenet, tmp_path, backbone)])
    assert f"{subcommand} needs weights: give --ckpt_path" in capsys.readouterr().err.splitlines()[-1]
    main([subcommand, *arguments(imagenet, tmp_path, backbone, "--random")])
    assert "the weights of this model are random" in capsys.readouterr().err


def test_a_broken_validation_image_is_reported(imagenet, tmp_path, command):
    next((imagenet / "val").rglob("*00000005.JPEG")).write_bytes(b"\xff\xd8\xff")
    main(["test", *arguments(imagenet, tmp_path, "--random", "--data.num_workers=1")])
    (path,) = tmp_path.rglob("results.json")
    found = EvaluationResult.read(path)
    assert (found.num_samples, found.skipped) == (6, 1)


def test_a_resumed_run_equals_one_that_was_not_stopped(imagenet, tmp_path, command):
    def last(folder):
        (path,) = (tmp_path / folder).rglob("last.ckpt")
        return torch.load(path, weights_only=True)

    every = tmp_path / "every.yaml"
    every.write_text(
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
        "init_args: {save_last: true, save_top_k: -1}}]}"
    )

    def fit(folder, *more):
        steps = ["--trainer.max_steps=6", "--trainer.val_check_interval=3", "-c", str(every)]
        main(["fit", *arguments(imagenet, tmp_path / folder, *steps, *more)])

    fit("whole")
    fit("second", "--ckpt_path", str(next((tmp_path / "whole").rglob("*step=3.ckpt"))))
    whole, second = last("whole"), last("second")
    assert whole["global_step"] == second["global_step"] == 6
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert not torch.equal(whole["state_dict"]["heads.12.weight"], whole["state_dict"]["heads.11.weight"])
    assert whole["frozen_probe"]["selected"] == second["frozen_probe"]["selected"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data.root=nowhere",), "no such folder: nowhere; expected {train,val}/<class>"),
        (("--model.num_classes=1000",), "the data has 3 classes and the probe 1000"),
    ],
)
def test_mistakes_are_one_line(change, message, imagenet, tmp_path, command, capsys):
    with pytest.raises(SystemExit):
        main(["fit", *arguments(imagenet, tmp_path), *change])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("omnistream: error")]
    assert message in line


class TestWorldObjects:
    def test_labels_say_what_is_shown(self):
        data = WorldObjects(32, "test", size=(48, 48))
        assert [int(data[i].label) for i in range(0, 32, 5)] == [i % 16 for i in range(0, 32, 5)]
        assert len(data.classes) == 16
        assert data[3].images.shape == (1, 3, 48, 48)
        assert torch.equal(data[3].images, data[3].images)

    def test_colours_of_the_centre_tell_the_colours_apart(self):
        """The most frequent saturated colour is the object's in nearly all images: labels and pictures agree."""
        data, right = WorldObjects(64, "val", size=(48, 48)), 0
        for index in range(64):
            red, green, blue = data[index].images[0].float()
            votes = [red - green.maximum(blue), green - red.maximum(blue), blue - red.maximum(green)]
            votes.append(red.minimum(green) - blue - 40 * ((red - green).abs() > 50))
            counts = torch.tensor([(vote > 55).sum() for vote in votes])
            right += int(counts.argmax() == data.classes.index(data.classes[int(data[index].label)]) // 4)
        assert right >= 50

    def test_splits_differ(self):
        images = [WorldObjects(4, split)[0].images for split in ("train", "val", "test")]
        assert not torch.equal(images[0], images[1])
        assert not torch.equal(images[1], images[2])


@pytest.mark.slow
def test_the_world_is_learnable(tmp_path, command):
    """Also by a head on a random backbone; so a head that learns nothing is noticed."""
    options = ["-c", "classification/world", "--trainer.enable_progress_bar=false"]
    logger = ["--trainer.logger.init_args.save_dir", str(tmp_path)]
    main(["fit", *options, *logger])
    main(["test", *options, *logger, "--ckpt_path", str(tmp_path / "classification_world" / "version_0")])
    (path,) = tmp_path.rglob("results.json")
    found = EvaluationResult.read(path)
    assert (found.protocol, found.num_samples) == ("classification/world", 480)
    assert found.metrics["top1_majority"].value == pytest.approx(1 / 16)
    assert found.metrics["top1"].value > 2 / 16
    assert found.selection["on"] == "val"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_the_classifiers_of_one(strategy, imagenet, tmp_path):
    fit(tmp_path, 1, "auto")
    program = [str(Path(__file__).with_name("classification_runs.py")), str(tmp_path), "2", strategy]
    run_python(program, cwd=Path(__file__).parent, timeout=240)
    one, two = (json.loads((tmp_path / f"heads_{n}.json").read_text()) for n in (1, 2))
    for name, value in one["weights"].items():
        torch.testing.assert_close(torch.tensor(two["weights"][name]), torch.tensor(value), atol=1e-6, rtol=1e-5)
    first, second = (EvaluationResult.read(tmp_path / f"results_{n}.json") for n in (1, 2))
    assert first.metrics == second.metrics
    assert first.num_samples == second.num_samples == 7


@pytest.mark.parametrize(("accumulated", "lowest", "highest"), [(1, 4e-5, 0.4), (2, 8e-5, 0.8)])
def test_learning_rates_after_scaling_are_the_published_ones(accumulated, lowest, highest):
    """8 devices with 128 images: 4e-5 to 0.4."""
    probe = LinearClassification(FixedTokens(), 3)
    data = SimpleNamespace(batch_size=128)
    probe._trainer = SimpleNamespace(datamodule=data, world_size=8, accumulate_grad_batches=accumulated)
    assert probe.images_per_step() == 1024 * accumulated
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in LRS]
    found = [group["lr"] for group in probe.make_optimizer(groups).param_groups]
    assert [found[0], found[-1]] == pytest.approx([lowest, highest])
