"""Which values moved the score and the gap: found where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tuner.grammar import parse_space
from tuner.importances import importances
from tuner.record import TrialRecord
from tuner.scoring import Score

SPACE = parse_space(
    """
data: {source: sklearn:wine}
model: {width: {low: 4, high: 64, log: true}, normalization: {choices: [none, batch, layer]}}
regularization: {dropout: {low: 0.0, high: 0.5}, l2: {low: 1e-4, high: 0.1, log: true, or: 0}}
""",
    Path(),
)


def trials(count: int) -> dict[int, TrialRecord]:
    """Trials whose score follows the width, and whose gap follows whether l2 is off."""
    rng, found = np.random.default_rng(0), {}
    for number in range(count):
        off = bool(rng.random() < 0.5)
        width, l2 = int(rng.integers(4, 65)), 0 if off else float(10 ** rng.uniform(-4, -1))
        values = {
            "model.width": width, "model.normalization": str(rng.choice(["none", "batch", "layer"])),
            "regularization.dropout": float(rng.uniform(0, 0.5)), "regularization.l2": l2,
        }  # fmt: skip
        score = Score(float(np.log(width)) + 0.01 * rng.normal(), 1, "log_loss", 0.0, 0.2 * off, 0.0, 0.0)
        found[number] = TrialRecord(number, "complete", values, 0, score=score)
    return found


def test_what_moved_the_score_and_what_moved_the_gap_are_found_and_told_apart() -> None:
    found = importances(SPACE, trials(80))
    assert found is not None
    assert next(iter(found["score"])) == "model.width"
    assert found["score"]["model.width"] > 0.8
    assert next(iter(found["gap"])) == "regularization.l2"
    assert found["gap"]["regularization.l2"] > 0.8
    for shares in found.values():
        assert set(shares) == set(SPACE.domains)
        assert 0.8 < sum(shares.values()) <= 1.01


def test_what_only_two_values_together_explain_is_put_down_to_neither() -> None:
    def apart(record: TrialRecord) -> Score:
        wide, dropped = record.values["model.width"] > 34, record.values["regularization.dropout"] > 0.25
        return Score(1.0 if wide == dropped else 0.0, 1, "", 0.0, 0.1 * wide, 0.0, 0.0)

    found = importances(SPACE, {n: replace(record, score=apart(record)) for n, record in trials(120).items()})
    assert found is not None
    assert sum(found["score"].values()) < 0.6
    assert found["gap"]["model.width"] > 0.8


def test_the_same_trials_give_the_same_shares() -> None:
    assert importances(SPACE, trials(40)) == importances(SPACE, trials(40))


def test_a_few_trials_or_values_that_move_nothing_say_nothing() -> None:
    assert importances(SPACE, trials(9)) is None
    same = {number: TrialRecord(number, "complete", record.values, 0, score=Score(1.0, 1, "", 1.0, 0.1, 0.0, 0.0))
            for number, record in trials(30).items()}  # fmt: skip
    assert importances(SPACE, same) is None
