"""Mutated data: small tables, JSON lines, arrays, Parquet files and folders of images, and the keys they are read by."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tuner.config import Data, Split

from . import texts

CELLS = (
    "", "NA", "nan", "inf", "-inf", "1e999", "-1e308", "1e200", str(2**53 + 1), str(2**63), "9" * 400, "0", "-0.0", "1,5",
    '"1,5"', '"1,500.5"', '"', '""', '"a\nb"', "yes", "YES", " yes ", "true", "2020-01-01", "2020-13-99", "9999999-01-01",
    "0001-01-01", "12:30", "\u00e9", "\u202e", "\0", "\x1b[31m", "=cmd()", "x" * 500, "train", "test", "[1, 2]", "{}", "0x10",
    "1_0", "\ufeff", "\u0661\u0662", "\u2212 1", "+5", "1.", ".5", "1e-400", "None", "?", "-", "\ud800", "1 000", "$5", "5%",
)  # fmt: skip
JSONS = (
    "null", "true", "1e999", "NaN", "Infinity", "-0.0", str(2**70), '"\\ud800"', '"\\u0000"', "[]", "[1, [2]]", "{}", '""',
    '"a b c"', '{"a": 1}', '"' + "x" * 2000 + '"', "1" * 5000, "-", "'x'", "[" * 300, '"\\x"', '"\u202e\x1b"',
)  # fmt: skip
ENDS = 0.04  # how often a file is empty, or noise


def _data(random: Random, source: str, **keys: Any) -> Data:
    split: dict[str, Any] = {"val": random.choice((0.1, 0.2, 0.45)), "test": random.choice((0.0, 0.2, 0.4))}
    if random.random() < 0.15:
        split |= random.choice(
            ({"folds": 2}, {"folds": 9}, {"groups": "b"}, {"time": "a"}, {"time": "d"}, {"stratify": False})
        )
    if random.random() < 0.15:
        keys |= random.choice((
            {"task": "regression"}, {"task": "classification"}, {"target_transform": "log"}, {"drop": ("a",)}, {"target": "a"},
            {"target": None}, {"kind": "table"}, {"kind": "text"}, {"kind": "sequence"}, {"kind": "image"}, {"text": "c"},
            {"tokens": "character"}, {"length": 2}, {"id": "b", "time": "a"}, {"id": "c"}, {"vocabulary": 10},
        ))  # fmt: skip
    return Data(source=source, split=Split(**split), **keys)


def _written(path: Path, content: bytes, random: Random) -> None:
    if random.random() < ENDS:
        content = random.choice((b"", texts.noise(random)))
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _rows(random: Random) -> list[list[str]]:
    rows = random.choice((5, 24, 40, 40, 60))
    labels = random.choice((("no", "yes"), ("0", "1"), ("1.5", "2.5", "0.25"), ("a", "b", "c")))
    return [
        [f"{random.gauss(0, 1):.3f}", str(random.randrange(6)), random.choice(("red", "green", "blue")),
         f"20{i % 30:02d}-01-0{i % 9 + 1}", random.choice(labels)]
        for i in range(rows)
    ]  # fmt: skip


def csv(random: Random, place: Path) -> Data:
    """A table as text, also zipped."""
    rows = _rows(random)
    for _ in range(random.choice((0, 1, 1, 3, 20))):
        rows[random.randrange(len(rows))][random.randrange(5)] = random.choice(CELLS)
    if random.random() < 0.2:
        wild = random.randrange(5)
        for row in rows:
            row[wild] = random.choice(CELLS)
    head = ["a", "b", "c", "d", random.choice(("y",) * 20 + ("split", "a", "", "text"))]
    separator = random.choice((",", ";", "\t"))
    text = "\n".join(separator.join(row) for row in [head, *rows]) + "\n"
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        text = random.choice((texts.sign, *texts.CHANGES[7:]))(text, random)
    content = texts.encoded(text, random)
    content = texts.flipped(content, random) if random.random() < 0.15 else content
    name = "d.csv"
    if random.random() < 0.1:
        name, content = "d.csv.gz", gzip.compress(content, 1)
        content = texts.flipped(content, random) if random.random() < 0.6 else content
    _written(place / name, content, random)
    return _data(random, name, **({"target": "y"} if random.random() < 0.9 else {}))


def jsonl(random: Random, place: Path) -> Data:
    """Texts and rows as JSON lines."""
    rows = [
        {"text": " ".join(random.choices(("one", "two", "three", "\u00e9t\u00e9"), k=random.randrange(1, 6))), "a": i, "b": i % 4,
         "target": random.choice(("no", "yes"))}
        for i in range(random.choice((6, 30, 30)))
    ]  # fmt: skip
    lines = [json.dumps(row, ensure_ascii=random.random() < 0.5) for row in rows]
    for _ in range(random.choice((0, 1, 1, 3))):
        at = random.randrange(len(lines))
        name = random.choice(("text", "target", "a", "new"))
        lines[at] = lines[at][:-1] + f', "{name}": {random.choice(JSONS)}}}' if random.random() < 0.5 else (
            '{"text": ' + random.choice(JSONS) + ', "target": ' + random.choice(("1", '"no"', random.choice(JSONS))) + "}"
        )  # fmt: skip
    text = "\n".join(lines)
    for _ in range(random.choice((0, 0, 1, 2))):
        text = random.choice((texts.sign, *texts.CHANGES[7:]))(text, random)
    _written(place / "d.jsonl", texts.encoded(text, random), random)
    return _data(random, "d.jsonl")


def npz(random: Random, place: Path) -> Data:
    """Arrays of many shapes and types."""
    chance = np.random.default_rng(random.randrange(2**32))
    rows = random.choice((0, 1, 12, 30, 30, 30, 30))
    shape = random.choice(((3,), (1,), (0,), (), (6, 6), (4, 2), (8, 8, 3), (3, 8, 8), (2, 2, 2, 2), (5, 1)))
    x: Any = chance.normal(size=(rows, *shape)) * random.choice((1, 1, 1, 1, 1, 0, 1e300, 255))
    if random.random() < 0.3 and x.size:
        x.flat[chance.integers(0, x.size, 3)] = random.choice((np.nan, np.inf, -np.inf, 1e308))
    with np.errstate(all="ignore"):
        kind = random.choice(
            ("f8",) * 12 + ("f4", "f4", "f2", "u1", "i8", "?", "c16", "U5", "S3", "O", ">f8", "u8", "m8[s]", "M8[s]")
        )
        x = x.astype("i8").astype(kind) if kind[0] in "mM" else x.astype(kind)
    y: Any = chance.integers(0, random.choice((1, 2, 2, 3, 3, rows + 1)), rows + (random.random() < 0.05))
    y = y.astype(random.choice(("i8", "i8", "i8", "f8", "U3", "O", "?", "u1", "c8")))
    arrays = {"X": x, "y": y if random.random() < 0.95 else y[:, None]}
    if random.random() < 0.3:
        arrays |= random.choice((
            {"split": np.array(random.choices(("train", "val", "test"), k=rows))}, {"split": np.array(["x"] * rows)},
            {"classes": np.array(["a", "b", "c"])}, {"classes": np.array([1, 1])}, {"lengths": chance.integers(0, 9, rows)},
            {"lengths": np.full(rows, 2)}, {"lengths": np.array("x")}, {"b": np.arange(rows) % 4}, {"y": np.array(3)},
        ))  # fmt: skip
    stream = io.BytesIO()
    random.choice((np.savez, np.savez_compressed))(stream, **arrays)
    content = stream.getvalue()
    _written(place / "d.npz", texts.flipped(content, random) if random.random() < 0.3 else content, random)
    return _data(random, "d.npz")


def parquet(random: Random, place: Path) -> Data:
    """Tables with columns of many types."""
    rows = random.choice((0, 6, 24, 40, 40))
    columns: dict[str, Any] = {
        "a": [random.gauss(0, 1) for _ in range(rows)], "b": [i % 4 for i in range(rows)], "y": [i % 2 for i in range(rows)]
    }  # fmt: skip
    more = (
        [None] * rows, [[1, 2]] * rows, [{"k": 1}] * rows, [b"\xff"] * rows, pd.date_range("2020", periods=rows), [2**60] * rows,
        pd.Categorical(["u", "v"] * (rows // 2)), pd.array([1, None] * (rows // 2), dtype="Int64"), [True, None] * (rows // 2),
        pd.to_timedelta(list(range(rows)), unit="s"), [float("inf")] * rows, ["x", None] * (rows // 2), ["\0\x1b"] * rows,
        pd.date_range("2020", periods=rows, tz="UTC"), [random.choice(CELLS[:-5]) for _ in range(rows)],
    )  # fmt: skip
    for name in random.sample(("c", "d", "y", "a", "split"), random.choice((0, 1, 2))):
        columns[name] = random.choice([values for values in more])
    stream = io.BytesIO()
    frame = pd.DataFrame({name: pd.Series(values).map(_storable) if isinstance(values, list) else values
                          for name, values in columns.items()})  # fmt: skip
    frame.to_parquet(stream)
    content = stream.getvalue()
    _written(place / "d.parquet", texts.flipped(content, random) if random.random() < 0.3 else content, random)
    return _data(random, "d.parquet", **({"target": "y"} if random.random() < 0.9 else {}))


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@cache
def _pictures() -> tuple[tuple[str, bytes], ...]:
    found, chance = [], np.random.default_rng(0)
    for ending, mode in (
        ("png", "RGB"),
        ("jpg", "RGB"),
        ("gif", "P"),
        ("bmp", "L"),
        ("tif", "I;16"),
        ("webp", "RGBA"),
        ("ppm", "RGB"),
    ):
        pixels = chance.integers(0, 256, (9, 7), dtype=np.uint16 if mode.startswith("I") else np.uint8)
        image = Image.fromarray(pixels)
        stream = io.BytesIO()
        (image if mode.startswith("I") else image.convert(mode)).save(
            stream, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending)
        )
        found.append((ending, stream.getvalue()))
    return tuple(found)


def images(random: Random, place: Path) -> Data:
    """A folder of images, of which some are damaged or lie where none should."""
    root = place / "pics"
    shutil.rmtree(root, ignore_errors=True)
    (ending, whole), other = random.choice(_pictures()), random.choice(_pictures())
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for i in range(random.choice((6, 6, 6, 1))):
            (root / kind / f"{i}.{ending}").write_bytes(whole)
    (root / "dog" / f"other.{other[0]}").write_bytes(other[1])
    for _ in range(random.choice((0, 1, 2))):
        random.choice(STRANGE)(root, random)
    keys = {"image_size": random.choice((4, 16))} if random.random() < 0.2 else {}
    return _data(random, "pics", **keys)


def _damaged(root: Path, random: Random) -> None:
    ending, content = random.choice(_pictures())
    (root / "cat" / f"damaged.{ending}").write_bytes(texts.flipped(content, random))


def _odd(root: Path, random: Random) -> None:
    name = random.choice(
        ("x.txt", ".hidden.png", "cat/.x", "cat/x.PNG", "lost.png", "cat/a\x1b[31m.png", "empty/x.txt", "cat/sub/x.png")
    )
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(random.choice((b"", b"x", random.choice(_pictures())[1])))


def _linked(root: Path, random: Random) -> None:
    place = root / random.choice(("cat/link", "link", "cat/link.png", "train"))
    if not place.is_symlink():
        place.symlink_to(random.choice((".", "..", place.name, "/etc/hostname", "nowhere", "dog")))


STRANGE: tuple[Callable[[Path, Random], None], ...] = (_damaged, _damaged, _odd, _linked)
KINDS: dict[str, Callable[[Random, Path], Data]] = {
    "csv": csv, "jsonl": jsonl, "npz": npz, "parquet": parquet, "images": images,
}  # fmt: skip
