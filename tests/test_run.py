"""The library as its users hold it: tune, open_study, load_best; what a study is when it is run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
from command import SMALL, write
from numpy.typing import NDArray
from sklearn.datasets import load_wine

import tuner
from tuner.errors import SpaceError
from tuner.grammar import read_space
from tuner.record import TrialRecord
from tuner.showing import study_text


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    tuner.tune(write(folder / "small.yaml"), studies_dir=folder / "studies")
    return folder


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(study_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x() -> NDArray[np.float64]:
    found: NDArray[np.float64] = load_wine().data
    return found


def test_tune_returns_the_study_that_open_study_returns(folder: Path) -> None:
    study = tuner.tune("small.yaml", trials=3)
    again = tuner.open_study("small")
    assert study.name == again.name == "small"
    assert study.trials == again.trials
    assert list(study.trials) == [0, 1, 2]
    assert dict(study.document) == dict(again.document)
    assert study.best.trial == study.document["best"]["trial"]


def test_tune_puts_its_arguments_over_the_file(tmp_path: Path) -> None:
    study = tuner.tune(
        write(tmp_path / "small.yaml"), trials=1, workers=1, timeout="10m", study_name="mine", seed=5,
        studies_dir=tmp_path / "s", overrides={"training.epochs": 2, "model.depth": {"low": 1, "high": 3}},
    )  # fmt: skip
    assert (study.name, study.record.seed, len(study.trials)) == ("mine", 5, 1)
    assert "high: 3" in study.record.space


def test_tune_raises_what_the_command_says(tmp_path: Path) -> None:
    with pytest.raises(tuner.SpaceError, match="trials"):
        tuner.tune(write(tmp_path / "small.yaml"), trials=-1)
    with pytest.raises(tuner.UsageError, match="no such file"):
        tuner.tune(tmp_path / "missing.yaml")
    with pytest.raises(tuner.UsageError, match="no study 'nothing'"):
        tuner.load_best("nothing", tmp_path)


@pytest.mark.parametrize("name", ["small", "studies/small", "studies/small/best.yaml", "/studies/small"])
def test_load_best_takes_a_name_a_folder_or_a_file(folder: Path, name: str) -> None:
    best = tuner.load_best(f"{folder}{name}" if name.startswith("/") else name)
    assert best.study == "small"
    assert best.params == tuner.open_study("small").document["best"]["params"]


def test_the_best_configuration_is_values_by_their_names(folder: Path) -> None:
    best = tuner.load_best("small")
    for name, value in best.params.items():
        assert best.config[name] == value
    assert 0 <= best.params["regularization.dropout"] <= 0.5
    assert best.config.model.width == best.params["model.width"]
    assert best.val["log_loss"] > 0
    assert best.test is not None
    assert best.test["looks"] == 1


def test_load_best_needs_no_database(folder: Path, x: NDArray[np.float64]) -> None:
    for path in folder.glob("studies/tuner.db*"):
        path.unlink()
    assert len(tuner.load_best("small").predict(x)) == len(x)


def test_a_studys_folder_can_be_moved(folder: Path, tmp_path: Path, x: NDArray[np.float64]) -> None:
    before = tuner.load_best("small").predict_proba(x)
    shutil.move(folder / "studies" / "small", tmp_path / "kept")
    assert np.array_equal(tuner.load_best(tmp_path / "kept" / "best.yaml").predict_proba(x), before)


def test_predict_gives_class_names_and_probabilities(folder: Path, x: NDArray[np.float64]) -> None:
    best = tuner.load_best("small")
    shares = best.predict_proba(x)
    assert shares.shape == (len(x), 3)
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert best.classes == ("class_0", "class_1", "class_2")
    assert list(best.predict(x)) == [best.classes[i] for i in shares.argmax(1)]
    assert np.mean(best.predict(x) == np.array(best.classes)[load_wine().target]) > 0.6


def test_load_model_is_trained_and_build_model_is_not(folder: Path, x: NDArray[np.float64]) -> None:
    import torch

    best = tuner.load_best("small")
    model, fresh = best.load_model(), best.build_model()
    assert not model.training
    with torch.no_grad():
        shares = model(torch.from_numpy(best.encode(x))).softmax(1)
    assert np.allclose(shares.numpy(), best.predict_proba(x), atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    assert sum(p.numel() for p in fresh.parameters()) == tuner.open_study("small").document["best"]["parameters"]


def test_a_damaged_model_is_told_in_one_line(folder: Path, x: NDArray[np.float64]) -> None:
    best = tuner.load_best("small")
    best.model_path.write_bytes(b"not weights")
    with pytest.raises(tuner.DataError, match=r"model\.safetensors"):
        best.predict(x)
    best.model_path.unlink()
    with pytest.raises(tuner.DataError, match="missing"):
        best.predict(x)
    best.path.with_name("best.json").write_text("{}")
    with pytest.raises(tuner.DataError, match=r"best\.json: is damaged"):
        tuner.load_best("small")


def test_regression_has_no_probabilities(tmp_path: Path) -> None:
    space = SMALL.replace("wine", "diabetes")
    study = tuner.tune(write(tmp_path / "small.yaml", space), trials=1, studies_dir=tmp_path / "studies")
    with pytest.raises(tuner.UsageError, match="the task is regression"):
        study.best.predict_proba(np.zeros((1, 10)))
    assert study.best.predict(np.zeros((2, 10))).shape == (2,)


def test_optuna_reads_the_study_as_its_own(folder: Path) -> None:
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/studies/tuner.db")
    ours = tuner.open_study("small")
    assert [trial.number for trial in study.trials] == list(ours.trials)
    assert study.best_trial.number == ours.document["best"]["trial"]
    assert study.best_trial.value == pytest.approx(ours.document["best"]["score"], rel=1e-4)
    for trial in study.trials:
        record = ours.trials[trial.number]
        assert record.curve is not None
        assert list(trial.intermediate_values) == list(range(1, len(record.curve) + 1))


def test_trials_is_the_total_and_a_smaller_one_trains_nothing(tmp_path: Path) -> None:
    space, studies = write(tmp_path / "small.yaml"), tmp_path / "studies"
    first = tuner.tune(space, trials=2, studies_dir=studies)
    assert len(first.trials) == 2
    second = tuner.tune(space, trials=4, studies_dir=studies)
    assert len(second.trials) == 4
    assert {number: second.trials[number] for number in first.trials} == first.trials
    third = tuner.tune(space, trials=2, studies_dir=studies)
    assert third.trials == second.trials


def test_the_same_seed_gives_the_same_study_and_another_seed_another(tmp_path: Path) -> None:
    space = write(tmp_path / "small.yaml")

    def run(name: str, seed: int) -> dict[int, object]:
        study = tuner.tune(space, seed=seed, studies_dir=tmp_path / name, overrides={"search.first_trials": False})
        return {number: (record.values, record.score) for number, record in study.trials.items()}

    assert run("a", 1) == run("b", 1)
    assert run("c", 2) != run("a", 1)


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        ({"model.width": {"low": 4, "high": 99}}, "model.width"),
        ({"score.gap_penalty": 1}, "score.gap_penalty: 0.25 -> 1"),
        ({"score.metric": "accuracy"}, "score.metric: none -> accuracy"),
        ({"data.split.seed": 7}, "data.split.seed: 0 -> 7"),
        ({"seed": 4}, "seed: 3 -> 4"),
    ],
)
def test_another_space_under_the_same_name_is_refused_with_the_difference(
    folder: Path, overrides: dict[str, object], shown: str
) -> None:
    before = tuner.open_study("small")
    with pytest.raises(tuner.UsageError, match="study 'small' was made otherwise") as refused:
        tuner.tune("small.yaml", overrides=overrides)
    assert shown in str(refused.value)
    assert "--study-name" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert tuner.open_study("small").trials == before.trials


def test_other_data_under_the_same_name_are_refused(tmp_path: Path) -> None:
    data, space = tmp_path / "my.csv", SMALL.replace("sklearn:wine", "my.csv, target: y")
    lines = ["a,b,y", *(f"{i % 11},{i % 7},{'no' if i % 2 else 'yes'}" for i in range(60))]
    write(data, "\n".join(lines))
    tuner.tune(write(tmp_path / "small.yaml", space), trials=1, studies_dir=tmp_path / "studies")
    write(data, "\n".join([*lines, "3,3,yes"]))
    with pytest.raises(tuner.UsageError, match="other rows"):
        tuner.tune(tmp_path / "small.yaml", trials=1, studies_dir=tmp_path / "studies")


def test_the_budget_of_a_study_may_change(folder: Path) -> None:
    study = tuner.tune("small.yaml", overrides={"budget.trials": 4, "budget.workers": 1, "budget.timeout": "1h"})
    assert len(study.trials) == 4


def test_a_deleted_weights_file_is_made_again_byte_for_byte(folder: Path) -> None:
    best = tuner.load_best("small")
    weights = folder / "studies" / "small" / "weights" / f"{best.trial:05d}.safetensors"
    before = weights.read_bytes()
    assert best.model_path.read_bytes() == before
    weights.unlink()
    best.model_path.unlink()
    tuner.tune("small.yaml")
    assert weights.read_bytes() == before
    assert best.model_path.read_bytes() == before


@pytest.mark.parametrize("confirm", [True, False])
def test_only_the_weights_of_trials_that_may_be_chosen_and_of_the_baseline_are_kept(
    tmp_path: Path, confirm: bool
) -> None:
    path = write(tmp_path / "small.yaml", f"{SMALL}stopping: none\n")
    study = tuner.tune(path, trials=9, confirm=confirm, studies_dir=tmp_path / "studies")
    by_score = sorted((r for r in study.trials.values() if r.score is not None and r.state == "complete"), key=_worth)
    wanted = {record.number for record in by_score[: 5 if confirm else 1]} | {study.document["baseline"]["trial"]}
    assert {int(path.stem) for path in (study.folder / "weights").iterdir()} == wanted
    assert len(by_score) > 5


def _worth(record: TrialRecord) -> tuple[float, int]:
    assert record.score is not None
    return -record.score.value, record.number


def test_the_test_set_is_looked_at_once_for_one_best_trial_and_again_for_another(tmp_path: Path) -> None:
    poor = {"training.learning_rate": 0.003, "training.epochs": 2, "model.width": 4}
    good = {"training.learning_rate": 0.03, "training.epochs": 4, "model.width": 12}
    settings = {"search.enqueue": [poor, good], "search.first_trials": False}

    def run(trials: int) -> tuner.Study:
        return tuner.tune(tmp_path / "small.yaml", trials=trials, studies_dir=tmp_path / "studies", overrides=settings)

    write(tmp_path / "small.yaml")
    first = run(1).document["test"]
    assert (first["trial"], first["looks"]) == (0, 1)
    assert run(1).document["test"] == first
    second = run(2)
    assert (second.document["test"]["trial"], second.document["test"]["looks"]) == (1, 2)
    assert second.best.test is not None
    assert second.best.test["looks"] == 2
    assert "has been looked at 2 times" in " ".join(study_text(second.document))


def test_a_study_without_a_test_set_has_no_test_figures(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    study = tuner.tune(
        write(tmp_path / "small.yaml"), trials=1, studies_dir=studies, overrides={"data.split.test": 0.0}
    )
    assert study.document["test"] is None
    assert study.best.test is None


def test_a_timeout_ends_a_study_with_what_it_has_and_another_run_goes_on(tmp_path: Path) -> None:
    space, studies = write(tmp_path / "small.yaml"), tmp_path / "studies"
    first = tuner.tune(space, trials=1000, timeout=0.001, studies_dir=studies)
    assert 1 <= len(first.trials) < 1000 or not first.trials
    more = len(first.trials) + 1
    second = tuner.tune(space, trials=more, studies_dir=studies)
    assert len(second.trials) == more
    assert second.document["trials"]["running"] == 0


def test_a_space_without_ranges_is_its_configuration_and_its_baseline(tmp_path: Path) -> None:
    space = "study: one\ndata: {source: sklearn:wine}\nregularization: {dropout: 0.2}\ntraining: {epochs: 2}\n"
    study = tuner.tune(write(tmp_path / "one.yaml", space), trials=50, studies_dir=tmp_path / "studies")
    assert [record.label for record in study.trials.values()] == ["configuration", "baseline"]
    baseline = study.trials[1]
    assert baseline.overrides["regularization.dropout"] == 0
    assert "regularization" in (tmp_path / "studies" / "one" / "best.yaml").read_text()


def test_best_json_holds_no_number_that_json_has_not(folder: Path) -> None:
    text = (folder / "studies" / "small" / "best.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.slow
def test_a_study_whose_first_trial_is_too_long_for_its_time_still_has_a_best_configuration(tmp_path: Path) -> None:
    text = SMALL.replace("{low: 2, high: 4}", "{low: 90000, high: 100000}") + "stopping: none\n"
    text = text.replace("width: {low: 4, high: 12}", "width: 4000")
    study = tuner.tune(write(tmp_path / "s.yaml", text), timeout=8, studies_dir=tmp_path / "studies")
    (record,) = [record for record in study.trials.values() if record.state == "complete"]
    assert record.reason.startswith(f"the time was up after epoch {len(record.curve)}, kept epoch {record.score.epoch}")
    assert study.document["test"]["looks"] == 1
    assert study.best.config.training.epochs >= 90000


def test_what_is_given_to_tune_is_put_over_a_space_that_was_read_too(tmp_path: Path) -> None:
    space = read_space(write(tmp_path / "small.yaml"))
    study = tuner.tune(space, trials=1, study_name="other", studies_dir=tmp_path, overrides={"training.epochs": 2})
    assert (study.name, study.document["trials"]["total"]) == ("other", 1)
    assert study.document["epochs"]["budgeted"] == 2
    with pytest.raises(SpaceError, match=r"training.epochs: must be >= 1, not 0"):
        tuner.tune(space, studies_dir=tmp_path, overrides={"training.epochs": 0})
