"""`omnistream convert` writes a folder of ours from any layout and says what it did; mistakes are one line."""

import pickle

import pytest
import torch
from foreign_weights import official_state
from safetensors.torch import save_file

from omnistream.backbone import OmniStream
from omnistream.cli import main


@pytest.fixture
def release(tmp_path):
    path = tmp_path / "release.safetensors"
    save_file(official_state(), path)
    return path


def converted(capsys, *arguments):
    """Rows printed by the command, by title."""
    main(["convert", *map(str, arguments)])
    return dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *map(str, arguments)])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("omnistream: error: ")
    assert message.count("\n") == 1
    return message


def test_release(release, tmp_path, capsys):
    rows = converted(capsys, release, tmp_path / "out")
    assert rows["found"].strip() == "OmniStream (the authors' release), vit_nano, rope_layout official"
    assert "0.485, 0.456, 0.406 and 0.229, 0.224, 0.225; ImageNet's" in rows["mean and std"]
    assert rows["load with"].strip() == f'OmniStream.from_pretrained("{tmp_path / "out"}")'
    assert "16 frames" in rows["parity"]
    assert rows.keys().isdisjoint({"filled in", "as initialised", "not taken over"})
    assert rows["note"].strip() == "the source does not give mean and std, which are assumed to be ImageNet's"
    model = OmniStream.from_pretrained(tmp_path / "out")
    assert model.rope_layout == "official"
    assert torch.equal(model.norm.weight, official_state()["patch_embed.post_layernorm.weight"])


def test_training_checkpoint_with_choices(tmp_path, capsys):
    state = OmniStream("vit_nano").state_dict()
    saved = {f"backbone.{key}": value for key, value in state.items()} | {"tasks.ssl.weight": torch.ones(2)}
    torch.save({"state_dict": saved}, tmp_path / "last.ckpt")
    choices = ("--rope-layout", "spatial", "--mean", ".1", ".2", ".3", "--std", ".4", ".5", ".6")
    rows = converted(capsys, tmp_path / "last.ckpt", tmp_path / "out", *choices)
    assert rows["not taken over"].strip() == "tasks.* (beside the backbone)"
    assert "0.100, 0.200, 0.300 and 0.400, 0.500, 0.600; as given" in rows["mean and std"]
    assert OmniStream.from_pretrained(tmp_path / "out").rope_layout == "spatial"


def test_a_part_of_a_checkpoint(tmp_path, capsys):
    state = OmniStream("vit_nano").state_dict()
    networks = {name: {key: value + shift for key, value in state.items()} for shift, name in enumerate("ab")}
    torch.save(networks, tmp_path / "two.pth")
    assert "several networks (a, b); choose one with part=" in error_of(capsys, tmp_path / "two.pth", tmp_path / "out")
    rows = converted(capsys, tmp_path / "two.pth", tmp_path / "out", "--part", "b")
    assert rows["not taken over"].strip() == "a (another network; choose it with part='a')"
    assert torch.equal(OmniStream.from_pretrained(tmp_path / "out").cls_token, state["cls_token"] + 1)


def test_a_folder_in_use_is_kept(release, tmp_path, capsys):
    out = tmp_path / "out"
    converted(capsys, release, out)
    before = (out / "config.json").stat().st_mtime_ns
    assert "is not empty; choose another folder or add --overwrite" in error_of(capsys, release, out)
    assert (out / "config.json").stat().st_mtime_ns == before
    converted(capsys, release, out, "--overwrite", "--rope-layout", "rotation")
    assert OmniStream.from_pretrained(out).rope_layout == "rotation"
    assert "is a file; OUT is a folder" in error_of(capsys, release, release)


def test_mistakes_are_one_line(release, tmp_path, capsys):
    assert "arguments are required: SOURCE, OUT; see `omnistream convert --help`" in error_of(capsys)
    assert "--rope-layout: expected rotation, official or spatial, got 'cube'" in error_of(
        capsys, release, tmp_path / "out", "--rope-layout", "cube"
    )
    assert "no weights at" in error_of(capsys, tmp_path / "none.pth", tmp_path / "out")
    assert "unknown backbone variant 'vit_x'" in error_of(capsys, release, tmp_path / "out", "--variant", "vit_x")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": print}))
    assert "could run code" in error_of(capsys, tmp_path / "evil.pth", tmp_path / "out")
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "other.pth")
    assert "in no known layout" in error_of(capsys, tmp_path / "other.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "usage: omnistream convert" in text
    assert text.count("\n  omnistream convert ") == 4
