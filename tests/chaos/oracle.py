"""What must hold of a study whatever was done to it, found by plain SQL and the witness's account alone.

Decides what counts as lost, doubled, changed, torn, left behind, orphaned or wrong. Imports nothing of the product.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from .runs import EPOCHS, NAME, Place, Run, no_orphans
from .witness import digest

ENDED = re.compile(r"^ +(\d+)  .* (complete|pruned|failed)\b", re.MULTILINE)
OVER = ("COMPLETE", "PRUNED", "FAIL")
PARENT_AND_WORKER = 2  # processes; who takes more along is the one that forks all of them
ROWS = {  # what a trial's row and its rows in other tables hold, none of which may change once it has ended
    "trial": "SELECT state, datetime_start, datetime_complete FROM trials WHERE trial_id = ?",
    "values": "SELECT objective, value, value_type FROM trial_values WHERE trial_id = ? ORDER BY objective",
    "params": "SELECT param_name, param_value, distribution_json FROM trial_params WHERE trial_id = ? ORDER BY 1",
    "steps": "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ? ORDER BY 1",
    "shown": "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ? ORDER BY 1",
    "system": "SELECT key, value_json FROM trial_system_attributes WHERE trial_id = ? ORDER BY 1",
}
# of a trial's record: what doesn't depend on a clock, nor on who else had ended by then
SAME = ("values", "overrides", "seed", "label", "score", "verdict", "error", "model", "examples", "folds")


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be: `kind` is a word to count by, `text` says what was found."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the account: training `begun` or an epoch ended, of which trial (by its seed), in which process."""

    begun: bool
    seed: int
    pid: int
    epoch: int
    weights: str
    time: float
    place: int  # in bytes, of the line's beginning


@dataclass(frozen=True, slots=True)
class Kept:
    """What the storage holds of a trial."""

    number: int
    state: str
    rows: str
    record: Mapping[str, Any]

    def essence(self) -> dict[str, Any]:
        """Return what must be the same in a study that nothing disturbed."""
        curve = dict(self.record.get("curve") or {})
        curve["series"] = {key: each for key, each in curve.get("series", {}).items() if key != "seconds"}
        return {"state": self.state, "curve": curve} | {key: self.record.get(key) for key in SAME}


def trial_seed(number: int, seed: int) -> int:
    """Return the seed that a trial of this number must have."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def account(path: Path, start: int = 0) -> Iterator[Told]:
    """Yield the lines of an account from a place on; none is torn, for each was one append."""
    if not path.exists():
        return
    with open(path) as file:
        file.seek(start)
        for line in file:
            if not line.endswith("\n"):
                return  # being written
            what, seed, pid, epoch, weights, at = line.split()
            yield Told(what == "b", int(seed), int(pid), int(epoch), weights, float(at), start)
            start += len(line)


def stored(database: Path) -> dict[int, Kept]:
    """Return every trial of the harness's study, read without changing the database."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        connection.execute("BEGIN")
        found = connection.execute(
            "SELECT trial_id, number, state FROM trials JOIN studies USING (study_id) WHERE study_name = ?", (NAME,)
        ).fetchall()
        kept = {}
        for trial_id, number, state in found:
            rows = {key: connection.execute(query, (trial_id,)).fetchall() for key, query in ROWS.items()}
            record = json.loads(dict(rows["system"]).get("tuner", "{}"))
            kept[number] = Kept(number, state, json.dumps(rows), record)
    return kept


def torn(database: Path) -> Iterator[Violation]:
    """Yield what is wrong with the database as such."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        said = connection.execute("PRAGMA integrity_check").fetchall()
        if said != [("ok",)]:
            yield Violation("torn", f"integrity_check: {said[:3]}")
        if keys := connection.execute("PRAGMA foreign_key_check").fetchall():
            yield Violation("torn", f"foreign_key_check: {keys[:3]}")
        numbers = [row[0] for row in connection.execute("SELECT number FROM trials ORDER BY number")]
        if numbers != list(range(len(numbers))):
            twice = [number for number, times in Counter(numbers).items() if times > 1]
            yield Violation("doubled" if twice else "lost", f"the trials are numbered {numbers}")


def weights_of(path: Path) -> str:
    """Return the hash of a file's weights, as the witness counts it."""
    return digest(load_file(path))


@dataclass
class Oracle:
    """Remembers what was acknowledged of one study, and finds what doesn't agree with it.

    `look` is called while the study runs and after whatever was done to it, `finish` once in the end.
    """

    place: Place
    seed: int
    seen: dict[int, Kept] = field(default_factory=dict)
    seen_at: dict[int, int] = field(default_factory=dict)  # length of the account by then
    killed: set[int] = field(default_factory=set)  # processes that the harness has killed
    runs: list[Run] = field(default_factory=list)
    found: list[Violation] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)  # of workers, by the seed of the trial that they had
    gave_up: list[int] = field(default_factory=list)  # trials whose worker was killed twice at one place

    def began(self, run: Run) -> Run:
        self.runs.append(run)
        return run

    def kills(self, pid: int) -> None:
        """Note that a process is about to be killed, and with it those that it has started.

        A worker that hasn't told anything yet has one of the trials that run and that no other worker is at.
        """
        those, lines = self.place.below(pid), self.newest()
        seeds = {lines[each].seed for each in those if each in lines}
        if not seeds or len(those) > PARENT_AND_WORKER:
            others = set(self.place.workers()) - those
            taken = {lines[each].seed for each in others if each in lines and lines[each].epoch < EPOCHS}
            now = stored(self.place.database) if self.place.database.exists() else {}
            running = {trial_seed(number, self.seed) for number, kept in now.items() if kept.state == "RUNNING"}
            seeds |= running - taken
        self.killed |= those | self.place.below(pid)  # those, too, that it has started since they were looked for
        self.deaths.update(seeds)

    def died(self) -> bool:
        """Note that a worker has killed itself as it was planned: one that is gone before it had trained its trial to
        the end, or whose trial still isn't over. Return whether there is one that wasn't noted yet.
        """
        lines, there, now = self.newest(), {*self.place.workers(), *self.killed}, stored(self.place.database)
        running = {trial_seed(number, self.seed) for number, kept in now.items() if kept.state not in OVER}
        gone = [line for pid, line in lines.items() if pid not in there]
        gone = [line for line in gone if line.epoch < EPOCHS or line.seed in running]
        for line in sorted(gone, key=lambda line: (line.epoch == EPOCHS, line.time))[:1]:
            self.killed.add(line.pid)
            self.deaths[line.seed] += 1
        return bool(gone)

    def newest(self) -> dict[int, Told]:
        """Return the newest line of each process of the newest run."""
        return {line.pid: line for line in account(self.place.account, self.runs[-1].account)}

    def look(self) -> dict[int, Kept]:
        """Compare what the storage holds now with what it held before; return it."""
        if not self.place.database.exists():
            if self.seen:
                self._add("lost", "the database is gone")
            return {}
        now = stored(self.place.database)
        length = self.place.account.stat().st_size if self.place.account.exists() else 0
        for number, before in self.seen.items():
            if number not in now:
                self._add("lost", f"trial {number} had ended and is gone")
            elif now[number].rows != before.rows:
                self._add("changed", f"trial {number} had ended: {before.rows[:300]} -> {now[number].rows[:300]}")
        for number, kept in now.items():
            if kept.state in OVER and number not in self.seen:
                self.seen[number], self.seen_at[number] = kept, length
        return now

    def after(self, run: Run) -> None:
        """Look at what a run that has ended leaves, however it ended: no process, a whole database, what it told."""
        for orphan in no_orphans(self.place):
            self._add("orphan", orphan)
        text = run.text()
        if "Traceback" in text:
            self._add("traceback", text[text.index("Traceback") :][-800:])
        if not self.place.database.exists():
            return
        now = self.look()
        self.found += torn(self.place.database)
        for number, state in ENDED.findall(text):
            kept = now.get(int(number))
            if kept is None or kept.state not in OVER:
                self._add("lost", f"trial {number} was told to be {state} and is {kept.state if kept else 'not there'}")

    def finish(self, run: Run, trials: int, reference: Mapping[int, Mapping[str, Any]], codes=(0,)) -> list[Violation]:
        """Look at a study that should be whole now, and return everything that was found of it."""
        code = run.wait()
        if code not in codes:
            self._add("code", f"exit code {code} in the end: {run.text()[-800:]}")
        self.after(run)
        now = self.look() if self.place.database.exists() else {}
        if sorted(now) != list(range(trials)):
            self._add("lost", f"{trials} trials were wanted, the storage holds {sorted(now)}")
        for number, kept in sorted(now.items()):
            if kept.state not in OVER:
                self._add("left", f"trial {number} is {kept.state} in the end")
            self._compare(kept, reference.get(number))
        self.found += [*self._doubled(), *self._contradictions(now), *self._weights(now), *left_over(self.place)]
        return self.found

    def _compare(self, kept: Kept, same: Mapping[str, Any] | None) -> None:
        if same is None or kept.essence() == same:
            return
        mine, deaths = kept.essence(), self.deaths[trial_seed(kept.number, self.seed)]
        if "worker process died" in kept.record.get("error", "") and deaths > 1:
            self.gave_up.append(kept.number)  # else code that always ends its process would be run for ever
            return
        differing = [key for key in mine if mine[key] != same[key]]
        error = kept.record.get("error", "")
        self._add("failed" if kept.state == "FAIL" else "differs", f"trial {kept.number}: {differing} {error}")

    def _doubled(self) -> Iterator[Violation]:
        """Yield trials that were trained after they had ended, or twice at once."""
        seeds = {trial_seed(number, self.seed): number for number in self.seen}
        last: dict[int, Told] = {}
        starts = [run.account for run in self.runs]
        for line in account(self.place.account):
            number, before = seeds.get(line.seed), last.get(line.seed)
            if number is not None and line.place >= self.seen_at[number]:
                yield Violation("doubled", f"trial {number} had ended and was trained: {line}")
            again = before is not None and line.begun and not any(before.place < each <= line.place for each in starts)
            if again and before is not None and before.pid not in self.killed:
                yield Violation(
                    "doubled", f"{line.seed} was begun again in the same run, and nobody had killed {before}"
                )
            if before is not None and not line.begun and line.pid != before.pid:
                yield Violation("doubled", f"two processes trained {line.seed}: {before}, {line}")
            last[line.seed] = line

    def _contradictions(self, now: Mapping[int, Kept]) -> Iterator[Violation]:
        """Yield where the account contradicts itself or what is stored: the same epoch has the same weights whoever
        trained it, and a trial that is complete has been trained from its first epoch to its last.
        """
        weights: dict[tuple[int, int], str] = {}
        for line in account(self.place.account):
            if line.begun:
                continue
            if weights.setdefault((line.seed, line.epoch), line.weights) != line.weights:
                yield Violation("differs", f"epoch {line.epoch} of {line.seed} has other weights than before: {line}")
        seen = defaultdict(set)
        for seed, epoch in weights:
            seen[seed].add(epoch)
        for number, kept in now.items():
            if kept.state == "COMPLETE" and seen[trial_seed(number, self.seed)] != set(range(1, EPOCHS + 1)):
                epochs = sorted(seen[trial_seed(number, self.seed)])
                yield Violation("invented", f"trial {number} is complete, and these epochs were trained: {epochs}")

    def _weights(self, now: Mapping[int, Kept]) -> Iterator[Violation]:
        """Yield files of weights that aren't those of the epoch that the trial kept."""
        told = {(line.seed, line.epoch): line.weights for line in account(self.place.account) if not line.begun}
        files = {path: int(path.stem) for path in (self.place.left / "weights").glob("[0-9]*.safetensors")}
        best = self.place.left / "best.json"
        if not best.exists():
            yield Violation("lost", "there is no best.json")
        else:
            files[self.place.left / "model.safetensors"] = json.loads(best.read_text())["trial"]
        for path, number in files.items():
            score = now[number].record.get("score") if number in now else None
            expected = told.get((trial_seed(number, self.seed), score["epoch"])) if score else None
            if weights_of(path) != expected:
                yield Violation("differs", f"{path.name} isn't what epoch {score and score['epoch']} of {number} was")

    def _add(self, kind: str, text: str) -> None:
        self.found.append(Violation(kind, text))


def left_over(place: Place) -> Iterator[Violation]:
    """Yield files that a whole study has no use for."""
    for path in sorted(place.studies.rglob("*")):
        if path.name.endswith((".part", ".tmp", "-journal")) or path.name == ".data":
            yield Violation("leftover", str(path.relative_to(place.studies)))


def counted(found: Iterable[Violation]) -> dict[str, int]:
    """Return how many of each kind."""
    return dict(sorted(Counter(each.kind for each in found).items()))


def file_hashes(place: Place) -> dict[str, str]:
    """Return the hash of each file of weights that a study leaves, byte for byte."""
    paths = [*(place.left / "weights").glob("*.safetensors"), place.left / "model.safetensors"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}
