"""``naevus model-card``: what is known of a run's networks, or a bundle's, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import AllowMissing, open_run
from naevus.cli.console import console
from naevus.errors import ConfigError, DataError

if TYPE_CHECKING:
    from naevus.bundles.spec import BundleSpec


def model_card(
    networks: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A run, or a bundle or .naevus file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to write; printed where none is named.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A run's data set, if it is not where the run found it.")
    ] = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Print the model card of a bundle, or that of a run's finished folds as one ensemble.

    It tells the intended use, training data and licence, scores by diagnosis and subgroup with
    intervals by lesion, how honest probabilities are, and limits. A bundle carries its figures; a
    run's are taken from what its folds never saw.

    Examples:
      naevus model-card runs/cls
      naevus model-card lesions.naevus --out MODEL_CARD.md
    """
    from naevus.bundles.card import card_of
    from naevus.io.files import write_text

    card = card_of(_spec(networks, data, allow_missing=allow_missing))
    if out is None:
        typer.echo(card, nl=False)
        return
    write_text(out, card)
    console.print(f"{out}", soft_wrap=True)


def _spec(path: Path, data: Path | None, *, allow_missing: bool) -> BundleSpec:
    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import MANIFEST

    if not (path / "run.toml").exists():
        if path.is_dir() and not (path / MANIFEST).exists():
            raise DataError(
                f"{path}: is neither a run nor a bundle", "name a folder of train or export"
            )
        if data is not None or allow_missing:
            raise ConfigError("--data and --allow-missing are for a run", "leave them out")
        return Bundle.read(path).spec
    from naevus.runs.manifest import spec_of_run

    return spec_of_run(open_run(path, allow_missing=allow_missing), data)
