"""OOD statistics, from images to flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.ood import OOD_FILE, write_ood_statistics
from naevus.errors import BundleError, ConfigError, DataError, ImageError
from naevus.evaluation.ood import LIMIT, OODStatistics
from naevus.export.ood import features_of, fit_ood_statistics
from naevus.images.geometry import resize
from naevus.inference.classifier import Classifier
from naevus.inference.engines import open_engine
from naevus.inference.pipeline import ood_flags
from naevus.inference.predictor import Predictor
from naevus.inference.sheets import first_predictions
from naevus.runs.prediction_tables import Schema, join, write_part
from naevus.types import FLAGS
from tests.helpers.onnx_graphs import classification_bundle, write_classifier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


class Synthetic:
    """Return images of skin with a dark spot, by id; those named "damaged..." are unreadable."""

    def __getitem__(self, image_id: str) -> Pixels:
        if image_id.startswith("damaged"):
            raise ImageError(Path(image_id), "is damaged")
        rng = np.random.default_rng(int(image_id.rsplit(" ", 1)[-1]))
        image = np.full((40, 40, 3), rng.normal((220, 180, 160), 8)) + rng.normal(0, 4, (40, 40, 3))
        left, top = rng.integers(8, 16, 2)
        image[top : top + 16, left : left + 16] *= rng.uniform(0.3, 0.6)
        return np.clip(image, 0, 255).astype(np.uint8)


def stripes() -> Pixels:
    image = np.zeros((40, 40, 3), np.uint8)
    image[::4] = (0, 255, 0)
    return image


def ids(start: int, count: int) -> list[str]:
    return [f"image {number}" for number in range(start, start + count)]


def fitted(bundle: Bundle, number: int = 0) -> OODStatistics:
    member = bundle.classifier.members[number]
    oof = ids(1000, 100)
    groups = {image_id: image_id[:-1] for image_id in oof}
    graph = bundle.member_path(member)
    return fit_ood_statistics(graph, Synthetic(), ids(0, 200), oof, groups, size=member.input_size)


def with_ood_statistics(bundle: Bundle, ood_statistics: list[OODStatistics]) -> Bundle:
    """Return the bundle with OOD statistics."""
    path = bundle.folder.parent / f"{bundle.folder.name}-{OOD_FILE}"
    write_ood_statistics(path, ood_statistics)
    classifier = bundle.classifier.model_copy(update={"ood": OOD_FILE})
    files = {member.file: bundle.member_path(member) for member in classifier.members}
    spec = bundle.spec.model_copy(update={"classifier": classifier})
    folder = bundle.folder.with_name(f"{bundle.folder.name}-with")
    return write_bundle(folder, spec, {**files, OOD_FILE: path})


@pytest.fixture
def plain(tmp_path: Path) -> Bundle:
    return classification_bundle(tmp_path / "b", explained=True)


@pytest.fixture
def bundle(plain: Bundle) -> Bundle:
    return with_ood_statistics(plain, [fitted(plain)])


def test_features_equal_the_graph_output_at_its_input_size(plain: Bundle) -> None:
    graph = plain.member_path(plain.classifier.members[0])
    wanted = [*ids(0, 40), "damaged", *ids(40, 2)]
    reported: list[tuple[int, int]] = []
    found, read = features_of(
        graph, Synthetic(), wanted, size=32, progress=lambda *at: reported.append(at)
    )
    assert read == ids(0, 42)
    assert reported == [(32, 43), (43, 43)]
    batch = np.stack([resize(Synthetic()[image_id], 32, 32) for image_id in read])
    np.testing.assert_allclose(found, open_engine(graph).run(batch)["embedding"], rtol=1e-6)


def test_a_graph_without_embedding_has_no_statistics(tmp_path: Path) -> None:
    graph = write_classifier(tmp_path / "plain.onnx", size=32)
    with pytest.raises(BundleError, match="has no embedding"):
        features_of(graph, Synthetic(), ids(0, 3), size=32)


def test_unreadable_images_are_an_error(plain: Bundle) -> None:
    graph = plain.member_path(plain.classifier.members[0])
    with pytest.raises(DataError, match="no image is readable"):
        fit_ood_statistics(graph, Synthetic(), ids(0, 50), ["damaged"], {"damaged": "a"}, size=32)


def test_non_dermoscopic_images_are_flagged(bundle: Bundle) -> None:
    predict = Predictor(None, Classifier(bundle))
    usual, odd = predict([Synthetic()["image 5000"], stripes()])
    assert usual.ood_score is not None
    assert odd.ood_score is not None
    assert usual.ood_score < LIMIT < odd.ood_score
    assert "not_dermoscopy" not in usual.flags
    assert odd.flags["not_dermoscopy"] == FLAGS["not_dermoscopy"]
    assert f"! {FLAGS['not_dermoscopy']}" in str(odd)
    assert odd.to_dict()["ood_score"] == odd.ood_score


def test_few_new_dermoscopic_images_are_flagged(bundle: Bundle) -> None:
    pixels = [Synthetic()[image_id] for image_id in ids(6000, 150)]
    output = Predictor(None, Classifier(bundle))(pixels)
    assert sum("not_dermoscopy" in each.flags for each in output) <= 15


def test_the_score_of_an_ensemble_is_the_mean(tmp_path: Path) -> None:
    plain = classification_bundle(tmp_path / "b", explained=True, seeds=(0, 1))
    ood_statistics = [fitted(plain, 0), fitted(plain, 1)]
    classifier = Classifier(with_ood_statistics(plain, ood_statistics))
    batch = np.stack([resize(stripes(), 32, 32), resize(Synthetic()["image 1"], 32, 32)])
    own = [
        reference.ood_score(member.engine.run(batch)["embedding"])
        for reference, member in zip(ood_statistics, classifier.members, strict=True)
    ]
    assert np.ptp(own, axis=0).min() > 0.01
    reported = classifier.predictions([batch]).ood_score
    assert reported is not None
    np.testing.assert_allclose(reported, np.mean(own, axis=0))


def test_a_bundle_without_statistics_gives_no_score(plain: Bundle, bundle: Bundle) -> None:
    (output,) = Predictor(None, Classifier(plain))([stripes()])
    assert output.ood_score is None
    assert "not_dermoscopy" not in output.flags
    batch = resize(stripes(), 32, 32)[None]
    alone = Classifier(bundle).predictions([batch]).ood_score
    assert alone is not None
    both = Classifier([plain, bundle]).predictions([batch]).ood_score
    assert both is not None
    np.testing.assert_array_equal(both, alone)


def test_statistics_of_another_network_are_refused(plain: Bundle) -> None:
    rng = np.random.default_rng(0)
    learnt, oof = rng.normal(0, 1, (2, 90, 9))
    other = OODStatistics.fit(learnt, oof, [str(number) for number in range(90)])
    classifier = Classifier(with_ood_statistics(plain, [other]))
    with pytest.raises(BundleError, match=re.escape("do not fit the network (features of shape")):
        classifier.predictions([resize(stripes(), 32, 32)[None]])


def test_statistics_without_embeddings_are_refused_at_once(tmp_path: Path, plain: Bundle) -> None:
    blind = classification_bundle(tmp_path / "blind")
    with pytest.raises(ConfigError, match="statistics of training images need networks with"):
        Classifier(with_ood_statistics(blind, [fitted(plain)]))


def test_the_score_is_a_column_of_predictions(tmp_path: Path, bundle: Bundle) -> None:
    classifier = Classifier(bundle)
    (output,) = Predictor(None, classifier)([stripes()])
    about = {"classes": classifier.classes, "taxonomy": "isic2018", "coverage": None}
    schema = Schema(classifier.classes, (bundle.sha256,), about)
    write_part(tmp_path / "p.part", schema, [output.to_row()], [], {})
    join([tmp_path / "p.part"], schema.arrow(), tmp_path / "p.parquet")
    row = pq.read_table(tmp_path / "p.parquet").to_pylist()[0]
    assert row["ood_score"] == output.ood_score
    assert "not_dermoscopy" in row["quality_flags"]
    assert first_predictions(tmp_path / "p.parquet", 1)[0].ood_score == output.ood_score


@pytest.mark.parametrize(
    ("ood_score", "flags"), [(None, ()), (LIMIT, ()), (LIMIT + 1e-9, ("not_dermoscopy",))]
)
def test_scores_above_the_threshold_are_flagged(
    ood_score: float | None, flags: tuple[str, ...]
) -> None:
    assert ood_flags(ood_score) == flags
