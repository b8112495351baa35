"""Options that several commands have, each defined once."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

Megapixels = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Refuse images of more megapixels. By default 150 of a JPEG, which is decoded scaled, "
        "and 100 of other formats.",
        show_default=False,
    ),
]


def with_megapixels(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that reads images the option ``--megapixels``."""

    @wraps(command)
    def limited(*args: Any, megapixels: float | None, **kwargs: Any) -> None:
        from naevus.images.read import allow_megapixels

        allow_megapixels(megapixels)
        try:
            command(*args, **kwargs)
        finally:
            allow_megapixels(None)

    own = inspect.signature(command, eval_str=True)  # typer looks at what stands here
    option = inspect.Parameter(
        "megapixels", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Megapixels
    )
    limited.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), option]
    )
    limited.__annotations__ = {**command.__annotations__, "megapixels": Megapixels}
    return limited
