"""On a GPU a run comes out the same each time, cut off or not; it learns what the processor learns; trials share it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from backbone_files import write_backbone
from command import call, tuner, write
from test_checkpoint import PICTURE, RUNS, STEPS, TABLE, TEXT, finish, made, task_of

from tuner import feeding, tasks
from tuner.best import load_best
from tuner.config import RunConfig
from tuner.data.splits import Shape, Splits
from tuner.engine import Failed, Task
from tuner.machine import gpu
from tuner.study import open_study
from tuner.tasks import InProcess, TaskRun
from tuner.tuning import tune

pytestmark = [
    pytest.mark.skipif(gpu() is None, reason="here is no GPU that torch can use"),
    pytest.mark.slow,
    pytest.mark.xdist_group("gpu"),
]

MIXED = Shape("table", "classification", (5,), 3, (4, 3))
MASKED = Shape("sequence", "classification", (12, 3), 3, masked=True)
LONG = Shape("sequence", "classification", (700, 2), 3)  # so long that attention goes another way
EVERY = {"regularization.dropout": 0.2, "augmentation.strength": 1.0, "regularization.l1": 0.01}
MORE: dict[str, tuple[Shape, dict[str, Any]]] = {
    "mlp with categories": (MIXED, {"model.family": "mlp", **EVERY, "augmentation.mixup": 0.3}),
    "wide mlp": (TABLE, {"model.width": 2048, "model.depth": 3, "model.normalization": "layer", **EVERY}),
    "mlp of pictures": (PICTURE, {"model.family": "mlp", **EVERY, "augmentation.flip": "both"}),
    "cnn, layer": (PICTURE, {"model.family": "cnn", "model.normalization": "layer", "augmentation.mixup": 0.3}),
    "resnet": (PICTURE, {"model.family": "resnet", "model.normalization": "batch", "model.depth": 2, **EVERY}),
    "conv1d": (STEPS, {"model.family": "conv1d", "model.normalization": "batch", **EVERY}),
    "conv1d, masked": (MASKED, {"model.family": "conv1d", "model.normalization": "batch", **EVERY}),
    "lstm, masked": (MASKED, {"model.family": "rnn", "model.cell": "lstm", "model.normalization": "layer", **EVERY}),
    "rnn of texts": (TEXT, {"model.family": "rnn", "augmentation.strength": 1.0}),
    "transformer, masked": (MASKED, {"model.family": "transformer", "augmentation.mixup": 0.3, **EVERY}),
    "transformer of texts": (TEXT, {"model.family": "transformer", **EVERY}),
    "transformer, long": (LONG, {"model.family": "transformer", "model.width": 64, "training.epochs": 2}),
    "textcnn": (TEXT, {"model.family": "textcnn", "model.depth": 2, "model.normalization": "batch", **EVERY}),
    "bag": (TEXT, {"model.family": "bag", **EVERY}),
}
ON_GPU = {"training.device": "cuda"}


@pytest.fixture(autouse=True)
def _each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a state kept after every epoch."""
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)


def on_gpu(name: str, folder: Path) -> tuple[Task, Splits]:
    if name in RUNS:
        task, splits = task_of(name, folder)
        return replace(task, config=task.config.replace(ON_GPU)), splits
    shape, values = MORE[name.removesuffix(", bfloat16")]
    if name not in MORE:
        values = values | {"training.precision": "bfloat16"}
    small = {"model.width": 8, "model.depth": 1, "training.epochs": 4, "training.batch_size": 8, **ON_GPU}
    config = RunConfig.model_validate({"data": {"source": "made"}}).replace(small | values)
    return Task(0, config, 7, folder), splits_of(shape)


def splits_of(shape: Shape) -> Splits:
    """Return made rows, with category codes and steps that aren't there where a shape has them."""
    splits = made(shape)
    for part in (splits.train, splits.val):
        if shape.cardinalities:
            part.x[:, -2:] = np.abs(part.x[:, -2:]).astype(int) % 3
        if shape.masked:
            lengths = 1 + np.arange(len(part.x)) % 12
            there = np.arange(12) < lengths[:, None]
            part.x[:] *= there[:, :, None]
            part.x[:, :, -1] = there
        if shape.kind == "text":
            part.x[::3, 4:] = 0
    return splits


HALVED = [f"{name}, bfloat16" for name in MORE]


@pytest.mark.parametrize("name", [*RUNS, *MORE, *HALVED])
def test_a_run_is_the_same_byte_for_byte_each_time_and_where_it_was_cut_off(name: str, tmp_path: Path) -> None:
    task, splits = on_gpu(name, tmp_path)
    whole, again = (finish(TaskRun(task, splits)) for _ in range(2))
    assert whole == again
    kept = replace(task, state=tmp_path / "state")
    one = TaskRun(kept, splits)
    one.first()
    one.step()
    if "own loop" not in name:
        assert next(one.network.parameters()).is_cuda
    del one
    torch.cuda.manual_seed(1)
    assert len(TaskRun(kept, splits).first().earlier) == 1, "else it began anew"
    assert finish(TaskRun(kept, splits)) == whole


PLAIN = {"regularization.dropout": 0.0, "augmentation.strength": 0.0, "augmentation.mixup": 0.0}


@pytest.mark.parametrize("name", MORE)
def test_it_learns_what_the_processor_learns(name: str, tmp_path: Path) -> None:
    task, splits = on_gpu(name, tmp_path)
    task = replace(task, config=task.config.replace(PLAIN | {"training.precision": "float32"}))
    there, _ = finish(TaskRun(task, splits))
    here, _ = finish(TaskRun(replace(task, config=task.config.replace({"training.device": "cpu"})), splits))
    # convolutions are computed in TF32 on a GPU, as torch has it: a relative error of 2**-11 in each product
    assert [e.val.loss for e in there] == pytest.approx([e.val.loss for e in here], rel=5e-3)
    assert [e.train.loss for e in there] == pytest.approx([e.train.loss for e in here], rel=5e-3)


def test_rows_that_do_not_fit_beside_the_networks_give_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, splits = on_gpu("resnet", tmp_path)
    held = finish(TaskRun(task, splits))
    monkeypatch.setattr(feeding, "HELD", 0.0)
    assert finish(TaskRun(task, splits)) == held


@pytest.mark.parametrize("unfrozen", [0, 1])
def test_a_pretrained_network_learns_on_features_of_the_gpu(unfrozen: int, tmp_path: Path) -> None:
    write_backbone(tmp_path / "body")
    shape = Shape("text", "classification", (10,), 3, vocabulary=20)
    values = {
        "model.family": "pretrained", "model.backbone": str(tmp_path / "body"), "model.unfrozen": unfrozen,
        "training.epochs": 4, "training.batch_size": 8, "data.tokens": str(tmp_path / "body"),
    }  # fmt: skip
    config = RunConfig.model_validate({"data": {"source": "made"}}).replace(values)
    found = {}
    for device in ("cpu", "cuda"):
        task = Task(0, config.replace({"training.device": device}), 7, tmp_path)
        epochs, _ = finish(TaskRun(task, splits_of(shape), tmp_path / "features"))
        assert (epochs, _) == finish(TaskRun(task, splits_of(shape), tmp_path / "features"))
        found[device] = [epoch.val.loss for epoch in epochs]
    assert found["cuda"] == pytest.approx(found["cpu"], rel=2e-2)  # features in bfloat16 where that is fast
    names = {path.stem for path in (tmp_path / "features").iterdir()}
    assert len({name.partition(".")[0] for name in names}) == 2, "features of one device were taken on the other"


HUNGRY = """
import torch

class Hungry(torch.nn.Linear):
    def forward(self, x):
        if x.is_cuda and self.out_features == 3:
            torch.empty(10**13, device=x.device)
        return super().forward(x)

def net(config, shape):
    return Hungry(shape.input[0], shape.outputs)

def picture(config, shape):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, shape.outputs))

def jitter(batch, strength, generator):
    assert not batch.is_cuda
    return batch + strength * torch.randn(batch.shape, generator=generator)
"""


def test_a_trial_that_a_gpu_has_no_room_for_ends_in_a_line_and_the_next_one_trains(tmp_path: Path) -> None:
    write(tmp_path / "hungry.py", HUNGRY)
    small = {"training.epochs": 2, **ON_GPU, "model.family": "hungry:net"}
    config = RunConfig.model_validate({"data": {"source": "made"}}).replace(small)
    engine = InProcess()
    number = engine.take(made(TABLE))
    engine.start(Task(0, config, 0, tmp_path, splits=number))
    failed = engine.next()
    assert isinstance(failed, Failed)
    assert "\n" not in failed.error
    assert failed.error.startswith("the GPU has no room")
    engine.start(Task(1, config.replace({"model.family": "mlp"}), 0, tmp_path, splits=number))
    assert not isinstance(engine.next(), Failed)
    engine.close()


def test_a_study_uses_no_gpu_in_its_own_process_so_that_the_next_one_can_try_the_users_code(tmp_path: Path) -> None:
    code = ALONE.format(place=str(tmp_path))
    write(tmp_path / "hungry.py", HUNGRY)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", X=rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), y=np.arange(60) % 2)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["False", "True"]


ALONE = """
import torch, tuner
first = "study: first\\ndata: {{source: rows.npz}}\\nmodel: {{family: cnn, width: 8}}\\ntraining: {{epochs: 2}}\\n"
own = first.replace("study: first", "study: own").replace("family: cnn", "family: 'hungry:picture'")
open("first.yaml", "w").write(first)
open("own.yaml", "w").write(own)
tuner.tune("first.yaml")
print(torch.cuda.is_initialized())
torch.nn.Linear(2, 2).cuda()(torch.ones(1, 2).cuda()).sum().backward()
print(tuner.tune("own.yaml").document["trials"]["complete"] > 0)
"""

SPACE = """\
study: {name}
seed: 3
data: {{source: rows.npz}}
model: {{family: cnn, width: {{low: 4, high: 16}}, depth: 1}}
regularization: {{dropout: {{low: 0.0, high: 0.5}}, l1: {{low: 1e-3, high: 0.1, log: true, or: 0}}}}
augmentation: {{strength: {{low: 0.0, high: 1.0}}}}
training: {{epochs: 4, learning_rate: {{low: 3e-3, high: 3e-2, log: true}}, device: {device}, precision: bfloat16}}
search: {{sampler: random}}
stopping: none
budget: {{trials: 8, workers: {workers}}}
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study by one worker and by four of them, on the GPU; this process has used it before, too."""
    folder = tmp_path_factory.mktemp("studies")
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.integers(0, 100, (300, 12, 12, 3), dtype=np.uint8)
    x[np.arange(300), y * 4, :, 0] += 150
    np.savez(folder / "rows.npz", X=x, y=y)
    for name, workers in (("one", 1), ("four", 4)):
        tune(
            write(folder / f"{name}.yaml", SPACE.format(name=name, workers=workers, device="auto")),
            studies_dir=folder / "studies",
        )
    return folder


def figures(folder: Path, name: str) -> Any:
    """Return what a study found, but for how long it took."""
    frame = open_study(name, studies_dir=folder / "studies").frame()
    return frame.drop(columns=[each for each in frame if "second" in each])


def test_trials_that_share_a_gpu_are_those_of_one_worker(studies: Path) -> None:
    one, four = (figures(studies, name) for name in ("one", "four"))
    assert len(one) == 8
    pd.testing.assert_frame_equal(one.sort_index(), four.sort_index())
    weights = [(studies / "studies" / name / "model.safetensors").read_bytes() for name in ("one", "four")]
    assert weights[0] == weights[1]


def test_a_study_says_which_gpu_it_was_trained_on_and_its_model_predicts_without_one(
    studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(studies)
    about = json.loads((studies / "studies" / "one" / "best.json").read_text())
    found = gpu()
    assert found is not None
    assert about["versions"]["GPU"] == found.name
    best = load_best("one")
    assert not next(best.load_model().parameters()).is_cuda
    rows = np.load(studies / "rows.npz")["X"][:20]
    with_gpu = best.predict_proba(rows)
    assert with_gpu.shape == (20, 3)
    said = call(capsys, "replay", "one", "--trial", "2")
    assert "byte for byte" in said.out, said.out + said.err
    said = call(capsys, "check", "one.yaml")
    assert said.code == 0, said.err
    assert found.name in said.out


def test_where_the_gpu_is_hidden_cuda_is_refused_before_anything_is_written(studies: Path, tmp_path: Path) -> None:
    write(tmp_path / "space.yaml", SPACE.format(name="hidden", workers=1, device="cuda"))
    (tmp_path / "rows.npz").write_bytes((studies / "rows.npz").read_bytes())
    said = tuner("run", "space.yaml", cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert said.code == 2
    assert "training.device" in said.err
    assert not (tmp_path / "studies").exists()


def test_code_of_the_users_own_trains_on_the_gpu_and_augments_on_the_processor(tmp_path: Path) -> None:
    write(tmp_path / "hungry.py", HUNGRY)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", X=rng.normal(size=(80, 5)).astype(np.float32), y=np.arange(80) % 2)
    space = """\
study: own
data: {source: rows.npz}
model: {family: "hungry:net"}
augmentation: {function: "hungry:jitter", strength: {low: 0.1, high: 0.5}}
training: {epochs: 2, device: cuda}
budget: {trials: 4, workers: 2, confirm: false}
"""
    study = tune(write(tmp_path / "own.yaml", space), studies_dir=tmp_path / "studies")
    assert {record.state for record in study.trials.values()} <= {"complete", "pruned"}
