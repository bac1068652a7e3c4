"""A study's database with flipped bits, or cut off: whoever reads it gets the right answer or one line that refuses,
and a repair brings everything back.

`damage` counts what came of each case; `python tests/chaos/damage.py SEED FLIPS TRUNCATIONS FOLDER` prints it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna

from tuner.best import load_best
from tuner.errors import StorageError, TunerError
from tuner.repairing import repair
from tuner.study import list_studies, open_study
from tuner.tuning import tune

SPACE = """\
study: small
seed: 3
data: {source: sklearn:wine}
model: {width: {low: 4, high: 12}}
regularization: {dropout: {low: 0.0, high: 0.5}, l2: {low: 1e-4, high: 0.1, log: true, or: 0}}
training: {epochs: 3}
budget: {trials: 4, confirm: true}
"""
RESUMED = 25  # of so many cases one is also run on
BITS = 4  # flipped at most in one case
Figures = dict[str, Any]


def damage(seed: int, flips: int, truncations: int, folder: Path) -> Figures:
    """Damage the database of a small study in as many ways; return the figures: how many cases were `tried`, in how
    many reading gave the `right` answer, how many were `refused` and then `repaired`, how many went `wrong`, and `why`.
    """
    space, studies = folder / "small.yaml", folder / "studies"
    space.write_text(SPACE)
    tune(space, studies_dir=studies)
    kept = {path: path.read_bytes() for path in (studies / "tuner.db", studies / "small" / "ledger.jsonl")}
    expected, listed = look(studies), rows(studies)
    found: Figures = {"tried": 0, "right": 0, "refused": 0, "repaired": 0, "resumed": 0, "wrong": 0, "why": []}
    for case, (name, spoil) in enumerate(cases(seed, flips, truncations)):
        for path in studies.glob("tuner.db*"):
            path.unlink()
        for path in studies.glob("small/ledger.jsonl.*"):
            path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)
        (studies / "tuner.db").write_bytes(spoil(kept[studies / "tuner.db"]))
        found["tried"] += 1
        try:
            _judge(studies, expected, listed, found, space if case % RESUMED == 0 else None)
        except Exception as error:
            found["wrong"] += 1
            found["why"].append(f"{name}: {type(error).__name__}: {str(error)[:400]}")
    return found


def cases(seed: int, flips: int, truncations: int) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Yield what is done to a file, with its name."""
    chance = random.Random(seed)
    for number in range(flips):
        places = [chance.random() for _ in range(chance.randint(1, BITS))]
        yield f"flip {number}", lambda data, places=places: flipped(data, places)
    for number in range(truncations):
        share = chance.random() if number else 0.0
        yield f"truncation {number}", lambda data, share=share: data[: int(share * len(data))]


def flipped(data: bytes, places: list[float]) -> bytes:
    """Return a file with a bit flipped at each of some places, which are shares of its length."""
    changed = bytearray(data)
    for place in places:
        bit = int(place * 8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def look(studies: Path) -> dict[str, Any]:
    """Return all figures that tuner tells of the study."""
    found = open_study("small", studies_dir=studies)
    (same,) = list_studies(studies_dir=studies)
    assert same.document == found.document
    best = {name: value for name, value in load_best("small", studies).to_json().items() if name != "created"}
    trials = [{"number": n, "state": r.state, **r.to_json()} for n, r in found.trials.items()]
    told: dict[str, Any] = json.loads(json.dumps([found.document, trials, best, found.mistakes], default=str))
    return {**told[0], "TRIALS": told[1], "BEST": told[2], "MISTAKES": told[3]}


def difference(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return of what two answers differ."""
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}


def rows(studies: Path) -> list[Any]:
    """Return what Optuna itself reads of the study."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{studies / 'tuner.db'}")
    study = optuna.load_study(study_name="small", storage=storage)
    trials = [(t.number, t.state, t.values, t.params, t.distributions, t.intermediate_values, t.user_attrs,
               t.datetime_start, t.datetime_complete) for t in study.trials]  # fmt: skip
    found = [study.directions, study.metric_names, study.user_attrs, *trials]
    storage.engine.dispose()
    return found


def _judge(studies: Path, expected: Any, listed: list[Any], found: Figures, space: Path | None) -> None:
    try:
        seen = look(studies)
    except TunerError as error:
        _check_words(error)
        found["refused"] += 1
        repair("small", studies_dir=studies)
        assert difference(look(studies), expected) <= {"seconds"}, "another answer after the repair"  # no proof of them
        assert rows(studies) == listed, "other rows after the repair"
        found["repaired"] += 1
    else:
        assert not difference(seen, expected), f"another answer: {difference(seen, expected)}"
        found["right"] += 1
    if space is not None:
        try:
            tune(space, studies_dir=studies)
        except StorageError:  # of what isn't read to tell of a study
            repair("small", studies_dir=studies)
            tune(space, studies_dir=studies)
        assert look(studies)["TRIALS"] == expected["TRIALS"], "other trials when run on"
        found["resumed"] += 1


def _check_words(error: TunerError) -> None:
    assert isinstance(error, StorageError), f"exit code {error.exit_code}: {error}"
    assert "\n" not in str(error)
    assert len(str(error)) < 400


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:4]]
    figures = damage(*given, Path(sys.argv[4]))
    print(json.dumps(figures, indent=1))
    sys.exit(bool(figures["wrong"]))
