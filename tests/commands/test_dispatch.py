"""The command line: dispatch, packaged configurations by name, and which exceptions become one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from cli_dummies import error_of

from omnistream import __version__
from omnistream.cli import COMMANDS, main
from omnistream.errors import UsageError
from omnistream.packaged_configs import find_config, list_configs, summary


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
            "sys.exit(any(name in sys.modules for name in ('torch', 'lightning')))"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0

    def test_import_is_quick(self) -> None:
        """Processor time, which other programs on the machine do not lengthen."""
        program = (
            "import sys, time; start = time.process_time(); import omnistream; seconds = time.process_time() - start;"
            "print(seconds, 'torch' in sys.modules, omnistream.__version__)"
        )
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        seconds, torch, _ = output.split()
        assert torch == "False"
        assert float(seconds) < 0.2

    def test_models_lists_the_variants(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["models"])
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
        assert {"vit_nano", "vit_tiny", "vit_large", "vit_7b"} <= {row[0] for row in rows}
        assert ["vit_small", "21.6", "M", "384", "12", "6", "16", "DINOv3", "ViT-S/16"] in rows
        release = ["StreamFormer/OmniStream", "omnistream", "vit_large", "the", "authors'", "release"]
        assert release in rows

    def test_commands_without_arguments_reject_some(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error_of(capsys, "models", "vit") == "unrecognized arguments: vit; see `omnistream models --help`"


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
