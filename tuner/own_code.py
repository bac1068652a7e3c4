"""`module:attr` -> the user's own object, and what goes wrong in the user's code -> one line.

Decides where the user's modules are looked for and whose fault an error is. Knows nothing of what the code
is for. Importing a module runs it, with the rights of whoever started the program.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.errors import UserCodeError, nearest

INSIDE = ("<frozen", f"{Path(__file__).parent}{os.sep}", f"{Path(importlib.__file__).parent}{os.sep}")
INSTALLED = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("purelib", "platlib", "stdlib"))


def find_own(name: str, folder: Path | None, label: str, wanted: str) -> Callable[..., Any]:
    """Return the function that `module:attr` names; `label` opens every message, `wanted` says what it should be.

    `folder` becomes the first place where modules are looked for and the current folder the last; both stay on
    `sys.path` so that the user's code may import its neighbours later, too.

    Raises:
        UserCodeError: it can't be imported, isn't there, or can't be called.
    """
    module_name, _, attr = name.partition(":")
    _look_into(folder)
    with blaming(label):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            looked = f"; looked in {folder.resolve()}, in what is installed and here" if folder else ""
            raise fault(label, f"no module named {error.name!r}{looked}", "") from error
    found = getattr(module, attr, None)
    where = getattr(module, "__file__", None) or ""
    if found is None:
        hint = nearest(attr, [word for word in vars(module) if not word.startswith("_")])
        raise fault(label, f"AttributeError: the module {module_name} has no {attr}{hint}", where)
    if not callable(found):
        raise fault(label, f"TypeError: {attr} is a {type(found).__name__}, not {wanted}", where)
    return found  # type: ignore[no-any-return]


def code_of(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the file of each module that a `module:attr` names, and of those that these import by an
    import statement, where it is beside the space or here; nothing is imported.
    """
    found: dict[str, str] = {}
    waiting = {name.partition(":")[0] for name in names}
    while waiting:
        module = waiting.pop()
        parts = Path(*module.split("."))
        places = [root / place for root in (folder, Path.cwd()) for place in (f"{parts}.py", parts / "__init__.py")]
        if module not in found and (there := next((place for place in places if place.is_file()), None)):
            code = there.read_bytes()
            found[module] = f"SHA-256 {hashlib.sha256(code).hexdigest()}"
            waiting |= _imported(code, module if there.name == "__init__.py" else module.rpartition(".")[0])
    return dict(sorted(found.items()))


def _imported(code: bytes, package: str) -> set[str]:
    """Return the modules that code may import, by absolute names; `package` is the one that it is in."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return set()
    found = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
        within = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join(filter(None, [*within, node.module or ""]))
        found |= {base, *(f"{base}.{each.name}".removeprefix(".") for each in node.names)}
    found |= {name.rpartition(".")[0] for name in found}  # a package is imported before what is in it
    return {name for name in found if name and all(part.isidentifier() for part in name.split("."))}


def _look_into(folder: Path | None) -> None:
    """Put the folder first and the current folder last on the search path."""
    if folder is not None and str(folder.resolve()) != sys.path[0]:
        sys.path.insert(0, str(folder.resolve()))
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


@contextmanager
def blaming(label: str, fallback: str = "") -> Iterator[None]:
    """Turn whatever the user's code raises into one line; `sys.exit` is a mistake like any other.

    What it changed of the process (see `contained`) is put back, and a process that it forked and that comes back
    here ends. `fallback` is the place to name where the error has none in the user's files.
    """
    process = os.getpid()
    try:
        with contained():
            yield
    except (UserCodeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise fault(label, _said(error), place(error) or fallback) from error
    finally:
        if os.getpid() != process:
            os._exit(0)


@contextmanager
def contained() -> Iterator[None]:
    """Put back what code of the user's may change and the rest relies on: the current folder, what Ctrl-C and SIGTERM
    do, and torch's default dtype and number of threads.
    """
    folder, torch = os.getcwd(), sys.modules.get("torch")
    dtype, threads = (torch.get_default_dtype(), torch.get_num_threads()) if torch else (None, None)
    main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        os.chdir(folder)
        for each, handler in handlers.items():
            if handler is not None and signal.getsignal(each) is not handler:
                signal.signal(each, handler)
        if torch := sys.modules.get("torch"):  # it may have been the user's code that imported it
            torch.set_default_dtype(dtype or torch.float32)
            if threads is not None and torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def fault(label: str, reason: str, where: str) -> UserCodeError:
    """Return the error for a fault of the user's code, with the place it happened at."""
    return UserCodeError(f"{label}: {reason}" + (f" ({where})" if where else ""))


def check_signature(label: str, function: Callable[..., Any], given: Sequence[str]) -> None:
    """Refuse a function of the user's own that can't be called with what is given.

    Raises:
        UserCodeError: it takes something else.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C: the call will tell
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        reason = f"TypeError: it is called with ({', '.join(given)}) but takes {signature}: {error}"
        raise fault(label, reason, definition(function)) from error


def definition(function: Callable[..., Any]) -> str:
    """Return file:line of where a function is defined, or nothing where Python doesn't know."""
    try:
        return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError):
        return ""


def caller() -> str:
    """Return file:line of the innermost call from the user's code that is under way, or nothing if there is none."""
    theirs = [each for each in traceback.extract_stack() if not each.filename.startswith(INSIDE + INSTALLED)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""


def one_line(error: BaseException) -> str:
    """Return an error as one line: its type, what it says, and the user's file and line."""
    where = place(error)
    return _said(error) + (f" ({where})" if where else "")


def place(error: BaseException) -> str:
    """Return file:line of the innermost frame that is the user's, or nothing if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(INSIDE + INSTALLED)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""


def _said(error: BaseException) -> str:
    try:
        words = " ".join(str(error).split())[:300]
    except (Exception, SystemExit):  # its __str__ is the user's code, too
        words = ""
    words = "".join(each if each.isprintable() else "?" for each in words)  # nor what a database can't hold
    return f"{type(error).__name__}: {words}".removesuffix(": ")
