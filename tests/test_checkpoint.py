"""A run that was cut off goes on from its state and ends byte for byte as if nothing had been."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import write
from hypothesis import given
from hypothesis import strategies as st
from made import Fitted

from tuner import tasks
from tuner.checkpoint import before, forget_state, key_of, read_state, write_state
from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.data.splits import Part, Shape, Splits
from tuner.engine import Ended, Task, Trained
from tuner.faults import planned
from tuner.tasks import TaskRun

EPOCHS = 6


def made(shape: Shape) -> Splits:
    rng = np.random.default_rng(0)
    size = (48, *shape.input)
    if shape.kind == "text":
        x: Any = rng.integers(1, shape.vocabulary, size).astype(np.int32)
    else:
        x = rng.normal(size=size).astype(np.float32)
    if shape.task == "regression":
        y: Any = x.reshape(48, -1)[:, 0].astype(np.float32)
    else:
        y = rng.integers(0, 3, 48)
    parts = [Part(x[rows], y[rows], rows) for rows in np.split(np.arange(48), [33])]
    return Splits(parts[0], parts[1], None, Fitted(shape), "", "")


TABLE = Shape("table", "classification", (5,), 3)
PICTURE = Shape("image", "classification", (3, 8, 8), 3)
STEPS = Shape("sequence", "classification", (12, 2), 3)
TEXT = Shape("text", "classification", (10,), 3, vocabulary=20)
OWN = """
import random
import numpy
import torch

class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += 1
            x = x * random.random() + numpy.random.rand() + torch.rand(()) + self.seen / 100
        return self.layer(x)

def net(config, shape):
    return Noisy()

class Scaled(torch.nn.Module):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 3)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.layer(x - self.mean)

def scaled(config, shape):
    return Scaled()

def momentum(groups, config):
    return torch.optim.SGD(groups, momentum=0.9)

class Counting(torch.optim.Optimizer):  # keeps a plain number, and no tensor before its second step

    def __init__(self, groups):
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["steps"] = state.get("steps", 0) + 1
                if state["steps"] > 1:
                    state["mean"] = 0.9 * state.get("mean", torch.zeros_like(parameter)) + parameter.grad
                    parameter -= group["lr"] / state["steps"] ** 0.5 * state["mean"]

def jitter(batch, strength, generator):
    return batch + strength * torch.randn(batch.shape, generator=generator)

def fit(run):
    model = run.build_model()
    optimizer = torch.optim.Adam(model.parameters(), run.config.training.learning_rate)
    rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    run.checkpoint(model, optimizer=optimizer, rates=rates)
    x, y = run.train[:]
    for _ in range(run.resume(), run.config.training.epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(8):
            noise = random.random() + numpy.random.rand() + torch.rand(())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows] * noise), y[rows]).backward()
            optimizer.step()
        rates.step()
        if run.report():
            break
"""
RUNS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "perceptron": (TABLE, {
        "regularization.dropout": 0.3, "regularization.l1": 0.1, "regularization.l2": 0.1,
        "augmentation.strength": 0.5, "model.normalization": "batch",
    }),
    "average": (TABLE, {"training.ema": True, "regularization.l1": 0.05}),
    "regression": (Shape("table", "regression", (5,), 1), {"training.schedule": "cosine", "training.warmup": 0.2}),
    "mixup": (TABLE, {"augmentation.mixup": 0.4, "training.class_weights": True}),
    "one row a batch": (TABLE, {"training.batch_size": 1, "training.epochs": 3}),
    "cnn": (PICTURE, {"model.family": "cnn", "model.normalization": "batch", "augmentation.strength": 1.0}),
    "resnet": (PICTURE, {"model.family": "resnet", "training.precision": "bfloat16", "training.ema": True}),
    "rnn": (STEPS, {"model.family": "rnn", "regularization.dropout": 0.2, "augmentation.strength": 0.5}),
    "transformer": (TEXT, {"model.family": "transformer", "regularization.dropout": 0.2}),
    "own": (TABLE, {"model.family": "noisy:net"}),
    "own buffer": (TABLE, {"model.family": "noisy:scaled", "augmentation.strength": 0.5}),
    "own optimizer": (TABLE, {"training.optimizer": "noisy:momentum", "regularization.l1": 0.05}),
    "own optimizer with numbers": (TABLE, {"training.optimizer": "noisy:Counting"}),
    "torch's own": (PICTURE, {"training.optimizer": "torch.optim:RAdam", "regularization.l2": 0.1}),
    "own loop": (TABLE, {"training.loop": "noisy:fit", "regularization.dropout": 0.3}),
    "own augmentation": (
        TABLE, {"augmentation.function": "noisy:jitter", "augmentation.strength": 0.5, "training.ema": True}
    ),
    "own buffer, averaged": (TABLE, {"model.family": "noisy:scaled", "training.ema": True}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _each_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a state kept after every epoch."""
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def task_of(name: str, folder: Path) -> tuple[Task, Splits]:
    shape, values = RUNS[name]
    small = {"model.width": 8, "model.depth": 1, "training.epochs": EPOCHS, "training.batch_size": 8}
    config = RunConfig.model_validate({"data": {"source": "made"}}).replace(small | values)
    write(folder / "noisy.py", OWN)
    return Task(0, config, 7, folder), made(shape)


def timeless(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


def finish(run: TaskRun) -> tuple[list[Epoch], Ended]:
    first = run.first()
    epochs = [*first.earlier, first.epoch]
    while len(epochs) < run.task.config.training.epochs:
        epochs.append(run.step())
    return timeless(epochs), run.end(None, newest=False)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_cut_off_after_any_epoch_ends_byte_for_byte_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    task, splits = task_of(name, tmp_path)
    whole = finish(TaskRun(task, splits))
    epochs = len(whole[0])
    for cut in {1, epochs // 2, epochs}:
        kept = replace(task, state=tmp_path / f"{cut}")
        run = TaskRun(kept, splits)
        run.first()
        for _ in range(cut - 1):
            run.step()
        del run  # and nothing of it is left but its file
        torch.manual_seed(cut)
        again = TaskRun(kept, splits)
        first = again.first()
        assert (first.epoch.number, len(first.earlier)) == (cut, cut - 1)
        assert finish(TaskRun(kept, splits)) == whole
    if name == "own":
        assert len({epoch.train.loss for epoch in whole[0]}) == epochs


def test_the_average_of_a_buffer_that_is_put_anew_follows_it(tmp_path: Path) -> None:
    task, splits = task_of("own buffer, averaged", tmp_path)
    run = TaskRun(task, splits)
    run.first()
    assert run.network.mean.abs().sum() > 0, "else it is the average of what the buffer was at first"
    run.close()


def test_a_run_that_ends_where_it_was_cut_off_has_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    task, splits = task_of("perceptron", tmp_path)
    task = replace(task, config=task.config.replace({"training.learning_rate": 1.0, "training.epochs": 12}))
    alone = TaskRun(task, splits)
    alone.first()
    epochs = [alone.step() for _ in range(11)]
    assert epochs[-1].standing.best < 12, "else its last epoch is its best one"
    kept = replace(task, state=tmp_path / "state")
    cut = TaskRun(kept, splits)
    cut.first()
    for _ in range(11):
        cut.step()
    again = TaskRun(kept, splits)
    assert again.first().epoch.number == 12
    assert again.end(None, newest=False) == alone.end(None, newest=False)


@pytest.fixture
def state(tmp_path: Path) -> tuple[Path, str]:
    """A file with the states after the second and the third epoch, and the key of their run."""
    task, splits = task_of("average", tmp_path)
    task = replace(task, state=tmp_path / "checkpoints" / "state")
    run = TaskRun(task, splits)
    run.first()
    for _ in range(2):
        run.step()
    assert task.state is not None
    return task.state, run.key


def newest(path: Path, key: str) -> int | None:
    found = read_state(key, path)
    return None if found is None else found.epochs[-1].number


def test_a_torn_state_is_passed_over_for_the_one_before(state: tuple[Path, str]) -> None:
    path, key = state
    assert newest(path, key) == 3
    path.write_bytes(path.read_bytes()[:-1])
    assert newest(path, key) == 2
    path.unlink()
    assert newest(path, key) == 2, "killed between the two renames"
    before(path).write_bytes(b"")
    assert newest(path, key) is None


@given(data=st.data())
def test_no_damaged_state_is_taken_for_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        task, splits = task_of("average", folder)
        run = TaskRun(replace(task, state=folder / "whole"), splits)
        run.first()
        write(folder / "key", run.key)
    content, key = bytearray((folder / "whole").read_bytes()), (folder / "key").read_text()
    assert newest(folder / "whole", key) == 1
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    (folder / "torn").write_bytes(content)
    assert read_state(key, folder / "torn") is None


def test_the_state_of_another_run_is_not_taken(state: tuple[Path, str], tmp_path: Path) -> None:
    path, key = state
    task, splits = task_of("average", tmp_path)
    fewer = replace(splits, train=Part(*(each[:-1] for each in (splits.train.x, splits.train.y, splits.train.rows))))
    others = (
        key_of(task.config.replace({"regularization.l2": 0.5}), 7, splits, tmp_path),
        key_of(task.config, 8, splits, tmp_path),
        key_of(task.config, 7, fewer, tmp_path),
    )
    assert key_of(task.config.replace({"budget.trials": 500}), 7, splits, tmp_path) == key
    assert len({key, *others}) == 4
    assert [newest(path, other) for other in others] == [None] * 3


def test_the_state_of_other_code_of_tuners_own_is_not_taken(
    state: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = state
    task, splits = task_of("average", tmp_path)
    assert key_of(task.config, 7, splits, tmp_path) == key
    monkeypatch.setattr("tuner.checkpoint.this_code", lambda: "SHA-256 of another")
    assert newest(path, key_of(task.config, 7, splits, tmp_path)) is None


def test_a_state_of_a_model_that_was_changed_since_counts_as_none(tmp_path: Path) -> None:
    task, splits = task_of("own", tmp_path)
    task = replace(task, state=tmp_path / "state")
    run = TaskRun(task, splits)
    run.first()
    run.step()
    for changed in (OWN.replace("Linear(5, 3)", "Linear(5, 3, bias=False)"), OWN.replace("seen / 100", "seen / 99")):
        write(tmp_path / "noisy.py", changed)
        del sys.modules["noisy"]
        again = TaskRun(task, splits)
        assert again.resume is None
        assert (again.first().epoch.number, again.resume) == (1, None)
        again.close()


def test_a_state_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, splits = task_of("perceptron", tmp_path)
    whole = finish(TaskRun(task, splits))
    write(tmp_path / "file", "")
    assert finish(TaskRun(replace(task, state=tmp_path / "file" / "state"), splits)) == whole
    monkeypatch.setattr("tuner.faults._PLAN", planned("in_checkpoint:1:enospc,in_checkpoint:2:eio"))
    monkeypatch.setattr("tuner.faults._passed", {})
    assert finish(TaskRun(replace(task, state=tmp_path / "state"), splits)) == whole
    assert sorted(path.name for path in tmp_path.glob("*state*")) == ["state", "state.before"]


def test_a_state_is_for_its_owner_alone_and_leaves_nothing_behind(state: tuple[Path, str]) -> None:
    path, _ = state
    assert sorted(each.name for each in path.parent.iterdir()) == ["state", "state.before"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
    forget_state(path)
    assert list(path.parent.iterdir()) == []
    forget_state(path)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
import test_checkpoint as t
t.tasks.STATE_SECONDS = t.tasks.STATE_RATIO = 0.0
task, splits = t.task_of("perceptron", Path({folder!r}))
t.finish(t.TaskRun(replace(task, state=Path({folder!r}) / "state"), splits))
"""


@pytest.mark.parametrize("place", ["before_checkpoint", "in_checkpoint", "after_checkpoint", "before_epoch"])
def test_a_kill_while_a_state_is_written_loses_one_epoch_at_most(place: str, tmp_path: Path) -> None:
    task, splits = task_of("perceptron", tmp_path)
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    env = {"TUNER_FAULT": f"{place}:4:kill9", "PYTHONPATH": str(Path(tasks.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = TaskRun(replace(task, state=tmp_path / "state"), splits)
    first = run.first()
    assert isinstance(first, Trained)
    assert first.epoch.number >= 3
    run.close()
    assert finish(TaskRun(replace(task, state=tmp_path / "state"), splits)) == finish(TaskRun(task, splits))


def test_the_same_state_is_the_same_bytes(state: tuple[Path, str], tmp_path: Path) -> None:
    path, key = state
    found = read_state(key, path)
    assert found is not None
    write_state(found, key, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
