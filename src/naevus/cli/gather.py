"""``naevus gather``: join what several machines made of one job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naevus.cli.console import reporter
from naevus.cli.options import Bundles, Out
from naevus.cli.summary import report_job

_FINDINGS = 1


def gather(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="PARTS", help="The folders of all shards."),
    ],
    out: Out,
    bundle: Bundles = None,
) -> None:
    """Join the shards of a prediction.

    Examples:
      naevus gather shards/* --out predictions/photos
      naevus gather 1 2 --out both --bundle moved/bundle

    The shards are the output folders of `naevus predict --shard 1/N` to N/N. They must be finished,
    and of the same images, bundles, settings and version of naevus. Every image is then in OUT
    once, as if one machine had predicted all. Shards that were computed in another precision or
    by another engine are listed. The same command resumes an interrupted one. The exit code is 1 if
    images failed.

    --bundle is needed only if lesions are known and the bundle has moved since.
    """
    from naevus.inference.gather import gather_predictions

    result = gather_predictions(parts, out, bundles=bundle or (), reporter=reporter)
    report_job(result)
    if result.failed:
        raise typer.Exit(_FINDINGS)
