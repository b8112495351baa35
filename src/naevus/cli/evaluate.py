"""``naevus evaluate``, ``compare`` and ``report``: how good answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, reporter
from naevus.cli.options import (
    IMAGE_TYPE_HELP,
    TAXONOMY_HELP,
    AllowMissing,
    Force,
    ImageType,
    TaxonomyName,
)
from naevus.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from rich.console import RenderableType

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.comparison import Comparison
    from naevus.evaluation.ensemble_selection import EnsembleScores
    from naevus.evaluation.evaluate import Evaluation
    from naevus.reports.gallery import ClassifierOf
    from naevus.runs.results import Results
    from naevus.runs.run import Run


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
    from naevus.reports.terminal import comparison_tables, ensemble_tables
    from naevus.runs.results import out_of_fold_table

    parts: Iterable[RenderableType]
    found: Comparison | EnsembleScores
    if ensemble:
        if len(set(runs)) < len(runs):
            raise ConfigError("a run is named twice", "name each run once")
        tables = {
            str(path): out_of_fold_table(path, allow_missing=allow_missing, reporter=reporter)
            for path in runs
        }
        found = ensemble_scores(tables, allow_missing=allow_missing)
        parts = ensemble_tables(found)
    else:
        if len(runs) != 2:
            raise ConfigError(
                f"{len(runs)} runs cannot be compared", "name two, or more with --ensemble"
            )
        one, other = (
            out_of_fold_table(path, allow_missing=allow_missing, reporter=reporter) for path in runs
        )
        found = compared(one, other, (str(runs[0]), str(runs[1])), allow_missing=allow_missing)
        parts = comparison_tables(found)
    if json:
        console.print_json(data=found.to_dict())
        return
    for part in parts:
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


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
    from naevus.reports.background import appearances
    from naevus.reports.figures import check_installed
    from naevus.reports.html import write_report
    from naevus.reports.report import make_report
    from naevus.reports.terminal import CHIEF, document_lines
    from naevus.runs.results import check_areas, evaluate_results, ground_truth, is_run

    check_installed()
    of_run = is_run(results)
    if of_run and any(option is not None for option in (bundle, part, split)):
        raise ConfigError("--bundle, --part and --split are for PREDICTIONS", "leave them out")
    found, classifier_of = (
        _report_of_run(results, data, allow_missing=allow_missing)
        if of_run
        else _report_of_predictions(
            results,
            ground_truth(results, data, part=part, split=split, reporter=reporter),
            bundle or (),
            allow_missing=allow_missing,
        )
    )
    if found.mask_scores is not None:
        check_areas(found.mask_scores, data or results, force=force, reporter=reporter)
    with reporter.progress("reading pictures") as move:
        looks = appearances(found, move) if pictures else None
    with reporter.status(f"scoring {len(found.images):,} answers"):
        evaluation = evaluate_results(found, looks)
    with reporter.progress("drawing pictures") as move:
        document = make_report(found, evaluation, classifier_of, move, images=pictures)
    page = write_report(document, evaluation, out or results / "report", figures=figures)
    for line in document_lines(document, CHIEF):
        console.print(line)
    console.print("Research use only, never a diagnosis.", style="dim")
    console.print(f"{page}", soft_wrap=True)


def _report_of_run(
    folder: Path, data: Path | None, *, allow_missing: bool
) -> tuple[Results, ClassifierOf]:
    from naevus.reports.gallery import fold_classifiers
    from naevus.runs.results import open_run, results_of_run
    from naevus.runs.run import dataset_of

    run = open_run(folder, allow_missing=allow_missing, reporter=reporter)
    run.answers()  # refuses what is missing, where that is not allowed
    dataset = dataset_of(run, data)
    if dataset is None:
        reporter.warning(
            f"{run.inputs['data']} is not there: no pictures, no subgroups; name it with --data"
        )
    found = results_of_run(folder, run.join(), dataset)
    return found, fold_classifiers(found)


def _report_of_predictions(
    folder: Path, dataset: Dataset, named: Sequence[Path], *, allow_missing: bool
) -> tuple[Results, ClassifierOf]:
    from naevus.bundles.bundle import find_bundles
    from naevus.io.progress import warn_all
    from naevus.reports.gallery import predictions_classifier
    from naevus.runs.results import results_of_predictions

    bundles = [each for each in find_bundles(named) if each.spec.classifier is not None]
    found = results_of_predictions(folder, dataset, allow_missing=allow_missing)
    warn_all(reporter, found.notes)
    return found, predictions_classifier(found, bundles)


# ``naevus evaluate``: how good a run, several as one, or predictions are.


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
    A run's evaluation is kept in its evaluation.json. Several classifiers' runs over the same folds
    are scored as one that answers with their mean, as `naevus predict` does with their bundles.

    Examples:
      naevus evaluate runs/cls
      naevus evaluate runs/cls --pictures Sharp_Copies --allow-missing
      naevus evaluate runs/cls runs/cls-second-seed
      naevus evaluate answers --data ISIC2018
      naevus evaluate answers --data ISIC2020 --benign AKIEC
    """
    from naevus.runs.results import ground_truth, is_run

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
    evaluations = (
        _of_runs(runs, pictures, allow_missing=allow_missing, force=force)
        if runs
        else _of_predictions(
            results[0],
            ground_truth(
                results[0], data, taxonomy, image_type, part=part, split=split, reporter=reporter
            ),
            benign or (),
            allow_missing=allow_missing,
            force=force,
        )
    )
    _show(evaluations, as_json=json)


def _of_runs(
    folders: Sequence[Path], pictures: Path | None, *, allow_missing: bool, force: bool
) -> list[Evaluation]:
    from naevus.io.files import write_json
    from naevus.runs.results import open_runs, results_of_tables

    runs = open_runs(folders, allow_missing=allow_missing, reporter=reporter)
    names = [str(run.folder) for run in runs]
    name = runs[0].folder.name if len(runs) == 1 else f"mean of {len(runs)} runs"
    answered = {name: [run.answers() for run in runs]}
    if pictures is not None:
        if any(run.config.task == "segmentation" for run in runs):
            raise DataError("--pictures needs a classification run", "leave it out")
        trained, copied = _with_copies(runs, answered[name], pictures, allow_missing=allow_missing)
        answered = {
            f"{name}, as trained": trained,
            f"{name}, copies in {pictures.name}": copied,
        }
    found = [
        _evaluated(
            results_of_tables(each, tables, names, allow_missing=allow_missing),
            folders[0],
            force=force,
        )
        for each, tables in answered.items()
    ]
    if pictures is None and len(runs) == 1:
        write_json(runs[0].folder / "evaluation.json", found[0].to_dict())
    return found


def _with_copies(
    runs: Sequence[Run], tables: Sequence[pd.DataFrame], pictures: Path, *, allow_missing: bool
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return what the runs said of the images that have copies, and of these copies."""
    from naevus.evaluation.tables import left_out, refuse_left_out
    from naevus.inference.out_of_fold import copies_of_run
    from naevus.io.progress import warn_all

    copies = [copies_of_run(*each, pictures, reporter) for each in zip(runs, tables, strict=True)]
    uncopied = {image_id for table in tables for image_id in table["image_id"]}
    uncopied -= set(copies[0]["image_id"])
    absent = left_out(("held-out images have no copy", uncopied))
    refuse_left_out(absent, str(pictures), allow_missing=allow_missing)
    warn_all(reporter, (f"{pictures}: {one}: left out" for one in absent))
    return [table[~table["image_id"].isin(uncopied)] for table in tables], copies


def _of_predictions(
    folder: Path, dataset: Dataset, benign: Sequence[str], *, allow_missing: bool, force: bool
) -> list[Evaluation]:
    from naevus.runs.results import results_of_predictions

    found = results_of_predictions(folder, dataset, benign, allow_missing=allow_missing)
    return [_evaluated(found, dataset.root, force=force)]


def _evaluated(found: Results, where: Path, *, force: bool) -> Evaluation:
    """Return the evaluation of results, after telling what does not count in it."""
    from naevus.io.progress import warn_all
    from naevus.runs.results import check_areas, evaluate_results

    warn_all(reporter, found.notes)
    if found.mask_scores is not None:
        check_areas(found.mask_scores, where, force=force, reporter=reporter)
    with reporter.status(f"scoring {len(found.images):,} answers"):
        return evaluate_results(found)


def _show(evaluations: Sequence[Evaluation], *, as_json: bool) -> None:
    from naevus.reports.report import evaluation_document
    from naevus.reports.terminal import document_lines

    if as_json:
        found = {one.subject.name: one.to_dict() for one in evaluations}
        console.print_json(data=found if len(found) > 1 else evaluations[0].to_dict())
        return
    for one in evaluations:
        for line in document_lines(evaluation_document(one)):
            console.print(line)
    errors.print("Research use only, never a diagnosis.", style="dim")
