from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simplejpeg

from naevus.bundles.spec import ClassifierMember
from naevus.errors import BundleError, ConfigError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.images import preprocess
from naevus.images.geometry import box_of, d4_inverse_batch, d4_transform, resize
from naevus.images.masks import Postprocessing, at_size
from naevus.images.preprocess import LEAST, classifier_input, decode_once, decoding_side
from naevus.images.read import Limits, read, read_with_header, write_png
from naevus.inference.classifier import Classifier
from naevus.inference.ensemble import Trained, posterior
from naevus.inference.options import OutputOptions, prediction_options_of
from naevus.inference.out_of_fold import oof_logits
from naevus.inference.predictor import Predictor, load
from naevus.inference.segmenter import Segmenter
from naevus.inference.tta import TTA_TRANSFORMS
from naevus.types import TTA
from tests.helpers.mixed_inputs import mixed_bundle
from tests.helpers.onnx_graphs import (
    CLASS_PRIORS,
    WEIGHTS,
    classification_bundle,
    segmentation_bundle,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def noise(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def lesion(height: int, width: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), 220, np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = (90, 50, 40)
    return image


@pytest.mark.parametrize("tta", ["none", "half-turn", "flips", "d4"])
def test_a_classifier_averages_logits_over_transforms_and_members(tmp_path: Path, tta: TTA) -> None:
    bundle = classification_bundle(tmp_path / "b", seeds=(0, 1))
    classifier = Classifier(bundle, tta=tta)
    batch = noise(3, 32)
    by_hand = [
        member.engine.run(np.stack([d4_transform(image, k) for image in batch]))["logits"]
        for member in classifier.members
        for k in TTA_TRANSFORMS[tta]
    ]
    assert np.std(by_hand, axis=0).min() > 1e-3
    np.testing.assert_allclose(classifier.logits(batch), np.mean(by_hand, axis=0), atol=1e-5)


@pytest.mark.parametrize("tta", ["none", "half-turn", "flips", "d4"])
def test_a_segmenter_inverts_transforms_and_averages_logits(tmp_path: Path, tta: TTA) -> None:
    segmenter = Segmenter(segmentation_bundle(tmp_path / "b", seeds=(0, 1)), tta=tta)
    image = noise(1, 48)[0]
    by_hand = [
        d4_inverse_batch(member.engine.run(d4_transform(image, k)[None])["logit"], k)[0]
        for member in segmenter.members
        for k in TTA_TRANSFORMS[tta]
    ]
    mean = np.mean(by_hand, axis=0)
    np.testing.assert_allclose(segmenter.logits(image[None])[0], mean, atol=1e-5)


def test_predictions_with_d4_do_not_depend_on_orientation(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "c"), tta="d4")
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"), tta="d4")
    image = noise(1, 48)[0]
    small = noise(1, 32)[0]
    for k in range(8):
        np.testing.assert_allclose(
            classifier.logits(d4_transform(small, k)[None]),
            classifier.logits(small[None]),
            atol=1e-4,
        )
        np.testing.assert_allclose(
            d4_inverse_batch(segmenter.logits(d4_transform(image, k)[None]), k)[0],
            segmenter.logits(image[None])[0],
            atol=1e-4,
        )


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    postprocessing = {"threshold": 0.5, "largest": False, "holes": False, "smooth": 0.0}
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s", postprocessing=postprocessing))
    sure = np.array([[-1e4, -90, -1e-3, 1e-3, 90, 1e4]], np.float32)
    assert segmenter.mask_of(sure, 1, 6).tolist() == [[False, False, False, True, True, True]]


@pytest.mark.parametrize(("height", "width"), [(96, 144), (144, 96), (40, 60), (48, 48)])
def test_masks_cover_the_image_at_its_own_size(tmp_path: Path, height: int, width: int) -> None:
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"))
    box = (0, height // 4, width // 2, height)  # reaches a corner
    mask = segmenter.mask(lesion(height, width, box))
    assert mask.shape == (height, width)
    found = box_of(mask)
    assert found is not None
    np.testing.assert_allclose(found, box, atol=3)
    assert mask[-1, 0]


def test_probabilities_are_resized_before_postprocessing(tmp_path: Path) -> None:
    postprocessing = {"threshold": 0.7, "largest": True, "holes": False, "smooth": 0.02}
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s", postprocessing=postprocessing))
    logit = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
    probability = np.float32(1) / (np.float32(1) + np.exp(-logit))
    np.testing.assert_array_equal(
        segmenter.mask_of(logit, 200, 300),
        at_size(probability, 200, 300, Postprocessing(0.7, largest=True, holes=False, smooth=0.02)),
    )


def test_maps_have_the_size_of_the_largest_member(tmp_path: Path) -> None:
    small = segmentation_bundle(tmp_path / "small", size=32)
    large = segmentation_bundle(tmp_path / "large", size=48, seeds=(1,))
    image = lesion(90, 120, (30, 20, 90, 70))
    both = Segmenter([small, large])
    assert both.size == 48
    batches = [array[None] for array in both.preprocess(image)]
    assert [batch.shape for batch in batches] == [(1, 32, 32, 3), (1, 48, 48, 3)]
    expected = (
        resize(Segmenter(small).logits(batches[0])[0], 48, 48)
        + Segmenter(large).logits(batches[1])[0]
    ) / 2
    np.testing.assert_allclose(both.logits(batches)[0], expected, atol=1e-5)


def test_a_classifier_corrects_for_weights_and_priors(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "c", seeds=(0, 1), temperature=1.5))
    batch = noise(4, 32)
    prediction = classifier.predictions(batch)
    z = classifier.logits(batch)
    np.testing.assert_allclose(prediction.logits, z)
    np.testing.assert_allclose(
        prediction.natural, np.exp(natural_log_probabilities(z, WEIGHTS, 1.5)), atol=1e-6
    )
    np.testing.assert_allclose(
        prediction.balanced,
        np.exp(balanced_log_probabilities(z, WEIGHTS, CLASS_PRIORS, 1.5)),
        atol=1e-6,
    )
    assert prediction.members.shape == (4, 2, 7)
    np.testing.assert_allclose(prediction.members.sum(axis=2), 1)


def test_each_member_of_an_ensemble_is_corrected_by_its_own_weights() -> None:
    # Two equivalent networks, trained with different class weights and priors.
    weights = np.array([[1, 1, 1], [4, 0.5, 2]], float)
    class_priors = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]])
    truth = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    logits = [(np.log(truth * w) + 3).astype(np.float32) for w in weights]
    members = [
        ClassifierMember(
            file="a.onnx",
            architecture="tiny",
            input_size=8,
            class_weights=tuple(weights[number]),
            class_priors=tuple(class_priors[number]),
        )
        for number in range(2)
    ]
    prediction = posterior(logits, [Trained(member, 1.0) for member in members])
    np.testing.assert_allclose(prediction.natural, truth, atol=1e-6)
    fair = truth / class_priors[0]
    np.testing.assert_allclose(
        prediction.balanced, fair / fair.sum(axis=1, keepdims=True), atol=1e-6
    )


def test_members_get_their_own_input_specs(tmp_path: Path) -> None:
    full = classification_bundle(tmp_path / "full", size=32, crop_mode="full")
    crop = classification_bundle(tmp_path / "crop", size=24, crop_mode="crop")
    both = Classifier([full, crop])
    assert [(input_spec.mode, input_spec.size) for input_spec in both.input_specs] == [
        ("full", 32),
        ("crop", 24),
    ]
    image = tmp_path / "p.png"
    write_png(image, lesion(90, 120, (40, 30, 70, 60)))
    mask = np.zeros((90, 120), bool)
    mask[30:60, 40:70] = True
    cut = classifier_input(image, mask, both.input_specs)
    assert cut.mode == "crop"
    batches = [square[None] for square in cut.inputs]
    single = [Classifier(full).logits(batches[0]), Classifier(crop).logits(batches[1])]
    np.testing.assert_allclose(both.logits(batches), np.mean(single, axis=0), atol=1e-6)
    with pytest.raises(ConfigError, match="1 batches for 2 input specs"):
        both.logits(batches[0])


def test_members_of_one_bundle_can_differ_in_their_crop(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "both", seeds=(0, 1), crop_mode="crop")
    mixed = mixed_bundle(bundle, tmp_path / "mixed", 0, "full")
    assert mixed.classifier.crop_modes == ("full", "crop")
    classifier = Classifier(mixed)
    assert classifier.needs_mask
    assert [each.mode for each in classifier.input_specs] == ["full", "crop"]
    image, mask = lesion(90, 120, (40, 30, 70, 60)), np.zeros((90, 120), bool)
    mask[30:60, 40:70] = True
    cut = classifier_input(image, mask, classifier.input_specs)
    # The crop is written and named, not the centre square of the first member.
    assert cut.mode == "crop"
    np.testing.assert_array_equal(cut.crop, cut.inputs[1])
    assert not np.array_equal(cut.crop, cut.inputs[0])
    found = classifier.logits([square[None] for square in cut.inputs])
    single = []
    for number, mode in enumerate(("full", "crop")):
        own = Classifier(classification_bundle(tmp_path / mode, seeds=(number,), crop_mode=mode))
        batch = classifier_input(image, mask, own.input_specs).inputs[0]
        single.append(own.logits(batch[None]))
    assert not np.allclose(single[0], single[1])
    np.testing.assert_allclose(found, np.mean(single, axis=0), atol=1e-6)
    segmenter = Segmenter(segmentation_bundle(tmp_path / "masks"))
    alone = prediction_options_of(segmenter, classifier, OutputOptions(only="crops"))
    assert [each.mode for each in alone.input_specs] == ["crop"]
    # Without a lesion, all of them see the centre square.
    assert classifier_input(image, None, classifier.input_specs).mode == "full"
    with pytest.raises(ConfigError, match=r"differ in their input \(full, crop\)"):
        oof_logits(mixed, {}, [])


def test_bundles_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    seven = classification_bundle(tmp_path / "seven")
    three = classification_bundle(
        tmp_path / "three",
        taxonomy=None,
        classes=("A", "B", "C"),
        class_weights=(1, 1, 1),
        class_priors=(0.2, 0.2, 0.6),
    )
    masks = segmentation_bundle(tmp_path / "masks")
    other = segmentation_bundle(tmp_path / "other", postprocessing={"threshold": 0.4})
    with pytest.raises(ConfigError, match="differ in classes"):
        Classifier([seven, three])
    with pytest.raises(BundleError, match="has no classifier"):
        Classifier([seven, masks])
    with pytest.raises(ConfigError, match="differ in postprocessing"):
        Segmenter([masks, other])
    with pytest.raises(ConfigError, match="no segmentation bundle"):
        Segmenter([])
    with pytest.raises(ConfigError, match="unknown TTA mode"):
        Segmenter(masks, tta="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shape"):
        Segmenter(masks).logits(noise(1, 32))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"engine": "foo"}, "unknown engine 'foo'; use one of openvino, onnxruntime"),
        ({"engine": "Onnxruntime"}, "unknown engine 'Onnxruntime'"),
        ({"engine": ""}, "unknown engine ''"),
        ({"precision": "FP32"}, "unknown precision 'FP32'; use one of fp32, bf16"),
        ({"tta": "D4"}, "unknown TTA mode 'D4'; use one of none, half-turn, flips, d4"),
        ({"threads": -1}, "-1 threads; use 1 or more"),
        ({"threads": 0}, "0 threads; use 1 or more"),
        ({"streams": 0}, "0 streams; use 1 or more"),
        ({"streams": -2}, "-2 streams; use 1 or more"),
    ],
)
def test_unknown_options_are_refused_on_loading(
    options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    bundle = segmentation_bundle(tmp_path / "b")
    with pytest.raises(ConfigError, match=problem):
        load(bundle.folder, **options)


def test_a_stream_refuses_unknown_ways_to_treat_errors(tmp_path: Path) -> None:
    predictor = Predictor(Segmenter(segmentation_bundle(tmp_path / "b"), threads=1), None)
    with pytest.raises(ConfigError, match="unknown errors 'Raise'; use one of raise, yield"):
        next(predictor.stream(["absent.jpg"], errors="Raise"))  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="0 threads"):
        Predictor(Segmenter(segmentation_bundle(tmp_path / "c"), threads=1), None, threads=0)


def test_a_graph_with_outputs_of_another_shape_is_refused(tmp_path: Path) -> None:
    three = classification_bundle(
        tmp_path / "three",
        taxonomy=None,
        classes=("A", "B", "C"),
        class_weights=(1, 1, 1),
        class_priors=(0.2, 0.2, 0.6),
    )
    classifier = Classifier(three)
    classifier.classes = ("A", "B")
    with pytest.raises(BundleError, match=r"\(2, 3\) instead of \(2, 2\)"):
        classifier.logits(noise(2, 32))


def test_one_image_through_the_whole_pipeline(tmp_path: Path) -> None:
    image = tmp_path / "lesion.png"
    write_png(image, lesion(120, 180, (60, 30, 120, 90)))
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"))
    classifier = Classifier(classification_bundle(tmp_path / "c", crop_mode="crop", seeds=(0, 1)))
    prediction = Predictor(segmenter, classifier)(image)
    assert prediction.image_id == "lesion"
    assert prediction.mask is not None
    assert prediction.mask.shape == (120, 180)
    np.testing.assert_array_equal(
        prediction.mask, segmenter.mask(lesion(120, 180, (60, 30, 120, 90)))
    )
    assert prediction.box == box_of(prediction.mask)
    assert prediction.crop_mode == "crop"
    assert prediction.members is not None
    assert (
        tuple(prediction.probabilities)
        == tuple(prediction.balanced_probabilities)
        == classifier.classes
    )
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    greatest = max(prediction.probabilities.values())
    assert prediction.probabilities[prediction.predicted or ""] == greatest
    assert prediction.predicted_balanced in classifier.classes
    assert prediction.confidence == pytest.approx(greatest)
    assert prediction.members.shape == (2, 7)
    assert (prediction.prediction_set, prediction.coverage, prediction.heatmap) == (None,) * 3
    assert list(prediction.flags) == []


def test_no_lesion_is_flagged_and_the_crop_falls_back(tmp_path: Path) -> None:
    image = tmp_path / "skin.png"
    write_png(image, np.full((60, 90, 3), 230, np.uint8))
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"))
    classifier = Classifier(classification_bundle(tmp_path / "c", crop_mode="blank"))
    prediction = Predictor(segmenter, classifier)(image)
    assert ("empty_mask" in prediction.flags, prediction.crop_mode, prediction.box) == (
        True,
        "full",
        None,
    )
    write_png(image, np.full((60, 90, 3), 20, np.uint8))
    prediction = Predictor(segmenter, classifier)(image)
    assert ("implausible_mask" in prediction.flags, prediction.crop_mode) == (True, "full")
    assert {"dark", "cut_by_border"} <= set(prediction.flags)


def test_masks_alone_and_diagnoses_alone(tmp_path: Path) -> None:
    image = tmp_path / "p.png"
    write_png(image, lesion(60, 60, (10, 10, 40, 40)))
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"))
    alone = Predictor(segmenter, None)(image)
    assert alone.mask is not None
    assert (alone.probabilities, alone.crop_mode) == ({}, None)
    assert (alone.predicted, alone.predicted_balanced, alone.confidence, alone.heatmap) == (
        None,
    ) * 4
    full = Predictor(None, Classifier(classification_bundle(tmp_path / "f")))(image)
    assert (full.mask, full.crop_mode) == (None, "full")
    cropping = Classifier(classification_bundle(tmp_path / "c", crop_mode="crop"))
    with pytest.raises(ConfigError, match="needs crops"):
        Predictor(None, cropping)
    with pytest.raises(ConfigError, match="no bundle"):
        Predictor(None, None)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Count the decodings, by the shorter side that was asked for."""
    asked: list[int | None] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(path: Path, *, shortest: int | None, limits: Limits) -> Any:
            asked.append(shortest)
            return function(path, shortest=shortest, limits=limits)

        return counting

    for function in (read, read_with_header):
        monkeypatch.setattr(preprocess, function.__name__, counted(function))
    return asked


def photograph(path: Path, height: int, width: int, box: tuple[int, int, int, int]) -> None:
    image = lesion(height, width, box)
    encoded = simplejpeg.encode_jpeg(image, quality=95)
    path.write_bytes(encoded)


@pytest.mark.parametrize(
    ("mode", "box", "again"),
    [
        ("full", (300, 200, 420, 300), False),
        (
            "crop",
            (60, 40, 560, 380),
            False,
        ),  # nearly the whole image: large enough
        ("crop", (300, 200, 420, 300), True),
    ],
)
def test_an_image_is_decoded_once_unless_its_lesion_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str,
    box: tuple[int, int, int, int], again: bool,
) -> None:  # fmt: skip
    image = tmp_path / "p.jpg"
    photograph(image, 420, 620, box)
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s", size=48))
    classifier = Classifier(classification_bundle(tmp_path / "c", size=96, crop_mode=mode))
    asked = counted(monkeypatch)
    prediction = Predictor(segmenter, classifier)(image)
    assert prediction.crop_mode == mode
    assert asked == [
        LEAST,
        *([decoding_side(prediction.mask, classifier.input_specs[0])] if again else []),
    ]


@pytest.mark.parametrize("radius", [150, 40])
def test_the_crop_is_as_fine_as_in_training(tmp_path: Path, radius: int) -> None:
    image = tmp_path / "p.jpg"
    rows, columns = np.mgrid[:420, :620]
    distance = np.hypot(rows - 210, columns - 310)
    waves = 130 + 90 * np.tanh((distance - radius) / 20) + 30 * np.sin(columns / 25)
    grey = np.clip(waves, 0, 255).astype(np.uint8)
    image.write_bytes(simplejpeg.encode_jpeg(np.dstack([grey] * 3), quality=95))
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s", size=128))
    input_specs = Classifier(
        classification_bundle(tmp_path / "c", size=96, crop_mode="crop")
    ).input_specs
    first = decode_once(image, segmenter, keep=True)
    (kept,) = classifier_input(image, distance < radius, input_specs, first=first).inputs
    (fresh,) = classifier_input(image, distance < radius, input_specs).inputs
    assert (kept == fresh).all() == (radius == 40)  # the small one is read again
    assert np.abs(kept.astype(int) - fresh).mean() < 4
    assert kept.astype(float).std() > 0.97 * fresh.astype(float).std()


def test_an_image_of_another_format_is_kept_whole_and_a_vast_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "p.png"
    write_png(image, lesion(300, 400, (150, 100, 190, 140)))
    segmenter = Segmenter(segmentation_bundle(tmp_path / "s"))
    first = decode_once(image, segmenter, keep=True)
    assert first.fine_for(10_000) is first.pixels is not None  # there is no higher resolution
    assert decode_once(image, segmenter).pixels is None
    monkeypatch.setattr(preprocess, "KEPT", 300 * 400 * 3 // 4)
    reduced = decode_once(image, segmenter, keep=True)
    assert reduced.pixels is not None
    assert reduced.pixels.shape == (150, 200, 3)
    assert reduced.fine_for(120) is reduced.pixels  # with a quarter to spare
    assert reduced.fine_for(121) is None
