"""Data that can't be used; all end with 3, or are noted."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cases import Case, Content, replaced
from command import SMALL
from PIL import Image

SPACE = replaced(
    SMALL, ("depth: {low: 1, high: 2}", "depth: 1"), ("  l1: {low: 1e-3, high: 0.1, log: true, or: 0}\n", "")
)
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=60).round(3)
ROWS = [f"{NUMBERS[i]},{i * 7 % 11},{'yes' if i % 2 else 'no'}" for i in range(60)]


def table(*rows: str, head: str = "a,b,y") -> str:
    return "\n".join([head, *rows]) + "\n"


def column(values: list[Any], head: str = "a,b,c,y") -> str:
    """Return a table that is in order but for one more column."""
    return table(
        *(
            f"{row.rpartition(',')[0]},{value},{row.rpartition(',')[2]}"
            for row, value in zip(ROWS, values, strict=True)
        ),
        head=head,
    )


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def parquet(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pd.DataFrame(columns).to_parquet(path)


def picture(side: int = 20, shade: int = 0, format_: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    pixels = (np.arange(side * side * 3).reshape(side, side, 3) * 7 + shade) % 256
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(stream, format_)
    return stream.getvalue()


def huge(width: int, height: int) -> bytes:
    """Return a PNG that says that it is large, and is nothing but zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def member(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of one file, under whatever name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def endless() -> bytes:
    """Return a few hundred kB that unpack to 300 MB of the same byte."""
    whole, piece = zlib.compressobj(9, zlib.DEFLATED, 31), b"a" * (1 << 24)
    return b"".join([*(whole.compress(piece) for _ in range(18)), whole.flush()])


X, Y = RANDOM.normal(size=(40, 3)), np.arange(40) % 2
CLASSES: dict[str, Content] = {
    f"pics/{kind}/{i}.png": picture(shade=31 * i + 9 * len(kind)) for kind in ("cat", "horse") for i in range(8)
}


def folder(**more: Content) -> dict[str, Content]:
    return {**CLASSES, **{f"pics/{name}": content for name, content in more.items()}}


# name: (what data.source is, with other keys of `data`; the files)
TABLES: dict[str, Content] = {
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "empty": "",
    "blank lines": "\n\n\n",
    "header only": table(),
    "binary": bytes(range(256)),
    "UTF-16": table(*ROWS).encode("utf-16"),
    "UTF-32": table(*ROWS).encode("utf-32"),
    "Latin-1": table(*ROWS, "1,2,caf\xe9").encode("latin-1"),
    "NUL within": table(*ROWS, "1,\0,no"),
    "a short row": table(*ROWS[:30], "1,2", *ROWS[30:]),
    "a long row": table(*ROWS[:30], "1,2,3,no", *ROWS[30:]),
    "an open quote": table(*ROWS[:30], '"1,2,no', *ROWS[30:]),
    "one name twice": table(*ROWS, head="a,a,y"),
    "a page of the web": "<!DOCTYPE html>\n<html><body>Not found, sorry</body></html>\n",
    "no target column": table(*ROWS, head="a,b,label"),
    "no feature": table(*(row.rpartition(",")[2] for row in ROWS), head="y"),
    "nine rows": table(*ROWS[:9]),
    "one class": table(*(row.replace("yes", "no") for row in ROWS)),
    "a class with one row": table(*ROWS, "1,1,maybe"),
    "two classes with one row": table(*ROWS, "1,1,maybe", "1,2,perhaps"),
    "a class a row": table(*(f"{row}{i}" for i, row in enumerate(ROWS))),
    "gaps in the target": table(*ROWS[:30], "1,1,", "1,1,NA", *ROWS[30:]),
    "infinite values": column([1, "inf", "-inf", *range(57)]),
    "a column equal to the target": column([row.rpartition(",")[2] for row in ROWS]),
    "integers beyond 2**53": column([2**60 + i % 7 for i in range(60)]),
    "integers beyond int64": column([10**25 + i % 7 for i in range(60)]),
    "decimal commas": column([f'"{i % 9},5"' for i in range(60)]),
    "thousands": column([f'"{i % 9 + 1},500"' for i in range(60)]),
    "numbers and a text": column([*(f"{i}.5" for i in range(59)), "n.a."]),
    "values beyond 1e150": column([f"1e{200 + i % 9}" for i in range(60)]),
    "only constant columns": table(*(f"1,2,{'yes' if i % 2 else 'no'}" for i in range(60))),
    "a target of decimal commas": table(*(f'{row.rpartition(",")[0]},"{i},5"' for i, row in enumerate(ROWS))),
    "many problems": table(
        *(f"{2**60 + i % 5},{'inf' if i % 2 else 1},{'yes' if i % 2 else 'no'}" for i in range(60)), "1,1,maybe"
    ),
}  # fmt: skip

SOURCES: dict[str, tuple[str, dict[str, Content]]] = {
    "missing": ("source: my.csv, target: y", {}),
    "missing, with one like it": ("source: my.cvs, target: y", {"my.csv": table(*ROWS)}),
    "missing, in a folder that isn't there": ("source: data/my.csv, target: y", {}),
    "unknown ending": ("source: my.xlsx, target: y", {"my.xlsx": b"PK\3\4" + bytes(99)}),
    "no target named": ("source: my.csv", {"my.csv": table(*ROWS)}),
    "target almost right": ("source: my.csv, target: Y", {"my.csv": table(*ROWS)}),
    "columns that aren't there": (
        "source: my.csv, target: y, drop: [bb], split: {groups: grp}", {"my.csv": table(*ROWS)}
    ),
    "no number to regress": ("source: my.csv, target: y, task: regression", {"my.csv": table(*ROWS)}),
    "infinite target": ("source: my.csv, target: b, task: regression", {"my.csv": table(*ROWS, "1,inf,no")}),
    "constant target": ("source: my.csv, target: c", {"my.csv": column([1.5] * 60)}),
    "no logarithm": ("source: my.csv, target: a, target_transform: log", {"my.csv": table(*ROWS)}),
    "groups too few": (
        "source: my.csv, target: y, split: {groups: c}", {"my.csv": column([f"g{i % 2}" for i in range(60)])}
    ),
    "time that is none": (
        "source: my.csv, target: y, split: {time: c}", {"my.csv": column([f"soon {i}" for i in range(60)])}
    ),
    "labels that train never saw": (
        "source: my.csv, target: y, split: {time: c}",
        {"my.csv": column(list(range(60))).replace("58,no", "58,never").replace("59,yes", "59,never")},
    ),
    "labels of an official test that train never saw": (
        "source: my.csv, target: y",
        {"my.csv": column([*["train"] * 40, *["val"] * 10, *["test"] * 10], "a,b,split,y").replace("test,no", "test,new")},
    ),
    "an official split without a part": (
        "source: my.csv, target: y", {"my.csv": column([*["val"] * 40, *["test"] * 20], "a,b,split,y")}
    ),
    "fewer rows than folds": (
        "source: my.csv, target: y, split: {folds: 20}", {"my.csv": table(*ROWS[:12])}
    ),
    "no gzip": ("source: my.csv.gz, target: y", {"my.csv.gz": table(*ROWS)}),
    "a cut gzip": ("source: my.csv.gz, target: y", {"my.csv.gz": gzip.compress(table(*ROWS).encode(), mtime=0)[:-20]}),
    "no Parquet": ("source: my.parquet, target: y", {"my.parquet": table(*ROWS)}),
    "a cut Parquet": (
        "source: my.parquet, target: y",
        {"my.parquet": b"PAR1" + bytes(99)},
    ),
    "nested values": ("source: my.parquet, target: y", {"my.parquet": parquet(a=[[1, 2]] * 40, y=Y)}),
    "JSON that is broken": (
        "source: my.jsonl", {"my.jsonl": '{"text": "fine", "target": 1}\n{"text": "bad", \n' * 9}
    ),
    "JSON without objects": ("source: my.jsonl", {"my.jsonl": "[1, 2]\n" * 20}),
    "JSON that lacks a target": (
        "source: my.jsonl", {"my.jsonl": '{"text": "fine", "target": 1}\n{"text": "bad", "target": 0}\n' * 9 + '{"text": "x"}\n'}
    ),
    "JSON nested too deep": ("source: my.jsonl", {"my.jsonl": '{"text": ' + "[" * 100_000 + "\n"}),
    "texts in an array of JSON": ("source: my.json", {"my.json": '[{"text": "fine", "target": 1}]'}),
    "no npz": ("source: my.npz", {"my.npz": table(*ROWS)}),
    "a cut npz": ("source: my.npz", {"my.npz": npz(X=X, y=Y)[:700]}),
    "npz without X": ("source: my.npz", {"my.npz": npz(data=X, y=Y)}),
    "npz without y": ("source: my.npz", {"my.npz": npz(X=X, labels=Y)}),
    "npz with pickled objects": (
        "source: my.npz", {"my.npz": npz(X=X, y=np.array([{"a": 1}, "b"] * 20, dtype=object))}
    ),
    "a pickle renamed npz": ("source: my.npz", {"my.npz": b"\x80\x04\x95" + bytes(99)}),
    "npz of other lengths": ("source: my.npz", {"my.npz": npz(X=X, y=Y[:9])}),
    "npz of one-hot targets": ("source: my.npz", {"my.npz": npz(X=X, y=np.eye(2)[Y])}),
    "npz with infinite pixels": (
        "source: my.npz", {"my.npz": npz(X=np.full((40, 8, 8), np.inf), y=Y)}
    ),
    "npz of texts": ("source: my.npz", {"my.npz": npz(X=X.astype(str), y=Y)}),
    "npz with a way out": ("source: my.npz", {"my.npz": member("../X.npy", b"x")}),
    "npz that unpacks without end": ("source: my.npz", {"my.npz": lambda path: path.write_bytes(bomb())}),
    "gzip that unpacks without end": ("source: my.csv.gz, target: y", {"my.csv.gz": lambda path: path.write_bytes(endless())}),
    "folder without classes": ("source: pics", {f"pics/{i}.png": picture(shade=i) for i in range(12)}),
    "folder without images": ("source: pics", {"pics/a/readme.txt": "none", "pics/b/readme.txt": "none"}),
    "one class folder": ("source: pics", {f"pics/cat/{i}.png": picture(shade=i) for i in range(12)}),
    "an empty class folder": ("source: pics", folder(dog=Path.mkdir)),
    "an empty image": ("source: pics", folder(**{"cat/9.png": b""})),
    "a truncated image": ("source: pics", folder(**{"cat/9.png": picture(64)[:-300]})),
    "a text named png": ("source: pics", folder(**{"cat/9.png": "no picture"})),
    "an image that is a bomb": ("source: pics", folder(**{"cat/9.png": huge(60_000, 60_000)})),
    "an image beyond the limit": ("source: pics", folder(**{"cat/9.png": huge(20_000, 6_000)})),
    "an image that lacks most of it": ("source: pics", folder(**{"cat/9.png": huge(3_000, 3_000)})),
    "many bad images": ("source: pics", folder(**{f"cat/{i}x.png": b"" for i in range(30)})),
    "a folder of a class that is a link to itself": (
        "source: pics", {f"pics/{i}": lambda path: path.symlink_to(path.name) for i in range(2)}
    ),
    "a folder within a class": ("source: pics", folder(**{"cat/more/9.png": picture()})),
    "a kind that it isn't": ("source: pics, kind: text", folder()),
    "sequences with infinite values": (
        "source: my.npz, kind: sequence", {"my.npz": npz(X=np.where(np.arange(40)[:, None, None] == 3, np.inf, RANDOM.normal(size=(40, 6, 2))), y=Y)}
    ),
    "lengths beyond the steps": (
        "source: my.npz, kind: sequence", {"my.npz": npz(X=RANDOM.normal(size=(40, 6, 2)), y=Y, lengths=np.full(40, 9))}
    ),
}  # fmt: skip

NOTED: dict[str, tuple[str, dict[str, Content]]] = {
    "missing values": ("source: my.csv, target: y", {"my.csv": column(["" if i % 9 == 0 else i % 7 for i in range(60)])}),
    "a constant column and an empty one": (
        "source: my.csv, target: y", {"my.csv": column(["7,"] * 60, "a,b,c,d,y")}
    ),
    "a column of ids": ("source: my.csv, target: y", {"my.csv": column([f"user-{i}" for i in range(60)], "a,b,user,y")}),
    "numbers that count the rows": ("source: my.csv, target: y", {"my.csv": column(list(range(60)))}),
    "rows that are there twice": ("source: my.csv, target: y", {"my.csv": table(*ROWS, *ROWS)}),
    "a column that tells the class": (
        "source: my.csv, target: y", {"my.csv": column([5 if i % 2 else 2 for i in range(60)])}
    ),
    "semicolons and Windows' line ends": (
        "source: my.csv, target: y", {"my.csv": table(*ROWS).replace(",", ";").replace("\n", "\r\n")}
    ),
    "images of several sizes and modes": (
        "source: pics",
        folder(**{"cat/9.png": picture(33), "cat/10.png": picture(20, mode="L"), "horse/9.jpg": picture(format_="JPEG"),
                  "horse/10.gif": picture(mode="P", format_="GIF"), "horse/11.png": picture(mode="RGBA")}),
    ),
    "a wrong ending": ("source: pics", folder(**{"cat/9.png": picture(format_="JPEG")})),
    "hidden files, other files and links that lead out": (
        "source: pics",
        folder(**{".DS_Store": "x", "cat/.hidden.png": "x", "cat/Thumbs.db": "x", "readme.txt": "x",
                  "horse/loop": lambda path: path.symlink_to("."), "horse/out.png": lambda path: path.symlink_to("/etc/hostname")}),
    ),
}  # fmt: skip


def bomb() -> bytes:
    """Return an archive of a few kB whose member says that it unpacks to 4 GB."""
    content = bytearray(member("X.npy", bytes(1 << 20)))
    size = struct.pack("<I", 0xF0000000)
    for kind, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = content.find(kind) + place
        content[start : start + 4] = size
    return bytes(content)


def space(data: str) -> str:
    return SPACE.replace("source: sklearn:wine", data)


CASES = {
    **{
        f"data: {name}": Case(3, ("run", "t.yaml"), {"t.yaml": space("source: my.csv, target: y"), "my.csv": content})
        for name, content in TABLES.items()
    },
    **{
        f"data: {name}": Case(3, ("run", "t.yaml"), {"t.yaml": space(data), **files})
        for name, (data, files) in SOURCES.items()
    },
    **{
        f"noted: {name}": Case(0, ("check", "t.yaml", "--trials", "0"), {"t.yaml": space(data), **files})
        for name, (data, files) in NOTED.items()
    },
}
