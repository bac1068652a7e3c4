"""A trial of a study, trained again and compared with what was stored of it: every figure, and its weights.

Decides what it has to be compared by, and what may explain a difference: other versions, another processor, other code.
Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.curve import Curve, Epoch
from tuner.engine import Ended, Engine, Task, Trained
from tuner.errors import DataError, TunerError, UsageError
from tuner.planning import Plan
from tuner.record import TrialRecord
from tuner.space import own_names
from tuner.study import Study
from tuner.tasks import InProcess
from tuner.telling import counted
from tuner.workers import Processes


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a trial trained again. `weights` are the SHA-256 of its networks' weights as they were stored (none
    where an older version made the trial) and `found` those it has now; `differs` names the first figure that isn't the
    same, or nothing; `changed` is what isn't as it was, name: (then, now).
    """

    study: str
    trial: int
    epochs: int
    weights: tuple[str, ...]
    found: tuple[str, ...]
    differs: str
    changed: Mapping[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether the trial came out as it was stored."""
        return not self.differs and self.found == (self.weights or self.found)

    def to_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {**asdict(self), "same": self.same}

    def sentences(self) -> list[str]:
        """Return it in words."""
        what = f"trial {self.trial} of {self.study}, {counted(self.epochs, 'epoch')} trained again"
        if not self.same:
            which = self.differs or "the weights aren't the same, though every figure is"
            return [f"{what}: it differs: {which}", *(f"  {line}" for line in self._changes())]
        if not self.weights:
            return [f"{what}: every figure is the same (an older version stored it, without a checksum of its weights)"]
        if not any(self.weights):
            return [f"{what}: every figure is the same (its training loop names no model whose weights could be)"]
        return [f"{what}: every figure and the weights are the same, byte for byte (SHA-256 {self.weights[0]})"]

    def _changes(self) -> list[str]:
        if not self.changed:
            return ["nothing is known to have changed since: is its code deterministic?"]
        return [f"changed since: {name} {then} -> {now}" for name, (then, now) in self.changed.items()]


def replay(study: Study, plan: Plan, number: int) -> Replayed:
    """Train a trial of a study again, as far as it went, and compare it with what is stored.

    Raises:
        UsageError: there is no such trial, or nothing of it to compare.
        DataError: the data aren't those of the study.
        TunerError: it can't be trained.
    """
    record = _record(study, number)
    if plan.study.fingerprint != study.record.fingerprint:
        raise DataError(f"{plan.space.config.data.source}: is not what it was when the study began; put that back")
    assert record.curve is not None
    curves, found, differs = record.folds or (record.curve,), list[str](), ""
    with TemporaryDirectory() as folder, closing(_engine(plan, Path(folder))) as engine:
        for splits in plan.folds:
            engine.take(splits)
        for fold, curve in enumerate(curves):
            config = plan.space.at(record.all_values)
            epochs, ended = _train(engine, Task(number, config, record.seed, plan.space.folder, fold), len(curve))
            found.append(ended.weights)
            differs = differs or _difference(curve, epochs)
    epochs_run = sum(map(len, curves))
    return Replayed(
        study.name, number, epochs_run, record.weights, tuple(found), differs, study.record.changed(plan.study)
    )


def _record(study: Study, number: int) -> TrialRecord:
    record = study.trials.get(number)
    if record is None:
        last = len(study.trials) - 1
        raise UsageError(f"--trial {number}: there is none such in study {study.name!r}; its trials are 0 to {last}")
    if not record.ended or record.curve is None or not len(record.curve):
        why = "it hasn't ended" if not record.ended else f"it failed before its first epoch: {record.error}"
        raise UsageError(f"--trial {number}: there is nothing to compare, {why}")
    return record


def _engine(plan: Plan, folder: Path) -> Engine:
    """Return an engine of the kind that the study was made with: weights depend on nothing else of it."""
    if own_names(plan.space):
        return Processes(1, folder / "data", folder / "features")
    return InProcess(folder / "features")


def _train(engine: Engine, task: Task, epochs: int) -> tuple[list[Epoch], Ended]:
    engine.start(task)
    found: list[Epoch] = []
    while True:
        event = engine.next()
        if not isinstance(event, Trained):
            raise TunerError(f"trial {task.number} can't be trained again: {getattr(event, 'error', 'no word of it')}")
        found.append(event.epoch)
        if len(found) == epochs:
            break
        engine.go(task.number)
    engine.stop(task.number, None)
    ended = engine.next()
    if not isinstance(ended, Ended):
        raise TunerError(f"trial {task.number} can't be trained again: {getattr(ended, 'error', 'no word of it')}")
    return found, ended


def _difference(stored: Curve, epochs: Sequence[Epoch]) -> str:
    """Return the first figure that isn't as it was stored, or nothing."""
    for was, now in zip(stored.epochs, _stored(stored, epochs), strict=True):
        for name in Epoch.__slots__:
            if name != "seconds" and getattr(was, name) != getattr(now, name):
                return f"epoch {was.number}: {name} {getattr(was, name)} -> {getattr(now, name)}"
    return ""


def _stored(like: Curve, epochs: Sequence[Epoch]) -> tuple[Epoch, ...]:
    """Return epochs as they are read again once they are stored."""
    return Curve.from_json(replace(like, epochs=tuple(epochs)).to_json()).epochs
