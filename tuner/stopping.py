"""Curve (+ the other trials' curves) -> Verdict, or None to go on. Pure.

Four rules, in this order, after the first max(5, 10 % of the cap) epochs:

    diverged  a loss that isn't finite, or L_val > 3 L_0 for 3 epochs                      -> failed
    overfit   mean(L_val[t-2..t]) > 1.10 L_val(t*), by more than 0.02 L_0, all three after t*, while the training
              probe lies below its value at t*, and the paired rise over the validation examples exceeds 2 SE
              -> stopped; pruned if behind its peers at t*, else complete with epoch t* (generalization loss after
              Prechelt 1998)
    plateau   t - t* >= max(10, 15 % of the cap)                                             -> complete at t*
    behind    at least 3 peers, best so far not among the best 40 % of the peers' best so far at the same epoch, and
              not within 1 SE of the leader                                                  -> pruned

The constants were chosen, and their cost measured on other data, by replaying recorded curves (benchmarks/RESULTS.md).
A verdict depends only on the past, and one without a reason can't be made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tuner.config import Stopping
from tuner.curve import Curve

Kind = Literal["diverged", "overfit", "plateau", "behind", "finished"]
Outcome = Literal["complete", "pruned", "failed"]
KINDS: tuple[Kind, ...] = ("overfit", "plateau", "behind", "diverged", "finished")

RISE = 0.10
FLOOR = 0.02
PAIRED_SE = 2.0
DIVERGED = 3.0
MIN_PEERS = 3
AHEAD = 2 / 5  # the share of the peers that a trial must be among
PATIENCE, PATIENCE_SHARE = 10, 0.15


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why and how a trial ended: the rule, the epoch it ended at, the epoch kept, what was compared, a sentence."""

    kind: Kind
    outcome: Outcome
    epoch: int
    kept: int
    numbers: Mapping[str, float]
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("a verdict needs a reason")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        numbers = {name: value if math.isfinite(value) else str(value) for name, value in self.numbers.items()}
        return {name: getattr(self, name) for name in self.__slots__} | {"numbers": numbers}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**doc, "numbers": {name: float(value) for name, value in doc["numbers"].items()}})


@dataclass(frozen=True, slots=True)
class Peer:
    """Another trial: its smallest validation loss up to each epoch, and whether it was pruned there."""

    lowest: tuple[float, ...]
    pruned: bool

    def at(self, epoch: int) -> float | None:
        """Return the best so far at an epoch, or at the trial's end; None for one pruned before it."""
        if self.pruned and epoch > len(self.lowest):
            return None
        return self.lowest[min(epoch, len(self.lowest)) - 1] if self.lowest else None


def peer(curve: Curve, pruned: bool) -> Peer:
    """Return what other trials compare themselves with."""
    return Peer(tuple(epoch.standing.lowest for epoch in curve.epochs), pruned)


def judge(curve: Curve, peers: Sequence[Peer], rules: Stopping) -> Verdict | None:
    """Return the verdict that ends a trial after its newest epoch, or None to go on."""
    if len(curve) < 2:
        return None
    if (verdict := _diverged(curve)) is not None:
        return verdict
    if len(curve) < curve.first:
        return None
    if rules.overfit and (verdict := _overfit(curve, peers)) is not None:
        return verdict
    if rules.plateau and (verdict := _plateau(curve)) is not None:
        return verdict
    return _behind(curve, peers) if rules.behind else None


def alone(curve: Curve, peers: Sequence[Peer]) -> dict[str, int | None]:
    """Return the epoch at which each rule would have ended a run, had it been the only one; None if not up to the
    curve's end. Rule `behind` is asked only if there are peers.
    """
    found: dict[str, int | None] = dict.fromkeys(("overfit", "plateau", *(("behind",) if peers else ())))
    for kind in found:
        rules = Stopping.off().model_copy(update={kind: True})
        for t in range(2, len(curve) + 1):
            verdict = judge(replace(curve, epochs=curve.epochs[:t]), peers, rules)
            if verdict is not None and verdict.kind == kind:
                found[kind] = t
                break
    return found


def judge_folds(curve: Curve, peers: Sequence[Peer], rules: Stopping, done: int, folds: int) -> Verdict | None:
    """Return the verdict that prunes a trial after `done` of its folds, or None to go on.

    `curve` is the mean over the folds done, and so is that of each peer. The test is that of rule `behind`.
    """
    found = _comparison(curve, len(curve), peers) if rules.behind else None
    if found is None:
        return None
    reason = (
        f"pruned after fold {done} of {folds}: best mean validation loss {found['best_so_far']:.3g} isn't among the "
        f"best 40 % of {found['peers']:.0f} trials there ({found['limit']:.3g}; leader {found['leader']:.3g})"
    )
    return Verdict("behind", "pruned", len(curve), curve.best, {**found, "folds": float(done)}, reason)


def over_folds(first: Verdict, curve: Curve, folds: int) -> Verdict:
    """Return the verdict of a trial that went through all its folds: why the first one ended, and what was kept."""
    kept = curve.best
    reason = (
        f"{len(curve)} epochs in each of {folds} folds ({_ended_by(first)}), kept epoch {kept}: "
        f"mean validation loss {curve[kept].val.loss:.3g}"
    )
    numbers = {"val_loss": curve[kept].val.loss, "folds": float(folds)}
    numbers |= {f"fold_1.{name}": value for name, value in first.numbers.items()}
    return Verdict(first.kind, "complete", len(curve), kept, numbers, reason)


def _ended_by(first: Verdict) -> str:
    return "the whole budget" if first.kind == "finished" else f"fold 1: {first.kind}"


def finished(curve: Curve) -> Verdict:
    """Return the verdict of a trial that ran its whole budget; of a single epoch even that may have diverged."""
    kept = curve.best
    if (verdict := _not_finite(curve)) is not None:
        return verdict
    reason = f"ran all {len(curve)} epochs, kept epoch {kept}: validation loss {curve[kept].val.loss:.3g}"
    return Verdict("finished", "complete", len(curve), kept, {"val_loss": curve[kept].val.loss}, reason)


def timed_out(curve: Curve) -> Verdict:
    """Return the verdict of a trial that is ended by the study's time limit, with its best epoch."""
    whole = finished(curve)
    if whole.outcome == "failed":
        return whole
    reason = whole.reason.replace(f"ran all {len(curve)} epochs", f"the time was up after epoch {len(curve)}")
    return Verdict(whole.kind, whole.outcome, whole.epoch, whole.kept, whole.numbers, reason)


def _diverged(curve: Curve) -> Verdict | None:
    if (verdict := _not_finite(curve)) is not None:
        return verdict
    t, last = len(curve), curve.last
    if t < max(curve.first, 3) or min(epoch.val.loss for epoch in curve.epochs[-3:]) <= DIVERGED * curve.null_loss:
        return None
    ratio = last.val.loss / curve.null_loss
    reason = f"diverged at epoch {t}: for 3 epochs the validation loss was over 3 times that of knowing nothing"
    numbers = {"val_loss": last.val.loss, "ratio": ratio}
    return Verdict("diverged", "failed", t, curve.best, numbers, f"{reason} ({ratio:.3g})")


def _not_finite(curve: Curve) -> Verdict | None:
    """Return the verdict on a loss that isn't finite; the one before too, as the first epoch gets no verdict."""
    t = len(curve)
    for epoch in curve.epochs[-2:]:
        if not (math.isfinite(epoch.val.loss) and math.isfinite(epoch.train.loss)):
            numbers = {"train_loss": epoch.train.loss, "val_loss": epoch.val.loss}
            reason = (
                f"diverged at epoch {epoch.number}: the loss is not a finite number; a lower learning rate may help"
            )
            return Verdict("diverged", "failed", t, curve.best, numbers, reason)
    return None


def _overfit(curve: Curve, peers: Sequence[Peer]) -> Verdict | None:
    t, kept = len(curve), curve.best
    best, last = curve[kept], curve.last
    if t - kept < 3:  # the mean of the last three would include the best epoch itself
        return None
    level = sum(epoch.val.loss for epoch in curve.epochs[-3:]) / 3
    rise = level / best.val.loss - 1 if best.val.loss > 0 else math.inf
    errors = last.rise / last.rise_se if last.rise_se > 0 else math.inf if last.rise > 0 else 0.0
    matters = level - best.val.loss > FLOOR * curve.null_loss
    if not (rise > RISE and matters and last.train.loss < best.train.loss and errors > PAIRED_SE):
        return None
    fell = 1 - last.train.loss / best.train.loss if best.train.loss > 0 else math.inf
    behind = _comparison(curve, kept, peers)
    numbers = {"rise": rise, "val_loss_best": best.val.loss, "val_loss": level, "se": errors, "train_fell": fell}
    reason = (
        f"stopped at epoch {t}, kept epoch {kept}: validation loss rose {_share(rise, level - best.val.loss)} over the "
        f"{best.val.loss:.3g} there{f' ({errors:.1f} SE)' if math.isfinite(errors) else ''} while training loss fell "
        f"{_share(fell, best.train.loss - last.train.loss)}"
    )
    if behind is not None:
        numbers |= behind
        reason += f"; pruned, not among the best 40 % there ({behind['limit']:.3g})"
    return Verdict("overfit", "complete" if behind is None else "pruned", t, kept, numbers, reason)


def _share(share: float, change: float) -> str:
    """Return a change as a share, or as it is where it is one of nothing."""
    return f"{share:.0%}" if math.isfinite(share) else f"by {change:.3g}"


def _plateau(curve: Curve) -> Verdict | None:
    t, kept = len(curve), curve.best
    patience = max(PATIENCE, math.ceil(PATIENCE_SHARE * curve.budget))
    if t - kept < patience:
        return None
    reason = f"stopped at epoch {t}, kept epoch {kept}: smoothed validation loss has not improved for {t - kept} epochs"
    numbers = {"epochs": float(t - kept), "patience": float(patience), "val_loss": curve[kept].val.loss}
    return Verdict("plateau", "complete", t, kept, numbers, reason)


def _behind(curve: Curve, peers: Sequence[Peer]) -> Verdict | None:
    t = len(curve)
    found = _comparison(curve, t, peers)
    if found is None:
        return None
    reason = (
        f"pruned at epoch {t}: best validation loss so far {found['best_so_far']:.3g} isn't among the best 40 % of "
        f"{found['peers']:.0f} trials there ({found['limit']:.3g}; leader {found['leader']:.3g})"
    )
    return Verdict("behind", "pruned", t, curve.best, found, reason)


def _comparison(curve: Curve, t: int, peers: Sequence[Peer]) -> dict[str, float] | None:
    """Return the numbers if the trial is behind its peers at epoch t, else None."""
    values = sorted(value for other in peers if (value := other.at(t)) is not None)
    if len(values) < MIN_PEERS:
        return None
    own, limit, leader = curve[t].standing.lowest, _quantile(values, AHEAD), values[0]
    if own <= limit or own <= leader + curve[t].se_val:
        return None
    return {
        "best_so_far": own, "limit": limit, "leader": leader, "se": curve[t].se_val, "peers": float(len(values)),
    }  # fmt: skip


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted values lies, between two of them in proportion."""
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    if place == low or values[low] == values[high]:  # also where both are infinite
        return values[low]
    return values[low] + (place - low) * (values[high] - values[low])
