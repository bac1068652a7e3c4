"""Data as torch has them, from the user's own code: a Dataset, tensors, or parts of these, are read as arrays are."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.config import Data
from tuner.data import load
from tuner.data.splits import Splits
from tuner.errors import DataError, UserCodeError

CODE = """
import numpy as np
import torch
from types import SimpleNamespace
from torch.utils.data import Dataset, IterableDataset, TensorDataset, Subset

x = torch.arange(120.0).reshape(40, 3)
y = torch.arange(40) % 2
words = [f"word{i % 5} and word{i % 3}" for i in range(40)]

class Pairs(Dataset):
    def __init__(self, examples, targets): self.examples, self.targets = examples, targets
    def __len__(self): return len(self.examples)
    def __getitem__(self, i): return self.examples[i], self.targets[i]

class Failing(Pairs):
    def __getitem__(self, i): raise KeyError(i)

class Triples(Pairs):
    def __getitem__(self, i): return 1, 2, 3

class Endless(IterableDataset):
    def __iter__(self): yield from ()

def arrays(): return x.numpy(), y.numpy()
def tensors(): return x.clone().requires_grad_(), y
def mapping(): return {"X": x, "y": y, "split": ["train", "train", "val", "test"] * 10}
def dataset(): return TensorDataset(x, y)
def pairs(): return Pairs(x, y)
def numbers(): return Pairs(x.numpy(), [float(i) for i in range(40)])
def pictures(): return Pairs((x.repeat(1, 64).reshape(40, 3, 8, 8) / 120), y)
def texts(): return Pairs(words, y.tolist())
def ragged(): return Pairs([torch.rand(3 + i % 4, 2) for i in range(40)], y)

def parts(): return {"train": TensorDataset(x[:24], y[:24]), "val": (x[24:32], y[24:32]), "test": Pairs(x[32:], y[32:])}
def told(): return {"train": {"X": x[:30], "y": y[:30]}, "validation": {"X": x[30:], "y": y[30:]}}
def attributes():
    part = lambda rows: SimpleNamespace(x=x[rows].numpy(), y=y[rows].numpy())
    return SimpleNamespace(train=part(slice(24)), val=part(slice(24, 32)), test=part(slice(32, 40)))
def of_texts(): return {"train": Pairs(words[:30], y[:30].tolist()), "val": Pairs(words[30:], y[30:].tolist())}

def failing(): return Failing(x, y)
def triples(): return Triples(x, y)
def endless(): return Endless()
def empty(): return Pairs([], [])
def unlike(): return {"train": (x[:30], y[:30]), "val": (x[30:, :2], y[30:])}
def single(): return {"train": (x, y)}
def odd(): return {"train": 3, "val": (x, y)}
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Splits]:
    module = f"torch_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(CODE))

    def load_own(attr: str, **data: Any) -> Splits:
        return load(Data(source=f"{module}:{attr}", **data), tmp_path)

    return load_own


@pytest.mark.parametrize("attr", ["tensors", "dataset", "pairs"])
def test_what_torch_has_is_read_as_arrays_are(own: Callable[..., Splits], attr: str) -> None:
    assert own(attr).fingerprint == own("arrays").fingerprint


def test_an_example_may_be_of_any_kind(own: Callable[..., Splits]) -> None:
    assert own("numbers").shape.task == "regression"
    assert (own("pictures").shape.kind, own("pictures").shape.input) == ("image", (3, 8, 8))
    assert own("texts").shape.kind == "text"
    assert (own("ragged").shape.kind, own("ragged").shape.masked) == ("sequence", True)
    assert own("mapping").val.rows.tolist() == list(range(2, 40, 4))


@pytest.mark.parametrize("attr", ["parts", "attributes"])
def test_parts_stay_the_parts_that_they_are(own: Callable[..., Splits], attr: str) -> None:
    splits = own(attr)
    assert splits.test is not None
    found = [part.rows.tolist() for part in (splits.train, splits.val, splits.test)]
    assert found == [list(range(24)), list(range(24, 32)), list(range(32, 40))]
    assert splits.fingerprint == own("parts").fingerprint


def test_parts_may_be_two_and_texts(own: Callable[..., Splits]) -> None:
    assert (len(own("told").val), len(own("of_texts").val)) == (10, 10)
    assert own("of_texts").shape.kind == "text"


@pytest.mark.parametrize(
    ("attr", "message"),
    [
        ("triples", "its item 0 is a tuple; a pair (example, target) is needed"),
        ("endless", "is a Endless that can't be indexed; a Dataset with a length is needed"),
        ("empty", "has no items"),
        ("unlike", "its parts don't go together"),
        ("single", "returned a dict with train; X, y, split, classes, lengths are allowed"),
        ("odd", ": train: is a int; a torch Dataset, (X, y), or a dict with X and y is allowed"),
    ],
)
def test_what_cannot_be_read_is_refused(own: Callable[..., Splits], attr: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        own(attr)
    assert message in str(caught.value)


def test_an_item_that_fails_names_file_and_line(own: Callable[..., Splits]) -> None:
    with pytest.raises(UserCodeError, match=r"data.source .*:failing: KeyError: 0 \(.*\.py:\d+\)"):
        own("failing")


def test_a_tensor_of_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    import torch

    from tuner.data.torch_sets import plain

    np.testing.assert_array_equal(plain(torch.ones(2, dtype=torch.bfloat16)), np.ones(2, np.float32))
