"""The ISIC 2018 challenge's own scores and refusals, under the official tool's key names.

The rules are those of https://github.com/ImageMarkup/isic-challenge-scoring; where that tool
crashes (a class absent from the truth, a file that is not there), these functions answer.
"""

from naevus.evaluation.challenge.attributes import score_attributes
from naevus.evaluation.challenge.classification import score_classification
from naevus.evaluation.challenge.segmentation import score_segmentation

__all__ = ["score_attributes", "score_classification", "score_segmentation"]
