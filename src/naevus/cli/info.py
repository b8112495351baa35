"""``naevus info``: what runs here, and what is known of a bundle or a run."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus import __version__
from naevus.cli.console import console, reporter
from naevus.cli.options import AllowMissing, Data, OutIfGiven
from naevus.errors import ConfigError, DataError

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
            help="A bundle, a .naevus file or a run, for its model card.",
            show_default=False,
        ),
    ] = None,
    *,
    out: OutIfGiven = None,
    data: Data = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Without argument: time all ways to run networks anew."),
    ] = False,
    allow_missing: AllowMissing = False,
) -> None:
    """Show what runs here, or the model card of a bundle or run.

    Examples:
      naevus info
      naevus info lesions.naevus --out MODEL_CARD.md

    Without argument: the version, the extras that are installed, the engines that can run
    networks, how the built-in networks are run and why, and where caches are. Each way is tried
    once in a process of its own, checked against the bundle's sample, and timed; later jobs take
    the fastest. The environment variable NAEVUS_CACHE=off turns that off, and networks then run
    in fp32. The exit code is 2 if they do not run here at all.

    A model card tells the intended use, training data and licence, metrics by diagnosis and
    subgroup, calibration and limits. That of a run is about its finished folds as one ensemble,
    measured on images that they did not see. OUT is a Markdown file.
    """
    if networks is None:
        given = {"--out": out, "--data": data, "--allow-missing": allow_missing}
        for name in (name for name, value in given.items() if value):
            raise ConfigError(f"{name} is about a model card", "name a bundle or a run")
        _show_machine(again=again)
        return
    if again:
        raise ConfigError("--again is about this machine", "name no bundle beside it")
    from naevus.bundles.card import card_of
    from naevus.io.files import write_text

    card = card_of(_spec(networks, data, allow_missing=allow_missing))
    if out is None:
        typer.echo(card, nl=False)
        return
    write_text(out, card)
    console.print(f"{out}", soft_wrap=True)


def _show_machine(*, again: bool) -> None:
    from rich.table import Table

    from naevus.bundles.bundle import Bundle, builtin
    from naevus.inference.engines import automatic, instructions
    from naevus.inference.engines.openvino import CompiledCache

    # Tried before the survey imports OpenVINO: which instructions it may use is then settled.
    bundle = Bundle.read(builtin())
    networks = automatic.trial_networks(bundle)
    trials = automatic.trials_of(bundle, again=again)
    choice = automatic.chosen_of(trials, networks)
    instructions.hold(choice.limit)
    console.print(f"naevus {__version__}, Python {platform.python_version()}")
    for name, installed in extras().items():
        console.print(f"  naevus[{name}]: {installed}")
    console.print(_engines(Table()))
    console.print(_members(Table(title="the built-in networks"), trials, networks))
    console.print(automatic.describe(choice, trials))
    held = instructions.limit()
    whose = "held to it here" if instructions.held() else "as its user says"
    console.print(
        f"Instructions: {f'up to {held} ({whose})' if held else 'all'}; "
        f"the environment variable {instructions.SWITCH} holds a process to fewer.",
    )
    cache = CompiledCache.of_user()
    kept = "not kept (NAEVUS_CACHE=off)" if cache is None else f"kept in {cache.folder}"
    console.print(f"Compiled networks, and what was found, are {kept}.")


EXTRAS = {
    "evaluate": ("sklearn",),
    "report": ("matplotlib", "sklearn"),
    "train": (
        "torch",
        "torchvision",
        "timm",
        "segmentation_models_pytorch",
        "lightning_fabric",
        "onnx",
        "onnxscript",
        "safetensors",
        "sklearn",
    ),
    "excel": ("openpyxl",),
    "heif": ("pi_heif",),
    "onnxruntime": ("onnxruntime",),
    "quantise": ("nncf", "onnxruntime"),
}
"""What each extra brings, by the names that packages are imported under."""


def extras() -> dict[str, str]:
    """Say of each extra whether it is installed, or what of it is absent."""
    absent = {
        extra: [name for name in names if find_spec(name) is None]
        for extra, names in EXTRAS.items()
    }
    return {
        extra: f"without {', '.join(names)}" if names else "installed"
        for extra, names in absent.items()
    }


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
    from naevus.runs.run import open_run

    return spec_of_run(open_run(path, allow_missing=allow_missing, reporter=reporter), data)


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


def _members(table: Table, trials: Trials, networks: list[TrialNetwork]) -> Table:
    from statistics import median

    table.caption = "one thread, 8 images at a time; off: from the right answers to the sample"
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
