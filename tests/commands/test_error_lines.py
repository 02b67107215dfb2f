"""A wrong key, path or value: exit code 2 and one line that says what to change."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cli_dummies import CONFIG, error_of

from omnistream.cli import main
from omnistream.errors import UsageError, did_you_mean, one_line
from omnistream.tasks import MultiTaskModule, NonFiniteLossError


class TestErrors:
    """A wrong key, path or value: exit code 2 and one line that says what to change."""

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (
                "prototypes",
                "prototipes",
                "model.tasks.ssl: {m}.SelfSupervision has no argument 'prototipes' (did you mean 'prototypes'?)",
            ),
            ("weights:", "weight:", "model: {m}.Multi has no argument 'weight' (did you mean 'weights'?)"),
            (
                "max_steps",
                "max_stps",
                "trainer: lightning.Trainer has no argument 'max_stps' (did you mean 'max_steps'?)",
            ),
            ("width: 8", "width: eight", "model.backbone.width: expected int, got 'eight'"),
            ("max_steps: 1", "max_steps: many", "trainer.max_steps: expected int, got 'many'"),
            ("ssl: 0.1", "ssl: much", "model.weights: expected float, got 'much'"),
            ("data:", "dta:", "there is no key 'dta' (did you mean 'data'?)"),
            (".Geometry", ".Geometri", "model.tasks.geometry: no class 'Geometri' in {m} (did you mean 'Geometry'?)"),
            ("cli_dummies.Multi", "nowhere.Multi", "model: nowhere.Multi: No module named 'nowhere'"),
            (".Multi", ".Data", "model: {m}.Data is not a LightningModule"),
            ("num_layers: 2", "num_layers: 0", "model.tasks.geometry: num_layers must be positive, got 0; use 1 to 4"),
            (
                "{prototypes: 32}",
                "{loss: {kolo: 1}}",
                "model.tasks.ssl: {m}.SelfSupervision has no argument 'loss.kolo' (did you mean 'loss.koleo'?)",
            ),
        ],
    )
    def test_in_yaml(self, config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, expected: str) -> None:
        assert old in CONFIG
        config.write_text(CONFIG.replace(old, new))
        assert error_of(capsys, "fit", "-c", str(config)) == expected.format(m="cli_dummies")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                ["--model.tasks.ssl.prototipes", "2"],
                "model.tasks.ssl: {m}.SelfSupervision has no argument 'prototipes' (did you mean 'prototypes'?)",
            ),
            (
                ["--model.tasks.ssl.prototypes", "x"],
                "model.tasks.ssl.prototypes: expected int, got 'x'",
            ),
            (
                ["--model.optimizer.kind", "sdg"],
                "model.optimizer.kind: expected one of 'adam', 'sgd', got 'sdg'",
            ),
            (
                ["--model.backbon.width", "2"],
                "model: {m}.Multi has no argument 'backbon' (did you mean 'backbone'?)",
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
            (
                ["--model.tasks.geometry.num_layers", "-1"],
                "model.tasks.geometry: num_layers must be positive, got -1; use 1 to 4",
            ),
            (
                ["--trainer.max_stepz", "4"],
                "trainer: lightning.Trainer has no argument 'max_stepz' (did you mean 'max_steps'?)",
            ),
            (
                ["--trainer.precision", "12"],
                "trainer.precision: expected one of 64, 32, 16 or one of 'transformer-engine', "
                "'transformer-engine-float16', '16-true', '16-mixed', 'bf16-true', 'bf16-mixed', '32-true', '64-true' "
                "or one of '64', '32', '16', 'bf16', got 12",
            ),
            (
                ["--model.tasks.ssl", "word"],
                "model.tasks.ssl: expected a class path such as package.module.Class, got 'word'",
            ),
            (
                ["--trainer.max_step", "4"],
                "trainer: lightning.Trainer has no argument 'max_step' (did you mean 'max_steps'?)",
            ),
            (["--data.root", "$NOWHERE/x"], "$NOWHERE/x: the environment variable NOWHERE is not set"),
            (["--data.root", "gone"], "no folder gone; set data.root to the folder with the clips"),
            (["stray"], "unexpected argument 'stray'; options are written --key value"),
            (["-c"], "-c needs the name or path of a configuration; `omnistream configs` lists the packaged ones"),
        ],
    )
    def test_on_the_command_line(
        self, config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
    ) -> None:
        assert error_of(capsys, "fit", "-c", str(config), *arguments) == expected.format(m="cli_dummies")

    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("--model.backbone.width=eight", "model.backbone.width: Width must be whole"),
            ("--model.tasks.geometry.num_layers=-1", "model.tasks.geometry: num_layers must be positive, got -1"),
        ],
    )
    def test_the_key_does_not_depend_on_the_text_of_jsonargparse(
        self,
        config: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        option: str,
        expected: str,
    ) -> None:
        """Another version may word its reports differently: the key is found, and its own words are shown."""

        def raises(message: str, val: object = None, exception: Exception | None = None) -> NoReturn:
            raise ValueError("It is wrong\n  Width must be whole") from exception

        monkeypatch.setattr("jsonargparse._typehints.raise_unexpected_value", raises)
        assert error_of(capsys, "fit", "-c", str(config), option).startswith(expected)

    def test_a_folder_is_resumed_by_sharded_training_only(
        self, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "step=2.ckpt"
        folder.mkdir()
        with pytest.raises(SystemExit):
            main(["fit", "-c", str(config), f"--ckpt_path={folder}"])
        assert "distributed" not in capsys.readouterr().err
        (folder / ".metadata").touch()
        line = error_of(capsys, "fit", "-c", str(config), f"--ckpt_path={folder}")
        assert line.startswith(f"{folder} is a distributed checkpoint, which only sharded training reads; add")

    def test_nothing_given(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["omnistream"])
        line = error_of(capsys, "fit")
        assert line.startswith("nothing given for data, model; name a configuration with -c")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("model: {tasks: {geometry: null}}", "changes settings of model, but names none"),
            ("trainer: {max_steps: 5}", "names no model"),
            ("data: {root: x}", "names no model"),
        ],
    )
    def test_an_overlay_alone(
        self, config: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str, tmp_path: Path
    ) -> None:
        (tmp_path / "my.yaml").write_text(text)
        line = error_of(capsys, "fit", "-c", "my.yaml")
        assert line == f"my.yaml {problem}: combine it with a complete configuration, as in -c quickstart -c my.yaml"
        main(["fit", "-c", str(config), "-c", "my.yaml", "--data.root=null"])

    def test_a_missing_argument_names_its_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = error_of(capsys, "fit", "-c", "real_samples")
        assert line.endswith("MediaFolderDataModule needs root; add --data.root VALUE")

    def test_a_packaged_overlay_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = error_of(capsys, "fit", "-c", "ablations/without_video")
        assert line.endswith("as in -c quickstart -c ablations/without_video")

    def test_malformed_yaml_names_file_and_line(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text("model:\n  class_path: [a\n")
        assert error_of(capsys, "fit", "-c", str(config)).startswith(f"{config}, line 3, column 1: not valid YAML")
        config.write_text("just words\n")
        assert "expected a mapping" in error_of(capsys, "fit", "-c", str(config))

    def test_a_file_that_is_no_text_is_named(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_bytes(b"\x00\x00\x00\x1cftypisom\xe1\xff")
        assert error_of(capsys, "fit", "-c", str(config)) == (
            f"{config}: not a text file; expected a configuration in YAML"
        )

    def test_debug_raises_the_error_itself(self, config: Path) -> None:
        with pytest.raises(UsageError, match=r"no argument 'foo'"):
            main(["--debug", "fit", "-c", str(config), "--trainer.foo", "1"])

    def test_a_bug_is_not_disguised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(arguments: list[str]) -> None:
            raise KeyError("internal")

        monkeypatch.setattr("omnistream.commands.catalogue.configs", fail)
        with pytest.raises(KeyError, match="internal"):
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


class TestRealErrors:
    """Complaints of the constructors of the real module."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--model.tasks.ssl", "null", "--model.tasks.geometry", "null"], "every task is null: nothing to train"),
            (["--model.weights.sssl", "1"], "weights for tasks that do not exist: ['sssl']"),
            (
                ["--model.backbone.variant", "vit_hug"],
                "model.backbone: unknown backbone variant 'vit_hug'; choose one of vit_nano",
            ),
            (
                ["--model.backbone", "omnistream.backbone.create_model", "--model.backbone.checkpoint", "gone.pth"],
                "no weights at gone.pth",
            ),
            (["--model.tasks.geometry.features", "9"], "tasks.geometry: features must be a multiple of 8"),
            (
                ["--model.tasks.geometry.scale_frames", "none"],
                "model.tasks.geometry.scale_frames: expected one of 'clip', 'first', got 'none'",
            ),
            (["--model.tasks.ssl.heads.num_prototypes", "0"], "model.tasks.ssl.heads: sizes and layers of the heads"),
            (["--model.weights.ssl", "-1"], "weights of tasks must be finite and not negative, got {'ssl': -1.0}"),
            (["--model.optimizer.lr", "-1"], "model.optimizer: lr and backbone_lr must be positive"),
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
