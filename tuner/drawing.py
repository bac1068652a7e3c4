"""A curve as a drawing of characters, for a terminal without colours.

The drawing is plotille's; here it is decided what is drawn and in which plain characters.
"""

from __future__ import annotations

import math
import re

from tuner.curve import Curve

WIDTH, HEIGHT, TICK = 72, 14, 10  # plotille writes a number below every tenth column
TRAIN, VAL = "t", "v"
LEAST, MOST = 1e-6, 3.0  # times L_0, the losses that are drawn


def drawn(curve: Curve) -> list[str]:
    """Return train (t) and validation loss (v) by epoch, on a logarithmic scale, with a line at the epoch that was
    kept; nothing for less than two epochs, or where no loss can be drawn.
    """
    import plotille

    points = {marker: _points(curve, part) for marker, part in ((TRAIN, "train"), (VAL, "val"))}
    heights = [height for each in points.values() for _, height in each]
    if len(curve) < 2 or not heights:
        return []
    room = 0.03 * (max(heights) - min(heights)) or 0.05
    end = math.ceil(len(curve) / (WIDTH // TICK)) * WIDTH / TICK  # so that the numbers below are whole
    figure = plotille.Figure()
    figure.width, figure.height, figure.with_colors, figure.origin = WIDTH, HEIGHT, False, False
    figure.x_label, figure.y_label = "epoch", "loss"
    figure.set_x_limits(min_=0, max_=end)
    figure.set_y_limits(min_=min(heights) - room, max_=max(heights) + room)
    for kind in (float, int):
        figure.register_label_formatter(kind, _label)
    for marker, there in points.items():
        if there:
            figure.scatter(*(list(axis) for axis in zip(*there, strict=True)), marker=marker)
    figure.axvline(curve.best / end)
    text = re.sub("[\u2801-\u28ff]", "|", figure.show().replace("\u2800", " "))
    return [line.rstrip() for line in text.splitlines()]


def _points(curve: Curve, part: str) -> list[tuple[int, float]]:
    """Return epoch and logarithm of the loss, where it is neither next to nothing nor far beyond knowing nothing."""
    losses = [(epoch.number, getattr(epoch, part).loss / curve.null_loss) for epoch in curve.epochs]
    return [(number, math.log10(loss * curve.null_loss)) for number, loss in losses if LEAST <= loss <= MOST]


def _label(value: float, chars: int, delta: float, left: bool = False) -> str:
    """Return a number at an axis, `chars` wide; `delta` is what the axis spans. Epochs stand left, losses right."""
    del delta
    return f"{value:.0f}".ljust(chars) if left else f"{10**value:.3g}".rjust(chars)
