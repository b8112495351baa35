"""``naevus export``: finished folds become one bundle that was checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from naevus.cli.console import console, errors

if TYPE_CHECKING:
    from naevus.training.export.check import Agreement
    from naevus.training.export.join import Checked


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of either task.")],
    out: Annotated[
        Path, typer.Option(help="The bundle's folder, or one file when it ends in .naevus.")
    ],
    fold: Annotated[
        list[int] | None, typer.Option(help="Take this fold alone; may be given again.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="How numbers are stored; int8 also computes in 8 bits."),
    ] = "fp32",
    average: Annotated[
        bool, typer.Option("--average", help="Average the weights of each task into one network.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="The data set, if it is not where the runs found it.")
    ] = None,
) -> None:
    """Join the finished folds of runs into one bundle, after checking it against the networks.

    Each graph must say what its trained network says, on 200 pictures: no probability may be off
    by more than 0.002, and 99.9 % of decisions must be the same. Otherwise nothing is written.
    Averaging is for networks that differ in seed or fold alone.

    Examples:
      naevus export runs/seg runs/cls --out lesions.naevus
      naevus export runs/cls --fold 0 --precision int8 --out bundles/small
      naevus export runs/a runs/b --fold 0 --average --out bundles/mean
    """
    from naevus.training.export.join import Wishes, export_runs
    from naevus.training.run import Run

    opened = [Run.open(folder) for folder in runs]
    wishes = Wishes(tuple(fold) if fold else None, precision, average, data)
    checked: list[Checked] = []
    try:
        with console.status("exporting and checking"):
            export_runs(opened, out, wishes, checked.append)
    finally:
        if checked:
            console.print(_table(checked, precision))
    console.print(f"bundle: {out}")
    errors.print("Research use only, never a diagnosis.", style="dim")


def _table(checked: list[Checked], precision: str) -> Table:
    table = Table(title="what the graphs say, against what the networks say")
    for name in ("file", "from", "compared", "pictures", "largest Δp", "mean Δp", "same decisions"):
        words = name in {"file", "from", "compared"}
        table.add_column(name, justify="left" if words else "right", no_wrap=name == "file")
    for member in checked:
        size = f"{member.size / 1e6:.1f} MB"
        table.add_row(
            member.file, member.origin, "fp32 graph : network", *_cells(member.graph, member)
        )
        if member.stored is not None:
            compared = f"{precision} ({size}) : fp32 graph"
            table.add_row("", "", compared, *_cells(member.stored, member))
    return table


def _cells(agreement: Agreement, member: Checked) -> tuple[str, ...]:
    kind = "held out" if member.heldout else "learnt from"
    return (
        f"{agreement.pictures} {kind}",
        f"{agreement.largest:.1e}",
        f"{agreement.mean:.1e}",
        f"{agreement.decisions:.2%}",
    )
