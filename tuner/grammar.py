"""Space file <-> Space: which keys there are and what may stand under each.

Decides what is wrong with a file and says all of it at once, each problem with its line and column.
Knows the keys only through `config`'s fields: a bound of a range must be a value that the key allows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tuner.config import AUTO, LOOP, MODULE_ATTR, RunConfig, Section, Stopping, put
from tuner.document import Located, Mark, parse, parse_value, plain, printable, read_text
from tuner.errors import Problem, SpaceError, nearest
from tuner.ranges import read_domain
from tuner.space import Domain, Range, Space
from tuner.values import checker, explain, is_searchable, kind_of, section_of

FREE = "model.options"
PATHS = ("data.source", "folder")
DOTTED = re.compile(r"\w+(\.\w+)*")

# What other tools call a key, or have a key for.
ELSEWHERE = {
    "lr": "training.learning_rate", "weight_decay": "regularization.l2", "batch": "training.batch_size",
    "n_epochs": "training.epochs", "num_epochs": "training.epochs", "max_epochs": "training.epochs",
    "n_trials": "budget.trials", "n_jobs": "budget.workers", "path": "data.source", "file": "data.source",
    "label": "data.target", "layers": "model.depth", "hidden": "model.width",
    **dict.fromkeys(("cuda", "gpu", "gpus", "accelerator"), "training.device"),
}  # fmt: skip
NO_KEYS = {
    "direction": "the metric says which way is better",
    "optimizer": "AdamW trains every network",
}


@dataclass(frozen=True, slots=True)
class Override:
    """A value put over a file's: a dotted name, the text of the value, and the option that it came from."""

    name: str
    value: str
    option: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read `key=value`, as `-S` takes it.

        Raises:
            SpaceError: it has another form.
        """
        name, _, value = (part.strip() for part in text.partition("="))
        if "=" not in text or not DOTTED.fullmatch(name):
            shown = repr(text if len(text) <= 60 else text[:57] + "...")
            message = f"{shown} isn't key=value; write for example -S training.epochs=30"
            raise SpaceError([Mark("-S").problem("", message)])
        return cls(name, value, "-S")


def read_space(path: Path, overrides: Sequence[Override] = ()) -> Space:
    """Read a space file, with some values put over it.

    Raises:
        SpaceError: every problem of the file and of the overrides.
    """
    return _space(read_text(path), str(path), Path(os.path.realpath(path)).parent, overrides, path.stem)


def parse_space(text: str, folder: Path, file: str = "space", overrides: Sequence[Override] = ()) -> Space:
    """Read a space from text; `folder` is what its paths are relative to.

    Raises:
        SpaceError: every problem.
    """
    return _space(text, file, folder, overrides, None)


@lru_cache(maxsize=4)
def known_space(text: str, folder: str) -> Space | None:
    """Return the space that a study keeps as text; None of a version with other keys. Asked for by each summary."""
    try:
        return parse_space(text, Path(folder))
    except SpaceError:
        return None


def put_over(space: Space, overrides: Sequence[Override]) -> Space:
    """Return a space with some values put over it, as over a file's.

    Raises:
        SpaceError: every problem of the overrides.
    """
    if not overrides:
        return space
    named = replace(space, given={**space.given, "study": space.config.study})
    return parse_space(dump_space(named), space.folder, "the space", overrides)


def dump_space(space: Space) -> str:
    """Return the text of a space file that reads as this space."""
    return plain(json.loads(json.dumps(space.nested())))


def _space(text: str, file: str, folder: Path, overrides: Sequence[Override], stem: str | None) -> Space:
    tree, problems = parse(text, file)
    for override in overrides:
        problems += _put_over(tree, override)
    reader = _Reader(problems)
    reader.section(tree, RunConfig, "")
    reader.needs_source(tree)
    reader.conditions()
    config, here = None if problems else reader.configuration(tree, stem), printable(file)
    if config is None or problems:
        raise SpaceError(sorted(problems, key=lambda problem: (problem.file != here, problem.line, problem.column)))
    domains = reader.ordered()
    root = Path(os.path.realpath(folder / (config.folder or "")))
    places = {name: node.mark.place for name, node in reader.nodes.items()} | {"": here} if stem else {}
    space = Space(domains, reader.given, config, root, tuple(reader.notes), places)
    return replace(space, config=config.replace(space.middle()))


def _put_over(tree: Located, override: Override) -> list[Problem]:
    """Put one value into the tree; a relative path in it is relative to the current folder."""
    try:
        located, problems = parse_value(override.value, override.name, override.option)
    except SpaceError as error:
        return list(error.problems)
    for path in PATHS:
        _absolute(located, override.name, path)
    tree.set(override.name, located)
    return problems


def _absolute(node: Located, name: str, path: str) -> None:
    """Make a path absolute if it stands in an override, also within a mapping."""
    if name == path and isinstance(node.value, str) and node.value and not _named(node.value):
        node.value = str(Path(node.value).absolute())
    elif path.startswith(f"{name}.") and isinstance(node.value, dict):
        for key, child in node.value.items():
            _absolute(child, f"{name}.{key}", path)


def _named(source: str) -> bool:
    return source == LOOP or source.startswith("sklearn:") or MODULE_ATTR.match(source) is not None


class _Reader:
    """Walks a tree along the sections of RunConfig and collects domains, fixed values and problems."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.notes: list[str] = []
        self.domains: dict[str, Domain] = {}
        self.given: dict[str, Any] = {}
        self.nodes: dict[str, Located] = {}
        self.fields: dict[str, FieldInfo | None] = dict(_fields(RunConfig, ""))

    def section(self, node: Located, model: type[Section], name: str) -> None:
        if not isinstance(node.value, dict):
            self.problems += [] if node.broken else [node.mark.problem(name, _no_section(model, node.value))]
            return
        for key, child in node.value.items():
            dotted, field = f"{name}.{key}" if name else key, model.model_fields.get(key)
            if field is None:
                self.problems.append(node.keys[key].problem(name, _unknown(key, model)))
            elif dotted == FREE:
                self.free(child)
            elif (inner := section_of(field)) is None or _is_word(child, dotted, field):
                self.leaf(child, dotted, field)
            else:
                self.section(child, inner, dotted)

    def free(self, node: Located) -> None:
        if not isinstance(node.value, dict):
            message = "must be a mapping of names of your own to values"
            self.problems += [] if node.broken else [node.mark.problem(FREE, message)]
            return
        for key, child in node.value.items():
            if key.isidentifier():
                self.leaf(child, f"{FREE}.{key}", None)
            else:
                message = f"'{key}' can't be the name of an option; use letters, digits and _"
                self.problems.append(node.keys[key].problem(FREE, message))

    def leaf(self, node: Located, name: str, field: FieldInfo | None) -> None:
        self.nodes[name], self.fields[name] = node, field
        if node.broken:
            return
        check, searchable = checker(name, field), field is None or is_searchable(field)
        if not isinstance(node.value, dict):
            self.given[name] = node.plain()
            if wrong := check(node.plain()):
                wrong += (
                    "; several go into {choices: [...]}"
                    if field is not None and searchable and isinstance(node.value, list)
                    else ""
                )
                self.problems.append(node.mark.problem(name, wrong))
        elif not searchable:
            self.problems.append(node.mark.problem(name, "can't be searched; give it one value for the whole study"))
        elif domain := read_domain(node, name, check, kind_of(field), self.problems):
            self._take(name, domain)

    def _take(self, name: str, domain: Domain) -> None:
        if isinstance(domain, Range) and domain.low == domain.high and not domain.has_alternative and not domain.when:
            self.notes.append(f"{name}: low == high, so it is the constant {domain.low}")
            self.given[name] = domain.middle()
            return
        if isinstance(domain, Range) and domain.top != domain.high:
            self.notes.append(f"{name}: high ({domain.high}) is no step from low; the last one is {domain.top}")
        self.domains[name] = domain

    def needs_source(self, tree: Located) -> None:
        """Check that there are data, unless what is there was refused already."""
        data = tree.value.get("data")
        if data is None or (isinstance(data.value, dict) and "source" not in data.value):
            mark = tree.keys.get("data", Mark(tree.mark.file))
            message = "is missing; name the data, for example `data: {source: sklearn:digits}`"
            self.problems.append(mark.problem("data.source", message))

    def conditions(self) -> None:
        """Check that every condition names a known value, can be true, and that none waits for itself."""
        for name, domain in self.domains.items():
            for parent, allowed in domain.when.items():
                mark = self.nodes[name].value["when"].keys[parent]
                if wrong := self._condition(name, parent, allowed):
                    self.problems.append(mark.problem(name, f"when: {wrong}"))
        for name in self.domains:
            if self._cycle(name):
                self.problems.append(self.nodes[name].mark.problem(name, "when: waits for itself; break the circle"))

    def _condition(self, name: str, parent: str, allowed: Sequence[Any]) -> str | None:
        if parent not in self.fields:
            return f"unknown name '{parent}'{nearest(parent, list(self.fields))}; write it in full, as model.family"
        check, domain = checker(parent, self.fields[parent]), self.domains.get(parent)
        if wrong := next((wrong for value in allowed if (wrong := check(value))), None):
            return f"{parent}: {wrong}"
        if domain is not None and not any(value in domain for value in allowed):
            return f"never true, as {parent} is searched in {plain_domain(domain)}; name values of it"
        return None

    def _cycle(self, start: str) -> bool:
        seen: set[str] = set()
        todo = list(self.domains[start].when)
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen and name in self.domains:
                seen.add(name)
                todo += self.domains[name].when
        return False

    def ordered(self) -> dict[str, Domain]:
        """Return the domains, parents before children and otherwise in the file's order."""
        done: dict[str, Domain] = {}
        while len(done) < len(self.domains):
            for name, domain in self.domains.items():
                if name not in done and all(parent in done or parent not in self.domains for parent in domain.when):
                    done[name] = domain
        return done

    def configuration(self, tree: Located, stem: str | None) -> RunConfig | None:
        """Return the configuration of the fixed values, or add what is missing to the problems."""
        nested: dict[str, Any] = {} if stem is None or "study" in self.given else {"study": _study_name(stem)}
        for name, value in self.given.items():
            put(nested, name, value)
        try:
            config = RunConfig.model_validate(nested)
        except ValidationError as error:
            self.problems += [self._problem(item, tree.mark) for item in error.errors()]
            return None
        self._idle(config)
        self._enqueued(config)
        self._parts(config)
        return config

    def _parts(self, config: RunConfig) -> None:
        split = config.data.split
        if not split.folds and split.val + split.test >= 1:
            node = self.nodes.get("data.split.val") or self.nodes["data.split.test"]
            message = f"val {split.val:g} and test {split.test:g} leave no rows to train on; take less than 1 together"
            self.problems.append(node.mark.problem("data.split", message))

    def _problem(self, error: Any, top: Mark) -> Problem:
        name = ".".join(str(part) for part in error["loc"])
        mark = self.nodes[name].mark if name in self.nodes else top
        return mark.problem(name, explain([error], error["input"]))

    def _idle(self, config: RunConfig) -> None:
        """Note what is never searched, since a fixed value doesn't meet its condition."""
        space = Space({}, {}, config)
        for name, domain in self.domains.items():
            for parent, allowed in domain.when.items():
                if parent == "model.family" and config.model.family == AUTO:
                    continue  # the data decide
                if parent not in self.domains and not space.holds(parent, allowed, {}):
                    value = words(dict(config.flat()).get(parent))
                    self.notes.append(f"{name}: is never searched, as {parent} is {value}")

    def _enqueued(self, config: RunConfig) -> None:
        space = Space(self.ordered(), {}, config)
        for i, point in enumerate(config.search.enqueue):
            active = space.middle(point)
            for name, value in point.items():
                mark = self.nodes["search.enqueue"].value[i].value[name].mark
                if name not in self.domains:
                    known = ", ".join(self.domains) or "nothing"
                    message = f"isn't searched{nearest(name, list(self.domains))}; searched: {known}"
                elif value not in self.domains[name]:
                    message = f"{words(value)} isn't in {plain_domain(self.domains[name])}; take one of these"
                elif name not in active:
                    message = "isn't searched at this point, where its condition isn't true; remove it or mend that"
                else:
                    continue
                self.problems.append(mark.problem(f"search.enqueue[{i}].{name}", message))


def plain_domain(domain: Domain) -> str:
    """Return a domain in one line of a space file's words."""
    return words(domain.to_json())


def words(value: Any) -> str:
    """Return a plain value in one line of a space file's words."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(words(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return printable(str(value))


def _study_name(stem: str) -> str:
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in stem).lstrip(".")[:64]
    return name or "study"


def _fields(model: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for key, field in model.model_fields.items():
        if (inner := section_of(field)) is not None:
            yield from _fields(inner, f"{prefix}{key}.")
        elif prefix + key != FREE:
            yield prefix + key, field


def _is_word(node: Located, name: str, field: FieldInfo) -> bool:
    """Tell whether a word stands in the place of a section that allows it (`stopping: none`)."""
    return isinstance(node.value, str) and checker(name, field)(node.value) is None


def _no_section(model: type[Section], value: Any) -> str:
    keys = ", ".join(model.model_fields)
    if value is None:
        return f"is empty; remove it, or give it keys of: {keys}"
    return f"must be {'`none` or ' if model is Stopping else ''}a mapping with keys of: {keys}"


def _unknown(key: str, model: type[Section]) -> str:
    if "." in key:
        return f"unknown key '{key}'; write it nested, one level for each dot"
    hint = nearest(key, list(model.model_fields))
    elsewhere = [name for name, _ in _fields(RunConfig, "") if name.rpartition(".")[2] == key]
    if not hint and elsewhere:
        hint = f" (it belongs under {elsewhere[0]})"
    elif not hint and key.lower() in ELSEWHERE:
        section, _, name = ELSEWHERE[key.lower()].rpartition(".")
        hint = f" (did you mean '{name if name in model.model_fields else f'{section}.{name}'}'?)"
    elif not hint and key.lower() in NO_KEYS:
        return f"unknown key '{key}'; leave it out: {NO_KEYS[key.lower()]}"
    return f"unknown key '{key}'{hint}; known: {', '.join(model.model_fields)}"
