"""``naevus demo``: everything end to end, on synthetic images or on one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from naevus.cli.console import console, reporter
from naevus.cli.options import CountIfGiven, Data, Out, Seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.intervals import Interval


def demo(
    out: Out = Path("demo"),
    data: Data = None,
    count: CountIfGiven = None,
    seed: Seed = 2018,
) -> None:
    """Show everything end to end, on synthetic images.

    Examples:
      naevus demo
      naevus demo --data ISIC2018 --out real

    Checks the images, trains both tasks over folds, scores them, and predicts unseen images.
    Takes about 5 minutes on 2 processors. Draws 160 images, or takes 1000 of --data; --count says
    otherwise. The same command resumes an interrupted demo.
    """
    from naevus.workflows.demo import run_demo

    found = run_demo(out, data, images=count, seed=seed, reporter=reporter)
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
