"""Heads come back from checkpoints that training has written, without any other file."""

import pytest
import torch
from lightning import Trainer
from multitask_runs import first_batch, make_alone, make_module, make_tasks

import omnistream
from omnistream.backbone import OmniStream, SessionOptions, create_model
from omnistream.backbone.weights.files import read_checkpoint
from omnistream.tasks import MultiTaskModule

IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def saved(module, path):
    """A checkpoint as the trainer writes it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def test_all_heads_of_a_multitask_checkpoint(tmp_path):
    module = make_module().eval()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    path = saved(module, tmp_path / "all.ckpt")
    model = omnistream.load(path)
    assert model.origin == f"{path} (vit_nano, geometry heads, captioning heads)"
    found = model.infer(IMAGES)
    raw = module.tasks["geometry"].predict(module.backbone, IMAGES[None])
    torch.testing.assert_close(found.depth, raw.depth[0], atol=0, rtol=0)
    batch = first_batch()["captioning"]
    assert model.captioning.generate(model.backbone, batch) == module.tasks["captioning"].generate(
        module.backbone, batch
    )
    assert not any(part.training for part in model.modules())
    assert omnistream.load(path, heads=("captioning",)).geometry is None
    assert read_checkpoint(path).keys() == module.state_dict().keys()


def test_the_average_of_self_supervision_can_be_chosen(tmp_path):
    module = make_module()
    for parameter in module.tasks["ssl"].teacher.backbone.parameters():
        parameter.data += 1
    path = saved(module, tmp_path / "all.ckpt")
    assert torch.equal(OmniStream.from_pretrained(path).cls_token, module.backbone.cls_token)
    teacher = OmniStream.from_pretrained(path, part="teacher")
    assert torch.equal(teacher.cls_token, module.backbone.cls_token + 1)
    alone = saved(make_alone("ssl"), tmp_path / "alone.ckpt")
    assert OmniStream.from_pretrained(alone, part="teacher").variant == "vit_nano"


@pytest.mark.parametrize("name", ["geometry", "captioning"])
def test_an_objective_that_was_fitted_alone(name, tmp_path):
    module = make_alone(name)
    model = omnistream.load(saved(module, tmp_path / "alone.ckpt"))
    head, other = getattr(model, name), {"geometry": model.captioning, "captioning": model.geometry}[name]
    assert other is None
    state = module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in head.state_dict().items())


def test_options_of_the_backbone_are_in_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    create_model("vit_nano", window=7, rope_layout="official").save_pretrained(tmp_path / "backbone")
    module = MultiTaskModule(OmniStream.from_pretrained(tmp_path / "backbone"), {"geometry": make_tasks()["geometry"]})
    path = saved(module, tmp_path / "a.ckpt")
    for backbone in (OmniStream.from_pretrained(path), omnistream.load(path).backbone):
        assert (backbone.variant, backbone.window, backbone.rope_layout) == ("vit_nano", 7, "official")
    stream = omnistream.load(path, window=3).stream(SessionOptions(sink=0))
    assert (stream.session.options.window, stream.session.options.sink) == (3, 0)
