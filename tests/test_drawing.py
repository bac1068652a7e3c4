"""A curve as characters: what is drawn where, and that nothing breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tuner.config import Score
from tuner.curve import Curve
from tuner.drawing import drawn
from tuner.record import TrialRecord
from tuner.scoring import score
from tuner.showing import trial_text
from tuner.stopping import finished

FALLING, RISING = [1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015], [1.0, 0.6, 0.5, 0.45, 0.5, 0.6, 0.7]
LOSSES = st.floats(0.0, 50.0) | st.just(math.nan) | st.just(math.inf)


def columns(lines: list[str], letter: str) -> dict[int, int]:
    """Where a letter stands in the drawing: column -> line."""
    field = [line[line.index("|") + 2 :] for line in lines[1:-2]]
    return {x: y for y, line in enumerate(field) for x, sign in enumerate(line) if sign == letter}


def test_train_falls_validation_rises_again_and_a_line_marks_the_epoch_kept(make_curve: Callable[..., Curve]) -> None:
    curve = make_curve(RISING, FALLING, budget=7)
    lines = drawn(curve)
    train, val, line = (columns(lines, letter) for letter in "tv|")
    heights = [y for _, y in sorted(train.items())]
    assert heights == sorted(heights)
    assert heights[-1] > heights[0]
    lowest = max(val, key=lambda x: val[x])
    assert min(val) < lowest < max(val)
    assert len(line) == 1
    assert abs(next(iter(line)) / max(val) - curve.best / len(curve)) < 0.15
    assert "(epoch)" in lines[-2]


@given(st.lists(st.tuples(LOSSES, LOSSES), min_size=1, max_size=300))
def test_any_curve_is_drawn_in_plain_characters_or_not_at_all(make_curve: Any, pairs: Any) -> None:
    curve = make_curve([val for val, _ in pairs], [train for _, train in pairs], budget=300)
    lines = drawn(curve)
    assert all(line.isascii() and len(line) <= 100 for line in lines)
    assert len(lines) in (0, 18)
    if len(pairs) < 2:
        assert lines == []


def test_the_life_of_a_trial_shows_its_curve(make_curve: Callable[..., Curve]) -> None:
    curve = make_curve(RISING, FALLING, budget=7)
    worth = score(curve, Score(), "log_loss")
    record = TrialRecord(0, "complete", {}, 0, curve=curve, score=worth, verdict=finished(curve), rules={"overfit": 6})
    text = trial_text(record, "classification")
    assert f"t: train, v: validation, |: the epoch kept ({curve.best})" in text
    assert "By itself each rule would have ended it: overfit at epoch 6" in text
