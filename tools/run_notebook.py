"""Run the documentation's notebook and store its outputs, so that it reads whole on a forge.

The site runs it again. With ``--check``, nothing is written, and outputs that differ are listed:
other words, or numbers that differ by more than a hundredth.

    python tools/run_notebook.py
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import sys
import tempfile
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTEBOOK: Final = Path(__file__).parents[1] / "docs" / "getting-started" / "notebook.ipynb"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CLOSE = 0.01


def outputs_of(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell and return its outputs as a notebook stores them.

    Args:
        source: The code; lines that begin with % are left out.
        names: The variables of the cells before, to which its own are added.
    """
    code = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    last = code.body.pop() if code.body and isinstance(code.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(code, str(NOTEBOOK), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append(
            {"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())}
        )
    if value is not None:
        found.append(
            {
                "output_type": "execute_result",
                "execution_count": None,
                "metadata": {},
                "data": _shown(value),
            }
        )
    return found


def _shown(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "savefig"):
        drawn, small = io.BytesIO(), io.BytesIO()
        value.savefig(drawn, dpi=72, bbox_inches="tight")
        Image.open(drawn).convert("RGB").quantize(64).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()
    elif hasattr(value, "to_html"):
        data["text/html"] = _lines(value.to_html())
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of its cells."""
    import matplotlib as mpl  # noqa: PLC0415 (an extra)
    import pandas as pd  # noqa: PLC0415 (as above)

    mpl.use("agg")
    names: dict[str, Any] = {}
    cells = []
    wide = pd.option_context("display.width", 120, "display.max_columns", 20)
    with _in_a_folder_of_its_own(), wide:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cells.append({**cell, "outputs": outputs_of("".join(cell["source"]), names)})
            else:
                cells.append(cell)
    return {**notebook, "cells": cells}


@contextmanager
def _in_a_folder_of_its_own() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def text_of(notebook: dict[str, Any]) -> list[str]:
    """Return the text outputs of a notebook, line by line."""
    outputs = [each for cell in notebook["cells"] for each in cell.get("outputs", ())]
    texts = ("".join(each.get("text") or each["data"]["text/plain"]) for each in outputs)
    return [line.rstrip() for text in texts for line in text.splitlines()]


def differences(stored: list[str], made: list[str]) -> list[str]:
    """Return the lines that differ in words or numbers.

    Processors compute in different precisions, so numbers may differ by a hundredth, and those with
    decimals by one in the last.
    """
    found = [] if len(stored) == len(made) else [f"{len(stored)} lines are stored, not {len(made)}"]
    for one, other in zip(stored, made, strict=False):
        numbers = [_NUMBER.findall(line) for line in (one, other)]
        words = [_NUMBER.sub("", line).replace("█", "").split() for line in (one, other)]
        near = len(numbers[0]) == len(numbers[1]) and all(
            _near(*pair) for pair in zip(*numbers, strict=True)
        )
        if words[0] != words[1] or not near:
            found.append(f"{one!r} is now {other!r}")
    return found


def _near(one: str, other: str) -> bool:
    decimals = len(other.partition(".")[2])
    last = 10.0**-decimals if decimals else 0.0
    a, b = float(one), float(other)
    return abs(a - b) <= max(_CLOSE * max(1, abs(b)), 1.001 * last)


def main(check: bool) -> int:
    """Store the outputs, or list what differs; return how many lines do."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    made = run(notebook)
    found = differences(text_of(notebook), text_of(made))
    print(*found, sep="\n")
    if not check:
        text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
        NOTEBOOK.write_text(text + "\n", encoding="utf-8")
    return len(found)


if __name__ == "__main__":
    wanted = "--check" in sys.argv
    raise SystemExit(1 if main(wanted) and wanted else 0)
