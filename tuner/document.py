"""YAML text -> a tree in which every value knows where it stands.

Decides what counts as well-formed: one YAML 1.2 document of mappings, lists and plain scalars, no tags, no
duplicate keys, at most 250 kB, 50 levels and 10,000 keys and values; and which words are numbers (YAML 1.2's core
schema, whatever a %YAML directive says). Whatever a problem quotes is made fit for one line of a terminal here.
Knows no key and no meaning.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from tuner.errors import Problem, SpaceError, nearest

# The parser takes up to 3 s for a megabyte, and the square of the length for some lines.
MAX_BYTES, MAX_LINE, MAX_DIRECTIVES = 250_000, 50_000, 5
INIT = "`tuner init DATA` writes one for your data"
MAX_DEPTH, MAX_VALUES, MAX_KEY, MAX_MESSAGE = 50, 10_000, 100, 800

KEY = re.compile(r"[A-Za-z_][\w.-]*")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
BARE = re.compile(r"[A-Za-z_/][\w./-]*( [\w./-]+)*(:[A-Za-z_][\w./-]*)?", re.ASCII)
ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
NO_TEXT = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# What the parser says, what it means to the one who wrote the file, and whether it is the opening that is at fault.
SYNTAX = (
    (r"found character '\\t'", "a tab indents this line; use spaces", False),
    (r"quoted scalar.*end of stream", "this quote isn't closed; add the missing quote", True),
    (r"unknown escape|escape sequence", "no such escape in double quotes; use single quotes, or \\\\ for a \\", False),
    (r"'<stream end>'$", "this bracket isn't closed; add the missing ] or }", True),
    (r"expected ',' or '[}\]]'", "this bracket isn't closed, or a comma is missing in it", True),
    (r"but found '[\]}]'", "a bracket that nothing opens; remove it, or add the missing one before it", False),
    (r"but found ','", "a comma with nothing before it; remove it", False),
    (r"mapping values are not", "no ':' can stand here; check the indent, and quote a text that holds ': '", False),
    (r"expected <block end>", "doesn't go on from the lines above; check the indent and the quotes", False),
    (r"could not find expected ':'", "this line has no ':'; write `key: value`", True),
    (r"cannot start any token", "a text can't start with this character; put it in quotes", False),
    (r"scanning an? (anchor|alias)", "& and * name anchors; put a text that starts with them in quotes", False),
    (r"parsing an? tag", "! starts a tag, and tags aren't allowed; put the text in quotes", False),
    (r"version 1\.\* is required", "isn't YAML 1.2; remove the %YAML line", False),
    (
        r"expected '<document start>'",
        "doesn't go on from the lines above; check the indent of the first one, brackets, and %",
        False,
    ),
)


class _Broken:
    """The value of a place whose text has been reported already."""

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN = _Broken()


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: the file (or the option) and line and column, counted from 1; 0 where there are none."""

    file: str
    line: int = 0
    column: int = 0

    @property
    def place(self) -> str:
        """The place in words, FILE:LINE:COLUMN."""
        file = printable(self.file)
        return f"{file}:{self.line}:{self.column}" if self.line else file

    def problem(self, key: str, message: str) -> Problem:
        """Return a problem at this place, in one line that can't steer a terminal."""
        file, key, message = (printable(text) for text in (self.file, key, message))
        return Problem(file, self.line, self.column, key[:MAX_MESSAGE], message[:MAX_MESSAGE])


def printable(text: str) -> str:
    """Return text in which whatever isn't printable is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(slots=True)
class Located:
    """A value and its place: a scalar, a list of Located, or a dict of name -> Located.

    `keys` holds the places of a mapping's keys.
    """

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        """Whether something in it has been reported already."""
        inner = self.value.values() if isinstance(self.value, dict) else self.value
        return any(item.broken for item in inner) if isinstance(self.value, (dict, list)) else inner is BROKEN

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def at(self, mark: Mark) -> Located:
        """Return a copy in which everything stands at one place."""
        value = self.value
        if isinstance(value, dict):
            value = {key: item.at(mark) for key, item in value.items()}
        elif isinstance(value, list):
            value = [item.at(mark) for item in value]
        return Located(value, mark, dict.fromkeys(self.keys, mark))

    def set(self, name: str, value: Located) -> None:
        """Put a value under a dotted name, making the mappings on the way; a scalar in the way is replaced."""
        *path, leaf = name.split(".")
        node = self
        for part in path:
            if part not in node.value or not isinstance(node.value[part].value, dict):
                node.value[part] = Located({}, value.mark)
                node.keys[part] = value.mark
            node = node.value[part]
        node.value[leaf] = value
        node.keys[leaf] = value.mark


def read_text(path: Path) -> str:
    """Return the text of a space file.

    Raises:
        SpaceError: it is missing, a folder, too large, or no UTF-8 text.
    """

    def refuse(message: str) -> SpaceError:
        return SpaceError([Mark(str(path)).problem("", message)])

    try:
        if path.is_dir():
            raise refuse(f"is a folder; name a space file such as search_spaces/digits.yaml; {INIT}")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse(f"no such file{_beside(path)}; the ready spaces are in search_spaces/") from None
    except (OSError, ValueError) as error:
        raise refuse(f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise refuse("is larger than 250 kB; a space file holds only keys, ranges and values")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise refuse("is UTF-16 text; save it as UTF-8") from None
        raise refuse(f"isn't UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None


def _beside(path: Path) -> str:
    """Return which file was probably meant, or what is missing on the way to it."""
    if not path.parent.is_dir():
        return f": there is no folder {printable(str(path.parent))}"
    try:
        return nearest(path.name, sorted(name for name in os.listdir(path.parent) if name.isprintable()))
    except OSError:
        return ""


def parse(text: str, file: str) -> tuple[Located, list[Problem]]:
    """Parse YAML text whose top is a mapping; `file` is what the places call it.

    Returns the tree and what is wrong in it: a duplicate key is left out of the tree, a tag or a bad number is
    BROKEN there.

    Raises:
        SpaceError: one fault stops the parser; with all that was wrong before it.
    """
    tree, problems = _parse(text, file)
    if tree is None or tree.value is None:
        problems.append(Mark(file).problem("", "is empty; it needs at least `data: {source: ...}`"))
    elif not isinstance(tree.value, dict) and not tree.broken:
        problems.append(tree.mark.problem("", f"must be a mapping of sections such as `data:` and `model:`; {INIT}"))
    if tree is None or not isinstance(tree.value, dict):
        raise SpaceError(problems)
    return tree, problems


def parse_value(text: str, name: str, option: str) -> tuple[Located, list[Problem]]:
    """Parse the value of a dotted name given outside a file (`-S key=value`); its place is the option.

    Raises:
        SpaceError: as `parse`.
    """
    mark = Mark(option)

    def moved(problems: list[Problem]) -> list[Problem]:
        return [mark.problem(f"{name}.{item.key}" if item.key else name, item.message) for item in problems]

    try:
        tree, problems = _parse(text, option)
    except SpaceError as error:
        raise SpaceError(moved(list(error.problems))) from None
    return (tree or Located(None, mark)).at(mark), moved(problems)


def _parse(text: str, file: str) -> tuple[Located | None, list[Problem]]:
    if problem := _unfit(text, file):
        raise SpaceError([problem])
    builder = _Builder(text, file)
    try:
        return builder.document(), builder.problems
    except MarkedYAMLError as error:
        raise SpaceError([*builder.problems, _syntax(error, file, builder.brackets)]) from None
    except (YAMLError, ValueError) as error:
        message = f"isn't YAML: {' '.join(str(error).split())}"
        raise SpaceError([*builder.problems, Mark(file).problem("", message)]) from None


def _unfit(text: str, file: str) -> Problem | None:
    """Say why the parser can't have the text: it refuses it, or would take long over it."""
    if found := NO_TEXT.search(text):
        rows = text[: found.start()].split("\n")
        message = f"holds a character that isn't text (U+{ord(found[0]):04X}); write plain UTF-8 text"
        return Mark(file, len(rows), len(rows[-1]) + 1).problem("", message)
    if len(text) > MAX_BYTES:
        return Mark(file).problem("", "is larger than 250 kB; a space holds only keys, ranges and values")
    rows = text.split("\n")
    head = takewhile(lambda row: not row.strip() or row[0] in "#%", rows)
    if sum(row.startswith("%") for row in head) > MAX_DIRECTIVES:
        return Mark(file, 1, 1).problem("", "starts with many lines of %; remove them")
    for i, row in enumerate(rows):
        if len(row) > MAX_LINE:
            return Mark(file, i + 1, 1).problem("", f"this line is longer than {MAX_LINE:,} characters; break it")
    return None


def _syntax(error: MarkedYAMLError, file: str, brackets: list[Mark]) -> Problem:
    """Return a fault of the parser in words that say how to mend it."""
    why = " ".join(" ".join(str(part) for part in (error.context, error.problem) if part).split())
    place, message = error.problem_mark or error.context_mark, f"isn't YAML: {why or 'syntax error'}"
    for pattern, words, opening in SYNTAX:
        if re.search(pattern, why):
            message, place = words, (error.context_mark if opening else None) or place
            break
    mark = Mark(file, place.line + 1, place.column + 1) if place else Mark(file)
    if why.endswith("'<stream end>'") and brackets:
        mark = brackets[0]
    return mark.problem("", message)


class _Builder:
    """Builds located values from the parser's events, collecting problems.

    Events come one by one, so that depth and size are bounded before the parser has gone on.
    """

    def __init__(self, text: str, file: str) -> None:
        self.events = YAML(typ="safe", pure=True).parse(text)
        self.file, self.count = file, 0
        self.problems: list[Problem] = []
        self.brackets: list[Mark] = []
        self.anchors: dict[str, Located | None] = {}

    def document(self) -> Located | None:
        tree = None
        for event in self.events:
            if not isinstance(event, DocumentStartEvent):
                continue
            if tree is not None:
                message = "starts a second document; a space file holds one (remove the `---`)"
                self.problems.append(self._mark(event).problem("", message))
                break
            tree = self.build(next(self.events), "", 0)
        return tree

    def _mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _bound(self, mark: Mark, depth: int) -> None:
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            what = (
                f"nested more than {MAX_DEPTH} levels"
                if depth > MAX_DEPTH
                else f"more than {MAX_VALUES:,} keys and values"
            )
            raise SpaceError([*self.problems, mark.problem("", f"{what}; a space file is small and flat")])

    def build(self, event: Any, key: str, depth: int) -> Located:
        mark = self._mark(event)
        self._bound(mark, depth)
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, key, depth, mark)
        if event.anchor:
            self.anchors[event.anchor] = None
        tree = self._node(event, key, depth, mark)
        if event.tag:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")[:60]
            message = f"the tag {tag} isn't allowed; remove it (quotes make a word of a number)"
            self.problems.append(mark.problem(key, message))
            tree = Located(BROKEN, mark)
        if event.anchor:
            self.anchors[event.anchor] = tree
        return tree

    def _node(self, event: Any, key: str, depth: int, mark: Mark) -> Located:
        if isinstance(event, ScalarEvent):
            return Located(self._scalar(event, key, mark), mark)
        assert isinstance(event, (MappingStartEvent, SequenceStartEvent))
        if event.flow_style:
            self.brackets.append(mark)
        tree = (self._mapping if isinstance(event, MappingStartEvent) else self._list)(key, depth, mark)
        if event.flow_style:
            self.brackets.pop()
        return tree

    def _list(self, key: str, depth: int, mark: Mark) -> Located:
        items: list[Located] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.build(event, f"{key}[{len(items)}]", depth + 1))
        return Located(items, mark)

    def _mapping(self, key: str, depth: int, mark: Mark) -> Located:
        tree = Located({}, mark)
        while not isinstance(event := next(self.events), MappingEndEvent):
            place, name = self._mark(event), self._name(event, key, depth)
            dotted = ".".join(filter(None, (key, name)))
            value = self.build(next(self.events), dotted, depth + 1)
            if name is not None and name in tree.value:
                message = f"duplicate key (first on line {tree.keys[name].line}); keep one"
                self.problems.append(place.problem(dotted, message))
            elif name is not None:
                tree.keys[name], tree.value[name] = place, value
        return tree

    def _name(self, event: Any, key: str, depth: int) -> str | None:
        """Return a key, or None if it can't be one."""
        mark = self._mark(event)
        if not isinstance(event, ScalarEvent) or event.tag:
            self.build(event, key, depth + 1)
            if not getattr(event, "tag", None):
                self.problems.append(mark.problem(key, "a key must be a word; remove the brackets or the alias"))
            return None
        self._bound(mark, depth)
        name: str = event.value
        if KEY.fullmatch(name) and len(name) <= MAX_KEY:
            return name
        shown = repr(name[:40] + ("..." if len(name) > 40 else ""))
        mend = "use letters, digits and _, a letter first"
        mend = "write the keys out (no merging)" if name == "<<" else mend
        mend = "a space is missing after the ':'" if re.match(r"[A-Za-z_]\w*:\S", name) else mend
        self.problems.append(mark.problem(key, f"{shown} can't be a key; {mend}"))
        return None

    def _alias(self, anchor: str, key: str, depth: int, mark: Mark) -> Located:
        tree = self.anchors.get(anchor)
        if tree is None:
            why = "stands inside itself" if anchor in self.anchors else f"names nothing; write &{anchor} before it"
            self.problems.append(mark.problem(key, f"*{anchor} {why}"))
            return Located(BROKEN, mark)
        self._measure(tree, mark, depth)
        return tree.at(mark)

    def _measure(self, tree: Located, mark: Mark, depth: int) -> None:
        inner = tree.value.values() if isinstance(tree.value, dict) else tree.value
        for item in inner if isinstance(tree.value, (dict, list)) else ():
            self._bound(mark, depth + 1)
            self._measure(item, mark, depth + 1)

    def _scalar(self, event: Any, key: str, mark: Mark) -> Any:
        text: str = event.value
        if event.style is None and text in WORDS:
            return WORDS[text]
        if event.style is None and (INT.fullmatch(text) or FLOAT.fullmatch(text)):
            return self._number(text, key, mark)
        if event.style is None and ENDLESS.fullmatch(text):
            return float(text.replace(".", ""))
        # JSON, which YAML 1.2 includes, escapes a character beyond U+FFFF as two.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
            self.problems.append(mark.problem(key, "holds a control character; write plain text"))
            return BROKEN
        return text

    def _number(self, text: str, key: str, mark: Mark) -> Any:
        shown = text[:30] + ("..." if len(text) > 30 else "")
        if INT.fullmatch(text):
            # Python refuses to read more than 4300 digits.
            value = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) < 100 else 2**64
            if -(2**63) <= value < 2**63:
                return value
            self.problems.append(mark.problem(key, f"{shown} is beyond 64 bits; use a smaller number"))
        elif math.isfinite(number := float(text)):
            return number
        else:
            self.problems.append(mark.problem(key, f"{shown} is too large for a number; use a smaller one"))
        return BROKEN


def plain(value: Mapping[str, Any]) -> str:
    """Return nested plain values as YAML text, in block style with short inner mappings in one line."""
    from io import StringIO

    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

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
        # ruamel leaves some texts bare that its own parser takes for something else, such as ?0 in a list.
        return DoubleQuotedScalarString(item) if isinstance(item, str) and not BARE.fullmatch(item) else item

    yaml, out = YAML(), StringIO()
    yaml.width = 110
    yaml.dump(shaped(value, 0), out)
    return out.getvalue()
