"""tuner, by `tuner run` with the space file that comes with it, two workers, and its own choice of everything else.

    python -m benchmarks.time_to_quality.with_tuner fashion

Its current best is what `tuner best` would name: the complete trial with the best score, and in the end the one that
the confirmation chose. What these reach on the test rows is found when all is over, by training each again to the epoch
it kept: same configuration, same seed, same weights.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from benchmarks.environments import ROOT, variables
from benchmarks.time_to_quality.seen import arguments
from benchmarks.time_to_quality.tasks import TASKS, Task
from tuner.data import load
from tuner.data.splits import Splits
from tuner.measuring import predict
from tuner.metrics import metrics
from tuner.ranking import best_record
from tuner.record import TrialRecord
from tuner.space import Space
from tuner.study import Study, list_studies, space_of
from tuner.training import train

AT_ONCE = 2


def search(task: Task, folder: str, seconds: float, seed: int) -> None:
    """Run the command, as people would, in a folder of its own."""
    settings = {
        "data.source": task.file, "score.metric": task.metric, "budget.trials": 100_000, "budget.workers": AT_ONCE,
        "seed": seed, **task.settings,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("-S", f"{name}={value}")]
    space = str(ROOT / "search_spaces" / f"{task.space}.yaml")
    command = [sys.executable, "-m", "tuner", "run", space, *words, f"--timeout={seconds:.0f}s", "--quiet"]
    subprocess.run(command, cwd=folder, env=variables(), check=True, stdout=sys.stderr)


def database(folder: str) -> str:
    return f"sqlite:///{folder}/studies/tuner.db"


def ends_of(study: Study, folder: str) -> dict[int, float]:
    """Return when each trial ended, in seconds since 1970, as its storage has it."""
    trials = optuna.load_study(study_name=study.name, storage=database(folder)).trials
    return {trial.number: trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete}


def leaders(study: Study, ends: dict[int, float]) -> list[tuple[float, TrialRecord]]:
    """Return each trial that was the best one when it ended, with that time."""
    found: list[tuple[float, TrialRecord]] = []
    known: dict[int, TrialRecord] = {}
    for number, end in sorted(ends.items(), key=lambda pair: pair[1]):
        known[number] = study.trials[number]
        best = best_record(known)
        if best is not None and best.number == number:
            found.append((end, best))
    return found


def reached(record: TrialRecord, space: Space, splits: Splits, metric: str) -> dict[str, float]:
    """Train a trial again up to the epoch that it kept; return what it reaches: larger is better."""
    assert record.score is not None
    assert record.kept is not None
    assert splits.test is not None
    for epoch, network, *_ in train(space.at(record.all_values), splits, record.seed, space.folder):
        if epoch.number == record.score.epoch:
            if epoch.val.loss != record.kept.val.loss:
                raise SystemExit(f"trial {record.number} came out as another one: {epoch.val} is not {record.kept.val}")
            outputs = predict(network, splits.test.x, splits.encoder.standard, splits.shape.task)
            found = metrics(outputs, splits.test.y, splits.shape.task, splits.encoder.target.restore, False)
            return {"val": _value(epoch.val.metrics[metric], metric), "test": _value(found[metric], metric)}
    raise SystemExit(f"trial {record.number} has no epoch {record.score.epoch}")


def _value(figure: float, metric: str) -> float:
    """Return a figure as the peers have theirs: the root of the mean squared error below zero."""
    return -math.sqrt(figure) if metric == "mse" else figure


def main() -> None:
    given = arguments(__doc__).parse_args()
    task = TASKS[given.task]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        search(task, folder, given.seconds - (time.time() - given.began), given.seed)
        over = time.time()
        study = list_studies(storage=database(folder), studies_dir=Path(folder) / "studies")[0]
        space = space_of(study)
        splits = load(space.config.data, space.folder)
        best = leaders(study, ends_of(study, folder))
        best.append((over, study.trials[study.document["best"]["trial"]]))
        known: dict[int, dict[str, float]] = {}
        with open(given.seen, "a", encoding="utf-8") as file:
            for at, record in best:
                if record.number not in known:
                    known[record.number] = reached(record, space, splits, task.metric)
                told: dict[str, Any] = {"at": at, **known[record.number], "trial": record.number}
                file.write(json.dumps(told) + "\n")
        counts = np.unique([record.state for record in study.trials.values()], return_counts=True)
        print(dict(zip(*(each.tolist() for each in counts), strict=True)), file=sys.stderr)


if __name__ == "__main__":
    main()
