"""A best configuration -> a folder to take along: its model, as files that need tuner no more.

Decides which files these are, that none is written over unasked, and that each of them is tried first: what it predicts
has to be what the study's model does. Knows no search.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuner import standalone
from tuner.backbones import find_backbone
from tuner.best import MODEL, BestConfig, moved
from tuner.config import FAMILIES, PRETRAINED
from tuner.errors import TunerError, UsageError
from tuner.files import write
from tuner.measuring import predict, standardized

if TYPE_CHECKING:
    from torch import nn

    from tuner.data.splits import Encoder

ONNX = "model.onnx"
ROWS = 6  # made-up examples, on which an exported model is compared
CLOSE = 1e-3  # of the largest number that comes out: other programs add up in another order
ROUGH = 0.03  # of a network whose products are computed in bfloat16 here, where the processor has it, and not in ONNX
TRIED = """
import sys
sys.path[:0] = sys.argv[1].split("\\n")
if sys.argv[2] == "alone":
    sys.modules["tuner"] = None
import numpy, torch
torch.set_num_threads(1)
import tuned_model
x = torch.from_numpy(numpy.load(sys.argv[3]))
with torch.inference_mode():
    outputs = tuned_model.load_model()(x.long() if x.dtype == torch.int32 else x)
numpy.save(sys.argv[4], outputs.float().numpy())
"""


def export(best: BestConfig, folder: Path, onnx: bool = False, force: bool = False) -> tuple[str, ...]:
    """Write best.yaml, best.json, the weights and a Python file that needs no tuner, and, if asked for, an ONNX file.

    Returns a sentence for each that tells what it is.

    Raises:
        UsageError: files of these names are there, or the model can't be exported.
        DataError: the weights are missing or damaged.
        TunerError: an exported model says something else than the study's; then nothing is written.
    """
    weights = _backbone_file(best)
    backbone = f"{standalone.BACKBONE}{weights.suffix}" if weights else ""
    names = [
        MODEL,
        "best.json",
        standalone.NAME,
        *([backbone] if backbone else []),
        *([ONNX] if onnx else []),
        "best.yaml",
    ]
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder}: has {', '.join(there)} already; name another folder, or --force writes over them")
    with tempfile.TemporaryDirectory(prefix="tuner-") as place:
        work = Path(place)
        network, text = best.load_model(), standalone.standalone(best, backbone)
        (work / standalone.NAME).write_text(text, encoding="utf-8")
        (work / "best.json").write_text(json.dumps(best.about, indent=1), encoding="utf-8")
        (work / "best.yaml").write_text(moved(best, folder), encoding="utf-8")
        shutil.copyfile(best.model_path, work / MODEL)
        if weights:
            shutil.copyfile(weights, work / backbone)
        stored = made_up(best.encoder)
        _try_python(best, network, stored, work)
        if onnx:
            _write_onnx(best, network, stored, work / ONNX)
        for name in names:
            write(folder / name, (work / name).read_bytes(), mode=0o666)
    return tuple(f"{folder / name}: {_tell(name, best)}" for name in names)


def made_up(encoder: Encoder) -> NDArray[np.generic]:
    """Return a few examples of random numbers, stored as an encoder does; texts and sequences of several lengths."""
    shape, random = encoder.shape, np.random.default_rng(0)
    size, lengths = (ROWS, *shape.input), random.integers(1, shape.input[0] + 1, ROWS)
    ended = np.arange(shape.input[0]) >= lengths[:, None]
    match shape.kind:
        case "text":
            return np.where(ended, 0, random.integers(1, shape.vocabulary, size)).astype(np.int32)
        case "image":
            return random.integers(0, 256, size).astype(getattr(encoder, "dtype", "float32"))
    x = random.standard_normal(size).astype(np.float32)
    if shape.masked:
        x[:, :, -1] = 1
        x[ended] = 0
    for place, known in enumerate(shape.cardinalities, start=shape.input[-1] - len(shape.cardinalities)):
        x[:, place] = random.integers(0, known, ROWS)
    return x


def _backbone_file(best: BestConfig) -> Path | None:
    if best.config.model.family != PRETRAINED:
        return None
    return find_backbone(best.config.model.backbone, best.encoder.shape.kind, best.folder).weights


def _try_python(best: BestConfig, network: nn.Module, stored: NDArray[np.generic], work: Path) -> None:
    """Use the Python file in a process that has no tuner, and compare."""
    own = best.config.model.family not in FAMILIES
    inputs, outputs = work / "inputs.npy", work / "outputs.npy"
    np.save(inputs, stored if best.encoder.shape.kind == "text" else standardized(stored, best.encoder.standard))
    folders = "\n".join([str(work), *([str(best.folder.resolve())] if own else [])])
    words = [sys.executable, "-c", TRIED, folders, "with tuner" if own else "alone", str(inputs), str(outputs)]
    ended = subprocess.run(words, cwd=work, capture_output=True, text=True, errors="replace")
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["no word"])[-1][:300]
        kind = UsageError if own else TunerError
        raise kind(f"{standalone.NAME}: doesn't run by itself ({said}); nothing is written")
    task = best.encoder.shape.task
    found = np.load(outputs)
    if task == "classification":
        found = _log_softmax(found)
    _compare(standalone.NAME, found, predict(network, stored, best.encoder.standard, task))


def _write_onnx(best: BestConfig, network: nn.Module, stored: NDArray[np.generic], path: Path) -> None:
    """Write the ONNX file, and compare what it says of one example and of several."""
    from tuner.onnx_file import run_onnx, write_onnx

    encoder = best.encoder
    about = {"study": best.study, "trial": str(best.trial), "classes": json.dumps(best.classes)}
    write_onnx(network, encoder, stored, path, about)
    outputs = predict(network, stored, encoder.standard, encoder.shape.task)
    finish: Callable[[NDArray[np.float32]], NDArray[np.floating]] = (
        np.exp if encoder.shape.task == "classification" else lambda some: encoder.target.restore(some[:, 0])
    )
    for some in (slice(0, ROWS), slice(0, 1)):
        close = ROUGH if best.config.model.family == PRETRAINED else CLOSE
        _compare(ONNX, run_onnx(path, stored[some]), finish(outputs[some]), close)


def _log_softmax(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    outputs = outputs - outputs.max(1, keepdims=True)
    return np.asarray(outputs - np.log(np.exp(outputs).sum(1, keepdims=True)))


def _compare(name: str, found: NDArray[np.floating], wanted: NDArray[np.floating], close: float = CLOSE) -> None:
    """Refuse an exported model that says something else.

    Raises:
        TunerError: it does.
    """
    far = np.abs(np.asarray(found, np.float64) - wanted).max() if found.shape == wanted.shape else np.inf
    if not far <= close * max(1.0, np.abs(wanted).max()):
        raise TunerError(
            f"{name}: predicts other numbers than the study's model (up to {far:.3g} apart); nothing is written"
        )


def _tell(name: str, best: BestConfig) -> str:
    """Return what a file is."""
    if name == ONNX:
        said = "the target" if best.encoder.shape.task == "regression" else "probabilities"
        return f"the network for ONNX, from encoded examples to {said}"
    return {
        "best.yaml": "the configuration, to be run again", "best.json": "its figures and its preprocessing",
        MODEL: "the weights", standalone.NAME: "preprocessing, network and predictions; needs no tuner",
    }.get(name, "the weights that the network starts from")  # fmt: skip
