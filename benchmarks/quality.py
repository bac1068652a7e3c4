"""What `tuner run` reaches on real data, through its own command, against what a user would do instead.

    python benchmarks/quality.py DATA_FOLDER [--only digits,credit,ames,fashion] [--seeds 5] [--minutes 10]

DATA_FOLDER holds tabular/credit_g.csv.gz, tabular/ames_housing.csv.gz and image/fashion_mnist_8k.npz; digits come
with scikit-learn. Each task runs on several splits (data.split.seed) with the seed of the search alike; the test
rows of each are looked at once, by the command itself. The peer learns from the same training and validation rows
and is measured on the same test rows. Prints a Markdown table; the spread is the standard deviation over splits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
TABLE, IMAGES = "search_spaces/table.yaml", "search_spaces/images.yaml"


def run(space: str, settings: dict[str, object], *options: str) -> tuple[dict, float]:
    """Run one study in a new folder; return its document and the wall seconds of the whole command."""
    words = [word for name, value in settings.items() for word in ("-S", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [sys.executable, "-m", "tuner", "run", str(ROOT / space), *words, *options, "--json", "--quiet"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return json.loads(done.stdout), time.perf_counter() - started


def logistic_regression(path: Path, target: str, seed: int) -> dict[str, float]:
    """Balanced accuracy of scikit-learn's LogisticRegression on the same rows: learned from the training rows alone,
    and from training and validation rows together."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from tuner.config import Data, Split
    from tuner.data import load

    splits = load(Data(source=str(path), target=target, split=Split(seed=seed)), Path())
    frame = pd.read_csv(path)
    x, y = frame.drop(columns=target), frame[target]
    found = {}
    both = np.concatenate([splits.train.rows, splits.val.rows])
    for name, rows in (("train", splits.train.rows), ("train+val", both)):
        columns = make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include="number")),
            (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        )
        model = make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(x.iloc[rows], y.iloc[rows])
        predicted = model.predict(x.iloc[splits.test.rows])
        found[name] = balanced_accuracy_score(y.iloc[splits.test.rows], predicted)
    return found


def tell(task: str, documents: list[dict], seconds: list[float], metrics: tuple[str, ...]) -> None:
    """Print one row a metric: validation and test of the chosen trial and of the baseline, over the splits."""
    for metric in metrics:
        cells = []
        for part in ("val", "test", "baseline test"):
            values = [_figure(document, part, metric) for document in documents]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}")
        gaps = [(document["best"]["gap"][metric], document["baseline"]["gap"][metric]) for document in documents]
        gap = " / ".join(f"{statistics.mean(side):.4f}" for side in zip(*gaps, strict=True))
        print(
            f"| {task} | {metric} | {len(documents)} | {' | '.join(cells)} | {gap} | {statistics.mean(seconds):.0f} |"
        )
    sys.stdout.flush()


def _figure(document: dict, part: str, metric: str) -> float:
    test = document["test"]
    return {
        "val": document["best"]["val"][metric],
        "test": test[metric]["value"],
        "baseline test": test["baseline"][metric]["value"],
    }[part]


def measure(task: str, space: str, settings: dict, metrics: tuple[str, ...], seeds: int, *options: str) -> None:
    """Run a task on several splits and print its rows."""
    found = [run(space, settings | {"data.split.seed": seed}, *options) for seed in range(seeds)]
    tell(task, [document for document, _ in found], [wall for _, wall in found], metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="digits,credit,ames,fashion")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    wanted, data = given.only.split(","), given.data.resolve()
    print("| task | metric | splits | validation | test | baseline test | gap chosen / baseline | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    if "digits" in wanted:
        measure("digits", "search_spaces/digits.yaml", {}, ("accuracy", "log_loss"), given.seeds)
    if "credit" in wanted:
        path = data / "tabular/credit_g.csv.gz"
        settings = {"data.source": path, "data.target": "class", "score.metric": "balanced_accuracy"}
        measure("credit_g", TABLE, settings, ("balanced_accuracy", "accuracy"), given.seeds)
        peers = [logistic_regression(path, "class", seed) for seed in range(given.seeds)]
        for name in peers[0]:
            values = [peer[name] for peer in peers]
            mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            shown = f"{len(peers)} | | {mean:.4f} ± {spread:.4f} | | | |"
            print(f"| credit_g, LogisticRegression on {name} | balanced_accuracy | {shown}")
    if "ames" in wanted:
        for transform in ("log", "none"):
            settings = {"data.source": data / "tabular/ames_housing.csv.gz", "data.target": "Sale_Price"}
            settings |= {"data.target_transform": transform}
            measure(f"ames_housing ({transform})", TABLE, settings, ("r2", "mae"), given.seeds)
    if "fashion" in wanted:
        settings = {"data.source": data / "image/fashion_mnist_8k.npz"}
        measure("fashion_mnist_8k", IMAGES, settings, ("accuracy", "log_loss"), 1, "--timeout", f"{given.minutes}m")


if __name__ == "__main__":
    main()
