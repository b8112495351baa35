"""Metrics, intervals, calibration and comparisons, computed from arrays and tables."""
