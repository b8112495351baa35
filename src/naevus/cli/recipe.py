"""``naevus recipe``: every setting of a training job, with its value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from naevus.cli.console import console


def recipe(
    task: Annotated[
        Literal["segmentation", "classification"], typer.Argument(help="What would be learnt.")
    ],
    path: Annotated[
        Path | None, typer.Option("--recipe", help="A TOML file; none prints the defaults.")
    ] = None,
) -> None:
    """Print a recipe with all its settings, as TOML to start one's own from.

    A recipe may leave out what it does not change; with --recipe, what it left out is filled in.

    Examples:
      naevus recipe classification > my.toml
      naevus recipe segmentation --recipe recipes/segmentation.toml
    """
    from naevus.runs.recipe import load_config, to_toml

    console.print(to_toml(load_config(path, task)), soft_wrap=True, end="")
