"""The audit of a data set before anything is trained on it."""

from naevus.datasets.audit.findings import Finding
from naevus.datasets.audit.report import Audit, audit

__all__ = ["Audit", "Finding", "audit"]
