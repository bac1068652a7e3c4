"""What a hostile file, name, link, database or page can't do: each is tried for real, as whoever made it would."""

from __future__ import annotations

import ast
import contextlib
import http.client
import json
import os
import pickle
import re
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref import simple_server

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import dom
from command import SECONDS, SMALL, Said, call, files, write
from optuna.trial import TrialState

import tuner as package
from tuner import dashboard, load_best
from tuner.completing import studies
from tuner.data.shared import open_shared
from tuner.errors import DataError, UsageError
from tuner.models.efficientnet import read_tensors
from tuner.rows import STATES, about
from tuner.sealing import seal, unseal

MARK = "it-ran"  # a file that no attack may make


class Evil:
    """What makes the file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


PICKLE = pickle.dumps(Evil())
OWN = "from torch import nn\n\n\ndef net(config, shape):\n    return nn.Linear(13, 3)\n"
BOMB = f"import os\nos.mkdir({MARK!r})\n"

Refused = Callable[..., Said]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a study, made by the command."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "small.yaml")
    with contextlib.chdir(folder):
        package.tune("small.yaml", trials=2)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of a test's own with that study, as the current one; nothing may have run when it is left."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    yield folder
    assert not list(tmp_path.rglob(MARK))


@pytest.fixture
def refused(here: Path, capsys: Any) -> Refused:
    """Return a way to call a command that must end with a code and one line, free of control characters."""

    def refuse(code: int | tuple[int, ...], *words: str | Path) -> Said:
        said = call(capsys, *words)
        assert said.code in (code if isinstance(code, tuple) else (code,)), said
        assert said.out == ""
        assert len(said.err.splitlines()) == 1, said.err
        assert said.err.rstrip("\n").isprintable()
        return said

    return refuse


# --- space files


TAGS = [
    "!!python/object/apply:os.mkdir [it-ran]", "!!python/name:os.mkdir", "!!python/module:os",
    "!python/object/new:os.mkdir [it-ran]", "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [it-ran]",
    "!!binary aXQ=", "!!set {a}", "!!python/tuple [1]",
]  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("key", ["seed", "data", "model"])
def test_a_tag_makes_nothing(refused: Refused, tag: str, key: str) -> None:
    other = "" if key == "data" else "data: {source: sklearn:wine}\n"
    assert "tag" in refused(2, "check", write(Path("bad.yaml"), f"study: s\n{other}{key}: {tag}\n")).err


def test_a_configuration_from_somebody_else_with_a_tag_makes_nothing(refused: Refused) -> None:
    path = Path("studies/small/best.yaml")
    path.write_text(re.sub(r"seed: .*", f"seed: !!python/object/apply:os.mkdir [{MARK}]", path.read_text()))
    for words in (["best", "small"], ["predict", "small", "x.csv"], ["train", path]):
        refused(2, *words)


# --- module:attr

NAMES = [
    "os:system", "builtins:__import__", "os:__dict__", "os.path:join", "builtins:exec", "os:environ", "sys:exit", "os:",
    ":net", "../own:net", "own.:net", "..own:net", "own:net()", "own:net; import os", "own:a.b",
    "os\n:system", "/etc/own:net",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["model.family", "data.source"])
def test_a_name_that_leads_to_no_code_of_the_users_is_one_line(refused: Refused, name: str, key: str) -> None:
    refused((2, 3, 5), "check", "small.yaml", "-S", f"{key}={json.dumps(name)}")


def test_a_file_name_with_line_ends_makes_no_second_line(refused: Refused) -> None:
    write(Path("x\ntuner: all is well.csv"), "a,y\n1,2\n")
    refused(3, "predict", "small", "x\ntuner: all is well.csv")
    refused(3, "init", "x\ntuner: all is well.csv", "--target", "y", "-o", "new.yaml")


@pytest.mark.slow
def test_what_looks_at_a_study_never_imports_the_code_that_it_names(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "own_net_of_a_study"
    write(here / f"{module}.py", OWN)
    space = SMALL.replace(
        "model: {width: {low: 4, high: 12}, depth: {low: 1, high: 2}}", f"model: {{family: {module}:net}}"
    )
    write(here / "own.yaml", space)
    assert call(capsys, "run", "own.yaml", "--study-name", "own", "--trials", "1", "-q").code == 0
    write(here / f"{module}.py", BOMB)
    monkeypatch.delitem(sys.modules, module)
    shutil.rmtree(here / "__pycache__", ignore_errors=True)
    for words in (
        ["list"], ["list", "--json"], ["show", "own"], ["show", "own", "--json"], ["show", "own", "--trial", "0"],
        ["report", "own"], ["rescore", "own"], ["best", "own"], ["best", "own", "--format", "json"],
        ["best", "own", "--format", "python"], ["check", "own.yaml", "--no-import"], ["schema"], ["init", "--list"],
    ):  # fmt: skip
        assert call(capsys, *words).code == 0, words
    assert load_best("own").params
    assert module not in sys.modules
    assert not (here / MARK).exists()


def test_the_shell_is_proposed_nothing_that_it_would_run(here: Path) -> None:
    for name in ("x$(mkdir it-ran)", "x;mkdir it-ran", "x\ny", "x y", "`mkdir it-ran`", "x\x1b[31m", ".hidden"):
        (here / "studies" / name).mkdir()

    class Context:
        params: dict[str, Any] = {}  # noqa: RUF012

    assert list(studies(Context(), "")) == ["small"]  # type: ignore[arg-type]


# --- files that may hold objects, and damaged ones


@pytest.mark.parametrize(
    "ending",
    ["npz", "npy", "parquet", "csv", "csv.gz", "jsonl", "pt", "pth", "pkl", "safetensors", "parquet.gz", "txt"],
)
def test_a_pickle_by_any_name_is_never_loaded(refused: Refused, ending: str) -> None:
    Path(f"rows.{ending}").write_bytes(PICKLE)
    refused(3, "check", "small.yaml", "-S", f"data.source=rows.{ending}", "-S", "data.target=y")
    refused(3, "predict", "small", f"rows.{ending}")
    refused(3, "init", f"rows.{ending}", "--target", "y", "-o", "new.yaml")


@pytest.mark.parametrize("array", ["X", "y", "split", "lengths", "classes"])
def test_an_array_of_objects_is_never_loaded(refused: Refused, array: str) -> None:
    arrays: dict[str, Any] = {"X": np.eye(60, 3), "y": np.arange(60) % 3}
    np.savez("rows.npz", **{**arrays, array: np.array([Evil()] * 60, dtype=object)})
    assert "never read" in refused(3, "check", "small.yaml", "-S", "data.source=rows.npz").err


def _header(text: str, body: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text.encode() + body


WEIGHTS = {
    "pickle": PICKLE,
    "empty": b"",
    "a header of 2**63 bytes": _header("{}", size=2**63),
    "a header longer than the file": _header("{}", size=10**6),
    "no json": _header("[" * 100_000),
    "negative offsets": _header('{"w":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', bytes(4)),
    "offsets beyond the file": _header('{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', bytes(4)),
    "tensors that overlap": _header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "a shape of 2**63": _header('{"w":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,4]}}', bytes(4)),
    "another model": _header('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=list(WEIGHTS))
def test_weights_by_somebody_else_are_read_as_numbers_or_refused(refused: Refused, content: bytes) -> None:
    write(Path("rows.csv"), ",".join(f"x{i}" for i in range(13)) + "\n" + ",".join("1" * 13) + "\n")
    rows = pd.read_csv("rows.csv").set_axis(load_best("small").encoder.columns, axis=1)  # type: ignore[attr-defined]
    rows.to_csv("rows.csv", index=False)
    Path("studies/small/model.safetensors").write_bytes(content)
    assert "model.safetensors" in refused(3, "predict", "small", "rows.csv").err


def test_rows_and_backbones_of_pickles_are_never_loaded(here: Path) -> None:
    Path("weights.pth").write_bytes(PICKLE)
    with pytest.raises(DataError, match="no readable file of weights"):
        read_tensors(Path("weights.pth"))
    for name in ("train.x", "train.y", "train.rows", "val.x", "val.y", "val.rows"):
        np.save(f"{name}.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        open_shared(here)


ABOUT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda about: [about],
    "a word": lambda about: "x",
    "no encoder": lambda about: {name: value for name, value in about.items() if name != "encoder"},
    "a study with quotes": lambda about: about | {"study": '""";import os;os.mkdir("it-ran")#'},
    "a study with a newline": lambda about: about | {"study": "small\n"},
    "a study that is none": lambda about: about | {"study": 3},
    "a trial of words": lambda about: about | {"trial": '"""\nimport os;os.mkdir("it-ran")#'},
    "an epoch of words": lambda about: about | {"epoch": "1; import os"},
    "values in a list": lambda about: about | {"params": ["__import__('os').mkdir('it-ran')"]},
    "a score of words": lambda about: about | {"score": "x"},
    "an encoder of words": lambda about: about | {"encoder": "x"},
    "an encoder of a kind of its own": lambda about: about | {"encoder": {"kind": "os:mkdir"}},
    "an encoder without columns": lambda about: about | {"encoder": {"kind": "table"}},
}


@pytest.mark.parametrize("change", ABOUT.values(), ids=list(ABOUT))
def test_a_best_json_by_somebody_else_is_checked_before_it_is_believed(refused: Refused, change: Any) -> None:
    path = Path("studies/small/best.json")
    about = json.loads(path.read_text())
    path.write_text(json.dumps(change(about)))
    write(Path("rows.csv"), "a\n1\n")
    assert "best.json" in refused(3, "predict", "small", "rows.csv").err


def test_a_best_json_that_is_too_deep_is_one_line(refused: Refused) -> None:
    Path("studies/small/best.json").write_text("[" * 100_000)
    refused(3, "best", "small")


def test_python_code_of_a_configuration_holds_values_and_runs_none(here: Path, capsys: Any) -> None:
    path = Path("studies/small/best.json")
    about = json.loads(path.read_text())
    about["params"] = {'"""\nimport os; os.mkdir("it-ran")': '\'"""); __import__("os").mkdir("it-ran")\n\u2028\x0c'}
    path.write_text(json.dumps(about))
    code = call(capsys, "best", "small", "--format", "python").out
    kinds = {type(node) for node in ast.walk(ast.parse(code))}
    assert not kinds & {ast.Call, ast.Import, ast.ImportFrom, ast.Attribute}
    exec(code, {})


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_in_the_product_unpickles_evaluates_or_starts_a_shell() -> None:
    """Worker processes of our own excepted: multiprocessing's pipe between them has no name and no other end."""
    there = Path(package.__file__).parent
    for path in there.rglob("*.py"):
        for name, node in _calls(ast.parse(path.read_text())):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            where = f"{path.name}:{node.lineno} {name}"
            assert name not in {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "marshal.loads"}, where
            ours = path.name == "workers.py" and name == "pickle.loads"  # once it begins with what we told the worker
            assert ours or not name.startswith(("pickle.load", "pickle.Unpickler", "joblib.", "dill.", "shelve.")), (
                where
            )
            assert given.get("shell", "False") == "False", where
            assert name != "torch.load" or given["weights_only"] == "True", where
            assert name not in {"np.load", "npy.read_array"} or given["allow_pickle"] == "False", where


# --- names, paths, links and modes

PLACES = [
    "../x", "/tmp/x", "a/b", "..", ".", ".hidden", "x\n", "x\x00", "x\x1b[31m", "a b", "ö", "\uff0e\uff0e", "a\u202eb",
    "x" * 65, "", "-", "con:aux", "x\\y", "%2e%2e", "$(id)", "'; DROP TABLE studies; --", "100%",
]  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_study_lies_in_its_folder_and_nowhere_else(here: Path, refused: Refused, name: str) -> None:
    before = files(here.parent)
    if name == "-":  # a fine name
        assert Path("studies", name).resolve().parent == here / "studies"
        return
    refused(2, "run", "small.yaml", f"--study-name={name}", "-q")
    for words in (
        ["show", "--", name],
        ["best", "--", name],
        ["report", "--", name],
        ["predict", "--", name, "small.yaml"],
    ):
        refused(2, *words)
    with pytest.raises(UsageError):
        load_best(name)
    assert files(here.parent) == before


@pytest.mark.parametrize("name", ["tuner.db", "tuner.db-wal", "tuner.db-shm", "tuner.db.lock", "tuner.db.small.lock"])
def test_no_study_takes_the_place_of_a_file_of_the_database(
    here: Path, refused: Refused, capsys: Any, name: str
) -> None:
    assert "database" in refused(2, "run", "small.yaml", "--study-name", name, "-q").err
    for other in ("mine.db-wal", "mine.db"):
        refused(2, "run", "small.yaml", "--study-name", other, "--storage", "sqlite:///studies/mine.db", "-q")
    assert not (here / "studies" / name).is_dir()
    assert call(capsys, "show", "small").code == 0


LINKED = ["best.yaml", "best.json", "model.safetensors", "trials.csv", "space.yaml", "report.html"]


@pytest.mark.slow
def test_files_are_put_in_place_of_links_and_never_through_them(here: Path, capsys: Any) -> None:
    victim, folder = write(here / "victim", "precious"), here / "studies/small"
    for name in LINKED:
        (folder / name).unlink()
        (folder / name).symlink_to(victim)
        (folder / f".{name}.{os.getpid()}.part").symlink_to(victim)
    shutil.rmtree(folder / "curves")
    (here / "outside").mkdir()
    (folder / ".data").symlink_to(here / "outside")
    said = call(capsys, "run", "small.yaml", "--trials", "4", "--workers", "2", "-q")
    assert said.code == 0, said.err
    assert not any((folder / name).is_symlink() for name in LINKED)
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(victim)
    assert call(capsys, "report", "small").code == 0
    assert victim.read_text() == "precious"
    assert not list((here / "outside").iterdir())


@pytest.mark.parametrize("lock", ["small/.lock", "tuner.db.lock"])
def test_a_lock_that_is_a_link_is_refused(here: Path, refused: Refused, lock: str) -> None:
    victim, path = write(here / "victim", "precious"), here / "studies" / lock
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    assert path.name in refused(4, "run", "small.yaml", "--trials", "3", "-q").err
    assert victim.read_text() == "precious"


def test_whatever_the_mask_a_study_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        package.tune(write(tmp_path / "small.yaml"), trials=2)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("studies/small").stat().st_mode) == 0o700
    open_to_others = [
        path for path in Path("studies").rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []


def test_a_file_that_was_its_owners_alone_stays_so_when_it_is_written_again(here: Path, capsys: Any) -> None:
    path = write(here / "best.yaml", "")
    path.chmod(0o600)
    assert call(capsys, "best", "small", "--out", path).code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- more than there is room for


def test_more_columns_or_rows_than_can_be_meant_are_refused_before_they_are_read(refused: Refused) -> None:
    write(Path("wide.csv"), ",".join(f"c{i}" for i in range(100_001)) + ",y\n" + "1," * 100_001 + "a\n")
    np.savez("wide.npz", X=np.zeros((2, 100_001), np.uint8), y=np.arange(2))
    nothing = pa.array(np.zeros(1 << 20, np.int8))
    table = pa.table({f"c{i}": nothing for i in range(300)})
    pq.write_table(table, "long.parquet", compression="zstd")
    assert Path("long.parquet").stat().st_size < 1 << 21
    for name, said in (("wide.csv", "100,000 columns"), ("wide.npz", "100,000 columns"), ("long.parquet", "unpacks")):
        assert said in refused(3, "check", "small.yaml", "-S", f"data.source={name}", "-S", "data.target=y").err


# --- what reaches a terminal, a log, and other processes


def _change(name: str, value: Any, column: str = "study_system_attributes") -> None:
    with contextlib.closing(sqlite3.connect("studies/tuner.db")) as connection, connection:
        connection.execute(f"UPDATE {column} SET value_json = ? WHERE key = ?", (value, name))


def _of_study(**changes: Any) -> None:
    with contextlib.closing(sqlite3.connect("studies/tuner.db")) as connection:
        text = connection.execute("SELECT value_json FROM study_system_attributes WHERE key = 'tuner'").fetchone()[0]
    document, whole = unseal(text, "tuner")
    assert whole
    _change("tuner", seal(document | changes, "tuner"))  # whoever writes there can write checksums, too


STORED: dict[str, Callable[[], None]] = {
    "no json": lambda: _change("tuner", "{"),
    "a list": lambda: _change("tuner", "[1]"),
    "nothing": lambda: _change("tuner", "null"),
    "too deep": lambda: _change("tuner", "[" * 100_000),
    "a pickle": lambda: _change("tuner", json.dumps(PICKLE.hex())),
    "keys that it hasn't": lambda: _of_study(more=1),
    "another name": lambda: _of_study(name="x; mkdir it-ran"),
    "data of no kind": lambda: _of_study(data={}),
    "data of words": lambda: _of_study(data="x"),
    "a space of numbers": lambda: _of_study(space=3),
    "no identity": lambda: _of_study(identity=None),
    "trials of nothing": lambda: _change("tuner", "{}", "trial_system_attributes"),
    "trials too deep": lambda: _change("tuner", '{"a":' * 100_000, "trial_system_attributes"),
    "trials of words": lambda: _change("tuner", '"x"', "trial_system_attributes"),
}


@pytest.mark.parametrize("change", STORED.values(), ids=list(STORED))
def test_a_storage_by_somebody_else_is_told_in_one_line(refused: Refused, change: Callable[[], None]) -> None:
    change()
    for words in (["show", "small"], ["list"], ["report", "small"], ["rescore", "small"]):
        refused(4, *words)


def test_words_in_a_storage_by_somebody_else_steer_no_terminal(here: Path, capsys: Any) -> None:
    _of_study(metric="log_loss", versions={"\x1b]0;x\x07": "\x1b[31m"}, created="\x1b[31m2026-01-01")
    with contextlib.closing(sqlite3.connect("studies/tuner.db")) as connection, connection:
        rows = connection.execute(
            "SELECT trial_id, number, state, value_json FROM trials JOIN trial_system_attributes USING (trial_id) "
            "WHERE key = 'tuner'"
        ).fetchall()
        for trial_id, number, state, text in rows:
            what = about("small", number, STATES[TrialState[state]])
            changed = unseal(text, what)[0] | {"label": "\x1b[31mred\nTUNER", "error": "\x1b]0;x\x07"}
            query = "UPDATE trial_system_attributes SET value_json = ? WHERE trial_id = ? AND key = 'tuner'"
            connection.execute(query, (seal(changed, what), trial_id))
    storage = optuna.storages.RDBStorage("sqlite:///studies/tuner.db")
    for name in ("\x1b[31mred", "a\nb", "'; DROP TABLE studies; --", "100%_"):
        optuna.create_study(storage=storage, study_name=name)
    storage.engine.dispose()
    for words in (
        ["list"],
        ["show", "small"],
        ["show", "small", "--trial", "0"],
        ["rescore", "small"],
        ["show", "none"],
    ):
        said = call(capsys, *words)
        assert all(line.isprintable() for line in (said.out + said.err).split("\n")), words
    assert "\x1b" not in Path("studies/small/report.html").read_text()
    assert call(capsys, "report", "small").code == 0
    assert "\x1b" not in Path("studies/small/report.html").read_text()


def test_versions_in_a_storage_by_somebody_else_steer_no_terminal_when_a_study_goes_on(here: Path, capsys: Any) -> None:
    _of_study(versions={"torch": "\x1b]0;x\x07\x1b[31m"})
    for words in (["ablate", "small", "--trial", "1"], ["run", "small.yaml", "--trials", "20"]):
        said = call(capsys, *words)
        assert said.code == 0, said.err
        assert "goes on with other code or versions" in said.err
        assert all(line.isprintable() for line in (said.out + said.err).split("\n")), words


SECRET = "s3cr3t-of-mine"
URLS = [
    f"postgresql://me:{SECRET}@127.0.0.1:9/db", f"postgresql://me@127.0.0.1:9/db?password={SECRET}",
    f"postgresql://me:x/{SECRET}@127.0.0.1:9/db", f"postgresql://me:{SECRET}@@127.0.0.1:9/db", f"mysql://me:{SECRET}@h/db",
    f"postgresql://me:{SECRET}@127.0.0.1:port/db", f"{SECRET}", f"postgresql://me:{SECRET}@[::1/db", f"sqlite://me:{SECRET}@/db",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_password_reaches_neither_an_error_nor_its_traceback(here: Path, capsys: Any, url: str) -> None:
    for words in (["list"], ["show", "small"], ["run", "small.yaml", "-q"]):
        said = call(capsys, "--debug", *words, "--storage", url)
        assert said.code in (2, 4)
        assert SECRET not in said.out + said.err
    assert not [name for name, content in files(here).items() if SECRET.encode() in content]


@pytest.mark.slow
def test_modules_in_the_current_folder_take_the_place_of_none_of_ours(here: Path) -> None:
    (here / "run").mkdir()
    (here / "spaces").mkdir()
    write(here / "spaces/own_net_beside.py", OWN)
    space = SMALL.replace(
        "model: {width: {low: 4, high: 12}, depth: {low: 1, high: 2}}", "model: {family: own_net_beside:net}"
    )
    write(here / "spaces/own.yaml", space)
    for name in ("torch", "yaml", "json", "sitecustomize", "usercustomize", "numpy", "optuna", "tuner", "typer"):
        write(here / f"run/{name}.py", BOMB)
    command = "import sys; sys.path.pop(0); from tuner.__main__ import main; main()"  # as the command that pip installs
    words = [sys.executable, "-c", command, "run", "../spaces/own.yaml", "--trials", "2", "--workers", "2", "-q"]
    done = subprocess.run(words, cwd=here / "run", capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


# --- the dashboard


@pytest.fixture
def asked(here: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Return a way to ask a dashboard of the study, which only reads."""
    storage = optuna.storages.RDBStorage("sqlite:///studies/tuner.db")
    server = dashboard.listen(storage, port=0, allow_writes=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=SECONDS)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, answer.read().decode(errors="replace")
        connection.close()
        return found

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()
    storage.engine.dispose()


ELSEWHERE = [
    {"Host": "localhost.evil.example"}, {"Host": "evil.example"}, {"Host": "127.0.0.1.nip.io"}, {"Host": "127.0.0.1:1"},
    {"Host": ""}, {"Host": "0.0.0.0"}, {"Host": "[::]"}, {"Host": "localhost@evil"}, {"Host": "127.0.0.1, evil"},
    {"Origin": "null"}, {"Origin": "https://evil.example"}, {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:1"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
]  # fmt: skip


@pytest.mark.parametrize("headers", ELSEWHERE, ids=[str(each) for each in ELSEWHERE])
def test_the_dashboard_answers_to_nobody_elsewhere(asked: Any, headers: dict[str, str]) -> None:
    assert asked("/api/studies", **headers)[0] == 403


def test_a_visit_to_the_dashboard_is_answered_wherever_its_link_was_and_writes_never(asked: Any) -> None:
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert asked("/dashboard", **visit)[0] == 200
    assert asked("/api/studies", Sec_Fetch_Site="same-origin")[0] == 200
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "PROPFIND"):
        assert asked("/api/studies/1", method)[0] == 403
    for name in ("X_HTTP_Method_Override", "X_HTTP_Method", "X_Method_Override"):
        assert asked("/api/studies/1?_method=DELETE", **{name: "DELETE"})[0] == 200
    assert len(json.loads(asked("/api/studies")[1])["study_summaries"]) == 1


@pytest.mark.parametrize(
    "path", ["/static/../_app.py", "/static/%2e%2e/_app.py", "/static/..%2f_app.py", "/static//etc/passwd",
             "/../../etc/passwd", "/artifacts/1/x", "/artifacts/1/..%2f..%2ftuner.db", "/api/studies/1/../../tuner.db",
             "/static/..\\_app.py"],
)  # fmt: skip
def test_the_dashboard_hands_out_no_file_but_its_own(asked: Any, path: str) -> None:
    assert asked(path)[0] in (403, 404)


def test_no_cell_of_the_dashboards_table_is_a_formula(asked: Any) -> None:
    with contextlib.closing(sqlite3.connect("studies/tuner.db")) as connection, connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'verdict'", ('"=cmd()"',))
    code, text = asked("/csv/1")
    assert code == 200
    assert "'=cmd()" in text
    assert not re.search(r"(^|,)\"?[=+@]", text, re.MULTILINE)
    assert asked("/csv/9")[0] == 404


TAGS_OF_A_PAGE = (
    '<img src="{}">', '<iframe src="{}"></iframe>', '<script src="{}"></script>', "<script>fetch('{}')</script>",
    '<link rel="stylesheet" href="{}">', "<svg onload=\"fetch('{}')\"></svg>", "<style>@import '{}';</style>",
    '<object data="{}"></object>', '<video src="{}" autoplay></video>', '<div style="background: url({})">x</div>',
    '<img src="x" onerror="fetch(\'{}\')">', '<form action="{}" id="f"></form><script>f.submit()</script>',
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_what_a_note_could_bring_into_the_dashboard_runs_nothing_and_asks_nobody(tmp_path: Path) -> None:
    asked: list[str] = []

    def elsewhere(environ: Any, start_response: Any) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        start_response("404 Not Found", [])
        return []

    def hostile(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return ["".join(tag.format(f"{place}/{number}") for number, tag in enumerate(TAGS_OF_A_PAGE)).encode()]

    servers = [simple_server.make_server("127.0.0.1", 0, app, handler_class=Silent) for app in (elsewhere, hostile)]
    place, port = f"http://127.0.0.1:{servers[0].server_port}", servers[1].server_port
    threads = [threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}) for each in servers]
    for thread in threads:
        thread.start()
    try:
        dom(f"http://127.0.0.1:{port}/", tmp_path)
        bare = set(asked)
        asked.clear()
        servers[1].set_app(dashboard.guard(hostile, port=port, allow_writes=False))
        page = dom(f"http://127.0.0.1:{port}/", tmp_path)
    finally:
        for each, thread in zip(servers, threads, strict=True):
            each.shutdown()
            thread.join()
            each.server_close()
    assert len(bare) > 4, "without the policy it does"
    assert "onerror" in page
    assert asked == []


class Silent(simple_server.WSGIRequestHandler):
    """Writes nothing to the terminal."""

    def log_message(self, *_: Any) -> None: ...
