"""An encoded example as a person reads it: a picture, a text, the values of a row, the lines of a sequence.

It is made from what the network is given, so that what was lost on the way (a cut text, an unknown word, a value beyond
its limits) is seen to be lost. Knows no source: neither the file nor the user's code is asked again.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.image import ImageEncoder
from tuner.data.sequence import SequenceEncoder
from tuner.data.splits import Encoder
from tuner.data.table import DATE_PIECES, Number, TableEncoder
from tuner.data.text import UNKNOWN, TextEncoder

SIDE = 96  # pixels of a picture
LONGEST = 400  # characters of a text
MOST_VALUES, MOST_CHANNELS, MOST_STEPS = 12, 4, 120
Readable = dict[str, Any]


def readable(encoder: Encoder, x: NDArray[Any]) -> Readable:
    """Return one encoded example as plain JSON, under `picture` (a data URL), `text`, `values` (name: value; with how
    many columns are `left_out`, by what they hold) or `lines` (a list of numbers for each channel).
    """
    shape: Callable[[Any, NDArray[Any]], Readable] = READABLE[encoder.shape.kind]
    return shape(encoder, x)


def _picture(encoder: ImageEncoder, x: NDArray[Any]) -> Readable:
    from PIL import Image

    pixels = x.astype(np.float64) * encoder.standard.unit
    if encoder.dtype != "uint8":  # of any scale: from the darkest to the brightest
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / (high - low) if high > low else pixels * 0
    pixels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    seen = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels[:3], 0, -1)
    image = Image.fromarray(np.ascontiguousarray(seen))
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # a small picture keeps its edges, a large one is made small without jags
    image = image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return {"picture": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")}


def _text(encoder: TextEncoder, x: NDArray[Any]) -> Readable:
    numbers = [int(number) for number in x if number]
    if encoder.tokenizer:
        from tuner.data.pieces import words_of

        said = words_of(encoder.tokenizer, numbers)
    else:
        known = [encoder.known[n - UNKNOWN - 1] if n > UNKNOWN else "\N{HORIZONTAL ELLIPSIS}" for n in numbers]
        said = ("" if encoder.tokens == "character" else " ").join(known)
    return {"text": said if len(said) <= LONGEST else said[:LONGEST] + " \N{HORIZONTAL ELLIPSIS}"}


def _row(encoder: TableEncoder, x: NDArray[Any]) -> Readable:
    """Return the values of a row, those first that lie farthest from the middle of the training rows."""
    numbers = sorted(zip(encoder.numbers, x, strict=False), key=lambda pair: -abs(float(pair[1])))
    plain = {number.column: _number(number, float(value)) for number, value in numbers if number.piece == "value"}
    words = {
        category.column: category.known[int(code) - 1] if code >= 1 else "(unknown)"
        for category, code in zip(encoder.categories, x[len(encoder.numbers) :], strict=True)
    }
    half = max(MOST_VALUES // 2, MOST_VALUES - len(words))
    shown = dict(list(plain.items())[:half])
    said = dict(list(words.items())[: MOST_VALUES - len(shown)])
    dates = {number.column for number in encoder.numbers if number.piece in DATE_PIECES}
    left_out = {"number": len(plain) - len(shown), "category": len(words) - len(said), "date": len(dates)}
    return {"values": shown | said, "left_out": left_out}


def _number(number: Number, stored: float) -> str:
    value = stored * number.scale + number.center
    if number.log_unit:
        value = float(np.sign(value) * np.expm1(abs(value)) * number.log_unit)
    return f"{value:.4g}"


def _lines(encoder: SequenceEncoder, x: NDArray[Any]) -> Readable:
    steps = int(x[:, -1].sum()) if encoder.masked else len(x)
    every = max(1, -(-steps // MOST_STEPS))
    some = x[:steps:every, : min(len(encoder.channels), MOST_CHANNELS)]
    return {"lines": [[float(f"{value:.3g}") for value in channel] for channel in some.T]}


READABLE: dict[str, Callable[[Any, NDArray[Any]], Readable]] = {
    "image": _picture,
    "text": _text,
    "table": _row,
    "sequence": _lines,
}
