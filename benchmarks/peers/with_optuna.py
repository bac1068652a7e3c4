"""Optuna and plain PyTorch, as Optuna's tutorial has it: a loop of one's own, every epoch reported, in SQLite.

python -m benchmarks.peers.with_optuna W1
"""

from __future__ import annotations

import tempfile

import optuna
import torch

from benchmarks.peers.loop import train
from benchmarks.peers.way import Job, arguments, measure
from benchmarks.peers.work import CHANNELS, DEPTHS, LOGARITHMIC, RANGES, STRENGTH, WIDTHS, Configuration, Work


def suggested(trial: optuna.Trial, work: Work) -> Configuration:
    """Return the configuration of a trial."""
    chosen: Configuration = {
        name: trial.suggest_float(name, *bounds, log=name in LOGARITHMIC) for name, bounds in RANGES.items()
    }
    if work.pictures:
        chosen |= {name: trial.suggest_categorical(name, numbers) for name, numbers in CHANNELS.items()}
        chosen["strength"] = trial.suggest_float("strength", *STRENGTH)
    else:
        chosen["width"] = trial.suggest_categorical("width", WIDTHS)
        chosen["depth"] = trial.suggest_int("depth", DEPTHS[0], DEPTHS[-1])
    return chosen


def study_of(job: Job, folder: str) -> optuna.Study:
    """Return a study in SQLite that will try the configurations, and prune none."""
    storage = f"sqlite:///{folder}/study.db"
    study = optuna.create_study(storage=storage, direction="maximize", pruner=optuna.pruners.NopPruner())
    for each in job.configurations:
        study.enqueue_trial(each)
    return study


def search(job: Job) -> list[float]:
    torch.manual_seed(job.seed)

    def objective(trial: optuna.Trial) -> float:
        def report(epoch: int, accuracy: float) -> None:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return train(job.work, suggested(trial, job.work), job.data, report)

    with tempfile.TemporaryDirectory() as folder:
        study = study_of(job, folder)
        study.optimize(objective, n_trials=len(job.configurations))
        return [trial.value for trial in study.trials if trial.value is not None]


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    measure(arguments(__doc__).parse_args(), search, ["optuna"])
