"""Space: a configuration in which values may be ranges. Range, Choice, Space.

Decides what a range contains, when a conditional value is active, and which configuration a point of
the space is. Knows no YAML, no torch and no Optuna: `grammar` makes spaces from files, `search` samples.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tuner.config import CODE_KEYS, MODULE_ATTR, RunConfig, put

Value = bool | int | float | str | None


def same(one: object, other: object) -> bool:
    """Tell whether two values are the same in a space file: 1 is 1.0, and true is no number."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; `alternative` is the one value outside (`or: 0`).

    Integer if `integer`, on a logarithmic scale if `log`, in steps of `step` from `low` if given.
    `when` maps dotted names to the values under which the range is active.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False
    alternative: Value = None
    has_alternative: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def middle(self) -> Value:
        """Return the alternative if there is one, else the middle of the range on its own scale."""
        if self.has_alternative:
            return self.alternative
        # The roots first: the product may be beyond what floating point holds.
        middle = math.sqrt(self.low) * math.sqrt(self.high) if self.log else self.low / 2 + self.high / 2
        return self.nearest(middle)

    @property
    def top(self) -> int | float:
        """The greatest member: `high`, or the last step below it (in decimals, as Optuna counts)."""
        if self.step is None:
            return self.high
        if self.integer:
            return self.low + (self.high - self.low) // self.step * self.step
        low, high, step = (Decimal(str(float(bound))) for bound in (self.low, self.high, self.step))
        return float(low + (high - low) // step * step) if (high - low) % step else self.high

    def nearest(self, value: float) -> int | float:
        """Return the member nearest to a number, within the bounds and on the steps."""
        value = min(max(value, self.low), self.top)
        if self.integer:
            # Fractions, since whole numbers beyond 2**53 don't survive a float.
            step = 1 if self.log else int(self.step or 1)
            steps = round((Fraction(value) - int(self.low)) / step)
            return min(int(self.low) + steps * step, int(self.top))
        if self.step is None or value == self.top:
            return float(value)
        return float(min(self.low + round((value - self.low) / self.step) * self.step, self.top))

    def __contains__(self, value: object) -> bool:
        if self.has_alternative and same(value, self.alternative):
            return True
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.integer:
            return value == int(value) and (int(value) - int(self.low)) % int(self.step or 1) == 0
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return value <= self.top and abs(steps - round(steps)) < 1e-8

    def to_json(self) -> dict[str, Any]:
        """Return the range in the words of a space file."""
        doc: dict[str, Any] = {"low": self.low, "high": self.high}
        doc |= {"log": True} if self.log else {}
        doc |= {"step": self.step} if self.step is not None else {}
        doc |= {"or": self.alternative} if self.has_alternative else {}
        return doc | _when(self.when)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values; `when` as for a range."""

    choices: tuple[Value, ...]
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def middle(self) -> Value:
        """Return the first choice: the one that a person writes first."""
        return self.choices[0]

    def __contains__(self, value: object) -> bool:
        return any(same(value, choice) for choice in self.choices)

    def to_json(self) -> dict[str, Any]:
        """Return the choice in the words of a space file."""
        return {"choices": list(self.choices)} | _when(self.when)


Domain = Range | Choice


def _when(when: Mapping[str, tuple[Value, ...]]) -> dict[str, Any]:
    if not when:
        return {}
    return {"when": {name: list(values) if len(values) > 1 else values[0] for name, values in when.items()}}


@dataclass(frozen=True, slots=True)
class Space:
    """What may be searched, and everything that is fixed.

    `domains` maps dotted names to ranges and choices, parents before their conditional children; `given`
    maps the dotted names that the file fixed; `config` is the configuration with every domain at its
    middle; `folder` is what the file's paths are relative to; `notes` is what the reader should be told; `places` says
    where in the file a value stands ("": the file itself), if the space was read from one.
    """

    domains: Mapping[str, Domain]
    given: Mapping[str, Any]
    config: RunConfig
    folder: Path = Path()
    notes: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def placed(self, message: str) -> str:
        """Return what is said of a key (`score.metric: ...`) with the place of its value in the space file."""
        name = message.partition(":")[0]
        place = self.places.get(name, self.places.get("", "")) if name in self.config.flat() else ""
        return f"{place} {message}" if place else message

    def active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Tell whether a domain's condition holds, given the values of its parents."""
        return all(self.holds(parent, allowed, values) for parent, allowed in self.domains[name].when.items())

    def holds(self, parent: str, allowed: tuple[Value, ...], values: Mapping[str, Any]) -> bool:
        """Tell whether one part of a condition holds: the parent is active and has one of the allowed values."""
        if parent in self.domains and parent not in values:
            return False
        value = values[parent] if parent in self.domains else self.config[parent]
        return any(same(value, other) for other in allowed)

    def middle(self, given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Return the values of the active domains: those given, and the middle of each other."""
        values: dict[str, Any] = {}
        for name, domain in self.domains.items():
            if self.active(name, values):
                values[name] = given[name] if name in given else domain.middle()
        return values

    def at(self, values: Mapping[str, Any]) -> RunConfig:
        """Return the configuration at a point.

        An active domain without a value stands at its middle; an inactive one is as if the file didn't name it.

        Raises:
            pydantic.ValidationError: a value isn't allowed for its key.
        """
        tree: dict[str, Any] = {}
        for name, value in self.config.flat().items():
            if name not in self.domains:
                put(tree, name, value)
        return RunConfig.model_validate(tree).replace({**self.middle(values), **values})

    def nested(self) -> dict[str, Any]:
        """Return the space as a nested mapping in the words and the order of a space file."""
        flat = {**self.given, **{name: domain.to_json() for name, domain in self.domains.items()}}
        tree: dict[str, Any] = {}
        for name in self.config.flat():
            if name in flat:
                put(tree, name, flat.pop(name))
        for name, value in flat.items():
            put(tree, name, value)
        return tree

    def identity(self) -> dict[str, Any]:
        """Return what makes it this study: every value but the budget, and where the data lie."""
        flat = {name: value for name, value in self.config.flat().items() if name not in self.domains}
        flat |= {name: domain.to_json() for name, domain in self.domains.items()}
        return {
            name: json.loads(json.dumps(value))
            for name, value in flat.items()
            if not name.startswith("budget.") and name not in ("study", "folder", "data.source")
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, whatever the order of its keys."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each value in which two identities differ."""
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, "not there"), new.get(name, "not there")
        if before != after:
            lines.append(f"{name}: {_show(before)} -> {_show(after)}")
    return lines


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_show(item)}" for key, item in value.items()) + "}"
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if text.isprintable() else repr(text)


def words_of(space: Space, name: str) -> list[Any]:
    """Return every value of a key of words that a trial of the space may have."""
    domain = space.domains.get(name)
    return list(domain.to_json()["choices"]) if domain is not None else [space.config[name]]


def families(space: Space) -> list[str]:
    """Return every model family that a trial of the space may have."""
    return words_of(space, "model.family")


def own_families(space: Space) -> list[str]:
    """Return the families that are the user's own code."""
    return [family for family in families(space) if ":" in family]


def own_names(space: Space) -> dict[str, list[str]]:
    """Return what names code of the user's own that runs as trials train, by the keys that name it."""
    found = {key: [word for word in words_of(space, key) if MODULE_ATTR.match(str(word))] for key in CODE_KEYS}
    return {key: names for key, names in found.items() if names}


def own_data(space: Space) -> list[str]:
    """Return what names code of the user's own that makes the data."""
    source = space.config.data.source
    return [source] if MODULE_ATTR.match(source) and not source.startswith("sklearn:") else []
