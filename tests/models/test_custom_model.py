"""A model factory of the user's own: what it may be, and what is said when it isn't that."""

from __future__ import annotations

import sys
from itertools import count

import pytest
import torch
from safetensors.torch import save_file

from tuner.config import RunConfig
from tuner.data.splits import Shape
from tuner.errors import UserCodeError
from tuner.models import build_model, count_parameters, decays

SHAPE = Shape("table", "classification", (4,), 3)
HEAD = "import torch\nfrom torch import nn\n"
number = count()


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a function that writes a module and builds the model of its factory `make`."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_and_build(code: str, attr: str = "make", **model: object) -> torch.nn.Module:
        name = f"users_own_{next(number)}"
        (tmp_path / f"{name}.py").write_text(HEAD + code)
        family = {"family": f"{name}:{attr}", **model}
        config = RunConfig.model_validate({"data": {"source": "sklearn:iris"}, "model": family})
        return build_model(config, SHAPE, tmp_path)

    return write_and_build


def test_a_factory_gets_the_configuration_and_the_shape(build):
    code = "def make(config, shape): return nn.Linear(shape.input[0], shape.outputs * config.model.options['times'])"
    model = build(code, options={"times": 1})
    assert isinstance(model, torch.nn.Linear)
    assert (model.in_features, model.out_features) == (4, 3)
    assert model.training


def test_a_class_can_be_the_factory(build):
    code = "class Net(nn.Linear):\n def __init__(self, config, shape): super().__init__(4, 3)\n"
    assert type(build(code, "Net")).__name__ == "Net"


def test_a_factory_may_import_its_neighbour(build, tmp_path):
    (tmp_path / "users_neighbour.py").write_text("OUTPUTS = 3\n")
    build("def make(config, shape):\n    from users_neighbour import OUTPUTS\n    return nn.Linear(4, OUTPUTS)")


def test_a_factory_may_start_from_weights_that_lie_beside_it_and_freeze_them(build, tmp_path):
    body = torch.nn.Linear(4, 6)
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    code = """
from pathlib import Path
from safetensors.torch import load_file
def make(config, shape):
    body = nn.Linear(shape.input[0], 6)
    body.load_state_dict(load_file(Path(__file__).with_name(config.model.options["weights"])))
    return nn.Sequential(body.requires_grad_(False), nn.ReLU(), nn.Linear(6, shape.outputs))
"""
    model = build(code, options={"weights": "body.safetensors"})
    assert torch.equal(model[0].weight, body.weight)
    assert count_parameters(model) == 6 * 3 + 3
    shrunk, others = decays(model)
    assert [id(each) for each in (*shrunk, *others)] == [id(each) for each in model[2].parameters()]


def test_a_model_of_texts_is_checked_on_token_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "users_texts.py").write_text(
        HEAD + "class Net(nn.Module):\n"
        "    def __init__(self, config, shape):\n"
        "        super().__init__()\n"
        "        self.words, self.out = nn.Embedding(shape.vocabulary, 4), nn.Linear(4, shape.outputs)\n"
        "    def forward(self, x):\n"
        "        there = (x != 0).unsqueeze(2)\n"
        "        mean = (self.words(x) * there).sum(1) / there.sum(1)\n"
        "        assert mean.isfinite().all()\n"
        "        return self.out(mean)\n"
    )
    config = RunConfig.model_validate({"data": {"source": "my.jsonl"}, "model": {"family": "users_texts:Net"}})
    build_model(config, Shape("text", "classification", (5,), 3, vocabulary=9), tmp_path)


def test_the_check_leaves_the_generator_as_the_factory_left_it(build):
    code = "class N(nn.Linear):\n def forward(s, x): return super().forward(nn.functional.dropout(x))\n"
    torch.manual_seed(0)
    build(code + "def make(config, shape): return N(4, 3)")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.nn.Linear(4, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_users_folder_comes_before_what_is_installed_and_is_added_once(build, tmp_path):
    for _ in range(2):
        build("def make(config, shape): return nn.Linear(4, 3)")
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


WRONG = {
    "no such attribute": ("def male(config, shape): ...", r"AttributeError: .* has no make \(did you mean 'male'\?\)"),
    "not callable": ("make = 3", r"TypeError: make is a int, not a function \(config, shape\)"),
    "too few arguments": (
        "def make(config): ...",
        r"TypeError: it is called with \(config, shape\) but takes \(config\)",
    ),
    "too many": ("def make(config, shape, more): ...", r"missing a required argument: 'more' .*\.py:3\)"),
    "raises": ("def make(config, shape):\n    raise KeyError('width')", r"KeyError: 'width' .*\.py:4\)"),
    "raises at import": ("1 / 0", r"ZeroDivisionError: division by zero .*\.py:3\)"),
    "exits at import": ("raise SystemExit(3)", r"SystemExit: 3 .*\.py:3\)"),
    "a syntax error": ("def make(:", r"SyntaxError: invalid syntax .*\.py:3\)"),
    "imports what is missing": ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' .*:3\)"),
    "no module": ("def make(config, shape): return 3", r"returned a int, not a torch.nn.Module .*\.py:3\)"),
    "wrong width": (
        "def make(config, shape): return nn.Linear(4, 5)",
        r"its model maps \(2, 4\) to \(2, 5\), not to \(2, 3\) .*\.py:3\)",
    ),
    "wrong input": ("def make(config, shape): return nn.Linear(9, 3)", r"RuntimeError: mat1 and mat2 .*\.py:3\)"),
    "forward raises": (
        "class N(nn.Linear):\n def forward(self, x):\n  raise ValueError('a\\nb')\n"
        "def make(config, shape): return N(4, 3)",
        r"ValueError: a b .*\.py:5\)",
    ),
    "a tuple": (
        "class N(nn.Linear):\n def forward(self, x): return x, x\ndef make(config, shape): return N(4, 3)",
        r"its model returns a tuple, not a tensor of floats .*\.py:5\)",
    ),
    "classes": (
        "class N(nn.Linear):\n def forward(self, x): return super().forward(x).argmax(1)\n"
        "def make(config, shape): return N(4, 3)",
        r"its model returns torch.int64 numbers, not a tensor of floats",
    ),
    "nothing to train": (
        "def make(config, shape): return nn.Linear(4, 3).requires_grad_(False)",
        r"its model has no trainable parameter .*\.py:3\)",
    ),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_with_the_factory_the_reason_and_the_place(build, code, message):
    with pytest.raises(UserCodeError, match=message) as caught:
        build(code)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.family users_own_")


def test_a_module_that_is_missing_is_named(build):
    config = RunConfig.model_validate({"data": {"source": "sklearn:iris"}, "model": {"family": "no_such_net:make"}})
    with pytest.raises(UserCodeError, match=r"no_such_net:make: no module named 'no_such_net'$"):
        build_model(config, SHAPE)


def test_ctrl_c_in_the_users_code_is_ctrl_c(build):
    with pytest.raises(KeyboardInterrupt):
        build("def make(config, shape): raise KeyboardInterrupt")
