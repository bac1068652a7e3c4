"""Code of the user's own in the place of a part: an optimizer, an augmentation, a metric. What it makes is what is
trained, measured and chosen by, and what is wrong with it is told in one line with file and line, before anything is
written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import SMALL, call, write
from hypothesis import given
from hypothesis import strategies as st

from tuner.augment.custom import custom
from tuner.best import load_best
from tuner.config import Metric, RunConfig, own_code
from tuner.curve import Curve
from tuner.errors import SpaceError, UserCodeError
from tuner.grammar import Override, parse_space
from tuner.optimizers import OwnOptimizer, optimizers
from tuner.own_metric import OwnMetric
from tuner.planning import prepare
from tuner.scoring import score
from tuner.space import own_names
from tuner.tuning import tune

CODE = """\
import numpy as np
import torch

def sgd(groups, config): return torch.optim.SGD(groups, momentum=0.9)
def nothing(groups, config): pass
def bad(groups, config): raise ValueError("no such thing")
def lbfgs(groups, config): return torch.optim.LBFGS(groups[0]["params"])
class Broken(torch.optim.SGD):
    def step(self, closure=None): raise RuntimeError("it broke")
number = 3

def same(batch, strength, generator): return batch
def wider(batch, strength, generator): return torch.cat([batch, batch], 1)
def double(batch, strength, generator): return batch.double()
def array(batch, strength, generator): return batch.numpy()
def few(batch): return batch
def noisy(batch, strength, generator): return batch + strength * torch.randn(batch.shape, generator=generator)

def brier(y, predicted): return -((predicted - np.eye(predicted.shape[1])[y]) ** 2).sum(1)
def one_brier(y, predicted): return float(brier(y, predicted).mean())
def never(y, predicted): return "much"
def three(y, predicted): return np.zeros(3)
def undefined(y, predicted): return float("nan")
def raises(y, predicted): return predicted[:, 99]
def accuracy(y, predicted): return 1.0
def error(y, predicted): return -np.abs(y - predicted)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "parts.py", CODE)
    return tmp_path


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test import its own `parts`."""
    import sys

    monkeypatch.delitem(sys.modules, "parts", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def config(**values: Any) -> RunConfig:
    plain = RunConfig.model_validate({"data": {"source": "sklearn:wine"}})
    return plain.replace({name.replace("__", "."): value for name, value in values.items()})


# Names.

KEYS = ("training.optimizer", "augmentation.function", "score.metric", "model.family")


def test_what_runs_in_a_trial_is_known_by_its_keys_also_among_choices() -> None:
    space = parse_space(
        SMALL.replace("training: {", 'training: {optimizer: {choices: [adamw, "my:sgd"]}, ')
        + 'score: {metric: "my:kappa"}\n',
        Path(),
    )
    assert own_names(space) == {"training.optimizer": ["my:sgd"], "score.metric": ["my:kappa"]}
    assert own_code(space.config) == ["my:kappa"]


@pytest.mark.parametrize("key", KEYS[:3])
@pytest.mark.parametrize("word", ["my.sgd", "my:", ":sgd", "my:sgd:1", "my:sgd\n", "my sgd:x", "1a:b"])
def test_what_is_no_name_of_code_is_refused_with_what_is_allowed(key: str, word: str) -> None:
    section, name = key.split(".")
    with pytest.raises(SpaceError, match=re.compile(rf"{key}: must be .*module:attr, not ")):
        parse_space(f"data: {{source: sklearn:wine}}\n{section}: {{{name}: {word!r}}}\n", Path())


@pytest.mark.parametrize("name", [*Metric.__args__, "loss"])  # type: ignore[attr-defined]
def test_a_metric_of_ones_own_may_not_go_by_the_name_of_another(name: str) -> None:
    with pytest.raises(SpaceError, match="has the name of a metric of tuner's; give your function another one"):
        parse_space(f'data: {{source: sklearn:wine}}\nscore: {{metric: "my:{name}"}}\n', Path())


WRONG = [
    ("training.optimizer", "parts:gone", r"AttributeError: the module parts has no gone \(.*parts.py\)"),
    ("training.optimizer", "parts:number", r"TypeError: number is a int, not a function \(groups, config\) .*"),
    ("training.optimizer", "parts:nothing", r"returned a NoneType, not a torch.optim.Optimizer \(.*parts.py:5\)"),
    ("training.optimizer", "parts:bad", r"ValueError: no such thing \(.*parts.py:6\)"),
    ("training.optimizer", "parts:Broken", r"RuntimeError: it broke \(.*parts.py:9\)"),
    ("training.optimizer", "elsewhere:bad", r"no module named 'elsewhere'; looked in .*"),
    ("augmentation.function", "parts:wider", r"made torch.float32 \(.*, 26\) of a batch of .*, 13\); .*"),
    ("augmentation.function", "parts:double", r"made torch.float64 .* it may change neither shape nor type .*"),
    ("augmentation.function", "parts:array", r"returned a ndarray, not a tensor \(.*parts.py:15\)"),
    ("augmentation.function", "parts:few", r"TypeError: it is called with \(batch, strength, generator\) but takes .*"),
    ("score.metric", "parts:never", r"returned a str, not a number \(.*parts.py:21\)"),
    ("score.metric", "parts:three", r"returned an array \(3,\), not one number or one for each of 36 examples .*"),
    ("score.metric", "parts:undefined", r"is nan of random predictions of the validation rows, not a finite number .*"),
    ("score.metric", "parts:raises", r"IndexError: .* \(.*parts.py:24\)"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "name", "said"), WRONG)
def test_what_is_wrong_with_code_is_found_before_anything_is_trained(
    folder: Path, key: str, name: str, said: str
) -> None:
    with pytest.raises(UserCodeError) as found:
        prepare(parse_space(SMALL, folder, overrides=[Override(key, name, "-S")]))
    assert re.search(f"^{key} {name}: {said}$", str(found.value)), str(found.value)


@pytest.mark.parametrize(("key", "name", "said"), WRONG[:1])
def test_what_is_wrong_with_code_is_told_in_one_line_before_anything_is_written(
    folder: Path, key: str, name: str, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder / "small.yaml")
    found = call(capsys, "run", "small.yaml", "-S", f"{key}={name}")
    assert (found.code, found.out, len(found.err.splitlines())) == (5, "", 1), found.err
    assert re.search(f"{key} {name}: {said}$", found.err.strip()), found.err
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("name", ["parts:lbfgs"])
def test_an_optimizer_that_wants_more_than_gradients_is_told_as_what_it_is(folder: Path, name: str) -> None:
    with pytest.raises(UserCodeError, match=r"training.optimizer parts:lbfgs: TypeError: .*closure"):
        prepare(parse_space(SMALL.replace("training: {", f'training: {{optimizer: "{name}", '), folder))


# The optimizer.


def parameters() -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    torch.manual_seed(0)
    weight, bias = torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(3))
    weight.grad, bias.grad = torch.randn(3, 2), torch.randn(3)
    return weight, bias


def test_an_optimizer_is_told_which_weights_l2_shrinks_and_at_what_rate() -> None:
    weight, bias = parameters()
    slow = torch.nn.Parameter(torch.ones(2))
    told = config(
        training__optimizer="torch.optim:AdamW", regularization__l2=0.3, training__learning_rate=0.01,
        training__backbone_rate=0.5,
    )  # fmt: skip
    (found,) = optimizers(told, [weight], [bias], [slow], None)
    assert isinstance(found, OwnOptimizer)
    seen = [(group["params"], group["lr"], group["weight_decay"]) for group in found.optimizer.param_groups]
    assert seen == [([weight], 0.01, 0.3), ([bias], 0.01, 0.0), ([slow], 0.005, 0.0)]


def test_torchs_own_adamw_named_as_ones_own_does_what_adamw_does() -> None:
    rates = [0.001, 0.01, 0.005]
    found = []
    for name in ("adamw", "torch.optim:AdamW"):
        weight, bias = parameters()
        told = config(training__optimizer=name, regularization__l2=0.1, training__learning_rate=0.01)
        for each in optimizers(told, [weight], [bias], [], None):
            for rate in rates:
                each.step(rate)
        found.append((weight.detach(), bias.detach()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_rate_of_a_step_follows_the_schedule_also_from_a_rate_of_the_optimizers_own(folder: Path) -> None:
    weight, bias = parameters()
    found = optimizers(config(training__optimizer="parts:sgd"), [weight], [bias], [], folder)[0]
    assert isinstance(found, OwnOptimizer)
    found.rates = [0.5, 0.1]
    found.step(0.25 * found.peak)
    assert [group["lr"] for group in found.optimizer.param_groups] == [0.125, 0.025]


# The augmentation.


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_an_augmentation_gets_the_strength_and_its_numbers_of_chance(folder: Path, dtype: torch.dtype) -> None:
    batch = torch.ones(4, 3).to(dtype)
    assert custom("parts:same", 0.5, folder)(batch, torch.Generator()) is not None
    if dtype == torch.float32:
        change = custom("parts:noisy", 0.5, folder)
        one, two = (change(batch, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(one, two)
        torch.testing.assert_close(one - 1, 0.5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))


def test_an_augmentation_of_strength_nothing_is_the_same_run_as_none(folder: Path) -> None:
    text = SMALL.replace("augmentation: {strength: {low: 0.0, high: 0.5}}", "{}")
    weights = []
    for name, more in (("plain", ""), ("own", "augmentation: {function: 'parts:noisy', strength: 0.0}\n")):
        path = write(folder / f"{name}.yaml", text.replace("study: small", f"study: {name}").replace("{}", more))
        study = tune(path, trials=1, studies_dir=folder / "studies")
        weights.append(study.trials[0].weights)
    assert weights[0] == weights[1]


def test_keys_that_an_augmentation_of_ones_own_leaves_idle_are_noted(folder: Path) -> None:
    text = 'data: {source: "sklearn:digits"}\naugmentation: {function: "parts:same", flip: horizontal}\n'
    notes = prepare(parse_space(text, folder)).space.notes
    assert "augmentation.flip: nothing is done with it, as augmentation.function parts:same is in its place" in notes
    assert "augmentation.function: parts:same is never called, as augmentation.strength is 0" in notes


# The metric.


def metric_of(function: Callable[..., Any]) -> OwnMetric:
    return OwnMetric("own", "score.metric my:own", function)


@given(st.integers(0, 10_000), st.integers(20, 400))
def test_the_error_of_a_mean_is_the_same_of_one_number_and_of_one_for_each_example(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.normal(size=n), rng.normal(size=n)
    value, error = metric_of(lambda y, predicted: -np.abs(y - predicted)).with_error(y, predicted)
    other, found = metric_of(lambda y, predicted: float(-np.abs(y - predicted).mean())).with_error(y, predicted)
    assert other == pytest.approx(value)
    # a jackknife of ten groups has nine degrees of freedom: within a factor of three but in one of thousands
    assert error / 3.5 < found < 3.5 * error


def test_a_metric_that_some_groups_leave_undefined_has_the_error_of_the_others() -> None:
    y = np.r_[np.ones(1), np.zeros(99)]
    predicted = np.random.default_rng(0).normal(size=100)

    def needs_a_one(y: Any, predicted: Any) -> float:
        return float(predicted.mean()) if y.any() else math.nan

    value, error = metric_of(needs_a_one).with_error(y, predicted)
    assert value == pytest.approx(predicted.mean())
    assert 0 < error < 0.5


def test_a_metric_that_some_rows_leave_undefined_is_looked_at_on_the_others(folder: Path) -> None:
    write(
        folder / "picky.py",
        "def needs_all(y, p):\n    if len(set(y)) < 3: raise ValueError('a class is missing')\n    return 1.0\n",
    )
    text = SMALL + 'score: {metric: "picky:needs_all"}\n'
    study = tune(write(folder / "small.yaml", text), trials=1, studies_dir=folder / "studies")
    assert study.document["test"]["needs_all"]["value"] == 1.0
    rng = np.random.default_rng(0)

    def needs_one(y: Any, predicted: Any) -> float:
        if not (y == 1).any():
            raise ValueError("none")
        return float(predicted.mean())

    y, predicted = np.r_[1.0, np.zeros(49)], rng.normal(size=50)
    assert metric_of(needs_one).with_error(y, predicted)[1] > 0
    assert math.isnan(metric_of(needs_one).of_some(np.zeros(3), np.zeros(3)))


def test_a_metric_may_not_change_what_others_are_measured_on() -> None:
    def rude(y: Any, predicted: Any) -> float:
        y[:], predicted[:] = 0, 0
        return 1.0

    y, predicted = np.ones(20), np.ones(20)
    assert metric_of(rude).with_error(y, predicted) == (1.0, 0.0)
    assert y.all()
    assert predicted.all()


@pytest.mark.parametrize(
    ("source", "name"), [("sklearn:wine", "brier"), ("sklearn:wine", "one_brier"), ("sklearn:diabetes", "error")]
)
def test_a_study_is_scored_confirmed_and_looked_at_by_a_metric_of_ones_own(
    folder: Path, source: str, name: str
) -> None:
    text = SMALL.replace("sklearn:wine", source).replace("confirm: false", "confirm: true")
    study = tune(
        write(folder / "small.yaml", f'{text}score: {{metric: "parts:{name}"}}\n'), studies_dir=folder / "studies"
    )
    document = study.document
    assert document["metric"] == name
    best = document["best"]
    assert best["score"] <= best["val"][name] <= 0
    assert best["gap"][name] == pytest.approx(best["train"][name] - best["val"][name], rel=1e-4)
    assert document["test"][name]["low"] <= document["test"][name]["value"] <= document["test"][name]["high"]
    kept = study.trials[best["trial"]].curve
    assert kept is not None
    assert kept[best["epoch"]].val.metric_se > 0
    assert Curve.from_json(kept.to_json()) == kept
    assert score(kept, config(score__metric=f"parts:{name}").score, name).noise > 0


# Its model, later.


def test_who_loads_a_model_whose_code_has_changed_since_is_warned(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = "from torch import nn\n\ndef net(config, shape):\n    return nn.Linear(shape.input[0], shape.outputs)\n"
    write(folder / "mynet.py", net)
    text = SMALL.replace("model: {width: {low: 4, high: 12}, depth: {low: 1, high: 2}}", 'model: {family: "mynet:net"}')
    tune(write(folder / "small.yaml", text), trials=1, studies_dir=folder / "studies")
    best = load_best("small", folder / "studies")
    best.load_model()
    assert (best.changed_code, caplog.messages) == ((), [])
    write(folder / "mynet.py", net + "\n\ndef another():\n    pass\n")
    best.load_model()
    assert best.changed_code == ("mynet",)
    assert len(caplog.messages) == 1
    assert "best.yaml: the code of mynet has changed since, so the network may be another one" in caplog.messages[0]
    (folder / "mynet.py").unlink()
    assert best.changed_code == ("mynet",), "nor is it what it was where it is gone"
