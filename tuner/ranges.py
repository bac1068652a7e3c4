"""One mapping of a space file -> Range or Choice.

Decides what is wrong with a range. Knows no key: what a single value may be, it is told by a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tuner.document import Located
from tuner.errors import Problem, nearest
from tuner.space import Choice, Domain, Range, Value

RANGE = ("low", "high", "log", "step", "or", "when")
CHOICE = ("choices", "when")
Check = Callable[[Any], str | None]


def is_domain(node: Located) -> bool:
    """Tell whether a value is written as a range or a choice (or tries to be): it is a mapping."""
    return isinstance(node.value, dict)


def read_domain(node: Located, name: str, check: Check, whole: bool | None, problems: list[Problem]) -> Domain | None:
    """Read a range or a choice; None if `problems` grew. `whole`: whole numbers, numbers, or as written.

    Each bound and each choice must pass `check`, the key's own test of a single value.
    """
    before = len(problems)
    keys = CHOICE if "choices" in node.value else RANGE
    for key in node.value:
        if key not in keys:
            hint = nearest(key, keys) or f"; a range has {', '.join(RANGE)}, a choice has {', '.join(CHOICE)}"
            problems.append(node.keys[key].problem(name, f"unknown key '{key}'{hint}"))
    if len(problems) > before:
        return None
    when = _when(node, name, problems)
    domain = (_choice if "choices" in node.value else _range)(node, name, check, whole, problems, when)
    return domain if len(problems) == before else None


def _when(node: Located, name: str, problems: list[Problem]) -> Mapping[str, tuple[Value, ...]]:
    if "when" not in node.value:
        return {}
    inner = node.value["when"]
    if not isinstance(inner.value, dict) or not inner.value:
        problems.append(inner.mark.problem(name, "when: must be a mapping such as {model.family: cnn}"))
        return {}
    found: dict[str, tuple[Value, ...]] = {}
    for parent, item in inner.value.items():
        values = item.plain() if isinstance(item.value, list) else [item.plain()]
        if not values or any(isinstance(value, (dict, list)) for value in values):
            problems.append(item.mark.problem(name, f"when: {parent} needs one value or a list of values"))
        else:
            found[parent] = tuple(values)
    return found


def _choice(node: Located, name: str, check: Check, whole: bool | None, problems: list[Problem], when: Any) -> Choice:
    inner = node.value["choices"]
    items = inner.value if isinstance(inner.value, list) else []
    if not items:
        problems.append(inner.mark.problem(name, "choices: must be a list with at least one value"))
    values: list[Value] = []
    for item in items:
        value = item.plain()
        if isinstance(value, (dict, list)):
            problems.append(item.mark.problem(name, "choices: must be plain values, not lists or mappings"))
            continue
        if whole is False and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if (problem := check(value)) is not None:
            problems.append(item.mark.problem(name, f"choices: {problem}"))
        elif any(type(value) is type(other) and value == other for other in values):
            problems.append(item.mark.problem(name, f"choices: {value!r} stands there twice"))
        values.append(value)
    return Choice(tuple(values), when)


def _range(
    node: Located, name: str, check: Check, whole: bool | None, problems: list[Problem], when: Any
) -> Range | None:
    low, high = (_bound(node, key, name, check, problems) for key in ("low", "high"))
    log = _flag(node, "log", name, problems)
    if low is None or high is None:
        return None
    integer = whole if whole is not None else isinstance(low, int) and isinstance(high, int)
    step = _step(node, name, low, high, integer, log, problems)
    if low > high:
        problems.append(node.mark.problem(name, f"low ({low}) is above high ({high}); swap them"))
    if log and low <= 0:
        problems.append(node.value["low"].mark.problem(name, f"log: true needs low > 0, not {low}; for 0 add `or: 0`"))
    kind: type[int] | type[float] = int if integer else float
    has_alternative = "or" in node.value
    alternative = _alternative(node, name, check, low, high, integer, problems) if has_alternative else None
    return Range(kind(low), kind(high), log, step, integer, alternative, has_alternative, when)


def _bound(node: Located, key: str, name: str, check: Check, problems: list[Problem]) -> Any:
    if key not in node.value:
        problems.append(node.mark.problem(name, f"a range needs low and high; {key} is missing"))
        return None
    value, mark = node.value[key].plain(), node.value[key].mark
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        problems.append(mark.problem(name, f"{key} must be a finite number, not {value!r}"))
        return None
    if (problem := check(value)) is not None:
        problems.append(mark.problem(name, f"{key} {problem}"))
        return None
    return value


def _flag(node: Located, key: str, name: str, problems: list[Problem]) -> bool:
    if key not in node.value:
        return False
    value = node.value[key].plain()
    if not isinstance(value, bool):
        problems.append(node.value[key].mark.problem(name, f"{key} must be true or false, not {value!r}"))
    return value is True


def _step(
    node: Located, name: str, low: float, high: float, integer: bool, log: bool, problems: list[Problem]
) -> float | None:
    if "step" not in node.value:
        return None
    step, mark = node.value["step"].plain(), node.value["step"].mark
    number = isinstance(step, (int, float)) and not isinstance(step, bool) and math.isfinite(step)
    if not number or step <= 0:
        problems.append(mark.problem(name, f"step must be a number > 0, not {step!r}"))
    elif integer and not isinstance(step, int):
        problems.append(mark.problem(name, f"step must be a whole number in a whole-number range, not {step}"))
    elif log:
        problems.append(mark.problem(name, "step can't go with log: true; remove one of them"))
    elif step > high - low:
        problems.append(mark.problem(name, f"step ({step}) is longer than the range ({high - low})"))
    else:
        return int(step) if integer else float(step)
    return None


def _alternative(
    node: Located, name: str, check: Check, low: float, high: float, integer: bool, problems: list[Problem]
) -> Value:
    value, mark = node.value["or"].plain(), node.value["or"].mark
    if (problem := check(value)) is not None:
        problems.append(mark.problem(name, f"or: {problem}"))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if low <= value <= high:
            problems.append(mark.problem(name, f"or: {value} lies inside the range; remove it"))
        return value if integer else float(value)
    return value if isinstance(value, (str, bool)) or value is None else None
