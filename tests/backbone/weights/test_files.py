"""Weights are read from files, folders and the hub, and never run code."""

import json
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
import torch.distributed.checkpoint
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from omnistream.backbone import create_model
from omnistream.backbone.weights.files import read_tensors
from omnistream.backbone.weights.source import read_source


@torch.no_grad()
def test_own_layout_round_trips_through_files(build, tmp_path):
    model, images = build(), torch.randn(1, 2, 3, 16, 16)
    model.mean.fill_(0.4)
    expected = model(images).last
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    # A Lightning checkpoint holds the backbone beside other things.
    lightning = {f"backbone.{k}": v for k, v in model.state_dict().items()} | {"heads.weight": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": lightning}, tmp_path / "last.ckpt")
    torch.save({"teacher": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "teacher.pt")
    for name in ("model.safetensors", "model.pth", "last.ckpt", "teacher.pt"):
        loaded = create_model("vit_nano", checkpoint=tmp_path / name).eval()
        assert torch.equal(loaded(images).last, expected)
        assert (loaded.mean == 0.4).all()
    assert read_source(tmp_path / "last.ckpt").left_out == ["heads.* (beside the backbone)"]
    assert read_source(tmp_path / "model.pth").left_out == []


class _Payload:
    """Makes a file when it is unpickled by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_files_are_read_without_running_code(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "evil.pth").open("wb") as file:
        pickle.dump({"model": _Payload(trap)}, file, protocol=2)
    torch.save({"cls_token": torch.ones(1), "payload": _Payload(trap)}, tmp_path / "evil.pt")
    for path in (tmp_path / "a" / "evil.pth", tmp_path / "evil.pt", tmp_path / "a"):
        with pytest.raises(ValueError, match=r"evil.pth? holds more than tensors .* could run code; not loaded$"):
            read_tensors(path)
    assert not trap.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert trap.exists()  # the trap works


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.pt"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"model:\n  width: 8\n", b"PK\x03\x04 cut", bytes(range(256))]
)
def test_files_that_are_no_weights_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no (weights|safetensors) file") as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_files_without_weights_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no dictionary of tensors"):
        read_tensors(tmp_path / "empty.pt")
    for missing in ("none.pt", "no/where", "a/b/c", "weights/model.pth"):
        with pytest.raises(FileNotFoundError, match=r"no weights at .*: no such file or folder"):
            read_source(str(tmp_path / missing))
    with pytest.raises(FileNotFoundError, match=r"weights/model.pth: no such file or folder \(a hub id"):
        read_source("weights/model.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder holds no weights \(.safetensors, .pth"):
        read_tensors(tmp_path / "folder")


class TestFolders:
    @pytest.fixture
    def shards(self, tmp_path):
        tensors = {"a": torch.ones(2), "b": torch.arange(3.0), "c": torch.zeros(1)}
        weight_map = {"a": "model-00001-of-00002.safetensors"}
        weight_map |= dict.fromkeys("bc", "model-00002-of-00002.safetensors")
        for file in set(weight_map.values()):
            save_file({k: tensors[k] for k in tensors if weight_map[k] == file}, tmp_path / file)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return tmp_path, tensors, weight_map

    def test_shards_are_joined(self, shards):
        folder, tensors, _ = shards
        torch.testing.assert_close(read_tensors(folder), tensors, atol=0, rtol=0)

    def test_missing_shard_is_named(self, shards):
        folder, _, weight_map = shards
        (folder / weight_map["b"]).unlink()
        with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00002.safetensors, one of the 2 shards"):
            read_tensors(folder)

    @pytest.mark.parametrize(
        "index", [{}, {"weight_map": {}}, {"weight_map": {"a": "../a.safetensors"}}, {"weight_map": {"a": 1}}]
    )
    def test_index_stays_in_its_folder(self, shards, index):
        folder, tensors, _ = shards
        save_file(tensors, folder.parent / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="does not name the shards of the weights in its own folder"):
            read_tensors(folder)

    def test_safetensors_are_preferred_and_several_files_refused(self, tmp_path):
        torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
        assert read_tensors(tmp_path)["a"] == 1
        save_file({"a": torch.zeros(1)}, tmp_path / "some.safetensors")
        assert read_tensors(tmp_path)["a"] == 0
        save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
        with pytest.raises(
            ValueError, match=r"holds 2 weights files \(other.safetensors, some.safetensors\); give one"
        ):
            read_tensors(tmp_path)
        save_file({"a": torch.full((1,), 2.0)}, tmp_path / "model.safetensors")
        assert read_tensors(tmp_path)["a"] == 2

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "config.json is not JSON"),
            ("[1]", "should hold one JSON object, got a list"),
            (b"\xff", "is not JSON"),
        ],
    )
    def test_broken_settings_are_refused(self, content, message, tmp_path):
        save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "config.json").write_bytes(data)
        for source in (tmp_path, tmp_path / "model.safetensors"):
            with pytest.raises(ValueError, match=message):
                read_source(source)

    def test_oversized_settings_are_not_read(self, tmp_path):
        save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
        with (tmp_path / "config.json").open("wb") as file:
            file.truncate(2**30)
        with pytest.raises(ValueError, match=r"config.json has 1073741824 bytes; a configuration has at most"):
            read_source(tmp_path)


class TestHub:
    @pytest.fixture
    def snapshots(self, monkeypatch, tmp_path):
        """Stands for the hub: answers with `tmp_path` and keeps what was asked for."""
        asked = []

        def snapshot_download(repo_id, **options):
            asked.append((repo_id, options))
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    def test_safetensors_and_settings_are_asked_for(self, snapshots, tmp_path):
        save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text('{"x": 1}')
        (tmp_path / "preprocessor_config.json").write_text('{"y": 2}')
        source = read_source("hf-hub:timm/vit.lvd1689m", revision="v1", token="secret")
        assert (source.name, source.config, source.processor) == ("hf-hub:timm/vit.lvd1689m", {"x": 1}, {"y": 2})
        patterns = ["*.json", "*.safetensors"]
        assert snapshots == [("timm/vit.lvd1689m", {"revision": "v1", "token": "secret", "allow_patterns": patterns})]

    def test_pickles_only_where_there_is_nothing_else(self, snapshots, tmp_path):
        torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
        assert read_source("owner/name").state["a"] == 1
        assert [options["allow_patterns"] for _, options in snapshots] == [
            ["*.json", "*.safetensors"],
            ["*.pth", "*.pt", "*.bin"],
        ]

    def test_a_local_folder_wins(self, snapshots, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "owner" / "name").mkdir(parents=True)
        save_file({"a": torch.ones(1)}, tmp_path / "owner" / "name" / "model.safetensors")
        assert read_source("owner/name").state["a"] == 1
        assert not snapshots

    @pytest.mark.parametrize("error", [LocalEntryNotFoundError("no network\nat all"), OSError("401")])
    def test_a_refusal_is_one_line(self, error, monkeypatch):
        def refuse(*args, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(ValueError, match=r"there is no facebook/x here, and .* from the hub \((no|401)") as caught:
            read_source("facebook/x")
        assert "hf auth login" in str(caught.value)
        assert "\n" not in str(caught.value)
