"""One mapping of a space file -> Range or Choice.

Decides what is wrong with a range. Knows no key: what a single value may be, it is told by a function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.document import Located
from tuner.errors import Problem, nearest, show
from tuner.space import Choice, Domain, Range, Value, same
from tuner.values import Check, Kind

RANGE = ("low", "high", "log", "step", "or", "when")
CHOICE = ("choices", "when")
EXACT = 2**53
STEPS = 10**7


def read_domain(node: Located, name: str, check: Check, kind: Kind, problems: list[Problem]) -> Domain | None:
    """Read a range or a choice; None if `problems` grew.

    Each bound and each choice must pass `check`, the key's own test of a single value.
    """
    before = len(problems)
    reader = _Reader(node, name, check, kind, problems)
    if not reader.known_keys():
        return None
    domain = reader.choice() if "choices" in node.value else reader.range()
    return domain if len(problems) == before else None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one mapping, adding what is wrong to `problems`."""

    node: Located
    name: str
    check: Check
    kind: Kind
    problems: list[Problem]

    def refuse(self, message: str, key: str = "") -> None:
        """Add a problem, at the value of a key or at the mapping."""
        mark = self.node.value.get(key, self.node).mark
        self.problems.append(mark.problem(self.name, f"{key}: {message}" if key else message))

    def known_keys(self) -> bool:
        """Tell whether all keys belong to a range or to a choice, and enough of them are there."""
        written = self.node.value
        keys = CHOICE if "choices" in written else RANGE
        wrong = [key for key in written if key not in keys]
        for key in wrong:
            hint = (
                nearest(key, [*RANGE, *CHOICE]) or f"; a range has {', '.join(RANGE)}; a choice has {', '.join(CHOICE)}"
            )
            message = (
                f"{key} can't go with choices; remove one of them" if key in RANGE else f"unknown key '{key}'{hint}"
            )
            self.problems.append(self.node.keys[key].problem(self.name, message))
        if not wrong and not {"low", "high", "choices"} & set(written):
            self.refuse("must be a value, a range {low: ..., high: ...} or a choice {choices: [...]}")
            return False
        if not wrong and self.kind == "word" and "choices" not in written:
            self.refuse("holds no numbers, so it can't have a range; write {choices: [...]}")
            return False
        return not wrong

    def when(self) -> Mapping[str, tuple[Value, ...]]:
        """Return the conditions."""
        if "when" not in self.node.value:
            return {}
        inner = self.node.value["when"]
        if not isinstance(inner.value, dict) or not inner.value:
            self.refuse("must be a mapping such as {model.family: cnn}", "when")
            return {}
        return {parent: self._allowed(parent, item) for parent, item in inner.value.items()}

    def _allowed(self, parent: str, item: Located) -> tuple[Value, ...]:
        values = item.plain() if isinstance(item.value, list) else [item.plain()]
        message = None
        if not values or any(isinstance(value, (dict, list)) for value in values):
            message = f"when: {parent} needs one value or a list of values"
        elif twice := [value for i, value in enumerate(values) if any(same(value, other) for other in values[:i])]:
            message = f"when: {parent} names {show(twice[0])} twice; keep one"
        if message:
            self.problems.append(item.mark.problem(self.name, message))
        return tuple(values)

    def choice(self) -> Choice:
        """Return the choice."""
        inner = self.node.value["choices"]
        items = inner.value if isinstance(inner.value, list) else []
        if not items:
            self.refuse("must be a list with at least one value, such as [16, 32]", "choices")
        values: list[Value] = []
        for item in items:
            value = item.plain()
            if isinstance(value, (dict, list)):
                wrong: str | None = f"must be plain values, not {show(value)}"
            elif (wrong := self.check(value)) is None:
                # Optuna finds a value by ==, so true and 1 would be one to it.
                twins = [other for other in values if value == other]
                wrong = f"{show(value)} is the same as {show(twins[0])} before it; keep one" if twins else None
                values.append(float(value) if self.kind == "number" and isinstance(value, int) else value)
            if wrong:
                self.problems.append(item.mark.problem(self.name, f"choices: {wrong}"))
        return Choice(tuple(values), self.when())

    def range(self) -> Range | None:
        """Return the range."""
        when, low, high, log = self.when(), self._bound("low"), self._bound("high"), self._log()
        if low is None or high is None:
            return None
        integer = self.kind == "whole" or (self.kind == "free" and isinstance(low, int) and isinstance(high, int))
        number: type[int] | type[float] = int if integer else float
        low, high = number(low), number(high)
        if low > high:
            self.refuse(f"low ({low}) is above high ({high}); swap them")
        elif log and low <= 0:
            self.refuse(f"must be > 0 where log is true, not {low}; write a small one, and `or: 0` for 0 too", "low")
        elif not math.isfinite(high - low):
            self.refuse("low and high are further apart than numbers go; narrow the range")
        elif integer and max(-low, high) > EXACT:
            self.refuse("whole numbers beyond 2**53 lose digits in the search; narrow the range")
        else:
            found = Range(low, high, log, self._step(low, high, integer, log), integer, when=when)
            return self._with_alternative(found)
        return None

    def _bound(self, key: str) -> Any:
        if key not in self.node.value:
            self.refuse(f"a range needs low and high; {key} is missing")
            return None
        value = self.node.value[key].plain()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.refuse(f"must be a finite number, not {show(value)}", key)
        elif (wrong := self.check(value)) is not None:
            self.refuse(wrong, key)
        else:
            return value
        return None

    def _log(self) -> bool:
        value = self.node.value["log"].plain() if "log" in self.node.value else False
        if not isinstance(value, bool):
            self.refuse(f"must be true or false, not {show(value)}", "log")
        return value is True

    def _step(self, low: float, high: float, integer: bool, log: bool) -> float | None:
        if "step" not in self.node.value:
            return None
        step = self.node.value["step"].plain()
        number = isinstance(step, (int, float)) and not isinstance(step, bool) and math.isfinite(step)
        if not number or step <= 0:
            self.refuse(f"must be a number > 0, not {show(step)}", "step")
        elif integer and not isinstance(step, int):
            self.refuse(f"must be a whole number in a range of whole numbers, not {step}", "step")
        elif log:
            self.refuse("can't go with log: true; remove one of them", "step")
        elif step > high - low:
            self.refuse(f"{step} is longer than the range ({high - low:g}); take a smaller one", "step")
        elif not integer and max(-low, high) / step > STEPS:
            self.refuse(f"{step} is too fine beside the bounds (over {STEPS:,} steps); leave it out", "step")
        elif not integer and (found := Range(low, high, step=step)).top != Range(low, found.top, step=step).top:
            self.refuse(f"{low} and {step} have too many digits to count in steps; round them", "step")
        else:
            return int(step) if integer else float(step)
        return None

    def _with_alternative(self, found: Range) -> Range:
        """Return the range with its `or`, if it has one."""
        if "or" not in self.node.value:
            return found
        value = self.node.value["or"].plain()
        wrong = f"must be one plain value, not {show(value)}" if isinstance(value, (dict, list)) else self.check(value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if wrong is None and number and found.low <= value <= found.high:
            wrong = f"{value} lies inside the range; remove it"
        if wrong:
            self.refuse(wrong, "or")
            return found
        value = float(value) if number and not found.integer else value
        return Range(found.low, found.high, found.log, found.step, found.integer, value, True, found.when)
