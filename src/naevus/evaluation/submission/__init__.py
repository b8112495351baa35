"""Writing a challenge submission, and finding what is wrong with one before it is uploaded."""

from naevus.evaluation.submission.finding import Finding
from naevus.evaluation.submission.lint_masks import lint_segmentation
from naevus.evaluation.submission.lint_table import lint_classification
from naevus.evaluation.submission.write import write_submission

__all__ = ["Finding", "lint_classification", "lint_segmentation", "write_submission"]
