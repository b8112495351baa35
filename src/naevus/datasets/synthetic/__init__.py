"""Synthetic dermoscopic images with ground truth: lesions, photographs and whole data sets."""

from __future__ import annotations

from naevus.datasets.synthetic.dataset import write_isic2018
from naevus.datasets.synthetic.photograph import draw_lesion

__all__ = ["draw_lesion", "write_isic2018"]
