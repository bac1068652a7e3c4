"""Ray Tune with its ASHA scheduler around the plain loop: random configurations, two at a time.

    python -m benchmarks.time_to_quality.with_ray fashion

The best is the best epoch of any trial, whether it was stopped or not. Two processes serve trial after trial (by
default each trial starts its own, which takes seconds).
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before Ray is imported, for it reads these then: no logs of each trial, no output, no usage reports
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0",
    PYTHONPATH=str(Path(__file__).parents[2]),
)  # fmt: skip

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.time_to_quality.loop import train
from benchmarks.time_to_quality.seen import Seen, arguments
from benchmarks.time_to_quality.tasks import EMBEDDING, KERNELS, NORMALIZATIONS, SMOOTHING, TASKS, Task, rows

AT_ONCE = 2
SEEN: dict[str, Seen] = {}  # of each process: what it has seen outlives a trial


def space(task: Task) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "width": tune.lograndint(task.width[0], task.width[1] + 1),
        "depth": tune.randint(task.depth[0], task.depth[1] + 1),
        "dropout": tune.uniform(0.0, task.dropout),
        "rate": tune.loguniform(*task.rate),
        "decay": tune.loguniform(*task.decay),
        "strength": tune.uniform(0.0, 1.0),
    }
    if task.kind != "text":
        chosen["normalization"] = tune.choice(NORMALIZATIONS)
    if task.classes:
        chosen["smoothing"] = tune.uniform(0.0, SMOOTHING)
    if task.kind == "sequence":
        chosen["kernel"] = tune.choice(KERNELS)
    if task.kind == "text":
        chosen["embedding"] = tune.lograndint(EMBEDDING[0], EMBEDDING[1] + 1)
    return chosen


def trainable(config: dict[str, Any], name: str, path: str) -> None:
    torch.set_num_threads(1)
    task = TASKS[name]
    seen = SEEN.setdefault(path, Seen(Path(path)))

    def after(_: int, value: float, test: Callable[[], float]) -> None:
        seen.look(value, test)
        tune.report({"value": value})

    train(task, config, rows(task), after)


def main() -> None:
    given = arguments(__doc__).parse_args()
    task, until = TASKS[given.task], given.began + given.seconds
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=AT_ONCE, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _temp_dir=folder
        )
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trainable, name=task.name, path=str(given.seen.resolve())), {"cpu": 1}
            ),
            param_space=space(task),
            tune_config=tune.TuneConfig(
                metric="value", mode="max", num_samples=-1, max_concurrent_trials=AT_ONCE, reuse_actors=True,
                scheduler=ASHAScheduler(max_t=task.epochs), time_budget_s=max(1.0, until - time.time()),
            ),
            run_config=tune.RunConfig(verbose=0, storage_path=folder),
        )  # fmt: skip
        tuner.fit()
        ray.shutdown()


if __name__ == "__main__":
    main()
