"""``naevus demo``: the built-in model, then training and scoring, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from naevus.cli.console import console, reporter
from naevus.cli.options import CountIfGiven, Data, Out, Seed
from naevus.io.extras import how_to_install, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.intervals import Interval
    from naevus.types import Unit


def demo(
    out: Out = Path("demo"),
    data: Data = None,
    count: CountIfGiven = None,
    seed: Seed = 2018,
) -> None:
    """Show what naevus does, end to end, on synthetic images.

    Examples:
      naevus demo
      naevus demo --data ISIC2018 --out real

    Predicts some images with the built-in model (under a minute), then checks the data set,
    trains networks for both tasks over folds, scores them and predicts unseen images (about 5
    minutes on 2 processors). Training needs the extra "train"; without it the demo ends after the
    first part. Generates 160 images, or uses 1000 of --data, unless --count is given. The same
    command resumes an interrupted demo.
    """
    from naevus.workflows.demo import run_demo

    can_train = not missing("train")
    found = run_demo(out, data, images=count, seed=seed, train=can_train, reporter=reporter)
    if found.scores:
        console.print(_table(found.scores, found.unit))
    width = max(len(label) for label, _ in found.paths) + 2
    for label, path in found.paths:
        console.print(f"{label:<{width}}{path}", soft_wrap=True)
    if not can_train:
        console.print(
            f"To train as well: {how_to_install('train')}, then the demo again.", soft_wrap=True
        )
    console.print("Research use only, never a diagnosis.", style="dim")


def _table(scores: Mapping[str, tuple[Interval, str]], unit: Unit) -> Table:
    table = Table("score", title="Scores of the trained networks", title_style="bold")
    table.add_column(f"value (95 % interval by {unit})", justify="right")
    table.add_column("on")
    for name, (interval, where) in scores.items():
        table.add_row(name, str(interval), where)
    return table
