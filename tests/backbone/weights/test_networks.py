"""The backbone inside checkpoints of other programs: wrapped, nested, averaged, one network among several."""

import argparse
import itertools
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from omnistream.backbone import OmniStream, create_model
from omnistream.backbone.weights.files import read_checkpoint, read_file
from omnistream.backbone.weights.networks import WRAPPERS, extract, find_networks, flatten
from omnistream.backbone.weights.source import read_source


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return create_model("vit_nano").state_dict()


def prefixed(state, prefix, offset=0.0):
    return {prefix + key: value + offset for key, value in state.items()}


def loaded_offset(path, state, **options):
    """What was added to the weights that were loaded."""
    return (OmniStream.from_pretrained(path, **options).cls_token - state["cls_token"]).mean().round().item()


def wrapped(state, order):
    """Keys as a compiled, distributed, sharded model with recomputed blocks has them."""
    names = {}
    for key, value in state.items():
        name = ".".join((*order, key))
        names[name.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module._orig_mod.")] = value
    return names


@pytest.mark.parametrize("order", itertools.permutations(["module", "_orig_mod", "_fsdp_wrapped_module"]))
@pytest.mark.parametrize("place", ["", "backbone", "model", "model.backbone", "net.encoder"])
def test_wrappers_and_places_in_any_order(order, place, state, tmp_path):
    found = wrapped(state, order)
    if place:
        found = prefixed(found, f"{place}.") | {"head.weight": torch.ones(3)}
    half = len(order) // 2  # and wrappers outside of the place too
    found = prefixed(found, "".join(f"{name}." for name in order[:half]))
    torch.save(found, tmp_path / "bare.pth")
    torch.save(
        {"state_dict": found, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, tmp_path / "a.ckpt"
    )
    torch.save({"model": found, "args": argparse.Namespace(lr=0.1)}, tmp_path / "nested.pt")
    save_file(found, tmp_path / "bare.safetensors")
    for name in ("bare.pth", "a.ckpt", "nested.pt", "bare.safetensors"):
        loaded = OmniStream.from_pretrained(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_what_torch_itself_saves(tmp_path):
    model = create_model("vit_nano")
    model.blocks[2] = torch.compile(model.blocks[2])
    averaged = torch.optim.swa_utils.AveragedModel(nn.ModuleDict({"backbone": torch.compile(model)}))
    torch.save(averaged.state_dict(), tmp_path / "average.pth")
    assert any("backbone._orig_mod.blocks.2._orig_mod." in key for key in averaged.state_dict())
    assert torch.equal(OmniStream.from_pretrained(tmp_path / "average.pth").cls_token, model.cls_token)
    torch.save(torch.optim.swa_utils.AveragedModel(model).state_dict(), tmp_path / "alone.pth")
    assert torch.equal(OmniStream.from_pretrained(tmp_path / "alone.pth").cls_token, model.cls_token)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("student", "teacher"), "teacher"),
        (("student.module.backbone", "teacher.backbone"), "teacher.backbone"),
        (("teacher.backbone", "model_ema.backbone", "student.backbone"), None),  # two averages
        (("model", "model_ema"), "model_ema"),
        (("state_dict", "state_dict_ema"), "state_dict_ema"),
        (("ema.model", "model"), "ema.model"),
        (("ema_model", "online_model"), "ema_model"),
        (("encoder", "target_encoder"), "target_encoder"),
        (("student.backbone", "gram_teacher.backbone"), "student.backbone"),
        (("teacher.backbone", "gram_teacher.backbone", "student.backbone"), "teacher.backbone"),
        (("first", "second"), None),
        (("state_dict.backbone", "state_dict.tasks.ssl.teacher.backbone"), "state_dict.backbone"),
        (("backbone", "tasks.ssl.teacher.backbone", "tasks.ssl.gram_teacher.backbone"), "backbone"),
        (("state_dict.backbone", "state_dict.teacher.backbone"), "state_dict.backbone"),
        (("gram_teacher.backbone",), "gram_teacher.backbone"),
    ],
)
def test_which_of_several_networks_is_meant(names, first, state, tmp_path):
    content = {}
    for offset, name in enumerate(names):
        inner = content
        for part in name.split("."):
            inner = inner.setdefault(part, {})
        inner |= prefixed(state, "", offset)
    torch.save(content, tmp_path / "a.pth")
    shown = [name.replace("module.", "") for name in names]
    if first is None:
        with pytest.raises(ValueError, match=r"a.pth: several networks \(.*\); choose one with part=") as caught:
            OmniStream.from_pretrained(tmp_path / "a.pth")
        assert all(name in str(caught.value) for name in shown if "student" not in name)
    else:
        assert loaded_offset(tmp_path / "a.pth", state) == names.index(first)
        others = [name for name in read_source(tmp_path / "a.pth").left_out if "another network" in name]
        assert len(others) == len(names) - 1
    for offset, name in enumerate(shown):
        assert loaded_offset(tmp_path / "a.pth", state, part=name) == offset


def test_parts_are_named_by_a_word_and_the_report_says_which(state, tmp_path, caplog):
    ssl = prefixed(state, "tasks.ssl.teacher.backbone.", 1) | {"tasks.ssl.teacher.dino_head.weight": torch.ones(1)}
    torch.save({"state_dict": prefixed(state, "backbone.") | ssl}, tmp_path / "last.ckpt")
    with caplog.at_level("WARNING"):
        assert loaded_offset(tmp_path / "last.ckpt", state) == 0
    assert "tasks.* (beside the backbone)" in caplog.text
    assert "tasks.ssl.teacher.backbone (another network; choose it with part='teacher')" in caplog.text
    for part in ("teacher", "tasks.ssl.teacher.backbone"):
        assert loaded_offset(tmp_path / "last.ckpt", state, part=part) == 1
    assert (
        create_model("vit_nano", checkpoint=tmp_path / "last.ckpt", part="teacher").cls_token != state["cls_token"]
    ).all()
    with pytest.raises(
        ValueError, match=r"last.ckpt: no network 'student' \(it has: backbone, tasks.ssl.teacher.backbone\)"
    ):
        OmniStream.from_pretrained(tmp_path / "last.ckpt", part="student")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no network 'teacher' in a known layout"):
        read_source(tmp_path / "other.pth", part="teacher")


def test_a_dino_checkpoint_says_that_the_teacher_was_taken(state, tmp_path):
    heads = {"dino_head.weight": torch.ones(1), "ibot_head.weight": torch.ones(1)}
    content = {name: prefixed(state, "backbone.") | heads for name in ("student", "teacher")}
    torch.save(content | {"iteration": 7}, tmp_path / "training.pth")
    assert read_source(tmp_path / "training.pth").left_out == [
        "dino_head.*, ibot_head.* (beside the backbone)",
        "student.backbone (another network; choose it with part='student')",
    ]


def test_names_that_become_one_are_refused(state, tmp_path):
    torch.save({**state, "_orig_mod.norm.bias": state["norm.bias"] + 1}, tmp_path / "twice.pth")
    with pytest.raises(ValueError, match=r"twice.pth: two tensors are called norm.bias once"):
        OmniStream.from_pretrained(tmp_path / "twice.pth")


def test_the_release_is_one_network():
    keys = ["patch_embed.camera_token", "patch_embed.ar_embedder.weight", "post_layernorm.weight"]
    release = {key: torch.ones(1) for key in keys}
    assert [(found.prefix, found.layout) for found in find_networks(release)] == [("", "official")]
    assert extract(prefixed(release, "model."))[0].keys() == release.keys()


def test_wrappers_are_no_names_of_ours_or_theirs(state):
    assert not {part for key in state for part in key.split(".")} & WRAPPERS
    assert flatten({"a": {"b": torch.ones(1), 3: torch.ones(1), "c": 1}, "d": [torch.ones(1)]}).keys() == {"a.b"}


def maps(path):
    """Whether the process maps a file."""
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_files_are_mapped_and_stay_as_they_are(name, tmp_path):
    path, tensors = tmp_path / name, {"x": torch.zeros(1000, 1000), "_orig_mod.y": torch.ones(3)}
    save_file(tensors, path) if name.endswith("safetensors") else torch.save({"state_dict": tensors}, path)
    before = path.read_bytes()
    state = read_checkpoint(path)
    assert state.keys() == {"x", "y"}
    assert maps(path)
    state["x"] += 1
    assert path.read_bytes() == before
    assert torch.equal(read_checkpoint(path)["x"], tensors["x"])
    del state
    assert not maps(path)


def test_checkpoints_of_modules_are_read_by_their_own_names(tmp_path):
    tensors = {
        "backbone._orig_mod.x": torch.ones(1),
        "tasks.ssl.module.y": torch.ones(2),
        "batch_count": torch.ones(()),
    }
    (tmp_path / "version_0" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": tensors}, tmp_path / "version_0" / "checkpoints" / "last.ckpt")
    for path in (tmp_path, tmp_path / "version_0", tmp_path / "version_0" / "checkpoints" / "last.ckpt"):
        assert read_checkpoint(path).keys() == {"backbone.x", "tasks.ssl.y", "batch_count"}
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read_checkpoint(tmp_path / "gone.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="holds no dictionary of tensors"):
        read_checkpoint(tmp_path / "list.ckpt")
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded" / ".metadata").touch()
    with pytest.raises(ValueError, match="is a distributed checkpoint"):
        read_checkpoint(tmp_path / "sharded")


class Thing:
    """Something that is no plain value."""


def test_the_class_that_cannot_be_loaded_is_named(tmp_path):
    torch.save({"state_dict": {}, "config": Thing()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt holds more than tensors .* \(\S*Thing\), and loading it could"):
        read_file(tmp_path / "a.pt")


def test_files_of_old_versions_of_torch_are_read(tmp_path, state):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(OmniStream.from_pretrained(tmp_path / "old.pth").cls_token, state["cls_token"])
    with (tmp_path / "plain.pth").open("wb") as file:
        pickle.dump({"a": 1}, file, protocol=2)
    with pytest.raises(ValueError, match=r"plain\.pth"):
        read_source(tmp_path / "plain.pth")
