"""A folder that predicts: ``bundle.json``, ONNX graphs and a model card, every file hashed."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from naevus.bundles.card import CARD, card_of
from naevus.errors import BundleError, NaevusError
from naevus.files import sha256, write_text
from naevus.images.crops import CropMode
from naevus.taxonomy import TAXONOMIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MANIFEST = "bundle.json"
"""The file that names all others of a bundle."""

# A plain name: no folder, no parent, nothing hidden. It is all that keeps a bundle in its folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,200}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

Task = Literal["segmentation", "classification"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Section):
    """One network of a bundle; ``input_size`` is the side of the square it sees, in pixels."""

    file: FileName
    fold: int | None = None
    architecture: str
    input_size: int = Field(ge=1, le=8192)


class CleaningSpec(_Section):
    """How a lesion probability becomes a mask: the settings of ``images.masks.Cleaning``."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest: bool = True
    holes: bool = True
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0


class BundleSpec(_Section):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: Version of this schema.
        task: What the members do.
        members: The networks whose mean logit is the bundle's.
        taxonomy: Name of the set of diagnoses, where it is a known one.
        classes: Codes in the order of the logits; none for segmentation.
        crop_mode: What a classifier sees (``images.crops``).
        crop_margin: Margin round the lesion's box, as a share of its longer side.
        colour_constancy: Whether shades of grey is applied to what the network sees.
        weights: w_c, how much more than its share each class counted in training.
        shares: π_c, the classes' shares in the training data; they sum to 1.
        temperature: Divides the natural logits.
        cleaning: How a lesion probability becomes a mask.
        provenance: Where the bundle comes from; printed on the model card.
        files: SHA-256 of every other file of the folder, by name.
    """

    schema_version: Literal[1] = 1
    task: Task
    members: tuple[Member, ...] = Field(min_length=1)
    taxonomy: str | None = None
    classes: tuple[str, ...] = ()
    crop_mode: CropMode = "full"
    crop_margin: Annotated[float, Field(ge=0, le=1)] = 0.15
    colour_constancy: bool = False
    weights: tuple[Positive, ...] = ()
    shares: tuple[Share, ...] = ()
    temperature: Positive = 1.0
    cleaning: CleaningSpec = CleaningSpec()
    provenance: dict[str, str | int | float] = Field(default_factory=dict)
    files: dict[FileName, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if self.task == "segmentation":
            if self.classes or self.weights or self.shares:
                raise ValueError("a segmentation bundle has no classes, weights or shares")
            return self
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a classification bundle needs two or more different classes")
        if not len(self.classes) == len(self.weights) == len(self.shares):
            raise ValueError("classes, weights and shares must be equally many")
        if not math.isclose(sum(self.shares), 1.0, rel_tol=0, abs_tol=1e-3):
            raise ValueError("shares must sum to 1")
        if self.taxonomy is not None:
            known = TAXONOMIES.get(self.taxonomy)
            if known is None:
                raise ValueError(f"unknown taxonomy {self.taxonomy!r}")
            if known.codes != self.classes:
                raise ValueError(f"classes are not those of taxonomy {self.taxonomy!r}, in order")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked; ``sha256`` is that of its ``bundle.json``."""

    folder: Path
    spec: BundleSpec
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read a bundle and check its schema and the hash of every file.

        Raises:
            BundleError: It is absent, of another schema, incomplete, or a file was changed.
        """
        folder = Path(folder)
        manifest = folder / MANIFEST
        spec = _parse(manifest)
        for member in spec.members:
            if member.file not in spec.files:
                raise BundleError(f"{manifest}: member {member.file} has no hash", _EXPORT_AGAIN)
        for name, expected in spec.files.items():
            _check(folder / name, expected)
        return cls(folder, spec, sha256(manifest))

    def member_path(self, member: Member) -> Path:
        """Return the path of a member's ONNX graph."""
        return self.folder / member.file


def write_bundle(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle in one piece, replacing what is at ``folder``.

    It is built beside ``folder`` and renamed there, so that no half bundle is ever seen. A model
    card is added, and the hash of every file is put into the specification.

    Args:
        folder: Where the bundle goes.
        spec: What it is; its ``files`` are ignored and computed anew.
        files: File name in the bundle → the file to copy there.

    Returns:
        The bundle as read back.

    Raises:
        BundleError: A member's file is not among ``files``, a name is not a plain file name, or
            ``folder`` holds something else than a bundle.
        NaevusError: The disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    _check_names(spec, files)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not empty and is no bundle", "choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"
        ) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            _fill(new, spec, files)
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)
    except OSError as error:
        raise NaevusError(
            f"{folder}: the bundle cannot be written ({error.strerror or error})",
            "free some space or choose a folder you may write to",
        ) from error
    return Bundle.read(folder)


def find_bundles(folders: Iterable[Path]) -> list[Bundle]:
    """Read bundles; a run folder stands for the bundles of all its folds.

    Raises:
        BundleError: A folder is neither a bundle nor a run with exported folds.
    """
    found: list[Bundle] = []
    for folder in map(Path, folders):
        if (folder / MANIFEST).exists():
            found.append(Bundle.read(folder))
            continue
        inside = sorted(folder.glob(f"fold-*/bundle/{MANIFEST}"), key=_fold_number)
        if not inside:
            raise BundleError(
                f"{folder}: neither a bundle (no {MANIFEST}) nor a run with exported folds",
                "name a bundle's folder, or a run's folder after `naevus train` has ended a fold",
            )
        found += [Bundle.read(manifest.parent) for manifest in inside]
    return found


_EXPORT_AGAIN = "export the bundle again or take an undamaged copy"


def _fold_number(manifest: Path) -> tuple[int, str]:
    name = manifest.parents[1].name.removeprefix("fold-")
    return (int(name) if name.isdecimal() else 1 << 30, name)


def _parse(manifest: Path) -> BundleSpec:
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{manifest}: cannot be read ({error.strerror})", "name the folder of a bundle"
        ) from error
    try:
        return BundleSpec.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(
            f"{manifest}: {f'{where}: ' if where else ''}{problem}", _EXPORT_AGAIN
        ) from error


def _check(path: Path, expected: str) -> None:
    try:
        actual = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", _EXPORT_AGAIN) from error
    if actual != expected:
        raise BundleError(f"{path}: changed since the bundle was written", _EXPORT_AGAIN)


def _check_names(spec: BundleSpec, files: Mapping[str, Path]) -> None:
    missing = [member.file for member in spec.members if member.file not in files]
    if missing:
        raise BundleError(f"bundle members without a file: {', '.join(missing)}")
    try:
        BundleSpec.model_validate(spec.model_dump() | {"files": dict.fromkeys(files, "0" * 64)})
    except ValidationError as error:
        raise BundleError(f"not plain file names: {', '.join(sorted(files))}") from error
    reserved = {MANIFEST, CARD} & files.keys()
    if reserved:
        raise BundleError(f"{min(reserved)} is written by the bundle itself")


def _fill(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> None:
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    write_text(folder / CARD, card_of(spec))
    names = sorted([*files, CARD])
    full = spec.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    write_text(folder / MANIFEST, full.model_dump_json(indent=2) + "\n")
