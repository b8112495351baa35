"""Compare two runs, or their tables of out-of-fold predictions, by their paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from naevus.errors import RunError
from naevus.evaluation.comparison import compare
from naevus.io.formats import read_parquet
from naevus.io.progress import SILENT
from naevus.runs.run import Run, open_run

if TYPE_CHECKING:
    import pandas as pd

    from naevus.evaluation.comparison import Comparison
    from naevus.io.progress import Reporter
    from naevus.types import Unit


def compare_runs(
    a: str | Path, b: str | Path, *, allow_missing: bool = False, reporter: Reporter = SILENT
) -> Comparison:
    """Compare two runs of one task on the images that both held out.

    Args:
        a: The folder of a run, or an ``oof.parquet``.
        b: The same for the run that may be better.
        allow_missing: Whether images may be left out that only one of them predicted.
        reporter: Gets a warning about images that are left out.

    Returns:
        Every difference, B - A, with its 95 % interval and its test by group.

    Raises:
        RunError: One is neither a run nor a table, or is incomplete.
        DataError: The two cannot be compared: tasks, classes, images or lesions differ.

    Examples:
        >>> print(compare_runs("runs/cls", "runs/cls"))
        ... # doctest: +ELLIPSIS
        balanced accuracy, balanced decision: ...
    """
    one, other = (
        out_of_fold_table(Path(path), allow_missing=allow_missing, reporter=reporter)
        for path in (a, b)
    )
    names = str(a), str(b)
    return compare(one, other, names, allow_missing=allow_missing, unit=unit_of_results(Path(a)))


def unit_of_results(path: Path) -> Unit:
    """Return what the groups of a run are, or of a table in its folders; otherwise lesions."""
    folders = (path, *path.resolve().parents[:2])
    run = next((each for each in folders if (each / "run.toml").exists()), None)
    return "lesion" if run is None else Run.open(run, allow_missing=True).unit


def read_out_of_fold(path: Path) -> pd.DataFrame:
    """Read a table of out-of-fold predictions, such as the ``oof.parquet`` of a run.

    Raises:
        DataError: It is absent or damaged.
    """
    kinds = ("logit", "class_prior", "class_weight", "jaccard", "dice")
    return read_parquet(path, "name an oof.parquet of train", numbers=kinds, whole=("fold",))


def out_of_fold_table(
    path: Path, *, allow_missing: bool, reporter: Reporter = SILENT
) -> pd.DataFrame:
    """Return the out-of-fold predictions of a run, or of a file of them.

    Raises:
        RunError: It is neither, or the run is incomplete.
        DataError: The file is damaged.
    """
    if (path / "run.toml").exists():
        return open_run(path, allow_missing=allow_missing, reporter=reporter).predictions()
    if not path.exists():
        raise RunError(f"{path} does not exist", "name the --out of `naevus train`")
    if (path / "predictions.parquet").exists():
        raise RunError(
            f"{path}: predictions of given bundles cannot be compared, only runs and their tables",
            f"evaluate each: naevus evaluate {path} --data DATA",
        )
    if not path.is_file():
        raise RunError(f"{path}: is neither a run nor a table", "name the --out of `naevus train`")
    return read_out_of_fold(path)
