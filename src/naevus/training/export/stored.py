"""A network's graph as it may be stored: in 32, 16 or 8 bits, each made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from naevus.datasets.sources import squares
from naevus.training.export.graph import export_onnx, write_onnx
from naevus.training.export.precision import to_fp16, to_int8

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.datasets.sources import Pictures
    from naevus.training.export.members import TrainedMember
    from naevus.types import Precision


class StoredGraphs:
    """The files of one member.

    Args:
        member: The network.
        pictures: Where its pictures are; those of the folds it trained on give 8 bits' ranges.
        folder: Where files are made.
        calibrated: From how many pictures, one a group, the ranges are taken.
        without: Pictures whose groups these are not of.

    Attributes:
        member: The network.
        folder: Where its files are.
    """

    def __init__(
        self,
        member: TrainedMember,
        pictures: Pictures,
        folder: Path,
        *,
        calibrated: int,
        without: Sequence[str],
    ) -> None:
        self.member = member
        self.folder = folder
        self._pictures = pictures
        self._calibrated, self._without = calibrated, without

    def path(self, precision: Precision) -> Path:
        """Return the file whose numbers are stored so.

        Raises:
            BundleError: A weight is beyond 16 bits.
            ConfigError: NNCF, which makes 8 bits, is not installed.
            NaevusError: The file cannot be written.
        """
        path = self.folder / f"{precision}.onnx"
        if path.exists():
            return path
        if precision == "fp32":
            self.folder.mkdir(parents=True, exist_ok=True)
            export_onnx(self.member.network, path, input_size=self.member.config.input_size)
            return path
        model = onnx.load(self.path("fp32"))
        if precision == "fp16":
            write_onnx(to_fp16(model), path)
            return path
        ids = self.member.draw(self.member.learnt(), self._calibrated, without=self._without)
        size = self.member.config.input_size
        write_onnx(to_int8(model, squares(self._pictures, ids, size)), path)
        return path
