"""What to try next: the first trials, then Optuna's sampler over all that is known.

Decides how a space's ranges become Optuna's distributions, and how the sampler is seeded: by the study's seed
and the trial's number, so that a resumed study goes on as an uninterrupted one would. Knows no training and no
storage: it asks an in-memory copy of the study, which costs milliseconds where a database costs ten times that.
"""

from __future__ import annotations

import bisect
import copy
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.record import BASELINE, TrialRecord
from tuner.space import Choice, Domain, Range, Space, same

OFF = ".off"
BEST, NEWEST = 60, 240
Suggested = dict[str, tuple[Any, BaseDistribution]]
ENDED = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

REGULARIZERS = ("regularization.dropout", "regularization.l1", "regularization.l2", "augmentation.strength")
SMOOTHING = "regularization.label_smoothing"
LIGHT = dict(zip(REGULARIZERS, (0.1, 0.0, 1e-2, 0.3), strict=True)) | {SMOOTHING: 0.0}
STRONG = dict(zip(REGULARIZERS, (0.4, 0.0, 0.3, 0.6), strict=True)) | {SMOOTHING: 0.1}
NONE = dict.fromkeys((*REGULARIZERS, SMOOTHING, "augmentation.mixup"), 0.0)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to try: values of the active domains, values outside the space, and what it is called."""

    values: Mapping[str, Any]
    label: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)


def first_trials(space: Space) -> list[Proposal]:
    """Return the points that a study starts with: the user's own, then no, light and strong regularization and
    half and double model size, each once; for a space without ranges, it and its baseline.

    The second kind is the baseline: the middle of the space with every regularizer at 0, also where the space
    holds no 0 or fixes another value. A space with `search.first_trials: false` still has its baseline.
    """
    middle = space.middle()
    if "training.epochs" in middle and isinstance(epochs := space.domains["training.epochs"], Range):
        middle["training.epochs"] = epochs.top
    found = [Proposal(space.middle({**middle, **point}), "yours") for point in space.config.search.enqueue]
    if not space.domains:
        found.append(Proposal({}, "configuration"))
    found.append(_baseline(space, middle))
    if space.config.search.first_trials and space.domains:
        found.append(Proposal(_moved(space, middle, LIGHT), "light"))
        found.append(Proposal(_moved(space, middle, STRONG), "strong"))
        for label, factor in (("half size", 0.5), ("double size", 2.0)):
            size = {"model.width": middle["model.width"] * factor} if "model.width" in middle else {}
            if size:
                found.append(Proposal(_moved(space, middle, LIGHT | size), label))
    return _distinct(found)


def _baseline(space: Space, middle: Mapping[str, Any]) -> Proposal:
    """Return the middle without any regularization; what the space can't switch off is overridden."""
    off = {name: 0.0 for name in NONE if name in middle and 0.0 in space.domains[name]}
    values = space.middle({**middle, **off})
    config = space.at(values)
    overrides = {name: 0.0 for name in NONE if config[name] != 0}
    return Proposal({name: value for name, value in values.items() if name not in overrides}, BASELINE, overrides)


def _moved(space: Space, middle: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the middle with the wanted values, each brought into its domain."""
    values = dict(middle)
    for name, value in wanted.items():
        domain = space.domains.get(name)
        if domain is not None and name in values:
            values[name] = _nearest(domain, value)
    return space.middle(values)


def _nearest(domain: Domain, value: float) -> Any:
    if isinstance(domain, Range):
        return domain.alternative if _is_alternative(domain, value) else domain.nearest(value)
    numbers = [choice for choice in domain.choices if isinstance(choice, (int, float)) and not isinstance(choice, bool)]
    return min(numbers, key=lambda choice: abs(choice - value)) if numbers else domain.choices[0]


def _is_alternative(domain: Range, value: Any) -> bool:
    """Tell whether a value is the one outside the range; an alternative never lies inside it."""
    return domain.has_alternative and same(value, domain.alternative)


def _distinct(proposals: list[Proposal]) -> list[Proposal]:
    """Return each point once, at its first place; one that is the baseline is called so."""
    kept: list[Proposal] = []
    for proposal in proposals:
        points = [(other.values, other.overrides) for other in kept]
        if (point := (proposal.values, proposal.overrides)) not in points:
            kept.append(proposal)
        elif proposal.label == BASELINE:
            kept[points.index(point)] = proposal
    return kept


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial: a function of the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class _Copy(InMemoryStorage):
    """The in-memory copy of a study. Of more than 300 finished trials the sampler sees the 60 best and the 240 newest.

    What a proposal costs grows with what the sampler sees. TPE models the best 25 trials against all others, so the
    best ones are all there, and the newest stand for the others. Which ones these are is kept as trials end: to look
    through ten thousand costs more than to propose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.best, self.ended, self.open = list[tuple[float, int]](), list[int](), set[int]()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._placed(super().create_new_trial(study_id, template_trial))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        self._placed(trial_id)
        return changed

    def _placed(self, trial_id: int) -> int:
        trial = self.get_trial(trial_id)  # the numbers of the only study's trials rise as their ids do
        if not trial.state.is_finished():
            self.open.add(trial_id)
            return trial_id
        self.open.discard(trial_id)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            bisect.insort(self.ended, trial_id)
        if trial.state == TrialState.COMPLETE:
            bisect.insort(self.best, (-(trial.value or 0.0), trial_id))
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if len(self.ended) + len(self.open) <= BEST + NEWEST or states == (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        kept = {*(trial_id for _, trial_id in self.best[:BEST]), *self.ended[-NEWEST:], *self.open}
        trials = [self.get_trial(trial_id) for trial_id in sorted(kept)]
        found = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


class Proposer:
    """Proposes points, given every trial so far in the order of their numbers."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed
        self.first = first_trials(space)
        with quiet():
            self.study = optuna.create_study(direction="maximize", storage=_Copy())
        self.storage, self.study_id = self.study._storage, self.study._study_id

    def remember(self, record: TrialRecord) -> None:
        """Take in a trial from the storage; they come in the order of their numbers."""
        self._add(self.suggested(record.values))
        if record.state in ENDED:
            self.tell(record)

    def propose(self, number: int) -> tuple[Proposal, Suggested]:
        """Return the point of trial `number` and its parameters as Optuna stores them."""
        if number < len(self.first):
            proposal = self.first[number]
            suggested = self.suggested(proposal.values)
            self._add(suggested)
            return proposal, suggested
        self.study.sampler = self._sampler(trial_seed(self.seed + 1, number))
        values: dict[str, Any] = {}
        with _quick_normal():
            trial = self.study.ask()
            for name, domain in self.space.domains.items():
                if self.space.active(name, values):
                    values[name] = _suggest(trial, name, domain)
        return Proposal(values), self.suggested(values)

    def tell(self, record: TrialRecord) -> None:
        """Take in how a trial ended."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, record.number)
        value = record.score.value if record.score is not None else None
        if record.curve is not None and value is not None and record.state == "pruned":
            self.storage.set_trial_intermediate_value(trial_id, len(record.curve), value)
        values = None if value is None or record.state == "failed" else [value]
        self.storage.set_trial_state_values(trial_id, ENDED[record.state], values)

    def suggested(self, values: Mapping[str, Any]) -> Suggested:
        """Return the values with the distributions that they are points of."""
        found: Suggested = {}
        for name, value in values.items():
            domain = self.space.domains[name]
            if isinstance(domain, Range) and domain.has_alternative:
                off = _is_alternative(domain, value)
                found[name + OFF] = (off, CategoricalDistribution((False, True)))
                if off:
                    continue
            kind = distribution(domain)
            found[name] = (min(value, kind.high) if isinstance(kind, FloatDistribution) else value, kind)
        return found

    def _add(self, suggested: Suggested) -> None:
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: value for name, (value, _) in suggested.items()},
            distributions={name: kind for name, (_, kind) in suggested.items()},
        )
        self.storage.create_new_trial(self.study_id, template)

    def _sampler(self, seed: int) -> BaseSampler:
        if self.space.config.search.sampler == "random":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(seed=seed, group=True)


@contextmanager
def _quick_normal() -> Iterator[None]:
    """Let TPE take the logarithm of the normal distribution function from SciPy.

    Optuna's own is the same function written in Python, called thousands of times: a third of what a proposal costs.
    """
    from optuna.samplers._tpe import _truncnorm
    from scipy.special import log_ndtr

    own = _truncnorm._log_ndtr
    _truncnorm._log_ndtr = log_ndtr
    try:
        yield
    finally:
        _truncnorm._log_ndtr = own


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from announcing the in-memory copy, which is nobody's study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def distribution(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution of a domain (of the range alone, if it has an alternative)."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.choices)
    if domain.integer:
        low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
        return IntDistribution(low, low + (high - low) // step * step, log=domain.log, step=step)
    return FloatDistribution(domain.low, float(domain.top), log=domain.log, step=domain.step)


def _suggest(trial: optuna.Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.choices)
    if domain.has_alternative and trial.suggest_categorical(name + OFF, (False, True)):
        return domain.alternative
    kind = distribution(domain)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, log=kind.log, step=kind.step)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(name, kind.low, kind.high, log=kind.log, step=kind.step)
