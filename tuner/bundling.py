"""One text out of the definitions that some functions need, so that they run where tuner isn't.

Decides which functions, classes and constants of which modules belong together: those that a definition names, and
those that these name. They are copied as they stand, comments and all, in the order in which they are imported here;
only a name that two modules have is changed in one of them. Knows nothing of what they do.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
BLOCK = (ast.FunctionDef, ast.ClassDef)
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A definition: the module that it stands in, and what it is called there."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """Something of another package: `module` itself, or `name` of it; `called` is what the code calls it."""

    module: str
    name: str | None
    called: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Definitions as one text: what each root is called in it (`names`), and which other packages it needs."""

    text: str
    names: Mapping[Name, str]
    packages: tuple[str, ...]


def bundle(
    roots: Iterable[Name], instead: Mapping[Name, str], reserved: Iterable[str] = (), also: Iterable[Import] = ()
) -> Bundle:
    """Return the definitions of `roots` and of all that they need.

    `instead` says what a name is replaced by; no definition is copied for it, and whoever uses the text brings that
    along. `reserved` are names that no definition may have, `also` is imported besides.

    Raises:
        ValueError: a definition can't be copied, since it needs more of its module than what it names.
    """
    wanted = list(roots)
    needed: dict[Name, dict[str, Name | Import]] = {}
    waiting = list(wanted)
    while waiting:
        each = waiting.pop()
        if each not in needed and each not in instead:
            needed[each] = _needs(each)
            waiting += [other for other in needed[each].values() if isinstance(other, Name)]
    imports = {each for named in needed.values() for each in named.values() if isinstance(each, Import)} | set(also)
    rank = {module: place for place, module in enumerate(_ordered())}
    ordered = sorted(needed, key=lambda each: (rank[each.module], _source(each.module).made[each.name].lineno))
    of_modules = {there for named in needed.values() for word, there in named.items() if "." in word}
    called = _called(ordered, of_modules, {each.called for each in imports} | set(reserved)) | dict(instead)
    text = _imports(imports) + "".join(_copied(ordered, needed, called))
    inner = {name for each in ordered for name in _source(each.module).inside(_source(each.module).made[each.name])}
    packages = sorted({name.partition(".")[0] for name in {*(each.module for each in imports), *inner}})
    return Bundle(text, {each: called[each] for each in wanted}, tuple(packages))


def _called(names: Iterable[Name], of_modules: Container[Name | Import], taken: set[str]) -> dict[Name, str]:
    """Return what each definition is called in the text: what it is called here, unless that is taken, or it is called
    by its module's name here.
    """
    taken, found = taken | set(dir(builtins)), dict[Name, str]()
    for each in names:
        longer = f"{each.module.rpartition('.')[2]}_{each.name.strip('_')}"
        found[each] = longer if each in of_modules or each.name in taken else each.name
        if found[each] in taken:
            raise ValueError(f"{each.module}.{each.name}: its name is taken twice")
        taken.add(found[each])
    return found


def _imports(imports: Iterable[Import]) -> str:
    """Return the import statements for what comes from elsewhere: Python's own, then others'."""
    parts: list[str] = []
    for pythons in (True, False):
        some = [each for each in imports if (each.module.partition(".")[0] in sys.stdlib_module_names) is pythons]
        named: dict[str, list[str]] = {}
        for each in sorted(some, key=lambda each: (each.module, each.name or "")):
            named.setdefault(each.module, []).extend([f"{each.name}{_alias(each)}"] if each.name is not None else [])
        plain = sorted(f"import {each.module}{_alias(each)}" for each in some if each.name is None)
        lines = [*plain, *(f"from {module} import {', '.join(names)}" for module, names in named.items() if names)]
        parts += ["\n".join(lines)] if lines else []
    return "\n\n".join(parts)


def _alias(each: Import) -> str:
    return "" if each.called in (each.name, each.module) else f" as {each.called}"


def _copied(
    ordered: Iterable[Name], needed: Mapping[Name, Mapping[str, Name | Import]], called: Mapping[Name, str]
) -> Iterator[str]:
    """Yield the definitions, and what is between them; before those of a module lines that say which one it is."""
    before: tuple[str, Definition | None] = ("", None)
    for each in ordered:
        source = _source(each.module)
        node = source.made[each.name]
        if (each.module, node) == before:  # several names are given their values by one statement
            continue
        constants = each.module == before[0] and not isinstance(node, BLOCK) and not isinstance(before[1], BLOCK)
        yield "\n" if constants else "\n\n\n"
        if each.module != before[0]:
            yield f"# --- {each.module}\n# {source.says}\n\n"
        before = (each.module, node)
        own = {other.name: called[other] for other in called if other.module == each.module}
        names = {name: other for name, other in own.items() if source.made.get(name) is node}
        names |= {there: called[name] for there, name in needed[each].items() if isinstance(name, Name)}
        yield source.text(node, {there: name for there, name in names.items() if there != name})


def _needs(name: Name) -> dict[str, Name | Import]:
    """Return what a definition names of other definitions and packages, by what it calls them."""
    source = _source(name.module)
    node = source.made[name.name]
    found: dict[str, Name | Import] = {}
    attributes = {ast.unparse(each): each for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    for word in sorted(source.named(node)):
        there = source.look_up(word)
        if there is None:
            continue
        if isinstance(there, str):  # a module of this package: what is used of it counts
            for text, each in attributes.items():
                if isinstance(each.value, ast.Name) and each.value.id == word:
                    found[text] = _resolved(there, each.attr)
        else:
            found[word] = there
    return {word: there for word, there in found.items() if there != name}


def _resolved(module: str, name: str) -> Name | Import:
    found = _source(module).look_up(name)
    if found is None or isinstance(found, str):
        raise ValueError(f"{module}.{name}: is no definition")
    return found


class _Source:
    """A module of this package, as text: what it defines and what it imports."""

    def __init__(self, module: str) -> None:
        spec = find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        self.module, self.lines = module, Path(spec.origin).read_text(encoding="utf-8").splitlines()
        tree = ast.parse("\n".join(self.lines))
        self.says = (ast.get_docstring(tree) or "").partition("\n")[0]
        self.made: dict[str, Definition] = {}
        self.imported: dict[str, Import] = {}
        self.first: list[str] = []  # modules of this package that are imported when it is, in order
        for node in tree.body:
            self._read(node)

    def _read(self, node: ast.stmt, typing: bool = False) -> None:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                self.made[node.name] = node
            case ast.Assign():
                names = (each for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name))
                self.made |= {each.id: node for each in names}
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.made[name] = node
            case ast.Import():
                for each in node.names:
                    called = each.asname or each.name.partition(".")[0]
                    self.imported[called] = Import(each.name if each.asname else called, None, called)
            case ast.ImportFrom() if node.module != "__future__":
                assert node.module is not None, "imports are absolute here"
                for each in node.names:
                    self.imported[each.asname or each.name] = Import(node.module, each.name, each.asname or each.name)
                    if not typing and _own(node.module):
                        inside = f"{node.module}.{each.name}"
                        self.first += [node.module, *([inside] if _is_module(node.module, each.name) else [])]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for inner in node.body:
                    self._read(inner, typing=True)

    def look_up(self, name: str) -> Name | Import | str | None:
        """Return the definition, the import or the module of this package that a name stands for, None for others."""
        if name in self.made:
            return Name(self.module, name)
        found = self.imported.get(name)
        if found is None or not _own(found.module):
            return found
        assert found.name is not None, "imports name what they want of this package"
        if _is_module(found.module, found.name):
            return f"{found.module}.{found.name}"
        return _resolved(found.module, found.name)

    def named(self, node: Definition) -> set[str]:
        """Return the names that a definition takes from its module, those of its annotations among them."""
        for each in ast.walk(node):
            if isinstance(each, ast.ImportFrom) and each.module and _own(each.module):
                raise ValueError(f"{self.module}:{each.lineno}: imports {each.module} when it is called")
        table = symtable.symtable(self.text(node, {}), self.module, "exec")
        return {*_globals(table), *_annotated(node)}

    def inside(self, node: Definition) -> set[str]:
        """Return the modules that a definition imports when it is called."""
        found = {each.name for one in ast.walk(node) if isinstance(one, ast.Import) for each in one.names}
        return found | {one.module for one in ast.walk(node) if isinstance(one, ast.ImportFrom) and one.module}

    def text(self, node: Definition, changed: Mapping[str, str]) -> str:
        """Return a definition's lines, with the comments right above them, and names changed as `changed` says."""
        decorators = getattr(node, "decorator_list", [])
        start = min([node.lineno, *(each.lineno for each in decorators)])
        while start > 1 and self.lines[start - 2].startswith("#"):
            start -= 1
        lines = [line.encode() for line in self.lines[start - 1 : node.end_lineno]]
        if changed:
            self._change(node, lines, start, changed)
        return "\n".join(line.decode() for line in lines)

    def _change(self, node: Definition, lines: list[bytes], start: int, changed: Mapping[str, str]) -> None:
        where = f"{self.module}:{node.lineno}"
        names = (each for each in ast.walk(node) if isinstance(each, (ast.Name, ast.Attribute)))
        places = [each for each in names if _as_text(each) in changed]
        inside = {id(each) for outer in ast.walk(node) if isinstance(outer, ast.JoinedStr) for each in ast.walk(outer)}
        bound = _bound(symtable.symtable(b"\n".join(lines).decode(), self.module, "exec"))
        if any(id(each) in inside for each in places) or bound & {*changed, *changed.values()}:
            raise ValueError(f"{where}: names in texts and those that are bound there, too, can't be changed")
        for each in sorted(places, key=lambda each: (each.lineno, each.col_offset), reverse=True):
            at, begin, end = each.lineno - start, each.col_offset, each.end_col_offset
            lines[at] = lines[at][:begin] + changed[_as_text(each)].encode() + lines[at][end:]
        if isinstance(node, BLOCK) and node.name in changed:
            at, word = node.lineno - start, "def" if isinstance(node, ast.FunctionDef) else "class"
            head, new = f"{word} {node.name}".encode(), f"{word} {changed[node.name]}".encode()
            lines[at] = lines[at].replace(head, new, 1)


def _as_text(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return ast.unparse(node) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that a piece of code takes from its module."""
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (outermost or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)


def _bound(table: symtable.SymbolTable) -> set[str]:
    """Return the names that are bound within a piece of code, in its functions and classes."""
    own = {each.get_name() for each in table.get_symbols() if each.is_local() and table.get_type() == "function"}
    return own.union(*map(_bound, table.get_children()))


def _annotated(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        for kind in ("annotation", "returns"):
            if (annotation := getattr(each, kind, None)) is not None:
                yield from (inner.id for inner in ast.walk(annotation) if isinstance(inner, ast.Name))


def _own(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


@cache
def _is_module(package: str, name: str) -> bool:
    spec = find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or ()
    return any(Path(place, f"{name}.py").is_file() or Path(place, name).is_dir() for place in places)


_sources: dict[str, _Source] = {}


def _source(module: str) -> _Source:
    """Return a module's source, read once."""
    if module not in _sources:
        _sources[module] = _Source(module)
    return _sources[module]


def _ordered() -> list[str]:
    """Return the modules that have been read, each behind those that it imports."""
    found: list[str] = []

    def put(module: str, under: tuple[str, ...]) -> None:
        if module in found or module in under:
            return
        for other in _source(module).first:
            put(other, (*under, module))
        found.append(module)

    for module in sorted(_sources):
        put(module, ())
    return found
