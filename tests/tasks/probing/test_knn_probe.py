import sys
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F
from imagenet_trees import write_folders
from knn_runs import run
from processes import run_python
from safetensors.torch import save_file

from omnistream.backbone import create_model
from omnistream.cli import main
from omnistream.data import EvaluationDataModule
from omnistream.data.images import ImageNet, ImageNetProbing
from omnistream.data.sampling import SampleKey
from omnistream.evaluation import EvaluationResult
from omnistream.tasks.probing import KNNClassification

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def mini(tmp_path):
    """15 training images, one of them broken."""
    write_folders(tmp_path / "imagenet", per_class=5)
    next((tmp_path / "imagenet" / "train").rglob("n01443537_27.JPEG")).write_bytes(b"\xff\xd8\xff")
    return tmp_path


def test_votes_are_those_of_a_direct_computation(mini):
    probe = run(mini, 1)
    data = probe.trainer.datamodule
    train = [data.reference_dataloader().dataset[i] for i in range(15)]
    train = [sample for sample in train if sample is not None]
    assert len(train) == 14
    backbone = probe.backbone

    def features(samples):
        images = torch.stack([sample.images for sample in samples])
        with torch.no_grad():
            return F.normalize(backbone(backbone.normalize(images)).cls[:, 0], dim=-1)

    bank, labels = features(train), torch.stack([sample.label for sample in train])
    torch.testing.assert_close(probe.bank, bank, atol=1e-5, rtol=0)
    test = [data.test[i] for i in range(7)]
    similarity = features(test) @ bank.T
    found = []
    for k in (1, 3, 14):
        values, index = similarity.sort(descending=True)
        weights = (values / 0.07).softmax(-1)[:, :k]
        votes = torch.stack([(weights * (labels[index[:, :k]] == c)).sum(1) for c in range(3)], dim=1)
        found.append(float((votes.argmax(1) == torch.stack([sample.label for sample in test])).float().mean()))
    result = EvaluationResult.read(mini / "results_1.json")
    assert result.selection["values"] == pytest.approx(found)
    assert result.metrics["top1"].value == pytest.approx(max(found))
    assert result.selection["setting"]["k"] in (1, 3, 50)
    assert result.settings["training_images"] == 14
    assert result.settings["sweep"] == [{"k": 1}, {"k": 3}, {"k": 50}]
    assert result.num_samples == 7
    assert probe.confusion.sum() == 7
    assert set(probe.draw_results()) == {"confusion"}


@pytest.mark.slow
def test_two_processes_equal_one(mini):
    run(mini, 1)
    run_python([str(HERE / "knn_runs.py"), str(mini), "2"], cwd=HERE, timeout=180)
    one, two = (torch.load(mini / f"bank_{n}.pt", weights_only=True) for n in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)  # the same batches in the same order
    first, second = (EvaluationResult.read(mini / f"results_{n}.json") for n in (1, 2))
    assert first.metrics == second.metrics
    assert first.selection == second.selection
    assert second.num_samples == 7


def test_from_the_command_line_to_the_results(mini, monkeypatch, no_type_checks):
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    options = [
        "-c", "knn/imagenet", f"--data.root={mini / 'imagenet'}", "--data.image_size=32", "--data.num_workers=0",
        "--model.num_classes=3", "--model.backbone.variant=vit_nano", "--model.ks=[2,4]", "--random",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger",
        f"--trainer.logger.init_args.save_dir={mini}", "--trainer.logger.init_args.name=knn",
    ]  # fmt: skip
    main(["validate", *options])
    main(["test", *options])
    (path,) = mini.rglob("results.json")
    found = EvaluationResult.read(path)
    assert found.protocol == "knn/imagenet"
    assert found.settings["sweep"] == [{"k": 2}, {"k": 4}]


def test_a_trained_backbone_needs_no_checkpoint_of_a_probe(mini, monkeypatch, no_type_checks, capsys):
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    save_file(create_model("vit_nano").state_dict(), mini / "backbone.safetensors")
    options = [
        "-c", "knn/imagenet", f"--data.root={mini / 'imagenet'}", "--data.image_size=32", "--data.num_workers=0",
        "--model.num_classes=3", "--model.backbone.variant=vit_nano", "--model.ks=[2,4]",
        f"--model.backbone.checkpoint={mini / 'backbone.safetensors'}",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        "--trainer.logger=false", f"--trainer.default_root_dir={mini}",
    ]  # fmt: skip
    main(["validate", *options])
    assert "random" not in capsys.readouterr().err


def test_nothing_to_fit_and_nothing_to_compare_with(mini):
    def trainer():
        options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        return lightning.Trainer(accelerator="cpu", **options)

    probe = KNNClassification(create_model("vit_nano"), 3)
    val = ImageNet(mini / "imagenet", "val")
    with pytest.raises(ValueError, match="are not trained: run omnistream test"):
        trainer().fit(probe, EvaluationDataModule(ImageNet(mini / "imagenet", "train"), val))
    with pytest.raises(ValueError, match="there is no train set"):
        trainer().test(probe, EvaluationDataModule(test=val), verbose=False)
    with pytest.raises(ValueError, match="test with an EvaluationDataModule"):
        trainer().test(probe, EvaluationDataModule(test=val).test_dataloader(), verbose=False)
    with pytest.raises(RuntimeError, match="call remember"):
        probe._inputs(torch.zeros(1, 64))
    with pytest.raises(ValueError, match="ks and temperature must be positive"):
        KNNClassification(create_model("vit_nano"), ks=(0,))


def test_training_images_are_seen_in_the_precision_of_the_test(mini):
    probe = KNNClassification(create_model("vit_nano", layer_scale_init=0.5), 3, ks=(1,))
    data = ImageNetProbing(mini / "imagenet", image_size=32, batch_size=4, num_workers=0)
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    run = lightning.Trainer(accelerator="cpu", precision="bf16-mixed", enable_progress_bar=False, **options)
    run.validate(probe, data, verbose=False)
    batch = next(iter(data.reference_dataloader()))
    with torch.autocast("cpu", torch.bfloat16):
        found = F.normalize(probe.extract(batch).features, dim=-1)
    assert torch.equal(probe.bank[: len(found)], found)
    assert not torch.equal(F.normalize(probe.extract(batch).features, dim=-1), found)


def test_training_images_are_seen_as_in_evaluation(mini):
    """No random crop reaches the features of the training images."""
    probe = run(mini, 1)
    (loader, again) = (probe.trainer.datamodule.reference_dataloader() for _ in range(2))
    assert torch.equal(next(iter(loader)).images, next(iter(again)).images)
    assert torch.equal(loader.dataset.dataset[SampleKey(5, 0)].images, loader.dataset[0].images)
