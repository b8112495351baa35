"""The command lines in the documentation use existing commands and options."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from naevus.cli.main import app
from tests.helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(naevus [a-z][^`\n]*)`")


def command_lines(text: str) -> list[str]:
    """Return the naevus commands in shell blocks and in running text."""
    found = [line for line in INLINE.findall(text) if "|" not in line and "…" not in line]
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            parts = re.split(r"\s&&\s", line.strip().removeprefix("$ "))
            found += [part for part in parts if part.startswith("naevus ")]
    return found


def problem(line: str) -> str | None:
    """Return the first word of a command line that names no command or option."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[0]
        command, words = command.commands[words[0]], words[1:]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options |= {"--help", "--version", "--debug"}
    named = [word.partition("=")[0] for word in words if word.startswith("--")]
    return next((word for word in named if word not in options), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_in_pages_exist(page: Path) -> None:
    wrong = [
        f"{word} in: {line}"
        for line in command_lines(page.read_text(encoding="utf-8"))
        if (word := problem(line)) is not None
    ]
    assert not wrong, "\n".join(wrong)


def test_command_lines_are_found() -> None:
    lines = [line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))]
    assert len(lines) > 40


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("naevus predict photo.jpg --tta d4  # comment --nonsense", None),
        ("naevus data check DATA --out check", None),
        ("naevus engines", "engines"),
        ("naevus data engines", "engines"),
        ("naevus predict photo.jpg --symmetries d4", "--symmetries"),
    ],
)
def test_wrong_command_lines_are_found(line: str, word: str | None) -> None:
    assert problem(line) == word
