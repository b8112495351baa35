"""``naevus evaluate``, ``compare`` and ``report``: how good answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import check_areas, is_run, open_run, tell, truth_of
from naevus.cli.console import console, errors, reporter
from naevus.cli.options import (
    IMAGE_TYPE_HELP,
    TAXONOMY_HELP,
    AllowMissing,
    Force,
    ImageType,
    TaxonomyName,
)
from naevus.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.comparison import Comparison
    from naevus.evaluation.ensemble_selection import EnsembleScores
    from naevus.evaluation.evaluate import Scored
    from naevus.reports.results import Results
    from naevus.taxonomy import Taxonomy


# ``naevus compare``: whether one recipe is better than another, or only luckier.


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="A B", help="Two runs of one task, or oof.parquet.")
    ],
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Score two or more classifiers as one instead.")
    ] = False,
    allow_missing: AllowMissing = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare the out-of-fold answers of two runs on the pictures that both held out.

    Every difference, B - A, has an interval and a permutation test by lesion, so that luck can
    be told from progress. With --ensemble, runs answer together: all alike, and those that a
    greedy search keeps, judged on folds that had no say in the search.

    Examples:
      naevus compare runs/cls runs/cls-larger
      naevus compare runs/cls runs/cls-larger runs/cls-crop --ensemble
      naevus compare runs/seg/oof.parquet runs/seg-plain/oof.parquet --json
      naevus compare runs/cls runs/cls-fold0-alone --allow-missing
    """
    from naevus.evaluation.comparison import compare as compared
    from naevus.evaluation.ensemble_selection import ensemble_scores
    from naevus.reports.terminal import _comparison_tables, _together

    parts: Iterable[RenderableType]
    found: Comparison | EnsembleScores
    if ensemble:
        if len(set(runs)) < len(runs):
            raise ConfigError("a run is named twice", "name each run once")
        tables = {str(path): _answers(path, allow_missing=allow_missing) for path in runs}
        found = ensemble_scores(tables, allow_missing=allow_missing)
        parts = _together(found)
    else:
        if len(runs) != 2:
            raise ConfigError(
                f"{len(runs)} runs cannot be compared", "name two, or more with --ensemble"
            )
        one, other = (_answers(path, allow_missing=allow_missing) for path in runs)
        found = compared(one, other, (str(runs[0]), str(runs[1])), allow_missing=allow_missing)
        parts = _comparison_tables(found)
    if json:
        console.print_json(data=found.to_dict())
        return
    for part in parts:
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _answers(path: Path, *, allow_missing: bool) -> pd.DataFrame:
    from naevus.io.formats import read_parquet

    if (path / "run.toml").exists():
        return open_run(path, allow_missing=allow_missing).answers()
    if not path.is_file():
        raise RunError(f"{path}: is neither a run nor a table", "name a folder of train")
    return read_parquet(
        path,
        "name an oof.parquet of train",
        numbers=("logit", "share", "weight", "jaccard", "dice"),
    )


# ``naevus report``: a run's, or a prediction's, results as one page.


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RUN|PREDICTIONS", help="A run, or what predict wrote.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Its data set; of a run the one it was trained on, if it is there."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="What PREDICTIONS were made with: shows heat maps. A run has its own."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Whether small copies of pictures are shown.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; report/ inside RUN|PREDICTIONS by default."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Of the data set of PREDICTIONS: this part alone, such as task3."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the data set of PREDICTIONS: train, validation or test alone."),
    ] = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="Write the figures as SVG and PDF too, for a paper.")
    ] = False,
) -> None:
    """Write a report: scores, figures, subgroups, and the pictures most worth a look.

    One page, report.html, that needs no network and prints well; beside it every table as CSV,
    JSON and Parquet, and all values in report.json. It holds small copies of pictures where the
    data set is at hand: show it to those who may see them, or make it with --no-pictures.

    Examples:
      naevus report runs/cls
      naevus report runs/cls --data ISIC2018 --out cls-report --figures
      naevus report answers --data ISIC2018 --bundle runs/cls
    """
    from naevus.cli.summary import show
    from naevus.reports.html import write_report
    from naevus.reports.report import make_report

    of_run = is_run(results)
    if of_run and any(option is not None for option in (bundle, part, split)):
        raise ConfigError("--bundle, --part and --split are for PREDICTIONS", "leave them out")
    found = (
        _of_run(results, data, allow_missing=allow_missing)
        if of_run
        else _of_predictions_report(
            results,
            truth_of(results, data, part=part, split=split),
            bundle or (),
            allow_missing=allow_missing,
        )
    )
    if found.outlined is not None:
        check_areas(found.outlined, data or results, force=force)
    with reporter.progress("reading pictures") as move:
        document = make_report(found, move, pictures=pictures)
    page = write_report(document, out or results / "report", figures=figures)
    show(document)
    console.print(f"{page}", soft_wrap=True)


def _of_run(folder: Path, data: Path | None, *, allow_missing: bool) -> Results:
    from naevus.reports.trained import of_run
    from naevus.runs.run import dataset_of

    run = open_run(folder, allow_missing=allow_missing)
    run.answers()  # refuses what is missing, where that is not allowed
    dataset = dataset_of(run, data)
    if dataset is None:
        tell([f"{run.inputs['data']} is not there: no pictures, no subgroups; name it with --data"])
    return of_run(folder, run.join(), dataset)


def _of_predictions_report(
    folder: Path, dataset: Dataset, named: Sequence[Path], *, allow_missing: bool
) -> Results:
    from naevus.bundles.bundle import find_bundles
    from naevus.reports.predicted import of_predictions

    bundles = [each for each in find_bundles(named) if each.spec.classifier is not None]
    found = of_predictions(folder, dataset, bundles, allow_missing=allow_missing)
    tell(found.notes)
    return found


def evaluate(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|PREDICTIONS", help="A run, classifiers' runs, or what predict wrote."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Where the truth of PREDICTIONS is: a data set.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Other copies of a run's pictures, each for the fold that never saw it."),
    ] = None,
    benign: Annotated[
        list[str] | None,
        typer.Option(
            help="A class that counts as benign where classes are folded into benign and malignant."
        ),
    ] = None,
    taxonomy: Annotated[TaxonomyName, typer.Option(help=TAXONOMY_HELP)] = "auto",
    image_type: Annotated[ImageType, typer.Option(help=IMAGE_TYPE_HELP)] = "auto",
    part: Annotated[
        str | None, typer.Option(help="Of --data: this part alone, such as task1 or task3.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of --data: this split alone: train, validation or test.")
    ] = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score out-of-fold predictions of a run, or predictions against a data set's truth.

    Masks get Jaccard and Dice, the distance of outlines, scores by size of the lesion and what
    goes along with failures; diagnoses balanced accuracy and its company, ranking, calibration,
    abstaining and prediction sets: each with an interval by lesion, given the trained networks.
    Where the data set tells other classes apart than the predictions, the finer ones are folded
    into the coarser, and it is said how: of the seven diagnoses, MEL, BCC and AKIEC are malignant.
    A run's scores are kept in its scores.json. Several classifiers' runs over the same folds are
    scored as one that answers with their mean, as `naevus predict` does with their bundles.

    Examples:
      naevus evaluate runs/cls
      naevus evaluate runs/cls --pictures Sharp_Copies --allow-missing
      naevus evaluate runs/cls runs/cls-second-seed
      naevus evaluate answers --data ISIC2018
      naevus evaluate answers --data ISIC2020 --benign AKIEC
    """
    if data is None:
        given = {"--benign": benign, "--taxonomy": taxonomy != "auto",
                 "--image-type": image_type != "auto"}  # fmt: skip
        for option in (name for name, value in given.items() if value):
            raise ConfigError(f"{option} is about --data", f"leave out {option}, or add --data")
    runs = [folder for folder in results if is_run(folder)]
    if runs and len(runs) < len(results):
        raise DataError("runs and predictions cannot be scored as one", "name one or the other")
    if not runs and len(results) > 1:
        raise DataError(
            "several predictions cannot be scored as one", "predict with all bundles at once"
        )
    if runs and any(option is not None for option in (data, part, split)):
        raise ConfigError("--data, --part and --split are for PREDICTIONS", "leave them out")
    if not runs and pictures is not None:
        raise ConfigError("--pictures is for a run", "leave it out")
    scored = (
        _of_runs(runs, pictures, allow_missing=allow_missing, force=force)
        if runs
        else _of_predictions(
            results[0],
            truth_of(results[0], data, taxonomy, image_type, part=part, split=split),
            benign or (),
            allow_missing=allow_missing,
            force=force,
        )
    )
    _show(scored, as_json=json)


def _of_runs(
    folders: Sequence[Path], pictures: Path | None, *, allow_missing: bool, force: bool
) -> dict[str, Scored]:
    from naevus.evaluation.tables import left_out, refuse_left_out
    from naevus.inference.out_of_fold import copies_of_run
    from naevus.io.files import write_json
    from naevus.reports.terminal import _evaluation_json

    runs = [open_run(folder, allow_missing=allow_missing) for folder in folders]
    if not all(runs[0].folds.hold_out_as(run.folds) for run in runs):
        raise DataError("the runs hold out different folds", "name runs of the same folds")
    tables = [run.answers() for run in runs]
    folds = ", ".join(str(fold) for fold in runs[0].finished())
    title = f"held out by fold {folds}" if len(runs) == 1 else f"mean of {len(runs)} runs"
    if any(run.config.task == "segmentation" for run in runs):
        if pictures is not None:
            raise DataError("--pictures needs a classification run", "leave it out")
        if len(runs) > 1:
            raise DataError("only classifiers' runs are scored as one", "name one run")
        scored: dict[str, Scored] = {title: _outlined(tables[0], folders[0], force=force)}
    elif pictures is None:
        scored = {title: _heldout(tables, folders, allow_missing=allow_missing)}
    else:
        copies = [
            copies_of_run(*each, pictures, reporter) for each in zip(runs, tables, strict=True)
        ]
        uncopied = {image_id for table in tables for image_id in table["image_id"]}
        uncopied -= set(copies[0]["image_id"])
        absent = left_out(("held-out images have no copy", uncopied))
        refuse_left_out(absent, str(pictures), allow_missing=allow_missing)
        tell(f"{pictures}: {found}: left out" for found in absent)
        same = [table[~table["image_id"].isin(uncopied)] for table in tables]
        scored = {
            f"{title}, {kind}": _heldout(answers, folders, allow_missing=allow_missing)
            for kind, answers in (("as trained", same), (f"copies in {pictures.name}", copies))
        }
    if pictures is None and len(runs) == 1:
        write_json(runs[0].folder / "scores.json", _evaluation_json(scored))
    return scored


def _heldout(
    tables: Sequence[pd.DataFrame], folders: Sequence[Path], *, allow_missing: bool
) -> Scored:
    from naevus.evaluation.tables import combined, probabilities, taxonomy_of

    taxonomy = taxonomy_of(tables[0])
    names = [str(folder) for folder in folders]
    table = combined(tables, taxonomy, names, allow_missing=allow_missing)
    every = set().union(*(each["image_id"] for each in tables))
    if len(every) > len(table):
        tell([f"{len(every) - len(table):,} images are not in all runs: left out"])
    return _diagnosed(table, *probabilities(table, taxonomy), taxonomy)


def _diagnosed(
    table: pd.DataFrame,
    natural: NDArray[np.float64],
    balanced: NDArray[np.float64],
    taxonomy: Taxonomy,
) -> Scored:
    from naevus.evaluation.evaluate import DiagnosticScores, Scored, scored

    with reporter.status(f"scoring {len(table):,} answers"):
        scores, intervals = scored(table, natural, balanced, taxonomy)
        details = DiagnosticScores.of(table, natural, balanced, taxonomy)
    return Scored(scores, intervals, details)


def _outlined(table: pd.DataFrame, where: Path, *, force: bool) -> Scored:
    from naevus.evaluation.evaluate import Scored
    from naevus.evaluation.segmentation import OutlineScores, segmentation_scores

    check_areas(table, where, force=force)
    return Scored(*segmentation_scores(table), OutlineScores.from_table(table))


def _of_predictions(
    folder: Path, dataset: Dataset, benign: Sequence[str], *, allow_missing: bool, force: bool
) -> dict[str, Scored]:

    from naevus.evaluation.tables import judged, with_truth
    from naevus.runs.predictions import read_predictions

    path = folder / "predictions.parquet"
    joined = with_truth(
        read_predictions(path), dataset.table, allow_missing=allow_missing, name=str(path)
    )
    there = judged(joined.table, dataset.taxonomy, folder / "masks", benign)
    tell([*joined.notes(), *there.notes(joined.table)])
    found: dict[str, Scored] = {}
    if there.outlined is not None:
        found["masks"] = _outlined(there.outlined, dataset.root, force=force)
    if there.diagnosed is not None:
        title = f"diagnoses, {there.folded}" if there.folded else "diagnoses"
        found[title] = _diagnosed(*there.diagnosed)
    return found


def _show(scored: Mapping[str, Scored], *, as_json: bool) -> None:
    from naevus.reports.terminal import _evaluation_json, _evaluation_tables

    if as_json:
        console.print_json(data=_evaluation_json(scored))
        return
    for title, found in scored.items():
        console.rule(title, align="left")
        for table in _evaluation_tables(found):
            console.print(table)
    errors.print("Research use only, never a diagnosis.", style="dim")
