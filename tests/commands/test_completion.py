"""The script that completes commands, options and configurations, run in bash and, where it is installed, in fish."""

import shutil
import subprocess
from tempfile import NamedTemporaryFile

import pytest

from omnistream.cli import COMMANDS
from omnistream.commands import completion
from omnistream.packaged_configs import list_configs


@pytest.fixture(scope="module")
def options():
    return completion._all_options()


def run(program: str, *command: str) -> str:
    """What a shell prints that reads this program from a file: it is too long for an argument."""
    with NamedTemporaryFile("w") as file:
        file.write(program)
        file.flush()
        words = [file.name if word == "FILE" else word for word in command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def in_bash(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _omnistream; printf "%s\\n" "${COMPREPLY[@]}"'
    return run(f"{script}\n{ask}", "bash", "--norc", "FILE", "omnistream", *words).split()


def in_fish(script: str, *words: str) -> list[str]:
    """What fish offers."""
    found = run(f"{script}\ncomplete -C '{' '.join(['omnistream', *words])}'", "fish", "--no-config", "FILE")
    return [offer.split("\t")[0] for offer in found.splitlines()]


@pytest.mark.parametrize(("shell", "ask"), [("bash", in_bash), ("fish", in_fish)])
def test_words_are_offered(options, shell, ask):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = completion._SCRIPTS[shell](options)
    assert set(ask(script, "")) >= set(COMMANDS)
    assert ask(script, "fi") == ["fit"]
    assert ask(script, "fit", "-c", "qui") == ["quickstart"]
    assert ask(script, "fit", "--config", "abl") == [name for name in list_configs() if name.startswith("abl")]
    assert ask(script, "fit", "--trainer.max_st") == ["--trainer.max_steps"]
    assert "--model.tasks.geometry" in ask(script, "validate", "--model.tasks.geo")
    assert ask(script, "fit", "--data.sources.ssl/image.batch") == ["--data.sources.ssl/image.batch_size"]
    assert ask(script, "stream", "--wind") == ["--window"]
    assert "last" in ask(script, "test", "--ckpt_path", "la")
    assert set(ask(script, "completion", "")) >= {"bash", "zsh", "fish"}


def test_zsh_loads_the_script_of_bash(options):
    assert completion.zsh(options).endswith(completion.bash(options))


def test_every_key_of_a_packaged_configuration_is_offered(options):
    assert {"--data.root", "--trainer.logger.save_dir", "--model.optimizer.warmup_steps"} <= set(options["fit"])
    assert not any("init_args" in word or "class_path" in word for word in options["fit"])
