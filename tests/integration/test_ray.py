"""Prediction on Ray: the files of one process, also when actors die and in object stores."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer
from pyarrow import fs
from typer.testing import CliRunner

from naevus.bundles.bundle import Bundle
from naevus.cli.predict import predict
from naevus.datasets.sources import remote_images
from naevus.errors import ConfigError, NaevusError
from naevus.images.preprocess import ImageFiles
from naevus.images.read import Limits, write_png
from naevus.inference import ray as on_ray
from naevus.inference.backends import Done, Here, Todo
from naevus.inference.classifier import Classifier
from naevus.inference.options import OutputOptions, prediction_options_of
from naevus.inference.segmenter import Segmenter
from naevus.io.extras import how_to_install
from naevus.io.stores import Store
from naevus.runs.predictions import PredictionsFolder, key_of
from tests.helpers import ROOT
from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle
from tests.helpers.ray_actors import actors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

COUNT = 23


def call(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(predict)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, bundles and the predictions of one process."""
    root = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        image = rng.integers(100, 250, (40, 60, 3), dtype=np.uint8)
        image[10:30, 10:40] = 40
        write_png(root / "images" / f"p{number:02d}.png", image)
    (root / "images" / "p05.png").write_bytes(b"no image")
    (root / "images" / "p06.png").write_bytes(b"")
    segmentation_bundle(root / "s")
    classification_bundle(root / "c", crop_mode="crop", explained=True)
    assert on_images(root, root / "here").exit_code == 1
    return root


def on_images(root: Path, out: object, *more: object, images: object = None) -> Result:
    return call(*_words(root, images or root / "images", out), *more)


def _words(root: Path, images: object, out: object) -> list[object]:
    return [
        images, "--bundle", root / "s", "--bundle", root / "c", "--engine", "openvino",
        "--precision", "fp32", "--batch-size", 2, "--embeddings", "--heatmaps", "--threads", 1,
        "--out", out,
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# What needs no Ray.


def claimed(root: Path, out: Path) -> tuple[PredictionsFolder, Any]:
    options = prediction_options_of(
        Segmenter(Bundle.read(root / "s"), threads=1),
        Classifier(Bundle.read(root / "c"), threads=1),
        OutputOptions(heatmaps=True, embeddings=True, batch_size=2),
    )
    folder = PredictionsFolder(out)
    folder.create()
    folder.claim(options.settings())
    return folder, options


def planned(folder: PredictionsFolder, options: Any, **changes: Any) -> Any:
    backend: Any = on_ray.RayBackend.__new__(on_ray.RayBackend)
    backend._store, backend._threads = changes.get("store"), 1
    return backend._plan(folder, options, Limits())


def rows_of(key: str, *paths: Path) -> pa.Table:
    row = {"key": key, "ids": [path.stem for path in paths], "files": list(map(str, paths))}
    return on_ray._read_files(pa.Table.from_pylist([row]), Limits().file_bytes)


def test_an_actor_writes_what_one_process_writes(made: Path, tmp_path: Path) -> None:
    paths = [made / "images" / f"p{number:02d}.png" for number in (4, 5, 6, 99)]
    images = [ImageFiles(path.stem, path) for path in paths]
    key = key_of(images, Limits())
    folder, options = claimed(made, tmp_path / "actor")
    actor = on_ray._Actor(planned(folder, options))
    done = actor(rows_of(key, *paths)).to_pylist()
    assert done == [{"key": key, "part": key, "images": 4}]
    other, _ = claimed(made, tmp_path / "here")
    assert list(Here(1).predict([Todo(key, images)], other, options, Limits())) == [
        Done(key, key, 4)
    ]
    assert contents(tmp_path / "actor") == contents(tmp_path / "here")


def test_a_file_that_changes_is_read_again_by_the_next_job(made: Path, tmp_path: Path) -> None:
    folder, options = claimed(made, tmp_path / "actor")
    rows = rows_of("as it was before", made / "images" / "p04.png")
    (done,) = on_ray._Actor(planned(folder, options))(rows).to_pylist()
    assert done["part"] != done["key"]
    assert folder.part(done["part"]).exists()


def test_an_actor_with_other_networks_is_refused(made: Path, tmp_path: Path) -> None:
    folder, options = claimed(made, tmp_path / "out")
    plan = planned(folder, options)
    plan.settings["classifier"]["bundles"] = ["other"]
    with pytest.raises(NaevusError, match="would predict with other settings; install the same"):
        on_ray._Actor(plan)


def test_an_actor_writes_to_a_store(made: Path, tmp_path: Path) -> None:
    folder, options = claimed(made, tmp_path / "out")
    store = Store.of(f"file://{tmp_path}/store")
    path = made / "images" / "p04.png"
    key = key_of([ImageFiles("p04", path)], Limits())
    on_ray._Actor(planned(folder, options, store=store))(rows_of(key, path))
    found = contents(tmp_path / "store")
    names = {f".parts/{key}.part", f".parts/embeddings/{key}.part"}
    images = {"masks/p04_segmentation.png", "crops/p04.png", "heatmaps/p04.png"}
    assert found.keys() == names | images
    for name in names:
        store.download(name, folder.root / name)
    assert folder.is_done(key, ["p04"], [], embeddings=True)  # the images' files are elsewhere


def test_images_of_a_store_are_named_like_those_of_a_folder(made: Path) -> None:
    (made / "images" / "p00_segmentation.png").touch()
    try:
        found = remote_images([Store.of(f"file://{made}/images")])
    finally:
        (made / "images" / "p00_segmentation.png").unlink()
    assert [each.image_id for each in found.sources] == [f"p{n:02d}" for n in range(COUNT)]
    assert found.left_out == {"masks": 1}


def test_a_remote_file_that_cannot_be_read_fails_with_its_address() -> None:
    content, problem = on_ray._read_file("nowhere://bucket/a.jpg", 10)
    assert content is None
    assert problem is not None
    assert "this kind of address is not supported" in problem
    given = on_ray._input("a", "s3://bucket/a.jpg", None, "does not exist")
    assert str(given.problem).endswith("does not exist; check the address and its permissions")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["s3://bucket/photos"], "is not a place on this machine; use --backend ray"),
        (["photos", "--out", "s3://bucket/out"], "s3://bucket/out is not a place on this machine"),
        (["photos", "--address", "host:1"], "--address names a cluster of Ray"),
        (["s3://bucket/a", "photos", "--backend", "ray"], "is in a store, and other images are"),
        (["s3://bucket/a", "--split", "test", "--backend", "ray"], "without --split"),
    ],
)
def test_options_that_do_not_fit_stores_are_refused(arguments: list[str], problem: str) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)


def test_ray_is_an_extra(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = on_images(made, tmp_path / "out", "--backend", "ray")
    assert isinstance(result.exception, ConfigError)
    assert how_to_install("ray") in str(result.exception)
    assert not (tmp_path / "out").exists()


# What needs Ray.


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local Ray for all tests of the module."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    found = on_ray.import_ray(local=True)
    found.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield found
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_writes_what_one_process_writes(made: Path, tmp_path: Path, ray: Any) -> None:
    assert ray.is_initialized()
    result = on_images(made, tmp_path / "out", "--backend", "ray")
    assert result.exit_code == 1, result.output
    assert contents(tmp_path / "out") == contents(made / "here")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".parts").iterdir()}
    again = on_images(made, tmp_path / "out", "--backend", "ray")
    assert f"{COUNT} of them were predicted by an earlier job" in again.output
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".parts").iterdir()}
    assert before == after


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_actors_that_die_lose_nothing(
    made: Path, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    fetch = on_ray.RayBackend._fetch

    def fetched(self: Any, folder: Any, key: str, *, embeddings: bool) -> None:
        fetch(self, folder, key, embeddings=embeddings)
        if not killed:
            killed.extend(actors()[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(on_ray.RayBackend, "_fetch", fetched)
    result = on_images(made, tmp_path / "out", "--backend", "ray")
    assert result.exit_code == 1, result.output
    assert killed
    assert contents(tmp_path / "out") == contents(made / "here")


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the address of a cluster of its own, on this machine alone, and its environment."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    port, paths = _free_port(), os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    environment = {
        **os.environ, "PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    words = ("--head", "--block", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # sockets need short paths
        running = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", *words, f"--port={port}",
             "--num-cpus=2", f"--temp-dir={folder}"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait_for(port)
            yield f"127.0.0.1:{port}", environment
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@pytest.mark.slow
def test_a_running_cluster_is_used(
    made: Path, tmp_path: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    address, environment = cluster
    words = [*_words(made, made / "images", tmp_path / "out"), "--backend", "ray"]
    found = subprocess.run(
        [sys.executable, "-m", "naevus", "predict", *map(str, words), "--address", address],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    assert contents(tmp_path / "out") == contents(made / "here")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a server of moto, with its credentials in the environment.

    It has an environment of its own: it does not accept the tested python-dateutil.
    """
    server = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if server is None:
        pytest.skip("moto_server is not installed (make test-s3)")
    port = _free_port()
    with (tmp_path / "moto.log").open("wb") as log:
        running = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            _wait_for(port)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            yield f"127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait()


def _wait_for(port: int, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < ends
            time.sleep(0.1)
        else:
            return


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_object_store_is_read_and_written(made: Path, tmp_path: Path, object_store: str) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    fs.S3FileSystem(
        endpoint_override=object_store, scheme="http", allow_bucket_creation=True
    ).create_dir("bucket")
    images = Store.of("s3://bucket/photos")
    for path in sorted((made / "images").iterdir()):
        images.upload(path, path.name)
    for _ in range(2):
        result = on_images(made, "s3://bucket/out", "--backend", "ray", images="s3://bucket/photos")
        assert result.exit_code == 1, result.output
    assert f"{COUNT} of them were predicted by an earlier job" in result.output
    out = Store.of("s3://bucket/out")
    for name in ("predictions.parquet", "failed.csv"):
        assert out.download(name, tmp_path / name)
    here = pd.read_parquet(made / "here" / "predictions.parquet")
    there = pd.read_parquet(tmp_path / "predictions.parquet")
    assert there["path"].str.startswith("s3://bucket/photos/").all()
    pd.testing.assert_frame_equal(there.drop(columns="path"), here.drop(columns="path"))
    masks = {file.name for file in out.listing() if "/masks/" in file.url}
    assert masks == {path.name for path in (made / "here" / "masks").iterdir()}
