"""Scores of masks and of diagnoses, as values that turn into JSON and tables."""

from naevus.evaluation.scoring.classification import ClassificationScores
from naevus.evaluation.scoring.segmentation import MaskScore, SegmentationScores, compare_masks

__all__ = ["ClassificationScores", "MaskScore", "SegmentationScores", "compare_masks"]
