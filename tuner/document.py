"""YAML text -> a tree in which every value knows where it stands.

Decides what counts as well-formed: one YAML 1.2 document of mappings, lists and plain scalars, no tags,
no duplicate keys, at most 1 MB, 50 levels and 20,000 values. Knows no key and no meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from tuner.errors import Problem, SpaceError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 20_000
CORE = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: the file (or the option) and line and column, counted from 1; 0 where there are none."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, key: str, message: str) -> Problem:
        """Return a problem at this place."""
        return Problem(self.file, self.line, self.column, key, message)


@dataclass(slots=True)
class Located:
    """A value and its place: a scalar, a list of Located, or a dict of name -> Located.

    `keys` holds the places of a mapping's keys.
    """

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def set(self, name: str, value: Located) -> None:
        """Put a value under a dotted name, making the mappings on the way; a scalar in the way is replaced."""
        *path, leaf = name.split(".")
        node = self
        for part in path:
            if not isinstance(node.value.get(part), Located) or not isinstance(node.value[part].value, dict):
                node.value[part] = Located({}, value.mark)
                node.keys[part] = value.mark
            node = node.value[part]
        node.value[leaf] = value
        node.keys[leaf] = value.mark


def read_document(path: Path) -> Located:
    """Read a file into a located mapping.

    Raises:
        SpaceError: the file can't be read or isn't one well-formed mapping.
    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the text of a space file.

    Raises:
        SpaceError: it is missing, a folder, too large, or no UTF-8 text.
    """

    def refuse(message: str) -> SpaceError:
        return SpaceError([Problem(str(path), 0, 0, "", message)])

    try:
        if path.is_dir():
            raise refuse("is a folder; name a space file such as search_spaces/digits.yaml")
        if path.stat().st_size > MAX_BYTES:
            raise refuse("is larger than 1 MB; a space file holds only keys, ranges and values")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refuse("no such file; the ready spaces are in search_spaces/") from None
    except (OSError, ValueError) as error:
        raise refuse(f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(f"isn't UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parse(text: str, file: str) -> Located:
    """Parse YAML text whose top is a mapping; `file` is what the places call it.

    Raises:
        SpaceError: with every duplicate key, tag and bad number, or the one fault that stops the parser.
    """
    node = _compose(text, file)
    problems: list[Problem] = []
    if node is None:
        raise SpaceError([Mark(file).problem("", "is empty; it needs at least `data: {source: ...}`")])
    tree = _Builder(file, problems).build(node, "", 0)
    if not isinstance(tree.value, dict) and not problems:
        problems.append(tree.mark.problem("", "must be a mapping of sections such as `data:` and `model:`"))
    if problems:
        raise SpaceError(problems)
    return tree


def parse_value(text: str, label: str) -> Located:
    """Parse one value given outside a file (`-S key=value`); its place is the option's name."""
    node = _compose(text, label)
    problems: list[Problem] = []
    tree = Located(None, Mark(label)) if node is None else _Builder(label, problems).build(node, "", 0)
    if problems:
        raise SpaceError([Problem(label, 0, 0, "", problem.message) for problem in problems])
    return _unplace(tree, Mark(label))


def _unplace(tree: Located, mark: Mark) -> Located:
    value = tree.value
    if isinstance(value, dict):
        value = {key: _unplace(item, mark) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_unplace(item, mark) for item in value]
    return Located(value, mark, dict.fromkeys(tree.keys, mark))


def _compose(text: str, file: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    try:
        documents = list(_bounded(yaml.compose_all(text)))
    except MarkedYAMLError as error:
        raise SpaceError([_syntax(error, text, file)]) from None
    except ReaderError as error:
        message = f"holds a character that YAML doesn't allow (position {error.position}); save it as plain text"
        raise SpaceError([Mark(file).problem("", message)]) from None
    except (YAMLError, RecursionError, ValueError) as error:
        message = f"isn't YAML: {str(error).splitlines()[0] if str(error) else 'nested too deep'}"
        raise SpaceError([Mark(file).problem("", message)]) from None
    if len(documents) > 1:
        mark = _mark(documents[1], file)
        raise SpaceError([mark.problem("", "starts a second document; a space file holds one (remove the `---`)")])
    return documents[0] if documents else None


def _bounded(nodes: Any) -> Iterator[Node]:
    for node in nodes:
        if node is not None:
            yield cast(Node, node)


def _syntax(error: MarkedYAMLError, text: str, file: str) -> Problem:
    place = error.problem_mark or error.context_mark
    line, column = (place.line + 1, place.column + 1) if place else (0, 0)
    rows = text.splitlines()
    if 0 < line <= len(rows) and re.match(r"^ *\t", rows[line - 1]):
        return Mark(file, line, column).problem("", "a tab indents this line; YAML wants spaces")
    why = " ".join(str(part) for part in (error.context, error.problem) if part)
    return Mark(file, line, column).problem("", f"isn't YAML: {' '.join(why.split()) or 'syntax error'}")


def _mark(node: Node, file: str) -> Mark:
    return Mark(file, node.start_mark.line + 1, node.start_mark.column + 1)


class _Builder:
    """Builds located values from parser nodes, collecting problems; counts values against an alias bomb."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file, self.problems, self.count = file, problems, 0

    def build(self, node: Node, key: str, depth: int) -> Located:
        mark = _mark(node, self.file)
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            what = f"nested more than {MAX_DEPTH} levels" if depth > MAX_DEPTH else f"more than {MAX_VALUES} values"
            raise SpaceError([mark.problem("", f"{what}; a space file is small and flat")])
        if not str(node.tag).startswith(CORE) or str(node.tag).startswith(CORE + "python"):
            self.problems.append(mark.problem(key, f"the tag {node.tag} isn't allowed; write a plain value"))
            return Located(None, mark)
        if isinstance(node, MappingNode):
            return self._mapping(node, key, depth, mark)
        if isinstance(node, SequenceNode):
            return Located([self.build(item, key, depth + 1) for item in node.value], mark)
        return Located(self._scalar(node, key, mark), mark)

    def _mapping(self, node: MappingNode, key: str, depth: int, mark: Mark) -> Located:
        tree = Located({}, mark)
        for name_node, value_node in node.value:
            place = _mark(name_node, self.file)
            name = name_node.value if isinstance(name_node, ScalarNode) else None
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.:-]*", name):
                shown = "".join(c if c.isprintable() else "?" for c in str(name))[:40]
                message = f"{shown!r} can't be a key; use letters, digits and _" if isinstance(name, str) else None
                self.problems.append(place.problem(key, message or "a key must be a word"))
                continue
            if name in tree.value:
                first = tree.keys[name].line
                dotted = f"{key}.{name}" if key else name
                self.problems.append(place.problem(dotted, f"duplicate key (first on line {first}); keep one"))
                continue
            tree.keys[name] = place
            tree.value[name] = self.build(value_node, f"{key}.{name}" if key else name, depth + 1)
        return tree

    def _scalar(self, node: Node, key: str, mark: Mark) -> Any:
        text, kind = cast(str, node.value), str(node.tag).removeprefix(CORE)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float"):
            return self._number(text, kind, key, mark)
        if any(ord(c) < 32 and c not in "\n\t" for c in text):
            self.problems.append(mark.problem(key, "holds a control character; write plain text"))
        return text

    def _number(self, text: str, kind: str, key: str, mark: Mark) -> Any:
        digits = text.replace("_", "")
        try:
            if kind == "int":
                value = int(digits, 0) if re.match(r"^[-+]?0[xob]", digits) else int(digits)
                if not -(2**63) <= value < 2**63:
                    raise OverflowError
                return value
            named = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
            return named[digits.lower()] if digits.lower() in named else float(digits)
        except OverflowError:
            self.problems.append(mark.problem(key, f"{text[:30]} is beyond 64 bits; use a smaller number"))
        except ValueError:
            self.problems.append(mark.problem(key, f"{text[:30]!r} is no number"))
        return 0


def plain(value: Mapping[str, Any]) -> str:
    """Return nested plain values as YAML text, in block style with short inner mappings in one line."""
    from io import StringIO

    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def shaped(item: Any, depth: int) -> Any:
        if isinstance(item, Mapping):
            node = CommentedMap((key, shaped(child, depth + 1)) for key, child in item.items())
            if depth >= 2 or not item:
                node.fa.set_flow_style()
            return node
        if isinstance(item, (list, tuple)):
            seq = CommentedSeq(shaped(child, depth + 2) for child in item)
            seq.fa.set_flow_style()
            return seq
        return item

    yaml, out = YAML(), StringIO()
    yaml.width = 110
    yaml.dump(shaped(value, 0), out)
    return out.getvalue()
