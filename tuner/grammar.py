"""Space file <-> Space: which keys there are and what may stand under each.

Decides what is wrong with a file and says all of it at once, each problem with its line and column.
Knows the keys only through `config`'s fields: a bound of a range must be a value that the key allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tuner.config import BUNDLED, FAMILIES, MODULE_ATTR, RunConfig, Section
from tuner.document import Located, Mark, parse, parse_value, plain, read_text
from tuner.errors import Problem, SpaceError, nearest
from tuner.ranges import is_domain, read_domain
from tuner.space import Choice, Domain, Range, Space

FREE = ("model.options",)
PATHS = ("data.source",)


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
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            message = "write -S key=value, for example -S training.epochs=30"
            raise SpaceError([Problem(f"-S {text}", 0, 0, "", message)])
        return cls(name.strip(), value, f"-S {text}")


def read_space(path: Path, overrides: Sequence[Override] = ()) -> Space:
    """Read a space file, with some values put over it.

    Raises:
        SpaceError: every problem of the file and of the overrides.
    """
    try:
        return _space(parse(read_text(path), str(path)), path.resolve().parent, overrides, path.stem)
    except SpaceError as error:
        raise SpaceError([_escape(problem) for problem in error.problems]) from None


def parse_space(text: str, folder: Path, file: str = "space", overrides: Sequence[Override] = ()) -> Space:
    """Read a space from text; `folder` is what its paths are relative to.

    Raises:
        SpaceError: every problem.
    """
    return _space(parse(text, file), folder, overrides, None)


def dump_space(space: Space) -> str:
    """Return the text of a space file that reads as this space."""
    return plain(json.loads(json.dumps(space.nested())))


def _escape(problem: Problem) -> Problem:
    shown = "".join(c if c.isprintable() or c in "\n" else f"\\x{ord(c):02x}" for c in problem.message)
    return replace(problem, message=shown)


def _space(tree: Located, folder: Path, overrides: Sequence[Override], stem: str | None) -> Space:
    for override in overrides:
        _put_over(tree, override)
    reader = _Reader()
    reader.section(tree, RunConfig, "")
    if not reader.problems:
        reader.conditions()
    config = None if reader.problems else reader.configuration(tree, stem)
    if reader.problems or config is None:
        raise SpaceError(reader.problems)
    domains = reader.ordered()
    root = (folder / (config.folder or "")).resolve()
    space = Space(domains, reader.given, config, root, tuple(reader.notes))
    middle = config.replace({n: v for n, v in space.middle().items() if n in domains})
    return replace(space, config=middle)


def _put_over(tree: Located, override: Override) -> None:
    """Put one value into the tree; a relative path in it is relative to the current folder."""
    located = parse_value(override.value, override.option)
    if override.name in PATHS and isinstance(located.value, str) and not _named(located.value):
        located.value = str(Path(located.value).absolute())
    tree.set(override.name, located)


def _named(source: str) -> bool:
    return source.startswith("sklearn:") or MODULE_ATTR.match(source) is not None


class _Reader:
    """Walks a tree along the sections of RunConfig and collects domains, fixed values and problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.domains: dict[str, Domain] = {}
        self.given: dict[str, Any] = {}
        self.marks: dict[str, Mark] = {}

    def section(self, node: Located, model: type[Section], prefix: str) -> None:
        name = prefix.rstrip(".")
        if not isinstance(node.value, dict):
            keys = ", ".join(model.model_fields)
            self.problems.append(node.mark.problem(name, f"must be a mapping with keys of: {keys}"))
            return
        for key, child in node.value.items():
            field = model.model_fields.get(key)
            if field is None:
                self.problems.append(node.keys[key].problem(name, _unknown(key, model)))
            elif (inner := _section_of(field)) is not None and not _word(child):
                self.section(child, inner, f"{prefix}{key}.")
            elif f"{prefix}{key}" in FREE:
                self.free(child, f"{prefix}{key}")
            else:
                self.leaf(child, f"{prefix}{key}", field)

    def free(self, node: Located, name: str) -> None:
        if not isinstance(node.value, dict):
            self.problems.append(node.mark.problem(name, "must be a mapping of names of your own to values"))
            return
        for key, child in node.value.items():
            if "." in key or ":" in key:
                self.problems.append(node.keys[key].problem(name, f"{key!r} can't be a name; use letters, digits, _"))
            else:
                self.leaf(child, f"{name}.{key}", None)

    def leaf(self, node: Located, name: str, field: FieldInfo | None) -> None:
        self.marks[name] = node.mark
        check = _checker(name, field)
        if not is_domain(node):
            problem = check(node.plain())
            if problem:
                self.problems.append(node.mark.problem(name, problem))
            self.given[name] = node.plain()
        elif field is not None and field.json_schema_extra != {"searchable": True}:
            self.problems.append(node.mark.problem(name, "holds one value for the whole study; it can't be searched"))
        else:
            self._domain(node, name, field, check)

    def _domain(self, node: Located, name: str, field: FieldInfo | None, check: Any) -> None:
        domain = read_domain(node, name, check, _whole(field), self.problems)
        if isinstance(domain, Range) and domain.low == domain.high and not domain.has_alternative and not domain.when:
            self.notes.append(f"{name}: low == high, so it is the constant {domain.low}")
            self.given[name] = domain.middle()
        elif domain is not None:
            self.domains[name] = domain

    def conditions(self) -> None:
        """Check that every condition names a known value and that none waits for itself."""
        known = [*self.domains, *RunConfig.model_construct(data=None).flat(), *self.given]  # type: ignore[arg-type]
        for name, domain in self.domains.items():
            for parent, allowed in domain.when.items():
                if parent not in known:
                    message = f"when: unknown name {parent!r}{nearest(parent, known)}"
                    self.problems.append(self.marks[name].problem(name, message))
                elif isinstance(self.domains.get(parent), Choice) and not any(
                    v in self.domains[parent] for v in allowed
                ):
                    choices = ", ".join(str(choice) for choice in self.domains[parent].to_json()["choices"])
                    message = f"when: never true, {parent} is one of: {choices}"
                    self.problems.append(self.marks[name].problem(name, message))
        for name in self.domains:
            if self._cycle(name):
                self.problems.append(self.marks[name].problem(name, "when: waits for itself; break the circle"))

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
            *path, leaf = name.split(".")
            node = nested
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = value
        if "source" not in nested.get("data", {}):
            message = "is missing; name the data, for example `data: {source: sklearn:digits}`"
            self.problems.append(tree.keys.get("data", Mark(tree.mark.file)).problem("data.source", message))
            return None
        try:
            config = RunConfig.model_validate(nested)
        except ValidationError as error:
            self.problems += [_problem(item, self.marks, tree.mark) for item in error.errors()]
            return None
        self._enqueued(config)
        return config

    def _enqueued(self, config: RunConfig) -> None:
        for i, point in enumerate(config.search.enqueue):
            for name, value in point.items():
                key = f"search.enqueue[{i}].{name}"
                mark = self.marks["search.enqueue"]
                if name not in self.domains:
                    known = ", ".join(self.domains) or "nothing"
                    message = f"isn't searched{nearest(name, list(self.domains))}; searched: {known}"
                    self.problems.append(mark.problem(key, message))
                elif value not in self.domains[name]:
                    message = f"{value!r} isn't in {plain_domain(self.domains[name])}"
                    self.problems.append(mark.problem(key, message))


def plain_domain(domain: Domain) -> str:
    """Return a domain in one line of a space file's words."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in domain.to_json().items()) + "}"


def _study_name(stem: str) -> str:
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in stem).lstrip(".")[:64]
    return name or "study"


def _word(node: Located) -> bool:
    """Tell whether a word stands in the place of a section (`stopping: none`)."""
    return isinstance(node.value, str) and node.value == "none"


def _section_of(field: FieldInfo) -> type[Section] | None:
    for kind in _kinds(field.annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _kinds(annotation: Any) -> Iterable[Any]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation


def _whole(field: FieldInfo | None) -> bool | None:
    """Tell whether a field holds whole numbers (True), numbers (False), or whatever is written (None)."""
    if field is None:
        return None
    kinds = list(_kinds(field.annotation))
    return True if int in kinds else False if float in kinds else None


def _unknown(key: str, model: type[Section]) -> str:
    if "." in key:
        return f"unknown key '{key}'; write it nested, one level for each dot"
    hint = nearest(key, list(model.model_fields))
    elsewhere = [
        f"{section}.{key}"
        for section, field in RunConfig.model_fields.items()
        if (inner := _section_of(field)) is not None and inner is not model and key in inner.model_fields
    ]
    if not hint and elsewhere:
        hint = f" (it belongs under {elsewhere[0]})"
    return f"unknown key '{key}'{hint}; known: {', '.join(model.model_fields)}"


def _checker(name: str, field: FieldInfo | None) -> Any:
    """Return the function that says what is wrong with one value of a key, or None."""
    if field is None:
        return lambda value: None if not isinstance(value, Mapping) else "must be a value, {low, high} or {choices}"
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    config: Any = None if _section_of(field) else {"strict": True, "allow_inf_nan": False}
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=config)

    def check(value: Any) -> str | None:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            return explain(error.errors()[0], value)
        return _meaning(name, value)

    return check


def _meaning(name: str, value: Any) -> str | None:
    """Say what is wrong with a well-typed value that names something."""
    if name == "model.family" and value not in FAMILIES and not MODULE_ATTR.match(value):
        return f"unknown family '{value}'{nearest(value, FAMILIES)}; one of {', '.join(FAMILIES)}, or module:attr"
    if name == "data.source" and value.startswith("sklearn:") and value.removeprefix("sklearn:") not in BUNDLED:
        word = value.removeprefix("sklearn:")
        return f"scikit-learn bundles no '{word}'{nearest(word, BUNDLED)}; one of {', '.join(BUNDLED)}"
    return None


def explain(error: Any, value: Any) -> str:
    """Return a pydantic error in the words of a space file."""
    context, kind = error.get("ctx", {}), error["type"]
    shown = repr(value) if not isinstance(value, (dict, list)) else "a mapping" if isinstance(value, dict) else "a list"
    shown = {"None": "nothing", "True": "true", "False": "false"}.get(shown, shown)[:80]
    wanted = {
        "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
        "bool_type": "true or false", "string_type": "a word", "finite_number": "a finite number",
        "mapping_type": "a mapping", "tuple_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    }.get(kind)  # fmt: skip
    if wanted:
        return f"must be {wanted}, not {shown}"
    bounds = {
        "greater_than": "> {gt}",
        "greater_than_equal": ">= {ge}",
        "less_than": "< {lt}",
        "less_than_equal": "<= {le}",
    }
    if kind in bounds:
        return f"must be {bounds[kind].format(**context)}, not {shown}"
    if kind == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ")
        hint = nearest(str(value), options.split(", ")) if isinstance(value, str) else ""
        return f"must be one of {options}, not {shown}{hint}"
    if kind == "string_pattern_mismatch":
        return f"{shown} isn't allowed; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
    if kind == "string_too_short":
        return "must not be empty"
    return str(context.get("error") or error["msg"])


def _problem(error: Any, marks: Mapping[str, Mark], top: Mark) -> Problem:
    name = ".".join(str(part) for part in error["loc"])
    return marks.get(name, top).problem(name, explain(error, error["input"]))
