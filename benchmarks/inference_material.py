"""The inputs of `bench_inference.py`: networks, their graphs and bundles, and images."""

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
        plain: One bundle of both, in 32 bits; its classifier uses crops.
        shipped: The released bundles, and their storage.
        stored: Description of the storage.
        computed: Precision of the computation; None: the bundle's recommendation.
    """

    networks: dict[str, Preprocessed]
    graphs: dict[str, Path]
    plain: Bundle
    shipped: Sequence[Bundle]
    stored: str
    computed: Precision | None


def make_training_data(folder: Path, runs: Sequence[Path], bundles: Sequence[Path]) -> TrainingData:
    """Create networks and their exports.

    Args:
        folder: Folder of the files.
        runs: Finished runs, for their networks; for a task without one, the recipe's network is
            built, and its segmenter trained for some seconds so that masks are realistic.
        bundles: The released bundles; none: the networks in 8 bits (16 without NNCF).
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
    """Return the recipe's U-Net, briefly trained to segment like the built-in network at `SIZE`.

    The time for a mask depends on its raggedness, and the time for a crop on its size, so masks
    should be realistic.
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
    """Write a bundle that segments and classifies."""
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
    """Write a bundle's classifier as one of centre squares, so that it needs no mask."""
    spec = bundle.spec.model_copy(update={"segmenter": None})
    assert spec.classifier is not None
    seeing = spec.classifier.model_copy(update={"crop_mode": "full"})
    files = {member.file: bundle.member_path(member) for member in seeing.members}
    if seeing.ood:
        files[seeing.ood] = bundle.folder / seeing.ood
    return write_bundle(path, spec.model_copy(update={"classifier": seeing}), files)


def shrunk(folder: Path, graphs: Mapping[str, Path]) -> tuple[dict[str, Path], str]:
    """Write graphs in 8 bits, or in 16 without NNCF; return which."""
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
    """Return images of 256 px: real ones if available, synthetic ones otherwise."""
    found = sorted(SMALL.glob("*.jpg"))
    if not found:
        found = sorted((drawn_data(folder) / SMALL.name).glob("*.jpg"))
    return repeated(found, folder / "small", count)


def originals(folder: Path, count: int) -> list[Path]:
    """Return images of several megapixels: camera originals, or enlarged synthetic ones."""
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
    """Link files until there are enough, each with its own name."""
    links.mkdir(exist_ok=True)
    chosen = []
    for number, path in enumerate(islice(cycle(found), count)):
        link = links / f"p{number:06}{path.suffix}"
        if not link.exists():
            link.symlink_to(path)
        chosen.append(link)
    return chosen


def inputs(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return network inputs, N x size x size x 3."""
    input_spec = InputSpec("squash", size)
    return np.stack(
        [preprocess(read(path, shortest=size), None, input_spec).pixels for path in paths]
    )
