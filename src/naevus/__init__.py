"""Dermoscopic pictures to lesion masks, crops, diagnoses and scores. Research use only."""

__version__ = "0.1.0"
