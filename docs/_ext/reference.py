"""What the generated reference needs: links from docstrings, help texts of the commands, packaged configurations."""

import contextlib
import io
import os
import re
import sys
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import roles
from docutils.parsers.rst.states import Inliner
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import autosummary
from sphinx.util.docutils import SphinxDirective

from omnistream.cli import main
from omnistream.packaged_configs import list_configs, summary

DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
PLURAL = re.compile(r"(`[^`]+`)(?=s\b)")
MARKUP = re.compile(r"[*|]")
COLON = "\0"
"""Stands for a colon that napoleon must not see."""
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
    """The one name under which each object is documented, by every name it can be imported as.

    Of several packages that export an object, the one closest to its definition documents it.
    """
    exported: dict[str, list[str]] = {}
    for room in rooms:
        module = import_module(room)
        for name in module.__all__:
            target = getattr(module, name)
            if hasattr(target, "__qualname__"):
                exported.setdefault(f"{target.__module__}.{target.__qualname__}", []).append(f"{room}.{name}")
    names = {}
    for definition, aliases in exported.items():
        home = max(aliases, key=lambda alias: _shared_parts(alias, definition))
        names |= dict.fromkeys([definition, *aliases], home)
    return names


def _shared_parts(one: str, other: str) -> int:
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def link_to_public_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve any name of an object (`omnistream.cameras.rays.project`) to the one that is documented.

    Internal types in signatures have no page and are shown without a link. A name that does not exist stays an error.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if public := app.config.autosummary_context["public_names"].get(target):
        python = environment.domains["py"]
        return python.resolve_xref(environment, node["refdoc"], app.builder, "obj", public, node, content)
    module, _, name = target.rpartition(".")
    return content if hasattr(sys.modules.get(module), name) else None


def markdown_habits(app: Sphinx, what: str, name: str, target: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with a little Markdown; mark what reStructuredText would read differently.

    An indented block after a colon is code, names in backticks may have a plural `s`, asterisks and bars are text.
    """
    if what in ("attribute", "property", "data"):
        lines[:] = [line.replace(":", COLON) for line in lines]  # napoleon takes what precedes a colon for a type
    code_below = None  # indentation of the line that a block of code belongs to
    for number, line in enumerate(lines):
        if code_below is not None and line.strip() and _indent(line) <= code_below:
            code_below = None
        if code_below is not None or line.lstrip().startswith(">>>"):
            continue
        if line.rstrip().endswith(":") and _starts_block(lines[number : number + 3]):
            code_below = _indent(line)
            line = line.rstrip() + ":"
        spans = re.split(r"(`[^`]+`)", PLURAL.sub(r"\1\\ ", line))
        lines[number] = "".join(span if span.startswith("`") else MARKUP.sub(r"\\\g<0>", span) for span in spans)


def after_napoleon(app: Sphinx, what: str, name: str, target: object, options: object, lines: list[str]) -> None:
    """Restore colons, and mark asterisks in the types that napoleon adds: the shape `*B H W`."""
    lines[:] = [line.replace(COLON, ":") for line in lines]
    lines[:] = [line.replace("*", r"\*") if line.startswith(":vartype ") else line for line in lines]


def _starts_block(lines: list[str]) -> bool:
    return len(lines) == 3 and not lines[1].strip() and _indent(lines[2]) > _indent(lines[0])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def link_within_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Links to files beside docs/, right where the pages are read as files, lead to their pages of the site."""
    source[0] = re.sub(r"\]\(\.\./(CONTRIBUTING|CHANGELOG)\.md", lambda link: f"]({link[1].lower()}.md", source[0])


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
    # Sphinx shows the first sentence of a docstring in its tables; these do not end one.
    autosummary.WELL_KNOWN_ABBREVIATIONS = (*autosummary.WELL_KNOWN_ABBREVIATIONS, "Eq.", "Sec.", "App.")
    roles.register_local_role("code-or-link", code_or_link)
    index = Path(app.srcdir, "reference", "index.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^   (omnistream[\w.]*)$", index, re.MULTILINE)
    app.config.autosummary_context = {"public_names": public_names(rooms)}
    app.connect("source-read", link_within_site)
    app.connect("missing-reference", link_to_public_name)
    app.connect("autodoc-process-docstring", markdown_habits, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("packaged-configs", PackagedConfigs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
