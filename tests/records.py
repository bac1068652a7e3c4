"""Records as a test needs them, made from those of a real study."""

from __future__ import annotations

from dataclasses import replace

from tuner.record import TrialRecord


def with_gap(record: TrialRecord, gap: float, se: float) -> TrialRecord:
    """Return a trial with another gap at its kept epoch, and another standard error of it, in units of L_0."""
    assert record.curve is not None
    assert record.score is not None
    curve, kept = record.curve, record.curve[record.score.epoch]
    train = replace(kept.train, loss=kept.val.loss - gap * curve.null_loss)
    new = replace(kept, train=train, se_gap=se * curve.null_loss)
    epochs = tuple(new if epoch is kept else epoch for epoch in curve.epochs)
    return replace(record, curve=replace(curve, epochs=epochs), score=replace(record.score, gap=gap, noise=se))
