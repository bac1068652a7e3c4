"""The command line as its users hold it, on small studies."""

from __future__ import annotations

import csv
import io
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import COMMAND, SMALL, Said, call, files, tuner, write

DOCUMENTED = {
    "study", "space", "storage", "metric", "direction", "seed", "trials", "verdicts", "epochs", "seconds", "best",
    "baseline", "without_gap_penalty", "confirmed", "test", "config", "report", "model",
}  # fmt: skip
OF_A_TRIAL = {"trial", "score", "epoch", "params", "train", "val", "gap", "parameters"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A study run by the real command, with what it said."""
    folder = tmp_path_factory.mktemp("finished")
    said = tuner("run", write(folder / "small.yaml").name, "--json", cwd=folder)
    assert said.code == 0, said.err
    return folder, said


@pytest.fixture
def folder(finished: tuple[Path, Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the finished study's folder, as the current folder."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_run_json_prints_one_document_with_every_documented_key(finished: tuple[Path, Said]) -> None:
    document = finished[1].document
    assert document.keys() >= DOCUMENTED
    assert document["trials"] == {"total": 3, "complete": 3, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert document["verdicts"].keys() == {"overfit", "plateau", "behind", "diverged", "finished"}
    assert document["epochs"].keys() == {"run", "budgeted"}
    for part in ("best", "baseline", "without_gap_penalty"):
        assert document[part].keys() >= OF_A_TRIAL
    assert document["confirmed"] is None
    assert document["test"]["looks"] == 1
    assert document["test"]["log_loss"].keys() == {"value", "low", "high"}
    assert document["storage"] == "sqlite:///studies/tuner.db"
    assert document["config"] == "studies/small/best.yaml"
    assert document["model"] == "studies/small/model.safetensors"


def test_run_says_its_progress_on_stderr_one_line_a_trial(finished: tuple[Path, Said]) -> None:
    lines = finished[1].err.splitlines()
    assert lines[0] == "study small: 3 trials, 1 worker; Ctrl-C stops, the same command goes on from there"
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]
    assert "baseline" in lines[2]
    assert all(len(line) <= 120 for line in lines)


def test_quiet_says_nothing_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "run", write(tmp_path / "small.yaml"), "--quiet", "--trials", "1")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Study small: 1 trial (1 complete)")


def test_show_json_is_what_run_json_was(folder: Path, finished: tuple[Path, Said], capsys: Any) -> None:
    shown = call(capsys, "show", "small", "--json")
    assert (shown.code, shown.err) == (0, "")
    assert shown.document | {"seconds": 0} == finished[1].document | {"seconds": 0}


@pytest.mark.parametrize("name", ["small", "studies/small", "./studies/small/"])
def test_show_takes_a_name_or_a_folder(folder: Path, name: str, capsys: Any) -> None:
    said = call(capsys, "show", name)
    assert said.code == 0
    assert "Best configuration: trial" in said.out
    assert all(len(line) <= 120 for line in said.out.splitlines())


def test_show_trial_tells_its_life(folder: Path, capsys: Any) -> None:
    said = call(capsys, "show", "small", "--trial", "0")
    assert said.code == 0
    assert said.out.startswith("Trial 0 (baseline), complete:")
    assert "Verdict: finished at epoch 4" in said.out
    assert "kept" in said.out


def test_show_trial_json_has_its_whole_curve(folder: Path, capsys: Any) -> None:
    document = call(capsys, "show", "small", "--trial", "0", "--json").document
    assert document["number"] == 0
    assert len(document["curve"]["series"]["val.loss"]) == len(document["curve"]["series"]["train.loss"]) == 4


def test_list_has_a_line_a_study(folder: Path, capsys: Any) -> None:
    said = call(capsys, "list")
    assert [line.split()[0] for line in said.out.splitlines()] == ["study", "small"]
    assert [document["study"] for document in call(capsys, "list", "--json").document] == ["small"]


def test_list_of_nothing_says_how_to_begin_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "list") == Said(0, "There are no studies yet; start one with `tuner run SPACE`.\n", "")
    assert call(capsys, "list", "--json").document == []
    assert not files(tmp_path)


def test_best_yaml_runs_again_through_train_and_through_run(folder: Path, capsys: Any) -> None:
    said = call(capsys, "best", "small")
    assert said.code == 0
    again = write(folder / "elsewhere" / "again.yaml", said.out)
    trained = call(capsys, "train", again, "--json", "--quiet", "-S", "training.epochs=2")
    assert (trained.code, trained.document["state"]) == (0, "complete")
    ran = call(capsys, "run", again, "--json", "--quiet")
    assert ran.code == 0, ran.err
    assert ran.document["study"] == "small-best"
    assert ran.document["trials"]["total"] == 2  # the configuration and its baseline
    assert call(capsys, "best", "small-best").code == 0


def test_best_written_elsewhere_still_finds_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "project" / "my.csv", "x,z,y\n" + "".join(f"{i % 7},{i % 5},{'ab'[i % 2]}\n" for i in range(60)))
    space = SMALL.replace("{source: sklearn:wine}", "{source: my.csv, target: y}")
    assert call(capsys, "run", write(tmp_path / "project" / "mine.yaml", space), "--trials", "2").code == 0
    assert call(capsys, "best", "small", "--out", "far/away/best.yaml").code == 0
    assert call(capsys, "check", "far/away/best.yaml").code == 0
    write(tmp_path / "here.yaml", call(capsys, "best", "small").out)
    assert call(capsys, "check", "here.yaml").code == 0
    assert call(capsys, "check", "studies/small/best.yaml").code == 0


def test_best_json_and_best_python_hold_the_same_values(folder: Path, capsys: Any) -> None:
    document = call(capsys, "best", "small", "--format", "json").document
    assert call(capsys, "best", "small", "--format", "python", "--out", "made/best_config.py").code == 0
    found = runpy.run_path("made/best_config.py")
    assert found["PARAMS"] == document["params"]
    assert json.loads(json.dumps(found["CONFIG"])) == document["config"]
    assert document["test"]["looks"] == 1


def test_best_without_a_complete_trial_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ran = call(capsys, "run", write(tmp_path / "small.yaml"), "--trials", "0")
    assert ran.code == 0
    assert "No trial is complete" in ran.out
    said = call(capsys, "best", "small")
    assert said == Said(
        2, "", "tuner: study 'small' has no best configuration yet; `tuner run` of it to its end leaves one\n"
    )


def test_train_writes_a_model_that_load_best_reads(folder: Path, capsys: Any) -> None:
    from tuner import load_best

    said = call(capsys, "train", "studies/small/best.yaml", "--out", "mine", "--quiet")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Trial 0, complete")
    best = load_best("mine/best.yaml")
    same = {name: value for name, value in load_best("small").config.flat().items() if name not in ("study", "folder")}
    assert best.config.flat().items() >= same.items()
    assert set(best.predict(np.zeros((2, 13)))) <= set(best.classes)


def test_training_the_best_configuration_again_gives_the_very_same_network_and_figures(
    folder: Path, capsys: Any
) -> None:
    call(capsys, "train", "studies/small/best.yaml", "--out", "again", "--quiet")
    assert Path("again/model.safetensors").read_bytes() == Path("studies/small/model.safetensors").read_bytes()
    first, again = (json.loads(Path(place, "best.json").read_text()) for place in ("studies/small", "again"))
    assert [first[part] == again[part] for part in ("train", "val", "gap", "epoch", "score")] == [True] * 5


def test_train_of_a_space_with_ranges_says_what_to_do(folder: Path, capsys: Any) -> None:
    said = call(capsys, "train", "small.yaml")
    assert (said.code, said.out) == (2, "")
    assert "has ranges" in said.err
    assert "`tuner run`" in said.err


def make_table(path: Path, target: str) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    kind = np.where(x[:, 0] > 0, "up", "down")
    values = 3 * x[:, 0] + x[:, 1] if target == "size" else kind
    word = np.where(x[:, 1] > 0, "red", "blue")
    lines = [f"{a:.4f},{b:.4f},{c},{y}" for (a, b), c, y in zip(x, word, values, strict=True)]
    return write(path, "\n".join([f"a,b,colour,{target}", *lines]) + "\n")


TABLE = SMALL.replace("{source: sklearn:wine}", "{source: my.csv, target: TARGET}").replace("small", "table")


def test_predict_classes_of_a_csv_without_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    make_table(tmp_path / "my.csv", "kind")
    assert call(capsys, "run", write(tmp_path / "t.yaml", TABLE.replace("TARGET", "kind")), "--trials", "2").code == 0
    new = write(tmp_path / "new.csv", "colour,b,a\nred,1.0,2.5\nblue,0.1,-2.5\ngreen,0.1,-2.5\n")
    said = call(capsys, "predict", "table", new)
    assert (said.code, said.err) == (0, "")
    found = rows(said.out)
    assert list(found[0]) == ["prediction", "p_down", "p_up"]
    assert len(found) == 3
    for row in found:
        assert float(row["p_down"]) + float(row["p_up"]) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == max(("down", "up"), key=lambda name: float(row[f"p_{name}"]))
    assert call(capsys, "predict", "table", "my.csv", "--out", "p/all.csv") == Said(0, "", "wrote p/all.csv\n")
    assert len(rows((tmp_path / "p" / "all.csv").read_text())) == 90


def test_predict_numbers_in_the_unit_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    make_table(tmp_path / "my.csv", "size")
    space = write(tmp_path / "t.yaml", TABLE.replace("TARGET", "size"))
    ran = call(capsys, "run", space, "--trials", "2", "-S", "training.epochs=25", "--json")
    assert ran.document["metric"] == "mse"
    assert ran.document["best"]["val"].keys() == {"mse", "mae", "r2"}
    found = rows(call(capsys, "predict", "table", "my.csv").out)
    assert list(found[0]) == ["prediction"]
    true = [float(row["size"]) for row in rows((tmp_path / "my.csv").read_text())]
    assert np.corrcoef([float(row["prediction"]) for row in found], true)[0, 1] > 0.9


def test_predict_images_of_an_npz_with_and_without_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 255, (60, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "my.npz", X=x, y=np.arange(60) % 3)
    np.savez(tmp_path / "new.npz", X=x[:5])
    space = SMALL.replace("sklearn:wine", "my.npz").replace("model: {", "model: {family: cnn, ")
    assert call(capsys, "run", write(tmp_path / "i.yaml", space), "--trials", "2").code == 0
    whole = rows(call(capsys, "predict", "small", "my.npz").out)
    assert list(whole[0]) == ["prediction", "p_0", "p_1", "p_2"]
    some = rows(call(capsys, "predict", "small", "new.npz").out)
    assert [row["prediction"] for row in some] == [row["prediction"] for row in whole[:5]]


def test_check_tells_what_a_run_would_do_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    space = write(tmp_path / "small.yaml")
    before = files(tmp_path)
    said = call(capsys, "check", space)
    assert (said.code, said.err) == (0, "")
    assert "8 values are searched" in said.out
    assert "3 trials x at most 4 epochs = 12, with 1 worker" in said.out
    document = call(capsys, "check", space, "--json").document
    assert document["valid"] is True
    assert document["metric"] == "log_loss"
    assert document["epochs"] == 12
    assert files(tmp_path) == before


def test_check_no_import_imports_nothing_that_the_space_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "fatal_if_imported.py", "raise SystemExit(77)")
    space = "data: {source: fatal_if_imported:load}\nmodel: {family: fatal_if_imported:net}\n"
    said = call(capsys, "check", write(tmp_path / "own.yaml", space), "--no-import")
    assert said.code == 0
    assert "not imported" in said.out
    assert "fatal_if_imported" not in sys.modules
    with_import = call(capsys, "check", "own.yaml")
    assert with_import.code == 5
    assert "fatal_if_imported.py:1" in with_import.err


def test_schema_prints_a_json_schema(capsys: Any) -> None:
    assert call(capsys, "schema").document["properties"].keys() >= {"data", "model", "training"}


def test_version_and_help(capsys: Any) -> None:
    from tuner import __version__

    assert call(capsys, "--version") == Said(0, f"tuner {__version__}\n", "")
    for words in ([], ["--help"], ["-h"]):
        said = call(capsys, *words)
        assert said.code == 0
        assert "dashboard" in said.out


COMMANDS = (
    "run", "check", "list", "show", "rescore", "ablate", "best", "train", "predict", "dashboard", "schema",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: Any) -> None:
    said = call(capsys, command, "--help")
    assert said.code == 0
    assert f"Example: tuner {command}" in said.out


def test_a_closed_pipe_leaves_no_traceback(finished: tuple[Path, Said]) -> None:
    script = f"{' '.join(COMMAND)} show small --json | head -1"
    done = subprocess.run(["bash", "-c", script], cwd=finished[0], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_options_stand_for_keys_of_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--study-name", "other", "--seed", "9", "--trials", "1", "--timeout", "10m", "--workers", "1"]
    said = call(capsys, "run", write(tmp_path / "small.yaml"), *words, "-S", "training.epochs=2", "--json", "-q")
    document = said.document
    assert (document["study"], document["seed"], document["trials"]["total"]) == ("other", 9, 1)
    assert document["best"]["params"].keys() >= {"model.width"}
    assert "training.epochs" not in document["best"]["params"]
    assert (tmp_path / "studies" / "other" / "space.yaml").exists()


def test_studies_may_lie_elsewhere_and_what_is_said_of_them_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "run", write(tmp_path / "small.yaml"), "--trials", "1", "--studies-dir", "deep/down")
    assert 'tuner.load_best("deep/down/small")' in said.out
    assert "tuner dashboard small --studies-dir deep/down" in said.out
    assert call(capsys, "show", "deep/down/small").code == 0
    assert call(capsys, "best", "deep/down/small").code == 0
    assert call(capsys, "best", "small", "--studies-dir", "deep/down").code == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["deep"]


def test_a_study_leaves_its_files_and_nothing_half_done(folder: Path) -> None:
    study = folder / "studies" / "small"
    there = {path.name for path in study.iterdir()}
    assert there >= {"best.yaml", "best.json", "model.safetensors", "space.yaml", "trials.csv", "curves", "weights"}
    assert not list(study.rglob("*.part"))
    assert not list(study.glob(".data*"))
    assert [path.name for path in sorted((study / "curves").iterdir())] == ["00000.csv", "00001.csv", "00002.csv"]
    kept = [row for row in rows((study / "trials.csv").read_text()) if row["state"] == "complete"]
    assert len(kept) == 3
