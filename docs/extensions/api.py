"""Show modules at length from their docstrings, and leave out what docstrings say in vain.

A line ``<!-- api: MODULE -->`` in a page, below the table that ``tools/write_reference.py`` has
written for readers of the Markdown, becomes the documentation of that module on the site.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MARKER = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx fill in the modules as it reads pages."""
    app.connect("source-read", _fill)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _without_noise)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(_: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _MARKER.sub(lambda marker: automodule(marker[1]), source[0])


def automodule(name: str) -> str:
    """Return the directive that documents a module."""
    # What a module has from elsewhere is told of there; a package offers what its modules hold.
    package = hasattr(import_module(name), "__path__")
    option = "" if package else "\n   :ignore-module-all:"
    return f"```{{eval-rst}}\n.. automodule:: {name}{option}\n```"


def _without_noise(
    _app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    """Drop what Python itself says of a named tuple's fields."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
