"""Training in several processes: their start, what they exchange, and what one does for all.

Each process takes every n-th image of a batch. The loss is computed on the whole batch: logits are
gathered, and every process keeps the gradient of its own. That is exact for any loss, also for one
that pools the images of a batch. Nothing is exchanged as a pickle.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from naevus.errors import ConfigError, RunError
from naevus.inference.engines.devices import parse_device
from naevus.io.parallel import batches, cpu_count
from naevus.io.torchrun import Launch, launched
from naevus.training.performance import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from naevus.runs.recipe import Recipe

    Item = TypeVar("Item")
    Result = TypeVar("Result")

_PATIENCE: Final = timedelta(days=30)
"""How long a process waits for the others; torchrun ends it as soon as one of them is gone."""

_HEADER: Final = 256
"""Length in bytes of what is said about an array before it is exchanged."""


class Processes:
    """The processes that train together, seen from one of them.

    Args:
        fabric: The launched Fabric; without torchrun it has one process.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.world = fabric.global_rank, fabric.world_size

    @property
    def is_first(self) -> bool:
        """Whether this process writes, prints and keeps the checkpoints."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Number of threads of this process, if those of this machine share its processors."""
        return max(1, cpu_count() // (launched().local_world if self.world > 1 else 1))

    def first(self, work: Callable[[], Result]) -> Result | None:
        """Return what the first process makes, while the others wait and get None."""
        made = work() if self.is_first else None
        self.wait()
        return made

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            self.gather(torch.zeros(1))

    def gather(self, rows: Tensor | None) -> list[Tensor]:
        """Return the rows (first axis) that every process has, in the order of the processes.

        Args:
            rows: Any numbers, without gradient; None: this process has no rows.

        Returns:
            One tensor for each process that has rows, on the device of ``rows``.
        """
        if self.world == 1:
            return [] if rows is None else [rows]
        headers = [json.loads(text) for text in self._headers(rows)]
        shape, kind = next(header[1:] for header in headers if header[0])
        longest = max(header[0] for header in headers)
        device = torch.device("cpu") if rows is None else rows.device
        padded = torch.zeros((longest, *shape), dtype=getattr(torch, kind), device=device)
        if rows is not None:
            padded[: len(rows)] = rows.detach()
        flat = self.fabric.to_device(padded.reshape(-1).view(torch.uint8))
        found = [torch.empty_like(flat) for _ in range(self.world)]
        distributed.all_gather(found, flat)
        return [
            each.to(device).view(padded.dtype).reshape(padded.shape)[: header[0]]
            for each, header in zip(found, headers, strict=True)
            if header[0]
        ]

    def _headers(self, rows: Tensor | None) -> list[bytes]:
        """Return number, shape and type of every process's rows as JSON."""
        has = rows is not None and len(rows)
        described = [len(rows), list(rows.shape[1:]), str(rows.dtype)[6:]] if has else [0, [], ""]  # type: ignore[arg-type, union-attr]
        text = json.dumps(described).encode().ljust(_HEADER)
        own = self.fabric.to_device(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        found = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(found, own)
        return [bytes(each.tolist()) for each in found]

    def texts(self, text: str) -> list[str]:
        """Return the text of every process, which must not be empty."""
        own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        return [each.numpy().tobytes().decode() for each in self.gather(own)]

    def of_first(self, value: Result) -> Result:
        """Return the first process's value, which JSON can hold."""
        if self.world == 1:
            return value
        found: Result = json.loads(self.texts(json.dumps(value if self.is_first else None))[0])
        return found

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings.

        Raises:
            ConfigError: Two differ.
        """
        if self.world == 1:
            return
        first, *others = (json.loads(text) for text in self.texts(json.dumps(settings)))
        for rank, other in enumerate(others, 1):
            for name in first:
                if first[name] != other[name]:
                    raise ConfigError(
                        f"{name} is {first[name]} for process 0 and {other[name]} for process "
                        f"{rank}",
                        "give all processes of one training the same command and files",
                    )

    def whole_batch(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the whole batch; only the own logits have a gradient.

        Args:
            logits: Those of this process's images, which are every n-th of the batch.
            targets: Their targets.
        """
        if self.world == 1:
            return logits, targets
        parts, all_targets = self.gather(logits), self.gather(targets)
        places = [
            torch.arange(rank, sum(map(len, parts)), self.world) for rank in range(self.world)
        ]
        order = torch.cat(places).argsort().to(logits.device)
        parts[self.rank] = logits
        return torch.cat(parts)[order], torch.cat(all_targets)[order]

    def first_images(self, fraction: float, own: int) -> int:
        """Return how many of this process's images are in the first ``fraction`` of a batch.

        At least two of each process, which batch normalisation needs.

        Args:
            fraction: Fraction of the batch.
            own: Number of this process's images in the batch.
        """
        whole = sum(map(len, self.gather(torch.zeros(own, 1))))
        return len(range(self.rank, max(2 * self.world, int(fraction * whole)), self.world))

    def join_batches(
        self, pairs: Sequence[tuple[Tensor, Tensor]], count: int, size: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Return all batches in order, of which this process has every n-th.

        Args:
            pairs: Logits and targets of its batches, on the CPU.
            count: Number of images of all batches.
            size: Images per batch; the last one may have fewer.

        Raises:
            RunError: An image is missing, or there twice.
        """
        if self.world == 1 or not count:
            return list(pairs)
        mine = batches(range(count), size)[self.rank :: self.world]
        rows = torch.tensor([row for piece in mine for row in piece]) if mine else None
        logits = torch.cat([pair[0] for pair in pairs]) if pairs else None
        targets = torch.cat([pair[1] for pair in pairs]) if pairs else None
        order = torch.cat(self.gather(rows)).argsort()
        whole = [torch.cat(self.gather(each))[order] for each in (logits, targets)]
        if any(len(each) != count for each in (order, *whole)):
            raise RunError(
                f"{len(order)} of {count} validation images were evaluated",
                "report this as a bug in naevus",
            )
        return list(zip(*(each.split(size) for each in whole), strict=True))

    def table(
        self, items: Sequence[Item], predict: Callable[[Sequence[Item]], pd.DataFrame]
    ) -> pd.DataFrame:
        """Return the table of all items, of which every process predicts its batches.

        Batches stay whole, so that each item has the values that one process would give it.

        Args:
            items: What is predicted, sorted as the rows are.
            predict: Returns a table with ``image_id``, a row per item or fewer.

        Raises:
            RunError: Two processes predicted the same image.
        """
        if self.world == 1:
            return predict(items)
        mine = [item for piece in batches(items)[self.rank :: self.world] for item in piece]
        content = io.BytesIO()
        if mine:
            predict(mine).to_parquet(content, index=False)
        data = content.getvalue()
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else None
        if not items:
            return predict(items)
        tables = [pd.read_parquet(io.BytesIO(each.numpy().tobytes())) for each in self.gather(own)]
        joined = pd.concat(tables, ignore_index=True)
        twice = joined["image_id"].duplicated()
        if twice.any():
            raise RunError(
                f"two processes predicted {joined.loc[twice, 'image_id'].iloc[0]}",
                "report this as a bug in naevus",
            )
        joined["image_id"] = joined["image_id"].astype("string")
        return joined.sort_values("image_id", ignore_index=True)

    def share_buffers(self, *networks: nn.Module) -> None:
        """Give every process the first one's statistics of batch normalisation."""
        if self.world > 1:
            for network in networks:
                for buffer in network.buffers():
                    distributed.broadcast(buffer, 0)

    def seed(self, seed: int, step: int) -> None:
        """Make dropout depend only on seed, step and process, so that it can be resumed.

        One process on a CPU has the state of its random numbers in the checkpoint instead.
        """
        if self.world > 1 or self.fabric.device.type == "cuda":
            torch.manual_seed(((seed * 1_000_003 + step) * 4_099 + self.rank) % 2**63)


@contextmanager
def open_processes(
    recipe: Recipe, *, device: str = "auto", threads: int | None = None
) -> Iterator[Processes]:
    """Start this process, and with torchrun connect it to the others.

    Args:
        recipe: The recipe.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of this process; None: the processors of the machine, divided among its
            processes.

    Yields:
        The processes.

    Raises:
        ConfigError: The environment or the device cannot be used, or the recipe needs others.
        RunError: Another process has ended.
    """
    launch = launched()
    fabric = make_fabric(recipe, device, launch)
    kind = fabric.device.type
    _check_recipe(recipe, launch.world, kind)
    if threads is not None or (launch.world > 1 and _is_limited_by_torchrun()):
        count = max(1, cpu_count() // launch.local_world) if threads is None else threads
        torch.set_num_threads(count)
        os.environ["OMP_NUM_THREADS"] = str(count)  # what the run records
    try:
        if launch.world > 1:
            _connect(launch, fabric.device)
        fabric.launch()
        yield Processes(fabric)
    except RuntimeError as error:
        if launch.world == 1 or not _is_loss_of_another(error):
            raise
        raise RunError(
            f"process {launch.rank} has lost another process of this training",
            "see that one's message; torchrun --max-restarts N goes on from the last checkpoint",
        ) from error
    if launch.world > 1 and distributed.is_initialized():
        distributed.destroy_process_group()


def _connect(launch: Launch, device: torch.device) -> None:
    """Connect this process to the others, before Fabric would."""
    address = rendezvous("env://", launch.rank, launch.world, timeout=_PATIENCE)
    store, rank, world = next(iter(address))
    if launch.machines == 1:
        # On one machine torchrun keeps what processes published before a restart: addresses of
        # processes that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    gpu = device.type == "cuda"
    distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        timeout=_PATIENCE,
        device_id=device if gpu else None,
    )


def make_fabric(recipe: Recipe, device: str = "auto", launch: Launch | None = None) -> Fabric:
    """Return the Fabric of a recipe: device, precision and processes.

    Raises:
        ConfigError: There is no such device.
    """
    launch = launch or Launch()
    kind, number = _device(device, launch)
    precision = resolve(recipe.precision, kind)
    # The log names the precision of each fold.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if launch.world == 1:
        return Fabric(accelerator=kind, devices=[number] if kind == "cuda" else 1,
                      precision=precision)  # fmt: skip
    # Layouts of small kernels are ambiguous; torch only says that it copies their gradients.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    strategy = DDPStrategy(
        process_group_backend="nccl" if kind == "cuda" else "gloo",
        timeout=_PATIENCE,
        find_unused_parameters=recipe.own_network is not None,
    )
    return Fabric(
        accelerator=kind,
        devices=launch.local_world,
        num_nodes=launch.machines,
        strategy=strategy,
        precision=precision,
        plugins=[TorchElasticEnvironment()],
    )


def synchronise(network: nn.Module, recipe: Recipe) -> None:
    """Normalise over the whole batch in place of each process's part, if the recipe says so."""
    if recipe.network.sync_batch_norm:
        convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def _device(device: str, launch: Launch) -> tuple[str, int]:
    """Return the kind of device, and the number of the GPU."""
    kind, number = parse_device(device)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return kind, 0
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number is not None and launch.world > 1:
        raise ConfigError(
            f"--device {device} is one GPU, but {launch.world} processes train together",
            "use --device cuda: each process takes the GPU of its own number",
        )
    needed = launch.local_world if number is None else number + 1
    if needed > there:
        raise ConfigError(
            f"--device {device} needs {needed} of this machine's GPUs, but torch finds {there}",
            "use --device cpu or another number, or install a build of torch for this GPU",
        )
    return kind, number or 0


def _check_recipe(recipe: Recipe, world: int, kind: str) -> None:
    if recipe.network.sync_batch_norm and (world == 1 or kind == "cpu"):
        why = "there is one process" if world == 1 else "torch has it for GPUs only"
        raise ConfigError(
            f"network.sync_batch_norm cannot be used: {why}", "leave network.sync_batch_norm out"
        )
    if world > 1 and recipe.batch_size < 2 * world:
        raise ConfigError(
            f"batch_size {recipe.batch_size} is less than two images for each of {world} processes",
            "start fewer processes, or raise batch_size",
        )


def _is_limited_by_torchrun() -> bool:
    """Return whether the number of threads may be torchrun's: one, unless the user sets it."""
    return os.environ.get("OMP_NUM_THREADS", "1") == "1"


def _is_loss_of_another(error: RuntimeError) -> bool:
    text = str(error)
    known = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, distributed.DistError) or any(each in text for each in known)
