"""The examples in docstrings give the shown output."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import simplejpeg

from naevus.datasets.synthetic.photograph import draw_lesion
from tests.helpers import ROOT
from tests.helpers.onnx_graphs import whole_bundle
from tests.helpers.tables import classification_run

SOURCE = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory, synthetic_images: Path) -> Path:
    """A folder with the files of the examples: a bundle, an image, a data set, and a run."""
    folder = tmp_path_factory.mktemp("examples")
    whole_bundle(folder / "bundle")
    image, _ = draw_lesion("NV", 5, size=160)
    (folder / "lesion.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=95))
    (folder / "ISIC2018").symlink_to(synthetic_images)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        classification_run(Path("runs/cls"), Path("ISIC2018"))
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_their_output(
    name: str, training_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(training_data)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(import_module(name)):
        runner.run(example, out=output.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(output)


def test_central_modules_have_examples() -> None:
    assert {
        "naevus.datasets.folds",
        "naevus.evaluation.priors",
        "naevus.evaluation.intervals",
        "naevus.images.preprocess",
        "naevus.images.geometry",
        "naevus.inference.prediction",
        "naevus.inference.predictor",
        "naevus.datasets.layouts",
        "naevus.runs.comparison",
        "naevus.runs.evaluate",
        "naevus.runs.run",
        "naevus.taxonomy",
    } <= set(MODULES)
