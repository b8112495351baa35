"""``naevus evaluate``, ``compare`` and ``report``: the quality of predictions."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, reporter
from naevus.cli.options import (
    OUTPUT,
    AllowMissing,
    Benign,
    Bundles,
    CopiesFolder,
    Data,
    Force,
    ImageTypeName,
    Json,
    OutIfGiven,
    Part,
    Split,
    TaxonomyOption,
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


# ``naevus compare``: paired comparison of two runs, and ensembles of several.


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="A B", help="Two runs of one task, or oof.parquet.")
    ],
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Score several classification runs as an ensemble."),
    ] = False,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Compare two runs on the images that both held out.

    Examples:
      naevus compare runs/cls runs/cls-larger
      naevus compare runs/cls runs/cls-larger runs/cls-crop --ensemble

    Each difference, B - A, has a 95 % interval and a permutation test by lesion or patient, which
    distinguish progress from chance. With --ensemble, scores the mean of all runs, and the mean
    of those that a greedy search selects, evaluated on folds that the search did not use.
    """
    from naevus.evaluation.ensemble_selection import ensemble_scores
    from naevus.reports.terminal import comparison_tables, ensemble_tables
    from naevus.runs.comparison import compare_runs, out_of_fold_table, unit_of_results

    parts: Iterable[RenderableType]
    found: Comparison | EnsembleScores
    if ensemble:
        if len(set(runs)) < len(runs):
            raise ConfigError("a run is named twice", "name each run once")
        tables = {
            str(path): out_of_fold_table(path, allow_missing=allow_missing, reporter=reporter)
            for path in runs
        }
        unit = unit_of_results(runs[0])
        found = ensemble_scores(tables, allow_missing=allow_missing, unit=unit)
        parts = ensemble_tables(found)
    else:
        if len(runs) != 2:
            raise ConfigError(
                f"compare needs two runs, not {len(runs)}",
                "name two, or add --ensemble for more",
            )
        found = compare_runs(*runs, allow_missing=allow_missing, reporter=reporter)
        parts = comparison_tables(found)
    if json:
        console.print_json(data=found.to_dict())
        return
    for part in parts:
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


# ``naevus report``: the results of a run or of predictions as one page.


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A run or a predictions folder.")
    ],
    data: Data = None,
    bundle: Bundles = None,
    thumbnails: Annotated[
        bool,
        typer.Option(
            "--thumbnails/--no-thumbnails",
            help="Include small copies of images in the page.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    figures: Annotated[
        bool,
        typer.Option(
            "--figures",
            help="Also write the figures as SVG and PDF.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    out: OutIfGiven = None,
    split: Split = None,
    part: Part = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
) -> None:
    """Write an HTML report of results, or an overview of predictions.

    Examples:
      naevus report runs/cls
      naevus report predictions
      naevus report predictions --data ISIC2018 --bundle runs/cls --figures

    Writes report.html (one self-contained page), every table as CSV, JSON and Parquet, and all
    values as report.json, by default to RESULTS/report. If the data set is available, the page
    contains small copies of its images: share it only with people who may see them, or add
    --no-thumbnails. For predictions, --bundle names the networks that made them and adds
    heatmaps; a run has its own networks.

    Predictions without --data get an overview: overview.html with every image, its contour,
    answer and flags, sortable and filterable (of more than 2,000, those with the highest
    probability of malignancy), and overview.png, a contact sheet.
    """
    from naevus.datasets.masksurvey import check_areas
    from naevus.reports.background import appearances
    from naevus.reports.figures import check_installed
    from naevus.reports.html import write_report
    from naevus.reports.report import make_report
    from naevus.reports.terminal import CHIEF, document_lines
    from naevus.runs.evaluate import evaluate_results
    from naevus.runs.predictions import is_run
    from naevus.runs.results import ground_truth

    of_run = is_run(results)
    if not of_run and data is None:
        given = {"--bundle": bundle, "--split": split, "--part": part, "--figures": figures,
                 "--no-thumbnails": not thumbnails, "--allow-missing": allow_missing,
                 "--force": force}  # fmt: skip
        for option in (name for name, value in given.items() if value):
            raise ConfigError(f"{option} needs --data", f"leave out {option}, or add --data")
        _overview(results, out or results / "report")
        return
    check_installed()
    if of_run and any(option is not None for option in (bundle, part, split)):
        raise ConfigError(
            "--bundle, --part and --split apply to predictions only", "leave them out"
        )
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
    switches = {"--no-thumbnails": not thumbnails, "--figures": figures,
                "--allow-missing": allow_missing, "--force": force}  # fmt: skip
    options = [
        *(["--split", split] if split else []),
        *(["--part", part] if part else []),
        *["--bundle", "BUNDLE"] * len(bundle or ()),
        *(name for name, given in switches.items() if given),
    ]
    found = replace(found, command=" ".join([found.command, *map(shlex.quote, options)]))
    with reporter.progress("reading images") as move:
        decoded = appearances(found, move) if thumbnails else None
    with reporter.status(f"scoring {len(found.images):,} predictions"):
        evaluation = evaluate_results(found, decoded)
    with reporter.progress("drawing images") as move:
        document = make_report(found, evaluation, classifier_of, move, images=thumbnails)
    page = write_report(document, evaluation, out or results / "report", figures=figures)
    for line in document_lines(document, CHIEF):
        console.print(line)
    console.print("Research use only, never a diagnosis.", style="dim")
    console.print(f"{page}", soft_wrap=True)


def _overview(folder: Path, out: Path) -> None:
    from naevus.reports.overview import overview_of, write_overview, write_overview_sheet

    found = overview_of(folder, reporter=reporter)
    for note in found.notes:
        reporter.warning(note)
    write_overview(found, out / "overview.html")
    console.print(f"{out / 'overview.html'}", soft_wrap=True)
    if any(card.jpeg for card in found.cards):
        write_overview_sheet(found, out / "overview.png")
        console.print(f"{out / 'overview.png'}", soft_wrap=True)
    console.print("Research use only, never a diagnosis.", style="dim")


def _report_of_run(
    folder: Path, data: Path | None, *, allow_missing: bool
) -> tuple[Results, ClassifierOf]:
    from naevus.reports.gallery import fold_classifiers
    from naevus.runs.images import dataset_of
    from naevus.runs.results import results_of_run
    from naevus.runs.run import open_run

    run = open_run(folder, allow_missing=allow_missing, reporter=reporter)
    run.predictions()  # raises if predictions are missing and that is not allowed
    dataset = dataset_of(run, data)
    if dataset is None:
        reporter.warning(
            f"{run.inputs['data']} not found: the report has no images and no subgroups; name the "
            "data set with --data"
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


# ``naevus evaluate``: metrics of a run, of several runs as an ensemble, or of predictions.


def evaluate(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS", help="A run, several runs, oof.parquet, or a predictions folder."
        ),
    ],
    data: Data = None,
    copies: CopiesFolder = None,
    split: Split = None,
    part: Part = None,
    image_type: ImageTypeName = "auto",
    taxonomy: TaxonomyOption = "auto",
    benign: Benign = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Score predictions against the ground truth.

    Examples:
      naevus evaluate runs/cls
      naevus evaluate predictions --data ISIC2018

    Scores the out-of-fold predictions of a run, or a predictions folder whose images are in
    --data. Masks get Jaccard and Dice, boundary distances, scores by lesion size and factors that
    go with failures. Diagnoses get balanced accuracy, AUC, calibration, selective prediction and
    prediction sets. Intervals resample whole lesions or patients; the trained networks are fixed.
    Writes RUN/evaluation.json for a run.

    Several classification runs over the same folds are scored as an ensemble that predicts their
    mean, as `naevus predict` does with their bundles. --copies scores other copies of a run's
    images, each by the network that held it out:

      naevus evaluate runs/cls runs/cls-second-seed
      naevus evaluate runs/cls --copies sharp-copies --allow-missing
      naevus evaluate results/oof/classification.parquet

    If the data set and the predictions use different diagnoses, finer classes are merged into
    coarser ones: of the seven diagnoses, MEL, BCC and AKIEC count as malignant. --benign moves a
    class:

      naevus evaluate predictions --data ISIC2020 --benign AKIEC

    If lesions have several images, one answer per lesion (the mean of its images' logits) is
    scored too. The data set says which images show one lesion, and the subgroups (sex, age, how the
    diagnosis was confirmed): for a run its own, if it is still there; for tables name it with
    --data. Otherwise the groups of the folds are taken as lesions. For predictions, lesions and
    patients that --data does not know are those that `naevus predict` knew, which a line says.
    """
    from naevus.io.files import write_json
    from naevus.runs.evaluate import evaluate_folders, given_for_predictions
    from naevus.runs.predictions import is_run

    own = given_for_predictions(benign, taxonomy, image_type, part, split)
    given = [f"--{name.replace('_', '-')}" for name in own]
    tables = [path for path in results if path.is_file()]
    runs = [path for path in results if path not in tables and is_run(path)]
    for option in given if runs or tables else ():
        raise ConfigError(f"{option} applies to predictions only", f"leave out {option}")
    for option in given if data is None else ():
        raise ConfigError(f"{option} needs --data", f"leave out {option}, or add --data")
    if data is not None and copies is not None:
        raise ConfigError("--data has no effect with --copies", "leave out one of them")
    if len(runs) < len(results) and copies is not None:
        raise ConfigError("--copies applies to runs only", "leave it out")
    if copies is not None:
        _show(_of_copies(runs, copies, allow_missing=allow_missing), as_json=json)
        return
    found = evaluate_folders(
        *results,
        data=data,
        benign=benign or (),
        taxonomy=taxonomy,
        image_type=image_type,
        part=part,
        split=split,
        allow_missing=allow_missing,
        force=force,
        reporter=reporter,
    )
    if len(runs) == 1:
        write_json(runs[0] / "evaluation.json", found.to_dict())
    _show([found], as_json=json)


def _of_copies(folders: Sequence[Path], copies: Path, *, allow_missing: bool) -> list[Evaluation]:
    """Return the evaluation of runs on the images that have copies, and on the copies."""
    from naevus.runs.evaluate import evaluate_reported
    from naevus.runs.results import results_of_tables
    from naevus.runs.run import open_runs

    runs = open_runs(folders, allow_missing=allow_missing, reporter=reporter)
    if any(run.recipe.task != "classification" for run in runs):
        raise DataError("--copies needs a classification run", "leave it out")
    name = folders[0].name if len(runs) == 1 else f"mean of {len(runs)} runs"
    tables = [run.predictions() for run in runs]
    trained, copied = _with_copies(runs, tables, copies, allow_missing=allow_missing)
    names = list(map(str, folders))
    return [
        evaluate_reported(
            results_of_tables(f"{name}, {kind}", each, names, allow_missing=allow_missing),
            folders[0],
            reporter=reporter,
        )
        for kind, each in (("as trained", trained), (f"copies in {copies.name}", copied))
    ]


def _with_copies(
    runs: Sequence[Run], tables: Sequence[pd.DataFrame], folder: Path, *, allow_missing: bool
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return the runs' predictions of the images that have copies, and of the copies."""
    from naevus.evaluation.tables import left_out, refuse_left_out
    from naevus.inference.out_of_fold import copies_of_run
    from naevus.io.progress import warn_all

    copies = [copies_of_run(*each, folder, reporter) for each in zip(runs, tables, strict=True)]
    uncopied = {image_id for table in tables for image_id in table["image_id"]}
    uncopied -= set(copies[0]["image_id"])
    absent = left_out(("held-out images have no copy", uncopied))
    refuse_left_out(absent, str(folder), allow_missing=allow_missing)
    warn_all(reporter, (f"{folder}: {one}: left out" for one in absent))
    return [table[~table["image_id"].isin(uncopied)] for table in tables], copies


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
