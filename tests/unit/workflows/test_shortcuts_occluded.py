"""Embeddings of pictures whose lesion is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.errors import ConfigError, DataError
from naevus.images.geometry import resize
from naevus.images.preprocess import Source
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.workflows.shortcuts import HOLE_SIDE, WAYS, hidden_features, hiding_of
from tests.helpers.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.bundles.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return classification_bundle(
        tmp_path_factory.mktemp("hidden") / "c", crop_mode="crop", explained=True
    )


def draw(folder: Path, name: str, lesion: tuple[int, int, int], place: int = 24) -> Source:
    """A picture of even skin with a square lesion, and its mask."""
    mask = np.zeros((64, 80), bool)
    mask[place : place + 16, place + 8 : place + 24] = True
    picture = np.where(mask[:, :, None], lesion, (220, 190, 180)).astype(np.uint8)
    write_png(folder / f"{name}.png", picture)
    write_png(folder / f"{name}_mask.png", mask)
    return Source(name, folder / f"{name}.png", folder / f"{name}_mask.png")


def test_a_hidden_lesion_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    sources = [draw(tmp_path, "dark", (40, 20, 20)), draw(tmp_path, "red", (200, 30, 40))]
    moved: list[tuple[int, int]] = []
    found = hidden_features(
        bundle, sources[::-1], hiding_of(sources), progress=lambda *at: moved.append(at)
    )
    assert found.ids == ["dark", "red"]
    assert tuple(found.embeddings) == WAYS
    assert moved == [(2, 2)]
    whole = found.embeddings["whole"]
    assert np.abs(whole[0] - whole[1]).max() > 0.1
    for way in WAYS[1:]:
        dark, red = found.embeddings[way]
        np.testing.assert_allclose(dark, red, atol=1e-4)


def test_the_network_sees_the_centre_square(bundle: Bundle, tmp_path: Path) -> None:
    source = draw(tmp_path, "a", (40, 20, 20))
    found = hidden_features(bundle, [source], hiding_of([source]))
    square = resize(read(source.path)[:, 8:72], 32, 32)
    outputs = Classifier(bundle).members[0].engine.run(square[None])
    np.testing.assert_allclose(found.embeddings["whole"], outputs["embedding"], atol=1e-5)


def test_one_hole_is_the_same_wherever_a_lesion_lies(bundle: Bundle, tmp_path: Path) -> None:
    sources = [draw(tmp_path, f"p{place}", (40, 20, 20), place) for place in (20, 24, 28)]
    hiding = hiding_of(sources)
    assert hiding.hole.shape == (HOLE_SIDE, HOLE_SIDE)
    assert "p24" in hiding.fits
    found = hidden_features(bundle, sources, hiding)
    fitting = [found.ids.index(name) for name in hiding.fits]
    for way in ("common hole", "border ring"):
        for row in fitting:
            np.testing.assert_allclose(
                found.embeddings[way][row], found.embeddings[way][fitting[0]], atol=1e-4
            )
    blanked = found.embeddings["blanked"]
    np.testing.assert_allclose(blanked[0], blanked[2], atol=1e-4)  # even skin has one colour


def test_pictures_without_a_plausible_mask_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    good, empty, broken = (draw(tmp_path, name, (40, 20, 20)) for name in ("a", "b", "c"))
    assert empty.mask_path is not None
    write_png(empty.mask_path, np.zeros((64, 80), bool))
    broken.path.write_bytes(b"")
    found = hidden_features(bundle, [good, empty, broken], hiding_of([good, empty, broken]))
    assert found.ids == ["a"]
    with pytest.raises(DataError, match="no picture has a plausible mask"):
        hidden_features(bundle, [empty], hiding_of([empty]))


def test_a_graph_without_embedding_is_told(tmp_path: Path) -> None:
    source = draw(tmp_path, "a", (40, 20, 20))
    plain = classification_bundle(tmp_path / "plain")
    with pytest.raises(ConfigError, match="give 'embedding'"):
        hidden_features(plain, [source], hiding_of([source]))
