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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuner import standalone
from tuner.backbones import find_backbone
from tuner.best import MODEL, BestConfig, moved
from tuner.config import FAMILIES, PRETRAINED
from tuner.errors import TunerError, UsageError
from tuner.files import write, writing
from tuner.measuring import predict

if TYPE_CHECKING:
    from torch import nn

    from tuner.data.splits import Encoder

ONNX = "model.onnx"
ROWS = 6  # made-up examples, on which an exported model is compared
CLOSE = 1e-3  # of the largest number that comes out: other programs add up in another order
TRIED = """
import sys
sys.path[:0] = sys.argv[1].split("\\n")
if sys.argv[2] == "alone":
    sys.modules["tuner"] = None
import numpy, torch
torch.set_num_threads(1)
import tuned_model
encoder, x = tuned_model.encoder(), numpy.load(sys.argv[3], allow_pickle=False)
run = getattr(tuned_model, sys.argv[5])
numpy.save(sys.argv[4], run(tuned_model.load_model(), x, encoder.standard, encoder.shape.task))
"""


def export(best: BestConfig, folder: Path, onnx: bool = False, force: bool = False) -> tuple[str, ...]:
    """Write best.yaml, best.json, the weights and a Python file that needs no tuner, and, if asked for, an ONNX file.

    Returns a sentence for each that tells what it is.

    Raises:
        UsageError: files of these names are there, or the model can't be exported.
        DataError: the weights are missing or damaged.
        TunerError: an exported model says something else than the study's; then nothing is written.
        StorageError: the files can't be written.
    """
    weights = _backbone_file(best)
    backbone = f"{standalone.BACKBONE}{weights.suffix}" if weights else ""
    names = [MODEL, "best.json", standalone.NAME, *filter(None, [backbone]), *([ONNX] if onnx else []), "best.yaml"]
    old = _refuse_over(folder, names, force)
    if onnx:
        from tuner.onnx_file import check_installed

        check_installed()
    with writing(folder), tempfile.TemporaryDirectory(prefix="tuner-") as place:
        work, told = Path(place), dict[str, str]()
        network, (text, run) = best.load_model(), standalone.standalone(best, backbone)
        (work / standalone.NAME).write_text(text, encoding="utf-8")
        (work / "best.json").write_text(json.dumps(best.about, indent=1), encoding="utf-8")
        (work / "best.yaml").write_text(moved(best, folder), encoding="utf-8")
        shutil.copyfile(best.model_path, work / MODEL)
        if weights:
            shutil.copyfile(weights, work / backbone)
        stored = made_up(best.encoder)
        _try_python(best, network, stored, work, run)
        if onnx:
            told[ONNX] = _write_onnx(best, network, stored, work / ONNX)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            write(folder / name, (work / name).read_bytes(), mode=0o666)
        for name in old:
            (folder / name).unlink()
    return tuple(f"{folder / name}: {_tell(name, best)}{told.get(name, '')}" for name in names)


def _refuse_over(folder: Path, names: Sequence[str], force: bool) -> list[str]:
    """Refuse to write over what is there; return which files of another export are to go.

    Raises:
        UsageError: files are there, and it isn't forced; or what is there is no file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; name another")
    known = {path.name for path in (folder / name for name in (*names, ONNX)) if path.exists()}
    known |= {path.name for path in folder.glob(f"{standalone.BACKBONE}.*")}
    if folders := [name for name in sorted(known) if not (folder / name).is_file()]:
        raise UsageError(f"{folder}: has {', '.join(folders)}, which is no file; name another folder")
    if known and not force:
        there = ", ".join(sorted(known))
        raise UsageError(f"{folder}: has {there} already; name another folder, or --force writes over them")
    return sorted(known - set(names))


def made_up(encoder: Encoder) -> NDArray[np.generic]:
    """Return a few examples of random numbers, stored as an encoder does; texts and sequences of several lengths."""
    shape, random = encoder.shape, np.random.default_rng(0)
    size, lengths = (ROWS, *shape.input), random.integers(1, shape.input[0] + 1, ROWS)
    ended = np.arange(shape.input[0]) >= lengths[:, None]
    match shape.kind:
        case "text":
            return np.where(ended, 0, random.integers(1, shape.vocabulary, size)).astype(np.int32)
        case "image" if getattr(encoder, "dtype", "") == "uint8":
            return random.integers(0, 256, size).astype(np.uint8)
        case "image":
            standard = encoder.standard
            center, scale = (np.reshape(each, (-1, 1, 1)) for each in (standard.center, standard.scale))
            pixels = (random.standard_normal(size) * scale + center) / standard.unit
            return np.asarray(pixels, dtype=np.float32)
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


def _try_python(best: BestConfig, network: nn.Module, stored: NDArray[np.generic], work: Path, run: str) -> None:
    """Use the Python file in a process that has no tuner, and compare."""
    own = best.config.model.family not in FAMILIES
    inputs, outputs = work / "inputs.npy", work / "outputs.npy"
    np.save(inputs, stored)
    here = [str(best.folder.resolve()), str(Path.cwd())] if own else []  # where code of the user's own is looked for
    words = ["\n".join([str(work), *here]), "with tuner" if own else "alone", str(inputs), str(outputs), run]
    ended = subprocess.run(
        [sys.executable, "-c", TRIED, *words], cwd=None if own else work, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["no word"])[-1][:300]
        kind = UsageError if own else TunerError
        raise kind(f"{standalone.NAME}: doesn't run by itself ({said}); nothing is written")
    _compare(
        standalone.NAME,
        np.load(outputs, allow_pickle=False),
        predict(network, stored, best.encoder.standard, best.encoder.shape.task),
    )


def _write_onnx(best: BestConfig, network: nn.Module, stored: NDArray[np.generic], path: Path) -> str:
    """Write the ONNX file, and compare what it says of one example and of several; return what is to be said of it."""
    from tuner.models.frozen import exactly
    from tuner.onnx_file import run_onnx, write_onnx

    encoder, task = best.encoder, best.encoder.shape.task
    about = {"study": best.study, "trial": str(best.trial), "classes": json.dumps(best.classes)}
    write_onnx(network, encoder, stored, path, about)
    with exactly():
        outputs = predict(network, stored, encoder.standard, task)
    for some in (slice(0, ROWS), slice(0, 1)):
        _compare(ONNX, _standing(run_onnx(path, stored[some]), encoder), _raised(outputs[some], task))
    here = _raised(predict(network, stored, encoder.standard, task), task)
    apart = np.abs(here - _raised(outputs, task)).max()
    return f"; in float32, up to {apart:.2g} from what bfloat16 comes to here" if apart > CLOSE else ""


def _standing(found: NDArray[np.floating], encoder: Encoder) -> NDArray[np.floating]:
    """Return predicted numbers as they are standardized, for a comparison that the target's unit has no part in."""
    if encoder.shape.task == "classification":
        return found
    numbers = np.log(found) if encoder.target.log else found
    return np.asarray((numbers - encoder.target.center) / encoder.target.scale)


def _raised(outputs: NDArray[np.float32], task: str) -> NDArray[np.floating]:
    return np.exp(outputs) if task == "classification" else outputs[:, 0]


def _compare(name: str, found: NDArray[np.floating], wanted: NDArray[np.floating]) -> None:
    """Refuse an exported model that says something else.

    Raises:
        TunerError: it does.
    """
    far = np.abs(np.asarray(found, np.float64) - wanted).max() if found.shape == wanted.shape else np.inf
    if not far <= CLOSE * max(1.0, np.abs(wanted).max()):
        what = f"predicts other numbers than the study's model (up to {far:.3g} apart)"
        raise TunerError(f"{name}: {what}; nothing is written")


def _tell(name: str, best: BestConfig) -> str:
    """Return what a file is."""
    if name == ONNX:
        said = "the target" if best.encoder.shape.task == "regression" else "probabilities"
        return f"the network for ONNX, from examples as `encoder.encode` returns them to {said}"
    return {
        "best.yaml": "the configuration, to be run again", "best.json": "its figures and its preprocessing",
        MODEL: "the weights", standalone.NAME: "preprocessing, network and predictions; needs no tuner",
    }.get(name, "the weights that the network starts from")  # fmt: skip
