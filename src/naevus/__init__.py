"""Dermoscopic images to lesion masks, crops, diagnoses and scores. Research use only.

Everything a user needs has a name here, and is imported when it is first used::

    import naevus

    predictor = naevus.load()
    print(predictor("lesion.jpg"))
    print(naevus.evaluate("runs/cls"))
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from naevus.errors import (
    BundleError,
    ConfigError,
    DataError,
    FoldsError,
    ImageError,
    NaevusError,
    RunError,
    SubmissionError,
    WeightsError,
)

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds, make_folds
    from naevus.datasets.layouts import load as load_dataset
    from naevus.evaluation.comparison import Comparison
    from naevus.evaluation.evaluate import Evaluation
    from naevus.inference.lesions import Lesion
    from naevus.inference.options import OutputOptions
    from naevus.inference.prediction import Prediction, to_frame
    from naevus.inference.predictor import Predictor, load
    from naevus.runs.comparison import compare_runs as compare
    from naevus.runs.evaluate import evaluate_folders as evaluate
    from naevus.runs.recipe import Recipe, load_recipe
    from naevus.runs.run import Run
    from naevus.taxonomy import TAXONOMIES, Taxonomy
    from naevus.training.callbacks import Callback
    from naevus.training.job import train
    from naevus.types import FailedImage

__version__ = "0.2.0"
# The application decides what is shown; without a handler, Python would print warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())
__all__ = [
    "TAXONOMIES",
    "Bundle",
    "BundleError",
    "Callback",
    "Comparison",
    "ConfigError",
    "DataError",
    "Dataset",
    "Evaluation",
    "FailedImage",
    "Folds",
    "FoldsError",
    "ImageError",
    "Lesion",
    "NaevusError",
    "OutputOptions",
    "Prediction",
    "Predictor",
    "Recipe",
    "Run",
    "RunError",
    "SubmissionError",
    "Taxonomy",
    "WeightsError",
    "__version__",
    "compare",
    "evaluate",
    "load",
    "load_dataset",
    "load_recipe",
    "make_folds",
    "to_frame",
    "train",
]

_HOMES: Final = {
    "TAXONOMIES": "naevus.taxonomy:TAXONOMIES",
    "Bundle": "naevus.bundles.bundle:Bundle",
    "Callback": "naevus.training.callbacks:Callback",
    "Comparison": "naevus.evaluation.comparison:Comparison",
    "Dataset": "naevus.datasets.dataset:Dataset",
    "Evaluation": "naevus.evaluation.evaluate:Evaluation",
    "FailedImage": "naevus.types:FailedImage",
    "Folds": "naevus.datasets.folds:Folds",
    "Lesion": "naevus.inference.lesions:Lesion",
    "OutputOptions": "naevus.inference.options:OutputOptions",
    "Prediction": "naevus.inference.prediction:Prediction",
    "Predictor": "naevus.inference.predictor:Predictor",
    "Recipe": "naevus.runs.recipe:Recipe",
    "Run": "naevus.runs.run:Run",
    "Taxonomy": "naevus.taxonomy:Taxonomy",
    "compare": "naevus.runs.comparison:compare_runs",
    "evaluate": "naevus.runs.evaluate:evaluate_folders",
    "load": "naevus.inference.predictor:load",
    "load_dataset": "naevus.datasets.layouts:load",
    "load_recipe": "naevus.runs.recipe:load_recipe",
    "make_folds": "naevus.datasets.folds:make_folds",
    "to_frame": "naevus.inference.prediction:to_frame",
    "train": "naevus.training.job:train",
}
"""Where each name is defined that is imported when it is first used."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import naevus` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
