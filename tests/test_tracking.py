"""Trackers are told all of a study, once, also of one that is resumed, and none that fails or hangs stops a study."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, call, write

import tuner
from tuner import tracking
from tuner.errors import DataError, UsageError, UserCodeError
from tuner.record import TrialRecord
from tuner.study import Study
from tuner.tracking import tracker_of


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have MLflow tell nobody that it is used: a thread of its own that finds no network would disturb other tests."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")


class Hook:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, study: Study) -> None:
        self.told.append(("begin", study.name))

    def trial(self, record: TrialRecord) -> None:
        self.told.append(record.number)

    def end(self, study: Study) -> None:
        self.told.append(("end", study.document["progress"]["state"]))


def run(folder: Path, *track: Any, **more: Any) -> Study:
    path = folder / "small.yaml"
    return tuner.tune(path if path.exists() else write(path), studies_dir=folder / "studies", track=track, **more)


def test_a_hook_is_told_each_trial_once_between_beginning_and_end(tmp_path: Path) -> None:
    hook = Hook()
    run(tmp_path, hook)
    assert hook.told == [("begin", "small"), 0, 1, 2, ("end", "over")]


def test_of_a_study_that_goes_on_a_new_hook_is_told_what_was_before(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    hook = Hook()
    run(tmp_path, hook, trials=4)
    assert hook.told == [("begin", "small"), 0, 1, 2, 3, ("end", "over")]


def test_a_hook_needs_no_more_methods_than_it_wants(tmp_path: Path) -> None:
    class Trials:
        seen = 0

        def trial(self, record: TrialRecord) -> None:
            self.seen += 1

    hook = Trials()
    run(tmp_path, hook)
    assert hook.seen == 3


def test_a_study_that_is_stopped_is_told_as_stopped(tmp_path: Path) -> None:
    from tuner.grammar import read_space
    from tuner.planning import plan_of
    from tuner.tracking import tracked
    from tuner.tuning import conduct

    hook, space = Hook(), read_space(write(tmp_path / "small.yaml"))
    with tracked([hook], tmp_path) as trackers:
        conducting = conduct(plan_of(space, None, tmp_path / "studies"), None, trackers)
        while not (isinstance(news := next(conducting), TrialRecord) and news.ended):
            pass
        conducting.close()
    assert hook.told == [("begin", "small"), 0, ("end", "stopped")]


@pytest.mark.parametrize("where", ["begin", "trial", "end"])
@pytest.mark.parametrize("error", [ValueError("no\nserver"), SystemExit(3), KeyboardInterrupt()])
def test_one_that_fails_is_left_out_which_is_said_once_in_a_line(
    tmp_path: Path, where: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    hook, other = Hook(), Hook()
    setattr(hook, where, fail)
    with caplog.at_level(logging.WARNING, "tuner"):
        study = run(tmp_path, hook, other)
    assert study.document["trials"]["complete"] == 3
    assert len(other.told) == 5
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"tracker Hook is left out from here on: {type(error).__name__}")
    assert "\n" not in said[0]


def test_one_that_hangs_holds_nothing_up_but_a_moment_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "LAST", 0.2)

    class Slow(Hook):
        def begin(self, study: Study) -> None:
            time.sleep(60)

    with caplog.at_level(logging.WARNING, "tuner"):
        study = run(tmp_path, Slow())
    assert study.document["trials"]["complete"] == 3
    assert "tracker Slow: wasn't told all" in caplog.text


CODE = """
told = []
class Mine:
    def trial(self, record): told.append(record.number)
def broken(): raise RuntimeError("no")
number = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "hooks", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "hooks.py", CODE)
    return tmp_path


def test_a_hook_may_be_named(code: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code)
    write(code / "small.yaml")
    assert call(capsys, "run", "small.yaml", "--track", "hooks:Mine", "--quiet").code == 0
    assert sys.modules["hooks"].told == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("mlfow", UsageError, r"--track: unknown tracker 'mlfow' \(did you mean 'mlflow'\?\); one of mlflow, tensor"),
        ("hooks:broken", UserCodeError, r"--track hooks:broken: RuntimeError: no \(.*hooks.py:5\)"),
        ("hooks:number", UserCodeError, r"--track hooks:number: TypeError: number is a int, not a class, or a funct"),
        ("hooks:gone", UserCodeError, r"--track hooks:gone: AttributeError: the module hooks has no gone"),
    ],
)  # fmt: skip
def test_what_is_no_tracker_is_told_before_anything_is_written(
    code: Path, name: str, kind: type[Exception], said: str
) -> None:
    write(code / "small.yaml")
    with pytest.raises(kind, match=said):
        run(code, name)
    assert not (code / "studies").exists()


def test_a_tracker_whose_package_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "tuner.integrations.mlflow", raising=False)
    with pytest.raises(UsageError, match=r"--track mlflow: needs mlflow.*; pip install 'overfit-tuner\[mlflow\]'"):
        tracker_of("mlflow")


@pytest.mark.filterwarnings("default")
def test_a_server_that_cannot_be_asked_stops_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    study = run(tmp_path, "mlflow", trials=1)
    assert study.document["trials"]["complete"] == 1
    assert "tracker mlflow is left out from here on: " in caplog.text


@pytest.mark.filterwarnings("default")
def test_nothing_is_written_for_a_tracker_before_the_space_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write(tmp_path / "small.yaml", SMALL.replace("sklearn:wine", "gone.csv"))
    with pytest.raises(DataError):
        run(tmp_path, "mlflow")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


# The real ones.


@pytest.mark.filterwarnings("default")
def test_mlflow_has_a_run_of_the_study_with_a_child_for_each_trial_also_after_it_was_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where MLflow puts its files
    run(tmp_path, "mlflow", trials=2)
    study = run(tmp_path, "mlflow", trials=4)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("tuner")
    runs = client.search_runs([experiment.experiment_id])
    parents = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    children = {int(each.data.tags["tuner.trial"]): each for each in runs if each not in parents}
    assert sorted(children) == [0, 1, 2, 3]
    assert len(runs) == 5
    for number, child in children.items():
        record = study.trials[number]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.params["model.width"] == str(record.all_values["model.width"])
        history = client.get_metric_history(child.info.run_id, "val_loss")
        assert record.curve is not None
        assert [each.value for each in sorted(history, key=lambda each: each.step)] == [
            epoch.val.loss for epoch in record.curve.epochs
        ]
    best = study.document["best"]
    assert parents[0].data.metrics["best.trial"] == best["trial"]
    assert parents[0].data.metrics["test_log_loss"] == study.document["test"]["log_loss"]["value"]
    assert {"best.yaml", "report.html"} <= {file.path for file in client.list_artifacts(parents[0].info.run_id)}


@pytest.mark.filterwarnings("default")
def test_tensorboard_has_the_curves_of_each_trial_once_also_after_it_was_resumed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "tensorboard", trials=2)
    folder = tmp_path / "studies" / "small" / "tensorboard"
    (folder / "00002.writing").mkdir()  # of a run that was killed
    study = run(tmp_path, "tensorboard", trials=3)
    assert sorted(path.name for path in folder.iterdir()) == ["00000", "00001", "00002"]
    for number, record in study.trials.items():
        events = EventAccumulator(str(folder / f"{number:05d}")).Reload()
        assert record.curve is not None
        told = [(each.step, pytest.approx(each.value, rel=1e-6)) for each in events.Scalars("loss/val")]
        assert [(epoch.number, epoch.val.loss) for epoch in record.curve.epochs] == told
        assert "_hparams_/session_start_info" in events.summary_metadata
