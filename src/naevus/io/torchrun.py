"""What torchrun says about this process: its number, and how many work together."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from naevus.errors import ConfigError

_NUMBERS: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_NEEDED: Final = (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT")
_STARTED: Final = "TORCHELASTIC_RUN_ID"
_REMEDY: Final = "start the command with torchrun, or unset RANK and WORLD_SIZE"


class Launch(NamedTuple):
    """This process among those that work together.

    Attributes:
        rank: Its number among all, from 0.
        world: The number of all.
        local_rank: Its number on this machine, from 0.
        local_world: The number on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def machines(self) -> int:
        """The number of machines."""
        return self.world // self.local_world


def launched() -> Launch:
    """Return what the environment says about this process; it is alone without torchrun.

    Raises:
        ConfigError: The environment is incomplete or inconsistent.
    """
    if not any(os.environ.get(name) for name in (*_NUMBERS, _STARTED)):
        return Launch()
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise ConfigError(f"torchrun's environment is incomplete: no {', '.join(missing)}", _REMEDY)
    texts = [os.environ[name] for name in _NUMBERS]
    for name, text in zip(_NUMBERS, texts, strict=True):
        if not text.isdecimal():
            raise ConfigError(f"torchrun's environment is wrong: {name} is {text!r}", _REMEDY)
    rank, world, local_rank, local_world = map(int, texts)
    if not (rank < world and local_rank < local_world <= world):
        raise ConfigError(
            f"torchrun's environment is wrong: process {rank} of {world}, {local_rank} of "
            f"{local_world} on this machine",
            _REMEDY,
        )
    if world % local_world:
        raise ConfigError(
            f"{world} processes are not {local_world} on every machine",
            "give torchrun the same --nproc-per-node on all machines",
        )
    return Launch(rank, world, local_rank, local_world)


def speaks() -> bool:
    """Return whether this process prints: of those that torchrun starts, only the first does."""
    return not os.environ.get(_STARTED) or os.environ.get("RANK", "0") == "0"
