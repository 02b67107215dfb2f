import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from omnistream.backbone import create_model
from omnistream.evaluation import Backbone, SavedPredictions, StreamingGeometry, TimmBackbone

IMAGES = torch.randint(0, 256, (2, 3, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_our_backbone_is_one():
    assert isinstance(create_model("vit_nano"), Backbone)


# A class token alone; a class token and registers (DINOv3, rotary positions); registers and no class token.
@pytest.mark.parametrize(
    ("name", "num_registers"),
    [("vit_tiny_patch16_224", 0), ("vit_small_patch16_dinov3", 4), ("vit_wee_patch16_reg1_gap_256", 1)],
)
def test_features_are_those_of_timm_on_every_frame(name, num_registers):
    adapter = TimmBackbone(name).eval()
    assert isinstance(adapter, Backbone)
    model = adapter.model
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        output = adapter(adapter.normalize(IMAGES), layers=(1, 4))
        for b, t in ((0, 0), (1, 2)):
            frame = ((IMAGES[b, t] / 255 - mean) / std)[None]
            tokens = model.forward_features(frame)[0]
            patches = tokens[model.num_prefix_tokens :]
            torch.testing.assert_close(output.last[b, t].flatten(0, 1), patches)
            expected = tokens[0] if model.cls_token is not None else patches.mean(0)
            torch.testing.assert_close(output.cls[b, t], expected)
            torch.testing.assert_close(
                output.registers[b, t], tokens[model.num_prefix_tokens - num_registers :][:num_registers]
            )
            found = model.forward_intermediates(frame, indices=[1, 4], norm=False, intermediates_only=True)
            for layer, expected in zip((1, 4), found, strict=True):
                torch.testing.assert_close(output.patches[layer][b, t], expected[0].permute(1, 2, 0))
        plain = adapter(adapter.normalize(IMAGES))
    torch.testing.assert_close(plain.last, output.last)
    assert output.last.shape == (2, 3, 2, 3, adapter.embed_dim)


def shrink(monkeypatch):
    """Models of timm with two narrow blocks; everything else is as published."""
    create = timm.create_model

    def small(name, **options):
        return create(name, depth=2, embed_dim=48, num_heads=2, **options)

    monkeypatch.setattr(timm, "create_model", small)


FAMILIES = [
    # name, prefix tokens, registers, summary, patch, mean
    ("vit_small_patch14_dinov2.lvd142m", 1, 0, "class token", 14, 0.485),
    ("vit_small_patch14_reg4_dinov2.lvd142m", 5, 4, "class token", 14, 0.485),
    ("vit_small_patch16_dinov3.lvd1689m", 5, 4, "class token", 16, 0.485),
    ("vit_base_patch16_siglip_224.v2_webli", 0, 0, "attention pooling", 16, 0.5),
    ("vit_base_patch16_siglip_gap_224.v2_webli", 0, 0, "mean of patches", 16, 0.5),
]


@pytest.mark.parametrize(("name", "prefix", "num_registers", "summary", "patch", "mean"), FAMILIES)
def test_families_give_what_timm_gives(monkeypatch, name, prefix, num_registers, summary, patch, mean):
    shrink(monkeypatch)
    torch.manual_seed(0)
    adapter = TimmBackbone(name).eval()
    model = adapter.model
    assert (model.num_prefix_tokens, adapter.summary, adapter.patch_size) == (prefix, summary, patch)
    assert float(adapter.mean[0]) == pytest.approx(mean)
    images = torch.randint(
        0, 256, (1, 2, 3, 2 * patch, 3 * patch), dtype=torch.uint8
    )  # not the square it was built for
    with torch.no_grad():
        normalized = adapter.normalize(images)
        output = adapter(normalized, layers=(0, 1))
        tokens = model.forward_features(normalized[0])
        pooled = model.forward_head(tokens, pre_logits=True)
    assert output.last.shape == (1, 2, 2, 3, 48)
    assert output.registers.shape == (1, 2, num_registers, 48)
    torch.testing.assert_close(output.last[0].flatten(1, 2), tokens[:, prefix:])
    torch.testing.assert_close(output.registers[0], tokens[:, 1 : 1 + num_registers])
    normal = model.fc_norm if summary == "mean of patches" else torch.nn.Identity()  # of a classifier on the mean
    torch.testing.assert_close(normal(output.cls[0]), tokens[:, 0] if prefix else pooled)
    wide = adapter.normalize(torch.randint(0, 256, (1, 1, 3, 4 * patch, patch), dtype=torch.uint8))
    assert adapter(wide).last.shape == (1, 1, 4, 1, 48)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_base_patch16_siglip_224"])
def test_weights_of_a_file_are_loaded_whole_or_not_at_all(monkeypatch, tmp_path, name):
    shrink(monkeypatch)
    source = timm.create_model(name, num_classes=5)
    state = source.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    for file in ("weights.safetensors", "weights.pth"):
        loaded = TimmBackbone(name, checkpoint=tmp_path / file).model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    state.pop("blocks.1.attn.proj.weight")
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"part.safetensors holds no weights of timm's .*blocks.1.attn.proj.weight"):
        TimmBackbone(name, checkpoint=tmp_path / "part.safetensors")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match=r"text.pth cannot be read as weights"):
        TimmBackbone(name, checkpoint=tmp_path / "text.pth")
    with pytest.raises(FileNotFoundError, match="no weights of"):
        TimmBackbone(name, checkpoint=tmp_path / "nothing.pth")


def test_what_is_no_vit_is_named():
    with pytest.raises(ValueError, match="no model 'vit_tyni'"):
        TimmBackbone("vit_tyni")
    with pytest.raises(ValueError, match="resnet18 is not a ViT"):
        TimmBackbone("resnet18")
    adapter = TimmBackbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"layers \[12\] do not exist"):
        adapter(torch.zeros(1, 1, 3, 32, 32), layers=(12,))
    with pytest.raises(ValueError, match="multiples of the patch size 16, got 32 x 40"):
        adapter(torch.zeros(1, 1, 3, 32, 40))
    assert timm.is_model(adapter.name)


@pytest.fixture
def predictions(tmp_path):
    (tmp_path / "depth").mkdir()
    for i in range(3):
        np.save(tmp_path / "depth" / f"frame_{i:04d}.npy", np.full((4, 5), i + 1, np.float64))
    rows = [" ".join(str(value) for value in [1, 0, 0, i, 0, 1, 0, 0, 0, 0, 1, 0]) for i in range(3)]
    (tmp_path / "poses.txt").write_text("# camera to world\n" + "\n".join(rows) + "\n\n")
    (tmp_path / "intrinsics.txt").write_text("7 0 2.5 0 7 2 0 0 1\n")
    return tmp_path


class TestSavedPredictions:
    def test_streams_what_lies_in_the_files(self, predictions):
        saved = SavedPredictions(predictions)
        assert isinstance(saved, StreamingGeometry)
        first, second = saved.step(IMAGES[0, :2]), saved.step(IMAGES[0, :1])
        assert [float(frame.depth.mean()) for frame in (*first, *second)] == [1, 2, 3]
        assert second[0].camera_to_world[:, 3].tolist() == [2, 0, 0, 1]
        assert second[0].intrinsics[0].tolist() == [7, 0, 2.5]
        saved.reset()
        assert float(saved.step(IMAGES[0, :1])[0].depth.mean()) == 1

    def test_too_few_frames_are_named(self, predictions):
        saved = SavedPredictions(predictions)
        saved.step(IMAGES[0])
        with pytest.raises(ValueError, match="predictions of 3 frames; frame 3 was asked"):
            saved.step(IMAGES[0, :1])

    def test_what_does_not_fit_is_named(self, predictions):
        (predictions / "depth" / "frame_0003.npy").write_bytes((predictions / "depth" / "frame_0000.npy").read_bytes())
        with pytest.raises(ValueError, match="4 depth maps, 3 poses and 4 intrinsics"):
            SavedPredictions(predictions)
        (predictions / "poses.txt").write_text("1 2 3\n")
        with pytest.raises(ValueError, match="expected 8 or 12 or 16 numbers per line; row 1 has others"):
            SavedPredictions(predictions)
        (predictions / "poses.txt").write_text("0 1 2 3 0 0 0 one\n")
        with pytest.raises(ValueError, match=r"poses.txt: could not convert string to float: 'one'"):
            SavedPredictions(predictions)
        with pytest.raises(FileNotFoundError, match=r"no predictions.*/depth/\*.npy or .* and no .*nothing/poses.txt"):
            SavedPredictions(predictions / "nothing")

    def test_depth_alone_as_cut3r_saves_it(self, predictions):
        for path in (predictions / "depth").glob("*.npy"):
            path.rename(predictions / path.name)
        for name in ("poses.txt", "intrinsics.txt"):
            (predictions / name).unlink()
        saved = SavedPredictions(predictions)
        assert (len(saved), saved.missing) == (3, {"poses": str(predictions / "poses.txt")})
        frames = saved.step(IMAGES[0])
        assert [float(frame.depth.mean()) for frame in frames] == [1, 2, 3]
        assert all(frame.camera_to_world.isnan().all() and frame.intrinsics.isnan().all() for frame in frames)

    def test_poses_alone(self, predictions):
        for path in (predictions / "depth").glob("*.npy"):
            path.unlink()
        saved = SavedPredictions(predictions)
        assert (len(saved), list(saved.missing)) == (3, ["depth"])
        frames = saved.step(IMAGES[0])
        assert [float(frame.camera_to_world[0, 3]) for frame in frames] == [0, 1, 2]
        assert all(frame.depth.shape == (32, 48) and frame.depth.isnan().all() for frame in frames)
        with pytest.raises(ValueError, match="predictions of 3 frames; frame 3 was asked"):
            saved.step(IMAGES[0, :1])

    def test_poses_in_the_rows_of_tum(self, predictions):
        """A quarter turn about z takes x to y; timestamps need more digits than float32 has."""
        rows = [f"1311868164.{i}0 {i} 5 6 0 0 0.70710678 0.70710678" for i in range(3)]
        (predictions / "poses.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(rows))
        poses = [frame.camera_to_world for frame in SavedPredictions(predictions).step(IMAGES[0])]
        turn = [[0, -1, 0, 2], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]]
        torch.testing.assert_close(poses[2], torch.tensor(turn, dtype=torch.float64))
        (predictions / "poses.txt").write_text("\n".join([rows[0], rows[2], rows[1]]))
        with pytest.raises(ValueError, match=r"poses.txt: the timestamp of row 3 is not later than the one before"):
            SavedPredictions(predictions)

    def test_pickled_arrays_are_refused(self, predictions):
        np.save(predictions / "depth" / "frame_0000.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="allow_pickle"):
            SavedPredictions(predictions).step(IMAGES[0, :1])
