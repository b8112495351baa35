"""What a finished fold holds: its network, and which pictures that network never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import RunError
from naevus.runs.run import WEIGHTS, read_heldout
from naevus.training.checkpoint import load_network
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from naevus.runs.recipe import TrainConfig
    from naevus.runs.run import Run


@dataclass(frozen=True)
class TrainedMember:
    """A network on the CPU, in evaluation mode, that becomes a member of a bundle.

    Attributes:
        run: The run it is from; of an average, the first member's.
        network: It takes pictures as they are stored.
        folds: The folds it did not train on.
        origin: What tables and messages call it.
        classes: Codes in the order of a classifier's logits.
        weights: w_c, how much more than its share each class counted in training.
        shares: pi_c, the classes' shares in the training part.
    """

    run: Run
    network: Preprocessed
    folds: tuple[int, ...]
    origin: str
    classes: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def config(self) -> TrainConfig:
        """The recipe."""
        return self.run.config

    def held_out(self) -> list[str]:
        """Return the ids of the pictures it never saw, without the test pictures."""
        return [image_id for fold in self.folds for image_id in self.run.folds.held_out(fold)]

    def learnt(self) -> list[str]:
        """Return the ids of the pictures of the folds it trained on."""
        never = {*self.run.folds.test(), *self.held_out()}
        return [image_id for image_id in self.run.folds.table["image_id"] if image_id not in never]

    def draw(
        self, ids: Iterable[str], count: int, *, without: Collection[str] = (), seed: int = 2018
    ) -> list[str]:
        """Draw pictures by chance, one a group.

        Args:
            ids: What is drawn from.
            count: How many at most.
            without: Pictures whose whole groups are left out.
            seed: Of the draw.
        """
        group: dict[str, str] = dict(
            self.run.folds.table[["image_id", "group_id"]].itertuples(index=False)
        )
        banned = {group[image_id] for image_id in without}
        pool = sorted(set(ids))
        drawn: dict[str, str] = {}
        for position in np.random.default_rng(seed).permutation(len(pool)).tolist():
            image_id = pool[position]
            if len(drawn) < count and group[image_id] not in banned:
                drawn.setdefault(group[image_id], image_id)
        return sorted(drawn.values())


def open_member(run: Run, fold: int) -> TrainedMember:
    """Load the network of a finished fold.

    Raises:
        RunError: The fold is not finished, or its files are damaged.
    """
    folder = run.fold_folder(fold)
    if fold not in run.finished() or not (folder / WEIGHTS).exists():
        raise RunError(f"{run.folder}: fold {fold} is not finished", "train it first")
    member = _outlining(run, fold) if run.config.task == "segmentation" else _diagnosing(run, fold)
    load_network(folder / WEIGHTS, member.network)
    member.network.eval()
    return member


def _outlining(run: Run, fold: int) -> TrainedMember:
    return TrainedMember(run, _random(run.config), (fold,), f"{run.folder.name} fold {fold}")


def _diagnosing(run: Run, fold: int) -> TrainedMember:
    """Return a classifier with what its held-out table says of its training."""
    path = run.fold_folder(fold) / "heldout.parquet"
    row = read_heldout(path).iloc[0]
    classes = tuple(name.removeprefix("logit_") for name in row.index if name.startswith("logit_"))
    weights, shares = (
        tuple(float(row[f"{kind}_{code}"]) for code in classes) for kind in ("weight", "share")
    )
    network = _random(run.config, len(classes))
    origin = f"{run.folder.name} fold {fold}"
    return TrainedMember(run, network, (fold,), origin, classes, weights, shares)


def _random(config: TrainConfig, classes: int = 1) -> Preprocessed:
    """Build the recipe's network without loading what it once started from."""
    settings = config.network
    if config.task == "segmentation":
        return Preprocessed(
            build_segmenter(settings.architecture, settings.encoder, "none", settings.decoder)
        )
    return Preprocessed(
        build_classifier(
            settings.backbone,
            classes,
            "none",
            pooling=settings.pooling,
            hidden=settings.hidden,
            dropout=settings.dropout,
        )
    )
