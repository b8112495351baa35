"""``naevus check``: what is wrong with a folder of pictures, before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naevus.cli.console import console, progress
from naevus.cli.datasets import IMAGE_TYPE_HELP, TAXONOMY_HELP, ImageType, TaxonomyName

if TYPE_CHECKING:
    from collections.abc import Hashable

    from naevus.datasets.audit import Audit

_SHOWN = 10


def check(
    data: Annotated[Path, typer.Argument(help="Folder of pictures in a known layout.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for check.json, findings.csv and duplicates.csv."),
    ] = None,
    image_type: Annotated[ImageType, typer.Option(help=IMAGE_TYPE_HELP)] = "all",
    taxonomy: Annotated[TaxonomyName, typer.Option(help=TAXONOMY_HELP)] = "auto",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Find damaged files, doubtful masks, contradictory labels and duplicates; count the rest.

    Near-duplicates are looked for in all eight views, across lesions and tasks. Ends with 0 where
    no error was found (warnings may be), and with 1 where one was.

    Examples:
      naevus check ISIC2018 --out check
      naevus check ISIC2018 --json > check.json
    """
    from naevus.datasets.audit import audit
    from naevus.datasets.layouts import load

    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy)
    dataset = named.of_type(image_type)
    with progress("reading, then comparing pictures", len(dataset)) as move:
        found = audit(dataset, progress=move)
    if out is not None:
        found.write(out)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)
    raise typer.Exit(1 if found.errors else 0)


def _show(found: Audit) -> None:
    for part, rows in found.counts.groupby("part"):
        console.print(_counts(str(part), rows.to_dict("records")))
    console.print(_duplicates(found))
    if found.merged:
        console.print(_merged(found))
    if found.findings:
        console.print(_findings(found))
    warnings = len(found.findings) - found.errors
    console.print(
        f"{found.pictures} pictures, layout {found.layout}: "
        f"{found.errors} errors, {warnings} warnings"
    )


def _counts(part: str, rows: list[dict[Hashable, Any]]) -> Table:
    table = Table(title=part, title_justify="left")
    for name in ("", "", "pictures", "lesions"):
        table.add_column(name, justify="right" if name else "left")
    before = None
    for row in rows:
        if before not in {None, row["column"]}:
            table.add_section()
        label = str(row["column"]).replace("_", " ") if row["column"] != before else ""
        table.add_row(label, str(row["value"]), str(row["pictures"]), str(row["lesions"]))
        before = row["column"]
    return table


def _duplicates(found: Audit) -> Table:
    from naevus.datasets import duplicates
    from naevus.datasets.duplicates import summary

    table = Table(title="duplicates", title_justify="left", caption_justify="left")
    table.caption = duplicates.MEASURED
    table.add_column("sort")
    table.add_column("pairs", justify="right")
    for sort, number in summary(found.duplicates).items():
        table.add_row(sort.replace(" pairs", ""), str(number))
    return table


def _merged(found: Audit) -> Table:
    table = Table(title="groups joined by duplicates", title_justify="left")
    table.add_column("pictures", justify="right")
    table.add_column("ids")
    for members in found.merged[:_SHOWN]:
        more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
        table.add_row(str(len(members)), ", ".join(members[:_SHOWN]) + more)
    if len(found.merged) > _SHOWN:
        table.add_row("", f"and {len(found.merged) - _SHOWN} more groups")
    return table


def _findings(found: Audit) -> Table:
    table = Table(title="findings", title_justify="left")
    table.add_column("severity")
    table.add_column("kind")
    table.add_column("number", justify="right")
    table.add_column("the first")
    for severity, kind, number, first in found.kinds():
        colour = "red" if severity == "error" else "yellow"
        table.add_row(
            Text(severity, style=colour),
            kind,
            str(number),
            f"{first.subject}: {first.detail}",
        )
    return table
