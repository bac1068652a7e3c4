"""Write docs/reference.md from the code: the commands, the keys of a space file, the library.

python docs/make_reference.py [--check]
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import tuner
from tuner.config import RunConfig

PAGE = Path(__file__).with_name("reference.md")
HEAD = """\
# Reference

Written by `docs/make_reference.py` from the code itself.

"""


def commands() -> str:
    """Return the commands with their options, as typer documents them."""
    words = [sys.executable, "-m", "typer", "tuner.cli", "utils", "docs", "--name", "tuner", "--title", "The commands"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.replace("\n# ", "\n## ").replace("# The commands", "## The commands", 1).strip()


def keys() -> Iterator[str]:
    """Yield the keys of a space file, a row each."""
    yield "## The space file"
    yield ""
    yield "A key in *italics* may be searched: it may hold a range or choices in place of a value."
    yield ""
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    yield from _rows(RunConfig, "")


def _rows(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        key = f"`{prefix}{name}`"
        default = "" if field.default in (None, PydanticUndefined) else f"`{field.default}`"
        yield f"| {f'*{key}*' if extra.get('searchable') else key} | {default} | {field.description or ''} |"


def library() -> Iterator[str]:
    """Yield the public names with their signatures and docstrings."""
    yield "## The library"
    for name in sorted(set(tuner.__all__) - {"__version__"}):
        found = getattr(tuner, name)
        yield ""
        yield f"### `tuner.{name}`"
        yield ""
        if callable(found) and not isinstance(found, type):
            yield f"```python\n{name}{inspect.signature(found)}\n```\n"
        yield inspect.getdoc(found) or ""
        if isinstance(found, type) and not issubclass(found, (BaseException, BaseModel)):
            yield from _members(found)


def _members(found: type) -> Iterator[str]:
    for name, member in vars(found).items():
        what = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(what):
            continue
        shown = name if isinstance(member, property) else f"{name}{inspect.signature(what)}"
        first = (inspect.getdoc(what) or "").split("\n\n")[0].replace("\n", " ")
        yield f"\n- `{shown}`: {first}"


def page() -> str:
    """Return the page."""
    return HEAD + "\n".join([commands(), "", *keys(), "", *library()]).rstrip() + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page() and "docs/reference.md is old; make it again")
    PAGE.write_text(page(), encoding="utf-8")
