"""A damaged database is never a wrong answer, and `tuner repair` brings back what the ledger proves."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.command
import optuna
import pytest
from command import SECONDS, SMALL, call, files, write
from optuna.storages import RDBStorage

from tuner import ledger, sqlite, tables
from tuner.errors import StorageError
from tuner.ledger import LEDGER
from tuner.mending import replacing
from tuner.planning import prepare
from tuner.repairing import repair
from tuner.storage import open_storage
from tuner.store import Store, study_names
from tuner.study import open_study
from tuner.tables import newest_revision
from tuner.tuning import conduct, tune

sys.path.insert(0, str(Path(__file__).parent / "chaos"))
from damage import damage, difference, rows

DB = Path("studies/tuner.db")
BOOK = Path("studies/small") / LEDGER
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies in one database, made once; each test works on a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    tune(write(folder / "small.yaml", SMALL.replace("confirm: false", "confirm: true")), studies_dir=folder / "studies")
    tune(write(folder / "other.yaml"), studies_dir=folder / "studies", study_name="other", trials=2)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("report.html"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def before(here: Path) -> tuple[dict[str, Any], list[Any]]:
    return seen(), rows(Path("studies"))


def seen() -> dict[str, Any]:
    """Return what tuner tells of the two studies, but for the time that they took, of which there is no proof."""
    found = {name: dict(open_study(name).document) for name in ("small", "other")}
    return {name: {**document, "seconds": None} for name, document in found.items()}


def execute(*queries: str) -> Spoil:
    def act(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for query in queries:
                connection.execute(query)

    return act


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = bytes(range(256)) * 32
    path.write_bytes(data)


BEYOND_USE: dict[str, Spoil] = {
    "0 bytes": lambda path: path.write_bytes(b"") and None,
    "garbage": lambda path: path.write_bytes(b"garbage " * 100) and None,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "pages overwritten": overwritten,
    "a dropped table": execute("DROP TABLE trial_values"),
    "a dropped column": execute("ALTER TABLE trials DROP COLUMN datetime_start"),
    "no revision": execute("DELETE FROM alembic_version"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", BEYOND_USE.values(), ids=BEYOND_USE.keys())
def test_a_database_beyond_use_is_refused_moved_aside_and_made_anew(
    here: Path, before: Any, spoil: Spoil, capsys: Any
) -> None:
    spoil(DB)
    damaged = DB.read_bytes()
    for words in (("show", "small"), ("run", "small.yaml", "--quiet"), ("list",)):
        said = call(capsys, *words)
        assert (said.code, len(said.err.splitlines())) == (4, 1), said.err
        assert "`tuner repair " in said.err
    assert DB.read_bytes() == damaged
    said = call(capsys, "repair", "small")
    assert said.code == 0, said.err
    assert "; moved to studies/tuner.db.damaged-" in said.out
    assert "study other: written anew, with 2 trials\n" in said.out
    assert "study small: written anew, with 3 trials\n" in said.out
    asides = [path for path in Path("studies").glob("tuner.db.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    assert [path.read_bytes() for path in asides] == [damaged]  # SQLite may leave a log beside what it can't read
    assert (seen(), rows(Path("studies"))) == before
    assert DB.stat().st_mode & 0o777 == 0o600
    assert repair("small") == ["study small: there is nothing to repair"]


def test_a_database_that_is_gone_is_made_anew(here: Path, before: Any, capsys: Any) -> None:
    DB.unlink()
    for words, code in ((("show", "small"), 4), (("run", "small.yaml", "--quiet"), 2)):
        said = call(capsys, *words)
        assert said.code == code
        assert "`tuner repair small`" in said.err
    DB.unlink()  # the run made one
    assert call(capsys, "repair", "small").code == 0
    assert (seen(), rows(Path("studies"))) == before


FLIP = "UPDATE {} SET value_json = replace(value_json, '1', '2') WHERE "
KEYED = "study_system_attributes SET {} WHERE key = 'tuner{}' AND study_id = 1"
DAMAGED: dict[str, tuple[str, str]] = {
    "a record": (FLIP.format("trial_system_attributes") + "trial_id = 2", "trial 1 is damaged"),
    "a number": ("UPDATE trials SET number = 12 WHERE trial_id = 2", "trial 1 is damaged"),
    "a state": ("UPDATE trials SET state = 'FAIL' WHERE trial_id = 1", "trial 0 is damaged"),
    "a state that is none": ("UPDATE trials SET state = 'COMPLETF' WHERE trial_id = 1", "trial 0 is damaged"),
    "a value": ("UPDATE trial_values SET value = 0.99 WHERE trial_id = 3", "trial 2 is damaged"),
    "a lost value": ("DELETE FROM trial_values WHERE trial_id = 3", "trial 2 is damaged"),
    "a lost record": ("DELETE FROM trial_system_attributes WHERE trial_id = 2", "trial 1 is damaged"),
    "a lost trial": ("DELETE FROM trials WHERE trial_id = 3", "trial 2 is damaged"),
    "the study of a trial": ("UPDATE trials SET study_id = 2 WHERE trial_id = 3", "trial 2 is damaged"),
    "bytes that are no text": (
        "UPDATE trial_system_attributes SET value_json = CAST(x'fffe' AS TEXT) WHERE trial_id = 1",
        "trial 0 is damaged",
    ),
    "the study's record": (
        FLIP.format("study_system_attributes") + "key = 'tuner' AND study_id = 1", "its record is damaged",
    ),
    "the study's key": ("UPDATE " + KEYED.format("key = 'tunes'", ""), "its record is damaged"),
    "the study's name": ("UPDATE studies SET study_name = 'smbll' WHERE study_id = 1", "isn't in sqlite"),
    "a fact": ("UPDATE " + KEYED.format("value_json = replace(value_json, '1', '2')", ":test"), "test is damaged"),
    "a lost fact": ("UPDATE " + KEYED.format("key = 'tuner:tesu'", ":test"), "is damaged"),
    "a lost repeat": (
        "DELETE FROM study_system_attributes WHERE key LIKE 'tuner:repeat:%' AND study_id = 1", "is damaged",
    ),
    "the count": (
        "DELETE FROM study_system_attributes WHERE key = 'tuner:trials' AND study_id = 1",
        "the number of its trials is damaged",
    ),
    "all of the study": ("DELETE FROM studies WHERE study_id = 1", "isn't in sqlite"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_rows_that_are_damaged_are_named_and_written_anew_from_the_ledger(
    here: Path, before: Any, damage: str, capsys: Any
) -> None:
    query, words = DAMAGED[damage]
    execute(query)(DB)
    for command in (("show", "small"), ("run", "small.yaml", "--quiet")):
        said = call(capsys, *command)
        if (damage, command[0]) in (("the study's name", "run"), ("all of the study", "run")):
            assert said.code == 2
            assert "`tuner repair small` brings it back" in said.err
            continue
        assert said.code == 4, said.out
        assert words in said.err
        assert "`tuner repair small`" in said.err
    said = call(capsys, "repair", "small")
    assert said.code == 0, said.err
    assert len(list(Path("studies").glob("tuner.db.backup-*"))) == 1
    if damage == "the study of a trial":
        call(capsys, "repair", "other")
    assert difference(seen()["small"], before[0]["small"]) == set()
    assert rows(Path("studies")) == before[1]


UNSEEN = {
    "a parameter": "UPDATE trial_params SET param_value = 5.0 WHERE param_name = 'model.width' AND trial_id = 1",
    "an intermediate value": "UPDATE trial_intermediate_values SET intermediate_value = 9 WHERE trial_id = 1",
    "an attribute": "UPDATE trial_user_attributes SET value_json = '9' WHERE key = 'gap' AND trial_id = 1",
    "a date": "UPDATE trials SET datetime_complete = '2020-01-01 00:00:00.000000' WHERE trial_id = 1",
    "the direction": "UPDATE study_directions SET direction = 'MINIMIZE' WHERE study_id = 1",
    "an attribute of the study": "UPDATE study_user_attributes SET value_json = '\"x\"' WHERE key = 'score'",
    "the metric's name": "UPDATE study_system_attributes SET value_json = '[\"x\"]' WHERE key = 'study:metric_names'",
}


@pytest.mark.parametrize("damage", UNSEEN)
def test_what_only_optuna_shows_changes_no_figure_and_is_repaired_too(here: Path, before: Any, damage: str) -> None:
    execute(UNSEEN[damage])(DB)
    assert rows(Path("studies")) != before[1]
    assert seen() == before[0]
    assert repair("small") != ["study small: there is nothing to repair"]
    assert (seen(), rows(Path("studies"))) == before


def test_where_nothing_is_wrong_repair_says_so_and_writes_nothing(here: Path, capsys: Any) -> None:
    call(capsys, "repair", "small")
    there = {name: data for name, data in files(here).items() if not name.endswith("lock")}
    said = call(capsys, "repair", "small")
    assert (said.code, said.out) == (0, "study small: there is nothing to repair\n")
    assert {name: data for name, data in files(here).items() if not name.endswith("lock")} == there


def test_a_trial_that_only_the_database_has_stays(here: Path, before: Any) -> None:
    lines = BOOK.read_bytes().splitlines(keepends=True)
    BOOK.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"trial": 1,')))
    execute(DAMAGED["a value"][0])(DB)
    repair("small")
    assert (seen(), rows(Path("studies"))) == before
    assert ledger.proven(BOOK)[1] == {0, 1, 2}


def test_of_a_damaged_ledger_what_holds_is_used_and_the_rest_is_said(here: Path, before: Any) -> None:
    damaged = BOOK.read_bytes().replace(b'"state": "complete"', b'"state": "complete!"', 1)
    BOOK.write_bytes(damaged)
    execute(DAMAGED["a value"][0])(DB)
    said = repair("small")
    assert any("of its ledger wasn't as it was written" in line for line in said)
    (aside,) = BOOK.parent.glob(f"{LEDGER}.damaged-*")
    assert aside.read_bytes() == damaged
    assert (seen(), rows(Path("studies"))) == before
    assert ledger.read(BOOK).damaged == []
    assert ledger.proven(BOOK)[1] == {0, 1, 2}


def without_trial(number: int) -> None:
    lines = BOOK.read_bytes().splitlines(keepends=True)
    BOOK.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"trial": %d,' % number)))


def test_what_neither_database_nor_ledger_proves_is_not_made_up(here: Path) -> None:
    kept = open_study("small").trials
    without_trial(1)
    execute(DAMAGED["a record"][0])(DB)
    assert "study small: trial 1 can't be restored, so it counts as failed" in repair("small")
    found = open_study("small").trials
    assert (found[1].state, found[1].error) == ("failed", "its record was damaged, and no copy of it was whole")
    assert (found[0], found[2]) == (kept[0], kept[2])
    assert [trial.number for trial in optuna.load_study(study_name="small", storage=f"sqlite:///{DB}").trials] == [
        0,
        1,
        2,
    ]
    tune("small.yaml", trials=4)


def test_a_trial_at_the_end_that_nothing_proves_is_found_again_by_a_run(here: Path) -> None:
    kept = open_study("small").trials
    without_trial(2)
    execute(DAMAGED["a lost trial"][0])(DB)
    assert "study small: trial 2 can't be restored; a run finds one in its place" in repair("small")
    assert sorted(open_study("small").trials) == [0, 1]
    tune("small.yaml")
    found = open_study("small").trials
    assert (found[2].values, found[2].score) == (kept[2].values, kept[2].score)


def test_a_study_that_was_stopped_goes_on_after_its_database_was_lost(here: Path) -> None:
    alone = tune("small.yaml", study_name="alone", trials=5).document
    run = conduct(
        prepare(
            write(
                here / "stopped.yaml", SMALL.replace("trials: 3", "trials: 5").replace("study: small", "study: stopped")
            )
        )
    )
    while not (record := next(run)).ended or record.number < 2:
        pass
    next(run)  # one is under way
    run.close()
    DB.unlink()
    repair("stopped")
    found = tune("small.yaml", study_name="stopped", trials=5).document
    for key in ("best", "trials", "verdicts", "epochs"):
        assert found[key] == alone[key]


def test_a_study_that_is_being_run_is_not_repaired(here: Path, capsys: Any) -> None:
    run = conduct(prepare(write(here / "small.yaml", SMALL.replace("trials: 3", "trials: 5"))))
    next(run)
    said = call(capsys, "repair", "small")
    run.close()
    assert said.code == 2
    assert "is being run by process" in said.err


def test_a_study_of_which_nothing_is_proven_is_left_as_it_is(here: Path, capsys: Any) -> None:
    BOOK.unlink()
    DB.write_bytes(b"")
    said = call(capsys, "repair", "small")
    assert said.code == 4
    assert "nothing proves what study small was: restore a copy of the database" in said.err
    assert DB.read_bytes() == b""
    assert call(capsys, "repair", "nobody").code == 2


def test_a_database_that_was_rolled_back_is_told_and_brought_up_to_date(here: Path, before: Any, capsys: Any) -> None:
    earlier = DB.read_bytes()
    tune("small.yaml", trials=4)
    late = seen(), rows(Path("studies"))
    DB.write_bytes(earlier)
    for words in (("show", "small"), ("run", "small.yaml", "--trials", "4")):
        said = call(capsys, *words)
        assert said.code == 4
        assert "study small: the database has lost trial 3; `tuner repair small` brings back what" in said.err
    repair("small")
    assert rows(Path("studies"))[3:] == late[1][3:]
    assert tune("small.yaml", trials=4).document["best"] == late[0]["small"]["best"]


def test_a_study_from_before_there_were_checksums_is_read_run_and_repaired(here: Path, before: Any) -> None:
    strip = "UPDATE {} SET value_json = substr(value_json, 1, length(value_json) - 49) || '}}' WHERE key = 'tuner'"
    execute(
        strip.format("study_system_attributes"), strip.format("trial_system_attributes"),
        "UPDATE study_system_attributes SET value_json = json_extract(value_json, '$.value') "
        "WHERE key LIKE 'tuner:%' AND key NOT IN ('tuner:noted', 'tuner:progress', 'tuner:not_confirmed')",
        "DELETE FROM study_system_attributes WHERE key IN ('tuner:trials', 'tuner:facts', 'tuner:progress', "
        "'tuner:not_confirmed')",
    )(DB)  # fmt: skip
    kept = open_study("small").trials
    BOOK.unlink()
    tune("small.yaml", trials=4)
    found = open_study("small").trials
    assert {number: found[number] for number in kept} == kept
    late = rows(Path("studies"))
    execute("UPDATE trials SET number = 12 WHERE trial_id = 2")(DB)
    with pytest.raises(StorageError, match="trial 1 is damaged"):
        open_study("small")
    repair("small")
    assert open_study("small").trials == found
    assert rows(Path("studies")) == late


# The tables of other versions of Optuna.


def downgrade(path: Path, revision: str) -> None:
    execute("CREATE INDEX trials_study_id_key ON trials (study_id)")(path)  # which the downgrade expects
    rdb = RDBStorage(f"sqlite:///{path}", skip_compatibility_check=True)
    alembic.command.downgrade(rdb._version_manager._create_alembic_config(), revision)
    rdb.engine.dispose()


def test_tables_of_an_older_optuna_are_refused_and_brought_up_to_date_with_a_backup(
    here: Path, before: Any, capsys: Any
) -> None:
    older = sorted(tables.revisions())[-2]
    downgrade(DB, older)
    said = call(capsys, "show", "small")
    assert said.code == 4
    assert "made by an older version of Optuna; `tuner repair STUDY` keeps a backup and updates them" in said.err
    said = call(capsys, "repair", "small")
    assert said.code == 0, said.err
    assert "its tables were of an older Optuna, and are up to date now; backup: studies/tuner.db.backup-" in said.out
    (backup,) = Path("studies").glob("tuner.db.backup-*")
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]
    rdb = open_storage(f"sqlite:///{DB}")
    assert rdb.get_current_version() == newest_revision()
    rdb.engine.dispose()
    assert (seen(), rows(Path("studies"))) == before


@pytest.mark.parametrize(
    "query", ["UPDATE version_info SET schema_version = 999", "UPDATE alembic_version SET version_num = 'v9.0.0.a'"]
)
def test_tables_of_a_newer_optuna_are_refused_with_what_to_do(here: Path, capsys: Any, query: str) -> None:
    execute(query)(DB)
    kept = DB.read_bytes()
    for words in (("show", "small"), ("repair", "small")):
        said = call(capsys, *words)
        assert said.code == 4
        assert "newer than this one; pip install -U optuna" in said.err
    assert DB.read_bytes() == kept


# Network file systems.


@pytest.fixture
def on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(
        "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n"
        f"40 27 0:50 / {place} rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2\n"
    )
    monkeypatch.setattr(sqlite, "MOUNTS", mounts)


def test_a_database_on_a_network_file_system_is_read_but_not_run(here: Path, on_a_network: None, capsys: Any) -> None:
    execute("PRAGMA journal_mode=DELETE")(DB)
    for words in (("run", "small.yaml"), ("run", "small.yaml", "--studies-dir", "new")):
        said = call(capsys, *words)
        assert said.code == 4
        assert "lies on a network file system (nfs4), where SQLite loses data; use --storage postgresql" in said.err
    assert not Path("new").exists()
    assert call(capsys, "show", "small").code == 0
    with closing(sqlite3.connect(DB)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    rdb = open_storage(f"sqlite:///{DB}")
    with rdb.engine.connect() as other:
        assert other.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
    rdb.engine.dispose()


def test_a_disk_of_this_machine_is_no_network(here: Path) -> None:
    tune("small.yaml", trials=1, study_name="local")


def test_who_makes_a_database_waits_for_who_repairs_it(here: Path) -> None:
    path, url, opened = Path(DB), f"sqlite:///{DB}", list[str]()

    def make() -> None:
        rdb = open_storage(url, create=True)
        opened.extend(study_names(rdb))
        rdb.engine.dispose()

    record = open_study("small").record
    path.unlink()
    making = threading.Thread(target=make)
    with replacing(path, path.with_name("aside")) as rdb:
        making.start()
        making.join(0.5)
        assert making.is_alive()
        Store.create(rdb, record, {})
    making.join(SECONDS)
    assert opened == ["small"], "it found what was repaired, and put nothing in its place"


# At random.


def test_flipped_bits_and_truncations_give_the_right_answer_or_a_refusal_that_can_be_repaired(tmp_path: Path) -> None:
    found = damage(seed=11, flips=36, truncations=6, folder=tmp_path)
    assert found["why"] == []
    assert found["tried"] == found["right"] + found["refused"] == 42
    assert found["repaired"] == found["refused"] > 6
    assert found["right"] > 6
