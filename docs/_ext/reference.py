"""What the generated reference needs: links from docstrings, help texts of the commands, packaged configurations."""

import contextlib
import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import roles
from docutils.parsers.rst.states import Inliner
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from omnistream.cli import main
from omnistream.packaged_configs import list_configs, summary

DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
HELP_WIDTH = "88"
"""Columns of the help texts."""


def code_or_link(
    role: str, rawtext: str, text: str, lineno: int, inliner: Inliner, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """What single backticks in a docstring give: a link where the text is a documented name, else code."""
    name = "py:obj" if DOTTED_NAME.fullmatch(text) else "code"
    function, messages = roles.role(name, inliner.document.settings.language_code, lineno, inliner.reporter)
    found, more = function(name, rawtext, text, lineno, inliner, options or {}, content)
    return found, messages + more


def public_names(rooms: list[str]) -> dict[str, str]:
    """Where users import each object from, by where it is defined."""
    names = {}
    for room in rooms:
        module = import_module(room)
        for name in module.__all__:
            target = getattr(module, name)
            if hasattr(target, "__qualname__"):
                names.setdefault(f"{target.__module__}.{target.__qualname__}", f"{room}.{name}")
    return names


def link_to_public_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve where an object is defined (`omnistream.cameras.rays.project`) to its public name.

    Internal types in signatures have no page and are shown without a link. A name that does not exist stays an error.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if public := app.omnistream_names.get(target):  # type: ignore[attr-defined]
        python = environment.domains["py"]
        return python.resolve_xref(environment, node["refdoc"], app.builder, "obj", public, node, content)
    module, _, name = target.rpartition(".")
    return content if hasattr(sys.modules.get(module), name) else None


class CommandHelp(SphinxDirective):
    """`command-help` shows what `omnistream ... --help` prints."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the command in this process."""
        printed = io.StringIO()
        before = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = HELP_WIDTH
        try:
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                main(self.arguments[0].split())
        finally:
            if before is None:
                del os.environ["COLUMNS"]
            else:
                os.environ["COLUMNS"] = before
        return [nodes.literal_block(printed.getvalue(), printed.getvalue(), language="text")]


class PackagedConfigs(SphinxDirective):
    """`packaged-configs` shows every configuration with its name as heading."""

    def run(self) -> list[nodes.Node]:
        """One section per file."""
        sections: list[nodes.Node] = []
        for name, path in list_configs().items():
            self.env.note_dependency(str(path))
            text = Path(path).read_text(encoding="utf-8")
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(name, name)
            section += nodes.paragraph(text=summary(path))
            section += nodes.literal_block(text, text, language="yaml")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it; the rooms are those listed in reference/index.md."""
    roles.register_local_role("code-or-link", code_or_link)
    index = Path(app.srcdir, "reference", "index.md").read_text(encoding="utf-8")
    app.omnistream_names = public_names(re.findall(r"^   (omnistream[\w.]*)$", index, re.MULTILINE))  # type: ignore[attr-defined]
    app.connect("missing-reference", link_to_public_name)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("packaged-configs", PackagedConfigs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
