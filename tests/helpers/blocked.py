"""Run naevus where some packages cannot be imported: ``python blocked.py '{...}'``.

Takes ``{"blocked": [package, ...], "absent": [name, ...], "modules": [name, ...], "commands":
[[word, ...], ...]}``, where what is absent are names in ``os``, and
prints, as JSON, ``{"answers": [[exit code, stdout, stderr], ...], "imported": [name, ...]}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Blocker:
    """A meta-path finder that finds nothing of the blocked packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse blocked packages; leave the others to the finders behind."""
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Import the modules, then run the commands."""
    warnings.simplefilter("error")
    blocker: Any = Blocker(job["blocked"])
    sys.meta_path.insert(0, blocker)
    for name in job["blocked"]:
        sys.modules.pop(name, None)
    for name in job.get("absent", ()):
        if hasattr(os, name):
            delattr(os, name)
    for module in job["modules"]:
        importlib.import_module(module)

    from typer.testing import CliRunner

    from naevus.cli.main import app

    predictions = []
    for words in job["commands"]:
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        predictions.append([result.exit_code, result.stdout, result.stderr])
    return {"answers": predictions, "imported": sorted(sys.modules)}


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
