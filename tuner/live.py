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
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner import terminal
from tuner.confirmation import ROUNDS, Repeat, Repeating
from tuner.curve import Curve
from tuner.record import BASELINE, StudyRecord, TrialRecord
from tuner.reporting import epochs, figures
from tuner.space import Space
from tuner.telling import clean, number

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK, NARROW_SPARK = 18, 12  # epochs of a small curve
CURVES, CURVE = f"train, val loss: last {SPARK} epochs", "val loss"
COLUMNS = ("trial", "", "epoch", "train", "val", "gap", CURVES, CURVE)  # of what is under way
LEFT_OUT = ({CURVE}, {CURVES}, {CURVES, CURVE}, {CURVES, CURVE, ""}, {CURVES, CURVE, "", "train"})  # the less room
BETWEEN = 2  # characters between two columns
PER_SECOND = 4
NARROW = 112  # columns that the line of a trial needs with all its figures
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
        self.repeating: dict[tuple[int | None, ...], Repeating] = {}
        self.ended: dict[int, TrialRecord] = {}
        self.repeats = self.confirmations = 0
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

    def begin(
        self, study: StudyRecord, space: Space, trials: int, earlier: Sequence[TrialRecord] = (), repeats: int = 0
    ) -> None:
        """Say which study runs, with what ended in an earlier run: trials, and so many repeats of its confirmation."""
        self.repeats = repeats
        self.study, self.trials, self.workers = study, trials, space.config.budget.workers
        self.ended = {record.number: record for record in earlier}
        complete = [record for record in earlier if record.state == "complete" and record.score is not None]
        self.leader = max(complete, key=_worth, default=None)
        for line in terminal.run_head(study, space, trials, self.console.width < NARROW):
            self.console.print(Text(line))

    def warn(self, line: str) -> None:
        """Say what is wrong, in a line that stays."""
        self.console.print(Text(line))

    def tell(self, news: TrialRecord | Repeat | Repeating, left: float | None) -> None:
        """Take in an event."""
        self.left, self.told = left, time.monotonic()
        if isinstance(news, Repeating):
            self.running, self.confirmations = {}, news.of or self.confirmations
            self.repeating = {**self.repeating, (news.trial, news.round, news.fold): news}
            if news.over:
                del self.repeating[news.trial, news.round, news.fold]
        elif isinstance(news, Repeat):
            self.repeats += 1
            self.repeating.pop((news.trial, news.round, None), None)
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
        rows = [self._trial_row(self.running[number]) for number in sorted(self.running)]
        rows += [self._repeat_row(each) for each in self.repeating.values()]
        known = [row for row in rows if row is not None]
        return Group(Text(""), *([self._under_way(known)] if known else []), *self._standing())

    def _trial_row(self, record: TrialRecord) -> list[str | Text] | None:
        assert self.study is not None
        fold = f" fold {len(record.folds) + 1}" if self.study.data.get("folds") else ""
        return self._row(record.number, clean(record.label) + fold, record.curve)

    def _repeat_row(self, news: Repeating) -> list[str | Text] | None:
        what = "on all rows" if news.fold is None else f"fold {news.fold + 1}"
        what = what if news.round is None else f"confirm {news.round + 1}/{ROUNDS}"
        return self._row(news.trial, what, replace(news.curve, budget=news.kept))

    def _row(self, trial: int, label: str, curve: Curve | None) -> list[str | Text] | None:
        """Return what is to stand in each of COLUMNS; None before the first epoch has ended."""
        if curve is None or not len(curve) or self.study is None:
            return None
        train, val = (_figure(getattr(curve.last, part), self.study.metric) for part in ("train", "val"))
        gap = (curve.last.val.loss - curve.last.train.loss) / curve.null_loss
        epoch = f"{len(curve)}/{curve.budget}"
        return [
            str(trial),
            label,
            epoch,
            *map(number, (train, val, gap)),
            *(_sparks(curve, both) for both in (True, False)),
        ]

    def _under_way(self, rows: Sequence[Sequence[str | Text]]) -> Table:
        """Return what is trained, as a table of those columns that there is room for: none of them is cut."""
        assert self.study is not None
        heads = [f"{name} {self.study.metric}" if name in ("train", "val") else name for name in COLUMNS]
        widths = [max(len(head), *map(len, cells)) for head, *cells in zip(heads, *rows, strict=True)]
        for left_out in LEFT_OUT:
            shown = [i for i, name in enumerate(COLUMNS) if name not in left_out]
            if sum(widths[i] + BETWEEN for i in shown) - BETWEEN <= self.console.width:
                break
        table = Table(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0), header_style="dim")
        for i in shown:
            justify: Any = "left" if COLUMNS[i] in ("", CURVES, CURVE) else "right"
            table.add_column(heads[i], justify=justify, no_wrap=True)
        for row in rows:
            table.add_row(*(row[i] for i in shown))
        return table

    def _standing(self) -> list[Text]:
        assert self.study is not None
        ended = list(self.ended.values())
        repeats = f", {self.repeats}/{self.confirmations} confirmations" if self.confirmations else ""
        said = f"{len(ended)}/{self.trials} trials{repeats}, {self._saved(ended)}; {self._times()}"
        lines = [Text(said, style="bold")]
        if self.leader is not None:
            lines.append(Text(f"best so far {self._worth_of(self.leader)}{self._baseline(ended)}"))
        kinds = Counter(record.verdict.kind if record.verdict else "failed" for record in ended)
        if kinds:
            last, counts = ended[-1], ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            lines.append(Text(f"{counts}; trial {last.number}: {clean(last.reason)}", style="dim"))
        return lines

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
        name = f"trial {record.number}" + f" ({BASELINE})" * (record.label == BASELINE)
        return f"{name}: score {number(found['score'])}, val {metric} {number(found['val'].get(metric))}"

    def _baseline(self, ended: Sequence[TrialRecord]) -> str:
        base = next((r for r in ended if r.label == BASELINE and r.state == "complete" and r.score), None)
        if base is None or base is self.leader:
            return ""
        return f"; {self._worth_of(base)}"


def _worth(record: TrialRecord) -> tuple[float, int]:
    return (record.score.value if record.score is not None else float("-inf"), -record.number)


def _figure(measure: Any, metric: str) -> float | None:
    if metric in ("log_loss", "mse") and metric not in measure.metrics:
        return float(measure.loss)
    found = measure.metrics.get(metric)
    return None if found is None else float(found)


def _sparks(curve: Curve, both: bool = True) -> Text:
    """Return train and validation loss of the last epochs as two small curves, each on a scale of its own: how far they
    are from each other is told beside them, and on one scale the upper one would be a bar. Or validation alone.
    """
    if not both:
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
