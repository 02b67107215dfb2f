"""Sphinx configuration. `make docs` builds the site into build/docs, with warnings as errors and without network."""

import sys
import typing
from pathlib import Path

typing.GENERATING_DOCUMENTATION = ""  # type: ignore[attr-defined]  # jaxtyping then prints `Float[Tensor, 'B T D']`
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import omnistream  # noqa: E402  # after jaxtyping's switch

project = "OmniStream"
author = copyright = "the OmniStream contributors"
release = version = omnistream.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference",
]
templates_path = ["_templates"]
highlight_language = "text"
default_role = "code-or-link"
maximum_signature_line_length = 100
nitpicky = True
# Only names of this library are checked: the others would need their projects' inventories from the network.
nitpick_ignore_regex = [("py:.*", r"(?!omnistream\b).*")]

html_theme = "pydata_sphinx_theme"
html_title = f"OmniStream {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}

myst_heading_anchors = 3

autosummary_ignore_module_all = False  # the page of a module lists its `__all__`
autosummary_imported_members = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
