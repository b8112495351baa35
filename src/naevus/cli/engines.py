"""``naevus engines``: what can run networks here, and what does."""

from __future__ import annotations

from naevus.cli.console import console


def engines() -> None:
    """Tell which engines can run networks on this machine, which one does, and why.

    What was compiled for this machine is kept on disk, so that the next start is quicker; the
    environment variable NAEVUS_CACHE=off turns that off.

    Examples:
      naevus engines
    """
    from rich.table import Table

    from naevus.inference.engines.cache import CompiledCache
    from naevus.inference.engines.survey import survey

    table = Table("engine", "version", "devices", "precisions", "chosen", "why")
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
    console.print(table)
    cache = CompiledCache.of_user()
    kept = "not kept (NAEVUS_CACHE=off)" if cache is None else f"kept in {cache.folder}"
    console.print(f"Compiled networks are {kept}.")
