"""What people type, hold and point at wrongly: one line a problem, the right exit code, nothing written."""

from __future__ import annotations

import gzip
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL, Said, call, files, tuner, write

Run = Callable[..., Said]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: Any) -> Run:
    """Return a function that asserts that a command is refused cleanly, and returns what was said."""

    def refused(code: int, *words: str | Path, lines: int | None = 1) -> Said:
        before, started = files(here), time.monotonic()
        said = call(capsys, *words)
        assert (said.code, said.out) == (code, ""), said.err
        assert "Traceback" not in said.err
        assert "a fault of the program" not in said.err
        told = said.err.splitlines()
        assert told
        assert all(line.startswith("tuner: ") for line in told), said.err
        assert lines is None or len(told) == lines, said.err
        assert files(here) == before, "something was written"
        assert time.monotonic() - started < 30
        return said

    return refused


def change(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


BAD_SPACES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty"),
    "binary": (bytes(range(256)), ""),
    "UTF-16": (SMALL.encode("utf-16"), "UTF-8"),
    "tab": ("data:\n\tsource: sklearn:wine\n", "tab"),
    "unclosed bracket": ("data: {source: sklearn:wine\n", ""),
    "two documents": (SMALL + "---\na: 1\n", "document"),
    "a list": ("- 1\n- 2\n", ""),
    "duplicate key": (SMALL + "seed: 4\n", "seed"),
    "unknown key": (change("dropout", "dropuot"), "did you mean 'dropout'"),
    "low > high": (change("low: 0.0, high: 0.5}", "low: 0.5, high: 0.1}"), "low"),
    "log with low 0": (change("low: 1e-3", "low: 0"), "log"),
    "infinite bound": (change("high: 0.5", "high: .inf"), "finite"),
    "nan bound": (change("high: 0.5", "high: .nan"), "finite"),
    "no choices": (change("{low: 4, high: 12}", "{choices: []}"), "choices"),
    "nested choices": (change("{low: 4, high: 12}", "{choices: [[1], 2]}"), "model.width"),
    "step 0": (change("{low: 4, high: 12}", "{low: 4, high: 12, step: 0}"), "step"),
    "step too long": (change("{low: 4, high: 12}", "{low: 4, high: 12, step: 99}"), "step"),
    "beyond int64": (change("high: 12", f"high: {2**70}"), "model.width"),
    "unknown condition": (change("high: 12}", "high: 12, when: {model.famly: mlp}}"), "did you mean 'model.family'"),
    "python tag": (SMALL + "model: !!python/object/apply:os.system ['true']\n", ""),
    "deep": ("{a: " * 80 + "1" + "}" * 80, ""),
    "alias bomb": (
        "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n"
                                                for x, y in zip("abcdefgh", "bcdefghi", strict=True)), ""),
    "huge": (SMALL + "#" * 2_000_000, "is larger than"),
    "unknown sampler": (SMALL + "search: {sampler: tpo}\n", "tpe"),
    "unknown metric": (SMALL + "score: {metric: acuracy}\n", "did you mean 'accuracy'"),
    "unknown family": (change("model: {", "model: {family: mpl, "), "did you mean 'mlp'"),
    "metric of the other task": (SMALL + "score: {metric: r2}\n", "doesn't apply to classification"),
    "images' model for a table": (change("model: {", "model: {family: cnn, "), "cnn takes image data"),
    "study name with a slash": (change("study: small", "study: ../small"), "isn't allowed"),
    "seed below 0": (change("seed: 3", "seed: -1"), "seed"),
    "seed too large": (change("seed: 3", f"seed: {2**70}"), "seed"),
    "seed of letters": (change("seed: 3", "seed: abc"), "seed"),
    "trials below 0": (change("trials: 3", "trials: -3"), "budget.trials"),
    "no workers": (change("trials: 3", "trials: 3, workers: 0"), "budget.workers"),
    "too many workers": (change("trials: 3", "trials: 3, workers: 10000"), "budget.workers"),
    "clock time": (change("trials: 3", "trials: 3, timeout: 1:30"), "budget.timeout"),
    "time below 0": (change("trials: 3", "trials: 3, timeout: -5"), "budget.timeout"),
    "no data": ("seed: 1\n", "data.source"),
    "unknown bundled set": (change("sklearn:wine", "sklearn:whine"), "did you mean 'wine'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SPACES)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_space_file_ends_with_2_and_nothing_is_written(
    here: Path, refused: Run, name: str, command: str
) -> None:
    text, hint = BAD_SPACES[name]
    (here / "bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    said = refused(2, command, "bad.yaml", lines=None)
    assert hint in said.err
    assert re.search(r"bad\.yaml|score\.metric|model\.family", said.err)


def test_every_problem_of_a_file_is_told_at_once_with_its_place(here: Path, refused: Run) -> None:
    text = SMALL.replace("dropout", "dropuot").replace("seed: 3", "seed: x").replace("depth: {low: 1", "depth: {low: 9")
    write(here / "bad.yaml", text)
    said = refused(2, "run", "bad.yaml", lines=3)
    assert all(re.match(r"tuner: bad\.yaml:\d+:\d+ ", line) for line in said.err.splitlines())


def test_what_yaml_1_2_calls_a_number_and_a_word_is_one(here: Path, capsys: Any) -> None:
    write(here / "good.yaml", "\ufeff" + change("{low: 3e-3, high: 3e-2, log: true}", "1e-2"))
    assert call(capsys, "check", "good.yaml").code == 0


def test_equal_bounds_are_a_constant_and_said_to_be_one(here: Path, capsys: Any) -> None:
    write(here / "good.yaml", change("{low: 4, high: 12}", "{low: 8, high: 8}"))
    said = call(capsys, "check", "good.yaml")
    assert said.code == 0
    assert "model.width: low == high" in said.out


def test_a_file_that_is_none_is_refused(here: Path, refused: Run) -> None:
    (here / "folder.yaml").mkdir()
    for command in ("run", "check", "train"):
        assert "no such file" in refused(2, command, "missing.yaml").err
        assert "is a folder" in refused(2, command, "folder.yaml").err


BAD_LINES: dict[str, tuple[list[str], str]] = {
    "no such command": (["ru"], "ru"),
    "no argument": (["run"], "Missing argument"),
    "unknown option": (["run", "small.yaml", "--trails", "3"], "--trails"),
    "trials not a number": (["run", "small.yaml", "--trials", "many"], "--trials"),
    "trials below 0": (["run", "small.yaml", "--trials", "-1"], "budget.trials"),
    "no workers": (["run", "small.yaml", "--workers", "0"], "--listen"),
    "clock time": (["run", "small.yaml", "--timeout", "1:30"], "duration"),
    "empty time": (["run", "small.yaml", "--timeout", ""], "budget.timeout"),
    "seed too large": (["run", "small.yaml", "--seed", str(2**70)], "seed"),
    "name with dots and slash": (["run", "small.yaml", "--study-name", "../x"], "isn't allowed"),
    "name with a newline": (["run", "small.yaml", "--study-name", "a\nb"], "isn't allowed"),
    "name with ANSI": (["run", "small.yaml", "--study-name", "\x1b[31mred"], "control character"),
    "empty name": (["run", "small.yaml", "--study-name", ""], "isn't allowed"),
    "override without a value": (["run", "small.yaml", "-S", "training.epochs"], "key=value"),
    "override of an unknown key": (["run", "small.yaml", "-S", "training.epoch=3"], "did you mean 'epochs'"),
    "override of a wrong value": (["run", "small.yaml", "-S", "training.epochs=soon"], "training.epochs"),
    "show with a path out": (["show", "../../etc"], "no study name"),
    "show with ANSI": (["show", "\x1b[31mred"], "no study name"),
    "best with a newline": (["best", "a\nb"], "no study name"),
    "best in no form": (["best", "small", "--format", "xml"], "--format"),
    "predict without data": (["predict", "small"], "Missing argument"),
    "unknown scheme": (["run", "small.yaml", "--storage", "sqlit:///x.db"], "unknown scheme"),
    "unsupported scheme": (["run", "small.yaml", "--storage", "mysql://a:b@c/d"], "unknown scheme"),
    "no URL": (["run", "small.yaml", "--storage", "nowhere"], "isn't a URL"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_wrong_command_line_ends_with_2_and_one_line(here: Path, refused: Run, name: str) -> None:
    words, hint = BAD_LINES[name]
    write(here / "small.yaml")
    said = refused(2, *words)
    assert hint in said.err
    assert "\x1b" not in said.err


def test_an_unknown_study_is_told_with_those_there_are(here: Path, refused: Run, capsys: Any) -> None:
    assert call(capsys, "run", write(here / "small.yaml"), "--trials", "1", "-q").code == 0
    for command in (["show"], ["best"], ["predict", "x.csv"]):
        said = refused(2, command[0], "smal", *command[1:])
        assert said.err == "tuner: no study 'smal' (did you mean 'small'?); there are: small\n"
    assert "has the trials 0 to 0" in refused(2, "show", "small", "--trial", "9").err
    assert "file" in refused(2, "best", "small", "--out", "studies/tuner.db/x").err.lower()


def table(rows: list[str]) -> str:
    return "\n".join(["a,b,y", *rows]) + "\n"


FINE = [f"{i % 7}.5,{i % 5},{'yes' if i % 2 else 'no'}" for i in range(60)]
BAD_TABLES: dict[str, tuple[str | bytes, str]] = {
    "header only": (table([]), ""),
    "empty": ("", ""),
    "one class": (table([row.replace("yes", "no") for row in FINE]), "one"),
    "a class with one row": (table([*FINE, "1,1,maybe"]), "maybe"),
    "no target": ("a,b\n1,2\n", "a, b"),
    "target with gaps": (table([*FINE[:-1], "1,1,"]), "y"),
    "infinite": (table([*FINE, "inf,1,no"]), "a"),
    "ragged": (table([*FINE, "1,2,3,4,5"]), ""),
    "not UTF-8": (table(FINE).encode() + b"1,\xff\xfe,no\n", "UTF-8"),
    "one name twice": (table(FINE).replace("a,b,y", "a,a,y"), "more than once"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_data_that_cant_be_used_end_with_3_before_anything_is_written(here: Path, refused: Run, name: str) -> None:
    content, hint = BAD_TABLES[name]
    (here / "my.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    write(here / "t.yaml", change("sklearn:wine", "my.csv, target: y"))
    for command in ("run", "check"):
        said = refused(3, command, "t.yaml", lines=None)
        assert "my.csv" in said.err
        assert hint in said.err


def test_data_that_arent_there_or_are_no_data_end_with_3(here: Path, refused: Run) -> None:
    np.savez(here / "pickled.npz", X=np.array([{"a": 1}] * 9, dtype=object), y=np.arange(9))
    (here / "cut.csv.gz").write_bytes(gzip.compress(table(FINE).encode())[:-20])
    (here / "folder.csv").mkdir()
    write(here / "odd.xyz", "1,2,3")
    for source in ("missing.csv", "pickled.npz", "cut.csv.gz", "folder.csv", "odd.xyz"):
        write(here / "t.yaml", change("sklearn:wine", f"{source}, target: y"))
        assert source in refused(3, "run", "t.yaml", lines=None).err


def test_rows_to_predict_that_dont_fit_the_model_end_with_3(here: Path, refused: Run, capsys: Any) -> None:
    write(here / "my.csv", table(FINE))
    space = write(here / "t.yaml", change("sklearn:wine", "my.csv, target: y"))
    assert call(capsys, "run", space, "--trials", "1", "-q").code == 0
    write(here / "short.csv", "a\n1\n")
    assert "b" in refused(3, "predict", "small", "short.csv").err
    assert "no such file" in refused(3, "predict", "small", "missing.csv").err
    write(here / "none.csv", "a,b\n")
    refused(3, "predict", "small", "none.csv")
    write(here / "studies" / "small" / "model.safetensors", "junk")
    refused(3, "predict", "small", "my.csv")


# --- storage


def test_a_missing_database_ends_with_4_and_none_is_made(here: Path, refused: Run) -> None:
    for words in (["show", "small"], ["show", "small", "--storage", "sqlite:///none.db"]):
        assert "no such database" in refused(4, *words).err


@pytest.mark.parametrize("content", [b"", b"this is no database" * 99, b"SQLite format 3\x00" + b"\x10" * 500, None])
def test_a_damaged_database_ends_with_4_and_stays_as_it_is(here: Path, capsys: Any, content: bytes | None) -> None:
    write(here / "small.yaml")
    if content is None:
        (here / "my.db").mkdir()
    else:
        (here / "my.db").write_bytes(content)
    for words in (["list"], ["show", "small"], ["run", "small.yaml"]):
        said = call(capsys, *words, "--storage", "sqlite:///my.db")
        assert (said.code, said.out, len(said.err.splitlines())) == (4, "", 1), said.err
        assert "my.db" in said.err
        assert content is None or (here / "my.db").read_bytes() == content
        assert not (here / "studies").exists()


def test_a_study_that_tuner_didnt_make_isnt_touched(here: Path, capsys: Any) -> None:
    import optuna

    (here / "studies").mkdir()
    optuna.create_study(study_name="small", storage="sqlite:///studies/tuner.db")
    said = call(capsys, "run", write(here / "small.yaml"))
    assert (said.code, said.out) == (4, "")
    assert said.err.endswith("study small wasn't made by tuner; choose another --study-name\n")
    assert call(capsys, "run", here / "small.yaml", "--study-name", "mine", "--trials", "1", "-q").code == 0


def test_a_place_that_cant_be_written_ends_with_4_and_names_it(here: Path, capsys: Any) -> None:
    write(here / "small.yaml")
    write(here / "studies", "a file, not a folder")
    said = call(capsys, "run", "small.yaml")
    assert (said.code, said.out) == (4, "")
    assert len(said.err.splitlines()) == 1
    assert "studies" in said.err
    write(here / "elsewhere" / "small", "a file in the study's place")
    said = call(capsys, "run", "small.yaml", "--studies-dir", "elsewhere")
    assert (said.code, said.out) == (4, "")
    assert said.err.splitlines() == ["tuner: elsewhere/small/ledger.jsonl: can't be read (Not a directory)"]


def test_weights_that_cant_be_written_end_the_run_and_the_trial_runs_again(here: Path, capsys: Any) -> None:
    write(here / "small.yaml")
    write(here / "studies" / "small" / "weights", "a file where the folder should be")
    said = call(capsys, "run", "small.yaml", "-q")
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith("tuner: weights can't be written: ")
    (here / "studies" / "small" / "weights").unlink()
    again = call(capsys, "run", "small.yaml", "-q", "--json")
    assert (again.code, again.document["trials"]["complete"]) == (0, 3)


def test_a_locked_database_is_told(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner import locking

    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.2)
    assert call(capsys, "run", write(here / "small.yaml"), "--trials", "1", "-q").code == 0
    with sqlite3.connect("studies/tuner.db", isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        said = call(capsys, "run", "small.yaml", "--trials", "2", "-q")
        assert (said.code, said.out) == (4, "")
        assert "locked" in said.err
        assert len(said.err.splitlines()) == 1
        connection.execute("ROLLBACK")
    connection.close()
    assert call(capsys, "run", "small.yaml", "--trials", "2", "-q").code == 0


SECRET = "s3cr3t-of-mine"


def test_a_password_in_the_storage_url_is_shown_nowhere(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "small.yaml")
    monkeypatch.setenv("OPTUNA_STORAGE", f"postgresql://me:{SECRET}@127.0.0.1:9/db")
    for words in (["run", "small.yaml"], ["--debug", "list"], ["--debug", "show", "small"]):
        said = call(capsys, *words)
        assert (said.code, said.out) == (4, "")
        assert SECRET not in said.err
    assert not [path for path in here.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_the_environment_names_the_storage(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///mine.db")
    said = call(capsys, "run", write(here / "small.yaml"), "--trials", "1", "--json", "-q")
    assert said.document["storage"] == "sqlite:///mine.db"
    assert (here / "mine.db").exists()
    assert not (here / "studies" / "tuner.db").exists()
    assert call(capsys, "show", "small").code == 0


# --- the rest of the world


def test_cells_of_every_csv_are_no_formulas(here: Path, capsys: Any) -> None:
    names = ["=cmd()", "+1", "<b>", "@x", "-y"]
    rows = [f"{i % 7}.5,{i % 5},{names[i % 5]}" for i in range(100)]
    write(here / "my.csv", table(rows))
    space = write(here / "t.yaml", change("sklearn:wine", "my.csv, target: y"))
    assert call(capsys, "run", space, "--trials", "2", "-q").code == 0
    cells = call(capsys, "predict", "small", "my.csv").out.splitlines()
    assert len(cells) == 101
    for path in [*(here / "studies" / "small").rglob("*.csv")]:
        cells += path.read_text().splitlines()
    assert not [line for line in cells if re.search(r"(^|,)[=+@]", line)]


def test_a_fault_of_the_program_is_one_line_and_debug_shows_where(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner import study

    def broken(**_: object) -> None:
        raise RuntimeError("never\nseen")

    monkeypatch.setattr(study, "list_studies", broken)
    said = call(capsys, "list")
    assert said.code == 1
    assert said.err == ("tuner: tuner failed: RuntimeError: never seen (a fault of the program; --debug shows where)\n")
    assert "Traceback" in call(capsys, "list", "--debug").err


def test_out_of_an_impossible_place_ends_with_2(here: Path, refused: Run, capsys: Any) -> None:
    assert call(capsys, "run", write(here / "small.yaml"), "--trials", "1", "-q").code == 0
    write(here / "file", "")
    for words in (["best", "small"], ["best", "small", "--format", "json"]):
        assert "can't be written" in refused(2, *words, "--out", "file/below.yaml").err
        assert "can't be written" in refused(2, *words, "--out", "studies").err


@pytest.mark.slow
def test_what_the_output_cant_spell_still_comes_out(here: Path, capsys: Any) -> None:
    write(here / "my.csv", table([row.replace("no", "nö") for row in FINE]))
    space = write(here / "t.yaml", change("sklearn:wine", "my.csv, target: y"))
    assert call(capsys, "run", space, "--trials", "1", "-q").code == 0
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "NO_COLOR": "1"}
    said = tuner("predict", "small", "my.csv", cwd=here, env=env)
    assert (said.code, said.err) == (0, "")
    assert len(said.out.splitlines()) == 61
