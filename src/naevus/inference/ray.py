"""Predict on Ray: tasks read files, and actors that hold the networks write the parts of a job.

Ray Data streams batches from the tasks to the actors and holds the reading back when these are
busy, so that memory does not grow with the number of images. An actor that is lost is started
again, and its batches are predicted again: a part is written whole, under a name that follows from
its images, so nothing is lost or written twice.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import pyarrow as pa

from naevus.bundles.bundle import find_bundles
from naevus.errors import ConfigError, ImageError, NaevusError
from naevus.images.preprocess import ImageFiles
from naevus.images.read import ImageBytes, Limits
from naevus.inference.backends import Done, write_parts
from naevus.inference.engines import streams_for
from naevus.inference.inputs import ImageInput
from naevus.inference.networks import open_networks
from naevus.inference.pipeline import Pipeline
from naevus.io.extras import how_to_install
from naevus.io.parallel import Workers, thread_count
from naevus.io.stores import RemoteFile, Store, url_of
from naevus.runs.predictions import SETTINGS, PredictionsFolder, key_after
from naevus.types import EngineChoice, FailedImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from naevus.images.preprocess import ImageData
    from naevus.inference.backends import Todo
    from naevus.inference.options import PredictionOptions
    from naevus.inference.prediction import Prediction

_READING: Final = 0.1
"""Fraction of each actor's processors that is left to the tasks that read."""
_BLOCK: Final = 32 * 2**20
"""Bytes that a reading task gathers before it hands them on."""
_STORE: Final = 512 * 2**20
"""Bytes of a local Ray's object store, which holds the files between reading and predicting."""
_BLOCKS: Final = 4096
"""The largest number of reading tasks; each reads several batches in larger jobs."""
_FILES: Final = pa.schema(
    [
        ("key", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("files", pa.list_(pa.string())),
        ("contents", pa.list_(pa.large_binary())),
        ("problems", pa.list_(pa.string())),
    ]
)
"""A batch in a row. A file that could not be read has a problem in place of its content."""
_DONE: Final = pa.schema([("key", pa.string()), ("part", pa.string()), ("images", pa.int64())])


@dataclass(frozen=True)
class _Plan:
    """What an actor needs to know of a job.

    Attributes:
        bundles: The folders of the bundles.
        settings: The settings that the actor's networks must have.
        choice: The engine.
        options: The options of the job without its networks, which each actor opens.
        diagnose: Whether to classify.
        attributes: Whether to predict attributes.
        root: The job's folder; None if the results go to a store.
        store: The address of the store.
        threads: Threads of the actor.
        limits: Limits that are checked before decoding.
    """

    bundles: tuple[str, ...]
    settings: dict[str, Any]
    choice: EngineChoice
    options: PredictionOptions
    diagnose: bool
    attributes: bool
    root: str | None
    store: str | None
    threads: int
    limits: Limits


class RayBackend:
    """Predicts on Ray's actors; use it for one job.

    Args:
        address: A running cluster, ``HOST:PORT``; None: a local Ray that listens on 127.0.0.1
            alone and ends with the job. Its usage statistics and dashboard are off.
        threads: Threads of each actor.
        store: Where to write; None: into the job's folder, which all machines must see.
        processors: Processors to use; None: all of the cluster or machine.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        threads: int = 1,
        store: Store | None = None,
        processors: int | None = None,
    ) -> None:
        self._ray = import_ray(local=address is None)
        self._address, self._processors = address, processors
        self._threads = thread_count(threads)
        self._store = store

    @property
    def keeps_files(self) -> bool:
        """Whether masks and crops are written into the job's folder."""
        return self._store is None

    def predict(
        self,
        todo: Sequence[Todo],
        folder: PredictionsFolder,
        options: PredictionOptions,
        limits: Limits,
    ) -> Iterator[Done]:
        """Predict batches in any order.

        Raises:
            NaevusError: Ray cannot be reached or fails, or an actor cannot open the networks.
        """
        if self._store is not None:
            for name in (SETTINGS, ".ids.csv"):
                self._store.upload(folder.root / name, name)
        if not todo:
            return
        plan = self._plan(folder, options, limits)
        with _connected(self._ray, self._address, self._processors), _translated(self._ray):
            processors = int(self._ray.cluster_resources().get("CPU", 1))
            actors = max(1, min(processors // self._threads, len(todo)))
            results = _stream(self._ray, todo, plan, actors)
            for table in results.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    done = Done(**row)
                    self._fetch(folder, done.part, embeddings=options.outputs.embeddings)
                    yield done

    def _plan(self, folder: PredictionsFolder, options: PredictionOptions, limits: Limits) -> _Plan:
        choice = folder.choice()
        assert choice is not None  # the folder is claimed
        check_cpu(choice.device)
        pixels = {limits.pixels_of("JPEG"), limits.pixels_of("PNG")}
        return _Plan(
            tuple(str(bundle.folder.resolve()) for bundle in options.bundles),
            options.settings(),
            choice,
            replace(options, segmenter=None, classifier=None),
            options.classifier is not None,
            options.segmenter is not None and bool(options.segmenter.attributes),
            None if self._store is not None else str(folder.root.resolve()),
            None if self._store is None else self._store.url,
            self._threads,
            replace(limits, pixels=pixels.pop()) if len(pixels) == 1 else limits,
        )

    def _fetch(self, folder: PredictionsFolder, key: str, *, embeddings: bool) -> None:
        """Bring a part from the store, for the tables that are joined here."""
        if self._store is None:
            return
        paths = [folder.embeddings_part(key)] if embeddings else []
        for path in (*paths, folder.part(key)):
            self._store.download(path.relative_to(folder.root).as_posix(), path)


def check_cpu(device: str) -> None:
    """Check that no actor would need a GPU, which Ray is not asked for.

    Raises:
        ConfigError: The device is a GPU.
    """
    if "cuda" in device:
        raise ConfigError(
            f"--backend ray predicts on CPUs, not on {device}",
            "leave out --backend ray, or use --device cpu and another OUT",
        )


def import_ray(*, local: bool) -> ModuleType:
    """Import Ray with usage statistics off and, for a local one, bound to 127.0.0.1.

    Raises:
        ConfigError: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local:
        # Ray's own switch for machines on which only the loopback interface is to be used.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters is raised in Python
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ConfigError(
            f"--backend ray needs Ray, which is not installed ({error})",
            how_to_install("ray"),
        ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK
    return ray


_CLUSTER: Final = (
    "name a running cluster; if it was started with a token, set RAY_AUTH_MODE=token as well"
)


@contextmanager
def _connected(ray: ModuleType, address: str | None, processors: int | None) -> Iterator[None]:
    """Connect to a cluster or start a local one, unless the program has done so already."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(
                num_cpus=processors,
                include_dashboard=False,
                object_store_memory=_STORE,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = next(iter(str(error).splitlines()), "")
        where = "a local Ray cannot be started" if address is None else f"no Ray at {address}"
        remedy = "free memory and processes" if address is None else _CLUSTER
        raise NaevusError(f"{where} ({line})", remedy) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _translated(ray: ModuleType) -> Iterator[None]:
    """Turn an error of an actor or of Ray into one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        own = re.findall(r"naevus\.errors\.\w+: (.*)", str(error))
        if own:
            raise NaevusError(own[-1]) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise NaevusError(
            f"Ray failed: {lines[-1].strip()[:300] if lines else type(error).__name__}",
            "run the command again; what is finished is kept",
        ) from error


def _stream(ray: ModuleType, todo: Sequence[Todo], plan: _Plan, actors: int) -> Any:
    """Return a data set of Ray whose rows are finished batches."""
    rows = [
        {
            "key": each.key,
            "ids": [source.image_id for source in each.images],
            "files": [str(source.path) for source in each.images],
        }
        for each in todo
    ]
    blocks = min(len(rows), _BLOCKS)
    batches = ray.data.from_arrow(
        [pa.Table.from_pylist(rows[number::blocks]) for number in range(blocks)]
    )
    # The actors leave processors to the reading, which would otherwise never be scheduled.
    read = batches.map_batches(
        _read_files,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"most": plan.limits.file_bytes + 1},
        num_cpus=_READING,
        concurrency=min(blocks, 2 * actors),
    )
    return read.map_batches(
        _Actor,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(plan,),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=plan.threads * (1 - _READING),
    )


def _read_files(table: pa.Table, most: int) -> pa.Table:
    """Read the files of a batch."""
    (row,) = table.to_pylist()
    contents, problems = [], []
    for name in row["files"]:
        content, problem = _read_file(name, most)
        contents.append(content)
        problems.append(problem)
    return pa.Table.from_pylist([{**row, "contents": contents, "problems": problems}], _FILES)


def _read_file(name: str, most: int) -> tuple[bytes | None, str | None]:
    """Return a file's content, or why a remote one cannot be read.

    A local file that cannot be read is left to the actor, whose decoder says why.
    """
    try:
        if url_of(name) is not None:
            return _store(name).read(name, most), None
        with Path(name).open("rb") as stream:
            return stream.read(most), None
    except FileNotFoundError:
        return None, "does not exist"
    except (OSError, NaevusError) as error:
        return None, f"cannot be read ({' '.join(str(error).split())[:300]})"


def _store(url: str) -> Store:
    parts = urlsplit(url)
    return _opened_store(f"{parts.scheme}://{parts.netloc}")


@cache
def _opened_store(url: str) -> Store:
    return Store.of(url)


class _Actor:
    """Holds the networks of a job, and predicts batches.

    Args:
        plan: The job.

    Raises:
        NaevusError: A bundle is absent or another one here, or the engine does not run here.
    """

    def __init__(self, plan: _Plan) -> None:
        settings = plan.settings
        part = settings["classifier"] or settings["segmenter"]
        prevalence = (settings["classifier"] or {}).get("prevalence")
        networks = open_networks(
            find_bundles(map(Path, plan.bundles)),
            diagnose=plan.diagnose,
            attributes=plan.attributes,
            prevalence=prevalence,
            tta=part["tta"],
            threads=plan.threads,
            streams=streams_for(1 << 20, plan.threads),
            choice=plan.choice,
        )
        segmenter = networks.segmenter if settings["segmenter"] else None
        self._options = replace(plan.options, segmenter=segmenter, classifier=networks.classifier)
        if self._options.settings() != settings:
            raise NaevusError(
                f"an actor on {os.uname().nodename} would predict with other settings",
                "install the same version of naevus and the same bundles on all machines",
            )
        self._plan = plan

    def __call__(self, table: pa.Table) -> pa.Table:
        """Predict a batch and write its part."""
        done = [self._predicted(row) for row in table.to_pylist()]
        return pa.Table.from_pylist(done, _DONE)

    def _predicted(self, row: dict[str, Any]) -> dict[str, Any]:
        plan, part = self._plan, row["key"]
        if plan.root is not None:
            part = self._write(
                row, PredictionsFolder(Path(plan.root), self._options.outputs.nested)
            )
        else:
            with tempfile.TemporaryDirectory(prefix="naevus-") as name:
                folder = PredictionsFolder(Path(name), self._options.outputs.nested)
                part = self._write(row, folder)
                _upload(folder, part, Store.of(str(plan.store)))
        return {"key": row["key"], "part": part, "images": len(row["ids"])}

    def _write(self, row: dict[str, Any], folder: PredictionsFolder) -> str:
        """Write a batch's files, and return the name of its part."""
        names = dict(zip(row["ids"], row["files"], strict=True))
        inputs = [
            _input(*each)
            for each in zip(row["ids"], row["files"], row["contents"], row["problems"], strict=True)
        ]
        pipeline = Pipeline(self._options, self._plan.limits, folder)
        with Workers(self._plan.threads) as workers:
            (found,) = pipeline.predict([inputs], workers)
        outcomes = [_named(each, names[each.image_id]) for each in found]
        part: str = row["key"]
        if all(url_of(name) is None for name in row["files"]):
            images = [ImageFiles(image_id, Path(name)) for image_id, name in names.items()]
            part = key_after(part, images, self._plan.limits)
        write_parts(folder, part, self._options, outcomes)
        return part


def _input(image_id: str, name: str, content: bytes | None, problem: str | None) -> ImageInput:
    """Return an image to predict; a local file without content is read again, for its error."""
    if content is not None:
        return ImageInput(image_id, ImageBytes(name, content))
    if url_of(name) is None:
        return ImageInput(image_id, Path(name))
    remedy = "check the address and its permissions"
    return ImageInput(image_id, Path(name), problem=ImageError(Path(name), str(problem), remedy))


def _named(outcome: Prediction | FailedImage, name: str) -> Prediction | FailedImage:
    """Return what was predicted of a file's content under the file's name."""
    if isinstance(outcome, FailedImage):
        problem = outcome.problem.removeprefix(f"{Path(name)}: ")
        return FailedImage(outcome.image_id, name, problem)
    file = Path(name) if url_of(name) is None else RemoteFile(name)
    return replace(outcome, image=cast("ImageData", file))


def _upload(folder: PredictionsFolder, key: str, store: Store) -> None:
    """Copy the files of a batch to a store; its part comes last, since it marks it as done."""
    last = folder.part(key)
    for path in sorted(folder.root.rglob("*")):
        if path.is_file() and path != last:
            store.upload(path, path.relative_to(folder.root).as_posix())
    store.upload(last, last.relative_to(folder.root).as_posix())


@contextmanager
def ray_output(
    out: Path, address: str | None, threads: int | None
) -> Iterator[tuple[Path, RayBackend]]:
    """Yield the local folder of a job and where to predict; then write its tables to a store.

    Args:
        out: The output: a folder that all machines see, or an address.
        address: As for `RayBackend`.
        threads: Threads of each actor; None: 1.

    Raises:
        ConfigError: Ray is not installed.
        NaevusError: The store cannot be reached or written.
    """
    url = url_of(out)
    store = None if url is None else Store.of(url)
    backend = RayBackend(address, threads=threads or 1, store=store)
    with nullcontext(out) if store is None else remote_folder(store) as folder:
        yield folder, backend


@contextmanager
def remote_folder(store: Store) -> Iterator[Path]:
    """Yield a local folder with what a job needs of an earlier one, and write its tables back.

    Masks, crops and other files of images stay in the store.

    Args:
        store: The job's output.

    Raises:
        NaevusError: The store cannot be reached or written.
    """
    with tempfile.TemporaryDirectory(prefix="naevus-") as name:
        root = Path(name) / "out"
        root.mkdir()
        for file in store.listing() if store.exists() else ():
            below = file.url.removeprefix(f"{store.url}/")
            if below.startswith(".parts/") or below in {SETTINGS, ".ids.csv"}:
                store.download(below, root / below)
        yield root
        for path in sorted(root.iterdir()):
            if path.is_file() and path.name != ".lock":
                store.upload(path, path.name)
