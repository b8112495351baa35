"""``naevus info``: the installation and its engines, or the model card of a bundle or run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus import __version__
from naevus.cli.console import console, reporter
from naevus.cli.options import AllowMissing, Data, OutIfGiven
from naevus.errors import ConfigError, DataError
from naevus.io.extras import EXTRAS, how_to_install, missing

if TYPE_CHECKING:
    from rich.table import Table

    from naevus.bundles.spec import BundleSpec
    from naevus.inference.engines.automatic import Trials
    from naevus.inference.engines.trial import TrialNetwork


def info(
    networks: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE|RUN",
            help="A bundle, .naevus file, run, or `built-in`: print its model card.",
            show_default=False,
        ),
    ] = None,
    *,
    out: OutIfGiven = None,
    data: Data = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Without an argument: repeat the timing of all engines."),
    ] = False,
    allow_missing: AllowMissing = False,
) -> None:
    """Describe this installation, or print a model card.

    Examples:
      naevus info
      naevus info built-in
      naevus info lesions.naevus --out MODEL_CARD.md

    Without an argument: the version, the installed extras, the inference engines, how the
    built-in networks are run and why, and the cache folders. Each engine and precision is tried
    once in a child process, checked against the bundle's sample and timed; later jobs use the
    fastest. NAEVUS_CACHE=off in the environment disables these trials, and networks then run in
    fp32. The exit code is 2 if no engine can run the networks.

    A model card states the intended use, training data and licence, metrics by diagnosis and
    subgroup, calibration and limits. The card of a run describes its finished folds as one
    ensemble, evaluated out of fold. OUT is a Markdown file.
    """
    if networks is None:
        given = {"--out": out, "--data": data, "--allow-missing": allow_missing}
        for name in (name for name, value in given.items() if value):
            raise ConfigError(f"{name} applies to a model card", "name a bundle or a run")
        _show_machine(again=again)
        return
    if again:
        raise ConfigError("--again repeats the timing on this machine", "name no bundle with it")
    from naevus.bundles.card import card_of
    from naevus.io.files import write_text

    card = card_of(_spec(networks, data, allow_missing=allow_missing))
    if out is None:
        console.out(card, end="")
        return
    write_text(out, card)
    console.print(f"{out}", soft_wrap=True)


def _show_machine(*, again: bool) -> None:
    from rich.table import Table

    from naevus.bundles.bundle import Bundle, builtin
    from naevus.inference.engines import automatic, instructions
    from naevus.inference.engines.openvino import CompiledCache

    # Before the survey imports OpenVINO: the trials decide which instructions it may use.
    bundle = Bundle.read(builtin())
    networks = automatic.trial_networks(bundle)
    trials = automatic.trials_of(bundle, again=again)
    choice = automatic.chosen_of(trials, networks)
    instructions.hold(choice.limit)
    console.print(f"naevus {__version__}, Python {platform.python_version()}")
    for name in EXTRAS:
        absent = missing(name)
        console.print(
            f"  extra {name}: {'missing ' + ', '.join(absent) if absent else 'installed'}"
        )
    if any(map(missing, EXTRAS)):
        console.print(f"To install an extra: {how_to_install('NAME')}", soft_wrap=True)
    console.print(_engines(Table()))
    console.print(_members(Table(title="the built-in networks"), trials, networks))
    console.print(automatic.describe(choice, trials))
    held = instructions.limit()
    origin = "limited by naevus" if instructions.held() else "set by the user"
    console.print(
        f"Processor instructions: {f'up to {held} ({origin})' if held else 'all'}; "
        f"the environment variable {instructions.SWITCH} limits them.",
    )
    cache = CompiledCache.of_user()
    where = "none (NAEVUS_CACHE=off)" if cache is None else f"{cache.folder}"
    console.print(f"Cache of compiled networks and timings: {where}")


def _spec(path: Path, data: Path | None, *, allow_missing: bool) -> BundleSpec:
    from naevus.bundles.bundle import Bundle, place_of
    from naevus.bundles.spec import MANIFEST

    path = place_of(path)
    if not (path / "run.toml").exists():
        if path.is_dir() and not (path / MANIFEST).exists():
            raise DataError(
                f"{path}: neither a run nor a bundle",
                "name a folder written by naevus train or naevus export",
            )
        if data is not None or allow_missing:
            raise ConfigError("--data and --allow-missing apply to runs only", "leave them out")
        return Bundle.read(path).spec
    from naevus.runs.manifest import spec_of_run
    from naevus.runs.run import open_run

    return spec_of_run(open_run(path, allow_missing=allow_missing, reporter=reporter), data)


def _engines(table: Table) -> Table:
    from naevus.inference.engines import survey

    for name in ("engine", "version", "devices", "precisions", "used"):
        table.add_column(name, overflow="fold")  # a command to install, with a path, is shown whole
    for found in survey():
        cells = (
            found.name,
            found.version or "not installed",
            "\n".join(found.devices) or "–",
            ", ".join(found.precisions) or "–",
            found.use,
        )
        table.add_row(*cells)
    return table


def _members(table: Table, trials: Trials, networks: list[TrialNetwork]) -> Table:
    from statistics import median

    table.caption = "one thread, batches of 8; error: largest difference on the bundle's sample"
    right = {"images/s", "error", "tolerance"}
    for name in ("network", "run by", "images/s", "error", "tolerance", "problem"):
        table.add_column(name, justify="right" if name in right else "left")
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
