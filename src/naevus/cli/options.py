"""The options that several commands have, each defined once and meaning the same everywhere."""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import typer

from naevus import types

if TYPE_CHECKING:
    from collections.abc import Callable

# The values of some options are written out again, for the modules that define them are slow to
# import; mypy sees that they agree.
ImageType = Literal["auto", "dermoscopic", "clinical", "tile", "all"]
TaxonomyName = Literal["auto", "isic2018", "isic2019", "milk10k", "binary", "own"]
SplitName = Literal["train", "validation", "test"]

# Panels that long lists of options are shown in.
IMAGES: Final = "Which images"
NETWORKS: Final = "Which networks"
TRAINING: Final = "How it is trained"
OUTPUT: Final = "What is written"
COMPUTING: Final = "How it is computed"
CHECKS: Final = "Checks"

# What a command works on, and where it writes.

DataFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="A data set: a folder in a known layout, or a table of its images."
    ),
]
DataFolderIfGiven = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="A data set: a folder in a known layout, or a table of its images.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `naevus train` made.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Folders that `naevus train` made.")
]
Task = Annotated[
    types.Task,
    typer.Argument(metavar="TASK", help=f"{', '.join(get_args(types.Task))}."),
]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
OutIfGiven = Annotated[
    Path | None, typer.Option("--out", help="Where to write.", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="The data set with the ground truth; of a run the one it was trained on.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

# Which images.

Images = Annotated[
    Path | None, typer.Option("--images", help="A folder of images.", show_default=False)
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        help="This part of the data set alone, such as task1 or task3.",
        rich_help_panel=IMAGES,
    ),
]
Split = Annotated[
    SplitName | None,
    typer.Option("--split", help="This split of the data set alone.", rich_help_panel=IMAGES),
]
ImageTypeName = Annotated[
    ImageType,
    typer.Option(
        "--image-type",
        help="Type of the images to use; auto: dermoscopic ones, or all where there are none.",
        rich_help_panel=IMAGES,
    ),
]
ImageTypeIfGiven = Annotated[
    ImageType | None,
    typer.Option(
        "--image-type",
        help="Type of the images to use: the recipe's data.image_type.",
        rich_help_panel=IMAGES,
    ),
]
TaxonomyOption = Annotated[
    TaxonomyName,
    typer.Option(
        "--taxonomy",
        help="What diagnoses are read as; auto: what fits best; own: the labels as they are.",
        rich_help_panel=IMAGES,
    ),
]
TaxonomyIfGiven = Annotated[
    TaxonomyName | None,
    typer.Option(
        "--taxonomy",
        help="What diagnoses are read as: the recipe's data.taxonomy.",
        rich_help_panel=IMAGES,
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        help="Predicted masks to crop by, such as OUT/masks of `naevus predict`; without it the "
        "data set's own.",
        rich_help_panel=IMAGES,
    ),
]
Copies = Annotated[
    list[Path] | None,
    typer.Option(
        "--copies",
        help="A folder of other copies of the same images, named by image id; may be repeated. For "
        "attributes a data set, each copy with its own masks.",
        rich_help_panel=IMAGES,
    ),
]
CopiesFolder = Annotated[
    Path | None,
    typer.Option(
        "--copies",
        help="A folder of other copies of the same images, named by image id.",
        rich_help_panel=IMAGES,
    ),
]
Benign = Annotated[
    list[str] | None,
    typer.Option(
        "--benign",
        help="A class that counts as benign where classes are folded into benign and malignant.",
        rich_help_panel=IMAGES,
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, help="How many images.")]
CountIfGiven = Annotated[
    int | None, typer.Option("--count", min=1, help="How many images.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]

# Which networks, and how they are trained and run.

Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        help="A bundle, a .naevus file, or a run for the bundles of its folds; may be repeated, "
        "for the other task or to average several. By default the built-in bundle.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Fold = Annotated[
    list[int] | None,
    typer.Option("--fold", help="This fold alone; may be repeated.", rich_help_panel=TRAINING),
]
HeldOutFold = Annotated[
    int, typer.Option("--fold", help="This fold alone.", rich_help_panel=TRAINING)
]
FoldsFile = Annotated[
    Path | None,
    typer.Option(
        "--folds",
        help="Folds that `naevus data split` wrote; without it 5 folds with seed 2018.",
        rich_help_panel=TRAINING,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of the recipe, such as optimiser.clip=0; may be repeated.",
        rich_help_panel=TRAINING,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where decoded images are kept; without it beside the run.",
        rich_help_panel=COMPUTING,
    ),
]
Tta = Annotated[
    Literal["none", "half-turn", "flips", "d4"],
    typer.Option(
        "--tta",
        help="Test-time augmentation: average over the image and itself upside down (2), over 4 "
        "flips, or over the 8 flips and rotations.",
        rich_help_panel=NETWORKS,
    ),
]
Engine = Annotated[
    Literal["openvino", "onnxruntime"] | None,
    typer.Option(
        "--engine",
        help="What runs the networks; by default what is fastest here.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(
        "--precision",
        help="What the networks compute in; by default what is fastest here (see `naevus info`).",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Number of threads; by default one a processor.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Storage = Annotated[
    Literal["fp32", "fp16", "int8"] | None,
    typer.Option(
        "--storage",
        help="How weights are stored; int8 also computes in 8 bits. By default what "
        "--measure-costs recommends, else fp32.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]

# What is an error unless it is allowed.

AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Leave out images without a prediction or without ground truth, and say how many; "
        "otherwise they are an error.",
        rich_help_panel=CHECKS,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Use masks that cannot be right as a whole: most of them empty, full, dark where "
        "lesions are, or absent where crops need them.",
        rich_help_panel=CHECKS,
    ),
]
Megapixels = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Refuse images of more megapixels. By default 150 for JPEG, which is decoded scaled, "
        "and 100 for other formats.",
        show_default=False,
        rich_help_panel=IMAGES,
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
