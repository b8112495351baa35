"""What `bench_inference.py` works on: networks, their graphs and bundles, and images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import torch
from torch.nn import functional

from naevus.bundles.bundle import BUILTIN, Bundle, find_bundles, write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import ConfigError
from naevus.export.graphs import to_fp16, to_int8
from naevus.export.members import open_member
from naevus.images.preprocess import InputSpec, preprocess
from naevus.images.read import read
from naevus.inference.engines.openvino import precisions
from naevus.inference.segmenter import Segmenter
from naevus.runs.run import Run
from naevus.taxonomy import ISIC2018
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.onnx_graph import export_onnx, write_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.types import Precision

SHARED = Path(os.environ.get("NAEVUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
ORIGINALS = SHARED / "originals"
SMALL = SHARED / "isic2018" / "ISIC2018_Task3_Training_Input"
SIZE = 192
"""Side of what the networks see, in pixels, as in ``recipes/segmentation.toml``."""

DRAWN = 64
TAUGHT, STEPS = 32, 60
CALIBRATED = 24


@dataclass(frozen=True)
class TrainingData:
    """The same networks as torch modules, as graphs in 32 bits, and as bundles.

    Attributes:
        networks: ``segmentation`` and ``classification``.
        graphs: Their ONNX files.
        plain: One bundle of both, in 32 bits; its classifier sees crops.
        shipped: The bundles that are shipped, and how their numbers are stored.
        stored: In words.
        computed: What they are computed in; None: as they say themselves.
    """

    networks: dict[str, Preprocessed]
    graphs: dict[str, Path]
    plain: Bundle
    shipped: Sequence[Bundle]
    stored: str
    computed: Precision | None


def make_training_data(folder: Path, runs: Sequence[Path], bundles: Sequence[Path]) -> TrainingData:
    """Make networks and what is exported of them.

    Args:
        folder: Where files go.
        runs: Finished runs, for their networks; of a task without one, the recipe's network is
            built, its segmenter taught for some seconds so that masks are like those of use.
        bundles: What is shipped; none: the networks in 8 bits (in 16 where NNCF is absent).
    """
    networks: dict[str, Preprocessed] = {
        run.recipe.task: open_member(run, run.finished()[0]).network for run in opened(runs)
    }
    if "segmentation" not in networks:
        networks["segmentation"] = taught_segmenter(folder)
    if "classification" not in networks:
        networks["classification"] = Preprocessed(build_classifier()).eval()
    graphs: dict[str, Path] = {}
    for task, network in networks.items():
        graphs[task] = folder / f"{task}.onnx"
        export_onnx(network, graphs[task], input_size=SIZE)
    plain = write_both(folder / "plain", graphs)
    if bundles:
        return TrainingData(networks, graphs, plain, find_bundles(bundles), "as given", None)
    smaller, stored = shrunk(folder, graphs)
    shipped = [write_both(folder / "shrunk", smaller)]
    return TrainingData(networks, graphs, plain, shipped, stored, precisions()[-1])


def opened(runs: Sequence[Path]) -> list[Run]:
    """Open runs."""
    return [Run.open(path) for path in runs]


def taught_segmenter(folder: Path) -> Preprocessed:
    """Return the recipe's U-Net, briefly taught to contour as the built-in network does at `SIZE`.

    How long a mask takes hangs on how ragged it is, and a crop's reading on how small: so masks
    are to be like those that are drawn in use.
    """
    torch.manual_seed(0)
    network = Preprocessed(build_segmenter(decoder={"decoder_channels": [128, 64, 32, 16, 16]}))
    images = inputs([*small(folder, TAUGHT), *originals(folder, TAUGHT)], SIZE)
    logits = Segmenter(Bundle.read(BUILTIN)).logits([images])
    pixels, wanted = torch.from_numpy(images), torch.from_numpy(logits).sigmoid()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(pixels), (8,))
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(pixels[chosen]), wanted[chosen])
        loss.backward()
        optimiser.step()
    return network.eval()


def write_both(path: Path, graphs: Mapping[str, Path]) -> Bundle:
    """Write a bundle that contours and diagnoses."""
    even, one = [1 / len(ISIC2018)] * len(ISIC2018), [1.0] * len(ISIC2018)
    member = {"architecture": "EfficientNet-Lite0", "input_size": SIZE}
    segmentation = {**member, "file": "segmentation.onnx"}
    classification = {
        **member,
        "file": "classification.onnx",
        "class_weights": one,
        "class_priors": even,
    }
    spec = {
        "segmenter": {"members": [segmentation]},
        "classifier": {
            "members": [classification],
            "taxonomy": "isic2018",
            "classes": ISIC2018.codes,
            "crop_mode": "crop",
        },
    }
    files = {f"{task}.onnx": graph for task, graph in graphs.items()}
    return write_bundle(path, BundleSpec.model_validate(spec), files)


def whole_images(bundle: Bundle, path: Path) -> Bundle:
    """Write a bundle's classifier as one that sees centre squares, so that it needs no mask."""
    spec = bundle.spec.model_copy(update={"segmenter": None})
    assert spec.classifier is not None
    seeing = spec.classifier.model_copy(update={"crop_mode": "full"})
    files = {member.file: bundle.member_path(member) for member in seeing.members}
    if seeing.ood:
        files[seeing.ood] = bundle.folder / seeing.ood
    return write_bundle(path, spec.model_copy(update={"classifier": seeing}), files)


def shrunk(folder: Path, graphs: Mapping[str, Path]) -> tuple[dict[str, Path], str]:
    """Write graphs in 8 bits, or in 16 where NNCF is absent; say which."""
    images = small(folder, CALIBRATED)
    pixels = np.stack(
        [preprocess(read(path), None, InputSpec("squash", SIZE)).pixels for path in images]
    )
    smaller = {task: folder / f"{task}-small.onnx" for task in graphs}
    models = {task: onnx.load(path) for task, path in graphs.items()}
    try:
        made, stored = {task: to_int8(model, pixels) for task, model in models.items()}, "int8"
    except ConfigError:
        made, stored = {task: to_fp16(model) for task, model in models.items()}, "fp16 (no NNCF)"
    for task, model in made.items():
        write_onnx(model, smaller[task])
    return smaller, stored


def small(folder: Path, count: int) -> list[Path]:
    """Return images of 256 px: real ones where they are, drawn ones otherwise."""
    found = sorted(SMALL.glob("*.jpg"))
    if not found:
        found = sorted((drawn_data(folder) / SMALL.name).glob("*.jpg"))
    return repeated(found, folder / "small", count)


def originals(folder: Path, count: int) -> list[Path]:
    """Return images of several megapixels: camera originals, or drawn ones enlarged."""
    found = sorted(ORIGINALS.glob("*.jpg"))
    if not found:
        large = folder / "enlarged"
        large.mkdir(exist_ok=True)
        for path in small(folder, 12):
            pixels = cv2.resize(read(path)[..., ::-1], (1792, 1344), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(large / path.name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
        found = sorted(large.glob("*.jpg"))
    return repeated(found, folder / "large", count)


def drawn_data(folder: Path) -> Path:
    """Draw a small data set once."""
    data = folder / "drawn"
    if not data.exists():
        write_isic2018(data, images=DRAWN, size=256)
    return data


def repeated(found: Sequence[Path], links: Path, count: int) -> list[Path]:
    """Link files until there are enough, each under a name of its own."""
    links.mkdir(exist_ok=True)
    chosen = []
    for number, path in enumerate(islice(cycle(found), count)):
        link = links / f"p{number:06}{path.suffix}"
        if not link.exists():
            link.symlink_to(path)
        chosen.append(link)
    return chosen


def inputs(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return images as a network sees them, N x size x size x 3."""
    input_spec = InputSpec("squash", size)
    return np.stack(
        [preprocess(read(path, shortest=size), None, input_spec).pixels for path in paths]
    )
