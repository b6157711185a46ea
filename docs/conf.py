"""Sphinx configuration. The source folder is the repository, so that links hold on a code host."""

import contextlib
import sys
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from sphinx.util.nodes import make_refnode

sys.path.insert(0, str(Path(__file__).parents[1]))

import cnnsvm

project = "cnnsvm"
author = "the cnnsvm developers"
project_copyright = "2026, the cnnsvm developers"
version = release = cnnsvm.__version__

extensions = [
    "myst_nb",  # Markdown and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_external_toc",  # the tree of pages is a file: pages stay plain Markdown
    "sphinx_copybutton",
]
external_toc_path = "docs/_toc.yml"
include_patterns = [
    "*.md",
    "docs/**",
    "data/README.md",
    "examples/README.md",
    "cnnsvm/**/README.md",
]
exclude_patterns = ["build", "runs", ".*", "data/[!R]*", "**/.ipynb_checkpoints"]
nitpicky = True
default_role = "py:obj"  # `Name` in a docstring is a link, see _resolve
highlight_language = "none"  # indented blocks are commands and what they print

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # progress of libraries

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more than annotations do
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"cnnsvm {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_extra_path = ["index.html"]
copybutton_exclude = ".linenos, .gp, .go"


def _skip_inherited(
    app: Any, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what scikit-learn adds to estimators, such as ``set_fit_request``."""
    home = getattr(member, "__module__", None) or ""
    is_request = name.startswith("set_") and name.endswith("_request")
    return True if is_request or home.startswith("sklearn.") else None


def _resolve(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Link a name by its last parts, as docstrings use it in any module.

    A name that exists and has no entry in the reference is shown without a link; one that does not
    exist is left to be warned of.
    """
    if node.get("refdomain") != "py":
        return None
    python, target = env.domains["py"], node["reftarget"]
    for name in (target, target.removeprefix("cnnsvm.").rpartition(".")[2]):
        found = [full for full in python.objects if f".{full}".endswith(f".{name}")]
        if len(found) == 1 and (name == target or target.startswith("cnnsvm.")):
            place = python.objects[found[0]]
            start = node["refdoc"]
            return make_refnode(app.builder, start, place.docname, place.node_id, shown, found[0])
    return shown if _exists(target) or _exists(f"{node.get('py:class')}.{target}") else None


def _exists(name: str) -> bool:
    """Tell whether a dotted name is that of something, in full or as a module of ours knows it."""
    ours = [module for key, module in sys.modules.items() if f"{key}.".startswith("cnnsvm.")]
    for module in [None, *ours]:
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            attrgetter(name)(module) if module else resolve_name(name)
            return True
    return False


def setup(app: Any) -> None:
    """Connect what Sphinx calls."""
    app.connect("autodoc-skip-member", _skip_inherited)
    app.connect("missing-reference", _resolve)
