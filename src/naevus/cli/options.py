"""Options that several commands have, each defined once."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

ImageType = Literal["auto", "dermoscopic", "clinical", "tile", "all"]
TaxonomyName = Literal["auto", "isic2018", "isic2019", "milk10k", "binary", "own"]
IMAGE_TYPE_HELP: Final = "Type of the images to use; auto: dermoscopic ones, or all where none is."
TAXONOMY_HELP: Final = (
    "What diagnoses are read as; auto: what fits best; own: the labels as they are."
)

AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Leave out images that have no answer, or no ground truth, and say how many they are; "
        "else they are an error.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Use masks that cannot be right as a whole: most of them empty, full, dark where "
        "lesions are, or absent where crops are cut by them.",
    ),
]

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
