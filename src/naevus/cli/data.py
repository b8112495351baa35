"""``naevus folds`` and ``naevus download``: data before any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naevus.cli.console import console, progress, remark
from naevus.cli.datasets import (
    IMAGE_TYPE_HELP,
    TAXONOMY_HELP,
    ImageType,
    TaxonomyName,
    tell_exceptions,
    tell_types,
)
from naevus.errors import ConfigError

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds


def folds(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Folder of pictures in a known layout.")],
    out: Annotated[Path, typer.Option(help="CSV file the folds are written to, once.")],
    k: Annotated[int, typer.Option(min=1, help="How many folds; 1 holds out a fifth once.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 2018,
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of pictures no fold trains on.")
    ] = 0.0,
    part: Annotated[
        str | None, typer.Option(help="Only this part of the data, such as task1 or task3.")
    ] = None,
    train_part: Annotated[
        str | None,
        typer.Option(
            help="A part besides that every fold trains on; none holds out its own lesions."
        ),
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(help="Folds of a part of the data, kept as they are; give it for each part."),
    ] = None,
    image_type: Annotated[ImageType, typer.Option(help=IMAGE_TYPE_HELP)] = "auto",
    taxonomy: Annotated[TaxonomyName, typer.Option(help=TAXONOMY_HELP)] = "auto",
    *,
    duplicates: Annotated[
        bool, typer.Option(help="Keep confirmed duplicates of other lesions together as well.")
    ] = True,
) -> None:
    """Deal the training pictures into stratified folds of whole lesions.

    A file of other folds is never overwritten. Looking for duplicates takes a minute or two for
    10,000 pictures.

    Examples:
      naevus folds ISIC2018 --part task3 --out folds.csv
      naevus folds ISIC2018 --part task1 --k 1 --test-share 0.1 --out folds.csv
      naevus folds ISIC2018 --part task3 --train-part task1 --out folds.csv
      naevus folds ISIC2018 --join task1.csv --join task3.csv --out both.csv
    """
    from naevus.datasets.folds import Folds, join_folds, make_folds
    from naevus.datasets.layouts import load

    if join:
        _refuse_beside_join(context)
    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy).split("train")
    tell_types(named, image_type)
    dataset = named.of_type(image_type)
    if join:
        files = [Folds.read(path) for path in join]
        for each in files:
            tell_exceptions(each)
        known = {name for each in files for name in each.table["image_id"]}
        of_known = dataset.table["image_id"].isin(known)
        dataset = dataset.part(*dataset.table.loc[of_known, "part"].unique())
        made = join_folds(files, _duplicates(dataset) if duplicates else None)
        _finish(made, dataset, out)
        return
    more = () if train_part is None else (train_part,)
    if part is not None:
        dataset = dataset.part(part, *more)
    if not dataset.has_groups:
        remark(
            "no lesion ids here",
            ": every picture counts as a lesion; pictures of one lesion may be parted",
        )
    groups = _duplicates(dataset) if duplicates else None
    made = make_folds(
        dataset, k=k, seed=seed, test_share=test_share, groups=groups, train_parts=more
    )
    _finish(made, dataset, out)


def download(
    names: Annotated[list[str] | None, typer.Argument(help="Files; none lists them.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to put them in.")] = Path("ISIC2018"),
    task: Annotated[int | None, typer.Option(help="All files of this task, 1 or 3.")] = None,
    unpack: Annotated[bool, typer.Option(help="Unpack ZIP files beside themselves.")] = True,
    base_url: Annotated[str | None, typer.Option(help="Another place with the same files.")] = None,
) -> None:
    """Download ISIC 2018 files of Tasks 1 and 3; an interrupted download goes on.

    Without files or a task, the known files and their sizes are listed. The pictures are for
    non-commercial use: see the licence that comes with them.

    Examples:
      naevus download --task 3 --out ISIC2018
      naevus download ISIC2018_Task1_Training_GroundTruth.zip --no-unpack
    """
    from naevus.datasets.download import BASE_URL, FILES
    from naevus.datasets.download import download as fetch

    if task not in {None, 1, 3}:
        raise ConfigError(f"there are no files of task {task}", "use --task 1 or --task 3")
    chosen = [*(names or []), *(name for name, file in FILES.items() if file.task == task)]
    if not chosen:
        console.print(_files())
        return
    for name in dict.fromkeys(chosen):
        with progress(name) as move:
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

    table = Table(title=PAGE, caption="No size: a few megabytes, or as the server says.")
    table.add_column("file")
    table.add_column("task", justify="right")
    table.add_column("MB", justify="right")
    for file in FILES.values():
        size = "" if file.size is None else f"{file.size / 1e6:,.0f}"
        table.add_row(file.name, str(file.task), size)
    return table


def _refuse_beside_join(context: typer.Context) -> None:
    """Refuse options of how folds are made where they are only joined."""
    sources = {
        f"--{name.replace('_', '-')}": context.get_parameter_source(name)
        for name in ("k", "seed", "test_share", "part", "train_part")
    }
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise ConfigError(
            f"--join keeps folds as they are, {', '.join(given)} would not count",
            f"leave out {' and '.join(given)}, or --join",
        )


def _finish(made: Folds, dataset: Dataset, out: Path) -> None:
    made.check(dataset)
    made.write(out)
    console.print(_classes_by_fold(made, dataset))
    console.print(f"{out}\nSHA-256 {made.sha256}", soft_wrap=True)


def _duplicates(dataset: Dataset) -> dict[str, str]:
    """Return the joined group of every picture that has a confirmed duplicate elsewhere."""
    from naevus.datasets.audit import audit

    with progress("looking for duplicates", len(dataset)) as move:
        found = audit(dataset, progress=move)
    for finding in found.findings:
        if finding.kind == "large merged component":
            remark(finding.detail, f", the first is {finding.subject}")
    joined = len(set(found.groups.values()))
    console.print(f"{len(found.groups)} pictures in {joined} groups joined by duplicates")
    return found.groups


def _classes_by_fold(made: Folds, dataset: Dataset) -> Table:
    rows = made.table.merge(dataset.table[["image_id", "part", "diagnosis"]], on="image_id")
    rows["class"] = rows["diagnosis"].fillna("none")
    names = sorted(rows["fold"].unique())
    table = Table(title=f"{len(rows)} pictures, {rows['group_id'].nunique()} groups")
    table.add_column("pictures of")
    for name in names:
        table.add_column(f"fold {name}" if name.isdecimal() else name, justify="right")
    table.add_column("all", justify="right")
    counts = rows.groupby(["class", "fold"]).size().unstack(fill_value=0)
    known = [code for code in dataset.taxonomy.codes if code in counts.index]
    for code in [*known, *(code for code in counts.index if code not in known)]:
        line = [int(counts.loc[code, name]) for name in names]
        table.add_row(code, *map(str, line), str(sum(line)))
    table.add_section()
    for label, of in (("all pictures", rows), ("groups", rows.drop_duplicates("group_id"))):
        sizes = of["fold"].value_counts()
        line = [int(sizes.get(name, 0)) for name in names]
        table.add_row(label, *map(str, line), str(sum(line)))
    return table
