"""What a study leaves: for the next run, for the next study, and when it is stopped or disturbed."""

from __future__ import annotations

import json
import re
import shlex
import stat
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, SMALL, call, spawn, write

from tuner import telling
from tuner.best import load_best
from tuner.cli import main
from tuner.grammar import Override
from tuner.html_report import report
from tuner.planning import prepare
from tuner.posting import notes
from tuner.study import open_study
from tuner.tuning import conduct, tune


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    return tmp_path


def drain(run: Any, ended: int) -> list[Any]:
    """Let a study run until so many trials have ended."""
    found: list[Any] = []
    while len(found) < ended:
        record = next(run)
        found += [record] if record.ended else []
    return found


def test_the_best_configuration_runs_as_a_study_to_its_printed_end(here: Path, capsys: Any) -> None:
    assert call(capsys, "run", "small.yaml").code == 0
    said = call(capsys, "run", "studies/small/best.yaml")
    assert said.code == 0, said.err
    assert "study small-best: 2 trials" in said.err
    assert call(capsys, "show", "small-best").code == 0


def test_a_configuration_that_is_its_own_baseline_runs_to_its_printed_end(here: Path, capsys: Any) -> None:
    (here / "plain.yaml").write_text("data: {source: sklearn:wine}\ntraining: {epochs: 2}\n")
    said = call(capsys, "run", "plain.yaml")
    assert said.code == 0, said.err
    assert "nothing was searched" in said.out


def test_a_stopped_study_leaves_its_best_so_far_with_the_test_set_closed(here: Path, capsys: Any) -> None:
    run = conduct(prepare("small.yaml"))
    drain(run, 2)
    run.close()
    assert open_study("small").best.test is None
    assert call(capsys, "best", "small").code == 0
    assert call(capsys, "show", "small", "--json").document["test"] is None
    assert call(capsys, "run", "small.yaml", "--json").document["test"]["looks"] == 1


def test_a_study_says_that_it_runs_was_stopped_or_is_over_and_how_far_it_came(here: Path, capsys: Any) -> None:
    run = conduct(prepare("small.yaml"))
    drain(run, 2)
    first = telling.answer(open_study("small").document)[0]
    assert first == "The study still runs: 2 of 3 trials have ended. What follows is its state so far."
    said = report(open_study("small"))
    assert "space.yaml" not in said[said.index("To do it again") :], "which isn't there yet"
    assert "best.yaml" not in said
    run.close()
    study = open_study("small")
    told = telling.answer(study.document)
    assert told[0].startswith("The study was stopped (the same command goes on): 2 of 3 trials have ended.")
    assert told[1].startswith(f"Best so far is trial {study.document['best']['trial']}, as it was after epoch")
    assert "2 of 3 trials in " in (study.folder / "report.html").read_text()
    assert "The study was stopped" in notes(study.document, study.trials)[None].replace("\\", "")
    assert "The study was stopped" in call(capsys, "show", "small").out
    assert call(capsys, "run", "small.yaml").code == 0
    assert telling.answer(open_study("small").document)[0].startswith("Of 3 configurations trial ")


def test_a_study_that_was_killed_is_told_to_be_stopped_not_to_run(here: Path, capsys: Any) -> None:
    write(here / "small.yaml", SMALL.replace("{low: 2, high: 4}", "{low: 40, high: 60}") + "stopping: none\n")
    process = spawn("run", "small.yaml", "--trials", "500", "--quiet", cwd=here)
    end = time.monotonic() + SECONDS
    while not (here / "studies" / "tuner.db").exists() or call(capsys, "show", "small").code:
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(0.5)
    assert "The study still runs" in call(capsys, "show", "small").out
    process.kill()
    process.communicate()
    assert "The study was stopped" in call(capsys, "show", "small").out


def test_of_a_single_trial_is_said_that_it_is_one(here: Path, capsys: Any) -> None:
    said = " ".join(telling.answer(tune("small.yaml", trials=1).document))
    assert said.startswith("There is one configuration, that of trial 0, as it was after epoch")
    assert "Tuning did not help" not in said
    assert "1 trial in " in (here / "studies/small/report.html").read_text()


@pytest.mark.parametrize("shared", [False, True])
def test_the_commands_that_a_study_prints_work_when_they_are_pasted(here: Path, capsys: Any, shared: bool) -> None:
    words = ["--studies-dir", "my studies"] + ["--storage", "sqlite:///a 'shared' one.db"] * shared
    said = call(capsys, "run", "small.yaml", *words)
    assert said.code == 0, said.err
    page = report(open_study("small", storage=words[-1] if shared else None, studies_dir="my studies"))
    block = unescape(page[page.index("<pre>", page.index("To do it again")) + 5 : page.index("</pre>")])
    printed = re.findall(r"^(?:one trial  +)?(tuner (?:show|run|train) .*)$", f"{said.out}\n{block}", re.MULTILINE)
    assert len(printed) == 4
    for line in printed:
        done = call(capsys, *shlex.split(line)[1:])
        assert done.code == 0, f"{line}: {done.err}"
    (line,) = re.findall(r"^in Python  +tuner\.(.*)$", said.out, re.MULTILINE)
    assert eval(line, {"load_best": load_best}).study == "small"


def test_a_study_with_a_shared_database_is_refused_from_another_folder_too(here: Path, capsys: Any) -> None:
    url = f"sqlite:///{here / 'shared.db'}"
    run = conduct(prepare("small.yaml", storage=url, studies_dir="one"))
    drain(run, 1)
    said = call(capsys, "run", "small.yaml", "--storage", url, "--studies-dir", "two")
    assert said.code == 2
    assert "is being run by process" in said.err
    drain(run, 1)
    run.close()
    records = open_study("small", storage=url, studies_dir="one").trials.values()
    assert [record.state for record in records][:2] == ["complete", "complete"]


def test_space_yaml_as_it_was_run_runs_again(here: Path, capsys: Any) -> None:
    rows = "\n".join(f"{i},{i * 7 % 5},{'yes' if i * 7 % 5 > 2 else 'no'}" for i in range(60))
    (here / "my.csv").write_text(f"a,b,y\n{rows}\n")
    write(here / "small.yaml", SMALL.replace("sklearn:wine}", "my.csv, target: y}"))
    assert call(capsys, "run", "small.yaml").code == 0
    again = call(capsys, "run", "studies/small/space.yaml", "--study-name", "again")
    assert again.code == 0, again.err


def test_a_folder_with_another_studys_files_is_refused_and_left_as_it_is(here: Path, capsys: Any) -> None:
    tune("small.yaml", trials=2)
    (here / "studies" / "tuner.db").unlink()
    before = (here / "studies/small/best.json").read_bytes()
    said = call(capsys, "run", "small.yaml", "--seed", "5")
    assert said.code == 2
    assert "of a study that isn't in this storage" in said.err
    assert (here / "studies/small/best.json").read_bytes() == before


def test_the_log_of_a_database_that_is_gone_is_not_taken_into_a_new_one(here: Path, capsys: Any) -> None:
    (here / "studies").mkdir()
    (here / "studies" / "tuner.db-wal").write_bytes(b"left by a kill")
    said = call(capsys, "run", "small.yaml")
    assert said.code == 4
    assert "is gone, but tuner.db-wal of it lie there" in said.err


def test_best_so_far_counts_the_trials_of_earlier_runs(here: Path) -> None:
    first = drain(conduct(prepare("small.yaml")), 2)
    run = conduct(prepare(write(here / "small.yaml", SMALL.replace("trials: 3", "trials: 6"))))
    later = drain(run, 4)
    run.close()
    best = max(record.score.value for record in first)
    for record in later:
        assert record.leads == (record.state == "complete" and record.score.value > best)
        best = max(best, record.score.value if record.state == "complete" else best)


def test_files_that_may_hold_data_are_their_owners_alone(here: Path) -> None:
    tune("small.yaml", trials=2)
    for name in ("best.json", "best.yaml", "space.yaml", "trials.csv", "model.safetensors"):
        assert stat.S_IMODE((here / "studies/small" / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((here / "studies/tuner.db").stat().st_mode) == 0o600


def test_the_area_under_the_curve_is_refused_where_validation_has_one_class(here: Path, capsys: Any) -> None:
    kinds = ["no" if i >= 40 or i % 2 else "yes" for i in range(60)]
    lines = [f"{i % 7},{kind},{'val' if i >= 40 else 'train'}" for i, kind in enumerate(kinds)]
    (here / "my.csv").write_text("\n".join(["a,y,split", *lines]) + "\n")
    write(here / "small.yaml", SMALL.replace("sklearn:wine}", "my.csv, target: y}"))
    said = call(capsys, "run", "small.yaml", "-S", "score.metric=roc_auc")
    assert said.code == 2
    assert "roc_auc needs two classes" in said.err


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("1,300", "has commas in its numbers (such as '1,300'); write them without if they mark thousands"),
        ("3,14", "has decimal commas (such as '3,14')"),
        ("$1,234.56", "has formatted numbers (such as '$1,234.56'); write plain ones"),
        ("5.3%", "has formatted numbers (such as '5.3%')"),
    ],
)
def test_numbers_written_for_people_are_refused_with_the_right_advice(
    here: Path, capsys: Any, values: str, told: str
) -> None:
    rows = "\n".join(f'{i},"{values}","{"yes" if i % 2 else "no"}"' for i in range(40))
    (here / "my.csv").write_text(f"a,b,y\n{rows}\n")
    write(here / "small.yaml", SMALL.replace("sklearn:wine}", "my.csv, target: y}"))
    said = call(capsys, "check", "small.yaml")
    assert said.code == 3
    assert told in said.err


def test_predictions_are_printed_byte_for_byte_where_no_terminal_reads_them(here: Path, capsys: Any) -> None:
    rows = "\n".join(f"{i % 9},{'red' if i % 2 else 'é'}" for i in range(60))
    (here / "my.csv").write_text(f"a,y\n{rows}\n")
    write(here / "small.yaml", SMALL.replace("sklearn:wine}", "my.csv, target: y}"))
    assert call(capsys, "run", "small.yaml").code == 0
    with pytest.raises(SystemExit):
        main(["predict", "small", "my.csv"])
    said = capsys.readouterr().out
    main_out = here / "out.csv"
    assert call(capsys, "predict", "small", "my.csv", "--out", str(main_out)).code == 0
    assert said.splitlines()[:3] == main_out.read_text().splitlines()[:3]
    assert json.loads((here / "studies/small/best.json").read_text())["study"] == "small"


def test_training_that_diverges_says_so_instead_of_leaving_nothing_in_silence(here: Path, capsys: Any) -> None:
    (here / "wild.yaml").write_text(
        "data: {source: sklearn:diabetes}\ntraining: {epochs: 20, learning_rate: 10, warmup: 0.0, ema: false}\n"
    )
    said = call(capsys, "train", "wild.yaml", "--out", "mine", "--quiet")
    assert (said.code, said.out) == (1, "")
    assert "there is no model to keep: diverged" in said.err
    assert not (here / "mine").exists()


def test_what_was_half_written_when_a_run_was_killed_is_gone_after_the_next_one(here: Path, capsys: Any) -> None:
    studies = here / "studies"
    parts = [write(studies / f".tuner.db.0123456789ab.part{end}", "half") for end in ("", "-journal")]
    assert call(capsys, "run", "small.yaml", "--trials", "1").code == 0
    places = (".report.html.7.part", "curves/.00001.csv.7.part", "weights/.00001.safetensors.7.part")
    parts += [write(studies / "small" / place, "half") for place in places]
    assert call(capsys, "run", "small.yaml", "--trials", "2").code == 0
    assert not [part for part in parts if part.exists()]


@pytest.mark.parametrize("harm", ["cut off", "another byte"])
@pytest.mark.parametrize("kind", ["a trial's", "refit", "of folds"])
def test_torn_weights_are_noticed_and_trained_again(here: Path, kind: str, harm: str) -> None:
    split = "split: {folds: 2}" if kind == "of folds" else "split: {seed: 0}"
    text = SMALL.replace("sklearn:wine}", f"sklearn:wine, {split}}}")
    write(here / "small.yaml", text.replace("training: {", "training: {refit: true, ") if kind == "refit" else text)
    before = tune("small.yaml")
    best, model = before.document["best"]["trial"], here / "studies" / "small" / "model.safetensors"
    ending, whole = "" if kind == "a trial's" else "-refit", model.read_bytes()
    weights = model.parent / "weights" / f"{best:05d}{ending}.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content if harm == "another byte" else content[:-20])
    after = tune("small.yaml")
    assert weights.read_bytes() == model.read_bytes() == whole
    assert after.document["test"] == before.document["test"]
    untouched = weights.stat().st_mtime_ns
    tune("small.yaml")
    assert weights.stat().st_mtime_ns == untouched


@pytest.mark.parametrize("kind", ["a trial's", "refit"])
def test_torn_weights_take_no_good_models_place_when_a_run_is_stopped(here: Path, kind: str) -> None:
    write(here / "small.yaml", SMALL.replace("training: {", "training: {refit: true, ") if kind == "refit" else SMALL)
    best, model = tune("small.yaml").document["best"]["trial"], here / "studies" / "small" / "model.safetensors"
    ending, whole = "" if kind == "a trial's" else "-refit", model.read_bytes()
    weights = model.parent / "weights" / f"{best:05d}{ending}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    run = conduct(prepare("small.yaml", overrides=[Override("budget.trials", "100", "a test")], studies_dir="studies"))
    next(run)
    run.close()
    left = load_best("small")
    assert left.trial == best
    left.load_model()
    if kind == "refit":  # the trial's own takes its place, which nobody has looked at
        assert left.test is None
    else:
        assert model.read_bytes() == whole


def test_a_network_that_comes_out_otherwise_is_told_and_looked_at_again(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = "import torch\n\n\ndef net(config, shape):\n    return torch.nn.Linear(shape.input[0], shape.outputs)\n"
    write(here / "mine.py", own)
    model = "model: {family: mine:net}\ntraining: {refit: true, epochs: {low: 2, high: 9}}\n"
    write(here / "own.yaml", f"data: {{source: sklearn:wine}}\n{model}budget: {{confirm: false, workers: 1}}\n")
    before = tune("own.yaml", trials=2).document
    write(here / "mine.py", own.replace("return ", "torch.rand(1)\n    return "))
    weights = here / "studies" / "own" / "weights" / f"{before['best']['trial']:05d}-refit.safetensors"
    weights.unlink()
    after = tune("own.yaml", trials=2).document
    assert "trained again, isn't byte for byte what it was" in caplog.text
    assert (before["test"]["looks"], after["test"]["looks"]) == (1, 2)
    assert after["test"]["log_loss"] != before["test"]["log_loss"]
    assert tune("own.yaml", trials=2).document["test"] == after["test"]


def test_a_study_that_goes_on_with_other_code_says_so(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = "import torch\n\n\ndef net(config, shape):\n    return torch.nn.Linear(shape.input[0], shape.outputs)\n"
    write(here / "mine.py", own)
    model = "model: {family: mine:net}\ntraining: {epochs: {low: 2, high: 9}}\n"
    write(here / "own.yaml", f"data: {{source: sklearn:wine}}\n{model}budget: {{confirm: false, workers: 1}}\n")
    tune("own.yaml", trials=1)
    tune("own.yaml", trials=2)
    assert not caplog.messages
    write(here / "mine.py", own + "\n# changed\n")
    tune("own.yaml", trials=3)
    told = r"study 'own' goes on with other code or versions than it began with: mine SHA-256 \w+ -> SHA-256 \w+"
    assert re.fullmatch(told, "".join(caplog.messages))
    tune("own.yaml", trials=3)
    assert len(caplog.messages) == 1, "nothing was left to train"
