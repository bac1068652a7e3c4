"""Picture files -> pixels, by one policy for training and for prediction.

Decides what a picture is to a network: it is turned upright by its EXIF orientation; of several frames or pages the
first counts; 16 bits are scaled to 8; what is transparent lies over white; a palette, CMYK and the like become RGB, or
gray if gray is wanted. To get another size it is scaled (bicubic, antialiased) until it just covers that size and cut
to the middle. Pictures of more than 100 million pixels aren't read. Knows no class, no split and nothing fitted: the
size and whether all are gray are told to it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from tuner.data import memory
from tuner.data.raw import listed
from tuner.errors import DataError

# Named, so that no other reader of Pillow's is tried on a file: some of them start programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
MOST_PIXELS = 100_000_000
GAP = 3.0  # a large picture is first reduced by a whole number to no less than so many times the size wanted
AT_ONCE = 256
MOST_PROBLEMS = 20
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
GRAY_MODES = ("1", "L", "LA", "La", "I")
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}

Found = TypeVar("Found")
Pixels = NDArray[np.uint8]


class BadPictureError(Exception):
    """A file can't be read as a picture; the message is for the user and names no file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a picture before its pixels are read; `changes` says what the policy does to it."""

    height: int
    width: int
    gray: bool
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files of the folder `root`, by their paths within it; `where` opens every message."""

    where: str
    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def headers(self) -> tuple[list[Header | None], list[str]]:
        """Return what is known of each before it is read, None where nothing is, and what is wrong with those."""
        found = self._each(lambda i: read_header(self.root / self.names[i]))
        return [header if isinstance(header, Header) else None for header in found], self._problems(found)

    def read(self, shape: tuple[int, int, int], fitted: bool = True) -> Pixels:
        """Return the pixels (rows, height, width, channels) for a shape (channels, height, width).

        Raises:
            DataError: some can't be read, or have another size though they aren't to be `fitted`; a line each.
        """
        channels, height, width = shape
        pixels = memory.empty((len(self), height, width, channels), np.uint8)

        def read_one(i: int) -> None:
            pixels[i] = read_pixels(self.root / self.names[i], shape, fitted)

        refuse(self.where, self._problems(self._each(read_one)))
        return pixels

    def problems(self, shape: tuple[int, int, int]) -> list[str]:
        """Return what is wrong with the pixels of the files, which aren't kept."""

        def check_one(i: int) -> None:
            read_pixels(self.root / self.names[i], shape)

        return self._problems(self._each(check_one))

    def _each(self, read: Callable[[int], Found]) -> list[Found | str]:
        """Return for each file what `read` of its number gives, or what is wrong with it, in order."""

        def attempt(i: int) -> Found | str:
            try:
                return read(i)
            except BadPictureError as error:
                return str(error)

        found: list[Found | str] = []
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore")
            for start in range(0, len(self), AT_ONCE):
                found += pool.map(attempt, range(start, min(start + AT_ONCE, len(self))))
        return found

    def _problems(self, found: list[Any]) -> list[str]:
        return [
            f"{listed([name])}: {said}" for name, said in zip(self.names, found, strict=True) if isinstance(said, str)
        ]


def refuse(where: str, problems: list[str]) -> None:
    """Raise the problems, a line each, the first MOST_PROBLEMS of them.

    Raises:
        DataError: there are any.
    """
    more = len(problems) - MOST_PROBLEMS
    told = problems[:MOST_PROBLEMS] + ([f"and {more} more problems like these"] if more > 0 else [])
    if told:
        raise DataError("\n".join(f"{where}: {problem}" for problem in told))


def read_header(path: Path) -> Header:
    """Return what is known of a picture before it is read.

    Raises:
        BadPictureError: it is none, or too large.
    """
    return _read(path, _header)


def read_pixels(path: Path, shape: tuple[int, int, int], fitted: bool = True) -> Pixels:
    """Return a picture as pixels (height, width, channels) for a shape (channels, height, width).

    Raises:
        BadPictureError: it can't be read, or has another size though it isn't to be `fitted`.
    """
    return _read(path, lambda image: _pixels(image, shape, fitted))


def _read(path: Path, use: Callable[[Image.Image], Found]) -> Found:
    try:
        # Opened here: of a path Pillow maps the pixels of some files, which goes wrong if a TIFF is to be turned.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BadPictureError(
                    f"has {image.width} x {image.height} pixels; up to {MOST_PIXELS // 10**6} million are read"
                )
            return use(image)
    except BadPictureError:
        raise
    except UnidentifiedImageError:
        what = "is no image" if path.stat().st_size else "is empty"
        raise BadPictureError(f"{what}; {', '.join(FORMATS)} are read") from None
    except Image.DecompressionBombError:
        raise BadPictureError(f"has more pixels than the {MOST_PIXELS // 10**6} million that are read") from None
    # A damaged file makes Pillow raise almost anything; the file is at fault, not the program.
    except Exception as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadPictureError(f"can't be read ({' '.join(said.split())[:200] or type(error).__name__})") from None


def _header(image: Image.Image) -> Header:
    # Behind the pixels of a PNG, an orientation is found only by reading them.
    turn = 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)
    width, height = _upright(image, turn)
    _refuse_floats(image)
    facts = {
        "turned upright": turn > 1,
        "laid over white": image.has_transparency_data,
        "scaled from 16 bits": image.mode.startswith("I"),
        "converted from CMYK": image.mode == "CMYK",
        "read as their first frame": getattr(image, "is_animated", False) and image.format != "MPO",
    }
    changes = tuple(change for change, is_so in facts.items() if is_so)
    return Header(height, width, image.mode.split(";")[0] in GRAY_MODES, changes)


def _upright(image: Image.Image, turn: int) -> tuple[int, int]:
    """Return width and height of a picture that isn't turned yet as they will be."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Pillow itself turns it, and by its version tells the size before or after
        width, height = (int(image.tag_v2[tag]) for tag in (IMAGEWIDTH, IMAGELENGTH))
    return (width, height) if turn < 5 else (height, width)


def _refuse_floats(image: Image.Image) -> None:
    if image.mode.startswith("F"):
        raise BadPictureError("holds floating point values; save it with 8 or 16 bits a pixel")


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data are no reason to do without the picture
        return 1
    return found if found in TURNS else 1


def _pixels(image: Image.Image, shape: tuple[int, int, int], fitted: bool) -> Pixels:
    channels, height, width = shape
    _refuse_floats(image)
    if fitted:
        there = _upright(image, _orientation(image))
        scale = GAP * max(width / there[0], height / there[1])
        # A JPEG is decoded at a half, a quarter or an eighth of its size if that is enough.
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    image.load()
    turn = _orientation(image)
    wanted = (width, height) if turn < 5 else (height, width)
    if not fitted and image.size != wanted:
        there = image.size if turn < 5 else (image.height, image.width)
        raise BadPictureError(f"has {there[0]} x {there[1]} pixels; {width} x {height} were learned (width x height)")
    plain = _fit(_plain(image, channels == 1), wanted)
    return _array(plain.transpose(TURNS[turn]) if turn in TURNS else plain)


def _array(image: Image.Image) -> Pixels:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _plain(image: Image.Image, gray: bool) -> Image.Image:
    """Return a picture as L or RGB."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if gray else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadPictureError("holds values beyond 16 bits; save it with 8 or 16 bits a pixel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture of that width and height."""
    if image.size == size:
        return image
    scale = max(wanted / there for wanted, there in zip(size, image.size, strict=True))
    # The part that is kept, in pixels of the picture; rounding must not take it beyond the edges.
    kept = [min(there, wanted / scale) for wanted, there in zip(size, image.size, strict=True)]
    left, top = ((there - part) / 2 for there, part in zip(image.size, kept, strict=True))
    box = (left, top, left + kept[0], top + kept[1])
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=GAP)


def fit_pixels(images: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """Return pixels (rows, height, width, channels) brought to a shape (channels, height, width) as files are."""
    channels, height, width = shape
    pixels = np.empty((len(images), height, width, channels), np.uint8)
    for place, image in zip(pixels, images, strict=True):
        plain = image[:, :, 0] if image.shape[2] == 1 else image
        place[:] = _array(_fit(_plain(Image.fromarray(np.ascontiguousarray(plain)), channels == 1), (width, height)))
    return pixels
