"""The scores and checks of the ISIC 2018 challenge, with the official tool's key names.

The rules are those of https://github.com/ImageMarkup/isic-challenge-scoring. Where that tool
crashes (a class without images, a missing file), these functions return a result or an error.
"""

from naevus.evaluation.challenge.attributes import score_attributes
from naevus.evaluation.challenge.classification import score_classification
from naevus.evaluation.challenge.segmentation import score_segmentation

__all__ = ["score_attributes", "score_classification", "score_segmentation"]
