"""``naevus demo``: everything end to end, on synthetic images or on one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naevus.cli.console import console, reporter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.intervals import Interval


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Walk the same road on these pictures; none draws some.")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=100, help="How many to draw (160), or to take from --data (1000)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing and of all chance.")] = 2018,
) -> None:
    """Draw, check, cache, fold, train both tasks, score, and predict unseen pictures.

    About 5 minutes on 2 processors. Started again, it goes on where it was interrupted.

    Examples:
      naevus demo
      naevus demo --data ISIC2018 --out real
    """
    from naevus.workflows.demo import run_demo

    found = run_demo(out, data, images=pictures, seed=seed, reporter=reporter)
    console.print(_table(found.scores))
    for what, path in found.paths:
        console.print(f"{what:<14} {path}", soft_wrap=True)
    console.print("Research use only, never a diagnosis.", style="dim")


def _table(scores: Mapping[str, tuple[Interval, str]]) -> Table:
    table = Table("score", title="What was learnt", title_style="bold")
    table.add_column("value (95 % interval by lesion)", justify="right")
    table.add_column("on")
    for name, (interval, where) in scores.items():
        table.add_row(name, str(interval), where)
    return table
