"""``naevus engines``: what can run networks here, and what does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console

if TYPE_CHECKING:
    from rich.table import Table

    from naevus.inference.engines.automatic import Trials
    from naevus.inference.engines.trial import Judged


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
