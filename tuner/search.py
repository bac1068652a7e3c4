"""search(): ask, train, judge, tell; a generator of trial records.

Decides when a trial starts, when it is judged, whose weights are kept and when the study's budget is spent.
Knows neither how weights are learned (engines train) nor how a database is written (the store does).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.again import Deaths
from tuner.checkpoint import forget_state, state_path
from tuner.config import RunConfig, Stopping, min_epochs
from tuner.confirmation import TOP, contenders, reserved
from tuner.curve import Curve, pooled
from tuner.engine import Ended, Engine, Event, Task, Trained, Unsaved
from tuner.errors import StorageError, TunerError, UserCodeError
from tuner.faults import point
from tuner.metrics import EXAMPLES, packed, unpacked
from tuner.proposing import Proposer, trial_seed
from tuner.ranking import best_record, best_records
from tuner.record import BASELINE, TrialRecord, seconds_kept, seconds_of, shown
from tuner.scoring import metric_of, score, score_at
from tuner.space import Space
from tuner.stopping import Peer, Verdict, alone, finished, judge, judge_folds, over_folds, peer, timed_out
from tuner.store import Store

WRITE_SECONDS, WRITES = 1.0, 20  # between two writings of a trial under way, at least; and of all of them in a second
SAME_ERRORS = 3
ENOUGH, AT_LEAST = 1.5, 0.5  # times the seconds of an epoch, and seconds, for another one


@dataclass(slots=True)
class _Running:
    """A trial under way: its record so far, what of it is written, and how its workers died.

    `verdict` ends the run of the present fold; of the first fold it is kept as `first`.
    """

    record: TrialRecord
    config: RunConfig
    started: float
    verdict: Verdict | None = None
    first: Verdict | None = None
    written: int = 0
    wrote: float = 0.0
    deaths: Deaths = field(default_factory=Deaths)


@dataclass(slots=True)
class Setting:
    """What a search works on: the space, the store, where weights go, and when no trial may start any more.

    `blanks` are the curves of the folds before their first epoch; one, where there is no cross-validation, whose
    networks alone are kept. With `refit` the chosen configuration is trained again on `refit` times as many rows, and
    there must be time for it before the deadline. Confirming the best ones may take up to `confirming` seconds of the
    time before the deadline, of which `loading` are for making the rows.
    """

    space: Space
    store: Store
    blanks: Sequence[Curve]
    task: str
    weights: Path
    trials: int
    refit: float = 0.0
    confirming: float = 0.0
    loading: float = 0.0
    deadline: float | None = None
    records: dict[int, TrialRecord] = field(default_factory=dict)

    def weights_of(self, number: int) -> Path:
        """Return the file for the weights of a trial's kept epoch."""
        return self.weights / f"{number:05d}.safetensors"

    def state_of(self, number: int, fold: int) -> Path:
        """Return the file for the state of a trial's run, while it is under way."""
        return state_path(self.weights.parent, f"{number:05d}", fold)


def search(setting: Setting, engine: Engine) -> Generator[TrialRecord, None, None]:
    """Yield a trial's record after each of its epochs (state "running") and once when it has ended.

    Trials that an earlier run left unfinished are run again first, under their numbers and seeds. When the
    generator is closed, or the deadline passes, trials under way are given back to be run again.

    Raises:
        StorageError: the study, or the weights of a trial, can't be written.
        UserCodeError: the first three trials failed with one and the same error.
    """
    loop = _Loop(setting, engine)
    try:
        while loop.fill():
            event = engine.next(loop.patience())
            if event is None:
                loop.reserve = loop._reserve()  # there may be other slots
            record = None if event is None else loop.handle(event)
            if record is not None:
                yield record
            if loop.out_of_time():
                break
    finally:
        loop.give_back()


class _Loop:
    """The state of one search; each method is one station of a trial's way."""

    def __init__(self, setting: Setting, engine: Engine) -> None:
        self.setting, self.engine = setting, engine
        self.rule = setting.space.config.score
        self.metric = metric_of(self.rule, setting.task)
        self.proposer = Proposer(setting.space, setting.space.config.seed)
        self.records = setting.records
        self.running: dict[int, _Running] = {}
        self.begun: set[int] = set()  # by this process, and not ended
        self.folds = len(setting.blanks)
        self.peers: list[dict[int, Peer]] = [{} for _ in setting.blanks]  # by the mean over the first 1, 2, ... folds
        self.left: list[TrialRecord] = []
        for record in self.records.values():
            self.proposer.remember(record)
            if not record.ended:
                self.left.append(record)
            else:
                self._remember_peer(record)
        self.best = best_record(self.records)
        self.kept = self._leading(self.records.values())
        self.baseline = next((r.number for r in self.records.values() if _is_kept_baseline(r)), None)
        self.reserve = self._reserve()

    def fill(self) -> bool:
        """Start trials while there are slots and budget; tell whether any is under way, or waits for a slot."""
        while len(self.running) < self.engine.slots and not self.out_of_time():
            if self.left:
                record = self.left.pop(0)
                self.begun.add(record.number)
                if not self.setting.store.adopt(record.number):
                    raise StorageError(f"trial {record.number} is being run, or was, by another process; run it again")
            elif len(self.records) < self.setting.trials:
                record = self._propose(len(self.records))
            else:
                break
            self._start(record)
        waits = self.left or len(self.records) < self.setting.trials
        return bool(self.running) or bool(waits and not self.out_of_time())

    def out_of_time(self) -> bool:
        """Tell whether the deadline has passed, or what is left is needed for what comes after the search."""
        return self.setting.deadline is not None and time.monotonic() >= self.setting.deadline - self.reserve

    def patience(self) -> float | None:
        """Return how long to wait for an event: until the deadline, if there is one to keep."""
        if self.setting.deadline is None:
            return None
        return max(0.0, self.setting.deadline - self.reserve - time.monotonic())

    def _reserve(self) -> float:
        """Return the seconds that confirmation, and training the chosen configuration and the baseline again, will take
        of those that are best now.
        """
        setting = self.setting
        if setting.deadline is None:
            return 0.0
        best = contenders(self.records.values(), self.rule.form) if setting.confirming else []
        top = [seconds_kept(record) for record in best]
        slots = self.engine.slots or setting.space.config.budget.workers  # none has come yet
        repeats = reserved(top, slots, setting.confirming - setting.loading)
        return bool(repeats) * setting.loading + repeats + final_seconds(setting, slots)

    def _propose(self, number: int) -> TrialRecord:
        proposal, suggested = self.proposer.propose(number)
        point("after_ask")
        seed = trial_seed(self.setting.space.config.seed, number)
        record = TrialRecord(number, "running", proposal.values, seed, proposal.label, proposal.overrides)
        self.begun.add(number)
        self.setting.store.begin(record, suggested)
        self.records[number] = record
        return record

    def _start(self, record: TrialRecord) -> None:
        now = time.monotonic()
        run = _Running(record, self.setting.space.at(record.all_values), now, wrote=now)
        self.running[record.number] = run
        self._start_fold(run)

    def _start_fold(self, run: _Running) -> None:
        """Start a trial's next fold: its only one, where there is no cross-validation."""
        fold, budget = len(run.record.folds), run.config.training.epochs
        blank = replace(self.setting.blanks[fold], budget=budget, first=min_epochs(budget))
        run.record = replace(run.record, state="running", curve=blank, score=None, verdict=None)
        run.verdict = None
        number, folder = run.record.number, self.setting.space.folder
        spent = sum(epoch.seconds for curve in run.record.folds for epoch in curve.epochs)
        state = self.setting.state_of(number, fold)
        self.engine.start(Task(number, run.config, run.record.seed, folder, fold, state, spent))

    def handle(self, event: Event) -> TrialRecord | None:
        """Take one event of the engine to its end; return the record if there is news to show."""
        run = self.running[event.number]
        if isinstance(event, Trained):
            return self._judge(run, event)
        if isinstance(event, Ended):
            examples = run.record.examples + packed(unpacked(event.examples), math.ceil(EXAMPLES / self.folds))
            weights = (*run.record.weights, event.weights)
            run.record = replace(run.record, model=run.record.model or event.model, examples=examples, weights=weights)
            if run.record.state == "running":
                self._start_fold(run)
                return None
            return self._end(run)
        if isinstance(event, Unsaved):
            raise StorageError(event.error)
        if run.deaths.spare(event, (len(run.record.folds), len(self._curve(run)))):
            self._again(run)
            return None
        run.record = replace(run.record, state="failed", score=None, verdict=None, error=event.error)
        return self._end(run)

    def _judge(self, run: _Running, event: Trained) -> TrialRecord:
        if event.earlier:
            run.started -= sum(epoch.seconds for epoch in event.earlier)
            run.record = replace(run.record, curve=replace(self._curve(run), epochs=event.earlier))
        number, curve = event.number, self._curve(run).then(event.epoch)
        run.record = replace(run.record, curve=curve, seconds=time.monotonic() - run.started)
        run.verdict = self._verdict(run, curve)
        if run.verdict is None:
            self._write_progress(run)
            self.engine.go(number)
            return run.record
        if self.folds > 1:
            self._close_fold(run, curve, run.verdict)
        else:
            rules = self._alone(run, curve)
            run.record = replace(run.record, state=run.verdict.outcome, verdict=run.verdict, rules=rules)
        if run.record.verdict is not None:
            self._score(run)
        keeps = self._keeps(run.record) and self.folds == 1
        if keeps:
            self.setting.store.check()
        self.engine.stop(number, self.setting.weights_of(number) if keeps else None)
        return replace(run.record, state="running")

    def _verdict(self, run: _Running, curve: Curve) -> Verdict | None:
        """Return the verdict that ends the run, if there is one. Later folds run as long as the first one did."""
        if run.first is not None:
            return judge(curve, [], Stopping.off()) or (finished(curve) if len(curve) == run.first.epoch else None)
        peers = [] if run.record.label == BASELINE else list(self.peers[0].values())
        verdict = judge(curve, peers, run.config.rules)
        if verdict is None and len(curve) == curve.budget:
            return finished(curve)
        return timed_out(curve) if verdict is None and self._is_last_chance(run, curve) else verdict

    def _alone(self, run: _Running, curve: Curve) -> dict[str, int | None]:
        """Return where each rule by itself would have ended a run; of `behind`, which was asked epoch by epoch among
        the trials there were then, what it said.
        """
        peers = list(self.peers[0].values())
        if not run.config.rules.behind or run.record.label == BASELINE:
            return alone(curve, peers)
        # at the last epoch another rule may have spoken before it
        last = judge(curve, peers, Stopping.off().model_copy(update={"behind": True}))
        return alone(curve, []) | {"behind": len(curve) if last is not None and last.kind == "behind" else None}

    def _is_last_chance(self, run: _Running, curve: Curve) -> bool:
        """Tell whether no trial is complete and the time is too short for another epoch: better a trial cut short than
        none. Of a cross-validation all folds would be needed.
        """
        if self.setting.deadline is None or self.best is not None or self.folds > 1:
            return False
        kept = sum(epoch.seconds for epoch in curve.epochs[: curve.best])
        an_epoch = max(curve.last.seconds, run.record.seconds / len(curve))
        ahead = max(AT_LEAST, ENOUGH * an_epoch) + self.setting.refit * kept
        return time.monotonic() + ahead >= self.setting.deadline

    def _close_fold(self, run: _Running, curve: Curve, verdict: Verdict) -> None:
        """Add a fold's curve to its trial's; judge the mean of the folds so far, and end the trial if it is time."""
        folds = (*run.record.folds, curve)
        mean, done = pooled(folds), len(folds)
        if run.first is None:
            run.first = verdict
            run.record = replace(run.record, rules=self._alone(run, curve))
        run.record = replace(run.record, folds=folds, curve=mean)
        end: Verdict | None = verdict
        if verdict.outcome == "complete":
            baseline = run.record.label == BASELINE
            peers = [] if baseline else list(self.peers[done - 1].values())
            end = judge_folds(mean, peers, run.config.rules, done, self.folds) if done < self.folds else None
            if done == self.folds:
                end = over_folds(run.first, mean, self.folds)
        if end is not None:
            run.record = replace(run.record, state=end.outcome, verdict=end)

    def _score(self, run: _Running) -> None:
        worth = score(self._curve(run), self.rule, self.metric)
        run.record = replace(run.record, score=worth)
        if run.record.state != "failed" and not math.isfinite(worth.value):
            error = f"{self.metric} of epoch {worth.epoch} is not a finite number, so the trial has no score"
            run.record = replace(run.record, state="failed", verdict=None, score=None, error=error)

    @staticmethod
    def _curve(run: _Running) -> Curve:
        assert run.record.curve is not None
        return run.record.curve

    def _keeps(self, record: TrialRecord) -> bool:
        """Tell whether a trial is worth a file of its weights: the baseline is, and whichever may yet be chosen."""
        if record.state != "complete" or record.score is None:
            return False
        leading = self._leading([*self.kept, record])
        return record.label == BASELINE or any(each.number == record.number for each in leading)

    def _leading(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the trials that the study may come to choose: the best one, or those that are to be confirmed."""
        confirm = self.setting.space.config.budget.confirm
        return best_records(records, TOP if confirm else 1, self.rule.form)

    def _again(self, run: _Running) -> None:
        """Run a trial again after its worker died: the first time, or further on than the time before."""
        self.setting.store.adopt(run.record.number)
        run.record = replace(run.record, folds=(), model={}, examples=b"", weights=())
        run.first, run.written, run.started = None, 0, time.monotonic()
        self._start_fold(run)

    def _write_progress(self, run: _Running) -> None:
        """Write a running trial's scores about once a second, or as often as all may be: the dashboard draws them.

        Of a cross-validation it draws the mean over the folds, which is there at the end.
        """
        pause = max(WRITE_SECONDS, len(self.running) / WRITES)
        if self.folds == 1 and time.monotonic() - run.wrote >= pause:
            self.setting.store.progress(run.record.number, self._unwritten(run))
            run.written, run.wrote = len(self._curve(run)), time.monotonic()

    def _unwritten(self, run: _Running) -> dict[int, float]:
        curve = self._curve(run)
        steps = range(run.written + 1, len(curve) + 1)
        return {step: score_at(curve, step, self.rule, self.metric).value for step in steps}

    def _end(self, run: _Running) -> TrialRecord:
        number = run.record.number
        if run.record.state != "complete":  # which nothing is compared with by its examples
            run.record = replace(run.record, examples=b"")
        point("before_tell")
        mine = self.setting.store.finish(run.record, self._unwritten(run), shown(run.record))
        point("after_tell")
        # as it will be read again, so that a resumed study judges by the very same numbers
        record = TrialRecord.from_json(number, run.record.state, run.record.to_json())
        if not mine:  # what is stored counts, whoever wrote it
            record = self._stored(number)
        del self.running[number]
        self.begun.discard(number)
        for fold in range(self.folds):
            forget_state(self.setting.state_of(number, fold))
        self.records[number] = record
        self.baseline = number if _is_kept_baseline(record) else self.baseline
        self.proposer.tell(record)
        self._remember_peer(record)
        self.best = best_record([record] if self.best is None else [self.best, record])
        before, self.kept = self.kept, self._leading([*self.kept, record])
        kept = {each.number for each in self.kept}
        for each in (*before, record):
            if each.number not in kept and each.label != BASELINE:
                self.setting.weights_of(each.number).unlink(missing_ok=True)
        self.reserve = self._reserve()
        self._give_up()
        return replace(record, leads=record is self.best)

    def _stored(self, number: int) -> TrialRecord:
        record: TrialRecord = next(each for each in self.setting.store.records() if each.number == number)
        if not record.ended:
            raise StorageError(f"trial {number} is being run by another process; run the same command again")
        return record

    def _remember_peer(self, record: TrialRecord) -> None:
        if record.curve is None or not len(record.curve) or record.state not in ("complete", "pruned"):
            return
        folds = record.folds or (record.curve,)
        for done, peers in enumerate(self.peers[: len(folds)], start=1):
            cut_off = record.state == "pruned" and len(folds) == 1
            peers[record.number] = peer(pooled(folds[:done]), cut_off)

    def _give_up(self) -> None:
        """Raise if the first trials all failed, with one and the same error: the next ones would, too."""
        ended = [record for record in self.records.values() if record.ended]
        errors = {record.error if record.state == "failed" else "" for record in ended}
        if len(ended) >= SAME_ERRORS and len(errors) == 1 and "" not in errors:
            raise UserCodeError(f"the first {len(ended)} trials all failed with: {errors.pop()}")

    def give_back(self) -> None:
        """Give back the trials under way, so that none is left running."""
        for number, run in self.running.items():
            self.records[number] = replace(run.record, state="waiting")
        self.running.clear()
        # not only those of `running`: Ctrl-C may have come between the writing of a trial and its start
        with suppress(StorageError), self.setting.store.at_once():  # else the next run takes it: its process is gone
            for record in self.setting.store.records() if self.begun else ():
                if record.state == "running" and record.number in self.begun:
                    self.setting.store.release(record.number)


def final_seconds(setting: Setting, slots: int) -> float:
    """Return the seconds that training the chosen configuration and the baseline again takes, where that is wanted, and
    of a cross-validation the chosen one's folds; or the chosen one alone where its network may not have been kept:
    which trials tie is only known in the end.
    """
    best = best_record(setting.records)
    baseline = next((record for record in setting.records.values() if _is_kept_baseline(record)), None)
    if not setting.refit:
        lost = setting.space.config.score.form == "tiebreak"
        return seconds_kept(best) if best is not None and setting.confirming and lost else 0.0
    finalists = {record.number: record for record in (best, baseline) if record is not None}
    last = [setting.refit * seconds_kept(record) for record in finalists.values()]
    if best is not None and len(setting.blanks) > 1:
        last += [seconds_kept(best)] * len(setting.blanks)
    return seconds_of(last, slots)


def _is_kept_baseline(record: TrialRecord) -> bool:
    return record.label == BASELINE and record.state == "complete"


def refuse_failures(records: Iterable[TrialRecord], own_code: bool) -> None:
    """Raise if trials have ended and not one of them was of use.

    Raises:
        UserCodeError: every trial failed, at least one by an error or with a model of the user's own.
        TunerError: every trial diverged.
    """
    ended = [record for record in records if record.ended]
    if not ended or any(record.state != "failed" for record in ended):
        return
    error = next((record.error for record in ended if record.error), "")
    if error:
        raise UserCodeError(f"every trial failed ({len(ended)} of {len(ended)}), the first with: {error}")
    kind = UserCodeError if own_code else TunerError
    raise kind(f"every trial diverged ({len(ended)} of {len(ended)}); trial {ended[0].number}: {ended[0].reason}")
