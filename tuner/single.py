"""train_one(): one configuration, trained without a study, judged by its own curve alone."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.again import Again, retrain
from tuner.best import MODEL
from tuner.curve import Epoch
from tuner.engine import Ended, Task, Trained
from tuner.errors import TunerError, UsageError, UserCodeError
from tuner.files import write_best
from tuner.grammar import Override, read_space
from tuner.planning import Plan, blank_curve, plan_of
from tuner.record import TrialRecord
from tuner.scoring import score
from tuner.stopping import alone, finished, judge
from tuner.tasks import InProcess
from tuner.telling import number


def train_one(
    path: Path, overrides: Sequence[Override], out: Path | None, say: Callable[[str], None]
) -> tuple[TrialRecord, str]:
    """Train a configuration; return its record and task. With `out`, write its best.yaml and model there.

    The seed is the configuration's own, and the test set stays closed.

    Raises:
        UsageError: the file has ranges.
        UserCodeError: code of the user's own failed.
        TunerError: the training diverged.
    """
    space = read_space(path, overrides)
    if space.domains:
        names = ", ".join(list(space.domains)[:5]) + (", ..." if len(space.domains) > 5 else "")
        raise UsageError(f"{path}: has ranges ({names}); `tuner run` searches them, -S key=value fixes one")
    plan = plan_of(space)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / MODEL
        record = _train(plan, weights, say)
        if record.state != "complete":
            raise TunerError(f"there is no model to keep: {record.reason}")
        if out is not None:
            write_best(plan, out, record, weights if record.has_weights else None, None)
            say(f"wrote {out / 'best.yaml'}" + f" and {out / MODEL}" * record.has_weights)
    return record, plan.splits.shape.task


def _train(plan: Plan, weights: Path, say: Callable[[str], None]) -> TrialRecord:
    config, started = plan.space.config, time.monotonic()
    engine = InProcess()
    for splits in plan.divisions:
        engine.take(splits)
    curve, verdict = blank_curve(config, plan.folds[0]), None
    try:
        engine.start(Task(0, config, config.seed, plan.space.folder))
        while verdict is None:
            event = engine.next()
            if not isinstance(event, Trained):
                raise UserCodeError(getattr(event, "error", "training ended without a word"))
            curve = curve.then(event.epoch)
            say(_epoch_line(event.epoch, curve.budget))
            verdict = judge(curve, [], config.rules) or (finished(curve) if len(curve) == curve.budget else None)
            if verdict is None:
                engine.go(0)
        engine.stop(0, None if plan.refit else weights)
        ended = engine.next()
        if not isinstance(ended, Ended):
            raise TunerError(f"the weights can't be written: {getattr(ended, 'error', '')}")
        if plan.refit and verdict.outcome == "complete":
            say(f"training {verdict.kept} epochs again on {len(plan.splits.train)} rows")
            task = Task(0, config, config.seed, plan.space.folder, len(plan.divisions) - 1)
            deque(retrain(engine, [Again(task, verdict.kept, weights)]), maxlen=0)
    finally:
        engine.close()
    worth = score(curve, config.score, plan.study.metric)
    model = ended.model
    seconds, rules = time.monotonic() - started, alone(curve, [])
    return TrialRecord(
        0,
        verdict.outcome,
        {},
        config.seed,
        "",
        {},
        curve,
        worth,
        verdict,
        "",
        model,
        seconds,
        rules=rules,
        weights=(ended.weights,),
    )


def _epoch_line(epoch: Epoch, budget: int) -> str:
    train, val = number(epoch.train.loss), number(epoch.val.loss)
    return f"epoch {epoch.number:>3} of {budget}: train loss {train}, validation loss {val}"
