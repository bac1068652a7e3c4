"""Images: stores them as (rows, channels, height, width) and finds how they are standardized.

Decides the layout and the unit of pixels, and works through them in pieces, for they may be larger than memory. How
images of a folder are brought to one size is `picture`'s; here it is only told whether others are, too. Knows no split
and no augmentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.data.memory import gathered, pieces
from tuner.data.picture import Pictures, fit_pixels
from tuner.data.raw import listed, plain_array
from tuner.data.splits import Shape, Standard, Target, Task
from tuner.data.targets import Goal
from tuner.errors import DataError

Layout = Literal["NHW", "NHWC", "NCHW"]
CHANNELS = (1, 3, 4)
SHAPES = (
    "(rows, height, width), (rows, height, width, channels) or (rows, channels, height, width) with 1, 3 or 4 channels"
)


@dataclass(frozen=True, slots=True)
class ImageEncoder:
    """Turns images into arrays (rows, channels, height, width), uint8 if `dtype` says so, else float32.

    `fitted`: the images were brought to one size when they were read, and those of another size are brought to it too.
    """

    layout: Layout
    input: tuple[int, int, int]
    dtype: Literal["uint8", "float32"]
    task: Task
    classes: tuple[str, ...]
    target: Target
    standard: Standard
    fitted: bool = False

    @property
    def shape(self) -> Shape:
        """The shape of one image, and what is predicted from it."""
        return Shape("image", self.task, self.input, len(self.classes) or 1, (), self.classes)

    def encode(self, raw: Any) -> NDArray[Any]:
        """Return images in any allowed layout, or the pictures of files, as (rows, channels, height, width).

        Raises:
            DataError: they have another shape than those of training, or values that aren't pixels, or can't be read.
        """
        if isinstance(raw, Pictures):
            self._check_pictures()
            raw = raw.read(self.input, self.fitted)
        images = plain_array(raw, "images")
        if images.ndim == 2 and images.shape[1] == np.prod(self.input):  # rows of pixels, as scikit-learn has them
            images = images.reshape(len(images), *self.input)
        check_pixels(images)
        layouts: tuple[Layout, ...] = (self.layout, "NHW", "NHWC", "NCHW")
        for layout in layouts:
            moved = _moved(images, layout)
            if moved is not None and moved.shape[1:] == self.input:
                return gathered(moved, self._typed)
        if self.fitted:
            return gathered(_last(images), lambda some: _first(fit_pixels(_bytes(some), self.input)))
        channels, height, width = self.input
        learned = f"{channels} x {height} x {width} (channels, height, width)"
        raise DataError(f"images have shape {images.shape}; {learned} was learned")

    def _typed(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.dtype == "float32":
            return np.ascontiguousarray(images, dtype=np.float32)
        return _bytes(images)

    def _check_pictures(self) -> None:
        if self.dtype != "uint8" or self.input[0] not in (1, 3):
            raise DataError(
                f"{self.input[0]} channels of {self.dtype} values were learned, which image files don't hold; "
                "give them as an .npz file"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON; `read_encoder` reads it back."""
        document: dict[str, Any] = json.loads(json.dumps({"kind": "image", **asdict(self)}, allow_nan=False))
        return document


def read_encoder(document: dict[str, Any]) -> ImageEncoder:
    """Return the encoder that `to_json` wrote.

    Raises:
        KeyError, TypeError: the document is none.
    """
    standard = document["standard"]
    channels, height, width = document["input"]
    return ImageEncoder(
        layout=document["layout"],
        input=(channels, height, width),
        dtype=document["dtype"],
        task=document["task"],
        classes=tuple(document["classes"]),
        target=Target(**document["target"]),
        standard=Standard(standard["unit"], tuple(standard["center"]), tuple(standard["scale"])),
        fitted=document.get("fitted", False),
    )


def check_pixels(images: NDArray[Any]) -> None:
    """Refuse images that hold anything but finite numbers.

    Raises:
        DataError: they do.
    """
    if images.dtype.kind not in "biuf":
        raise DataError(f"images hold {images.dtype} values; numbers are allowed")
    if images.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        wrong = np.concatenate([np.zeros(0, dtype=np.int64), *map(_count_infinite, pieces(images))])
    bad = np.flatnonzero(wrong)
    if len(bad):
        count, more = int(wrong.sum()), ", ..." if len(bad) > 5 else ""
        raise DataError(
            f"images hold {count} pixels that are NaN or infinite (images {listed(bad[:5] + 1)}{more}); mend them"
        )


def _count_infinite(images: NDArray[Any]) -> NDArray[np.int64]:
    finite = np.isfinite(images.astype(np.float32)).reshape(len(images), -1)
    return np.asarray((~finite).sum(axis=1), dtype=np.int64)


def _bytes(images: NDArray[Any]) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        pixels = np.ascontiguousarray(images.astype(np.uint8))
    if images.dtype != np.uint8 and (pixels != images).any():
        raise DataError("images hold values other than 0, 1, ..., 255, which were learned")
    return pixels


def layout_of(images: NDArray[Any]) -> Layout:
    """Return how the axes of images are meant; channels last if both would do.

    Raises:
        DataError: they can't be images.
    """
    if 0 not in images.shape:
        if images.ndim == 3:
            return "NHW"
        if images.ndim == 4 and images.shape[3] in CHANNELS:
            return "NHWC"
        if images.ndim == 4 and images.shape[1] in CHANNELS:
            return "NCHW"
    raise DataError(f"images have shape {images.shape}; {SHAPES} is allowed")


def _moved(images: NDArray[Any], layout: Layout) -> NDArray[Any] | None:
    if images.ndim != len(layout):
        return None
    if layout == "NHW":
        return images[:, None]
    return np.moveaxis(images, 3, 1) if layout == "NHWC" else images


def _last(images: NDArray[Any]) -> NDArray[Any]:
    """Return images in any allowed layout as (rows, height, width, channels).

    Raises:
        DataError: they are none, or rather one image than several.
    """
    if images.ndim == 3 and images.shape[2] in CHANNELS:
        raise DataError(f"images have shape {images.shape}; one image alone has shape {(1, *images.shape)}")
    moved = _moved(images, layout_of(images))
    assert moved is not None
    return np.moveaxis(moved, 1, 3)


def _first(images: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(images, 3, 1))


def fit_images(
    images: NDArray[Any], rows: NDArray[np.int64], goal: Goal, target: Target, fitted: bool = False
) -> ImageEncoder:
    """Return the encoder of images (rows, ...) whose training rows are `rows`.

    Raises:
        DataError: they can't be images, or the training images are all of one color.
    """
    layout = layout_of(images)
    moved = _moved(images, layout)
    assert moved is not None
    unit, moments = _moments(lambda: pieces(moved, rows), moved.dtype)
    center, spread = zip(*moments, strict=True)
    if not any(spread):
        raise DataError("every training image is of one and the same color; there is nothing to learn")
    scale = tuple(value if value > 1e-6 else 1.0 for value in spread)
    _, channels, height, width = moved.shape
    dtype: Literal["uint8", "float32"] = "uint8" if images.dtype == np.uint8 else "float32"
    standard = Standard(unit, center, scale)
    return ImageEncoder(layout, (channels, height, width), dtype, goal.task, goal.classes, target, standard, fitted)


Pieces = Callable[[], Iterator[NDArray[Any]]]


def _moments(train: Pieces, dtype: np.dtype[Any]) -> tuple[float, list[tuple[float, float]]]:
    """Return the unit of pixels, and each channel's mean and deviation in it; `train` starts anew when called."""
    if dtype == np.uint8:
        counts = np.sum([_counts(piece) for piece in train()], axis=0)
        return 1 / 255, [_moments_of(channel, 1 / 255) for channel in counts]
    unit = _unit(max(float(np.abs(piece.astype(np.float64)).max()) for piece in train()))
    size = sum(piece[:, 0].size for piece in train())
    centers = np.sum([_sums(piece, unit) for piece in train()], axis=0) / size
    squares = np.sum([_sums(piece, unit, centers) for piece in train()], axis=0) / size
    return unit, [(float(center), float(np.sqrt(square))) for center, square in zip(centers, squares, strict=True)]


def _unit(largest: float) -> float:
    return 1.0 if 0.5 < largest <= 1 or largest == 0 else 1 / largest


def _counts(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value occurs, (channels, 256)."""
    return np.stack([np.bincount(images[:, i].ravel(), minlength=256) for i in range(images.shape[1])])


def _moments_of(counts: NDArray[np.int64], unit: float) -> tuple[float, float]:
    values = np.arange(256) * unit
    center = float((counts * values).sum() / counts.sum())
    return center, float(np.sqrt((counts * (values - center) ** 2).sum() / counts.sum()))


def _sums(images: NDArray[Any], unit: float, centers: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the sum of each channel's values in that unit, or of the squares of their distance to `centers`."""
    channels = [images[:, i].astype(np.float64) * unit for i in range(images.shape[1])]
    if centers is None:
        return np.array([values.sum() for values in channels])
    return np.array([((values - center) ** 2).sum() for values, center in zip(channels, centers, strict=True)])
