"""Backbones saved, loaded from every layout without further arguments, and pushed to a pretended hub."""

import json
import shutil

import huggingface_hub
import pytest
import timm
import torch
import yaml
from foreign_weights import SHAPES, all_tokens, meta_state, official_state, short_hf, short_timm
from safetensors.torch import save_file

from omnistream import __version__
from omnistream.backbone import VARIANTS, OmniStream, create_model

pytestmark = pytest.mark.usefixtures("short_variants")

SAT_MEAN, SAT_STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)


def statistics(model):
    return [round(x, 4) for x in [*model.mean.flatten().tolist(), *model.std.flatten().tolist()]]


class TestSaved:
    OPTIONS = {"rope_layout": "official", "rope_rescale": None, "window": 6, "sink": 2}

    @torch.no_grad()
    def test_folder_gives_back_model_and_options(self, build, tmp_path):
        model, images = build(**self.OPTIONS), torch.randn(1, 9, 3, 16, 16)
        model.mean.fill_(0.3)
        model.std.fill_(0.7)
        model.save_pretrained(tmp_path / "a" / "b")
        assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]
        loaded = OmniStream.from_pretrained(tmp_path / "a" / "b")
        assert not loaded.training
        assert {name: getattr(loaded, name) for name in self.OPTIONS} == self.OPTIONS
        assert statistics(loaded) == [0.3] * 3 + [0.7] * 3
        assert torch.equal(loaded(images).last, model(images).last)
        assert OmniStream.from_pretrained(str(tmp_path / "a" / "b" / "model.safetensors")).window == 6

    def test_settings_are_readable(self, tmp_path):
        OmniStream("vit_nano", **self.OPTIONS).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["options"].items() >= self.OPTIONS.items()
        assert config["options"].keys().isdisjoint({"checkpoint", "pretrained", "variant"})
        assert (config["variant"], config["library_version"]) == ("vit_nano", __version__)
        assert config["architecture"]["embed_dim"] == 64
        assert config["mean"] == pytest.approx([0.485, 0.456, 0.406])

    def test_arguments_win_over_stored_options(self, build, tmp_path, caplog):
        build(**self.OPTIONS).save_pretrained(tmp_path)
        loaded = OmniStream.from_pretrained(tmp_path, window=None, rope_layout="spatial", mean=SAT_MEAN, std=SAT_STD)
        assert (loaded.window, loaded.sink, loaded.rope_layout) == (None, 2, "spatial")
        assert statistics(loaded) == [*SAT_MEAN, *SAT_STD]
        assert create_model("vit_nano", checkpoint=tmp_path).window is None
        assert "saved with rope_layout='official', this model has 'rotation'" in caplog.text

    @pytest.mark.parametrize("nested", [True, False])
    def test_training_checkpoint_takes_options_from_its_run(self, nested, build, tmp_path, caplog):
        state = {f"backbone.{key}": value for key, value in build(**self.OPTIONS).state_dict().items()}
        path = tmp_path / "run" / ("checkpoints" if nested else "version_0/checkpoints") / "last.ckpt"
        path.parent.mkdir(parents=True)
        torch.save({"state_dict": state}, path)
        assert OmniStream.from_pretrained(path).window is None
        assert (
            "the weights have no settings beside them: rope_layout, window and other options are the defaults"
            in caplog.text
        )
        arguments = {"variant": "vit_nano", "checkpoint": "x.pth", "pretrained": False, "layer_scale_init": 1.0}
        backbone = {"class_path": "omnistream.backbone.OmniStream", "init_args": arguments | self.OPTIONS}
        config = {"model": {"class_path": "omnistream.tasks.MultiTaskModule", "init_args": {"backbone": backbone}}}
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
        loaded = OmniStream.from_pretrained(path)
        assert {name: getattr(loaded, name) for name in self.OPTIONS} == self.OPTIONS
        (tmp_path / "run" / "config.yaml").write_text("model: null")
        assert OmniStream.from_pretrained(path).window is None
        (tmp_path / "run" / "config.yaml").write_text("model: {")
        with pytest.raises(ValueError, match=r"config.yaml is not valid YAML: "):
            OmniStream.from_pretrained(path)

    def test_shards(self, build, tmp_path):
        model = build()
        model.save_pretrained(tmp_path, max_shard_size="300KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        torch.testing.assert_close(
            OmniStream.from_pretrained(tmp_path).state_dict(), model.state_dict(), atol=0, rtol=0
        )
        model.cls_token.data.fill_(9)
        model.save_pretrained(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
        assert (OmniStream.from_pretrained(tmp_path).cls_token == 9).all()

    def test_folders_that_contradict_the_library_are_refused(self, build, tmp_path):
        build().save_pretrained(tmp_path)
        good = json.loads((tmp_path / "config.json").read_text())
        for change, message in (
            ({"options": {"spin": 1}, "library_version": "9.9"}, r"options \['spin'\] of version 9.9, unknown to"),
            ({"architecture": {"num_heads": 4}}, "config.json has num_heads=4, the model 2"),
            ({"options": [1]}, r"options in config.json should be an object, got \[1\]"),
            ({"variant": ["vit_nano"]}, r"variant in the config.json of .* should be a name, got \['vit_nano'\]"),
            ({"options": {"window": "abc"}}, "OmniStream cannot take the settings .*'window': 'abc'"),
            ({"variant": "vit_none"}, "unknown backbone variant 'vit_none'"),
            (
                {"variant": "vit_tiny"},
                "ours weights do not fit vit_tiny: config.json has num_heads=2, the model 4, missing",
            ),
        ):
            (tmp_path / "config.json").write_text(json.dumps(good | change))
            with pytest.raises(ValueError, match=message):
                OmniStream.from_pretrained(tmp_path)

    def test_arguments_that_make_no_sense_are_refused(self, build, tmp_path):
        build().save_pretrained(tmp_path)
        for options, message in (
            ({"checkpoint": "x"}, "checkpoint cannot be given beside the source"),
            ({"mean": (0.1, 0.2)}, r"have three numbers, one per channel, got \[0.1, 0.2\]"),
            ({"std": (0.1, 0.2, float("nan"))}, "have three numbers"),
            ({"std": (0.1, 0.2, 0.0)}, "standard deviations of the input must be positive"),
        ):
            with pytest.raises(ValueError, match=message):
                OmniStream.from_pretrained(tmp_path, **options)


class TestForeign:
    """Nothing but the source is given; the variant, the statistics and the release's layout are found out."""

    @pytest.fixture
    def images(self):
        return torch.randn(2, 3, 48, 80)

    @pytest.mark.parametrize("name", SHAPES)
    @torch.no_grad()
    def test_timm_folder(self, name, randomize, images, tmp_path):
        theirs = short_timm(name, randomize)
        theirs.pretrained_cfg = {"architecture": "short", "input_size": (3, 32, 32), "mean": SAT_MEAN, "std": SAT_STD}
        timm.models.save_for_hf(theirs, tmp_path)
        model = OmniStream.from_pretrained(tmp_path, rope_layout="spatial")
        assert model.variant == name
        assert statistics(model) == [*SAT_MEAN, *SAT_STD]
        torch.testing.assert_close(all_tokens(model, images), theirs.forward_features(images), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("shards", [False, True])
    @torch.no_grad()
    def test_hugging_face_folder(self, name, shards, randomize, images, tmp_path):
        theirs = short_hf(name, randomize)
        theirs.save_pretrained(tmp_path, max_shard_size="200KB" if shards else "5GB")
        assert (tmp_path / "model.safetensors.index.json").is_file() == shards
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": SAT_MEAN, "image_std": SAT_STD}))
        model = OmniStream.from_pretrained(tmp_path, rope_layout="spatial")
        assert model.variant == name
        assert statistics(model) == [*SAT_MEAN, *SAT_STD]
        expected = theirs(images).last_hidden_state
        torch.testing.assert_close(all_tokens(model, images), expected, atol=2e-5, rtol=0)

    @torch.no_grad()
    def test_meta_file(self, randomize, images, tmp_path, caplog):
        theirs = short_timm("short_swiglu", randomize)
        path = tmp_path / "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth"
        torch.save(meta_state(theirs.state_dict(), SHAPES["short_swiglu"]), path)
        model = OmniStream.from_pretrained(path, rope_layout="spatial", window=3)
        assert (model.variant, model.window) == ("short_swiglu", 3)
        assert statistics(model) == [0.485, 0.456, 0.406, 0.229, 0.224, 0.225]
        torch.testing.assert_close(all_tokens(model, images), theirs.forward_features(images), atol=1e-5, rtol=0)
        assert len(caplog.records) == 1
        assert f"{path}: loaded short_swiglu from DINOv3 (Meta); filled in: attn.qkv.bias" in caplog.text
        assert "mean and std: DINOv3's for web images (LVD-1689M)" in caplog.text
        assert "rope_layout='spatial'" not in caplog.text
        assert OmniStream.from_pretrained(path).rope_layout == "rotation"
        assert "for DINOv3's own features of images use rope_layout='spatial'" in caplog.text

    def test_satellite_statistics_of_meta_files(self, randomize, tmp_path, monkeypatch):
        state = meta_state(short_timm("short_mlp", randomize).state_dict(), SHAPES["short_mlp"])
        torch.save(state, tmp_path / "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth")
        torch.save(state, tmp_path / "renamed.pth")
        assert statistics(OmniStream.from_pretrained(next(tmp_path.glob("*sat*")))) == [*SAT_MEAN, *SAT_STD]
        assert statistics(OmniStream.from_pretrained(tmp_path / "renamed.pth"))[0] == 0.485
        # Of ViT-L, only the satellite model has a norm for local crops.
        monkeypatch.setitem(VARIANTS, "vit_large", VARIANTS.pop("short_mlp"))
        large = OmniStream.from_pretrained(tmp_path / "renamed.pth")
        assert statistics(large) == [*SAT_MEAN, *SAT_STD]
        large.save_pretrained(tmp_path / "ours")
        assert statistics(OmniStream.from_pretrained(tmp_path / "ours")) == [*SAT_MEAN, *SAT_STD]

    def test_what_no_source_gives_is_drawn_as_ever(self, randomize, tmp_path):
        torch.save(short_timm("short_mlp", randomize).state_dict(), tmp_path / "timm.pth")
        model, whole = OmniStream.from_pretrained(tmp_path / "timm.pth"), OmniStream("short_mlp")
        for name in ("camera_token", "aspect_embed.weight"):
            drawn, usual = model.get_parameter(name), whole.get_parameter(name)
            assert 0.5 < drawn.std() / usual.std() < 2  # 64 or 128 numbers each
        assert not model.mask_token.any()
        assert not model.aspect_embed.bias.any()

    @torch.no_grad()
    def test_release_folder(self, tmp_path, caplog):
        save_file(official_state(), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vfm", "num_attention_heads": 2}))
        model = OmniStream.from_pretrained(tmp_path)
        assert (model.variant, model.rope_layout) == ("vit_nano", "official")
        assert "mean and std, which are assumed to be ImageNet's" in caplog.text
        caplog.clear()
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": SAT_MEAN, "image_std": SAT_STD}))
        assert statistics(OmniStream.from_pretrained(tmp_path)) == [*SAT_MEAN, *SAT_STD]
        assert not caplog.records  # nothing to warn of
        assert torch.equal(model.camera_token, official_state()["patch_embed.camera_token"])
        model.save_pretrained(tmp_path / "ours")
        again, images = OmniStream.from_pretrained(tmp_path / "ours"), torch.randn(1, 2, 3, 16, 16)
        assert torch.equal(again(images).last, model(images).last)
        create_model("vit_nano", checkpoint=tmp_path)
        assert "trained with rope_layout='official', this model has 'rotation'" in caplog.text

    def test_settings_that_contradict_the_model_are_refused(self, randomize, tmp_path):
        short_hf("short_mlp", randomize).save_pretrained(tmp_path)
        good = json.loads((tmp_path / "config.json").read_text())
        for key, value, expected in (
            ("rope_theta", 1000.0, 100.0),
            ("num_attention_heads", 4, 2),
            ("hidden_act", "relu", "gelu"),
            ("layer_norm_eps", 1e-6, 1e-5),
        ):
            assert key in good
            (tmp_path / "config.json").write_text(json.dumps(good | {key: value}))
            with pytest.raises(ValueError, match=f"config.json has {key}={value}, the model {expected}$"):
                OmniStream.from_pretrained(tmp_path)


class TestHub:
    @pytest.mark.parametrize(
        ("pretrained", "tag"), [(True, "lvd1689m"), ("lvd1689m", "lvd1689m"), ("sat493m", "sat493m")]
    )
    @torch.no_grad()
    def test_pretrained_asks_for_timms_model(self, pretrained, tag, randomize, tmp_path, monkeypatch):
        theirs, asked = short_timm("short_mlp", randomize), []
        save_file(theirs.state_dict(), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": SAT_MEAN, "std": SAT_STD}}))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
        monkeypatch.setattr("omnistream.backbone.weights.published.SATELLITE_VARIANTS", ("short_mlp",))
        model = create_model("short_mlp", pretrained=pretrained, rope_layout="spatial").eval()
        assert asked == [f"timm/short_dinov3.{tag}"]
        assert statistics(model) == [*SAT_MEAN, *SAT_STD]
        images = torch.randn(2, 3, 48, 80)
        torch.testing.assert_close(all_tokens(model, images), theirs.forward_features(images), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("has_card", [False, True])
    def test_push_uploads_what_save_writes(self, has_card, build, tmp_path, monkeypatch):
        calls = []

        class FakeApi:
            def __init__(self, **options):
                calls.append(("api", options))

            def create_repo(self, repo_id, **options):
                calls.append(("create", repo_id, options))
                return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id}")

            def file_exists(self, repo_id, name, **options):
                return has_card

            def upload_folder(self, *, folder_path, **options):
                calls.append(("upload", options))
                shutil.copytree(folder_path, tmp_path, dirs_exist_ok=True)
                return "https://huggingface.co/me/model/commit/1"

        monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
        model = build(window=5)
        address = model.push_to_hub("model", private=True, token="secret", revision="dev", create_pr=True)
        assert address.endswith("/commit/1")
        assert calls[0][1]["token"] == "secret"
        assert calls[1] == ("create", "model", {"private": True, "exist_ok": True})
        expected = {"repo_id": "me/model", "revision": "dev", "create_pr": True}
        assert calls[2][1].items() >= expected.items()
        names = {"config.json", "model.safetensors"} | (set() if has_card else {"README.md"})
        assert {path.name for path in tmp_path.iterdir()} == names
        if not has_card:
            card = (tmp_path / "README.md").read_text()
            assert card.startswith("---\nlibrary_name: omnistream\n")
            assert 'OmniStream.from_pretrained("me/model")' in card
        loaded = OmniStream.from_pretrained(tmp_path)
        assert loaded.window == 5
        torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
