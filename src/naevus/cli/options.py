"""Options that several commands share, each defined once with one meaning."""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from naevus import types

if TYPE_CHECKING:
    from collections.abc import Callable

# The values of some options are repeated here because the modules that define them are slow to
# import; mypy checks that they agree.
ImageType = Literal["auto", "dermoscopic", "clinical", "tile", "all"]
TaxonomyName = Literal["auto", "isic2018", "isic2019", "milk10k", "binary", "own"]
SplitName = Literal["train", "validation", "test"]

# Panels that group options in the help.
IMAGES: Final = "Images"
NETWORKS: Final = "Networks"
TRAINING: Final = "Training"
OUTPUT: Final = "Output"
COMPUTING: Final = "Computation"
CHECKS: Final = "Checks"

# Input and output.

DataFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="A data set: a folder in a known layout, or a table of images."
    ),
]
DataFolderIfGiven = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="A data set: a folder in a known layout, or a table of images.",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder written by `naevus train`.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Folders written by `naevus train`.")
]
Task = Annotated[
    types.Task,
    typer.Argument(metavar="TASK", help="What the networks predict."),
]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
OutIfGiven = Annotated[
    Path | None, typer.Option("--out", help="Where to write.", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="The data set with the ground truth and the lesions; for a run, by default the one it "
        "was trained on.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

# Images.

Images = Annotated[
    Path | None, typer.Option("--images", help="A folder of images.", show_default=False)
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        help="Use only this part of the data set, such as task1 or task3.",
        rich_help_panel=IMAGES,
    ),
]
Split = Annotated[
    SplitName | None,
    typer.Option("--split", help="Use only this split of the data set.", rich_help_panel=IMAGES),
]
ImageTypeName = Annotated[
    ImageType,
    typer.Option(
        "--image-type",
        help="Type of the images to use; auto: dermoscopic, or all if there are none.",
        rich_help_panel=IMAGES,
    ),
]
ImageTypeIfGiven = Annotated[
    ImageType | None,
    typer.Option(
        "--image-type",
        help="Type of the images to use; sets data.image_type of the recipe.",
        rich_help_panel=IMAGES,
    ),
]
TaxonomyOption = Annotated[
    TaxonomyName,
    typer.Option(
        "--taxonomy",
        help="Set of diagnoses; auto: the best match; own: the data set's labels unchanged.",
        rich_help_panel=IMAGES,
    ),
]
TaxonomyIfGiven = Annotated[
    TaxonomyName | None,
    typer.Option(
        "--taxonomy",
        help="Set of diagnoses; sets data.taxonomy of the recipe.",
        rich_help_panel=IMAGES,
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        help="Predicted masks to crop by, such as OUT/masks of `naevus predict`; by default the "
        "data set's own masks.",
        rich_help_panel=IMAGES,
    ),
]
Copies = Annotated[
    list[Path] | None,
    typer.Option(
        "--copies",
        help="A folder of other copies of the same images, named by image id; may be repeated. For "
        "attributes: a data set in which each copy has its own masks.",
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
        help="Count this class as benign when classes are merged into benign and malignant; may "
        "be repeated.",
        rich_help_panel=IMAGES,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Use at most this many images, in whole lesions and of all diagnoses, to try "
        "something out.",
        show_default=False,
        rich_help_panel=IMAGES,
    ),
]
SpreadImages = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Predict at most this many images, spread evenly over all, in whole lesions where "
        "they are known, to try something out.",
        show_default=False,
        rich_help_panel=IMAGES,
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, help="Number of images.")]
CountIfGiven = Annotated[
    int | None, typer.Option("--count", min=1, help="Number of images.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.")]

# Networks, and how they are trained and run.

Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        help="A bundle, a .naevus file, or a run (all its folds); may be repeated to add another "
        "task or to average networks. By default `built-in`.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Fold = Annotated[
    list[int] | None,
    typer.Option("--fold", help="Use only this fold; may be repeated.", rich_help_panel=TRAINING),
]
HeldOutFold = Annotated[
    int, typer.Option("--fold", help="The held-out fold.", rich_help_panel=TRAINING)
]
FoldsFile = Annotated[
    Path | None,
    typer.Option(
        "--folds",
        help="Folds written by `naevus data split`; by default 5 folds with seed 2018.",
        rich_help_panel=TRAINING,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting of the recipe, such as epochs=5; may be repeated.",
        rich_help_panel=TRAINING,
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="tensorboard|mlflow",
        help="Also log to TensorBoard (into RUN/tensorboard) or MLflow; may be repeated.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        help="Start from the weights of a run, fold by fold, or of a bundle: a path, in which "
        "{fold} stands for the fold, or `built-in`.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder for decoded images; by default beside the run.",
        rich_help_panel=COMPUTING,
    ),
]
Tta = Annotated[
    Literal["none", "half-turn", "flips", "d4"],
    typer.Option(
        "--tta",
        help="Test-time augmentation: average over a half turn (2 versions of the image), flips "
        "(4), or all flips and rotations (8).",
        rich_help_panel=NETWORKS,
    ),
]
Engine = Annotated[
    Literal["openvino", "onnxruntime"] | None,
    typer.Option(
        "--engine",
        help="Inference engine; by default the fastest on this machine.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
InferenceDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda[:N]",
        help="Where to predict. cuda needs onnxruntime-gpu in place of onnxruntime; auto takes the "
        "GPU only if the engine is onnxruntime and has CUDA.",
        rich_help_panel=COMPUTING,
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(
        "--precision",
        help="Precision of the computation; by default the fastest on this machine (see `naevus "
        "info`).",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Number of threads; by default one per processor.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
TrainingThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Number of threads of the network, in each process; by default one per processor, "
        "divided among the processes that torchrun starts on this machine.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda[:N]",
        help="Where to train; auto: a GPU if there is one. With torchrun, cuda gives each process "
        "the GPU of its own number.",
        rich_help_panel=COMPUTING,
    ),
]
Storage = Annotated[
    Literal["fp32", "fp16", "int8"] | None,
    typer.Option(
        "--storage",
        help="Number format of the stored weights; int8 also computes in 8 bits. By default the "
        "recommendation of --measure-costs, otherwise fp32.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]

# Errors that an option turns into warnings.

AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Leave out images without a prediction or ground truth and report their number, "
        "instead of failing.",
        rich_help_panel=CHECKS,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Use masks that look wrong as a whole: most of them empty, full, inverted, or missing "
        "where crops need them.",
        rich_help_panel=CHECKS,
    ),
]
Megapixels = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Largest image to read, in megapixels. By default 150 for JPEG, which is decoded at "
        "reduced size, and 100 for other formats.",
        show_default=False,
        rich_help_panel=IMAGES,
    ),
]


def with_megapixels(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option ``--megapixels`` to a command that reads images."""

    @wraps(command)
    def limited(*args: Any, megapixels: float | None, **kwargs: Any) -> None:
        from naevus.images.read import allow_megapixels

        allow_megapixels(megapixels)
        try:
            command(*args, **kwargs)
        finally:
            allow_megapixels(None)

    own = inspect.signature(command, eval_str=True)  # typer reads the signature
    option = inspect.Parameter(
        "megapixels", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Megapixels
    )
    limited.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), option]
    )
    limited.__annotations__ = {**command.__annotations__, "megapixels": Megapixels}
    return limited
