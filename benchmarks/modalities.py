"""What one command reaches on each kind of data, with each family, against published figures and simple peers.

    python benchmarks/modalities.py DATA_FOLDER [--only trec6,italy] [--seed 0] [--scale 1.0]

DATA_FOLDER holds text/trec6.jsonl.gz, text/spamassassin.jsonl.gz, sequence/italy_power_demand.npz,
sequence/japanese_vowels.npz, image/cifar10_5k.npz and image/fashion_mnist_8k.npz; MNIST-1D is made by its package
(`pip install mnist1d`), pretrained rows need the extra `pretrained`. Each row is one study with a ready space, settings
that a user who knows the data would give, 2 workers and the time of the table (times --scale). Official splits are
kept, and the test rows are looked at once, by the command itself. Prints a Markdown table as rows are done.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MNIST1D = "mnist1d"


@dataclass(frozen=True)
class Row:
    """One study: what it is called, its data, its space, its minutes, the accuracy wanted and what that is from."""

    name: str
    data: str
    space: str
    minutes: float
    target: float
    anchor: str
    settings: Mapping[str, Any] = field(default_factory=dict)


TREC = {"data.target": "label"}
SHIFTED = {"data.kind": "sequence", "augmentation.shift": 0.5, "augmentation.wrap": "true"}  # digits lie anywhere
REFIT = {"training.refit": "true"}
FEW = {"data.split": "{folds: 5}"}
MIRRORED = {"augmentation.flip": "horizontal"}
SMALLER = {
    "model.width": "{low: 16, high: 40, log: true}",
    "training.precision": "bfloat16",
}  # for 20 minutes on 2 cores
ROWS = (
    Row("mnist1d mlp", MNIST1D, "sequence_mlp", 5, 84, "68 published", SHIFTED | REFIT),
    Row("mnist1d conv1d", MNIST1D, "sequence", 5, 99, "94 published", SHIFTED | REFIT),
    Row("mnist1d gru", MNIST1D, "sequence_rnn", 10, 97.5, "91 published", SHIFTED | REFIT | {"model.cell": "gru"}),
    Row("trec6", "text/trec6.jsonl.gz", "text", 5, 91.2, "CNN-rand 91.2 (Kim 2014)", TREC | REFIT),
    Row("trec6 pretrained", "text/trec6.jsonl.gz", "text_pretrained", 15, 97, "CNN-non-static 93.6", TREC | REFIT),
    Row("spamassassin", "text/spamassassin.jsonl.gz", "text", 5, 98.5, "TF-IDF + logistic regression 97.5",
        {"data.target": "label"} | REFIT),
    Row("italy", "sequence/italy_power_demand.npz", "sequence", 3, 96.6, "InceptionTime 96.6", FEW),
    Row("vowels", "sequence/japanese_vowels.npz", "sequence", 3, 97.5, "1-NN 91.6", FEW),
    Row("cifar10", "image/cifar10_5k.npz", "images_resnet", 20, 72, "1-NN 26", MIRRORED | REFIT | SMALLER),
    Row("cifar10 pretrained", "image/cifar10_5k.npz", "images_pretrained", 15, 82, "1-NN 26", MIRRORED | REFIT),
    Row("fashion", "image/fashion_mnist_8k.npz", "images", 15, 90, "1-NN 79", MIRRORED | REFIT | SMALLER),
)  # fmt: skip


def mnist1d(folder: Path) -> Path:
    """Make MNIST-1D (Greydanus & Kobak 2024) as its authors do: 4,000 training rows and 1,000 test rows."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    x = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)[..., None]
    y = np.concatenate([made["y"], made["y_test"]])
    split = np.array(["train"] * len(made["y"]) + ["test"] * len(made["y_test"]))
    path = folder / "mnist1d.npz"
    np.savez(path, X=x, y=y, split=split)
    return path


def run(row: Row, data: Path, folder: Path, seed: int, scale: float) -> tuple[dict[str, Any], float]:
    """Run one study in a folder of its own; return its document and the wall seconds of the whole command."""
    settings = {"data.source": data, "budget.trials": 10_000, "budget.workers": 2, "seed": seed, **row.settings}
    words = [word for name, value in settings.items() for word in ("-S", f"{name}={value}")]
    space = ROOT / "search_spaces" / f"{row.space}.yaml"
    command = [
        sys.executable,
        "-m",
        "tuner",
        "run",
        str(space),
        *words,
        "--timeout",
        f"{row.minutes * 60 * scale:.0f}s",
    ]
    started = time.perf_counter()
    done = subprocess.run([*command, "--json", "--quiet"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row.name}: {done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - started


def tell(row: Row, document: Mapping[str, Any], seconds: float) -> None:
    """Print one row of the table."""
    test, best = document["test"], document["best"]
    if test is None or best is None:
        print(
            f"| {row.name} | {row.target:g} | no trial was complete | | | | | {seconds:.0f} | {row.anchor} |",
            flush=True,
        )
        return
    accuracy = test["accuracy"]
    low, high, reached = (100 * accuracy[key] for key in ("low", "high", "value"))
    cells = [
        row.name, f"{row.target:g}", f"**{reached:.1f}**" if reached >= row.target else f"{reached:.1f}",
        f"{low:.1f} to {high:.1f}", f"{100 * best['val']['accuracy']:.1f}",
        f"{100 * test['baseline']['accuracy']['value']:.1f}", f"{document['trials']['complete']} / "
        f"{document['trials']['total']}", f"{seconds:.0f}", row.anchor,
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="", help="names of rows, separated by commas; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the time of each row")
    parser.add_argument("--keep", type=Path, help="folder for the studies; a temporary one if not given")
    given = parser.parse_args()
    wanted = [name.strip() for name in given.only.split(",") if name.strip()]
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    print("| data | wanted | test accuracy | 95 % interval | validation | baseline test | complete / trials | seconds "
          "| anchor |\n|---|---|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        made = mnist1d(Path(temporary)) if any(row.data == MNIST1D for row in rows) else None
        for row in rows:
            folder = (given.keep or Path(temporary)) / row.name.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            data = made if row.data == MNIST1D and made else given.data.resolve() / row.data
            document, seconds = run(row, data, folder.resolve(), given.seed, given.scale)
            tell(row, document, seconds)


if __name__ == "__main__":
    main()
