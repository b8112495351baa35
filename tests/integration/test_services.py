"""A predictor in a service: opened, described, closed; and the log, quiet unless asked for."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest

import naevus
from naevus.cli.console import log_on_screen, warnings_on_screen
from naevus.cli.main import _guarded
from naevus.errors import ConfigError
from naevus.images.read import write_png
from naevus.io.files import sha256
from naevus.io.progress import handled
from tests.helpers.onnx_graphs import CONFORMAL, segmentation_bundle, whole_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from naevus import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("service")
    whole_bundle(made / "bundle", conformal=CONFORMAL)
    image = np.full((60, 90, 3), 220, np.uint8)
    image[20:40, 30:60] = (90, 50, 40)
    for number in range(3):
        write_png(made / "images" / f"p{number}.png", image)
    return made


USES: list[Callable[[Predictor, Path], object]] = [
    lambda predictor, folder: predictor(folder / "images" / "p0.png"),
    lambda predictor, folder: predictor([folder / "images" / "p0.png"]),
    lambda predictor, folder: next(predictor.stream(folder / "images")),
    lambda predictor, folder: predictor.to_folder(folder / "images", folder / "out"),
    lambda predictor, _: predictor.info(),
]


@pytest.mark.parametrize("use", USES)
def test_a_closed_predictor_is_an_error_with_a_remedy(
    folder: Path, use: Callable[[Predictor, Path], object]
) -> None:
    predictor = naevus.load(folder / "bundle", threads=1)
    predictor.close()
    predictor.close()
    with pytest.raises(ConfigError, match=r"this predictor is closed; load another"):
        use(predictor, folder)
    assert repr(predictor) == "<Predictor: closed>"
    assert not (folder / "out").exists()


def test_a_block_closes_it_also_after_an_error(folder: Path) -> None:
    with naevus.load(folder / "bundle", threads=1) as predictor:
        assert predictor(folder / "images" / "p0.png").predicted is not None
    with pytest.raises(ConfigError, match="closed"):
        predictor.info()
    with pytest.raises(naevus.ImageError), naevus.load(folder / "bundle", threads=1) as other:
        other(folder / "absent.png")
    assert repr(other) == "<Predictor: closed>"


def test_closing_releases_the_networks(folder: Path) -> None:
    predictor = naevus.load(folder / "bundle", threads=1)
    options = predictor._pipeline.prediction_options
    assert options.classifier is not None
    engine = weakref.ref(options.classifier.members[0].engine)
    del options
    predictor.close()
    gc.collect()
    assert engine() is None


def test_a_stream_that_has_begun_ends(folder: Path) -> None:
    predictor = naevus.load(folder / "bundle", threads=1)
    stream = predictor.stream(folder / "images")
    first = next(stream)
    predictor.close()
    assert [first.image_id, *(each.image_id for each in stream)] == ["p0", "p1", "p2"]


def test_info_says_what_predicts(folder: Path) -> None:
    predictor = naevus.load(folder / "bundle", threads=2, tta="flips", engine="openvino")
    found = predictor.info()
    assert json.loads(json.dumps(found)) == found
    digest = sha256(folder / "bundle" / "bundle.json")
    assert found["naevus_version"] == naevus.__version__
    assert found["bundles"] == {digest: str(folder / "bundle")}
    assert found["threads"] == 2
    assert found["segmentation"]["tta"] == found["classification"]["tta"] == "flips"
    assert found["classification"]["engine"] == "openvino"
    assert found["classification"]["classes"] == list(naevus.TAXONOMIES["isic2018"].codes)
    assert found["classification"]["coverage"] is None  # none with test-time augmentation
    assert naevus.load(folder / "bundle", threads=1).info()["classification"]["coverage"] == 0.9
    values = predictor(folder / "images" / "p0.png").to_dict()
    assert values["bundle_sha256"] == list(found["bundles"])
    assert values["naevus_version"] == found["naevus_version"]
    make, arguments = predictor.__reduce__()  # as another process loads it
    assert make(*arguments).info() == found


def test_info_of_a_segmenter_alone(folder: Path, tmp_path: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    found = naevus.load(tmp_path / "s", threads=1).info()
    assert found["classification"] is None
    assert len(found["segmentation"]["networks"]) == 1


QUIET = """
import sys
from pathlib import Path
import naevus
folder = Path(sys.argv[1])
with naevus.load(folder / "bundle", threads=1) as predictor:
    print_nothing = predictor(folder / "images" / "p0.png")
    predictor.to_folder(folder / "images", sys.argv[2])
    list(predictor.stream([folder / "absent.png"], errors="yield"))
    predictor.info()
naevus.load_dataset(sys.argv[3])
import logging
logging.getLogger("naevus.images").warning("quiet")
"""


def test_library_calls_print_nothing(folder: Path, tmp_path: Path, synthetic_images: Path) -> None:
    words = [folder, tmp_path / "out", synthetic_images]
    done = subprocess.run(
        [sys.executable, "-c", QUIET, *map(str, words)], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_log_is_shown_where_it_is_asked_for(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "naevus"):
        naevus.load(folder / "bundle", threads=1)
    assert any(record.name.startswith("naevus.") for record in caplog.records)


def test_a_job_leaves_the_level_of_the_log_as_it_was() -> None:
    logger = logging.getLogger("naevus")
    before = logger.level
    with handled(logging.NullHandler()):
        assert logger.isEnabledFor(logging.INFO)
    assert logger.level == before


def test_the_command_shows_warnings_of_the_log_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("naevus.images.maskfile")
    with warnings_on_screen():
        log.info("hidden")
        log.warning("%s: odd", "a.png")
        with log_on_screen():
            log.info("step 1")
            log.warning("b.png: odd")
    log.warning("c.png: odd")
    shown = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert shown == ["note: a.png: odd", "step 1", "note: b.png: odd"]


def test_every_command_shows_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    def command(line: str) -> None:
        logging.getLogger("naevus.images.maskfile").warning(line)

    _guarded(command)("a.png: odd")
    assert capsys.readouterr().err == "note: a.png: odd\n"
