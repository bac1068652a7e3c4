"""Ray Tune around the plain loop, every epoch reported: a grid over the configurations, two at a time.

    python -m benchmarks.peers.with_ray W1

The clock runs when Ray starts, and stops before it is shut down. Loggers and progress are off, and its two processes
serve one trial after the other.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

# Before Ray is imported, for it reads these then: no logs of each trial, the old output, which can be silenced, no
# usage reports; and its workers, which don't start in this folder, find the loop.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0",
    PYTHONPATH=str(Path(__file__).parents[2]),
)  # fmt: skip

import ray
import torch
from ray import tune

from benchmarks.peers.loop import train
from benchmarks.peers.way import Job, arguments, measure
from benchmarks.peers.work import Data, Work

AT_ONCE = 2


def trainable(config: dict[str, Any], work: Work, data: Data) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(config["trial"]["seed"])
    own = Data(*(array.copy() for array in data))  # torch wants arrays that can be written, those of Ray can't be
    train(work, config["trial"]["chosen"], own, lambda _, accuracy: tune.report({"accuracy": accuracy}))


def search(job: Job, folder: str) -> list[float]:
    ray.init(num_cpus=AT_ONCE, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _temp_dir=folder)
    trials = [{"chosen": each, "seed": 1000 * job.seed + number} for number, each in enumerate(job.configurations)]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, work=job.work, data=job.data), {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        # reused: by default each trial starts a process that imports everything, which takes more than half of the time
        tune_config=tune.TuneConfig(max_concurrent_trials=AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(verbose=0, storage_path=folder),
    )
    return [result.metrics["accuracy"] for result in tuner.fit() if result.metrics]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        search_there = partial(search, folder=temporary)
        measure(arguments(__doc__).parse_args(), search_there, ["ray"], after=ray.shutdown)
