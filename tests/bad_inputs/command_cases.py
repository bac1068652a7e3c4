"""Command lines, and commands about studies, that can't be followed; they end with 2, 3 or 4."""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

from cases import Case, Content
from command import SMALL

from tuner.tuning import tune

TABLE = "a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(40))

LINES: dict[str, tuple[str, ...]] = {
    "no such command": ("rn", "small.yaml"),
    "no space": ("run",),
    "no such option": ("run", "small.yaml", "--trails", "3"),
    "trials of letters": ("run", "small.yaml", "--trials", "many"),
    "trials below 0": ("run", "small.yaml", "--trials", "-1"),
    "no workers": ("run", "small.yaml", "--workers", "0"),
    "10,000 workers": ("run", "small.yaml", "--workers", "10000"),
    "timeout as on a clock": ("run", "small.yaml", "--timeout", "1:30"),
    "timeout of nothing": ("run", "small.yaml", "--timeout", ""),
    "seed of 2**70": ("run", "small.yaml", "--seed", str(2**70)),
    "seed below 0": ("run", "small.yaml", "--seed", "-1"),
    "seed of letters": ("run", "small.yaml", "--seed", "abc"),
    "study name that leads out": ("run", "small.yaml", "--study-name", "../x"),
    "study name with a newline": ("run", "small.yaml", "--study-name", "a\nb"),
    "study name with an escape": ("run", "small.yaml", "--study-name", "\x1b[31mred"),
    "study name with a dot in front": ("run", "small.yaml", "--study-name", ".hidden"),
    "study name of 65 letters": ("run", "small.yaml", "--study-name", "x" * 65),
    "no study name": ("run", "small.yaml", "--study-name", ""),
    "override without a value": ("run", "small.yaml", "-S", "training.epochs"),
    "override of nothing": ("run", "small.yaml", "-S", "=3"),
    "override of an unknown key": ("run", "small.yaml", "-S", "training.epoch=3"),
    "override of a wrong value": ("run", "small.yaml", "-S", "training.epochs=soon"),
    "override of a section": ("run", "small.yaml", "-S", "model=3"),
    "override with an open bracket": ("run", "small.yaml", "-S", "model.width={low: 3"),
    "override for other data": ("run", "small.yaml", "-S", "model.family=cnn"),
    "storage that is no URL": ("run", "small.yaml", "--storage", "nowhere"),
    "storage of an unknown scheme": ("run", "small.yaml", "--storage", "sqlit:///x.db"),
    "storage that isn't supported": ("run", "small.yaml", "--storage", "mysql://me:secret@host/db"),
    "storage in memory": ("run", "small.yaml", "--storage", "sqlite://"),
    "storage with two @": ("run", "small.yaml", "--storage", "postgresql://me:p@ss@host/db"),
    "a study's name that leads out": ("show", "../../etc"),
    "a study's name with an escape": ("show", "\x1b[31mred"),
    "best with a newline": ("best", "a\nb"),
    "best in no form": ("best", "small", "--format", "xml"),
    "predict without data": ("predict", "small"),
    "training a space": ("train", "small.yaml"),
    "training nothing": ("train", "missing.yaml"),
    "init without data": ("init",),
    "init over a file": ("init", "sklearn:wine", "--out", "small.yaml"),
    "init of another kind": ("init", "my.csv", "--kind", "tabel"),
}

STUDY: dict[str, tuple[int, tuple[str, ...]]] = {
    "show an unknown study": (2, ("show", "smal")),
    "best of an unknown study": (2, ("best", "smal")),
    "report of an unknown study": (2, ("report", "smal")),
    "predict by an unknown study": (2, ("predict", "smal", "my.csv")),
    "ablate an unknown study": (2, ("ablate", "smal")),
    "rescore an unknown study": (2, ("rescore", "smal")),
    "show an unknown trial": (2, ("show", "small", "--trial", "9")),
    "ablate an unknown trial": (2, ("ablate", "small", "--trial", "9")),
    "rescore by an unknown metric": (2, ("rescore", "small", "--metric", "acuracy")),
    "rescore by the other task's metric": (2, ("rescore", "small", "--metric", "r2")),
    "rescore in an unknown form": (2, ("rescore", "small", "--form", "penalti")),
    "rescore at a price below 0": (2, ("rescore", "small", "--gap-penalty", "-1")),
    "best into a folder": (2, ("best", "small", "--out", "studies")),
    "best below a file": (2, ("best", "small", "--out", "my.csv/best.yaml")),
    "predict over the data": (2, ("predict", "small", "my.csv", "--out", "my.csv")),
    "predict of no file": (3, ("predict", "small", "mi.csv")),
    "predict of other columns": (3, ("predict", "small", "my.csv")),
    "run with another range": (2, ("run", "small.yaml", "-S", "model.depth=3")),
    "run with another space": (2, ("run", "small.yaml", "-S", "model.depth=3", "-S", "regularization.l1=0")),
    "run with another metric": (2, ("run", "small.yaml", "-S", "score.metric=accuracy")),
    "run with another seed": (2, ("run", "small.yaml", "--seed", "9")),
    "run with other data": (2, ("run", "small.yaml", "-S", "data.source=sklearn:iris")),
    "run with data divided otherwise": (2, ("run", "small.yaml", "-S", "data.split.seed=5")),
}

NOTHING_COMPLETE: dict[str, tuple[str, ...]] = {
    "best": ("best", "none"),
    "predict": ("predict", "none", "my.csv"),
    "ablate": ("ablate", "none"),
    "rescore": ("rescore", "none"),
    "show a trial": ("show", "none", "--trial", "0"),
}


@cache
def studies() -> Path:
    """Return a folder of two studies: `small` with a complete trial, and `none` without any."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    here = Path.cwd()
    os.chdir(root)  # a study's paths are relative to where it is run
    try:
        (root / "small.yaml").write_text(SMALL)
        tune("small.yaml", trials=1)
        tune("small.yaml", trials=0, study_name="none")
    finally:
        os.chdir(here)
    return root / "studies"


def copied(path: Path) -> None:
    shutil.copytree(studies(), path)


def with_bytes(change: Callable[[bytes], bytes]) -> Content:
    """Return studies whose database was changed as a file."""

    def made(path: Path) -> None:
        copied(path)
        (path / "tuner.db").write_bytes(change((path / "tuner.db").read_bytes()))

    return made


def with_sql(*statements: str) -> Content:
    """Return studies whose database was changed by SQL."""

    def made(path: Path) -> None:
        copied(path)
        with closing(sqlite3.connect(path / "tuner.db", isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return made


DAMAGED: dict[str, Content] = {
    "of 0 bytes": with_bytes(lambda _: b""),
    "of garbage": with_bytes(lambda _: bytes(range(256)) * 64),
    "cut in half": with_bytes(lambda held: held[: len(held) // 2]),
    "of a newer Optuna": with_sql("UPDATE alembic_version SET version_num = 'v9.9.9.z'"),
    "of a newer schema": with_sql("UPDATE version_info SET schema_version = 99"),
    "without a table": with_sql("DROP TABLE trial_values"),
    "without a column": with_sql("ALTER TABLE trials DROP COLUMN datetime_complete"),
    "without trials that had ended": with_sql(
        "DELETE FROM trial_values", "DELETE FROM trial_params", "DELETE FROM trial_user_attributes",
        "DELETE FROM trial_system_attributes", "DELETE FROM trial_intermediate_values", "DELETE FROM trials",
    ),
    "with a changed record": with_sql(
        "UPDATE trial_system_attributes SET value_json = replace(value_json, 'complete', 'cOmplete')"
    ),
}  # fmt: skip

FILES: dict[str, Content] = {"small.yaml": SMALL, "my.csv": TABLE}
MADE = {**FILES, "studies": copied}

CASES = {
    **{f"line: {name}": Case(2, words, FILES) for name, words in LINES.items()},
    "line: init of nothing": Case(3, ("init", "mi.csv"), FILES),
    "study: none made yet": Case(4, ("show", "small"), FILES),
    "study: none at that place": Case(4, ("show", "small", "--studies-dir", "elsewhere"), MADE),
    "study: best where none was made": Case(2, ("best", "small"), FILES),
    **{f"study: {name}": Case(code, words, MADE) for name, (code, words) in STUDY.items()},
    **{f"nothing complete: {name}": Case(2, words, MADE) for name, words in NOTHING_COMPLETE.items()},
    "storage: a folder": Case(4, ("list", "--storage", "sqlite:///my.db"), {"my.db": Path.mkdir}),
    "storage: another program's file": Case(4, ("run", "small.yaml", "--storage", "sqlite:///my.csv"), FILES),
    **{f"storage: {name}": Case(4, ("show", "small"), {**FILES, "studies": made}) for name, made in DAMAGED.items()},
    "storage: studies is a file": Case(4, ("run", "small.yaml"), {**FILES, "studies": "mine"}),
}
