"""``naevus challenge``: score and check submissions by the rules of ISIC 2018."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naevus.cli.console import console, reporter
from naevus.cli.options import Force, Images, Json
from naevus.errors import SubmissionError

if TYPE_CHECKING:
    from naevus.evaluation.challenge.lint import Finding


def score(
    truth: Annotated[
        Path,
        typer.Argument(metavar="TRUTH", help="GroundTruth.csv, or a folder of ground-truth masks."),
    ],
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="A CSV file, or a folder of masks.")
    ],
    *,
    force: Force = False,
    json: Json = False,
) -> None:
    """Score a submission to Task 1, 2 or 3 exactly as the ISIC 2018 challenge does.

    Examples:
      naevus challenge score GroundTruth.csv predictions/submission.csv
      naevus challenge score ISIC2018_Task1_Test_GroundTruth predictions/masks
      naevus challenge score Task2_GroundTruth predictions/attributes

    CSV files contain diagnoses (Task 3) and get balanced accuracy and metrics by class. Folders
    contain masks. Lesion masks (Task 1) get the thresholded Jaccard index and mean overlaps;
    attribute masks (Task 2) get the Jaccard index pooled over all images. A file that the
    challenge's scorer rejects is rejected here too.
    """
    from naevus.datasets.masksurvey import implausible_problem, refuse, survey
    from naevus.evaluation.challenge import (
        score_attributes,
        score_classification,
        score_segmentation,
    )
    from naevus.evaluation.challenge.attributes import holds_attributes
    from naevus.evaluation.challenge.segmentation import truth_files

    if truth.is_dir() != submission.is_dir() and truth.exists() and submission.exists():
        folder, file = (truth, submission) if truth.is_dir() else (submission, truth)
        raise SubmissionError(
            f"{folder} is a folder and {file} is not",
            "name two CSV files, or two folders of masks",
        )
    if not truth.is_dir():
        if force:
            raise SubmissionError("--force applies to masks only", "leave it out")
        _show(score_classification(truth, submission), as_json=json)
        return
    if holds_attributes(truth):
        if force:
            raise SubmissionError("--force applies to lesion masks only", "leave it out")
        _show(score_attributes(truth, submission), as_json=json)
        return
    found = survey([path for _, path in truth_files(truth)])
    note = refuse(implausible_problem(found.masks, found.empty, found.full), truth, force=force)
    if note is not None:
        reporter.warning(note)
    _show(score_segmentation(truth, submission), as_json=json)


def lint(
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="A CSV file, or a folder of masks.")
    ],
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="GroundTruth.csv, or a folder of ground-truth masks."),
    ] = None,
    images: Images = None,
) -> None:
    """Find problems that the challenge would reject or count as errors.

    Examples:
      naevus challenge lint predictions/submission.csv --truth GroundTruth.csv
      naevus challenge lint predictions/masks --images ISIC2018_Task1-2_Test_Input

    --images is the folder of the challenge's images. Without it or --truth, missing images,
    extra images and mask sizes cannot be checked. The exit code is 1 if there are findings, and
    0 otherwise.
    """
    if truth is not None and images is not None:
        raise SubmissionError("--truth and --images cannot be combined", "give one of them")
    findings = (
        _lint_folder(submission, images or truth)
        if submission.is_dir()
        else _lint_csv(submission, truth, images)
    )
    if not findings:
        console.print(f"{submission}: nothing to fix", soft_wrap=True)
        return
    from naevus.reports.terminal import findings_table

    console.print(findings_table(findings))
    refused = sum(finding.consequence == "refused" for finding in findings)
    console.print(f"findings: {len(findings)}, of which {refused} lead to rejection")
    raise typer.Exit(1)


def _lint_folder(folder: Path, against: Path | None) -> list[Finding]:
    from naevus.evaluation.challenge.attributes import holds_attributes
    from naevus.evaluation.challenge.lint import lint_attributes, lint_segmentation

    if holds_attributes(folder) or (against is not None and holds_attributes(against)):
        return lint_attributes(folder, against)
    return lint_segmentation(folder, against)


def _lint_csv(path: Path, truth: Path | None, images: Path | None) -> list[Finding]:
    from naevus.evaluation.challenge.classification import read_truth
    from naevus.evaluation.challenge.lint import lint_classification
    from naevus.images.read import IMAGE_SUFFIXES

    if truth is not None:
        known = read_truth(truth)
        return lint_classification(path, known.ids, known.codes)
    if images is None:
        return lint_classification(path)
    if not images.is_dir():
        raise SubmissionError(f"{images}: no such folder", "name the challenge's input folder")
    suffixes = IMAGE_SUFFIXES
    ids = [entry.stem for entry in images.iterdir() if entry.suffix.lower() in suffixes]
    return lint_classification(path, sorted(ids))


def _show(scores: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print_json(data=scores, allow_nan=False)
        return
    from naevus.reports.terminal import challenge_tables

    for table in challenge_tables(scores):
        console.print(table)
