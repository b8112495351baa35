"""Print what a job predicted: the first rows, the counts, the written files and odd names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.cli.console import console
from naevus.io.files import FORMULAS
from naevus.io.words import counted, first_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from naevus.datasets.sources import Found
    from naevus.inference.batch import BatchResult
    from naevus.inference.prediction import Prediction

_SHOWN = 20
"""Number of predictions that the terminal shows."""
_AREA = "lesion area: fraction of the image"
_COLUMNS = f"±: standard deviation over networks; {_AREA}"


def report_job(result: BatchResult, at: str | None = None) -> None:
    """Print the first predictions, what was written, and what failed.

    Args:
        result: The job.
        at: The address to which its folder is copied, if it is.
    """
    place = str(result.out) if at is None else at
    from naevus.inference.batch import REMOVED

    networks = counted(len(result.members), "network")
    if result.predicted:
        from naevus.inference.sheets import first_predictions

        shown = first_predictions(result.table, _SHOWN)
        console.print(_table(shown))
        if result.predicted > len(shown):
            console.print(
                f"... and {result.predicted - len(shown):,} more in {place}/{result.table.name}"
            )
        console.print()
        if result.predicted == 1:
            console.print(f"{shown[0]}")
            console.print()
    images = counted(result.predicted, "image")
    console.print(f"{images} predicted by {networks}:")
    for member in result.members:
        console.print(f"  {member}")
    if result.reused:
        console.print(f"{result.reused} of them were predicted by an earlier job.")
    lines = [] if result.lesions is None else [f"{result.lesions}"]
    lines += result.metadata_lines()
    lines += [f"  {place}/{path.relative_to(result.out)}" for path in result.files]
    lines += [f"{REMOVED} {place}/{path.relative_to(result.out)}" for path in result.removed]
    for line in lines:
        console.print(line, soft_wrap=True)
    for failed in result.failed:
        console.print(f"failed: {failed.path}: {failed.problem}", soft_wrap=True)
    if result.predicted > 1:
        console.print(_summary(result))
    for line in () if at is not None else _next_steps(result):
        console.print(line, soft_wrap=True)


def report_names(found: Found) -> None:
    """Print skipped files, and ids that differ from file names or need care."""
    if found.renamed:
        console.print(
            f"{len(found.renamed)} ids include a folder, suffix or number because other files have "
            f"the same name: {first_of(found.renamed)}",
            soft_wrap=True,
        )
    formulas = [each.image_id for each in found.sources if each.image_id.startswith(FORMULAS)]
    if formulas:
        console.print(
            f"{len(formulas)} ids begin with = + - or @, which spreadsheets treat as formulas: "
            f"predictions.csv has an apostrophe before them: {first_of(formulas)}",
            soft_wrap=True,
        )
    if found.left_out:
        kinds = ", ".join(f"{number} {kind}" for kind, number in found.left_out.items())
        console.print(f"skipped, not images: {kinds}", soft_wrap=True)
    if found.outputs:
        from naevus.datasets.listing import outputs_left_out

        console.print(f"left out: {outputs_left_out(found.outputs)}", soft_wrap=True)


def _next_steps(result: BatchResult) -> list[str]:
    """Return the commands that go on from here."""
    if result.shard is not None:
        ending = "when all are finished: naevus gather SHARDS... --out OUT"
        return [f"This is shard {result.shard}; {ending}"]
    if result.predicted < 2:
        return []
    return [
        f"To look at them: naevus report {result.out}",
        f"To score them against ground truth: naevus report {result.out} --data DATA",
    ]


def _summary(result: BatchResult) -> Table:
    """Return how many images have each answer and each flag, and how many failed."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, title="Summary", title_justify="left")
    for name in ("", "images", "of all"):
        table.add_column(name, justify="right" if name else "left")
    total = result.predicted + len(result.failed)
    # Melanoma first, which must not be missed.
    answers = sorted(result.answers.items(), key=lambda each: each[0] != "MEL")
    counts = [
        *((f"predicted {code}", number) for code, number in answers),
        *((f"flag {flag}", number) for flag, number in result.flags.items()),
        ("failed", len(result.failed)),
    ]
    for name, number in counts:
        table.add_row(name, f"{number:,}", f"{number / total:.1%}")
    return table


def _table(predictions: Sequence[Prediction]) -> Table:
    """Return predictions as a table: classes, or only lesion areas if none were predicted."""
    from rich import box
    from rich.table import Table

    from naevus.taxonomy import TAXONOMIES

    taxonomy = TAXONOMIES.get(predictions[0].taxonomy or "")
    malignant = [each.code for each in taxonomy.diagnoses if each.malignant] if taxonomy else []
    classified = any(each.predicted is not None for each in predictions)
    legend = _COLUMNS if classified else _AREA
    table = Table(box=box.SIMPLE, pad_edge=False, caption=legend, caption_justify="left")
    longest = max(len(each.image_id) for each in predictions)
    table.add_column("image", overflow="fold", min_width=min(longest, 24))
    names = ["melanoma"] if classified and "MEL" in malignant else []
    names += ["malignant"] if classified and malignant else []
    names += ["class", "prob.", "±"] if classified else []
    for name in (*names, "lesion area"):
        table.add_column(name, justify="left" if name == "class" else "right")
    table.add_column("flags", overflow="fold")
    for each in predictions:
        odds = each.probabilities
        values = {
            "class": each.predicted or "",
            "prob.": _number(max(odds.values(), default=None)),
            "±": _number(each.uncertainty),
            "melanoma": _number(odds.get("MEL")),
            "malignant": _number(sum(odds[code] for code in malignant) if odds else None),
        }
        area = "" if each.lesion_area is None else f"{each.lesion_area:.0%}"
        table.add_row(each.image_id, *(values[name] for name in names), area, ", ".join(each.flags))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
