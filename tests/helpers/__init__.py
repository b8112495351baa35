"""Helpers that several tests share: generated inputs and child processes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
