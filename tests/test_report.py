"""The figures of a study and how they are told."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from command import write

from tuner.reporting import csv_text, figures, formula, gap, summary, trials_csv
from tuner.showing import list_text, study_text, trial_text
from tuner.study import Study
from tuner.telling import clean, counted, number
from tuner.terminal import duration, table, trial_line
from tuner.tuning import tune


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("report")
    return tune(write(folder / "small.yaml"), studies_dir=folder / "studies")


def test_a_gap_is_by_how_much_train_is_better() -> None:
    assert gap("log_loss", 0.25, 0.5) == 0.25
    assert gap("accuracy", 0.75, 0.5) == 0.25
    assert gap("mse", 0.5, 0.25) == -0.25


def test_the_formula_says_the_constants_of_the_score() -> None:
    constants = {"score.gap_penalty": 0.25, "score.noise": 2.0, "score.tolerance": 0.0}
    assert formula("log_loss", constants) == "score = 1 - L_val/L_0 - 0.25 * max(0, (L_val - L_train)/L_0 - 2 SE)"
    constants["score.tolerance"] = 0.1
    assert formula("mae", constants) == "score = -mae(val) - 0.25 * max(0, gap - 2 SE - 0.1)"
    ties = "of ties (within half an SE of the paired difference to the best), the smallest gap"
    assert formula("accuracy", constants | {"score.form": "tiebreak"}) == f"score = accuracy(val); {ties}"


def test_a_failed_trial_is_in_the_table_and_in_the_lines_without_figures(study: Study) -> None:
    failed = replace(study.trials[0], state="failed", score=None, verdict=None, error="ValueError: \x1b[31mred")
    assert figures(failed, "classification") is None
    rows = list(csv.DictReader(io.StringIO(trials_csv({0: failed}, "classification"))))
    assert (rows[0]["state"], rows[0]["score"]) == ("failed", "")
    line = trial_line(failed, study.record)
    assert "failed: ValueError: ?[31mred" in line
    assert "ValueError" in trial_text(failed, "classification")[0]


def test_a_study_of_nothing_has_a_document_and_a_text(study: Study) -> None:
    document = summary(study.record, {}, {})
    assert (document["best"], document["baseline"], document["test"]) == (None, None, None)
    assert "No trial is complete" in "\n".join(study_text(document))
    assert list_text([document])[1].split()[:2] == ["small", "0"]


def test_a_look_at_a_trial_that_is_best_no_more_is_told_to_be_old(study: Study) -> None:
    seen = {
        "trial": 99, "looks": 1, "rows": 3, "baseline": 0, "metrics": {"log_loss": {"value": 1.0}},
        "baseline_metrics": {}, "difference": {},
    }  # fmt: skip
    document = summary(study.record, study.trials, {"test": seen})
    assert document["test"]["stale"] is True
    assert "was looked at for trial 99" in "\n".join(study_text(document))


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1-1", "-x", "@x", "\tx", "\nx", "\uff1d1+1", "-1\n=1", "-\uff11"])
def test_no_cell_of_a_csv_is_a_formula(cell: str) -> None:
    head, row = csv.reader(io.StringIO(csv_text([{cell: cell}])))
    assert head == row == [f"'{cell}"]


def test_a_cell_with_line_ends_stays_one_cell() -> None:
    text = csv_text([{"a": "x\ry\r\nz\nw", "b": "\r=1"}])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], ["x\ny\nz\nw", "'\n=1"]]


def test_numbers_stay_numbers_in_a_csv() -> None:
    assert csv_text([{"a": -1.5, "b": None}, {"a": 2, "c": "x"}]) == "a,b,c\n-1.5,,\n2,,x\n"
    assert csv_text([{"a": "-1"}, {"a": "-.5e-3"}]) == "a\n-1\n-.5e-3\n", "classes may be numbers, too"


def test_figures_are_told_with_four_digits_and_times_as_people_say_them() -> None:
    assert [number(value) for value in (0.123456, 12, True, None, "a\nb")] == ["0.1235", "12", "true", "-", "a?b"]
    assert [duration(value) for value in (None, 3.14159, 240, 9000)] == ["-", "3.14 s", "4 min", "2 h 30 min"]
    assert [counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert clean("a\x1b[2Jb\u202ec") == "a?[2Jb?c"
    assert table([("a", "bb"), ("ccc", "d")], frozenset({1})) == ["a    bb", "ccc   d"]


def test_every_line_of_a_study_fits_a_terminal(study: Study, tmp_path: Path) -> None:
    texts = [study_text(study.document), list_text([study.document])]
    texts += [trial_text(record, "classification") for record in study.trials.values()]
    texts += [[trial_line(record, study.record)] for record in study.trials.values()]
    long = [line for text in texts for line in text if len(line) > 120 and str(study.folder) not in line]
    assert not long


def test_a_table_that_is_too_wide_goes_on_below_with_its_first_column_once_more() -> None:
    rows = [["", "train", "validation", "test"], ["log_loss", "0.1", "0.2", "0.3"]]
    assert table(rows, frozenset({1, 2, 3}), 30) == [
        "          train  validation", "log_loss    0.1         0.2", "", "          test", "log_loss   0.3",
    ]  # fmt: skip
    assert table(rows, within=35) == table(rows)
    assert table(rows, within=1) == [
        "          train", "log_loss  0.1", "", "          validation", "log_loss  0.2", "", "          test",
        "log_loss  0.3",
    ]  # fmt: skip


def test_no_sentence_of_a_study_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, study: Study) -> None:
    monkeypatch.setattr("tuner.showing.width", lambda: 60)
    progress = {"state": "stopped", "trials": 30}
    lines = study_text({**study.document, "progress": progress})
    assert any("was stopped" in line for line in lines)
    sentences = lines[: next(i for i, line in enumerate(lines) if "contender" in line or "model." in line)]
    assert max(map(len, sentences)) <= 60
