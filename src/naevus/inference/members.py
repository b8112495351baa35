"""The networks of bundles, loaded, each with the form of picture that it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.errors import BundleError, ConfigError
from naevus.inference.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from naevus.bundles.spec import Member
    from naevus.images.preprocess import Form
    from naevus.inference.engines import Engine, EngineName, Precision

    Batches = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


class Loaded(NamedTuple):
    """A member ready to run: its bundle, its name, the form of picture it sees, its engine."""

    bundle: Bundle
    name: str
    form: Form
    engine: Engine


def as_sequence(bundles: Bundle | Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Return bundles as a tuple, one alone too."""
    return (bundles,) if isinstance(bundles, Bundle) else tuple(bundles)


def open_members(
    wanted: Iterable[tuple[Bundle, Member, Form]],
    output: str,
    *,
    engine: EngineName,
    threads: int | None,
    precision: Precision,
    streams: int,
) -> tuple[Loaded, ...]:
    """Load members.

    Args:
        wanted: Each member's bundle, what that says of it, and what it sees.
        output: What their graphs must give.
        engine: What runs them.
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What it computes in.
        streams: Pieces of a batch that OpenVINO computes at a time.

    Raises:
        BundleError: A graph gives no such output, or cannot be used.
        ConfigError: The engine is not installed, or has no such precision here.
    """
    loaded = []
    for bundle, member, form in wanted:
        path = bundle.member_path(member)
        graph = open_engine(
            path, engine=engine, threads=threads, precision=precision, streams=streams
        )
        if output not in graph.outputs:
            raise BundleError(f"{path}: gives no {output}", "export the bundle again from its run")
        name = f"{bundle.sha256[:8]}/{member.file.removesuffix('.onnx')} {member.architecture}"
        loaded.append(Loaded(bundle, name, form, graph))
    return tuple(loaded)


def different_forms(members: Sequence[Loaded]) -> tuple[Form, ...]:
    """Return the forms that members see, each once."""
    return tuple(dict.fromkeys(member.form for member in members))


def by_form(batches: Batches, forms: Sequence[Form]) -> dict[Form, NDArray[np.uint8]]:
    """Return which batch is for which form.

    Args:
        batches: N x S x S x 3; one batch for each form where there are several.
        forms: The forms, in order.

    Raises:
        ConfigError: There is another number of batches, or one is of another shape.
    """
    given = [batches] if isinstance(batches, np.ndarray) else list(batches)
    if len(given) != len(forms):
        raise ConfigError(
            f"{len(given)} batches for {len(forms)} forms of picture",
            "give one batch for each form that the members see",
        )
    for batch, form in zip(given, forms, strict=True):
        if batch.shape[1:] != form.shape:
            raise ConfigError(f"pictures of shape {batch.shape[1:]}", f"give them as {form.shape}")
    return dict(zip(forms, given, strict=True))


def check_shape(member: Loaded, values: NDArray[np.float32], wanted: tuple[int, ...]) -> None:
    """Refuse a network's answer of another shape than is wanted.

    Raises:
        BundleError: It is.
    """
    if values.shape != wanted:
        raise BundleError(
            f"{member.bundle.folder}: member {member.name} gives {values.shape} in place of "
            f"{wanted}",
            "export the bundle again from its run",
        )
