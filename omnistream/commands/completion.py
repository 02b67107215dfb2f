"""`omnistream completion bash|zsh|fish`: a script with which a shell completes commands, options and configurations.

The script holds all words, so that a shell need not wait for PyTorch at every tab.
"""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import Any

from omnistream.commands.arguments import CommandParser
from omnistream.commands.overrides import load_config
from omnistream.packaged_configs import list_configs

_DESCRIPTION = """\
Print a script with which the shell completes commands, options and names of packaged configurations. To use it:

  bash   eval "$(omnistream completion bash)"       in ~/.bashrc
  zsh    eval "$(omnistream completion zsh)"        in ~/.zshrc, after compinit
  fish   omnistream completion fish > ~/.config/fish/completions/omnistream.fish

It takes some seconds to print; a shell starts faster from a file: omnistream completion bash > FILE, then source FILE.
"""
_BASH = """\
_omnistream() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [[ $COMP_CWORD == 1 ]]; then
        words="{commands} --help --version"
    elif [[ $before == -c || $before == --config ]]; then
        words="{configs}"
    elif [[ $before == --ckpt_path ]]; then
        words="last"
    elif [[ ${{COMP_WORDS[1]}} == completion ]]; then
        words="{shells}"
    elif [[ $word == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _omnistream omnistream
"""
_BASH_CASE = """\
            {command}) words="{options}" ;;"""
_ZSH = """\
autoload -U +X bashcompinit && bashcompinit
{bash}"""


def run(arguments: list[str]) -> None:
    """Print the script."""
    parser = CommandParser("completion", _DESCRIPTION, "")
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="whose script to print")
    print(_SCRIPTS[parser.parse_args(arguments).shell](_all_options()), end="")


def bash(options: dict[str, list[str]]) -> str:
    """The script for bash.

    Args:
        options: Of each command.
    """
    cases = [_BASH_CASE.format(command=command, options=" ".join(words)) for command, words in options.items()]
    return _BASH.format(
        commands=" ".join(options), configs=" ".join(list_configs()), cases="\n".join(cases), shells=" ".join(_SCRIPTS)
    )


def zsh(options: dict[str, list[str]]) -> str:
    """The script for zsh, which understands that of bash."""
    return _ZSH.format(bash=bash(options))


def fish(options: dict[str, list[str]]) -> str:
    """The script for fish."""
    configs = " ".join(list_configs())
    lines = [
        f"complete -c omnistream -n __fish_use_subcommand -f -a '{' '.join(options)}'",
        f"complete -c omnistream -s c -l config -r -a '{configs}'",
        "complete -c omnistream -l ckpt_path -r -a last",
        f"complete -c omnistream -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(_SCRIPTS)}'",
    ]
    for command, words in options.items():
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        lines += [
            f"complete -c omnistream {seen} -l {word[2:]}" for word in words if word[2:] not in ("config", "ckpt_path")
        ]
    return "\n".join([*lines, ""])


_SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}


def _all_options() -> dict[str, list[str]]:
    """The options of each command: those in its help, and the keys of packaged configurations."""
    from omnistream.cli import COMMANDS

    keys = {f"--{key}" for path in list_configs().values() for key in _keys(load_config(path))}
    options = {}
    for name in COMMANDS:
        of_lightning = COMMANDS[name].pass_name
        words = set(re.findall(r"(?<![\w-])--[A-Za-z][\w./-]*\w", _help(name, ["all"] if of_lightning else [])))
        options[name] = sorted(words | keys if of_lightning else words)
    return options


def _help(command: str, more: list[str]) -> str:
    from omnistream.cli import COMMANDS

    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        COMMANDS[command](command, ["--help", *more])
    return text.getvalue()


def _keys(settings: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all settings as they are written on the command line."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if name == "class_path":
            continue
        if name == "init_args":
            yield from _keys(value, prefix)
        else:
            yield key
            if isinstance(value, dict):
                yield from _keys(value, f"{key}.")
