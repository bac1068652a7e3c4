"""What a run remembers from one epoch to the next: weights, the optimizer's means, the average, the numbers of chance.

Decides what belongs to the state that a run is resumed from. A model of the user's own may remember more, in plain
attributes: those are not kept. Knows nothing of files, nor of what an epoch is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.checkpoint import State
from tuner.curve import Epoch
from tuner.devices import CPU, Draws
from tuner.optimizers import Optimizer
from tuner.updating import Average, Step


class Chance:
    """A run's own states of the global generators (torch's, NumPy's, Python's), lent to it while it works.

    So a run neither disturbs its caller's random numbers nor is disturbed by them, nor by another run. What comes with
    tuner draws from torch's alone; a model of the user's own may draw from any.
    """

    def __init__(self, seed: int, device: torch.device = CPU) -> None:
        self.device = device
        self.gpu = None if device == CPU else torch.Generator(device).manual_seed(seed).get_state()
        self.torch = torch.Generator().manual_seed(seed).get_state()
        self.numpy: Any = np.random.RandomState(seed % 2**32).get_state()
        self.python: Any = random.Random(seed).getstate()

    @contextmanager
    def lent(self) -> Iterator[None]:
        numpy, python = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices=[] if self.gpu is None else [self.device]):
            torch.set_rng_state(self.torch)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu, self.device)
            np.random.set_state(self.numpy)
            random.setstate(self.python)
            try:
                yield
            finally:
                self.torch, self.numpy, self.python = torch.get_rng_state(), np.random.get_state(), random.getstate()
                if self.gpu is not None:
                    self.gpu = torch.cuda.get_rng_state(self.device)
                np.random.set_state(numpy)
                random.setstate(python)

    def facts(self) -> list[Any]:
        """Return NumPy's and Python's states as plain JSON."""
        kind, keys, *rest = self.numpy
        return [[kind, keys.tolist(), *map(_plain, rest)], [self.python[0], list(self.python[1]), self.python[2]]]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """torch's states: of the processor and, where one is used, of a GPU."""
        return {"chance": self.torch.clone()} | ({} if self.gpu is None else {"chance.gpu": self.gpu.clone()})

    def put_back(self, tensors: Mapping[str, Tensor], facts: Sequence[Any]) -> None:
        """Take the states that `facts` told and `tensors` were.

        Raises:
            KeyError: they are of another device.
        """
        (kind, keys, *rest), (version, words_of_python, normal) = facts
        self.torch, self.gpu = tensors["chance"], None if self.gpu is None else tensors["chance.gpu"]
        self.numpy = (kind, np.array(keys, dtype=np.uint32), *rest)
        self.python = (version, tuple(words_of_python), normal)


def _plain(value: Any) -> float | int:
    plain: float | int = value.item() if isinstance(value, np.generic) else value
    return plain


class Memory:
    """All that the next epoch of a run depends on, besides its configuration and data."""

    def __init__(self, model: nn.Module, step: Step, average: Average | None, draws: Draws, chance: Chance) -> None:
        self.model, self.step, self.average = model, step, average
        self.generators = {"order": draws.order} | ({} if draws.device == CPU else {"changes": draws.changes})
        self.chance = chance

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors as they are now: a model may put another one in a buffer's place."""
        found = {f"model.{name}": value for name, value in _own(self.model)}
        for i, optimizer in enumerate(self.step.way.optimizers):
            found |= {f"optimizer.{i}.{j}": value for j, value in enumerate(optimizer.remembered)}
        if self.average is not None:
            found |= {f"average.{name}": value for name, value in _own(self.average.network)}
        return found

    def state(self, budget: int, epochs: Sequence[Epoch], more: Mapping[str, NDArray[np.float64]]) -> State:
        """Return the state after the newest of some epochs, with some numbers more."""
        tensors = {name: value.detach().clone().contiguous() for name, value in self.tensors.items()}
        tensors |= {name: each.get_state() for name, each in self.generators.items()} | self.chance.tensors
        tensors |= {f"more.{name}": torch.from_numpy(value).clone() for name, value in more.items()}
        power = self.average.power if self.average is not None else 1.0
        facts = {"shapes": self._shapes(), "chance": self.chance.facts(), "count": self.step.count,
                 "shrink": self.step.shrink, "power": power}  # fmt: skip
        for i, optimizer in enumerate(self.step.way.optimizers):
            tensors |= {} if (saved := optimizer.saved()) is None else {f"optimizer.{i}.saved": saved}
        return State(budget, tuple(epochs), tensors, facts)

    @torch.no_grad()
    def put_back(self, state: State) -> dict[str, NDArray[np.float64]]:
        """Take what a state holds in place of what is there; return the numbers more.

        Raises:
            KeyError: it is of another model.
        """
        if state.facts["shapes"] != self._shapes():
            raise KeyError("the state is of another model")
        for i, optimizer in enumerate(self.step.way.optimizers):
            if (saved := state.tensors.get(f"optimizer.{i}.saved")) is not None:
                _put_back(optimizer, saved)
        for name, value in self.tensors.items():
            value.copy_(state.tensors[name])
        for name, each in self.generators.items():
            each.set_state(state.tensors[name])
        self.chance.put_back(state.tensors, state.facts["chance"])
        self.step.count, self.step.shrink = state.facts["count"], state.facts["shrink"]
        if self.average is not None:
            self.average.power = state.facts["power"]
        more = {name: value for name, value in state.tensors.items() if name.startswith("more.")}
        return {name.removeprefix("more."): value.numpy() for name, value in more.items()}

    def _shapes(self) -> dict[str, list[int]]:
        return {name: list(value.shape) for name, value in self.tensors.items()}


def _put_back(optimizer: Optimizer, saved: Tensor) -> None:
    """Have an optimizer take what it had saved.

    Raises:
        KeyError: it can't: one of the user's own may keep what can't be read again.
    """
    try:
        optimizer.put_back(saved)
    except Exception as error:
        raise KeyError(f"the optimizer can't be put back: {error}") from error


def _own(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's parameters and buffers, also the buffers that aren't saved with its weights."""
    yield from model.named_parameters()
    yield from model.named_buffers()
