"""A task is swapped, dropped and re-weighted from the command line and from a second file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cli_dummies import CONFIG, LossWeights, SelfSupervision, built

from omnistream.commands import overrides
from omnistream.tasks import MultiTaskModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.ssl import SSLModule


class TestTasks:
    """A task is swapped, dropped and re-weighted from the command line and from a second file."""

    def test_as_written(self, config: Path) -> None:
        model = built(config)
        assert model.tasks["ssl"].prototypes == 32
        assert model.tasks["geometry"].num_layers == 2
        assert model.tasks["captioning"] is None
        assert model.weights == {"ssl": 0.1, "geometry": 1.0}

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--model.tasks.geometry", "null"],
            ["--model.tasks.geometry=null"],
            ["--model.init_args.tasks.geometry", "null"],
            ["--model.tasks.geometry.num_layers", "3", "--model.tasks.geometry", "null"],
        ],
    )
    def test_dropped(self, config: Path, arguments: list[str]) -> None:
        model = built(config, *arguments)
        assert model.tasks["geometry"] is None
        assert model.tasks["ssl"].prototypes == 32

    def test_weight(self, config: Path) -> None:
        assert built(config, "--model.weights.ssl", "0.5").weights == {"ssl": 0.5, "geometry": 1.0}

    @pytest.mark.parametrize("key", ["model.tasks.ssl.prototypes", "model.init_args.tasks.ssl.init_args.prototypes"])
    def test_nested_argument(self, config: Path, key: str) -> None:
        assert built(config, f"--{key}", "64").tasks["ssl"].prototypes == 64

    def test_field_of_a_dataclass_in_a_task(self, config: Path) -> None:
        task = built(config, "--model.tasks.ssl.loss.koleo", "0.7").tasks["ssl"]
        assert task.loss == LossWeights(dino=1.0, koleo=0.7)
        assert task.prototypes == 32

    def test_class_replaced(self, config: Path) -> None:
        for key in ("model.tasks.geometry", "model.tasks.geometry.class_path"):
            model = built(config, f"--{key}", "cli_dummies.SelfSupervision", "--model.tasks.geometry.prototypes", "5")
            assert isinstance(model.tasks["geometry"], SelfSupervision)
            assert model.tasks["geometry"].prototypes == 5

    def test_null_task_given_a_class(self, config: Path) -> None:
        new = ("--model.tasks.captioning", "cli_dummies.Geometry", "--model.tasks.captioning.num_layers", "1")
        assert built(config, *new).tasks["captioning"].num_layers == 1

    def test_dropped_then_given_again(self, config: Path) -> None:
        again = ("--model.tasks.geometry", "null", "--model.tasks.geometry", "cli_dummies.Geometry")
        assert built(config, *again).tasks["geometry"].num_layers == 4

    def test_new_task(self, config: Path) -> None:
        model = built(config, "--model.tasks.tracking", "cli_dummies.Geometry")
        assert list(model.tasks) == ["ssl", "geometry", "captioning", "tracking"]

    def test_other_arguments(self, config: Path) -> None:
        model = built(config, "--model.backbone.width", "3", "--model.optimizer.lr", "3e-5", "--model.weights", "null")
        assert (model.backbone.variant, model.backbone.width) == ("vit_small", 3)
        assert model.optimizer_config.lr == 3e-5
        assert model.weights is None

    def test_second_file_merges(self, config: Path, tmp_path: Path) -> None:
        second = tmp_path / "second.yaml"
        second.write_text("model: {tasks: {geometry: null}, weights: {ssl: 0.3}, optimizer: {lr: 1e-5}}\n")
        model = built(config, "-c", str(second))
        assert model.tasks["geometry"] is None
        assert model.tasks["ssl"].prototypes == 32
        assert model.weights == {"ssl": 0.3, "geometry": 1.0}
        assert model.optimizer_config.lr == 1e-5

    def test_second_file_replaces_a_class(self, config: Path, tmp_path: Path) -> None:
        second = tmp_path / "second.yaml"
        second.write_text("model: {init_args: {tasks: {geometry: {class_path: cli_dummies.Geometry}}}}\n")
        assert built(config, f"--config={second}").tasks["geometry"].num_layers == 2
        second.write_text(second.read_text().replace(".Geometry", ".SelfSupervision"))
        assert built(config, f"--config={second}").tasks["geometry"].prototypes == 16


class TestRealModule:
    """The same with MultiTaskModule itself, built and not trained."""

    def test_dropped_and_weighted(self, build: Callable[..., MultiTaskModule]) -> None:
        model = build("--model.tasks.geometry", "null", "--model.weights.ssl", "0.5")
        assert list(model.objectives) == ["ssl"]
        assert model.weights == {"ssl": 0.5}

    def test_nested_settings(self, build: Callable[..., MultiTaskModule]) -> None:
        model = build("--model.tasks.ssl.heads.num_prototypes", "8", "--model.optimizer.warmup_steps", "5")
        ssl, geometry = model.objectives["ssl"], model.objectives["geometry"]
        assert isinstance(ssl, SSLModule)
        assert isinstance(geometry, GeometryModule)
        assert (ssl.heads.num_prototypes, ssl.heads.hidden_dim) == (8, 16)
        assert model.optimizer_config.warmup_steps == 5


class TestPaths:
    """`~` and `$VAR` are expanded wherever a path can be given."""

    @pytest.fixture(autouse=True)
    def home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CLIPS", "clips")

    @pytest.mark.parametrize("written", ["~/clips", "$HOME/clips", "${HOME}/$CLIPS", "~/$CLIPS/"])
    def test_in_yaml_and_on_the_command_line(self, config: Path, tmp_path: Path, written: str) -> None:
        (tmp_path / "clips").mkdir()
        expected = [f"--data.root={tmp_path / 'clips'}"]
        assert overrides.prepare([f"--data.root={written}"]) == expected
        assert overrides.prepare(["--data.root", written]) == expected
        second = tmp_path / "second.yaml"
        second.write_text(f"data: {{root: '{written}', roots: ['{written}']}}")
        prepared = yaml.safe_load(overrides.prepare(["-c", str(config), "-c", "~/second.yaml"])[0].partition("=")[2])
        assert prepared["data"]["init_args"]["root"] == str(tmp_path / "clips")
        assert prepared["data"]["init_args"]["roots"] == [str(tmp_path / "clips")]
        assert overrides.prepare([f"--data.roots=['{written}', b]"]) == [f"--data.roots=[{tmp_path / 'clips'}, b]"]

    @pytest.mark.parametrize("written", ["about 5$ each", "a~b", "~5 minutes", "s3://$BUCKET/x", "a$b", "[a, b]"])
    def test_other_text_is_left_alone(self, written: str) -> None:
        assert overrides.prepare([f"--data.root={written}"]) == [f"--data.root={written}"]


class TestMerge:
    def test_split_keeps_order_and_negative_values(self) -> None:
        names, keys, rest = overrides.split(["-c", "a", "--x.y", "-1", "--config=b", "--flag", "--z=1=2", "-h"])
        assert names == ["a", "b"]
        assert [(one.key, one.value) for one in keys] == [("x.y", "-1"), ("flag", None), ("z", "1=2")]
        assert rest == ["-h"]

    def test_prepared_arguments(self, config: Path) -> None:
        first, *others = overrides.prepare(["--trainer.max_steps", "7", "-c", str(config), "--model.tasks.ssl=null"])
        expected = yaml.safe_load(CONFIG)
        expected["model"]["init_args"]["tasks"]["ssl"] = None
        assert yaml.safe_load(first.removeprefix("--config=")) == expected
        assert others == ["--trainer.max_steps=7"]

    def test_inputs_are_left_alone(self) -> None:
        base = {"a": {"class_path": "x.Y", "init_args": {"b": 1}}}
        assert overrides.merge(base, {"a": {"c": 2}}) == {"a": {"class_path": "x.Y", "init_args": {"b": 1, "c": 2}}}
        assert base == {"a": {"class_path": "x.Y", "init_args": {"b": 1}}}
