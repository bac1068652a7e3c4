"""The training loop: the same seed gives the same bytes, and each regularizer does what its name says."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import Fitted
from torch import nn

from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.data.splits import Part, Shape, Splits, Standard, Target
from tuner.defaults import batch_size
from tuner.devices import Draws
from tuner.errors import DataError
from tuner.feeding import Batches
from tuner.measuring import input_of, measure, predict, standardized, training_probe
from tuner.models import build_model, decays
from tuner.optimizers import AdamW
from tuner.perceptron import Perceptron
from tuner.remembering import Chance
from tuner.training import train
from tuner.updating import Average, _schedule, soft_threshold
from tuner.weights import read_weights, sparsity, write_weights


def part(x: Any, y: Any) -> Part:
    return Part(x, y, np.arange(len(y)))


def classes(n_train: int = 60, n_val: int = 30, noise: float = 0.5, seed: int = 0) -> Splits:
    """Three classes in four columns, each around a corner of its own."""
    rng = np.random.default_rng(seed)

    def draw(n: int) -> Part:
        y = rng.integers(0, 3, n)
        return part((np.eye(4)[y] * 2 + rng.normal(size=(n, 4)) * noise).astype(np.float32), y)

    return Splits(draw(n_train), draw(n_val), None, Fitted(Shape("table", "classification", (4,), 3)), "", "")


def numbers(n_train: int = 60, n_val: int = 30) -> Splits:
    """A straight line through three columns, in the user's unit 10 times as steep."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> Part:
        x = rng.normal(size=(n, 3)).astype(np.float32)
        return part(x, (x @ np.array([1.0, -0.5, 0.25], np.float32)))

    return Splits(
        draw(n_train), draw(n_val), None, Fitted(Shape("table", "regression", (3,), 1), target=Target(5, 10)), "", ""
    )


def config(**values: Any) -> RunConfig:
    """A small run; a name's dot is written as two underscores."""
    small = {
        "model.width": 8,
        "model.depth": 1,
        "training.epochs": 3,
        "training.batch_size": 16,
        "training.learning_rate": 0.01,
    }
    changed = {name.replace("__", "."): value for name, value in values.items()}
    return RunConfig.model_validate({"data": {"source": "made"}}).replace(small | changed)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digest(network: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def drain(config: RunConfig, splits: Splits, seed: int = 0) -> tuple[list[Epoch], nn.Module, list[str]]:
    epochs, digests, network = [], [], nn.Module()
    for epoch, network, *_ in train(config, splits, seed):
        epochs.append(epoch)
        digests.append(digest(network))
    return epochs, network, digests


EVERYTHING: dict[str, Any] = {
    "regularization__dropout": 0.3, "regularization__l1": 0.1, "regularization__l2": 0.1,
    "regularization__label_smoothing": 0.1, "augmentation__strength": 0.5, "model__normalization": "batch",
}  # fmt: skip

FRESH = """
import torch
torch.set_num_threads(1)
import sys
sys.path.insert(0, {folder!r})
from test_training import EVERYTHING, classes, config, drain
torch.rand(7)
print(*drain(config(**EVERYTHING), classes(), 3)[2])
"""


class TestSeed:
    def test_the_same_seed_gives_the_same_weights_byte_for_byte_after_every_epoch(self) -> None:
        one, two = (drain(config(**EVERYTHING), classes(), 3) for _ in range(2))
        assert one[2] == two[2]
        assert [replace(epoch, seconds=0) for epoch in one[0]] == [replace(epoch, seconds=0) for epoch in two[0]]

    def test_a_fresh_process_gives_the_same_weights_byte_for_byte(self) -> None:
        code = FRESH.format(folder=str(Path(__file__).parent))
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.split() == drain(config(**EVERYTHING), classes(), 3)[2]

    def test_another_seed_gives_other_weights(self) -> None:
        assert drain(config(), classes(), 0)[2] != drain(config(), classes(), 1)[2]

    def test_the_callers_random_numbers_are_its_own_while_a_run_is_under_way(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(4)
        torch.manual_seed(5)
        run = train(config(**EVERYTHING), classes(), 0)
        drawn = []
        for _ in range(3):
            next(run)
            drawn.append(torch.rand(1))
        run.close()  # type: ignore[attr-defined]
        assert torch.equal(torch.cat([*drawn, torch.rand(1)]), expected)

    def test_what_the_caller_draws_between_epochs_changes_no_weights(self) -> None:
        digests = []
        for _, network, *_ in train(config(**EVERYTHING), classes(), 3):
            digests.append(digest(network))
            torch.manual_seed(len(digests))
        assert digests == drain(config(**EVERYTHING), classes(), 3)[2]

    def test_two_runs_that_take_turns_do_not_disturb_each_other(self) -> None:
        settings = config(**EVERYTHING)
        pair = [
            [digest(network) for _, network, *_ in both]
            for both in zip(*(train(settings, classes(), s) for s in (3, 4)), strict=True)
        ]
        assert [list(column) for column in zip(*pair, strict=True)] == [
            drain(settings, classes(), s)[2] for s in (3, 4)
        ]

    def test_a_run_goes_on_with_its_random_numbers_where_it_left_off(self) -> None:
        chance, drawn = Chance(5), []
        for _ in range(3):
            with chance.lent():
                drawn.append(torch.rand(1))
            torch.rand(2)
        torch.manual_seed(5)
        assert torch.equal(torch.cat(drawn), torch.rand(3))

    @pytest.mark.parametrize("flushed", [True, False])
    def test_denormal_numbers_are_zero_in_a_run_and_as_before_after_it(self, flushed: bool) -> None:
        tiny, seen = torch.tensor(1e-40), []

        class Watched(Perceptron):
            def learn(self, *given: Any) -> None:
                seen.append(bool(tiny + tiny == 0))
                super().learn(*given)

        torch.set_flush_denormal(flushed)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tuner.updating.Perceptron", Watched)
                drain(config(), classes())
            assert bool(tiny + tiny == 0) == flushed
        finally:
            torch.set_flush_denormal(False)
        assert seen
        assert all(seen)

    def test_a_run_that_raises_gives_the_generator_back(self) -> None:
        state = torch.get_rng_state()
        broken = replace(classes(), val=part(np.zeros((2, 9), np.float32), np.zeros(2, np.int64)))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            drain(config(**EVERYTHING), broken)
        assert torch.equal(torch.get_rng_state(), state)


class TestRegularizers:
    def test_augmentation_of_strength_zero_is_no_augmentation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weights = drain(config(augmentation__strength=0.0), classes())[2]
        monkeypatch.setattr("tuner.feeding.augmentation", lambda *_: None)
        assert drain(config(augmentation__strength=0.0), classes())[2] == weights
        monkeypatch.undo()
        assert drain(config(augmentation__strength=0.5), classes())[2] != weights

    @given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20), st.floats(0, 2, width=32))
    def test_the_soft_threshold_is_exact(self, values: list[float], shrink: float) -> None:
        weights = torch.tensor(values)
        soft_threshold([weights], shrink)
        exact = [math.copysign(max(abs(value) - shrink, 0.0), value) for value in values]
        assert weights.tolist() == pytest.approx(exact, rel=1e-6, abs=1e-6)
        assert [value == 0 for value in weights.tolist()] == [abs(value) <= shrink for value in values]

    @pytest.mark.parametrize("ema", [True, False])
    def test_l1_makes_weights_exactly_zero_and_no_l1_makes_none(self, ema: bool) -> None:
        long = {"training__epochs": 20, "training__ema": ema, "model__width": 32}
        sparse, dense = (drain(config(regularization__l1=l1, **long), classes())[1] for l1 in (0.3, 0.0))
        assert sparsity(sparse) >= 0.1
        assert sparsity(dense) == 0.0
        assert all((bias != 0).all() for bias in decays(sparse)[1])

    def test_l1_acts_on_weights_by_the_learning_rate_and_leaves_biases_alone(self) -> None:
        one_step = {"training__epochs": 1, "training__batch_size": 60, "training__warmup": 0.0, "training__ema": False}
        plain, shrunk = (drain(config(regularization__l1=l1, **one_step), classes())[1] for l1 in (0.0, 0.5))
        for before, after in zip(decays(plain)[0], decays(shrunk)[0], strict=True):
            expected = before.detach().clone()
            soft_threshold([expected], 0.01 * 0.5)
            assert torch.equal(after, expected)
        for before, after in zip(decays(plain)[1], decays(shrunk)[1], strict=True):
            assert torch.equal(before, after)

    @pytest.mark.parametrize("by_hand", [True, False])
    def test_l2_shrinks_weights_without_a_gradient_by_its_share_of_the_learning_rate_and_no_bias(
        self, monkeypatch: pytest.MonkeyPatch, by_hand: bool
    ) -> None:
        monkeypatch.setattr(nn.functional, "cross_entropy", lambda outputs, *_, **__: outputs.sum() * 0)
        monkeypatch.setattr(Perceptron, "learn" if by_hand else "of", lambda *_: None)
        still = {"training__warmup": 0.0, "training__ema": False}
        _, network, _ = drain(config(regularization__l2=0.5, **still), classes())
        with Chance(0).lent():
            start = build_model(config(), classes().shape)
        steps = 3 * 4  # epochs of 60 rows in batches of 16
        for before, after in zip(decays(start)[0], decays(network)[0], strict=True):
            assert torch.allclose(after, before * (1 - 0.01 * 0.5) ** steps, rtol=1e-5)
        for before, after in zip(decays(start)[1], decays(network)[1], strict=True):
            assert torch.equal(before, after)

    def test_label_smoothing_and_dropout_change_what_is_learned(self) -> None:
        plain = drain(config(), classes())[2]
        assert drain(config(regularization__label_smoothing=0.1), classes())[2] != plain
        assert drain(config(regularization__dropout=0.1), classes())[2] != plain


class TestAdamW:
    @pytest.mark.parametrize("decay", [0.0, 0.3])
    def test_it_takes_the_steps_of_torchs_own(self, decay: float) -> None:
        torch.manual_seed(0)
        mine = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(2))]
        theirs = [nn.Parameter(each.detach().clone()) for each in mine]
        one, two = AdamW(mine, decay), torch.optim.AdamW(theirs, lr=0.01, weight_decay=decay, fused=True)
        for step in range(20):
            for a, b in zip(mine, theirs, strict=True):
                used = a is not mine[2] or step % 3 == 0  # one that isn't used in every step
                a.grad = torch.randn_like(a) if used else None
                b.grad = a.grad.clone() if a.grad is not None else None
            rate = 0.01 * (1 + step % 4)
            one.step(rate)
            two.param_groups[0]["lr"] = rate
            two.step()
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def test_training_loads_no_compiler(self) -> None:
        code = FRESH.format(folder=str(Path(__file__).parent)) + "assert 'torch._dynamo' not in sys.modules\n"
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        code = code.replace("drain(config(**EVERYTHING)", "drain(config(**EVERYTHING, training__precision='bfloat16')")
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


class TestAverage:
    def test_it_is_the_bias_corrected_exponential_average_of_the_weights_after_each_step(self) -> None:
        model, per_epoch = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), 4
        average, decay, history = Average(model, per_epoch), 1 - 1 / 8, []
        for step in range(1, 12):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_()
                model[1].num_batches_tracked += 1
            history.append({name: value.detach().clone().double() for name, value in model.state_dict().items()})
            average.update()
            weights = [decay ** (step - i) * (1 - decay) / (1 - decay**step) for i in range(1, step + 1)]
            assert sum(weights) == pytest.approx(1)
            for name, value in average.network.state_dict().items():
                slow = sum(weight * past[name] for weight, past in zip(weights, history, strict=True))
                if name.endswith("num_batches_tracked"):
                    assert value == step
                else:
                    assert torch.allclose(value.double(), slow, atol=1e-5)

    def test_what_is_measured_is_the_average_if_there_is_one(self) -> None:
        (average, _, one), (newest, _, two) = (drain(config(training__ema=ema), classes()) for ema in (True, False))
        assert one != two
        assert average[-1].val.loss != newest[-1].val.loss

    def test_its_small_weights_become_zero_as_those_of_the_network_do(self) -> None:
        model = nn.Linear(2, 1)
        average = Average(model, 1)
        with torch.no_grad():
            average.network.weight.copy_(torch.tensor([[0.1, -0.3]]))
        average.threshold(0.2)
        assert average.network.weight.tolist() == [[0.0, pytest.approx(-0.3)]]
        assert (average.network.bias != 0).all()


class TestSchedule:
    def test_the_rate_rises_linearly_over_the_warm_up_and_then_stays(self) -> None:
        rate = _schedule(config(training__epochs=10, training__warmup=0.1, training__learning_rate=0.5), per_epoch=10)
        assert [rate(step) for step in (1, 5, 9)] == pytest.approx([0.05, 0.25, 0.45])
        assert [rate(step) for step in (10, 11, 50, 100)] == [0.5] * 4

    def test_a_cosine_falls_from_the_peak_to_zero_at_the_cap(self) -> None:
        settings = config(
            training__epochs=10, training__warmup=0.2, training__learning_rate=0.5, training__schedule="cosine"
        )
        rate = _schedule(settings, per_epoch=10)
        assert [rate(10), rate(20)] == pytest.approx([0.25, 0.5])
        assert rate(40) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 20 / 80)))
        assert [rate(60), rate(100)] == pytest.approx([0.25, 0.0])

    def test_without_warm_up_the_first_step_has_the_whole_rate(self) -> None:
        assert _schedule(config(training__warmup=0.0), per_epoch=1)(1) == 0.01

    @pytest.mark.parametrize(
        ("examples", "size"),
        [(10, 10), (100, 16), (320, 16), (452, 16), (453, 32), (640, 32), (1280, 64), (2560, 128), (10**6, 128)],
    )
    def test_an_automatic_batch_is_the_power_of_two_nearest_to_a_twentieth_of_the_rows(
        self, examples: int, size: int
    ) -> None:
        assert batch_size(config(training__batch_size="auto"), examples) == size

    def test_a_batch_is_never_larger_than_the_data(self) -> None:
        assert batch_size(config(training__batch_size=64), 10) == 10

    @given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 600))
    def test_every_row_is_seen_once_an_epoch_but_a_last_one_alone(self, n: int, size: int, at_once: int) -> None:
        splits = classes(n_train=n)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tuner.feeding.AT_ONCE", at_once)
            batches = Batches(config(training__batch_size=size), splits, Draws.of(0))
        found = list(batches.epoch())
        assert len(found) == batches.per_epoch >= 1
        assert {len(rows) for _, rows in found[:-1]} <= {min(size, n)}
        rows = torch.cat([rows for _, rows in found])
        assert len(set(rows.tolist())) == len(rows) == (n - 1 if n % size == 1 and size > 1 and n > 1 else n)
        assert torch.equal(torch.cat([x for x, _ in found]), torch.from_numpy(splits.train.x)[rows])

    def test_each_epoch_has_another_order(self) -> None:
        batches = Batches(config(), classes(), Draws.of(0))
        one, two = (torch.cat([rows for _, rows in batches.epoch()]).tolist() for _ in range(2))
        assert one != two
        assert sorted(one) == sorted(two)

    @pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
    def test_a_last_batch_of_one_row_is_left_out(self, normalization: str) -> None:
        epochs, _, _ = drain(config(model__normalization=normalization), classes(n_train=33))
        assert all(math.isfinite(epoch.train.loss) for epoch in epochs)

    def test_batches_of_one_row_are_trained_on_if_they_are_asked_for(self) -> None:
        epochs, _, _ = drain(config(training__batch_size=1, training__epochs=10), classes())
        assert epochs[-1].train.loss < 0.5 * epochs[0].train.loss


class TestProbe:
    @given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 50), st.integers(1, 5))
    def test_it_has_as_many_rows_as_validation_and_every_class_its_share(
        self, n_train: int, n_val: int, seed: int, k: int
    ) -> None:
        rng = np.random.default_rng(seed)
        y = rng.integers(0, k, n_train)
        splits = replace(classes(n_train, n_val), train=part(np.arange(n_train, dtype=np.float32)[:, None], y))
        probe = training_probe(splits, seed)
        m = min(n_train, n_val)
        assert len(probe) == len(set(probe.tolist())) == m
        share = np.bincount(y, minlength=k) * m / n_train
        assert (abs(np.bincount(y[probe], minlength=k) - share) < 1 + 1e-9).all()

    def test_it_is_one_for_all_trials_of_a_study_and_another_for_another_seed(self) -> None:
        splits = classes(200, 40)
        rows = [training_probe(splits, seed).tolist() for seed in (0, 0, 1)]
        assert rows[0] == rows[1] != rows[2]

    def test_every_row_has_the_same_chance_to_be_in_it(self) -> None:
        splits = classes(50, 10)
        counts = np.zeros(50)
        for seed in range(2000):
            counts[training_probe(splits, seed)] += 1
        assert abs(counts / 2000 - 0.2).max() < 0.05  # 5.6 standard errors

    def test_the_train_series_is_measured_on_it_and_in_the_studys_seed_alone(self) -> None:
        splits = classes(200, 40)
        epoch, network, *_ = next(iter(train(config(seed=7), splits, 123)))
        assert measure(network, splits.train, splits, config(), training_probe(splits))[0] == epoch.train


class TestMeasure:
    def test_dropout_and_augmentation_do_not_act_when_the_training_rows_are_measured(self) -> None:
        settings, splits = config(regularization__dropout=0.9, augmentation__strength=1.0), classes()
        network = build_model(settings, splits.shape)
        network.train()
        one, two = (measure(network, splits.train, splits, settings) for _ in range(2))
        assert one[0] == two[0]
        assert (one[1] == two[1]).all()
        assert network.training

    def test_measuring_draws_nothing(self) -> None:
        splits, state = classes(), torch.get_rng_state()
        measure(build_and_seed(splits, state), splits.val, splits, config(regularization__dropout=0.9))
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_numbers_of_an_epoch_are_those_of_its_examples(self) -> None:
        splits = classes()
        epoch, network, *_ = next(iter(train(config(), splits, 0)))
        probe = training_probe(splits, 0)
        (val, val_losses, _), (on_train, train_losses, _) = (
            measure(network, *each)
            for each in ((splits.val, splits, config()), (splits.train, splits, config(), probe))
        )
        assert (epoch.val, epoch.train) == (val, on_train)
        squares = [np.var(losses, ddof=1) / len(losses) for losses in (val_losses, train_losses)]
        assert val.loss == pytest.approx(val_losses.mean(), rel=1e-6)
        assert epoch.se_val == pytest.approx(math.sqrt(squares[0]), rel=1e-6)
        assert epoch.se_gap == pytest.approx(math.sqrt(sum(squares)), rel=1e-6)

    def test_the_rise_is_paired_over_the_examples_since_the_best_epoch(self) -> None:
        splits = classes(n_train=12, noise=2.0)
        best, seen = np.zeros(len(splits.val)), 0
        for epoch, network, *_ in train(config(training__epochs=25, training__learning_rate=0.3), splits, 0):
            losses = measure(network, splits.val, splits, config())[1]
            if epoch.standing.best == epoch.number:
                best = losses
                assert (epoch.rise, epoch.rise_se) == (0.0, 0.0)
            else:
                seen += 1
                assert epoch.rise == pytest.approx((losses - best).mean(), rel=1e-6)
                assert epoch.rise_se == pytest.approx((losses - best).std(ddof=1) / math.sqrt(len(best)), rel=1e-6)
        assert seen > 5

    @pytest.mark.parametrize("channels", [1, 3])
    def test_pictures_are_laid_out_so_that_convolutions_keep_it(self, channels: int) -> None:
        x = torch.randint(0, 256, (4, channels, 6, 5), dtype=torch.uint8)
        prepare = input_of(Standard(1 / 255, (0.5,) * channels, (0.25,) * channels))
        found, layer = prepare(x), nn.Conv2d(channels, 8, 3)
        assert torch.allclose(found, (x / 255 - 0.5) / 0.25, atol=1e-6)
        assert layer(found).stride(1) == layer(found[2:]).stride(1) == 1

    def test_predictions_do_not_depend_on_how_they_are_cut_into_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = classes()
        network = build_model(config(), splits.shape)
        whole = predict(network, splits.train.x, Standard(), "classification")
        monkeypatch.setattr("tuner.measuring.EVAL_ELEMENTS", 28)
        cut = predict(network, splits.train.x, Standard(), "classification")
        assert np.allclose(whole, cut, atol=1e-6)
        assert np.allclose(np.exp(whole).sum(1), 1, atol=1e-5)

    def test_some_rows_are_measured_as_if_they_were_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        splits, rows = classes(), np.array([3, 4, 9, 30])
        network = build_model(config(), splits.shape)
        alone = Part(splits.train.x[rows], splits.train.y[rows], splits.train.rows[rows])
        monkeypatch.setattr("tuner.measuring.EVAL_ELEMENTS", 8)
        (one, *ones), (two, *twos) = (
            measure(network, part, splits, config(), some) for part, some in ((alone, None), (splits.train, rows))
        )
        assert one == two
        assert all(np.array_equal(a, b) for a, b in zip(ones, twos, strict=True))

    def test_the_area_under_the_roc_curve_is_measured_each_epoch_only_if_it_is_the_score(self) -> None:
        for metric, there in ((None, False), ("roc_auc", True)):
            epoch, *_ = next(iter(train(config(score__metric=metric), classes(), 0)))
            assert ("roc_auc" in epoch.val.metrics) == ("roc_auc" in epoch.train.metrics) == there

    def test_images_are_brought_to_the_scale_that_the_model_takes(self) -> None:
        x = np.full((2, 3, 4, 4), 255, np.uint8)
        standard = Standard(1 / 255, (0.5, 0.0, 1.0), (0.5, 2.0, 1.0))
        assert standardized(x, standard)[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.0])
        assert standardized(x, standard).shape == x.shape


def build_and_seed(splits: Splits, state: torch.Tensor) -> nn.Module:
    network = build_model(config(regularization__dropout=0.9), splits.shape)
    torch.set_rng_state(state)
    return network


class TestLearning:
    def test_an_easy_classification_is_learned(self) -> None:
        epochs, _, _ = drain(config(training__epochs=15, training__learning_rate=0.03), classes(noise=0.2))
        assert epochs[-1].val.metrics["accuracy"] > 0.95
        assert epochs[-1].val.loss < 0.3 * epochs[0].val.loss

    def test_an_easy_regression_is_learned_and_told_in_the_users_unit(self) -> None:
        epochs, _, _ = drain(config(training__epochs=30, training__learning_rate=0.03, model__width=16), numbers())
        last = epochs[-1].val
        assert last.metrics["r2"] > 0.9
        assert last.metrics["mse"] == pytest.approx(100 * last.loss, rel=1e-4)

    @pytest.mark.parametrize("family", ["mlp", "cnn"])
    def test_images_are_learned_from(self, family: str) -> None:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 40)
        x = (rng.random((40, 1, 8, 8)) * 100 + 155 * y[:, None, None, None]).astype(np.uint8)
        shape = Shape("image", "classification", (1, 8, 8), 2)
        standard = Standard(1 / 255, (0.5,), (0.3,))
        splits = Splits(part(x, y), part(x[:10], y[:10]), None, Fitted(shape, standard), "", "")
        epochs, _, _ = drain(config(model__family=family, training__epochs=8, augmentation__strength=0.2), splits)
        assert epochs[-1].val.metrics["accuracy"] == 1.0


class TestWeights:
    @pytest.fixture
    def network(self) -> nn.Module:
        return build_model(config(model__normalization="batch"), classes().shape)

    def test_what_was_written_is_read_back_byte_for_byte(self, network: nn.Module, tmp_path: Path) -> None:
        path, other = (
            tmp_path / "deep" / "w.safetensors",
            build_model(config(model__normalization="batch"), classes().shape),
        )
        write_weights(network, path)
        assert digest(other) != digest(network)
        read_weights(other, path)
        assert digest(other) == digest(network)
        assert [entry.name for entry in path.parent.iterdir()] == ["w.safetensors"]

    def test_a_missing_file_is_told(self, network: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the weights are missing"):
            read_weights(network, tmp_path / "w.safetensors")

    @pytest.mark.parametrize("cut", [0, 4, 20, -1])
    def test_a_truncated_file_is_told(self, network: nn.Module, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "w.safetensors"
        write_weights(network, path)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(DataError, match="is no readable safetensors file"):
            read_weights(network, path)

    def test_a_file_of_something_else_is_told(self, network: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        torch.save({"a": 1}, path)
        with pytest.raises(DataError, match="is no readable safetensors file"):
            read_weights(network, path)
        with pytest.raises(DataError):
            read_weights(network, tmp_path)

    def test_weights_of_another_model_are_told_in_one_line(self, network: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        write_weights(build_model(config(model__width=9), classes().shape), path)
        with pytest.raises(DataError, match=r"^[^\n]*doesn't fit the model[^\n]*$"):
            read_weights(network, path)


def unbalanced() -> Splits:
    """Two overlapping classes, the second with a tenth of the rows."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> Part:
        y = (np.arange(n) % 10 == 0).astype(np.int64)
        return part((rng.normal(size=(n, 4)) + y[:, None]).astype(np.float32), y)

    return Splits(draw(400), draw(200), None, Fitted(Shape("table", "classification", (4,), 2)), "", "")


def test_class_weights_make_a_rare_class_count_as_much_as_a_frequent_one():
    data = unbalanced()
    recalls = {}
    for weighted in (False, True):
        *_, (epoch, *_) = train(config(training__class_weights=weighted, training__epochs=8), data, 0)
        recalls[weighted] = epoch.val.metrics["balanced_accuracy"]
    assert recalls[True] > recalls[False] + 0.1


def test_class_weights_change_nothing_where_classes_are_balanced():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    rows = part((np.eye(4)[y] + rng.normal(size=(60, 4))).astype(np.float32), y)
    data = Splits(rows, rows, None, Fitted(Shape("table", "classification", (4,), 3)), "", "")
    ends = [digest([*train(config(training__class_weights=flag), data, 0)][-1][1]) for flag in (False, True)]
    assert ends[0] == ends[1]


def test_mixup_of_zero_is_the_same_run_and_of_more_another_that_still_learns():
    plain, zero, mixed = (
        [*train(config(training__epochs=10, **more), classes(200, 80), 0)]
        for more in ({}, {"augmentation__mixup": 0.0}, {"augmentation__mixup": 0.4})
    )
    assert digest(plain[-1][1]) == digest(zero[-1][1])
    assert digest(plain[-1][1]) != digest(mixed[-1][1])
    assert mixed[-1][0].val.loss < mixed[0][0].val.loss
    assert mixed[-1][0].val.metrics["accuracy"] > 0.8


def test_bfloat16_learns_as_float32_does_and_leaves_float32_weights():
    exact, rough = (
        [*train(config(training__epochs=10, training__precision=precision), classes(200, 80), 0)]
        for precision in ("float32", "bfloat16")
    )
    assert digest(exact[-1][1]) != digest(rough[-1][1])
    assert {parameter.dtype for parameter in rough[-1][1].parameters()} == {torch.float32}
    assert rough[-1][0].val.loss == pytest.approx(exact[-1][0].val.loss, rel=0.1)


def test_mixup_of_numbers_mixes_their_targets():
    *_, (epoch, *_) = train(config(augmentation__mixup=0.5, training__epochs=20), numbers(300, 60), 0)
    assert epoch.val.metrics["r2"] > 0.7


class FirstToken(nn.Module):
    """Says of a text which token it starts with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.int64
        return nn.functional.one_hot(x[:, 0], 5).float() * 10


def test_texts_are_evaluated_by_length_and_answered_in_their_own_order():
    rng = np.random.default_rng(0)
    x = rng.integers(1, 5, (200, 7)).astype(np.int32)
    for row, length in zip(x, rng.integers(1, 8, 200), strict=True):
        row[length:] = 0
    assert np.array_equal(predict(FirstToken(), x, Standard(), "classification").argmax(1), x[:, 0])
    rows = np.array([190, 3, 4, 77])
    assert np.array_equal(predict(FirstToken(), x, Standard(), "classification", rows).argmax(1), x[rows, 0])


EVALUATION = """
from pathlib import Path
import numpy as np, torch
from tuner.data.splits import Standard
from tuner.measuring import predict
from tuner.workers import keep_memory


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


keep_memory()
torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
x = np.zeros((12_000, 3, 32, 32), np.uint8)
x[:] = 1
standard = Standard(1 / 255, (0.5,) * 3, (0.25,) * 3)
predict(network, x[:256], standard, "classification")
before = anonymous()
predict(network, x, standard, "classification", np.arange(12_000))
print((anonymous() - before) / (4 * x.nbytes))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_an_evaluation_takes_the_memory_of_some_batches_however_many_examples_there_are() -> None:
    done = subprocess.run([sys.executable, "-c", EVALUATION], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.25, "of what all examples take as numbers"
