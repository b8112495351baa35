"""``naevus engines`` and ``model-card``: what runs here, and what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, reporter
from naevus.cli.options import AllowMissing
from naevus.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

    from naevus.bundles.spec import BundleSpec
    from naevus.inference.engines.automatic import Trials
    from naevus.inference.engines.trial import Judged


# ``naevus model-card``: what is known of a run's networks, or a bundle's, on one page.


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
    from naevus.runs.results import open_run

    return spec_of_run(open_run(path, allow_missing=allow_missing, reporter=reporter), data)


def engines(
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Try all ways anew, whatever was found before.")
    ] = False,
) -> None:
    """Tell what can run networks on this machine, and how the built-in ones are run and why.

    Each way is tried once in a process of its own, judged by its answers to the bundle's sample,
    and timed. What was found decides on later jobs, and is kept beside the compiled networks; the
    environment variable NAEVUS_CACHE=off turns that off, and networks then run in f32. The exit
    code is 2 if they do not run here at all.

    Examples:
      naevus engines
      naevus engines --again
    """
    from rich.table import Table

    from naevus.bundles.bundle import Bundle, builtin
    from naevus.inference.engines import automatic, instructions
    from naevus.inference.engines.openvino import CompiledCache

    # Tried before the survey imports OpenVINO: which instructions it may use is then settled.
    bundle = Bundle.read(builtin())
    networks = automatic.judged_of(bundle)
    trials = automatic.trials_of(bundle, again=again)
    choice = automatic.chosen_of(trials, networks)
    instructions.hold(choice.limit)
    console.print(_engines(Table()))
    console.print(_members(Table(title="the built-in networks"), trials, networks))
    console.print(automatic.told(choice, trials))
    held = instructions.limit()
    whose = "held to it here" if instructions.held() else "as its user says"
    console.print(
        f"Instructions: {f'up to {held} ({whose})' if held else 'all'}; "
        f"the environment variable {instructions.SWITCH} holds a process to fewer.",
    )
    cache = CompiledCache.of_user()
    kept = "not kept (NAEVUS_CACHE=off)" if cache is None else f"kept in {cache.folder}"
    console.print(f"Compiled networks, and what was found, are {kept}.")


def _engines(table: Table) -> Table:
    from naevus.inference.engines import survey

    for name in ("engine", "version", "devices", "precisions", "chosen", "why"):
        table.add_column(name)
    for found in survey():
        cells = (
            found.name,
            found.version or "absent",
            "\n".join(found.devices) or "–",
            ", ".join(found.precisions) or "–",
            "yes" if found.chosen else "no",
            found.why,
        )
        table.add_row(*cells)
    return table


def _members(table: Table, trials: Trials, networks: list[Judged]) -> Table:
    from statistics import median

    table.caption = "one thread, 8 pictures at a time; off: from the right answers to the sample"
    for name in ("network", "run by", "images/s", "off", "may be", "problem"):
        table.add_column(name, justify="right" if name in {"images/s", "off", "may be"} else "left")
    for number, network in enumerate(networks):
        for way, results in trials.items():
            found = results[number]
            allowed = network.tolerances.get(way.precision)
            table.add_row(
                Path(network.path).stem,
                str(way),
                f"{8 / median(found.seconds):.0f}" if found.seconds else "–",
                "–" if found.distance is None else f"{found.distance:.3f}",
                "–" if allowed is None else f"{allowed:.3f}",
                found.problem or "",
            )
    return table
