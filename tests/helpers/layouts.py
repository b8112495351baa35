"""Data set folders of a few tiny files, and their rows as read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naevus.io.progress import SilentReporter

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset


class Warned(SilentReporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, label: str = "note") -> None:
        self.lines.append(f"{label}: {text}")


def files(folder: Path, *names: str) -> None:
    """Create files of a few bytes: layouts only use names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def row(dataset: Dataset, image_id: str) -> dict[str, Any]:
    rows = dataset.table[dataset.table["image_id"] == image_id].to_dict("records")
    assert len(rows) == 1
    return {str(name): value for name, value in rows[0].items()}


def kinds(dataset: Dataset) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for problem in dataset.problems:
        result.setdefault(problem.kind, []).append(problem.subject)
    return result


def place_layout(source: Path, folder: Path) -> None:
    """Make the files that the example's ``TREE.txt`` lists: its tables, and images of a byte."""
    for line in (source / "TREE.txt").read_text().split("\n"):
        if line:
            tables = sorted(source.rglob(Path(line).name))
            content = tables[0].read_bytes() if tables else b"x"
            (folder / line).parent.mkdir(parents=True, exist_ok=True)
            (folder / line).write_bytes(content)
