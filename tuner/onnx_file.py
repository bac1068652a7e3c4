"""A trained network -> an ONNX file, for whatever runs such: other languages, browsers, phones.

Decides what is in the file besides the network: what stands before it, from stored examples to its input, and what
comes after it, probabilities or numbers in the target's unit. Needs the packages onnx and onnxscript. Knows no study.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.data.splits import Encoder, Standard, Target
from tuner.errors import UsageError

NEEDED = "`pip install 'overfit-tuner[onnx]'` installs them"
EXAMPLES, PREDICTION, PROBABILITIES = "examples", "prediction", "probabilities"


class Served(nn.Module):
    """A network from stored examples (n, *input) to probabilities (n, classes), or to numbers (n,) for a regression."""

    def __init__(self, network: nn.Module, standard: Standard, target: Target | None) -> None:
        super().__init__()
        self.network, self.target, self.unit = network, target, standard.unit
        self.plain = standard == Standard()
        for name, values in (("center", standard.center), ("scale", standard.scale)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))
        # a target may lie far from 0: in float32 what tells its values apart would be lost
        tail = (target.scale, target.center) if target is not None else (1.0, 0.0)
        self.register_buffer("tail", torch.tensor(tail, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.long() if x.dtype == torch.int32 else x.float()
        if not self.plain:
            x = (x * self.unit - self.get_buffer("center")) / self.get_buffer("scale")
        outputs: Tensor = self.network(x).float()
        if self.target is None:
            return torch.softmax(outputs, 1)
        scale, center = self.get_buffer("tail")
        numbers: Tensor = outputs[:, 0].double() * scale + center
        return numbers.exp() if self.target.log else numbers


def check_installed() -> None:
    """Make sure that what writes ONNX files is there.

    Raises:
        UsageError: it isn't, or can't be imported.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  torch needs it
    except ImportError as error:
        raise UsageError(f"--onnx: needs the packages onnx and onnxscript ({error}); {NEEDED}") from None


def write_onnx(network: nn.Module, encoder: Encoder, stored: NDArray[Any], path: Path, about: dict[str, str]) -> None:
    """Write a network that takes any number of examples like those `stored`; `about` stands in the file, too.

    Raises:
        UsageError: what is needed isn't installed, or the network can't be written so.
    """
    check_installed()
    import onnx

    target = encoder.target if encoder.shape.task == "regression" else None
    served, said = Served(network, encoder.standard, target).eval(), PREDICTION if target else PROBABILITIES
    sizes = {"x": {0: torch.export.Dim("n", min=1)}}
    try:
        with _quiet():
            program = torch.onnx.export(
                served, (torch.from_numpy(stored),), dynamo=True, dynamic_shapes=sizes, input_names=[EXAMPLES],
                output_names=[said], external_data=False,
            )  # fmt: skip
            assert program is not None, "it was no file that was asked for"
            model = program.model_proto  # made anew each time that it is asked for
            onnx.helper.set_model_props(model, about)
            onnx.save(model, path)
    except Exception as error:
        raise UsageError(f"--onnx: torch can't write this network as ONNX ({_first_line(error)})") from error


def run_onnx(path: Path, stored: NDArray[Any]) -> NDArray[np.floating]:
    """Return what a file makes of stored examples, by onnxruntime or, where it isn't installed, by onnx itself."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        reference: Any = ReferenceEvaluator(str(path))
        return np.asarray(reference.run(None, {EXAMPLES: stored})[0])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {EXAMPLES: stored})[0])


def _first_line(error: BaseException) -> str:
    """Return what torch says first, of the error that it wraps others around."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0][:200]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling of its steps, on stdout and in warnings, while it writes."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
