"""Document modules from their docstrings, without Python's own remarks on named tuples.

From ``<!-- api: MODULE -->`` to ``<!-- end of api -->`` a page shows the signatures of a module, by
``tools/write_reference.py``; on the site, its whole documentation takes their place. A comment that
begins with ``<!-- toctree: CAPTION`` and lists pages becomes a part of the site's contents.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MARKER = re.compile(r"^<!-- api: ([\w.]+) -->$.*?^<!-- end of api -->$", re.MULTILINE | re.DOTALL)
_CONTENTS = re.compile(r"^<!-- toctree: (.+)\n((?:.+\n)+?)-->$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("source-read", _fill)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _without_noise)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(_: Sphinx, _page: str, source: list[str]) -> None:
    text = _MARKER.sub(lambda marker: automodule(marker[1]), source[0])
    source[0] = _CONTENTS.sub(r"```{toctree}\n:hidden:\n:caption: \1\n\n\2```", text)


def automodule(name: str) -> str:
    """Return the directive that documents a module."""
    # Imported names are documented where they are defined; a package has those of its modules.
    package = hasattr(import_module(name), "__path__")
    option = "" if package else "\n   :ignore-module-all:"
    return f"```{{eval-rst}}\n.. automodule:: {name}{option}\n```"


def _without_noise(
    _app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    """Drop Python's own docstrings of a named tuple's fields."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
