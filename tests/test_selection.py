"""The choice and the one look at the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL, write

from tuner.planning import Plan, prepare
from tuner.reporting import summary
from tuner.selection import Finalist, beats_baseline, look, without_gap_penalty
from tuner.study import Study
from tuner.tuning import tune


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Study]:
    folder = tmp_path_factory.mktemp("selection")
    path = write(folder / "small.yaml")
    study = tune(path, studies_dir=folder / "studies")
    return prepare(path, studies_dir=folder / "studies"), study


def finalist(plan: Plan, study: Study, number: int) -> Finalist:
    record = study.trials[number]
    return Finalist(record, plan.space.at(record.all_values), plan.folder / "weights" / f"{number:05d}.safetensors")


def see(run: tuple[Plan, Study], baseline: bool = True, earlier: Any = None) -> dict[str, Any]:
    plan, study = run
    best, base = study.document["best"]["trial"], study.document["baseline"]["trial"]
    second = finalist(plan, study, base) if baseline else None
    seen = look(finalist(plan, study, best), second, plan.splits, "log_loss", plan.space.folder, earlier)
    assert seen is not None
    return seen


def test_a_look_holds_each_metric_with_its_interval(run: tuple[Plan, Study]) -> None:
    seen = see(run)
    for figure in seen["metrics"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert seen["metrics"].keys() >= {"log_loss", "accuracy", "f1"}
    assert seen["looks"] == 1
    assert len(seen["test_hash"]) == 64


def test_two_looks_at_the_same_are_the_same_figures(run: tuple[Plan, Study]) -> None:
    first, second = see(run), see(run)
    assert first | {"at": ""} == second | {"at": ""}


def test_the_same_trial_and_rows_are_not_looked_at_again(run: tuple[Plan, Study], monkeypatch: Any) -> None:
    first = see(run)
    monkeypatch.setattr("tuner.selection._figures", lambda *_: pytest.fail("the test set was opened"))
    assert see(run, earlier=first) == first


@pytest.mark.parametrize("change", [{"trial": 99}, {"test_hash": "other"}])
def test_another_trial_or_other_rows_are_a_look_more(run: tuple[Plan, Study], change: dict[str, Any]) -> None:
    assert see(run, earlier=see(run) | change | {"looks": 4})["looks"] == 5


def test_the_difference_is_positive_where_the_chosen_is_better(run: tuple[Plan, Study]) -> None:
    seen = see(run)
    loss = seen["baseline_metrics"]["log_loss"]["value"] - seen["metrics"]["log_loss"]["value"]
    rate = seen["metrics"]["accuracy"]["value"] - seen["baseline_metrics"]["accuracy"]["value"]
    assert seen["difference"]["log_loss"]["value"] == pytest.approx(loss)
    assert seen["difference"]["accuracy"]["value"] == pytest.approx(rate)


def test_without_a_baseline_there_is_no_difference(run: tuple[Plan, Study]) -> None:
    seen = see(run, baseline=False)
    assert seen["difference"] == {}
    assert beats_baseline(seen, "log_loss") == "There is no baseline to compare with."


def test_of_a_baseline_that_failed_is_said_what_became_of_it(run: tuple[Plan, Study]) -> None:
    seen, (_, study) = see(run, baseline=False), run
    failed = replace(study.trials[0], state="failed", verdict=None, error="diverged at epoch 10")
    said = "There is nothing to compare with: the baseline, trial 0, failed: diverged at epoch 10."
    assert beats_baseline(seen, "log_loss", failed) == said
    document = summary(study.record, {**study.trials, 0: failed}, {"test": seen})
    assert document["test"]["verdict"] == said
    pruned = beats_baseline(seen, "log_loss", replace(failed, state="pruned"))
    assert "the baseline, trial 0, was pruned: diverged" in pruned
    assert "has not ended" in beats_baseline(seen, "log_loss", replace(failed, state="waiting"))


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.1, 0.05, 0.2, "better by 0.1, 95 % interval 0.05 to 0.2"),
        (-0.1, -0.2, -0.05, "worse by 0.1, 95 % interval 0.05 to 0.2"),
        (-0.00558, -0.0412, 0.0494, "worse by 0.00558, 95 % interval 0.0412 worse to 0.0494 better"),
        (0.02, -0.0158, 0.059, "better by 0.02, 95 % interval 0.0158 worse to 0.059 better"),
    ],
)
def test_a_difference_is_told_in_words_and_without_a_sign(value: float, low: float, high: float, said: str) -> None:
    difference = {"log_loss": {"value": value, "low": low, "high": high}}
    seen = {"trial": 5, "baseline": 0, "difference": difference, "rows": 100}
    assert f"(test log_loss {said})." in beats_baseline(seen, "log_loss")


def test_of_a_single_trial_it_isnt_said_that_tuning_was_of_no_use() -> None:
    seen = {"trial": 0, "baseline": 0, "difference": {"log_loss": {"value": 0.0, "low": 0.0, "high": 0.0}}, "rows": 9}
    assert beats_baseline(seen, "log_loss", trials=1).startswith("Nothing was tuned: the only trial is the baseline")
    assert "Tuning did not help" in beats_baseline(seen, "log_loss", trials=2)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (
            (0.1, 0.05, 0.2),
            "The chosen trial beat the baseline, which is the middle of the space, unregularized and not tuned (test",
        ),
        ((0.1, -0.05, 0.2), "Tuning did not beat the untuned, unregularized baseline beyond noise"),
        ((-0.1, -0.2, -0.05), "Tuning did not help: the chosen trial is worse"),
    ],
)
def test_whether_tuning_helped_is_said_plainly(interval: tuple[float, float, float], said: str) -> None:
    difference = {"accuracy": dict(zip(("value", "low", "high"), interval, strict=True))}
    seen = {"trial": 5, "baseline": 0, "difference": difference, "rows": 100}
    assert beats_baseline(seen, "accuracy").startswith(said)
    assert "the baseline itself was chosen" in beats_baseline(seen | {"trial": 0}, "accuracy")
    few = beats_baseline(seen | {"rows": 3}, "accuracy")
    assert few.startswith("Whether tuning helped can't be told from 3 test rows (")
    assert "from 1 test row (" in beats_baseline(seen | {"rows": 1}, "accuracy")
    undefined = beats_baseline(seen | {"difference": {}}, "accuracy")
    assert undefined == "Whether tuning helped can't be told: accuracy isn't defined on the test rows."


def test_a_baseline_that_came_after_the_look_is_looked_at_and_counted(run: tuple[Plan, Study]) -> None:
    first = see(run, baseline=False)
    assert see(run, earlier=first)["looks"] == 2
    assert see(run, baseline=False, earlier=first) == first


def test_without_the_gap_penalty_the_greatest_skill_is_chosen(run: tuple[Plan, Study]) -> None:
    study = run[1]
    free = without_gap_penalty(study.trials)
    assert free is not None
    skills = [record.score.skill for record in study.trials.values() if record.score is not None]
    assert free.score is not None
    assert free.score.skill == np.max(skills)
    assert without_gap_penalty({}) is None


def test_what_the_test_rows_hold_changes_nothing_but_the_test_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = rng.normal(size=(300, 5)) + y[:, None]
    parts = np.repeat(["train", "val", "test"], 100)
    other = np.where(parts == "test", (y + 1) % 3, y)
    told = []
    for name, target in (("true", y), ("false", other)):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "data.npz", X=x, y=target, split=parts)
        text = SMALL.replace("sklearn:wine", "data.npz").replace("confirm: false", "confirm: true")
        told.append(tune(write(folder / "small.yaml", text), studies_dir=folder / "studies").document)
    one, two = told
    for key in ("best", "baseline", "confirmed", "without_gap_penalty", "diagnosis", "trials"):
        assert one[key] == two[key]
    assert one["test"]["accuracy"]["value"] > 0.5 > two["test"]["accuracy"]["value"]
