"""A training loop of the user's own is judged, kept, resumed and measured as tuner's own is, and what is wrong with it
is told in one line.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import SMALL, call, lives, tuner, write
from hypothesis import given
from hypothesis import strategies as st
from made import Fitted

from tuner import tasks, telling
from tuner.best import load_best
from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.data.splits import Part, Shape, Splits
from tuner.engine import Ended, Failed, Task, Trained
from tuner.errors import DataError, UsageError, UserCodeError
from tuner.grammar import Override, parse_space
from tuner.looping import Examples, train_own
from tuner.planning import prepare
from tuner.tasks import InProcess, TaskRun
from tuner.training import Moment
from tuner.tuning import tune

LOOPS = """\
import random, sys, time
import numpy
import torch
from torch import nn
from torch.nn.functional import cross_entropy

LOG = []

def learn(run, model, optimizer):
    x, y = run.train[:]
    model.train()
    for rows in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    model.eval()

def made(run, model=None):
    model = model or run.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), run.config.training.learning_rate)
    run.checkpoint(model, optimizer=optimizer)
    return model, optimizer

def measured(run):
    model, optimizer = made(run)
    for _ in range(run.resume(), run.config.training.epochs):
        learn(run, model, optimizer)
        if run.report(): break

def arrays(run):
    model, optimizer = made(run)
    for _ in range(run.resume(), run.config.training.epochs):
        learn(run, model, optimizer)
        with torch.no_grad():
            told = [cross_entropy(model(x), y, reduction="none") for x, y in (run.train[:], run.val[:])]
        if run.report(train=told[0], val={"loss": told[1].numpy()}): break

def other(run):
    model, optimizer = made(run, nn.Sequential(nn.Linear(13, 9), nn.ReLU(), nn.Linear(9, 3)))
    for _ in range(run.resume(), run.config.training.epochs):
        learn(run, model, optimizer)
        if run.report(): break

def numbers(run):
    for epoch in range(run.config.training.epochs):
        if run.report(train=1 / (epoch + 2), val=1 / (epoch + 1)): return

def deaf(run):
    while True: run.report(train=1.0, val=1.0)

def tidy(run):
    try:
        numbers(run)
    finally:
        LOG.append("tidied")

def draws(run):
    for _ in range(run.config.training.epochs):
        LOG.append((random.random(), numpy.random.rand(), float(torch.rand(()))))
        if run.report(train=1.0, val=1.0): break

def early(run): run.report(train=1.0, val=1.0)
def silent(run): pass
def raises(run): raise ValueError("no such thing")
def leaves(run): sys.exit(3)
def half(run): run.report(train=1.0)
def word(run): run.report(train="low", val=1.0)
def nothing(run): run.report(train=[], val=1.0)
def lossless(run): run.report(train={"accuracy": 1.0}, val={"accuracy": 1.0})
def unlike(run): run.report(train={"loss": 1.0, "f1": 1.0}, val=1.0)
def changing(run):
    run.report(train={"loss": 1.0, "f1": 1.0}, val={"loss": 1.0, "f1": 1.0})
    run.report(train=1.0, val=1.0)
def nameless(run): run.report()
def odd(run): run.report(train=[torch.ones(2, requires_grad=True), 1.0], val=1.0)
def twice(run): run.report(train={"loss": 1.0, "log_loss": 2.0}, val={"loss": 1.0, "log_loss": 2.0})
def percent(run): run.report(train={"loss": 1.0, "accuracy": 98.0}, val={"loss": 1.0, "accuracy": 97.0})
class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)
    def forward(self, x): return {"logits": self.layer(x)}
def outputs(run):
    run.checkpoint(Outputs())
    run.report()
def unnamed(run): run.resume()
def again(run):
    made(run)
    run.resume()
    run.resume()
def after(run):
    made(run)
    run.resume()
    made(run)
def elsewhere(run):
    from threading import Thread
    found = []
    def tell():
        try: run.report(train=1.0, val=1.0)
        except RuntimeError as error: found.append(error)
    thread = Thread(target=tell)
    thread.start()
    thread.join()
    raise found[0]
def generating(run): yield 1.0
def negated(run):
    class Negated(nn.Sequential):
        def forward(self, x): return -super().forward(x)
    model, optimizer = made(run, Negated(*run.build_model()))
    for _ in range(run.resume(), run.config.training.epochs):
        learn(run, model, optimizer)
        if run.report(): break
def buffers(run):
    buffer = numpy.zeros(30)
    for epoch in range(run.config.training.epochs):
        buffer[:] = 1 + epoch * numpy.linspace(0.5, 1.5, 30)
        if run.report(train=1.0, val=buffer): break
def spoils(run):
    model, optimizer = made(run)
    for _ in range(run.resume(), run.config.training.epochs):
        learn(run, model, optimizer)
        for part in (run.train, run.val, run.probe):
            x, y = part[:]
            x.add_(100); y.zero_()
        if run.report(): break
def stateless(run): run.checkpoint(None, rate=0.1)
def unmodel(run): run.checkpoint([1])
def unasked(run, more): pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    monkeypatch.delitem(sys.modules, "loops", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "loops.py", LOOPS)
    return tmp_path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    left = [thread for thread in threading.enumerate() if thread.name == "training.loop"]
    assert not left, "a loop whose run is over has ended"


def config(loop: str, **values: Any) -> RunConfig:
    plain = RunConfig.model_validate({"data": {"source": "sklearn:wine"}})
    small = {"model.width": 8, "model.depth": 1, "training.epochs": 6, "training.loop": f"loops:{loop}"}
    return plain.replace({**small, **{name.replace("__", "."): value for name, value in values.items()}})


def splits(task: str = "classification") -> Splits:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)).astype(np.float32)
    y: Any = (x[:, 0] > 0) + (x[:, 1] > 0).astype(np.int64) if task == "classification" else x[:, 0]
    parts = [Part(x[rows], y[rows], rows) for rows in np.split(np.arange(90), [60])]
    outputs = 3 if task == "classification" else 1
    return Splits(parts[0], parts[1], None, Fitted(Shape("table", task, (5,), outputs)), "", "")  # type: ignore[arg-type]


def moments(loop: str, folder: Path, task: str = "classification", **values: Any) -> list[Moment]:
    run, found = train_own(config(loop, **values), splits(task), 7, folder), list[Moment]()
    for moment in run:
        found.append(moment)
        if moment.epoch.number == 6:
            break
    run.close()  # type: ignore[attr-defined]
    return found


def timeless(found: list[Moment]) -> list[Epoch]:
    return [replace(moment.epoch, seconds=0.0) for moment in found]


# What is told.


def test_losses_of_examples_come_to_the_epochs_that_tuner_would_have_measured(folder: Path) -> None:
    wholly = {"training__learning_rate": 0.03}
    ours, theirs = moments("measured", folder, **wholly), moments("arrays", folder, **wholly)
    for one, other in zip(timeless(ours), timeless(theirs), strict=True):
        assert one.val.loss == pytest.approx(other.val.loss, rel=1e-4)
        for name in ("se_val", "rise", "rise_se"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-6)
        assert one.standing.best == other.standing.best
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.counted, other.counted, rtol=1e-3, atol=1e-6)


def test_plain_numbers_have_no_errors_and_any_rise_is_one(folder: Path) -> None:
    found = timeless(moments("numbers", folder))
    assert [epoch.val.loss for epoch in found] == pytest.approx([1 / n for n in range(1, 7)], rel=1e-6)
    assert all(epoch.se_val == epoch.se_gap == epoch.rise == 0 for epoch in found)
    assert all(moment.network is None for moment in moments("numbers", folder))


def test_a_loss_of_regression_is_its_mean_squared_error(folder: Path) -> None:
    found = timeless(moments("numbers", folder, "regression"))
    assert found[1].val.metrics == {"mse": 0.5}


@given(st.floats(0, 1), st.integers(2, 50))
def test_a_row_or_several_are_what_a_model_takes(share: float, n: int) -> None:
    part = splits().train
    examples, row = Examples(part, splits().encoder.standard), int(share * (len(part) - 1))
    x, y = examples[row]
    assert (x.shape, x.dtype, int(y)) == ((5,), torch.float32, part.y[row])
    some = torch.arange(n) % len(part)
    assert torch.equal(examples[some][0][1], examples[1][0])
    assert examples[:][0].shape == (len(part), 5)
    with pytest.raises(IndexError):
        examples[len(part)]


def test_an_array_that_the_loop_uses_again_is_what_it_was_when_it_was_told(folder: Path) -> None:
    found = timeless(moments("buffers", folder))
    assert [epoch.rise > 0 for epoch in found] == [False, False, False, False, False, True]
    assert found[-1].rise == pytest.approx(1.0)


def test_rows_that_the_loop_changes_are_copies(folder: Path) -> None:
    assert timeless(moments("spoils", folder)) == timeless(moments("measured", folder))


def test_the_probe_is_those_training_rows_that_tuner_measures_train_on() -> None:
    from tuner.looping import Run, _Turns
    from tuner.measuring import training_probe

    parts = splits()
    run = Run(config("measured"), parts, 7, None, _Turns(lambda: None))
    assert len(run.probe) == len(run.val)
    np.testing.assert_array_equal(run.probe[:][1], parts.train.y[training_probe(parts)])


# Whose turn it is.


def test_a_loop_draws_the_same_numbers_whatever_was_drawn_elsewhere_and_disturbs_none(folder: Path) -> None:
    import sys

    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
        run = train_own(config("draws"), splits(), 7, folder)
        for _ in range(6):
            next(run)
            torch.rand(3)
            torch.set_rng_state(before[0])
        run.close()  # type: ignore[attr-defined]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # type: ignore[index,union-attr]
        drawn.append(list(sys.modules["loops"].LOG))
        sys.modules["loops"].LOG.clear()
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 6


@pytest.mark.parametrize("epochs", [0, 1, 6])
def test_a_run_that_is_over_lets_the_loop_come_to_its_end(folder: Path, epochs: int) -> None:
    import sys

    run = train_own(config("tidy"), splits(), 7, folder)
    for _ in range(epochs):
        next(run)
    run.close()  # type: ignore[attr-defined]
    assert ["tidied"] * (epochs > 0) == sys.modules["loops"].LOG if "loops" in sys.modules else not epochs


def test_a_loop_that_does_not_listen_is_ended_all_the_same(folder: Path) -> None:
    run = train_own(config("deaf"), splits(), 7, folder)
    next(run)
    run.close()  # type: ignore[attr-defined]


def test_a_loop_that_never_asks_to_be_resumed_keeps_no_state_and_begins_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)
    task = Task(0, config("numbers"), 7, folder, state=folder / "state")
    run = TaskRun(task, splits())
    run.first()
    for _ in range(3):
        run.step()
    run.close()
    assert not (folder / "state").exists()
    again = TaskRun(task, splits())
    assert again.first().epoch.number == 1
    again.close()


# What is wrong.

WRONG = {
    "early": r"returned after epoch 1 of 6; it goes on until run.report says that it is over, .*",
    "silent": r"returned after epoch 0 of 6; .*",
    "raises": r"ValueError: no such thing",
    "leaves": r"SystemExit: 3",
    "half": r"run.report: needs both train and val, or neither, and then tuner measures the model",
    "word": r"run.report: train loss is a str, not a number or an array of them",
    "odd": r"run.report: train loss is a list, not a number or an array of them",
    "nothing": r"run.report: train loss is empty",
    "lossless": r"run.report: train has no loss, by which epochs are judged",
    "unlike": r"run.report: f1 isn't told each time, of train and of val alike",
    "changing": r"run.report: f1 isn't told each time, of train and of val alike",
    "twice": r"run.report: train has log_loss beside loss, which is shown by that name; tell one of them",
    "percent": r"run.report: train accuracy is 98; it goes from 0 to 1",
    "nameless": r"run.report: without figures tuner measures the model; say run.checkpoint\(model\) before",
    "outputs": r"AttributeError: 'dict' object has no attribute 'float'",
    "stateless": r"TypeError: run.checkpoint: rate is a float, which has no state_dict and load_state_dict",
    "unmodel": r"TypeError: run.checkpoint: model is a list, not a torch.nn.Module",
    "unnamed": r"RuntimeError: run.resume: needs to know of what; say run.checkpoint\(\.\.\.\) before",
    "again": r"RuntimeError: run.resume: was called before",
    "after": r"RuntimeError: run.checkpoint: comes before run.resume, which puts into their state what it names",
    "elsewhere": r"RuntimeError: run: may be told by the very thread that the loop was called in alone, .*",
}


@pytest.mark.parametrize("loop", WRONG)
def test_what_is_wrong_with_a_loop_fails_its_trial_in_one_line(folder: Path, loop: str) -> None:
    engine = InProcess()
    engine.take(splits())
    engine.start(Task(3, config(loop), 7, folder))
    event = engine.next()
    if isinstance(event, Trained):
        engine.go(3)
        event = engine.next()
    engine.close()
    assert isinstance(event, Failed)
    assert re.fullmatch(rf"training.loop loops:{loop}: {WRONG[loop]} \(.*loops.py:\d+\)", event.error), event.error


def test_a_score_by_a_metric_needs_it_told(folder: Path) -> None:
    with pytest.raises(UserCodeError, match=r"the score is by f1, which train doesn't have; tell it .* 'f1': \.\.\."):
        moments("numbers", folder, score__metric="f1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loops:gone", r"AttributeError: the module loops has no gone"),
        ("loops:LOG", r"TypeError: LOG is a list, not a function \(run\)"),
        ("loops:unasked", r"TypeError: it is called with \(run\) but takes \(run, more\)"),
        ("loops:generating", r"is a generator; it calls run.report where it yields"),
    ],
)
def test_a_loop_that_cannot_be_called_is_told_before_anything_is_trained(folder: Path, name: str, said: str) -> None:
    with pytest.raises(UserCodeError, match=f"^training.loop {name}: {said}"):
        prepare(parse_space(SMALL, folder, overrides=[Override("training.loop", name, "-S")]))


# A study.


def of_loop(folder: Path, loop: str, more: str = "", source: str = "sklearn:wine") -> Path:
    text = SMALL.replace("training: {epochs: {low: 2, high: 4}", f'training: {{epochs: 6, loop: "loops:{loop}"')
    return write(folder / "small.yaml", text.replace("sklearn:wine", source) + more)


def test_a_network_of_the_family_is_looked_at_and_predicts(folder: Path) -> None:
    study = tune(of_loop(folder, "measured"), trials=2, studies_dir=folder / "studies")
    assert study.document["test"]["looks"] == 1
    best = load_best("small", folder / "studies")
    x = np.random.default_rng(0).normal(size=(4, 13))
    assert best.predict_proba(best_frame(x)).shape == (4, 3)


def best_frame(x: Any) -> Any:
    import pandas as pd
    from sklearn.datasets import load_wine

    return pd.DataFrame(x, columns=load_wine().feature_names)


def test_a_network_that_the_family_does_not_make_is_kept_and_the_test_rows_stay_closed(folder: Path) -> None:
    study = tune(of_loop(folder, "other"), studies_dir=folder / "studies")
    assert study.document["test"] is None
    assert "The test set has not been opened: the training loop keeps no network" in " ".join(
        telling.tested(study.document)
    )
    assert (folder / "studies" / "small" / "model.safetensors").exists()
    with pytest.raises(UsageError, match=r"its training loop kept no network that model\.family mlp builds"):
        load_best("small", folder / "studies").load_model()


def test_a_network_of_the_same_weights_that_computes_otherwise_is_not_the_familys(folder: Path) -> None:
    study = tune(of_loop(folder, "negated"), studies_dir=folder / "studies")
    assert study.document["best"]["val"]["accuracy"] > 0.5
    assert (study.document["best"]["predicts"], study.document["test"]) == (False, None)


def test_a_configuration_whose_loop_names_no_model_can_be_trained_without_a_study(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder / "one.yaml", "data: {source: sklearn:wine}\ntraining: {loop: 'loops:numbers', epochs: 3}\n")
    said = call(capsys, "train", "one.yaml", "--out", "left", "--quiet")
    assert said.code == 0, said.err
    assert not (folder / "left" / "model.safetensors").exists()
    assert (folder / "left" / "best.yaml").exists()


def test_a_loop_that_names_no_model_leaves_none(folder: Path) -> None:
    study = tune(of_loop(folder, "numbers"), studies_dir=folder / "studies", confirm=True)
    assert study.document["model"] is None
    assert study.document["confirmed"] is not None
    left = folder / "studies" / "small"
    assert not (left / "model.safetensors").exists()
    assert "its training loop named no model, so there is none" in (left / "best.yaml").read_text()
    again = tune(folder / "small.yaml", studies_dir=folder / "studies", confirm=True)
    assert lives(again.document) == lives(study.document)


def test_a_loop_may_bring_its_own_data(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    of_loop(folder, "numbers", "score: {null_loss: 1.1}\n", source="loop")
    said = call(capsys, "run", "small.yaml", "--json")
    assert said.code == 0, said.err
    assert said.document["data"]["kind"] == "none"
    assert said.document["test"] is None
    best = said.document["best"]
    gap = best["val"]["log_loss"] - best["train"]["log_loss"]
    assert best["score"] == pytest.approx(1 - (best["val"]["log_loss"] + 0.25 * gap) / 1.1, abs=1e-4)
    assert "data: the training loop's own, classification" in call(capsys, "show", "small").out
    assert call(capsys, "report", "small").code == 0
    assert "the training loop&#39;s own" in (folder / "studies" / "small" / "report.html").read_text()
    with pytest.raises(DataError, match="the data are the training loop's own, which alone knows how"):
        load_best("small").encode([[1.0]])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", "data.source: loop is for a training.loop of your own that brings its data; name it, or data"),
        (
            'training: {loop: "loops:numbers"}\n',
            "score.null_loss: is needed with data.source loop: the validation loss",
        ),
        ('training: {loop: "loops:numbers", refit: true}\nscore: {null_loss: 1}\n', "training.refit: needs rows that"),
    ],
)
def test_what_a_loop_with_data_of_its_own_lacks_is_told(folder: Path, keys: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(parse_space(f"data: {{source: loop}}\n{keys}", folder))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["2"])
def test_a_loop_whose_worker_is_killed_goes_on_and_ends_as_if_nothing_had_been(folder: Path, workers: str) -> None:
    of_loop(folder, "measured")
    whole = tuner("run", "small.yaml", "--json", "--workers", workers, cwd=folder)
    assert whole.code == 0, whole.err
    marks = folder / "marks"
    marks.mkdir()
    env = {"TUNER_FAULT": "before_epoch:4:kill9,before_epoch:9:kill9", "TUNER_FAULT_MARKS": str(marks)}
    killed = tuner("run", "small.yaml", "--json", "--workers", workers, "--studies-dir", "others", cwd=folder, env=env)
    assert killed.code == 0, killed.err
    assert list(marks.iterdir())
    assert lives(killed.document) == lives(whole.document)
    assert weights_in(folder / "others") == weights_in(folder / "studies")


def weights_in(studies: Path) -> list[Any]:
    with closing(sqlite3.connect(studies / "tuner.db")) as connection:
        rows = connection.execute(
            "SELECT value_json FROM trial_system_attributes WHERE key = 'tuner' ORDER BY trial_id"
        )
        return [json.loads(row[0])["weights"] for row in rows]


def test_an_ended_trial_tells_of_its_network(folder: Path) -> None:
    engine = InProcess()
    engine.take(splits())
    engine.start(Task(0, config("measured"), 7, folder))
    assert isinstance(engine.next(), Trained)
    engine.stop(0, folder / "weights")
    ended = engine.next()
    engine.close()
    assert isinstance(ended, Ended)
    assert ended.model["rebuilt"] == 1
    assert ended.weights
    assert (folder / "weights").exists()
