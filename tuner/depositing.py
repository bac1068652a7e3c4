"""What a study leaves, in a place that a URL names: a shared folder, or a store of objects such as S3.

Decides what is kept there, that whoever reads it finds all of it or what was there before, and how it is fetched. Which
places there are is fsspec's business: `s3://` needs s3fs, `gs://` gcsfs. Knows nothing of what is in the files.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tuner.errors import StorageError, UsageError

KEPT = ("space.yaml", "trials.csv", "report.html", "model.safetensors", "best.json", "best.yaml")  # best.yaml last
NEEDED = ("best.yaml", "best.json", "model.safetensors")


def masked(url: str) -> str:
    """Return a URL without the name and the password that may be in it."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def is_url(name: str) -> bool:
    """Tell whether a name is a URL rather than a path or a study's name."""
    return "://" in name


def reach(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there.

    Raises:
        UsageError: there is no such, or what it needs isn't installed.
    """
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{masked(url)}: can't be used ({said})") from error
    return system, str(path).rstrip("/")


def check(url: str) -> None:
    """Refuse a place that can't be reached. A store's bucket has to be there: a name that was mistyped makes none.

    Raises:
        UsageError: it can't be reached.
    """
    system, path = reach(url)
    bucket = "" if path.startswith("/") else path.partition("/")[0]  # paths of files begin with a slash
    try:
        there = system.exists(bucket) if bucket else True
    except Exception as error:  # each store has errors of its own
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
        raise UsageError(f"{masked(url)}: can't be reached ({said})") from error
    if not there:
        raise UsageError(f"{masked(url)}: {bucket!r} isn't there, or may not be read, or nothing answers")


def deposit(folder: Path, url: str) -> str:
    """Copy what a study leaves in its folder into a folder of that name at a URL; return that one's URL.

    Raises:
        UsageError: there is no such place.
        StorageError: it can't be written.
    """
    system, path = reach(url)
    place = f"{path}/{folder.name}"
    try:
        system.makedirs(place, exist_ok=True)
        for name in KEPT:
            if (folder / name).is_file():
                with system.transaction, system.open(f"{place}/{name}", "wb") as file:
                    file.write((folder / name).read_bytes())
    except Exception as error:  # each store has errors of its own
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
        what = f"{masked(url)}: what the study leaves can't be copied there ({said})"
        raise StorageError(f"{what}; it is in {folder}, and the same command copies it again") from error
    return f"{url.rstrip('/')}/{folder.name}"


@cache
def fetched(url: str) -> Path:
    """Return a folder, which goes with this process, with what `deposit` left at a study's URL.

    Raises:
        UsageError: there is nothing.
        StorageError: it can't be read.
    """
    system, path = reach(url)
    kept = tempfile.mkdtemp(prefix="tuner-")
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    folder = Path(kept, path.rpartition("/")[2] or "study")
    folder.mkdir()
    try:
        for name in NEEDED:
            if name != NEEDED[-1] or system.exists(f"{path}/{name}"):
                (folder / name).write_bytes(system.cat_file(f"{path}/{name}"))
    except FileNotFoundError:
        raise UsageError(f"{masked(url)}: holds no best configuration; `tuner run --artifacts` leaves one") from None
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
        raise StorageError(f"{masked(url)}: can't be read ({said})") from error
    return folder
