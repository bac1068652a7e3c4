"""Records whole curves: random configurations, trained to the last epoch, judged by nobody.

Each run's test losses are kept too, for a replay to tell what a choice was worth; no part of `tuner` sees them. A bank
is one file; what is there is not made again.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.sources import Bank, banks, space_of, splits_of
from tuner.config import RunConfig, min_epochs
from tuner.curve import Curve
from tuner.data.splits import Splits
from tuner.metrics import metrics, per_example_loss
from tuner.planning import blank_curve
from tuner.proposing import NONE, Proposer, trial_seed
from tuner.scoring import LOSS

TRIALS = 40  # random points
BARE = 10  # random points without any regularization
ROUNDS = 3  # fresh splits and seeds for those that a choice may fall on
REPEATED = 12  # which are the best so many, by skill


def record(data: Path, folder: Path, processes: int, only: str = "") -> None:
    """Record every bank whose file isn't in `folder`, or those whose name holds `only`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    wanted = [bank for bank in banks() if only in bank.name and not file_of(bank, folder).exists()]
    with ProcessPoolExecutor(processes) as pool:
        for bank, seconds in zip(wanted, pool.map(_record, wanted, [data] * len(wanted), [folder] * len(wanted)),
                                 strict=True):  # fmt: skip
            print(f"{bank.name}: {seconds:.0f} s", flush=True)


def record_refits(data: Path, folder: Path, processes: int, only: str = "") -> None:
    """Train what was repeated once more, on the rows for training and validation together, where that isn't there."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    wanted = [
        bank for bank in banks()
        if only in bank.name and file_of(bank, folder).exists() and not refits_of(bank, folder).exists()
    ]  # fmt: skip
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_refit, wanted, [data] * len(wanted), [folder] * len(wanted)))


def _refit(bank: Bank, data: Path, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    space = space_of(bank, data, folder)
    splits, found = splits_of(bank, space, None), {}
    with gzip.open(file_of(bank, folder), "rt") as file:
        document = json.load(file)
    trials = {trial["number"]: trial for trial in document["trials"]}
    numbers = sorted({each["number"] for each in document["repeats"]})
    for number in numbers:
        config = space.at(trials[number]["values"])
        found[number] = _run(config, splits, trial_seed(11, number), trials[number]["kept"])["test"]
    part = refits_of(bank, folder).with_suffix(".part")
    with gzip.open(part, "wt") as file:
        json.dump(found, file)
    part.rename(refits_of(bank, folder))
    print(f"{bank.name}: again on all rows", flush=True)


def refits_of(bank: Bank, folder: Path) -> Path:
    """Return the file of what a bank's best runs came to on all rows."""
    return folder / f"{bank.name}.refits.json.gz"


def file_of(bank: Bank, folder: Path) -> Path:
    """Return the file of a bank."""
    return folder / f"{bank.name}.json.gz"


def _record(bank: Bank, data: Path, folder: Path) -> float:
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    space = space_of(bank, data, folder)
    proposer = Proposer(space, seed=11)
    points = [dict(proposer.propose(number)[0].values) for number in range(1, TRIALS + BARE + 1)]  # 0 is the baseline
    splits = splits_of(bank, space, seed=0)
    trials = []
    for number, values in enumerate(points):
        config = space.at(values)
        if number >= TRIALS:
            config = config.replace(dict.fromkeys(NONE, 0.0))
        run = _run(config, splits, trial_seed(11, number), config.training.epochs)
        trials.append({"number": number, "values": values, "bare": number >= TRIALS, **run})
    skill = [trial["curve"]["series"]["val.loss"][trial["kept"] - 1] for trial in trials[:TRIALS]]
    repeats = []
    for n in range(ROUNDS):
        fresh = splits_of(bank, space, seed=1 + n)
        for number in np.argsort(skill, kind="stable")[:REPEATED].tolist():
            run = _run(space.at(points[number]), fresh, 1000 + n, trials[number]["kept"])
            repeats.append({"number": number, "round": n, "curve": run["curve"], "test": run["test"]})
    rows = {"train": len(splits.train), "val": len(splits.val), "test": len(_test(splits))}
    document = {"bank": bank.name, "task": splits.shape.task, "rows": rows, "trials": trials, "repeats": repeats}
    part = file_of(bank, folder).with_suffix(".part")
    with gzip.open(part, "wt") as file:
        json.dump(document, file)
    part.rename(file_of(bank, folder))
    return time.perf_counter() - started


def _test(splits: Splits) -> Any:
    assert splits.test is not None
    return splits.test


def _run(config: RunConfig, splits: Splits, seed: int, until: int) -> dict[str, Any]:
    """Train one configuration up to an epoch; return its curve, the test figures of each epoch, and the losses of
    single rows at the epoch that it keeps.
    """
    curve, test, kept = blank_curve(config, splits), list[dict[str, float]](), dict[str, Any]()
    for curve, seen, rows in _epochs(config, splits, seed, until):
        test.append(seen)
        if curve.best == len(curve):
            kept = {name: [round(float(value), 5) for value in values] for name, values in rows.items()}
    series = {name: [one[name] for one in test] for name in test[0]}
    return {"curve": curve.to_json(), "test": series, "kept": curve.best, "rows": kept}


def _epochs(
    config: RunConfig, splits: Splits, seed: int, until: int
) -> Iterator[tuple[Curve, dict[str, float], Mapping[str, NDArray[np.float64]]]]:
    from tuner.measuring import predict
    from tuner.training import train

    curve = replace(blank_curve(config, splits), first=min_epochs(config.training.epochs))
    task, standard = splits.shape.task, splits.encoder.standard
    test = _test(splits)
    for epoch, network, *_ in train(config, splits, seed):
        curve = curve.then(epoch)
        outputs = predict(network, test.x, standard, task)
        losses = per_example_loss(outputs, test.y, task)
        seen = metrics(outputs, test.y, task)
        rows = {"test": losses}
        if curve.best == len(curve):
            val = predict(network, splits.val.x, standard, task)
            rows |= {"val": per_example_loss(val, splits.val.y, task)}
            rows |= {"right": (outputs.argmax(1) == test.y).astype(float)} if task == "classification" else {}
        wanted = ("accuracy", "balanced_accuracy") if task == "classification" else ("r2",)
        found = {LOSS[task]: float(losses.mean()), **{name: seen[name] for name in wanted}}
        yield curve, {name: float(f"{value:.6g}") for name, value in found.items()}, rows
        if epoch.number >= until:
            return
