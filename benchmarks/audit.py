"""Whole studies at the same wall time: `tuner` with its defaults against what people would run instead.

    python -m benchmarks.audit run DATA_FOLDER [--only NAME ...] [--seconds 120] [--seeds 3] [--out benchmarks/.audit]
    python -m benchmarks.audit table [--out benchmarks/.audit]

Every arm trains with the same code, on the same rows, in the same ready space, in two processes, and begins nothing
after the time is up (`seconds` says what it took; the network that is chosen may be trained again after that). Each
picks by what it is told on validation alone; the test rows are opened for its pick (and afterwards for the picks on the
way to it, to see by how much the search overshot). A study that is there isn't run again. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from scipy.stats import rankdata

from benchmarks.replay.sources import SOURCES, Bank, written
from tuner import tune
from tuner.config import RunConfig, min_epochs
from tuner.data import load
from tuner.data.splits import Splits
from tuner.fitting import settled
from tuner.grammar import Override, read_space
from tuner.measuring import predict
from tuner.metrics import metrics, per_example_loss
from tuner.planning import blank_curve
from tuner.proposing import NONE, _suggest
from tuner.space import Space
from tuner.study import Study
from tuner.training import train

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / ".audit"
DATA = {"ames": "table", "vowels": "sequence", "spamassassin": "text", "mnist1d": "sequence", "cifar10": "images"}
WORKERS = 2
TUNER = "tuner"


@dataclass(frozen=True)
class Arm:
    """A way to search with Optuna: its sampler, its pruner for runs of so many epochs, whether it regularizes."""

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    pruner: Callable[[int], optuna.pruners.BasePruner]
    regularized: bool = True


def _nothing(_: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


def _median(_: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner()


def _hyperband(epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


ARMS = {
    "Optuna's defaults (TPE, median pruner)": Arm(_tpe, _median),
    "Optuna, Hyperband": Arm(_tpe, _hyperband),
    "random search": Arm(_random, _nothing),
    "no regularization (TPE, median pruner)": Arm(_tpe, _median, regularized=False),
}
QUARTER = "random search, a quarter of the trials"


def space_of(name: str, data: Path, folder: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """Return the ready space for a data set and what is put over it: the rows and the seed."""
    source = next(source for source in SOURCES if source.name == name)
    rows = written(Bank(source, "large", flipped=False), data, folder)
    given: dict[str, Any] = {"data.source": str(rows), "data.kind": source.kind, "seed": seed, "data.split.seed": seed}
    given |= {"data.target": source.target} if source.target else {}
    given |= {"augmentation.shift": 0.5, "augmentation.wrap": True} if name == "mnist1d" else {}
    return ROOT / "search_spaces" / f"{DATA[name]}.yaml", given


def opened(path: Path, given: Mapping[str, Any], values: Mapping[str, Any], seed: int, kept: int) -> dict[str, float]:
    """Train a configuration as its trial was and return what its kept epoch comes to on the test rows."""
    import torch

    torch.set_num_threads(1)
    space = settled_space(path, given)
    splits = load(space.config.data, space.folder)
    for epoch, network, *_ in train(space.at(values), splits, seed):
        if epoch.number == kept:
            return tested(network, splits)
    raise ValueError(f"epoch {kept} was not reached")


def tested(network: Any, splits: Splits) -> dict[str, float]:
    """Return normalized loss and accuracy (or R2) on the test rows."""
    test, task = splits.test, splits.shape.task
    assert test is not None
    outputs = predict(network, test.x, splits.encoder.standard, task)
    seen = metrics(outputs, test.y, task, splits.encoder.target.restore)
    null = blank_curve(RunConfig.model_validate({"data": {"source": "any"}}), splits).null_loss
    loss = float(per_example_loss(outputs, test.y, task).mean()) / null
    return {"loss": loss, "figure": seen["accuracy" if task == "classification" else "r2"]}


def run_tuner(name: str, data: Path, folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Run a study of `tuner` with its defaults; return what it came to."""
    path, given = space_of(name, data, folder, seed)
    study = tune(path, trials=10_000, workers=WORKERS, timeout=seconds, studies_dir=folder / "studies", overrides=given)
    document, best = study.document, study.document["best"]
    numbers = [*_incumbents(study), best["trial"]]
    with ProcessPoolExecutor(WORKERS) as pool:
        *path_of, chosen = pool.map(
            opened, *zip(*((path, given, study.trials[n].all_values, study.trials[n].seed, _kept(study, n))
                           for n in numbers), strict=True)
        )  # fmt: skip
    return {
        **chosen, "gap": best["relative_gap"], "trials": document["trials"]["total"],
        "epochs": document["epochs"]["run"], "seconds": document["seconds"],
        "overtuning": chosen["loss"] - min(seen["loss"] for seen in [*path_of, chosen]),
        "searched": path_of[-1]["loss"], "optimism": (document["confirmed"] or {}).get("optimism"),
    }  # fmt: skip


def _kept(study: Study, number: int) -> int:
    score = study.trials[number].score
    assert score is not None
    return score.epoch


def _incumbents(study: Study) -> list[int]:
    found, best = [], -math.inf
    for number, record in study.trials.items():
        if record.state == "complete" and record.score is not None and record.score.value > best:
            best = record.score.value
            found.append(number)
    return found


def settled_space(path: Path, given: Mapping[str, Any]) -> Space:
    """Return a space with what its data decide, as a study of it has it."""
    space = read_space(path, [Override(key, json.dumps(value), "-S") for key, value in given.items()])
    return settled(space, load(space.config.data, space.folder))


def work(name: str, arm: str, journal: Path, data: Path, folder: Path, seed: int, worker: int, deadline: float) -> None:
    """Be one of the processes of a study of Optuna's, until the time is up."""
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = ARMS[arm]
    space = settled_space(*space_of(name, data, folder, seed))
    splits = load(space.config.data, space.folder)
    top = int(getattr(space.domains.get("training.epochs"), "high", space.config.training.epochs))
    study = optuna.create_study(
        study_name="audit", storage=JournalStorage(JournalFileBackend(str(journal))), load_if_exists=True,
        sampler=made.sampler(seed * 1000 + worker), pruner=made.pruner(top),
    )  # fmt: skip

    def objective(trial: optuna.Trial) -> float:
        values: dict[str, Any] = {}
        for key, domain in space.domains.items():
            if space.active(key, values) and (made.regularized or key not in NONE):
                values[key] = _suggest(trial, key, domain)
        config = space.at({**space.middle(values), **values})
        config = config if made.regularized else config.replace(dict.fromkeys(NONE, 0.0))
        return _train(trial, config, splits, deadline)

    while time.time() < deadline:
        study.optimize(objective, n_trials=1, catch=(Exception,))


def _train(trial: optuna.Trial, config: RunConfig, splits: Splits, deadline: float) -> float:
    """Train a trial as people do: report validation, prune if told so, keep the best epoch's weights."""
    best, weights, network, count = math.inf, None, None, 0
    gap = 0.0
    null = blank_curve(config, splits).null_loss
    for epoch, network, *_ in train(config, splits, trial.number):
        count = epoch.number
        if time.time() >= deadline:
            trial.set_user_attr("epochs", count)
            raise optuna.TrialPruned
        if epoch.val.loss < best and count >= min(min_epochs(config.training.epochs), config.training.epochs):
            best, gap = epoch.val.loss, (epoch.val.loss - epoch.train.loss) / null
            weights = {key: value.clone() for key, value in network.state_dict().items()}
        trial.report(epoch.val.loss, count)
        if trial.should_prune():
            trial.set_user_attr("epochs", count)
            raise optuna.TrialPruned
    trial.set_user_attr("epochs", count)
    assert network is not None
    assert weights is not None
    network.load_state_dict(weights)
    trial.set_user_attr("test", {**tested(network, splits), "gap": gap})
    return best


def run_optuna(name: str, arm: str, data: Path, folder: Path, seed: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Run a study of Optuna's in two processes; return what it came to, and of random search its first quarter too."""
    journal, started = folder / "journal.log", time.time()
    words = [
        sys.executable,
        "-m",
        "benchmarks.audit",
        "work",
        name,
        arm,
        str(journal),
        str(data),
        str(folder),
        str(seed),
    ]
    processes = [subprocess.Popen([*words, str(worker), str(started + seconds)], cwd=ROOT) for worker in range(WORKERS)]
    for process in processes:
        process.wait()
        if process.returncode:
            raise SystemExit(f"{arm} on {name} failed")
    study = optuna.load_study(study_name="audit", storage=JournalStorage(JournalFileBackend(str(journal))))
    trials = study.get_trials(deepcopy=False)
    found = {arm: _of_trials(trials, seconds)}
    if arm == "random search":
        complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        found[QUARTER] = _of_trials(complete[: max(1, len(complete) // 4)], seconds / 4)
    return found


def _of_trials(trials: list[optuna.trial.FrozenTrial], seconds: float) -> dict[str, Any]:
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    path, best = [], math.inf
    for trial in complete:
        assert trial.value is not None
        if trial.value < best:
            best = trial.value
            path.append(trial.user_attrs["test"])
    # whoever has nothing to show when the time is up knows what a constant prediction does
    chosen = path[-1] if path else {"loss": 1.0, "figure": 0.0, "gap": 0.0}
    return {
        **chosen, "trials": len(trials), "epochs": sum(trial.user_attrs.get("epochs", 0) for trial in trials),
        "seconds": seconds, "overtuning": chosen["loss"] - min((seen["loss"] for seen in path), default=1.0),
    }  # fmt: skip


def run(data: Path, names: Sequence[str], out: Path, seconds: float, seeds: int) -> None:
    """Run every study that isn't there, seed by seed, so that what is there can be compared at any time."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in names:
            for arm in (TUNER, *ARMS):
                place = out / f"{name}_{seed}_{seconds:g}s_{'_'.join(arm.replace(',', '').split()[:3])}.json"
                if place.exists():
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    if arm == TUNER:
                        found = {arm: run_tuner(name, data, Path(folder), seed, seconds)}
                    else:
                        found = run_optuna(name, arm, data, Path(folder), seed, seconds)
                place.write_text(json.dumps({"data": name, "seed": seed, "seconds": seconds, "arms": found}))
                print(name, seed, {key: round(value["loss"], 4) for key, value in found.items()}, flush=True)


def _read(out: Path) -> Iterator[tuple[str, int, str, Mapping[str, Any]]]:
    for path in sorted(out.glob("*.json")):
        document = json.loads(path.read_text())
        for arm, found in document["arms"].items():
            yield document["data"], document["seed"], arm, found


def table(out: Path) -> list[str]:
    """Return the table over all data sets and seeds for which every arm is there."""
    rows: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for name, seed, arm, found in _read(out):
        rows.setdefault((name, seed), {})[arm] = found
    arms = [TUNER, *ARMS, QUARTER]
    whole = {key: row for key, row in rows.items() if set(arms) <= row.keys()}
    ranks = {arm: list[float]() for arm in arms}
    for row in whole.values():
        for arm, rank in zip(arms, rankdata([row[arm]["loss"] for arm in arms]), strict=True):
            ranks[arm].append(float(rank))
    lines = [
        f"{len(whole)} pairs of data set and seed", "",
        "| | mean test rank (se) | normalized test loss | accuracy or R2 | gap | overtuning (x100) | trials | epochs "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    there = sorted({name for name, _ in whole})
    for arm in sorted(arms, key=lambda arm: fmean(ranks[arm])):
        mean = {key: fmean(row[arm][key] for row in whole.values())
                for key in ("loss", "figure", "gap", "overtuning", "trials", "epochs", "seconds")}  # fmt: skip
        by = [fmean(rank for (name, _), rank in zip(whole, ranks[arm], strict=True) if name == data) for data in there]
        se = float(np.std(by, ddof=1) / math.sqrt(len(by))) if len(by) > 1 else 0.0  # seeds share their data
        lines.append(
            f"| {arm} | {fmean(ranks[arm]):.2f} ({se:.2f}) | {mean['loss']:.4f} | {mean['figure']:.4f} | "
            f"{mean['gap']:.3f} | {100 * mean['overtuning']:.2f} | {mean['trials']:.0f} | {mean['epochs']:.0f} | "
            f"{mean['seconds']:.0f} |"
        )
    lines += ["", _of_confirmation(list(whole.values()), arms)]
    lines += ["", "| data | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    for name in DATA:
        its = [row for (data, _), row in whole.items() if data == name]
        if its:
            cells = []
            for arm in arms:
                values = [row[arm]["loss"] for row in its]
                cells.append(f"{fmean(values):.4f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.4f}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _of_confirmation(whole: Sequence[Mapping[str, Mapping[str, Any]]], arms: Sequence[str]) -> str:
    """Return what the confirmation of `tuner`'s studies came to: test loss of its choice less that of the search's, and
    the mean rank with the search's.
    """
    rows = [row[TUNER] for row in whole]
    rank = fmean(
        rankdata([row[TUNER]["searched"], *(row[arm]["loss"] for arm in arms if arm != TUNER)])[0] for row in whole
    )
    made = [row for row in rows if row["optimism"] is not None]
    apart = [row["loss"] - row["searched"] for row in rows]
    better, worse = sum(each < 0 for each in apart), sum(each > 0 for each in apart)
    return (
        f"confirmed: {len(made)} of {len(rows)} studies of {TUNER}; test loss of the choice less that of the search's "
        f"own: {fmean(apart):+.4f} (better in {better}, worse in {worse}); optimism "
        f"{fmean(row['optimism'] for row in made) if made else math.nan:+.4f}; "
        f"mean test rank with the search's choices {rank:.2f}"
    )


def main() -> None:
    """Run one of the commands."""
    if sys.argv[1:2] == ["work"]:
        name, arm, journal, data, folder, seed, worker, deadline = sys.argv[2:]
        work(name, arm, Path(journal), Path(data), Path(folder), int(seed), int(worker), float(deadline))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run the studies that aren't there")
    running.add_argument("data", type=Path)
    running.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    running.add_argument("--seconds", type=float, default=120.0)
    running.add_argument("--seeds", type=int, default=3)
    showing = commands.add_parser("table", help="print what they came to")
    for each in (running, showing):
        each.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.command == "run":
        run(given.data.resolve(), given.only, given.out.resolve(), given.seconds, given.seeds)
    else:
        print("\n".join(table(given.out.resolve())))


if __name__ == "__main__":
    main()
