"""Tiny ONNX graphs with the inputs and outputs of exported networks, and bundles of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.sample import SAMPLE_FILE, Sample, compared, sample_batch, write_sample
from naevus.bundles.spec import BundleSpec
from naevus.taxonomy import ATTRIBUTES, ISIC2018
from tests.helpers.attribute_images import COLOURS, SKIN

if TYPE_CHECKING:
    from pathlib import Path


CLASS_PRIORS = (0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02)
WEIGHTS = (1.2, 0.5, 2.0, 2.4, 1.2, 4.0, 3.5)


def write_classifier(path: Path, *, size: int, seed: int = 0, classes: int = 7) -> Path:
    """Write a graph that depends on colours, edges and positions: every D4 transform differs."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel": rng.normal(0, 0.02, (8, 3, 3, 3)),
        "bias": rng.normal(0, 0.1, 8),
        "dense": rng.normal(0, 0.02, (8 * (size // 4) ** 2, classes)),
        "scale": np.array(1 / 64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "kernel", "bias"], ["conv"], strides=[4, 4], pads=[1, 1, 0, 0]
        ),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
    ]
    return _save(path, nodes, weights, size, {"logits": ["N", classes]})


def write_explained(path: Path, *, size: int, seed: int = 0, classes: int = 7) -> Path:
    """Write a graph that pools its features, and so has class activation maps."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(0, 1, (8, classes))
    weights = {
        "kernel": rng.normal(0, 0.2, (8, 3, 3, 3)),
        "bias": rng.normal(0, 0.1, 8),
        "dense": dense,
        "places": dense.T[:, :, None, None],
        "scale": np.array(1 / 64),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "kernel", "bias"], ["conv"], strides=[4, 4], pads=[1, 1, 0, 0]
        ),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu", "axes"], ["embedding"], keepdims=0),
        helper.make_node("MatMul", ["embedding", "dense"], ["logits"]),
        helper.make_node("Conv", ["relu", "places"], ["cam"]),
    ]
    shapes = {
        "logits": ["N", classes],
        "embedding": ["N", 8],
        "cam": ["N", classes, size // 4, size // 4],
    }
    return _save(path, nodes, weights, size, shapes)


def write_segmenter(path: Path, *, size: int, seed: int = 0) -> Path:
    """Write a graph that segments dark pixels, slightly unevenly: every D4 transform differs."""
    kernel = np.zeros((1, 3, 3, 3))
    kernel[:, :, 1, 1] = -1 / 48
    kernel += np.random.default_rng(seed).normal(0, 0.0005, kernel.shape)
    weights = {"kernel": kernel, "bias": np.array([8.0]), "axis": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Squeeze", ["conv", "axis"], ["logit"]),
    ]
    return _save(path, nodes, weights, size, {"logit": ["N", size, size]})


def write_maps(path: Path, *, size: int, lesion: bool = True) -> Path:
    """Write a graph that segments attributes by the colours of `attribute_images`."""
    near, steep = 4.0, 0.01
    colours = np.array(list(COLOURS.values()), np.float64)
    skin = np.array([SKIN], np.float64)
    weights = {
        "to_colours": 2 * steep * colours[:, :, None, None],
        "apart": near - steep * (colours**2).sum(1),
        "squared": np.full((len(colours), 3, 1, 1), -steep),
        "to_skin": -2 * steep * skin[:, :, None, None],
        "apart_skin": steep * (skin**2).sum(1) - near,
        "squared_skin": np.full((1, 3, 1, 1), steep),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "planes"], ["planes_squared"]),
        helper.make_node("Conv", ["planes", "to_colours", "apart"], ["linear"]),
        helper.make_node("Conv", ["planes_squared", "squared"], ["quadratic"]),
        helper.make_node("Add", ["linear", "quadratic"], ["attributes"]),
    ]
    shapes: dict[str, list[Any]] = {"attributes": ["N", len(colours), size, size]}
    if lesion:
        nodes += [
            helper.make_node("Conv", ["planes", "to_skin", "apart_skin"], ["linear_skin"]),
            helper.make_node("Conv", ["planes_squared", "squared_skin"], ["quadratic_skin"]),
            helper.make_node("Add", ["linear_skin", "quadratic_skin"], ["unlike_skin"]),
            helper.make_node("Squeeze", ["unlike_skin", "axis"], ["logit"]),
        ]
        shapes["logit"] = ["N", size, size]
    used = {name for node in nodes for name in node.input}
    kept = {name: value for name, value in weights.items() if name in used}
    return _save(path, nodes, kept, size, shapes)


def attributes_bundle(
    folder: Path, *, size: int = 64, lesion: bool = True, **settings: Any
) -> Bundle:
    """Write a bundle with a network that segments the colours of `attribute_images`."""
    source = folder.parent / f"{folder.name}-graphs"
    source.mkdir(parents=True)
    members = [{"file": "maps.onnx", "architecture": "tiny", "input_size": size, "folds": (0,)}]
    found = {
        "members": members,
        "names": tuple(ATTRIBUTES),
        "thresholds": (0.5,) * len(ATTRIBUTES),
        "presence": ({},) * len(ATTRIBUTES),
        **settings,
    }
    segmenter = {"segmenter": {"members": members}} if lesion else {}
    spec = BundleSpec.model_validate({"attributes": found, **segmenter})
    graph = write_maps(source / "maps.onnx", size=size, lesion=lesion)
    return write_bundle(folder, spec, {"maps.onnx": graph})


def write_displaced(path: Path, *, size: int, cell: int, down: int, right: int) -> Path:
    """Write a graph whose maps are shifted by some pixels."""
    reach = max(abs(down), abs(right))
    kernel = np.zeros((3, 3, 2 * reach + 1, 2 * reach + 1))
    kernel[:, :, reach + down, reach + right] = np.random.default_rng(0).uniform(0.1, 1, (3, 3))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["moved"], pads=[reach] * 4),
        helper.make_node(
            "AveragePool", ["moved"], ["cam"], kernel_shape=[cell] * 2, strides=[cell] * 2
        ),
        helper.make_node("ReduceMean", ["cam", "axes"], ["logits"], keepdims=0),
    ]
    weights = {"kernel": kernel, "axes": np.array([2, 3], np.int64)}
    shapes = {"logits": ["N", 3], "cam": ["N", 3, size // cell, size // cell]}
    return _save(path, nodes, weights, size, shapes)


_TRAINED = {"class_weights": WEIGHTS, "class_priors": CLASS_PRIORS, "cam_offset": (0.0, 0.0)}


def classification_bundle(
    folder: Path,
    *,
    size: int = 32,
    seeds: tuple[int, ...] = (0,),
    explained: bool = False,
    **settings: Any,
) -> Bundle:
    """Write a classification bundle with one member per seed."""
    write = write_explained if explained else write_classifier
    trained = {name: settings.pop(name, value) for name, value in _TRAINED.items()}
    about = {name: settings.pop(name) for name in ("provenance", "licence") if name in settings}
    classifier = {
        "members": [
            {
                "file": f"member-{seed}.onnx",
                "architecture": "tiny",
                "input_size": size,
                **trained,
            }
            for seed in seeds
        ],
        "taxonomy": "isic2018",
        "classes": ISIC2018.codes,
        **settings,
    }
    spec = BundleSpec.model_validate({"classifier": classifier, **about})
    source = folder.parent / f"{folder.name}-graphs"
    source.mkdir(parents=True)
    files = {
        f"member-{seed}.onnx": write(
            source / f"{seed}.onnx", size=size, seed=seed, classes=len(classifier["classes"])
        )
        for seed in seeds
    }
    return write_bundle(folder, spec, files)


def segmentation_bundle(
    folder: Path, *, size: int = 48, seeds: tuple[int, ...] = (0,), **settings: Any
) -> Bundle:
    """Write a segmentation bundle with one member per seed."""
    source = folder.parent / f"{folder.name}-graphs"
    source.mkdir(parents=True)
    files = {
        f"member-{seed}.onnx": write_segmenter(source / f"{seed}.onnx", size=size, seed=seed)
        for seed in seeds
    }
    members = [
        {"file": f"member-{seed}.onnx", "architecture": "tiny", "input_size": size}
        for seed in seeds
    ]
    spec = BundleSpec.model_validate({"segmenter": {"members": members, **settings}})
    return write_bundle(folder, spec, files)


def sampled(bundle: Bundle, folder: Path, *, bf16_recommended: bool = True) -> Bundle:
    """Write a bundle again with a sample, with outputs from ONNX's reference evaluator.

    Args:
        bundle: The bundle.
        folder: Where to.
        bf16_recommended: Whether it is said to bear bf16.
    """
    from onnx.reference import ReferenceEvaluator

    members = bundle.spec.members
    pixels = np.random.default_rng(5).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    predictions = {}
    for member in members:
        model = onnx.load(bundle.member_path(member))
        found = ReferenceEvaluator(model).run(
            None, {"pixels": sample_batch(pixels, member.input_size)}
        )
        outputs = dict(zip([each.name for each in model.graph.output], found, strict=True))
        predictions[member.file] = np.ascontiguousarray(compared(outputs)).astype(np.float32)
    path = folder.parent / f"{folder.name}-{SAMPLE_FILE}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_sample(path, Sample(pixels, predictions))
    sample = {
        "file": SAMPLE_FILE,
        "answered_by": "the reference evaluator of onnx",
        "tolerances": {member.file: {"fp32": 0.01, "bf16": 0.1} for member in members},
    }
    choices = [
        {"task": task, "storage": "fp32", "precision": "bf16", "reason": "a test says so"}
        for task in bundle.spec.tasks
        if bf16_recommended
    ]
    spec = BundleSpec.model_validate(
        bundle.spec.model_dump() | {"sample": sample, "recommended": choices}
    )
    files = {member.file: bundle.member_path(member) for member in members}
    return write_bundle(folder, spec, {**files, SAMPLE_FILE: path})


def whole_bundle(folder: Path, **settings: Any) -> Bundle:
    """Write a bundle for both tasks with class activation maps."""
    source = folder.parent / f"{folder.name}-graphs"
    source.mkdir(parents=True)
    member = {"architecture": "tiny"}
    classifier = {
        "members": [{**member, "file": "names.onnx", "input_size": 32, **_TRAINED}],
        "taxonomy": "isic2018",
        "classes": ISIC2018.codes,
        "crop_mode": "crop",
        **settings,
    }
    segmentation = {"members": [{**member, "file": "segmentation.onnx", "input_size": 48}]}
    spec = BundleSpec.model_validate({"segmenter": segmentation, "classifier": classifier})
    files = {
        "names.onnx": write_explained(source / "names.onnx", size=32),
        "segmentation.onnx": write_segmenter(source / "segmentation.onnx", size=48),
    }
    return write_bundle(folder, spec, files)


def _save(
    path: Path,
    nodes: list[Any],
    weights: dict[str, Any],
    size: int,
    shapes: dict[str, list[Any]],
) -> Path:
    tensors = [
        numpy_helper.from_array(
            value if value.dtype == np.int64 else value.astype(np.float32), name
        )
        for name, value in weights.items()
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "tiny", [pixels], results, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


CONFORMAL = {
    "classes": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "coverage": 0.9,
    "thresholds": (0.1, 0.2, 0.05, 0.0, 0.3, 0.1, 0.1),
    "groups": (90, 90, 90, 3, 90, 90, 90),
}
PATIENT = {
    "classes": CONFORMAL["classes"],
    "ages": (20.0, 60.0),
    "age": ((-1.0, 1.0, 0, 0, 0, 0, 0), (1.0, -1.0, 0, 0, 0, 0, 0)),
    "sex": {"female": (0.2, 0, 0, 0, 0, 0, 0), "male": (-0.2, 0, 0, 0, 0, 0, 0)},
    "site": {"head/neck": (0, 0, 3.0, 0, 0, 0, 0), "torso": (0, 1.0, 0, 0, 0, 0, 0)},
    "conformal": {**CONFORMAL, "thresholds": (0.2, 0.3, 0.1, 0.0, 0.2, 0.2, 0.2)},
    "fitted_on": "these images",
}
