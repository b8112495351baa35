"""The stages of a batch: look, segment, finish, diagnose; each works on another batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from naevus.errors import PictureError
from naevus.images.geometry import box_of
from naevus.images.masks import area_share
from naevus.images.read import write_png
from naevus.inference.prediction import Cut, Look, Prediction, cut_for, flags_of, look, stacked
from naevus.inference.table import Refused, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from naevus.datasets.forms import Source
    from naevus.images.geometry import Box
    from naevus.images.read import Limits
    from naevus.inference.outfolder import OutFolder
    from naevus.inference.plan import Plan
    from naevus.inference.stream import Workers


class Answer(NamedTuple):
    """What a batch comes to."""

    rows: list[Row]
    refused: list[Refused]


class _Seen(NamedTuple):
    """A picture on its way: where it is from, and its lesion probability where that is known."""

    source: Source
    look: Look | None
    probability: NDArray[np.float32] | None


class _Finished(NamedTuple):
    """A picture whose mask and crop are written; only what the table needs is kept."""

    source: Source
    box: Box | None
    mask_share: float | None
    flags: tuple[str, ...]
    cut: Cut | None


@dataclass(frozen=True)
class Job:
    """Batches on their way through the networks.

    Args:
        plan: What is done with every picture.
        folder: Where masks and crops go.
        limits: Which pictures are refused before decoding.
    """

    plan: Plan
    folder: OutFolder
    limits: Limits

    def predict(self, pieces: Sequence[Sequence[Source]], workers: Workers) -> Iterator[Answer]:
        """Take batches all the way.

        The networks see one batch after the other in this thread; meanwhile the workers decode
        the next one, and clean, cut and write the one before.
        """
        looked = workers.ahead(self._look, pieces)
        segmented = (self._segment(piece, seen) for piece, seen in looked)
        finished = workers.ahead(self._finish, segmented)
        return (self._answer(piece, outcomes) for piece, outcomes in finished)

    def _look(self, source: Source) -> Look | None:
        """Decode a picture for the segmenter."""
        if self.plan.segmenter is None:
            return None
        keep = bool(self.plan.forms)
        return look(source.path, self.plan.segmenter, self.limits, keep=keep)

    def _segment(
        self, piece: Sequence[Source], seen: Sequence[Look | PictureError | None]
    ) -> list[_Seen | Refused]:
        looks = [each for each in seen if isinstance(each, Look)]
        found: Iterator[NDArray[np.float32] | None] = repeat(None)
        if self.plan.segmenter is not None and looks:
            found = iter(
                self.plan.segmenter.probabilities(stacked([each.squares for each in looks]))
            )
        return [
            _refusal(source, each)
            if isinstance(each, PictureError)
            else _Seen(source, None if each is None else each._replace(squares=()), next(found))
            for source, each in zip(piece, seen, strict=True)
        ]

    def _answer(
        self,
        piece: Sequence[_Seen | Refused],
        outcomes: Sequence[_Finished | Refused | PictureError],
    ) -> Answer:
        refused: list[Refused] = []
        finished: list[_Finished] = []
        for seen, outcome in zip(piece, outcomes, strict=True):
            if isinstance(outcome, _Finished):
                finished.append(outcome)
            elif isinstance(outcome, Refused):
                refused.append(outcome)
            else:
                assert isinstance(seen, _Seen)
                refused.append(_refusal(seen.source, outcome))
        return Answer(self._rows(finished), sorted(refused))

    def _finish(self, seen: _Seen | Refused) -> _Finished | Refused:
        """Clean the mask, cut the crop, write both."""
        if isinstance(seen, Refused):
            return seen
        mask = None
        if self.plan.segmenter and seen.look is not None and seen.probability is not None:
            mask = self.plan.segmenter.mask_of(seen.probability, seen.look.height, seen.look.width)
        name = seen.source.image_id
        cut = None
        if self.plan.forms:
            cut = cut_for(seen.source.path, mask, self.plan.forms, self.limits, seen=seen.look)
            write_png(self.folder.crop(name), cut.squares[0])
        if mask is None:
            return _Finished(seen.source, None, None, flags_of(mask), cut)
        if self.plan.masks:
            write_png(self.folder.mask(name), mask)
        return _Finished(seen.source, box_of(mask), area_share(mask), flags_of(mask), cut)

    def _rows(self, finished: Sequence[_Finished]) -> list[Row]:
        crops = [each.cut.squares for each in finished if each.cut is not None]
        said = None
        if self.plan.classifier is not None and crops:
            said = self.plan.classifier.posterior(stacked(crops))
        rows = []
        for number, each in enumerate(finished):
            prediction = Prediction(
                each.source.image_id,
                box=each.box,
                crop_mode=None if each.cut is None else each.cut.mode,
                classes=() if self.plan.classifier is None else self.plan.classifier.classes,
                logits=said and said.logits[number],
                natural=said and said.natural[number],
                balanced=said and said.balanced[number],
                members=said and said.members[number],
                flags=each.flags,
            )
            rows.append(Row(prediction, str(each.source.path), each.mask_share))
        return rows


def _refusal(source: Source, error: PictureError) -> Refused:
    line = " ".join(str(error).removeprefix(f"{source.path}: ").split())
    return Refused(source.image_id, str(source.path), line)
