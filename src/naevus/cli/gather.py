"""``naevus gather``: join what several machines made of one job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naevus.cli.console import console, reporter
from naevus.cli.options import Bundles, Out
from naevus.cli.summary import report_job
from naevus.errors import ConfigError

_FINDINGS = 1


def gather(
    parts: Annotated[
        list[Path],
        typer.Argument(
            metavar="PARTS", help="The folders of all shards, or runs that hold all folds."
        ),
    ],
    out: Out,
    bundle: Bundles = None,
) -> None:
    """Join the shards of a prediction, or the folds of a training.

    Examples:
      naevus gather shards/* --out predictions/photos
      naevus gather folds/* --out runs/classification

    Shards are the output folders of `naevus predict --shard 1/N` to N/N. They must be finished, and
    of the same images, bundles, settings and version of naevus. Every image is then in OUT once,
    as if one machine had predicted all. Shards that were computed in another precision or by
    another engine are listed. The exit code is 1 if images failed. --bundle is needed only if
    lesions are known and the bundle has moved since.

    Folds are runs of `naevus train --fold K` with the same recipe, data, folds and version of
    naevus; each fold must be finished in one of them. The same command resumes an interrupted one.
    """
    if any((part / "run.toml").exists() for part in parts):
        from naevus.runs.gather import gather_folds

        if bundle:
            raise ConfigError("--bundle has no effect on the folds of a run", "leave it out")
        run = gather_folds(parts, out, reporter=reporter)
        console.print(f"{run}\nTo score it: naevus evaluate {out}", soft_wrap=True)
        return
    from naevus.inference.gather import gather_predictions

    result = gather_predictions(parts, out, bundles=bundle or (), reporter=reporter)
    report_job(result)
    if result.failed:
        raise typer.Exit(_FINDINGS)
