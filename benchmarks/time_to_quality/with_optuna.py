"""Optuna and plain PyTorch: two processes that share a study in SQLite, a pruner, TPE, the best epoch of a trial.

python -m benchmarks.time_to_quality.with_optuna fashion --pruner median
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import torch

from benchmarks.time_to_quality.loop import train
from benchmarks.time_to_quality.seen import Seen, arguments
from benchmarks.time_to_quality.tasks import (
    EMBEDDING,
    KERNELS,
    NORMALIZATIONS,
    SMOOTHING,
    TASKS,
    Configuration,
    Task,
    rows,
)

AT_ONCE = 2


def suggested(trial: optuna.Trial, task: Task) -> Configuration:
    chosen: Configuration = {
        "width": trial.suggest_int("width", *task.width, log=True),
        "depth": trial.suggest_int("depth", *task.depth),
        "dropout": trial.suggest_float("dropout", 0.0, task.dropout),
        "rate": trial.suggest_float("rate", *task.rate, log=True),
        "decay": trial.suggest_float("decay", *task.decay, log=True),
        "strength": trial.suggest_float("strength", 0.0, 1.0),
    }
    if task.kind != "text":
        chosen["normalization"] = trial.suggest_categorical("normalization", NORMALIZATIONS)
    if task.classes:
        chosen["smoothing"] = trial.suggest_float("smoothing", 0.0, SMOOTHING)
    if task.kind == "sequence":
        chosen["kernel"] = trial.suggest_categorical("kernel", KERNELS)
    if task.kind == "text":
        chosen["embedding"] = trial.suggest_int("embedding", *EMBEDDING, log=True)
    return chosen


def objective_of(task: Task, seen: Seen, until: float) -> Callable[[optuna.Trial], float]:
    data = rows(task)

    def objective(trial: optuna.Trial) -> float:
        best = -math.inf

        def after(epoch: int, value: float, test: Callable[[], float]) -> None:
            nonlocal best
            best = max(best, value)
            seen.glance(value, test)
            trial.report(value, epoch)
            if time.time() >= until:
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned

        seen.count(does=False)  # of a trial that was pruned
        train(task, suggested(trial, task), data, after)
        seen.count()
        return best

    return objective


def pruner_of(name: str, task: Task) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.HyperbandPruner(max_resource=task.epochs)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pruner", choices=("median", "hyperband"), required=True)
    parser.add_argument("--process", type=int, help="which of the processes this is; the first starts the other")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    number = given.process or 0
    torch.manual_seed(AT_ONCE * given.seed + number)
    task, folder = TASKS[given.task], Path(given.seen).parent
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/study.db", study_name="study", direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=AT_ONCE * given.seed + number), pruner=pruner_of(given.pruner, task),
    )  # fmt: skip
    words = [sys.executable, "-m", "benchmarks.time_to_quality.with_optuna", *sys.argv[1:], f"--began={given.began}"]
    others = [] if number else [subprocess.Popen([*words, f"--process={i}"]) for i in range(1, AT_ONCE)]
    until = given.began + given.seconds
    study.optimize(objective_of(task, Seen(given.seen), until), timeout=max(0.0, until - time.time()))
    for other in others:
        other.wait()


if __name__ == "__main__":
    main()
