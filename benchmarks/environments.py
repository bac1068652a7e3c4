"""The environments that peers of tuner run in: one each, in .benchmarks, made when it is missing (5 GB in all).

tuner itself runs in the environment of the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".benchmarks"
CONSTRAINTS = (ROOT / "constraints.txt", ROOT / "benchmarks" / "peers" / "constraints.txt")
OWN = "tuner"
PACKAGES = {  # besides torch
    OWN: (),
    "optuna": ("optuna", "pillow", "scikit-learn", "mlxtend"),
    "lightning": ("lightning", "optuna", "optuna-integration", "pillow"),
    "keras-tuner": ("keras", "keras-tuner", "six", "protobuf", "grpcio"),  # it imports the last three, and names none
    "ray": ("ray[tune]", "pillow"),
}


@dataclass(frozen=True, slots=True)
class Way:
    """A tool that a benchmark runs: what it is called, its module, its environment and its options."""

    title: str
    module: str
    environment: str
    options: tuple[str, ...] = ()


def python_of(name: str) -> str:
    """Return the interpreter of an environment, which is made if it isn't there or has other packages."""
    packages = PACKAGES[name]
    if not packages:
        return sys.executable
    folder, mark = HOME / name, HOME / name / ".ready"
    python = str(folder / "bin" / "python")
    wanted = "\n".join([*packages, *(path.read_text(encoding="utf-8") for path in CONSTRAINTS)])
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        say(f"makes {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        held = [word for path in CONSTRAINTS for word in ("-c", str(path))]
        words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *held, "torch", *packages]
        subprocess.run(words, check=True)
        mark.write_text(wanted, encoding="utf-8")
    return python


def variables() -> dict[str, str]:
    """Return the environment's variables: benchmarks can be imported, also by workers that are started elsewhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
