"""Where networks are trained: what is asked for and isn't there is refused before anything is written, and nothing that
a run does mixes two devices. Here by a GPU that is pretended; `test_gpu` is for a real one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_files import write_backbone
from command import SMALL, call, write
from pretended import pretended_gpu
from test_checkpoint import PICTURE, RUNS, TABLE, finish, made
from test_gpu import MORE, on_gpu, splits_of

from tuner import feeding, machine, tasks
from tuner.checkpoint import key_of
from tuner.config import RunConfig, Training
from tuner.data.splits import Shape, Splits
from tuner.devices import Gpu, device_of, lacking, take_turn
from tuner.engine import Task
from tuner.errors import UsageError
from tuner.hosting import unlike
from tuner.machine import versions_here
from tuner.measuring import predict
from tuner.models import build_model
from tuner.models.layers import AveragePool
from tuner.placing import Place, placed
from tuner.planning import prepare
from tuner.tasks import TaskRun

here_is_one = machine.gpu() is not None


@pytest.fixture
def _each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a state kept after every epoch."""
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)


def kept_and_cut_off(task: Task, splits: Splits, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """Return how a run went that was cut off after two epochs on a pretended GPU."""
    with pretended_gpu(patch) as account:
        kept = replace(task, state=folder / "state")
        run = TaskRun(kept, splits, folder / "features")
        run.first()
        assert all(map(account.is_there, run.network.parameters())), "the network isn't on the GPU"
        run.step()
        del run
        cut = finish(TaskRun(kept, splits, folder / "features"))
        assert finish(TaskRun(task, splits, folder / "features")) == cut
    return cut


@pytest.mark.usefixtures("_each_epoch")
class TestRuns:
    @pytest.mark.parametrize("name", [name for name in (*RUNS, *MORE) if name != "own loop"])
    def test_a_run_keeps_to_one_device_and_is_the_same_where_it_was_cut_off(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept_and_cut_off(*on_gpu(name, tmp_path), tmp_path, monkeypatch)

    def test_rows_that_do_not_fit_beside_the_networks_give_the_same_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "all").mkdir()
        held = kept_and_cut_off(*on_gpu("cnn, layer", tmp_path), tmp_path / "all", monkeypatch)
        monkeypatch.setattr(feeding, "HELD", 0.0)
        assert kept_and_cut_off(*on_gpu("cnn, layer", tmp_path), tmp_path, monkeypatch) == held

    @pytest.mark.parametrize("unfrozen", [0, 1])
    def test_a_frozen_part_computes_on_the_gpu_and_its_features_are_kept_apart(
        self, unfrozen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = write_backbone(tmp_path / "body")
        values = {
            "model.family": "pretrained", "model.backbone": str(body), "data.tokens": str(body),
            "model.unfrozen": unfrozen, "training.epochs": 4, "training.batch_size": 8, "augmentation.strength": 0.5,
        }  # fmt: skip
        config = RunConfig.model_validate({"data": {"source": "made"}}).replace(values)
        splits = splits_of(Shape("text", "classification", (10,), 3, vocabulary=20))
        finish(TaskRun(Task(0, config, 7, tmp_path), splits, tmp_path / "features"))
        there = set((tmp_path / "features").iterdir())
        on_it = config.replace({"training.device": "cuda"})
        kept_and_cut_off(Task(0, on_it, 7, tmp_path), splits, tmp_path, monkeypatch)
        assert set((tmp_path / "features").iterdir()) > there


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.device("cuda", 0)
    with pretended_gpu(monkeypatch):
        x, here = torch.ones(2, 2, device=there), torch.ones(2, 2)
        with pytest.raises(RuntimeError, match="same device"):
            x @ here
        with pytest.raises(RuntimeError, match="same device"):
            torch.nn.Linear(2, 2)(x)
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device=there, generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        assert (x.t() + 1).device == there
        assert x.cpu().device.type == "cpu"


def test_an_evaluation_takes_a_network_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.model_validate({"data": {"source": "made"}})
    splits = made(TABLE)
    network = build_model(config, splits.shape)
    on_cpu = predict(network, splits.val.x, splits.encoder.standard, "classification")
    with pretended_gpu(monkeypatch):
        network.to("cuda")
        on_it = predict(network, splits.val.x, splits.encoder.standard, "classification")
    assert on_it.tolist() == on_cpu.tolist()


def test_a_state_of_another_device_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.model_validate({"data": {"source": "made"}, "model": {"family": "cnn"}})
    splits = made(PICTURE)
    on_cpu = key_of(config, 0, splits, tmp_path)
    with pretended_gpu(monkeypatch):
        assert key_of(config, 0, splits, tmp_path) != on_cpu


def test_a_study_of_small_perceptrons_is_not_said_to_be_trained_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu", lambda: Gpu("Pretended", bfloat16=True))
    text = "data: {source: sklearn:wine}\nmodel: {width: {low: 4, high: WIDTH}}\n"
    batches = ("", "{choices: [auto]}", "{choices: [auto, 16]}", "{low: 8, high: 64}")
    for width, named in ((64, False), (8192, True)):
        for batch in batches:
            more = f"training: {{batch_size: {batch}}}\n" if batch else ""
            plan = prepare(write(tmp_path / "space.yaml", text.replace("WIDTH", str(width)) + more))
            assert ("GPU" in plan.study.versions) == named, (width, batch)


@pytest.mark.skipif(here_is_one, reason="here is a GPU")
class TestWithoutOne:
    @pytest.mark.parametrize("command", ["run", "check", "train"])
    def test_cuda_is_refused_in_a_line_before_anything_is_written(
        self, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "space.yaml", SMALL if command != "train" else "data: {source: sklearn:wine}\n")
        said = call(capsys, command, "space.yaml", "-S", "training.device=cuda")
        assert said.code == 2
        assert said.err.strip().endswith(
            "training.device: cuda needs a GPU that torch can use, and here is none; leave it out, or say auto"
        )
        assert len(said.err.strip().splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]

    def test_a_host_without_one_is_of_no_use_to_a_study_that_asks_for_one(self, tmp_path: Path) -> None:
        terms = {"versions": versions_here(), "own": {}, "names": [], "backbone": None}
        for device, problem in (("cuda", "training.device: cuda needs a GPU"), ("auto", ""), ("cpu", "")):
            told = {**terms, "training": {"device": device, "precision": "bfloat16"}}
            found = unlike(told, tmp_path)
            assert found.startswith(problem)
            assert bool(found) == bool(problem)

    def test_ray_is_to_give_each_worker_a_share_of_one(self) -> None:
        config = RunConfig.model_validate({"data": {"source": "made"}, "training": {"device": "cuda"}})
        with pytest.raises(UsageError, match="--gpus-per-worker"), placed(Place(engine="ray"), config):
            pass


def test_bfloat16_is_refused_where_the_gpu_only_emulates_it() -> None:
    old, new = Gpu("NVIDIA T4", bfloat16=False), Gpu("NVIDIA A10", bfloat16=True)
    half, full = Training(precision="bfloat16"), Training()
    assert lacking(half, old) == (
        "training.precision: bfloat16 is more than NVIDIA T4 can; use float32, or training.device: cpu"
    )
    assert not any((lacking(half, new), lacking(full, old), lacking(half, None)))
    assert not lacking(Training(precision="bfloat16", device="cpu"), old)


def test_auto_leaves_small_perceptrons_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, splits = RunConfig.model_validate({"data": {"source": "made"}}), made(TABLE)
    wide = plain.replace({"model.width": 4096, "model.depth": 4})
    cases = {"cpu": plain, "cuda": wide}
    with pretended_gpu(monkeypatch):
        for device, config in cases.items():
            assert device_of(config, splits).type == device
            assert device_of(config.replace({"training.device": "cuda"}), splits).type == "cuda"
            assert device_of(config.replace({"training.device": "cpu"}), splits).type == "cpu"
        other = plain.replace({"model.family": "cnn"})
        assert device_of(other, splits).type == "cuda"


@pytest.mark.parametrize(
    ("count", "visible", "taken"),
    [(0, None, [None, None]), (1, "5", ["5", "5"]), (2, None, ["0", "1", "0"]), (3, "7,GPU-1f,2", ["7", "GPU-1f"])],
)
def test_workers_take_the_gpus_in_turn(
    count: int, visible: str | None, taken: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for slot, name in enumerate(taken):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # so that it is put back, whatever is done to it
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        take_turn(slot)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == name


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (4, 9), (12, 13)])
def test_pooling_on_a_gpu_is_torchs_pooling(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pool, x = AveragePool((4, 4)), torch.rand(3, 2, *size)
    expected = pool(x)
    with pretended_gpu(monkeypatch):
        found = pool(x.to("cuda")).cpu()
    torch.testing.assert_close(found, expected)
