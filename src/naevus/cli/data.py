"""``naevus data``: check, show, split, download and generate data sets."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naevus.cli.console import console, reporter
from naevus.cli.options import (
    IMAGES,
    Count,
    DataFolder,
    ImageTypeName,
    Json,
    Limit,
    Out,
    OutIfGiven,
    Part,
    Seed,
    Split,
    TaxonomyOption,
)
from naevus.errors import ConfigError
from naevus.io.extras import require
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from naevus.datasets.audit import Audit
    from naevus.datasets.dataset import Dataset, Record
    from naevus.datasets.folds import Folds

    Shown = tuple[Record, NDArray[np.uint8], NDArray[np.bool_] | None]


# ``naevus data check``: problems of a data set, found before training.

_SHOWN = 10


def check(
    data: DataFolder,
    out: OutIfGiven = None,
    image_type: ImageTypeName = "all",
    taxonomy: TaxonomyOption = "auto",
    limit: Limit = None,
    *,
    json: Json = False,
) -> None:
    """Find damaged files, implausible masks, contradictory labels and duplicates.

    Examples:
      naevus data check ISIC2018
      naevus data check ISIC2018 --out check

    Counts images and lesions by diagnosis, split and other columns. Near-duplicates are searched
    in all eight orientations, across lesions and tasks. OUT is a folder for check.json,
    findings.csv and duplicates.csv. The exit code is 1 if there are errors, and 0 if there are
    only warnings or none.
    """
    from naevus.datasets.audit import audit
    from naevus.datasets.layouts import load

    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy)
    dataset = _limited(named.of_type(image_type), limit)
    with reporter.progress("reading and comparing images", len(dataset)) as move:
        found = audit(dataset, progress=move)
    if out is not None:
        found.write(out)
    if json:
        console.print_json(data=found.to_json())
    else:
        _show(found)
        if out is not None:
            console.print(f"{out}", soft_wrap=True)
    raise typer.Exit(1 if found.errors else 0)


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Return at most ``limit`` images, and report how many are left."""
    from naevus.datasets.folds import limit_images

    if not limit:
        return dataset
    dataset = dataset.at_hand()
    chosen = limit_images(dataset, limit)
    if len(chosen) < len(dataset):
        reporter.warning(f"{len(chosen):,} of {len(dataset):,} images are used", "limited")
    return chosen


def _show(found: Audit) -> None:
    from naevus.datasets import duplicates

    for part, rows in found.counts.groupby("part"):
        console.print(_counts(str(part), rows.to_dict("records")))
    console.print(_duplicates_check(found))
    console.print(duplicates.MEASURED)
    if found.merged:
        console.print(_merged(found))
    if found.findings:
        console.print(_findings(found))
    warnings = len(found.findings) - found.errors
    patients = f" of {counted(found.patients, 'patient')}" if found.patients else ""
    console.print(
        f"{counted(found.images, 'image')}{patients}, layout {found.layout}: "
        f"{counted(found.errors, 'error')}, {counted(warnings, 'warning')}"
    )


def _counts(part: str, rows: list[dict[Hashable, Any]]) -> Table:
    table = Table(title=part, title_justify="left")
    for name in ("", "", "images", "lesions"):
        table.add_column(name, justify="right" if name else "left")
    before = None
    for row in rows:
        if before not in {None, row["column"]}:
            table.add_section()
        label = str(row["column"]).replace("_", " ") if row["column"] != before else ""
        table.add_row(label, str(row["value"]), str(row["images"]), str(row["lesions"]))
        before = row["column"]
    return table


def _duplicates_check(found: Audit) -> Table:
    from naevus.datasets.duplicates import summary

    table = Table(title="duplicates", title_justify="left")
    table.add_column("kind")
    table.add_column("pairs", justify="right")
    for sort, number in summary(found.duplicates).items():
        table.add_row(sort.replace(" pairs", ""), str(number))
    return table


def _merged(found: Audit) -> Table:
    table = Table(title="groups merged by duplicates", title_justify="left")
    table.add_column("images", justify="right")
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
    table.add_column("first")
    for severity, kind, number, first in found.kinds():
        colour = "red" if severity == "error" else "yellow"
        table.add_row(
            Text(severity, style=colour),
            kind,
            str(number),
            f"{first.subject}: {first.detail}",
        )
    return table


# ``naevus data show``: images with their masks and labels.


def show(
    data: DataFolder,
    *,
    out: OutIfGiven = None,
    count: Count = 36,
    seed: Seed = 0,
    diagnosis: Annotated[
        list[str] | None,
        typer.Option(
            "--diagnosis",
            help="Show only this diagnosis, such as MEL; may be repeated.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    part: Part = None,
    split: Split = None,
    window: Annotated[
        bool, typer.Option("--window", help="Write a browsable HTML page and open it.")
    ] = False,
) -> None:
    """Show random images with their masks and labels on a contact sheet or page.

    Examples:
      naevus data show ISIC2018
      naevus data show predictions
      naevus data show ISIC2018 --diagnosis MEL --count 48 --out melanomas.png

    Needs no model. Writes contact-sheet.png, or contact-sheet.html with --window, unless --out
    names another file. Unreadable images are reported and left out. Of a predictions folder, the
    images with the highest probability of malignancy are shown, with contour and answer.
    """
    from naevus.datasets.layouts import load, report_unread
    from naevus.reports.contact_sheet import choose_records, write_browser_of, write_sheet_of

    path = out or Path("contact-sheet.html" if window else "contact-sheet.png")
    if (data / "predictions.parquet").exists():
        if part is not None or split is not None or seed:
            raise ConfigError(
                "--part, --split and --seed apply to data sets only", "leave them out"
            )
        _show_predictions(data, path, count, diagnosis, window=window)
        return
    dataset = load(data)
    report_unread(dataset, reporter)
    if part is not None:
        dataset = dataset.part(part)
    if split is not None:
        dataset = dataset.split(split)
    chosen = choose_records(dataset, count, diagnosis, seed)
    title = f"{data.resolve().name}: {len(chosen)} of {counted(len(dataset.images()), 'image')}"
    if window:
        write_browser_of(chosen, path, title=title, reporter=reporter)
        _open(path)
    else:
        write_sheet_of(chosen, path, title=title, reporter=reporter)
        console.print(f"{path}", soft_wrap=True)


def _show_predictions(
    folder: Path, path: Path, count: int, diagnoses: list[str] | None, *, window: bool
) -> None:
    from naevus.reports.overview import overview_of, write_overview, write_overview_sheet

    found = overview_of(folder, most=count, diagnoses=diagnoses, reporter=reporter)
    for note in found.notes:
        reporter.warning(note)
    if window:
        write_overview(found, path)
        _open(path)
    else:
        write_overview_sheet(found, path, count=count)
        console.print(f"{path}", soft_wrap=True)


def _open(path: Path) -> None:
    opened = webbrowser.open(path.resolve().as_uri())
    console.print(f"{path}" if opened else f"no browser found: open {path} yourself")


def split(
    context: typer.Context,
    data: DataFolder,
    out: Out,
    k: Annotated[
        int, typer.Option("--k", min=1, help="Number of folds; 1 makes a single split of 80:20.")
    ] = 5,
    seed: Seed = 2018,
    test_fraction: Annotated[
        float,
        typer.Option(
            "--test-fraction", min=0.0, max=0.9, help="Fraction of images reserved as a test set."
        ),
    ] = 0.0,
    part: Part = None,
    train_part: Annotated[
        str | None,
        typer.Option(
            "--train-part",
            help="A further part that every fold trains on, except for lesions it holds out.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(
            "--join", help="Existing folds of one part of the data; repeat for each part."
        ),
    ] = None,
    image_type: ImageTypeName = "auto",
    taxonomy: TaxonomyOption = "auto",
    limit: Limit = None,
    *,
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates/--no-duplicates",
            help="Keep confirmed duplicates in one fold, even if their lesion ids differ.",
        ),
    ] = True,
) -> None:
    """Split the training images into stratified folds, keeping lesions whole.

    Examples:
      naevus data split ISIC2018 --part task3 --out folds.csv
      naevus data split ISIC2018 --part task1 --k 1 --out task1.csv

    OUT is a CSV file; a file with different folds is never overwritten. The search for duplicates
    takes one or two minutes for 10,000 images. Images of another part can be added to every
    training set, and folds of two parts can be joined:

      naevus data split ISIC2018 --part task3 --train-part task1 --out folds.csv
      naevus data split ISIC2018 --join task1.csv --join task3.csv --out both.csv
    """
    from naevus.datasets.folds import Folds, join_folds, make_folds
    from naevus.datasets.layouts import load, report_types

    if join:
        _refuse_beside_join(context)
    elif k > 1:
        require("evaluate", "making folds")
    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy).split("train")
    report_types(named, image_type, reporter)
    dataset = named.of_type(image_type)
    if join:
        files = [Folds.read(path) for path in join]
        for each in files:
            each.report_exceptions(reporter)
        known = {name for each in files for name in each.table["image_id"]}
        of_known = dataset.table["image_id"].isin(known)
        dataset = dataset.part(*dataset.table.loc[of_known, "part"].unique())
        made = join_folds(files, _duplicates(dataset) if duplicates else None)
        _finish(made, dataset, out)
        return
    more = () if train_part is None else (train_part,)
    if part is not None:
        dataset = dataset.part(part, *more)
    dataset = _limited(dataset.images(), limit)
    if not dataset.has_groups:
        reporter.message(
            "every image counts as a lesion; images of one lesion may be in different folds",
            "no lesion ids",
        )
    groups = _duplicates(dataset) if duplicates else None
    made = make_folds(
        dataset, k=k, seed=seed, test_fraction=test_fraction, groups=groups, train_parts=more
    )
    _finish(made, dataset, out)


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILES", help="Names of files; without any, list all."),
    ] = None,
    out: Out = Path("ISIC2018"),
    task: Annotated[
        int | None, typer.Option("--task", help="Download all files of this task: 1, 2 or 3.")
    ] = None,
    unpack: Annotated[
        bool, typer.Option("--unpack/--no-unpack", help="Unpack ZIP files into the same folder.")
    ] = True,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Another server with the same files.")
    ] = None,
) -> None:
    """Download the files of ISIC 2018, or list them.

    Examples:
      naevus data download
      naevus data download --task 3 --out ISIC2018

    The same command resumes an interrupted download. The images are licensed for non-commercial
    use only; see the licence that comes with them.
    """
    from naevus.datasets.download import BASE_URL, FILES
    from naevus.datasets.download import download as fetch

    if task not in {None, 1, 2, 3}:
        raise ConfigError(f"unknown task {task}", "use --task 1, 2 or 3")
    chosen = [*(names or []), *(name for name, file in FILES.items() if task in file.tasks)]
    if not chosen:
        console.print(_files())
        return
    for name in dict.fromkeys(chosen):
        with reporter.progress(name) as move:
            paths = fetch(
                [name],
                out,
                base_url=base_url or BASE_URL,
                unzip=unpack,
                progress=lambda _, done, total: move(done, total),
            )
        console.print(*paths, soft_wrap=True)


def _files() -> Table:
    from naevus.datasets.download import FILES, PAGE

    table = Table(title=PAGE, caption="No size given: usually a few megabytes.")
    table.add_column("file")
    table.add_column("task", justify="right")
    table.add_column("MB", justify="right")
    for file in FILES.values():
        size = "" if file.size is None else f"{file.size / 1e6:,.0f}"
        table.add_row(file.name, ", ".join(map(str, file.tasks)), size)
    return table


def synthetic(
    out: Out,
    count: Annotated[
        int, typer.Option("--count", min=40, help="Number of images of the training split.")
    ] = 160,
    seed: Seed = 2018,
    size: Annotated[
        int, typer.Option("--size", help="Height and width of the images, in pixels.")
    ] = 256,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split", help="train, validation or test; may be repeated. By default only train."
        ),
    ] = None,
) -> None:
    """Generate a synthetic data set to try naevus without real images.

    Examples:
      naevus data synthetic --out synthetic
      naevus data synthetic --count 300 --split train --split test --out synthetic

    Writes images, masks, diagnoses and lesion ids in the layout of ISIC 2018. COUNT is the size
    of the training split; other splits are a fifth as large, with at least 20 images. The same
    seed gives the same files.
    """
    from naevus.datasets.synthetic import write_isic2018

    with reporter.progress("generating images", count) as move:
        write_isic2018(
            out, images=count, seed=seed, size=size, progress=move, splits=splits or ["train"]
        )
    console.print(f"{out}", soft_wrap=True)


def _refuse_beside_join(context: typer.Context) -> None:
    """Reject options that have no effect when existing folds are joined."""
    sources = {
        f"--{name.replace('_', '-')}": context.get_parameter_source(name)
        for name in ("k", "seed", "test_fraction", "part", "train_part", "limit")
    }
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise ConfigError(
            f"--join keeps existing folds: {', '.join(given)} would have no effect",
            f"leave out {' and '.join(given)}, or --join",
        )


def _finish(made: Folds, dataset: Dataset, out: Path) -> None:
    made.check(dataset)
    made.write(out)
    console.print(_classes_by_fold(made, dataset))
    console.print(f"{out}\nSHA-256 {made.sha256}", soft_wrap=True)


def _duplicates(dataset: Dataset) -> dict[str, str]:
    """Return the merged group of every image with a confirmed duplicate in another group."""
    from naevus.datasets.audit import audit

    with reporter.progress("searching for duplicates", len(dataset)) as move:
        found = audit(dataset, progress=move)
    for finding in found.findings:
        if finding.kind == "large merged component":
            reporter.message(f"the first is {finding.subject}", finding.detail)
    joined = len(set(found.groups.values()))
    images, groups = counted(len(found.groups), "image"), counted(joined, "group")
    console.print(f"{images} in {groups} merged by duplicates")
    return found.groups


def _classes_by_fold(made: Folds, dataset: Dataset) -> Table:
    rows = made.table.merge(dataset.table[["image_id", "part", "diagnosis"]], on="image_id")
    rows["class"] = rows["diagnosis"].fillna("none")
    names = sorted(rows["fold"].unique())
    groups = counted(rows["group_id"].nunique(), "group")
    table = Table(title=f"{counted(len(rows), 'image')}, {groups}")
    table.add_column("images of")
    for name in names:
        table.add_column(f"fold {name}" if name.isdecimal() else name, justify="right")
    table.add_column("all", justify="right")
    counts = rows.groupby(["class", "fold"]).size().unstack(fill_value=0)
    known = [code for code in dataset.taxonomy.codes if code in counts.index]
    for code in [*known, *(code for code in counts.index if code not in known)]:
        line = [int(counts.loc[code, name]) for name in names]
        table.add_row(code, *map(str, line), str(sum(line)))
    table.add_section()
    for label, of in (("all images", rows), ("groups", rows.drop_duplicates("group_id"))):
        sizes = of["fold"].value_counts()
        line = [int(sizes.get(name, 0)) for name in names]
        table.add_row(label, *map(str, line), str(sum(line)))
    return table
