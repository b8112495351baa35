"""What several tests share: inputs that are made, and child processes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
