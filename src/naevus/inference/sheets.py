"""What people read of a finished job: first predictions, spreadsheets, submission, counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naevus.errors import NaevusError
from naevus.evaluation.challenge.classification import write_submission
from naevus.images.measurements import COLUMNS
from naevus.inference.prediction import Prediction
from naevus.io.files import write_csv
from naevus.io.workbooks import write_workbook
from naevus.runs.prediction_tables import about, no_table, read_rows
from naevus.taxonomy import TAXONOMIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from naevus.runs.prediction_tables import Schema
    from naevus.runs.predictions import PredictionsFolder
    from naevus.taxonomy import Taxonomy
    from naevus.types import Decision


def first_predictions(path: Path, count: int) -> list[Prediction]:
    """Return the first predictions of a table, without masks, heatmaps and embeddings.

    Args:
        path: ``predictions.parquet``.
        count: Maximum number of predictions.

    Raises:
        NaevusError: The file is not a table of predictions, or has no rows.
    """
    metadata = about(path)
    try:
        with pq.ParquetFile(path) as file:
            rows = next(file.iter_batches(batch_size=count), None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise no_table(path) from error
    if rows is None or not rows.num_rows:
        raise NaevusError(f"{path}: contains no predictions")
    return [Prediction.from_row(row, metadata) for row in rows.to_pylist()]


def write_submission_of(
    folder: PredictionsFolder, taxonomy: Taxonomy | None, decision: Decision
) -> list[Path]:
    """Write the submission; without a taxonomy, that of an earlier job stays."""
    if taxonomy is None:
        return [each for each in (folder.submission,) if each.exists()]
    folder.submission.unlink(missing_ok=True)
    kind = "balanced_prob" if decision == "balanced" else "prob"
    columns = [f"{kind}_{code}" for code in taxonomy.codes]
    table = read_rows(folder.table, ["image_id", *columns])
    values = np.column_stack([table.column(name).to_numpy() for name in columns])
    write_submission(folder.submission, table.column("image_id").to_pylist(), values, taxonomy)
    return [folder.submission]


# The table for spreadsheets, and what is counted in it.

_ROWS: Final = 4096  # in memory at once


def sheet_columns(schema: Schema) -> list[str]:
    """Return the columns of ``predictions.csv``.

    ``confidence`` is the probability of ``predicted``; ``malignant_prob`` the sum over malignant
    diagnoses, where the taxonomy tells which these are; ``predicted_balanced`` the most probable
    diagnosis if all were equally common.
    """
    taxonomy = TAXONOMIES.get(schema.about.get("taxonomy") or "")
    malignant = ["malignant_prob"] if _malignant(taxonomy) else []
    answer = ["predicted", "confidence", "uncertainty", *malignant, "predicted_balanced"]
    classified = answer if schema.classes else []
    probabilities = [f"prob_{code}" for code in schema.classes]
    sets = ["prediction_set"] if schema.about.get("coverage") else []
    presences = [f"presence_{name}" for name in schema.attributes]
    sizes = ["lesion_area", *COLUMNS.values(), "lesion_touches_border"]
    sizes += [*schema.millimetre_columns, "height", "width"]
    before, after = ["image_id", *schema.metadata], [*sizes, *presences, "path"]
    return [*before, *classified, *probabilities, *sets, "quality_flags", *after]


def _malignant(taxonomy: Taxonomy | None) -> list[str]:
    return [one.code for one in taxonomy.diagnoses if one.malignant] if taxonomy else []


def write_sheets(folder: PredictionsFolder, schema: Schema, *, xlsx: bool) -> list[Path]:
    """Write the table for spreadsheets, and as a workbook if wanted; return the files.

    A workbook that is there stays, whether it is wanted or not: joining the parts has left it
    because it is current, and it may have a reader's notes.
    """
    columns = sheet_columns(schema)
    write_csv(folder.sheet, columns, _sheet_rows(folder, schema, columns), spreadsheet=True)
    if xlsx and not folder.workbook.exists():
        rows = _sheet_rows(folder, schema, columns)
        write_workbook(folder.workbook, columns, rows, {name: _format(name) for name in columns})
    return [each for each in (folder.sheet, folder.workbook) if each.exists()]


def _format(name: str) -> str:
    """Return how a workbook shows the fractional numbers of a column."""
    fractions = ("confidence", "uncertainty", "malignant_prob", "lesion_area")
    if name in fractions or name.startswith(("prob_", "presence_")):
        return "0.0%"
    return "0.00" if name.startswith("lesion_") else "General"


def _sheet_rows(
    folder: PredictionsFolder, schema: Schema, columns: Sequence[str]
) -> Iterator[list[Any]]:
    malignant = _malignant(TAXONOMIES.get(schema.about.get("taxonomy") or ""))
    stored = [name for name in columns if name != "malignant_prob"]
    with pq.ParquetFile(folder.table) as file:
        for batch in file.iter_batches(_ROWS, columns=stored):
            for row in batch.to_pylist():
                if "malignant_prob" in columns:
                    row["malignant_prob"] = sum(row[f"prob_{code}"] for code in malignant)
                values = (row[name] for name in columns)
                yield [";".join(each) if isinstance(each, list) else each for each in values]


def sizes_of(table: Path) -> tuple[str, ...]:
    """Return the sizes of the images, the most frequent first; upright and lying are one size."""
    rows = read_rows(table, ["height", "width"]).to_pylist()
    sizes = Counter(tuple(sorted(row.values(), reverse=True)) for row in rows)
    return tuple(f"{long} × {short}" for (long, short), _ in sizes.most_common())


def tallies(folder: PredictionsFolder) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many images have each answer, and each flag."""
    table = read_rows(folder.table, ["predicted", "quality_flags"])
    answers = Counter(code for code in table.column("predicted").to_pylist() if code is not None)
    flags = Counter(flag for flags in table.column("quality_flags").to_pylist() for flag in flags)
    return dict(answers.most_common()), dict(flags.most_common())
