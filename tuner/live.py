"""A study as it runs, on a terminal: who trains what, what was best so far, how long it will take.

Decides what stands on the screen and how it looks there; where there is no terminal, `terminal`'s lines are all. A
trial that has ended is a line that stays, above what changes. Knows no storage: it is told of events and asks nothing.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner import terminal
from tuner.confirmation import ROUNDS, TOP, Repeat
from tuner.curve import Curve
from tuner.record import BASELINE, StudyRecord, TrialRecord
from tuner.reporting import epochs, figures
from tuner.space import Space
from tuner.telling import clean, number

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK, NARROW_SPARK = 18, 12  # epochs of a small curve
CURVES, NARROW_CURVE = f"train, val loss: last {SPARK} epochs", "val loss"
PER_SECOND = 4
NARROW = 112  # columns that the line of a trial needs with all its figures
WIDE = 106  # columns that a terminal needs for the small curves beside the numbers
TRAIN, VAL = "blue", "yellow"


def wanted(environment: Mapping[str, str] = os.environ, terminal: bool | None = None) -> bool:
    """Tell whether progress is to be drawn: stderr is a terminal that can do it, and nobody asked for plain text."""
    there = Console(stderr=True).is_terminal if terminal is None else terminal
    return there and environment.get("TERM") != "dumb" and not environment.get("NO_COLOR")


class Screen:
    """Shows a study while it runs. Use it in a `with` statement and tell it of every event."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.began = time.monotonic()
        self.study: StudyRecord | None = None
        self.trials = self.workers = 0
        self.running: dict[int, TrialRecord] = {}
        self.ended: dict[int, TrialRecord] = {}
        self.repeats = 0
        self.leader: TrialRecord | None = None
        self.left: float | None = None
        self.told = 0.0
        self.live = Live(
            get_renderable=self.drawn, console=self.console, refresh_per_second=PER_SECOND, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.__exit__(kind, value, trace)

    def begin(self, study: StudyRecord, space: Space, trials: int, earlier: Sequence[TrialRecord] = ()) -> None:
        """Say which study runs, with what ended in an earlier run."""
        self.study, self.trials, self.workers = study, trials, space.config.budget.workers
        self.ended = {record.number: record for record in earlier}
        complete = [record for record in earlier if record.state == "complete" and record.score is not None]
        self.leader = max(complete, key=_worth, default=None)
        for line in terminal.run_head(study, space, trials, self.console.width < NARROW):
            self.console.print(Text(line))

    def tell(self, news: TrialRecord | Repeat, left: float | None) -> None:
        """Take in an event."""
        self.left, self.told = left, time.monotonic()
        if isinstance(news, Repeat):
            self.repeats += 1
            self.running = {}
            self.console.print(Text(terminal.repeat_line(news, left, narrow=self.console.width < NARROW)))
        elif not news.ended:
            self.running = {**self.running, news.number: news}
        else:
            self.running = {number: record for number, record in self.running.items() if number != news.number}
            self.ended[news.number] = news
            self.leader = news if news.leads else self.leader
            assert self.study is not None
            self.console.print(Text(terminal.trial_line(news, self.study, left, self.console.width < NARROW)))

    def drawn(self) -> RenderableType:
        """Return what changes: the trials under way, and how the study stands."""
        if self.study is None:
            return Text(f"reading the data ... {time.monotonic() - self.began:.0f} s", style="dim")
        parts: list[RenderableType] = [Text("")]
        running = sorted(self.running.values(), key=lambda record: record.number)
        if running:
            parts.append(self._under_way(running))
        return Group(*parts, *self._standing())

    def _under_way(self, records: Sequence[TrialRecord]) -> Table:
        assert self.study is not None
        metric = self.study.metric
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        wide = self.console.width >= WIDE
        for name in ("trial", "", "epoch", f"train {metric}", f"val {metric}", "gap", CURVES if wide else NARROW_CURVE):
            table.add_column(name, justify="left" if name in ("", CURVES, NARROW_CURVE) else "right", no_wrap=True)
        for record in records:
            curve = record.curve
            if curve is None or not len(curve):
                continue
            train, val = (_figure(getattr(curve.last, part), metric) for part in ("train", "val"))
            gap = (curve.last.val.loss - curve.last.train.loss) / curve.null_loss
            fold = f" fold {len(record.folds) + 1}" if self.study.data.get("folds") else ""
            cells = [str(record.number), clean(record.label) + fold, f"{len(curve)}/{curve.budget}"]
            table.add_row(*cells, *map(number, (train, val, gap)), _sparks(curve, wide))
        return table

    def _standing(self) -> list[Text]:
        assert self.study is not None
        ended = list(self.ended.values())
        lines = [Text(f"{len(ended)}/{self.trials} trials" + (f", {self.repeats}/{self._confirming()} confirmations" if
                 self.repeats else "") + f", {self._saved(ended)}; {self._times()}", style="bold")]  # fmt: skip
        if self.leader is not None:
            lines.append(Text(f"best so far {self._worth_of(self.leader)}{self._baseline(ended)}"))
        kinds = Counter(record.verdict.kind if record.verdict else "failed" for record in ended)
        if kinds:
            last = clean(ended[-1].reason)
            lines.append(Text(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) + f"; last: {last}",
                              style="dim", overflow="ellipsis", no_wrap=True))  # fmt: skip
        return lines

    def _confirming(self) -> int:
        complete = sum(record.state == "complete" for record in self.ended.values())
        return ROUNDS * min(TOP, complete)

    def _saved(self, ended: Sequence[TrialRecord]) -> str:
        assert self.study is not None
        found = epochs(ended, self.study.data.get("folds", 1))
        saved = 1 - found["run"] / found["budgeted"] if found["budgeted"] else None
        return "no epochs yet" if saved is None else f"{saved:.0%} of epochs saved"

    def _times(self) -> str:
        to_come = None if self.left is None else max(0.0, self.left - (time.monotonic() - self.told))
        left = "" if to_come is None else f", about {terminal.roughly(to_come)} left"
        return f"{terminal.duration(round(time.monotonic() - self.began))}{left}"

    def _worth_of(self, record: TrialRecord) -> str:
        assert self.study is not None
        found = figures(record, self.study.data["task"])
        assert found is not None
        metric = self.study.metric
        return f"trial {record.number}: score {number(found['score'])}, val {metric} {number(found['val'].get(metric))}"

    def _baseline(self, ended: Sequence[TrialRecord]) -> str:
        base = next((r for r in ended if r.label == BASELINE and r.state == "complete" and r.score), None)
        if base is None or base is self.leader:
            return ""
        return f"; baseline {self._worth_of(base)}"


def _worth(record: TrialRecord) -> tuple[float, int]:
    return (record.score.value if record.score is not None else float("-inf"), -record.number)


def _figure(measure: Any, metric: str) -> float | None:
    if metric in ("log_loss", "mse") and metric not in measure.metrics:
        return float(measure.loss)
    found = measure.metrics.get(metric)
    return None if found is None else float(found)


def _sparks(curve: Curve, wide: bool = True) -> Text:
    """Return train and validation loss of the last epochs as two small curves, each on a scale of its own: how far they
    are from each other is told beside them, and on one scale the upper one would be a bar. Where there is little room,
    validation alone.
    """
    if not wide:
        return Text(_spark([epoch.val.loss for epoch in curve.epochs[-NARROW_SPARK:]]), VAL)
    epochs = curve.epochs[-SPARK:]
    train, val = [epoch.train.loss for epoch in epochs], [epoch.val.loss for epoch in epochs]
    return Text.assemble((_spark(train), TRAIN), " ", (_spark(val), VAL))


def _spark(losses: Sequence[float]) -> str:
    known = [loss for loss in losses if math.isfinite(loss)]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = math.log if low > 0 else float  # by its logarithm a loss is seen to fall for longer
    span = scale(high) - scale(low)
    inside = [min(max(loss, low), high) if loss == loss else high for loss in losses]
    places = [(scale(loss) - scale(low)) / span if span else 0.0 for loss in inside]
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(place * len(BLOCKS)))] for place in places)
