"""``naevus score`` and ``naevus lint-submission``: the challenge's rules on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naevus.cli.console import console, reporter
from naevus.cli.options import Force
from naevus.errors import SubmissionError

if TYPE_CHECKING:
    from naevus.evaluation.challenge.lint import Finding


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def classification(
    truth: Annotated[Path, typer.Argument(help="The GroundTruth.csv of Task 3.")],
    prediction: Annotated[Path, typer.Argument(help="The submission, a CSV.")],
    *,
    as_json: Json = False,
) -> None:
    """Score diagnoses: balanced multi-class accuracy, and each class against the others.

    What the challenge's scorer refuses is refused.

    Examples:
      naevus score classification GroundTruth.csv answers/submission.csv
      naevus score classification GroundTruth.csv answers/submission.csv --json
    """
    from naevus.evaluation.challenge import score_classification

    _show(score_classification(truth, prediction), as_json=as_json)


def segmentation(
    truth: Annotated[Path, typer.Argument(help="The folder of true masks.")],
    prediction: Annotated[Path, typer.Argument(help="The folder of submitted masks.")],
    *,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Score masks: the thresholded Jaccard index, and the means beside it.

    What the challenge's scorer refuses is refused.

    Examples:
      naevus score segmentation ISIC2018_Task1_Test_GroundTruth answers/masks
      naevus score segmentation ISIC2018_Task1_Test_GroundTruth masks --json
    """
    from naevus.datasets.masksurvey import implausible_problem, refuse, survey
    from naevus.evaluation.challenge import score_segmentation
    from naevus.evaluation.challenge.segmentation import truth_files

    found = survey([path for _, path in truth_files(truth)])
    note = refuse(implausible_problem(found.masks, found.empty, found.full), truth, force=force)
    if note is not None:
        reporter.warning(note)
    _show(score_segmentation(truth, prediction), as_json=as_json)


def lint_submission(
    path: Annotated[Path, typer.Argument(help="A submission: a CSV, or a folder of masks.")],
    truth: Annotated[
        Path | None, typer.Option(help="GroundTruth.csv, or the folder of true masks.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="The folder of the challenge's pictures.")
    ] = None,
) -> None:
    """Find what the challenge would refuse or silently score as wrong, before the upload.

    Without --truth or --pictures, missing and extra pictures and sizes cannot be checked.
    Ends with 0 where nothing was found and with 1 where something was.

    Examples:
      naevus lint-submission answers/submission.csv --truth GroundTruth.csv
      naevus lint-submission answers/masks --pictures ISIC2018_Task1-2_Test_Input
    """
    if truth is not None and pictures is not None:
        raise SubmissionError("both --truth and --pictures are given", "give one of them")
    findings = (
        _lint_folder(path, pictures or truth) if path.is_dir() else _lint_csv(path, truth, pictures)
    )
    if not findings:
        console.print(f"{path}: nothing to mend", soft_wrap=True)
        return
    from naevus.reports.terminal import findings_table

    console.print(findings_table(findings))
    refused = sum(finding.consequence == "refused" for finding in findings)
    console.print(f"findings: {len(findings)}, of which {refused} make the challenge refuse it")
    raise typer.Exit(1)


def _lint_folder(folder: Path, against: Path | None) -> list[Finding]:
    from naevus.evaluation.challenge.attributes import holds_attributes
    from naevus.evaluation.challenge.lint import lint_attributes, lint_segmentation

    if holds_attributes(folder):
        return lint_attributes(folder, against)
    return lint_segmentation(folder, against)


def _lint_csv(path: Path, truth: Path | None, pictures: Path | None) -> list[Finding]:
    from naevus.evaluation.challenge.classification import read_truth
    from naevus.evaluation.challenge.lint import lint_classification
    from naevus.images.read import PICTURE_SUFFIXES

    if truth is not None:
        known = read_truth(truth)
        return lint_classification(path, known.ids, known.codes)
    if pictures is None:
        return lint_classification(path)
    if not pictures.is_dir():
        raise SubmissionError(f"{pictures}: no such folder", "name the challenge's input folder")
    suffixes = PICTURE_SUFFIXES
    ids = [entry.stem for entry in pictures.iterdir() if entry.suffix.lower() in suffixes]
    return lint_classification(path, sorted(ids))


def _show(scores: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print(json.dumps(scores, indent=2, allow_nan=False), soft_wrap=True)
        return
    from naevus.reports.terminal import challenge_tables

    for table in challenge_tables(scores):
        console.print(table)
