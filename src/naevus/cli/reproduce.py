"""``naevus reproduce``: repeat a run from its own record, and say what differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, log_on_screen, reporter
from naevus.cli.options import (
    CHECKS,
    NETWORKS,
    Cache,
    Copies,
    Data,
    Fold,
    InitFrom,
    Json,
    Masks,
    OutIfGiven,
    Run,
)

if TYPE_CHECKING:
    from rich.table import Table

    from naevus.workflows.reproduce import Reproduction

_FINDINGS = 1


def reproduce(
    run: Run,
    out: OutIfGiven = None,
    data: Data = None,
    fold: Fold = None,
    masks: Masks = None,
    copies: Copies = None,
    init_from: InitFrom = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            "--pretrained",
            help="The file of weights that the run started from, if it started from one.",
            show_default=False,
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    cache: Cache = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run code outside naevus that the recipe names.",
            rich_help_panel=CHECKS,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Repeat a run from its own record, and say what differs.

    Examples:
      naevus reproduce runs/cls
      naevus reproduce runs/cls --fold 0 --data moved/ISIC2018 --out again

    Trains the finished folds again into OUT (by default RUN-again, beside the run) with the
    recipe, folds and inputs that RUN records, and compares versions, machine, images, scores and
    the bytes of all results. Name the inputs
    that have moved with --data, --masks, --copies, --init-from and --pretrained. The same command
    resumes. On one machine, with the same versions and number of threads, all bytes are the same.
    The exit code is 1 if a score or a byte differs. Writes OUT/reproduction.json.
    """
    from naevus.runs.run import Run as OpenedRun
    from naevus.workflows.reproduce import Places
    from naevus.workflows.reproduce import reproduce as repeat

    places = Places(data, masks, tuple(copies or ()), init_from, pretrained)
    with log_on_screen():
        found = repeat(
            OpenedRun.open(run), out or _beside(run), places, folds=fold, cache=cache, trust=trust,
            reporter=reporter,
        )  # fmt: skip
    if json:
        console.print_json(data=found.to_dict())
    else:
        console.print(_table(found))
        console.print(f"{found}".splitlines()[-1], soft_wrap=True)
    raise typer.Exit(0 if found.is_identical else _FINDINGS)


def _beside(run: Path) -> Path:
    """Return the default folder of a repeated run."""
    named = run if run.name not in {"", ".."} else run.resolve()
    return named.with_name(f"{named.name}-again")


def _table(found: Reproduction) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("", "", "run", "again"):
        table.add_column(name, overflow="fold")
    differing = {each.name for each in found.of("score")}
    for each in found.of("version", "machine", "data"):
        table.add_row(*each)
    for name, value in found.scores:
        if name not in differing:
            table.add_row("score", name, value, "the same")
    for each in found.of("score", "bytes"):
        table.add_row(*each)
    return table
