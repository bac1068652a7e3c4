"""Folders of images: which files are meant, which class each has, and the one size that all are brought to.

Images lie in one folder a class, FOLDER/CLASS/IMAGE, or in FOLDER/train/CLASS/IMAGE and so on where the data bring
their split (val, valid or validation, and test). A class is called what its folder is. Hidden files and folders are
left out, and so are, with a note, files of other kinds and symbolic links that lead out of the folder or in a circle.

All images are brought to `data.image_size` (a square) or, without it, to the size they all have if it is no more than
256 pixels a side, else to a square whose side is the median of their shorter sides, at least 16 and at most 96. They
are gray if every one is, else RGB. Where the data bring their split, test images have no say in either. What else
becomes of an image is decided in `picture`. Knows no division and fits nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.config import Data
from tuner.data.columns import number_of
from tuner.data.divide import OFFICIAL
from tuner.data.picture import ENDINGS, Header, Pictures, refuse
from tuner.data.raw import Raw, counted, listed
from tuner.data.targets import sorted_classes
from tuner.errors import DataError

TARGET = "folder"
LARGEST_COMMON = 256
SMALLEST, LARGEST = 16, 96
DEEPEST = 3  # folders within each other, of which the third is one too many
ARRANGED = ("FOLDER/CLASS/IMAGE", "FOLDER/train/CLASS/IMAGE")
PARTS = "val, valid, validation and test"
Way = tuple[str, ...]  # from the source to a file or folder, name by name


class Scan:
    """What lies in a folder: images and folders in order, and what was left out."""

    def __init__(self, root: Path, depth: int | None = None) -> None:
        self.root, self.real, self.depth = root, root.resolve(), depth
        self.images: list[Way] = []
        self.folders: list[Way] = []
        self.others: Counter[str] = Counter()
        self.links: list[str] = []
        self.problems: list[str] = []
        self.closed: list[Way] = []
        self._walk((), (self.real,))
        self.images.sort()
        self.folders.sort()

    def _walk(self, way: Way, above: tuple[Path, ...]) -> None:
        try:
            with os.scandir(self.root.joinpath(*way)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if not entry.name.startswith("."):
                        self._add(entry, (*way, entry.name), above)
        except OSError as error:
            self.closed.append(way)
            self.problems.append(f"{_shown(way) or '.'}: can't be read ({error.strerror or error})")

    def _add(self, entry: os.DirEntry[str], way: Way, above: tuple[Path, ...]) -> None:
        ending = Path(entry.name).suffix.lower()
        if entry.is_symlink() and not self._leads_inside(entry, above):
            self.links.append(_shown(way))
        elif entry.is_dir():
            self.folders.append(way)
            if self.depth is None or len(way) < self.depth:
                self._walk(way, (*above, Path(entry.path).resolve()))
        elif entry.is_file() and ending in ENDINGS:
            self.images.append(way)
        else:
            self.others[ending or "no ending"] += 1

    def _leads_inside(self, entry: os.DirEntry[str], above: tuple[Path, ...]) -> bool:
        try:
            end = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # it leads nowhere, or to itself
            return False
        return end.is_relative_to(self.real) and end not in above

    def pictures(self, where: str) -> Pictures:
        """Return the images found."""
        return Pictures(where, self.root, tuple("/".join(way) for way in self.images))

    def notes(self) -> list[str]:
        """Return what was left out, a sentence each."""
        notes = []
        if self.others:
            others = counted(self.others.total(), "file")
            notes.append(f"skipped {others} of other kinds than images ({listed(sorted(self.others), 5)})")
        if self.links:
            links = counted(len(self.links), "symbolic link")
            notes.append(f"skipped {links} that lead out of the folder or in a circle ({listed(self.links, 5)})")
        return notes


def _shown(way: Way) -> str:
    return listed(["/".join(way)])


def _nothing(scan: Scan) -> str:
    links = f"; {counted(len(scan.links), 'symbolic link')} that lead out of it aren't followed" if scan.links else ""
    return f"a folder that holds a folder of images ({', '.join(ENDINGS[:4])}, ...) for each class{links}"


def scan_folder(root: Path, data: Data) -> Scan:
    """Return what lies in a folder that is a source.

    Raises:
        DataError: there are no images, or another kind of data is asked for.
    """
    where, scan = data.source, Scan(root, DEEPEST)
    if not scan.images and not scan.problems:
        raise DataError(f"{where}: is a folder without images; name a file of data, or {_nothing(scan)}")
    if data.kind not in (None, "image"):
        raise DataError(f"{where}: data.kind {data.kind} can't be read from a folder, which holds images; name a file")
    return scan


def read_folder(scan: Scan, data: Data) -> Raw:
    """Return the images found, brought to one size, and their classes.

    Raises:
        DataError: the folder isn't arranged so, or an image can't be read; a line a problem.
    """
    where, level = data.source, _level(scan)
    pictures = scan.pictures(where)
    headers, unread = pictures.headers()
    problems = [*scan.problems, *_misplaced(scan, level), *_unnumbered(scan, level, data)]
    if problems or unread:
        sound = tuple(name for name, header in zip(pictures.names, headers, strict=True) if header)
        unread += Pictures(where, scan.root, sound).problems((3, SMALLEST, SMALLEST))
        refuse(where, [*problems, *sorted(unread)])
    known = [header for header in headers if header is not None]
    return _raw(scan, level, pictures, known, data)


def _level(scan: Scan) -> int:
    """Return how many folders lie above an image: 2 if the folder brings its split, else 1."""
    within = {way[0].lower() for way in scan.folders if len(way) > 1}
    return 2 if "train" in within else 1


def _part(way: Way) -> str:
    return OFFICIAL.get(way[0].lower(), "")


def _misplaced(scan: Scan, level: int) -> list[str]:
    """Return what is wrong with where images and folders lie."""
    beside = [way for way in scan.folders if level == 2 and len(way) == 1 and not _part(way)]
    problems = [f"{_shown(way)}: lies beside train and is none of {PARTS}; move it elsewhere" for way in beside]
    problems += _stray([way for way in scan.images if len(way) <= level], ARRANGED[level - 1])
    nested = [way for way in scan.folders if len(way) == level + 1]
    ways = " and ".join(ARRANGED)
    problems += [f"{_shown(way)}: is a folder within a class folder; {ways} are read" for way in nested]
    holding = {way[:end] for way in (*scan.images, *scan.folders) for end in range(1, len(way))} | set(scan.closed)
    bare = [way for way in scan.folders if len(way) <= level and way not in holding]
    problems += [f"{_shown(way)}: holds no images; put some in or remove the folder" for way in bare]
    return problems or _too_few(scan, level)


def _stray(stray: list[Way], arranged: str) -> list[str]:
    if not stray:
        return []
    lie, each = ("lies", "it") if len(stray) == 1 else ("lie", "each")
    there = f"{counted(len(stray), 'image')} {lie} in no class folder ({listed(map(_shown, stray), 3)})"
    return [f"{there}; move {each} into the folder of its class, as in {arranged}"]


def _too_few(scan: Scan, level: int) -> list[str]:
    names = _names(scan, level)
    alone = len(set(names)) == 1
    return [f"there is one class folder only, {names[0]!r}; at least two are needed"] if alone else []


def _names(scan: Scan, level: int) -> list[str]:
    return [way[level - 1] for way in scan.images if len(way) > level]


def _unnumbered(scan: Scan, level: int, data: Data) -> list[str]:
    if data.task != "regression":
        return []
    bad = [name for name in sorted_classes(_names(scan, level)) if not np.isfinite(number_of(name))]
    told = f"data.task regression needs folders whose names are numbers, and these are none: {listed(bad, 5)}"
    return [told] if bad else []


def _raw(scan: Scan, level: int, pictures: Pictures, headers: list[Header], data: Data) -> Raw:
    split = np.array([_part(way) for way in scan.images]) if level == 2 else None
    learned = headers if split is None else [headers[i] for i in np.flatnonzero(split != "test")]
    height, width = _size(learned, data.image_size)
    channels = 1 if all(header.gray for header in learned) else 3
    names, classes, y = _names(scan, level), tuple[str, ...](), pd.Series(dtype=float)
    if data.task == "regression":
        y = pd.Series([number_of(name) for name in names], name=TARGET)
    else:
        classes = tuple(sorted_classes(names))
        y = pd.Series(pd.Categorical(names, categories=classes), name=TARGET)
    notes = (*scan.notes(), *_changes(headers, (channels, height, width)))
    x: Any = pictures.read((channels, height, width))
    return Raw(data.source, x, y, split, classes, TARGET, notes, fitted=True)


def _size(headers: list[Header], side: int | None) -> tuple[int, int]:
    """Return the height and width that all images are brought to."""
    if side is not None:
        return side, side
    sizes = {(header.height, header.width) for header in headers}
    common = sizes.pop() if len(sizes) == 1 else None
    if common is not None and max(common) <= LARGEST_COMMON:
        return common
    middle = int(np.median([min(header.height, header.width) for header in headers]))
    return (min(max(middle, SMALLEST), LARGEST),) * 2


def _changes(headers: list[Header], shape: tuple[int, int, int]) -> list[str]:
    """Return what becomes of the images, a sentence each."""
    (channels, height, width), notes = shape, []
    sizes = {(header.height, header.width) for header in headers}
    if sizes != {(height, width)}:
        were = f"{len(sizes)} sizes" if len(sizes) > 1 else "one size"
        notes.append(f"{len(headers)} images of {were} resized to {width} x {height} pixels and cut to their middle")
    gray = sum(header.gray for header in headers)
    if channels == 3 and gray:
        are = "is" if gray == 1 else "are"
        notes.append(f"{gray} of {counted(len(headers), 'image')} {are} gray and read as RGB, as the others are")
    elif channels == 1 and gray < len(headers):
        colored, there = len(headers) - gray, counted(len(headers), "image")
        are = "is" if colored == 1 else "are"
        notes.append(f"{colored} of {there} {are} RGB and read as gray, as those for training are")
    counts = Counter(change for header in headers for change in header.changes)
    return [*notes, *(f"{counted(count, 'image')} {change}" for change, count in sorted(counts.items()))]


def read_pictures(path: Path) -> Pictures:
    """Return an image file, or all images of a folder in order of their paths within it, still to be read.

    Raises:
        DataError: the folder can't be read or holds no image.
    """
    if not path.is_dir():
        return Pictures(str(path.parent), path.parent, (path.name,))
    scan = Scan(path)
    refuse(str(path), scan.problems)
    if not scan.images:
        raise DataError(f"{path}: is a folder without images; files that end in {', '.join(ENDINGS)} are looked for")
    return scan.pictures(str(path))
