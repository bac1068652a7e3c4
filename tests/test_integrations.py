"""The adapters in the real frameworks: each stops a run where a watch does, records train and validation, and puts the
best epoch back. One contract for all of them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tuner.errors import UsageError
from tuner.watching import Watch

EPOCHS = 60
pytestmark = pytest.mark.filterwarnings("default")  # those of the frameworks are theirs


@dataclass
class Trained:
    """What came of a training: its watch, what its model predicts of validation rows, and how many epochs it ran."""

    watch: Watch
    loss: Callable[[], float]
    ran: int


def rows(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Few rows with many columns of noise, and labels of which a fifth are wrong: any network overfits them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) ^ (rng.random(n) < 0.2)
    return x, y.astype(np.int64)


TRAIN, VAL = rows(60, 0), rows(60, 1)
PROBE = TRAIN


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))


def cross_entropy(model: nn.Module) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model.eval()(torch.tensor(VAL[0])), torch.tensor(VAL[1])))


def with_lightning(place: Path, **more: Any) -> Trained:
    import lightning
    from torch.utils.data import DataLoader, TensorDataset

    from tuner.integrations.lightning import OverfitStopping

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, number: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, number: int, dataloader_idx: int = 0) -> None:
            self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), on_epoch=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 0.01)

    def loader(part: Any, shuffle: bool = False) -> Any:
        return DataLoader(TensorDataset(*map(torch.tensor, part)), batch_size=16, shuffle=shuffle)

    stopping = OverfitStopping(train="loss/dataloader_idx_1", val="loss/dataloader_idx_0", **more)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, callbacks=[stopping], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=place,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, loader(TRAIN, shuffle=True), [loader(VAL), loader(PROBE)])
    assert stopping.watch is not None
    return Trained(stopping.watch, lambda: cross_entropy(module.net), len(stopping.watch.history))


def with_transformers(place: Path, **more: Any) -> Trained:
    from transformers import Trainer, TrainingArguments

    from tuner.integrations.transformers import OverfitStopping

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def examples(part: Any) -> list[dict[str, Any]]:
        return [{"x": torch.tensor(x), "labels": int(y)} for x, y in zip(*part, strict=True)]

    given = TrainingArguments(
        str(place), num_train_epochs=EPOCHS, per_device_train_batch_size=16, learning_rate=0.01, eval_strategy="epoch",
        save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        lr_scheduler_type="constant", remove_unused_columns=False,
    )  # fmt: skip
    stopping, model = OverfitStopping(**more), Model()
    trainer = Trainer(
        model=model, args=given, train_dataset=examples(TRAIN), callbacks=[stopping],
        eval_dataset={"train": examples(PROBE), "val": examples(VAL)},
    )  # fmt: skip
    trainer.train()
    assert stopping.watch is not None
    return Trained(stopping.watch, lambda: cross_entropy(model.net), round(trainer.state.epoch or 0))


def with_skorch(place: Path, **more: Any) -> Trained:
    from skorch import NeuralNetClassifier
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    from tuner.integrations.skorch import OverfitStopping

    torch.manual_seed(0)
    stopping = OverfitStopping(probe=True, **more)
    net = NeuralNetClassifier(
        network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.01, batch_size=16, max_epochs=EPOCHS,
        train_split=predefined_split(Dataset(*VAL)), callbacks=[("stopping", stopping)], verbose=0,
        iterator_train__shuffle=True,
    ).fit(*TRAIN)  # fmt: skip
    found = dict(net.callbacks_)["stopping"]
    return Trained(found.watch, lambda: cross_entropy(net.module_), len(net.history))


def with_keras(place: Path, **more: Any) -> Trained:
    import keras

    from tuner.integrations.keras import OverfitStopping

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stopping = OverfitStopping(probe=PROBE, **more)
    model.fit(*TRAIN, batch_size=16, epochs=EPOCHS, validation_data=VAL, callbacks=[stopping], verbose=0)
    assert stopping.watch is not None
    return Trained(stopping.watch, lambda: float(model.evaluate(*VAL, verbose=0)), len(model.history.history["loss"]))


ADAPTERS = {
    "lightning": with_lightning, "transformers": with_transformers, "skorch": with_skorch, "keras": with_keras,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Trained]:
    pytest.importorskip(request.param, reason="the extra isn't installed")
    return lambda **more: ADAPTERS[request.param](tmp_path, **more)


every = pytest.mark.parametrize("train", ADAPTERS, indirect=True)


@every
def test_a_run_that_overfits_is_stopped_and_its_best_epoch_is_put_back(train: Callable[..., Trained]) -> None:
    found = train()
    watch = found.watch
    assert watch.verdict is not None
    assert watch.verdict.kind == "overfit", watch.reason
    assert found.ran == len(watch.history) < EPOCHS
    assert watch.history[-1]["train_loss"] < 0.5 * watch.history[0]["train_loss"]
    assert found.loss() == pytest.approx(watch.history[watch.best - 1]["val_loss"], rel=1e-3)
    assert found.loss() < watch.history[-1]["val_loss"]


@every
def test_without_restoring_the_newest_epoch_stays(train: Callable[..., Trained]) -> None:
    found = train(restore=False)
    assert found.loss() == pytest.approx(found.watch.history[-1]["val_loss"], rel=1e-3)


@every
def test_a_run_that_no_rule_ends_runs_to_its_end_with_its_best_epoch(train: Callable[..., Trained]) -> None:
    found = train(overfit=False, plateau=False)
    watch = found.watch
    assert (watch.verdict, found.ran, watch.epochs) == (None, EPOCHS, EPOCHS)
    assert found.loss() == pytest.approx(watch.history[watch.best - 1]["val_loss"], rel=1e-3)


@every
def test_a_study_of_tuners_may_judge_instead(train: Callable[..., Trained]) -> None:
    class Run:
        told = 0

        def report(self, train: float, val: float) -> bool:
            self.told += 1
            return self.told == 4

    run = Run()
    found = train(watch=Watch(EPOCHS, run=run))
    assert (found.ran, run.told) == (4, 4)


@every
def test_a_watch_and_rules_do_not_go_together(train: Callable[..., Trained]) -> None:
    with pytest.raises(UsageError, match="overfit belongs to the watch that is given, too"):
        train(watch=Watch(EPOCHS), overfit=False)


@pytest.mark.parametrize("train", ["skorch", "keras"], indirect=True)
def test_a_loss_that_is_not_there_is_told_with_those_that_are(train: Callable[..., Trained]) -> None:
    with pytest.raises(UsageError, match=r"OverfitStopping: .* has no 'gone'; there are: .*loss"):
        train(val="gone")


@every
def test_a_rule_that_there_is_not_is_told_before_anything_is_trained(train: Callable[..., Trained]) -> None:
    with pytest.raises(UsageError, match=r"unknown rule 'plateu' \(did you mean 'plateau'\?\); there are epochs, .*"):
        train(plateu=False)


def test_keras_may_validate_every_other_epoch(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from tuner.integrations.keras import OverfitStopping

    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stopping = OverfitStopping()
    model.fit(*TRAIN, epochs=6, validation_data=VAL, validation_freq=2, callbacks=[stopping], verbose=0)
    assert stopping.watch is not None
    assert len(stopping.watch.history) == 3


def test_other_evaluation_sets_of_transformers_are_left_alone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tuner.integrations.transformers import OverfitStopping

    stopping, state, control = OverfitStopping(), transformers.TrainerState(), transformers.TrainerControl()
    args = transformers.TrainingArguments(str(tmp_path), num_train_epochs=3, use_cpu=True, report_to=[])
    stopping.on_train_begin(args, state, control)
    for epoch in range(1, 4):
        for name in ("train", "ood", "val"):
            told = {f"eval_{name}_loss": 1.0 / epoch, "epoch": epoch}
            stopping.on_evaluate(args, state, control, metrics=told, model=network())
    assert stopping.watch is not None
    assert len(stopping.watch.history) == 3


def test_of_one_evaluation_set_the_newest_logged_loss_stands_for_train(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    from tuner.integrations.transformers import OverfitStopping

    stopping = OverfitStopping()
    state, control = transformers.TrainerState(), transformers.TrainerControl()
    args = transformers.TrainingArguments(str(tmp_path), num_train_epochs=3, use_cpu=True, report_to=[])
    stopping.on_train_begin(args, state, control)
    state.log_history = [{"loss": 0.7, "step": 1}]
    stopping.on_evaluate(args, state, control, metrics={"eval_loss": 0.8}, model=network())
    assert stopping.watch is not None
    assert stopping.watch.history == [{"epoch": 1, "train_loss": 0.7, "val_loss": 0.8}]


# scikit-learn.


def estimators() -> dict[str, Any]:
    from sklearn.linear_model import SGDClassifier, SGDRegressor
    from sklearn.neural_network import MLPClassifier

    return {
        "probabilities": SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0),
        "margins": SGDClassifier(loss="hinge", alpha=1e-6, random_state=0),
        "network": MLPClassifier((64,), learning_rate_init=0.01, random_state=0),
        "numbers": SGDRegressor(alpha=1e-6, random_state=0),
    }


@lru_cache
def table() -> tuple[Any, Any]:
    x, y = rows(120, 2)
    return x, y


@pytest.mark.parametrize("name", ["probabilities", "margins", "network", "numbers"])
def test_an_estimator_is_trained_epoch_by_epoch_and_kept_as_it_was_at_its_best(name: str) -> None:
    from tuner.integrations.sklearn import OverfitStopping

    x, y = table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = OverfitStopping(estimators()[name], epochs=EPOCHS, random_state=0).fit(x, y)
    assert 1 <= model.watch_.best <= len(model.watch_.history) <= EPOCHS
    assert model.predict(x).shape == (len(x),)
    assert np.isfinite(model.score(x, y))
    assert hasattr(model, "predict_proba") == (name in ("probabilities", "network"))
    if name == "network":
        assert model.watch_.verdict is not None
        assert model.watch_.verdict.kind in ("overfit", "plateau"), "few rows: either rule may be the first"


def test_it_is_an_estimator_like_any_other() -> None:
    import pandas as pd
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import cross_val_score

    from tuner.integrations.sklearn import OverfitStopping

    x, y = table()
    model = OverfitStopping(estimators()["probabilities"], epochs=20, random_state=0)
    assert is_classifier(model)
    assert clone(model).get_params()["epochs"] == 20
    words = np.array(["no", "yes"])[y]
    assert cross_val_score(model, x, words, cv=3).mean() > 0.5
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(20)])
    assert set(model.fit(frame, words).predict(frame)) <= {"no", "yes"}


def test_an_estimator_that_cannot_be_stopped_is_refused() -> None:
    from sklearn.ensemble import RandomForestClassifier

    from tuner.integrations.sklearn import OverfitStopping

    with pytest.raises(UsageError, match="RandomForestClassifier has no partial_fit; it can't be stopped"):
        OverfitStopping(RandomForestClassifier()).fit(*table())


@pytest.mark.parametrize("name", ["lightning", "transformers", "skorch", "keras", "sklearn"])
def test_an_adapter_is_tens_of_lines(name: str) -> None:
    spec = importlib.util.find_spec(f"tuner.integrations.{name}")
    assert spec is not None
    assert spec.origin is not None
    code = [line for line in Path(spec.origin).read_text().splitlines() if line.strip()]
    assert len(code) < 100 or name == "sklearn", "tens of lines; scikit-learn has no loop of its own to be called by"
