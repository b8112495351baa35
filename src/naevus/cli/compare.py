"""``naevus compare``: whether one recipe is better than another, or only luckier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import AllowMissing, open_run
from naevus.cli.console import console, errors
from naevus.errors import ConfigError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from naevus.evaluation.comparison import Change, Comparison, Difference
    from naevus.evaluation.ensemble_selection import EnsembleScores

_MOST = 20
"""How many changed pictures are listed; --json has all."""


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
        parts = _tables(found)
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


def _tables(found: Comparison) -> Iterable[RenderableType]:
    from rich.text import Text

    yield Text(f"A: {found.a}\nB: {found.b}")
    yield Text(f"{found.pictures:,} pictures of {found.groups:,} lesions are in both")
    for name, count in (("A", found.only_a), ("B", found.only_b)):
        if count:
            yield Text(f"note: {count:,} more are only in {name} and left out", style="yellow")
    # Not by their paths, which the first lines give: sentences would fill three lines each.
    yield Text("\n".join(one.sentence() for one in found.differences), style="bold")
    yield _differences("score", found.differences)
    if found.recalls:
        yield _differences("class, balanced decision", found.recalls)
    test = found.mcnemar
    yield Text(
        f"one picture a lesion: A alone is right {test.only_a} times, B alone {test.only_b} times "
        f"(McNemar, exact: p = {test.p:.3g})"
    )
    if found.changed:
        yield _changes(found.changed)


def _together(found: EnsembleScores) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from naevus.cli.score_tables import spread

    table = Table(
        "balanced decision", title=f"{found.pictures:,} pictures of {found.groups:,} lesions"
    )
    table.add_column("balanced accuracy", justify="right")
    table.add_column("share in greedy", justify="right")
    for name, interval in found.single.items():
        table.add_row(name, spread(interval), f"{found.weights[name]:.2f}")
    table.add_row("mean of all", spread(found.mean), "", style="bold")
    table.add_row("greedy, judged by nested folds", spread(found.greedy), "", style="bold")
    if found.left_out:
        yield Text(f"note: {found.left_out:,} more are not in all and left out", style="yellow")
    table.caption = "95 % intervals by lesion; shares are those chosen on all pictures"
    yield table
    yield Text(found.gain.sentence("the mean", "greedy selection"))


def _differences(first: str, differences: Sequence[Difference]) -> Table:
    from rich.table import Table

    table = Table(first, title="B - A with its 95 % interval by lesion")
    for column in ("lesions", "A", "B", "B - A", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for one in differences:
        value, low, high = one.difference
        table.add_row(
            one.score.removeprefix("recall of "),
            f"{one.groups:,}",
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{value:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            f"{one.p:.2g}",
            style="bold" if one.told_apart else None,
        )
    return table


def _changes(changed: Sequence[Change]) -> Table:
    from rich.table import Table

    counts = {
        effect: sum(change.effect == effect for change in changed)
        for effect in ("mended", "broken", "other")
    }
    summary = ", ".join(f"{count:,} {effect}" for effect, count in counts.items())
    table = Table("picture", "truth", "A", "B", "effect", title=f"changed answers: {summary}")
    for change in changed[:_MOST]:
        table.add_row(*change)
    if len(changed) > _MOST:
        table.caption = f"and {len(changed) - _MOST:,} more: --json lists all"
    return table
