"""The command line: dispatch, packaged configurations, overrides of a dictionary of tasks, and one-line errors."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from lightning import LightningDataModule, LightningModule
from torch import nn

from omnistream import __version__
from omnistream.cli import COMMANDS, main
from omnistream.commands import overrides
from omnistream.commands.train import OmniStreamCLI
from omnistream.errors import UsageError, did_you_mean, one_line
from omnistream.packaged_configs import find_config, list_configs, summary
from omnistream.tasks import MultiTaskModule, NonFiniteLossError
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.ssl import SSLModule


class Backbone(nn.Module):
    def __init__(self, variant: str = "vit_nano", width: int = 4) -> None:
        super().__init__()
        self.variant, self.width = variant, width


class Task(LightningModule):
    def __init__(self, backbone: Backbone | None = None) -> None:
        super().__init__()


@dataclass(frozen=True)
class LossWeights:
    dino: float = 1.0
    koleo: float = 0.1


class SelfSupervision(Task):
    def __init__(
        self,
        prototypes: int = 16,
        loss: LossWeights = LossWeights(),
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(backbone)
        self.prototypes, self.loss = prototypes, loss


class Geometry(Task):
    def __init__(self, num_layers: int = 4, backbone: Backbone | None = None) -> None:
        super().__init__(backbone)
        if num_layers < 1:
            raise ValueError(f"num_layers must be positive, got {num_layers}; use 1 to 4")
        self.num_layers = num_layers


@dataclass
class Optimizer:
    lr: float = 1e-4
    kind: Literal["adam", "sgd"] = "sgd"


class Multi(LightningModule):
    """The signature of MultiTaskModule with nothing behind it; remembers the last one built."""

    last: "Multi"

    def __init__(
        self,
        backbone: Backbone,
        tasks: dict[str, Task | None],
        weights: dict[str, float] | None = None,
        optimizer: Optimizer = Optimizer(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.tasks, self.weights, self.optimizer_config, self.backbone = tasks, weights, optimizer, backbone
        self.scale = nn.Parameter(torch.ones(()))
        Multi.last = self

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.scale * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def __init__(self, root: str | None = None) -> None:
        super().__init__()
        self.root = root

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.root is not None and not Path(self.root).is_dir():
            raise FileNotFoundError(f"no folder {self.root}; set data.root to the folder with the clips")
        return torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)


CONFIG = f"""\
# A dummy of the multi-task configuration
model:
  class_path: {__name__}.Multi
  init_args:
    backbone:
      class_path: {__name__}.Backbone
      init_args: {{variant: vit_small, width: 8}}
    tasks:
      ssl:
        class_path: {__name__}.SelfSupervision
        init_args: {{prototypes: 32}}
      geometry:
        class_path: {__name__}.Geometry
        init_args: {{num_layers: 2}}
      captioning: null
    weights: {{ssl: 0.1, geometry: 1.0}}
data:
  class_path: {__name__}.Data
trainer: {{max_steps: 1, accelerator: cpu, logger: false, enable_checkpointing: false, enable_progress_bar: false,
  enable_model_summary: false}}
"""


REAL_CONFIG = f"""\
model:
  class_path: omnistream.tasks.MultiTaskModule
  init_args:
    backbone: {{class_path: omnistream.backbone.OmniStream, init_args: {{variant: vit_nano}}}}
    tasks:
      ssl:
        class_path: omnistream.tasks.ssl.SSLModule
        init_args: {{heads: {{num_prototypes: 4, hidden_dim: 16, bottleneck_dim: 8}}}}
      geometry:
        class_path: omnistream.tasks.geometry.GeometryModule
        init_args: {{features: 8, out_channels: [8, 8, 8, 8], hidden: 8}}
data: {{class_path: {__name__}.Data}}
trainer: {{max_steps: 1, accelerator: cpu, logger: false}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dummy configuration as a file, with the run confined to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    # LightningCLI warns when it gets arguments while the process (pytest) has its own.
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    path = tmp_path / "dummy.yaml"
    path.write_text(CONFIG)
    return path


def built(config: Path, *arguments: str) -> Multi:
    main(["fit", "-c", str(config), *arguments])
    return Multi.last


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("omnistream: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("omnistream: error: ")


class TestDispatch:
    @pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
    def test_help_names_every_command(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        main(arguments)
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in COMMANDS)
        assert len(text.splitlines()) < 30

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["--version"])
        assert capsys.readouterr().out == f"omnistream {__version__}\n"

    def test_unknown_command_suggests_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "fitt").startswith("no command 'fitt' (did you mean 'fit'?); commands: fit, validate")

    def test_help_and_version_import_no_torch(self) -> None:
        program = (
            "import sys; from omnistream.cli import main; main(['--help']); main(['--version']); main(['configs']);"
            "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'jsonargparse')))"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0

    def test_models_lists_the_variants(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["models"])
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
        assert {"vit_nano", "vit_tiny", "vit_large", "vit_7b"} <= {row[0] for row in rows}
        assert ["vit_small", "21.6", "M", "384", "12", "6", "16", "DINOv3", "ViT-S/16"] in rows
        assert ["StreamFormer/OmniStream", "vit_large", "the", "authors'", "release"] in rows

    def test_commands_without_arguments_reject_some(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "models", "vit") == "`omnistream models` takes no arguments, got 'vit'"


class TestPackagedConfigs:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("quickstart", "stage1", "ablations/no_ssl", "ablations/small", "probing/small"):
            path = tmp_path / f"{name}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"# About {name}\nmodel: null\n")
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("quickstart", "quickstart"),
            ("quickstart.yaml", "quickstart"),
            ("ablations/no_ssl", "ablations/no_ssl"),
            ("no_ssl", "ablations/no_ssl"),
            ("probing/small.yaml", "probing/small"),
        ],
    )
    def test_found_by_name(self, folder: Path, name: str, found: str) -> None:
        assert find_config(name, folder) == folder / f"{found}.yaml"

    def test_a_path_wins(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = tmp_path / "here"
        here.mkdir()
        (here / "quickstart.yaml").write_text("model: mine\n")
        monkeypatch.chdir(here)
        assert find_config("quickstart.yaml", folder) == Path("quickstart.yaml")
        assert find_config("quickstart", folder) == folder / "quickstart.yaml"

    def test_unknown_name_lists_and_suggests(self, folder: Path) -> None:
        with pytest.raises(UsageError) as caught:
            find_config("quickstrat", folder)
        assert str(caught.value) == (
            "no file and no packaged configuration 'quickstrat' (did you mean 'quickstart'?); "
            "packaged: ablations/no_ssl, ablations/small, probing/small, quickstart, stage1"
        )

    def test_ambiguous_name(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="ambiguous; write one of: ablations/small, probing/small"):
            find_config("small", folder)

    def test_listed_with_first_comment(self, folder: Path) -> None:
        assert summary(list_configs(folder)["ablations/no_ssl"]) == "About ablations/no_ssl"

    def test_unknown_name_on_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "fit", "-c", "nope").startswith("no file and no packaged configuration 'nope'")

    def test_configs_prints_every_packaged_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["configs"])
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(list_configs())


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
            model = built(config, f"--{key}", f"{__name__}.SelfSupervision", "--model.tasks.geometry.prototypes", "5")
            assert isinstance(model.tasks["geometry"], SelfSupervision)
            assert model.tasks["geometry"].prototypes == 5

    def test_null_task_given_a_class(self, config: Path) -> None:
        new = ("--model.tasks.captioning", f"{__name__}.Geometry", "--model.tasks.captioning.num_layers", "1")
        assert built(config, *new).tasks["captioning"].num_layers == 1

    def test_dropped_then_given_again(self, config: Path) -> None:
        again = ("--model.tasks.geometry", "null", "--model.tasks.geometry", f"{__name__}.Geometry")
        assert built(config, *again).tasks["geometry"].num_layers == 4

    def test_new_task(self, config: Path) -> None:
        model = built(config, "--model.tasks.tracking", f"{__name__}.Geometry")
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
        second.write_text(f"model: {{init_args: {{tasks: {{geometry: {{class_path: {__name__}.Geometry}}}}}}}}\n")
        assert built(config, f"--config={second}").tasks["geometry"].num_layers == 2
        second.write_text(second.read_text().replace(".Geometry", ".SelfSupervision"))
        assert built(config, f"--config={second}").tasks["geometry"].prototypes == 16


class TestRealModule:
    """The same with MultiTaskModule itself, built and not trained."""

    @pytest.fixture
    def build(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MultiTaskModule]:
        config.write_text(REAL_CONFIG)
        models = []
        monkeypatch.setattr(OmniStreamCLI, "_run_subcommand", lambda self, name: models.append(self.model))

        def build(*arguments: str) -> MultiTaskModule:
            main(["fit", "-c", str(config), *arguments])
            return models[-1]

        return build

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

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--model.tasks.ssl", "null", "--model.tasks.geometry", "null"], "every task is null: nothing to train"),
            (["--model.weights.sssl", "1"], "weights for tasks that do not exist: ['sssl']"),
            (["--model.backbone.variant", "vit_hug"], "unknown backbone variant 'vit_hug'; choose one of vit_nano"),
            (["--model.backbone.checkpoint", "gone.pth"], "no weights at gone.pth"),
            (["--model.optimizer.lr", "-1"], "lr must be positive"),
        ],
    )
    def test_errors_of_constructors(
        self,
        build: Callable[..., MultiTaskModule],
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        expected: str,
    ) -> None:
        assert error_of(capsys, "fit", "-c", "dummy.yaml", *arguments).startswith(expected)


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


class TestErrors:
    """A wrong key, path or value: exit code 2 and one line that says what to change."""

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (
                "prototypes",
                "prototipes",
                "model.tasks: {m}.SelfSupervision has no argument 'prototipes' (did you mean 'prototypes'?)",
            ),
            ("weights:", "weight:", "model: {m}.Multi has no argument 'weight.ssl' (did you mean 'weights'?)"),
            ("max_steps", "max_stps", "there is no key 'trainer.max_stps' (did you mean 'trainer.max_steps'?)"),
            ("width: 8", "width: eight", "model.backbone.width: expected int, got 'eight' (argument of {m}.Backbone)"),
            ("max_steps: 1", "max_steps: many", "trainer.max_steps: expected int, got 'many'"),
            ("ssl: 0.1", "ssl: much", "model.weights: expected float, got 'much' (argument of {m}.Multi)"),
            ("data:", "dta:", "there is no key 'dta.class_path' (did you mean 'data'?)"),
            (".Geometry", ".Geometri", "model.tasks: no class 'Geometri' in {m} (did you mean 'Geometry'?)"),
            (f"{__name__}.Multi", "nowhere.Multi", "model: nowhere.Multi: No module named 'nowhere'"),
            (".Multi", ".Data", "model: Import path {m}.Data does not correspond to a subclass of LightningModule"),
            ("num_layers: 2", "num_layers: 0", "num_layers must be positive, got 0; use 1 to 4"),
            ("{prototypes: 32}", "{loss: {kolo: 1}}", "model.tasks: {m}.SelfSupervision has no argument 'loss.kolo' "
             "(did you mean 'loss.koleo'?)"),
        ],
    )  # fmt: skip
    def test_in_yaml(self, config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, expected: str) -> None:
        assert old in CONFIG
        config.write_text(CONFIG.replace(old, new))
        assert error_of(capsys, "fit", "-c", str(config)) == expected.format(m=__name__)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                ["--model.tasks.ssl.prototipes", "2"],
                "model.tasks: {m}.SelfSupervision has no argument 'prototipes' (did you mean 'prototypes'?)",
            ),
            (
                ["--model.tasks.ssl.prototypes", "x"],
                "model.tasks.prototypes: expected int, got 'x' (argument of {m}.SelfSupervision)",
            ),
            (
                ["--model.optimizer.kind", "sdg"],
                "model.optimizer.kind: expected one of 'adam', 'sgd', got 'sdg' (argument of {m}.Multi)",
            ),
            (
                ["--model.backbon.width", "2"],
                "model: {m}.Multi has no argument 'backbon.width' (did you mean 'backbone'?)",
            ),
            (
                ["--model.tasks.geometri", "null"],
                "--model.tasks.geometri: there is no 'geometri' in model.tasks (did you mean 'geometry'?); "
                "it has ssl, geometry, captioning",
            ),
            (
                ["--model.tasks.sll.prototypes", "2"],
                "--model.tasks.sll.prototypes: there is no 'sll' in model.tasks (did you mean 'ssl'?); "
                "it has ssl, geometry, captioning",
            ),
            (
                ["--model.tasks.captioning.num_layers", "2"],
                "--model.tasks.captioning.num_layers: model.tasks.captioning is null; give it a class first: "
                "--model.tasks.captioning CLASS_PATH",
            ),
            (["--model.tasks.geometry.num_layers", "-1"], "num_layers must be positive, got -1; use 1 to 4"),
            (["--trainer.max_stepz", "4"], "there is no key 'trainer.max_stepz' (did you mean 'trainer.max_steps'?)"),
            (["--data.root", "gone"], "no folder gone; set data.root to the folder with the clips"),
            (["stray"], "unexpected argument 'stray'; options are written --key value"),
            (["-c"], "-c needs the name or path of a configuration; `omnistream configs` lists the packaged ones"),
        ],
    )
    def test_on_the_command_line(
        self, config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
    ) -> None:
        assert error_of(capsys, "fit", "-c", str(config), *arguments) == expected.format(m=__name__)

    def test_nothing_given(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["omnistream"])
        line = error_of(capsys, "fit")
        assert line.startswith("nothing given for data, model; name a configuration with -c")

    def test_malformed_yaml_names_file_and_line(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text("model:\n  class_path: [a\n")
        assert error_of(capsys, "fit", "-c", str(config)).startswith(f"{config}, line 3, column 1: not valid YAML")
        config.write_text("just words\n")
        assert "expected a mapping" in error_of(capsys, "fit", "-c", str(config))

    def test_debug_raises_the_error_itself(self, config: Path) -> None:
        with pytest.raises(UsageError, match=r"no key 'trainer\.foo'"):
            main(["--debug", "fit", "-c", str(config), "--trainer.foo", "1"])

    def test_a_bug_is_not_disguised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(arguments: list[str]) -> None:
            raise KeyError("internal")

        monkeypatch.setattr("omnistream.commands.catalogue.configs", fail)
        with pytest.raises(KeyError):
            main(["configs"])

    def test_own_exceptions_are_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(arguments: list[str]) -> None:
            raise NonFiniteLossError("step 3: the depth of task geometry\n is not finite")

        monkeypatch.setattr("omnistream.commands.catalogue.configs", fail)
        assert error_of(capsys, "configs") == "step 3: the depth of task geometry is not finite"

    def test_one_line(self) -> None:
        assert one_line("a\n  b\t c ") == "a b c"
        assert len(one_line("x" * 1000)) == 600

    def test_did_you_mean(self) -> None:
        assert did_you_mean("depht", ["depth", "pose"]) == " (did you mean 'depth'?)"
        assert did_you_mean("zzz", ["depth", "pose"]) == ""


class TestSavedConfig:
    def test_kept_when_it_changes(self, config: Path, tmp_path: Path) -> None:
        logger = (
            "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.save_dir={tmp_path}",
            "--trainer.logger.name=run",
            "--trainer.logger.version=first",
        )
        folder = tmp_path / "run" / "first"
        built(config, *logger)
        first = (folder / "config.yaml").read_text()
        assert yaml.safe_load(first)["model"]["init_args"]["weights"]["ssl"] == 0.1
        built(config, *logger)
        assert [path.name for path in folder.glob("config*")] == ["config.yaml"]
        built(config, *logger, "--model.weights.ssl", "0.5")
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["weights"]["ssl"] == 0.5
        assert (folder / "config.1.yaml").read_text() == first
        # The saved file is a configuration: it reproduces the run.
        assert built(folder / "config.yaml", f"--trainer.default_root_dir={tmp_path}").weights["ssl"] == 0.5

    def test_nothing_written_without_a_logger_folder(self, config: Path, tmp_path: Path) -> None:
        built(config, "--trainer.fast_dev_run", "true")
        assert list(tmp_path.rglob("config*.yaml")) == []

    @pytest.mark.slow
    def test_written_once_by_two_processes(self, config: Path, tmp_path: Path) -> None:
        """The folder of a run is agreed on by all processes: asking for it on one alone would never end."""
        program = [sys.executable, "-m", "omnistream", "fit", "-c", str(config), "--trainer.devices", "2"]
        options = ["--trainer.strategy", "ddp", "--trainer.logger", "lightning.pytorch.loggers.CSVLogger"]
        folder = [f"--trainer.logger.save_dir={tmp_path}", "--trainer.logger.name=run", "--trainer.logger.version=two"]
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        run = subprocess.run(
            program + options + folder, env=environment, cwd=tmp_path, timeout=300, capture_output=True, check=False
        )
        assert run.returncode == 0, run.stderr.decode()
        assert [path.name for path in (tmp_path / "run" / "two").glob("config*")] == ["config.yaml"]
