"""Images: stores them as (rows, channels, height, width) and finds how they are standardized.

Decides the layout and the unit of pixels. Knows no file, no split and no augmentation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.data.raw import listed
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
    """Turns images into arrays (rows, channels, height, width), uint8 if `dtype` says so, else float32."""

    layout: Layout
    input: tuple[int, int, int]
    dtype: Literal["uint8", "float32"]
    task: Task
    classes: tuple[str, ...]
    target: Target
    standard: Standard

    @property
    def shape(self) -> Shape:
        """The shape of one image, and what is predicted from it."""
        return Shape("image", self.task, self.input, len(self.classes) or 1, (), self.classes)

    def encode(self, raw: Any) -> NDArray[Any]:
        """Return images in any allowed layout as (rows, channels, height, width).

        Raises:
            DataError: they have another shape than those of training, or values that aren't pixels.
        """
        images = np.asarray(raw)
        if images.ndim == 2 and images.shape[1] == np.prod(self.input):  # rows of pixels, as scikit-learn has them
            images = images.reshape(len(images), *self.input)
        check_pixels(images)
        layouts: tuple[Layout, ...] = (self.layout, "NHW", "NHWC", "NCHW")
        for layout in layouts:
            moved = _moved(images, layout)
            if moved is not None and moved.shape[1:] == self.input:
                return self._typed(moved)
        channels, height, width = self.input
        learned = f"{channels} x {height} x {width} (channels, height, width)"
        raise DataError(f"images have shape {images.shape}; {learned} was learned")

    def _typed(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.dtype == "float32":
            return np.ascontiguousarray(images, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            pixels = np.ascontiguousarray(images.astype(np.uint8))
        if images.dtype != np.uint8 and (pixels != images).any():
            raise DataError("images hold values other than 0, 1, ..., 255, which were learned")
        return pixels

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
        finite = np.isfinite(images.astype(np.float32)).reshape(len(images), -1)
    bad = np.flatnonzero(~finite.all(axis=1))
    if len(bad):
        count, more = int((~finite).sum()), ", ..." if len(bad) > 5 else ""
        raise DataError(
            f"images hold {count} pixels that are NaN or infinite (images {listed(bad[:5] + 1)}{more}); mend them"
        )


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


def fit_images(images: NDArray[Any], rows: NDArray[np.int64], goal: Goal, target: Target) -> ImageEncoder:
    """Return the encoder of images (rows, ...) whose training rows are `rows`.

    Raises:
        DataError: they can't be images, or the training images are all of one color.
    """
    layout = layout_of(images)
    moved = _moved(images, layout)
    assert moved is not None
    train = moved[rows]
    unit = _unit(train)
    center, spread = zip(*(_moments(train[:, channel], unit) for channel in range(train.shape[1])), strict=True)
    if not any(spread):
        raise DataError("every training image is of one and the same color; there is nothing to learn")
    scale = tuple(value if value > 1e-6 else 1.0 for value in spread)
    _, channels, height, width = moved.shape
    dtype: Literal["uint8", "float32"] = "uint8" if images.dtype == np.uint8 else "float32"
    standard = Standard(unit, center, scale)
    return ImageEncoder(layout, (channels, height, width), dtype, goal.task, goal.classes, target, standard)


def _unit(train: NDArray[Any]) -> float:
    if train.dtype == np.uint8:
        return 1 / 255
    largest = float(np.abs(train.astype(np.float64)).max())
    return 1.0 if 0.5 < largest <= 1 or largest == 0 else 1 / largest


def _moments(pixels: NDArray[Any], unit: float) -> tuple[float, float]:
    if pixels.dtype == np.uint8:
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = np.arange(256) * unit
        center = float((counts * values).sum() / counts.sum())
        return center, float(np.sqrt((counts * (values - center) ** 2).sum() / counts.sum()))
    values = pixels.astype(np.float64) * unit
    return float(values.mean()), float(values.std())
