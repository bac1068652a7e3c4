"""What is tried next: the first trials, and that every later one is a function of what is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner import proposing
from tuner.config import RunConfig
from tuner.curve import Curve
from tuner.planning import total_trials
from tuner.proposing import NONE, OFF, Proposal, Proposer, distribution, first_trials, trial_seed
from tuner.record import TrialRecord
from tuner.scoring import Score
from tuner.space import Choice, Domain, Range, Space

L1, L2, DROPOUT = "regularization.l1", "regularization.l2", "regularization.dropout"
STRENGTH, SMOOTHING = "augmentation.strength", "regularization.label_smoothing"
WIDTH, RATE, EPOCHS = "model.width", "training.learning_rate", "training.epochs"
FULL: dict[str, Domain] = {
    WIDTH: Range(16, 256, log=True, integer=True),
    DROPOUT: Range(0.0, 0.6),
    L1: Range(1e-3, 0.3, log=True, alternative=0.0, has_alternative=True),
    L2: Range(1e-5, 1.0, log=True, alternative=0.0, has_alternative=True),
    SMOOTHING: Range(0.0, 0.2),
    STRENGTH: Range(0.0, 1.0),
    EPOCHS: Range(10, 60, integer=True),
    RATE: Range(1e-4, 1e-2, log=True),
    "training.batch_size": Choice((32, 64, 128)),
}


def space_of(domains: Mapping[str, Domain], **given: Any) -> Space:
    """A space of these domains; `given` are dotted names with two underscores for the dot."""
    values = {name.replace("__", "."): value for name, value in given.items()}
    config = RunConfig.model_validate({"data": {"source": "sklearn:digits"}}).replace(values)
    space = Space(dict(domains), values, config)
    return replace(space, config=config.replace(space.middle()))


def labels(space: Space) -> list[str]:
    return [proposal.label for proposal in first_trials(space)]


def named(space: Space, label: str) -> Proposal:
    return next(proposal for proposal in first_trials(space) if proposal.label == label)


class TestFirstTrials:
    def test_they_are_yours_the_baseline_light_strong_half_and_double(self) -> None:
        space = space_of(FULL, search__enqueue=[{DROPOUT: 0.25, RATE: 5e-3}])
        assert labels(space) == ["yours", "baseline", "light", "strong", "half size", "double size"]
        mine = named(space, "yours")
        assert (mine.values[DROPOUT], mine.values[RATE], mine.values[WIDTH]) == (0.25, 5e-3, 64)

    def test_light_and_strong_are_as_measured(self) -> None:
        names = (DROPOUT, L1, L2, STRENGTH, SMOOTHING)
        points = {label: named(space_of(FULL), label).values for label in ("light", "strong")}
        assert [points["light"][name] for name in names] == [0.1, 0.0, 1e-2, 0.3, 0.0]
        assert [points["strong"][name] for name in names] == [0.4, 0.0, 0.3, 0.6, 0.1]

    def test_half_and_double_size_are_of_the_middle_and_otherwise_light(self) -> None:
        space = space_of(FULL)
        light = named(space, "light").values
        sizes = {label: named(space, label).values for label in ("half size", "double size")}
        assert (sizes["half size"][WIDTH], light[WIDTH], sizes["double size"][WIDTH]) == (32, 64, 128)
        assert {**sizes["half size"], WIDTH: 64} == light == {**sizes["double size"], WIDTH: 64}

    def test_they_have_the_whole_epoch_budget(self) -> None:
        assert {proposal.values[EPOCHS] for proposal in first_trials(space_of(FULL))} == {60}

    def test_the_baseline_has_no_regularization(self) -> None:
        baseline = named(space_of(FULL), "baseline")
        assert baseline.overrides == {}
        assert {name: baseline.values.get(name, 0.0) for name in NONE} == dict.fromkeys(NONE, 0.0)

    def test_a_regularizer_that_the_space_cannot_switch_off_is_overridden_in_the_baseline(self) -> None:
        space = space_of(FULL | {L2: Range(1e-3, 1.0, log=True), DROPOUT: Choice((0.2, 0.5))})
        baseline = named(space, "baseline")
        assert baseline.overrides == {L2: 0.0, DROPOUT: 0.0}
        assert not {L2, DROPOUT} & baseline.values.keys()

    def test_a_regularizer_that_the_space_fixes_is_overridden_in_the_baseline(self) -> None:
        domains = {name: domain for name, domain in FULL.items() if name not in (L1, STRENGTH)}
        space = space_of(domains, regularization__l1=0.1, augmentation__strength=0.5)
        assert named(space, "baseline").overrides == {L1: 0.0, STRENGTH: 0.0}

    def test_a_regularizer_that_depends_on_another_is_off_in_the_baseline(self) -> None:
        weights = Range(0.0, 1.0, when={DROPOUT: (0.0,)})
        space = space_of({DROPOUT: Choice((0.5, 0.0)), L2: weights})
        baseline = named(space, "baseline")
        config = space.at({**baseline.values, **baseline.overrides})
        assert (config[DROPOUT], config[L2]) == (0.0, 0.0)

    def test_each_is_another_point(self) -> None:
        space = space_of({DROPOUT: Range(0.0, 0.1)})
        points = [(proposal.values, proposal.overrides) for proposal in first_trials(space)]
        assert labels(space) == ["baseline", "light"]
        assert all(point not in points[:i] for i, point in enumerate(points))

    def test_your_own_point_that_is_the_baseline_is_called_baseline(self) -> None:
        off = dict.fromkeys(NONE, 0.0)
        assert labels(space_of(FULL, search__enqueue=[off]))[:2] == ["baseline", "light"]

    def test_without_first_trials_there_are_yours_and_the_baseline(self) -> None:
        space = space_of(FULL, search__enqueue=[{RATE: 1e-3}], search__first_trials=False)
        assert labels(space) == ["yours", "baseline"]

    def test_a_space_without_ranges_is_its_configuration_and_its_baseline(self) -> None:
        space = space_of({}, regularization__dropout=0.3)
        assert first_trials(space) == [Proposal({}, "configuration"), Proposal({}, "baseline", {DROPOUT: 0.0})]
        assert total_trials(space) == 2

    def test_a_configuration_without_regularization_is_its_own_baseline(self) -> None:
        assert first_trials(space_of({})) == [Proposal({}, "baseline")]
        assert total_trials(space_of(FULL)) == space_of(FULL).config.budget.trials

    def test_a_stepped_range_that_its_steps_do_not_fill_has_first_trials(self) -> None:
        proposer = Proposer(space_of({DROPOUT: Range(0.0, 0.35, step=0.1)}), 0)
        for number in range(len(proposer.first)):
            value, kind = proposer.propose(number)[1][DROPOUT]
            assert kind._contains(value)

    def test_a_value_that_rounding_put_above_the_last_step_is_stored_as_that_step(self) -> None:
        proposer = Proposer(space_of({DROPOUT: Range(0.0, 0.35, step=0.1)}), 0)
        assert proposer.suggested({DROPOUT: 0.1 * 3})[DROPOUT] == (0.3, FloatDistribution(0.0, 0.3, step=0.1))

    @pytest.mark.parametrize("other", [None, "none", 7.0])
    def test_an_alternative_other_than_zero_is_not_taken_for_it(self, other: Any) -> None:
        domain = Range(0.1, 0.5, alternative=other, has_alternative=True)
        point = proposing._moved(
            space_of({"model.options.x": domain}), {"model.options.x": 0.2}, {"model.options.x": 0.0}
        )
        assert point == {"model.options.x": 0.1}


NUMBERS = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@st.composite
def regularizer(draw: st.DrawFn) -> Domain | None:
    low, width = round(draw(NUMBERS) * 0.4, 4), round(draw(NUMBERS) * 0.4 + 0.01, 4)
    kind = draw(st.sampled_from(["range", "or 0", "log", "step", "choice", "fixed"]))
    if kind == "fixed":
        return None
    if kind == "choice":
        return Choice(tuple(dict.fromkeys((low, 0.0, width))))
    if kind == "step":
        return Range(low, round(low + width, 4), step=round(width / 2.5, 5))
    zero = {"alternative": 0.0, "has_alternative": True} if kind == "or 0" else {}
    return Range(low + 0.01, low + 0.01 + width, log=kind == "log", **zero)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    chosen = {name: domain for name in NONE if (domain := draw(regularizer())) is not None}
    assume(all(not isinstance(domain, Range) or domain.high < 1 for domain in chosen.values()))
    if draw(st.booleans()):
        chosen[WIDTH] = Range(8, draw(st.integers(9, 512)), log=draw(st.booleans()), integer=True)
    if draw(st.booleans()) and DROPOUT in chosen and isinstance(chosen[DROPOUT], Choice):
        chosen["model.depth"] = Range(1, 4, integer=True, when={DROPOUT: (0.0,)})
    return space_of(chosen, regularization__l1=0.05 if L1 not in chosen else 0.0)


@settings(max_examples=60)
@given(spaces())
def test_first_trials_lie_in_the_space_and_are_distinct_and_one_is_unregularized(space: Space) -> None:
    found = first_trials(space)
    proposer = Proposer(space, 0)
    for proposal in found:
        assert all(value in space.domains[name] for name, value in proposal.values.items())
        assert all(kind._contains(kind.to_internal_repr(v)) for v, kind in proposer.suggested(proposal.values).values())
    baselines = [proposal for proposal in found if proposal.label == "baseline"]
    assert len(baselines) == 1
    config = space.at({**baselines[0].values, **baselines[0].overrides})
    assert [config[name] for name in NONE] == [0.0] * len(NONE)


# What follows the first trials.


def ended(number: int, values: Mapping[str, Any], curve: Curve) -> TrialRecord:
    """How the trial of a point ends: a function of the point, with pruned and failed ones among them."""
    worth = -abs(math.log10(values[RATE]) + 2.5) - values[DROPOUT] - (0.3 if values.get(L1, 0.0) else 0.0)
    state = ("complete", "complete", "pruned", "complete", "failed")[number % 5]
    score = Score(worth, len(curve), "log_loss", worth, 0.0, 0.0, 0.0)
    return TrialRecord(number, state, values, 0, curve=curve, score=score)  # type: ignore[arg-type]


SEARCHED = {name: FULL[name] for name in (WIDTH, DROPOUT, L1, RATE, "training.batch_size")}
CONDITIONAL = SEARCHED | {
    "model.family": Choice(("mlp", "cnn")),
    "model.depth": Range(1, 4, integer=True, when={"model.family": ("cnn",)}),
}


class Run:
    """A study in memory: proposes, ends, and can be begun again from its records."""

    def __init__(self, space: Space, seed: int, make_curve: Callable[..., Curve]) -> None:
        self.space, self.seed, self.curve = space, seed, make_curve([1.0] * 6)
        self.records: list[TrialRecord] = []
        self.resume()

    def resume(self) -> None:
        self.proposer = Proposer(self.space, self.seed)
        for record in self.records:
            self.proposer.remember(TrialRecord.from_json(record.number, record.state, record.to_json()))

    def go(self, total: int) -> list[Mapping[str, Any]]:
        for number in range(len(self.records), total):
            proposal, suggested = self.proposer.propose(number)
            assert suggested == self.proposer.suggested(proposal.values)
            record = ended(number, proposal.values, self.curve)
            self.proposer.tell(record)
            self.records.append(record)
        return [record.values for record in self.records]


@pytest.mark.parametrize("domains", [SEARCHED, CONDITIONAL], ids=["plain", "conditional"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
class TestSearch:
    def test_an_interrupted_study_proposes_what_an_uninterrupted_one_does(
        self, domains: Mapping[str, Domain], sampler: str, make_curve: Callable[..., Curve]
    ) -> None:
        space = space_of(domains, search__sampler=sampler)
        whole = Run(space, 3, make_curve).go(24)
        broken = Run(space, 3, make_curve)
        for total in (3, 7, 12, 17, 20, 24):
            broken.go(total)
            broken.resume()
        assert [record.values for record in broken.records] == whole

    def test_a_trial_that_was_under_way_changes_nothing_when_it_is_run_again(
        self, domains: Mapping[str, Domain], sampler: str, make_curve: Callable[..., Curve]
    ) -> None:
        space = space_of(domains, search__sampler=sampler)
        whole = Run(space, 3, make_curve).go(16)
        broken = Run(space, 3, make_curve)
        broken.go(14)
        last = broken.records[13]
        broken.records[13] = replace(last, state="running", curve=None, score=None)
        broken.resume()
        broken.records[13] = last
        broken.proposer.tell(last)
        assert broken.go(16) == whole

    def test_other_seeds_give_other_points_after_the_first_trials(
        self, domains: Mapping[str, Domain], sampler: str, make_curve: Callable[..., Curve]
    ) -> None:
        space = space_of(domains, search__sampler=sampler)
        one, two = (Run(space, seed, make_curve).go(14) for seed in (0, 1))
        first = len(first_trials(space))
        assert one[:first] == two[:first]
        assert all(mine != other for mine, other in zip(one[first:], two[first:], strict=True))

    def test_every_point_lies_in_the_space_with_exactly_its_active_domains(
        self, domains: Mapping[str, Domain], sampler: str, make_curve: Callable[..., Curve]
    ) -> None:
        space = space_of(domains, search__sampler=sampler)
        for values in Run(space, 5, make_curve).go(24):
            assert all(value in space.domains[name] for name, value in values.items())
            assert list(values) == [name for name in space.domains if space.active(name, values)]


def test_the_sampler_learns_where_scores_are_high(make_curve: Callable[..., Curve]) -> None:
    points = Run(space_of(SEARCHED), 0, make_curve).go(60)
    off = [abs(math.log10(values[RATE]) + 2.5) for values in points]
    assert sum(off[-20:]) / 20 < 0.7 * sum(off[6:16]) / 10


def test_a_pruned_trial_counts_by_how_far_it_got_and_with_its_score_there(make_curve: Callable[..., Curve]) -> None:
    run = Run(space_of(SEARCHED), 0, make_curve)
    run.go(5)
    pruned, failed = run.proposer.study.trials[2], run.proposer.study.trials[4]
    worth = run.records[2].score
    assert worth is not None
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {6: worth.value})
    assert (failed.state.name, failed.values) == ("FAIL", None)


def test_two_workers_ask_before_they_tell_and_get_different_points() -> None:
    proposer = Proposer(space_of(SEARCHED), 0)
    points = [proposer.propose(number)[0].values for number in range(20)]
    assert all(point not in points[:i] for i, point in enumerate(points))


def test_what_is_off_is_a_switch_of_its_own_for_the_sampler() -> None:
    proposer = Proposer(space_of({L1: FULL[L1]}), 0)
    assert proposer.suggested({L1: 0.0}) == {L1 + OFF: (True, CategoricalDistribution((False, True)))}
    on = proposer.suggested({L1: 0.01})
    assert on[L1 + OFF][0] is False
    assert on[L1] == (0.01, FloatDistribution(1e-3, 0.3, log=True))


def test_a_value_that_rounding_put_beside_its_range_is_not_taken_for_off() -> None:
    beside = math.nextafter(1e-3, 0.0)
    assert Proposer(space_of({L1: FULL[L1]}), 0).suggested({L1: beside})[L1 + OFF][0] is False


def test_the_seed_of_a_trial_is_a_function_of_study_seed_and_number() -> None:
    seeds = {(seed, number): trial_seed(seed, number) for seed in (0, 1, 2**32 - 1) for number in range(50)}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    assert trial_seed(0, 0) == 2968811710  # a stored study is replayed by it: it must never change


@given(st.integers(0, 10), st.integers(0, 40), st.integers(1, 7), st.data())
def test_the_distribution_of_a_stepped_whole_number_has_the_members_of_the_range(
    low: int, span: int, step: int, data: st.DataObject
) -> None:
    assume(step <= span)
    domain = Range(low, low + span, step=step, integer=True)
    kind = distribution(domain)
    assert isinstance(kind, IntDistribution)
    assert [v for v in range(low - 2, low + span + 3) if v in domain] == list(range(kind.low, kind.high + 1, kind.step))


@given(st.integers(1, 20), st.integers(0, 300), st.booleans())
def test_the_distribution_of_whole_numbers_has_the_members_of_the_range(low: int, span: int, log: bool) -> None:
    domain, kind = (
        Range(low, low + span, log=log, integer=True),
        distribution(Range(low, low + span, log=log, integer=True)),
    )
    assert kind == IntDistribution(low, low + span, log=log)
    assert all(kind._contains(v) == (v in domain) for v in range(low - 2, low + span + 3))


@given(st.integers(-300, 300), st.integers(1, 300), st.integers(1, 50), st.sampled_from([0.1, 0.01, 1e-3, 0.25]))
def test_the_distribution_of_a_stepped_number_ends_on_a_step_within_the_range(
    low: int, span: int, step: int, unit: float
) -> None:
    assume(step <= span)
    low_, high, step_ = (round(value * unit, 6) for value in (low, low + span, step))  # as a person writes them
    domain = Range(low_, high, step=step_)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind = distribution(domain)
    assert isinstance(kind, FloatDistribution)
    assert kind.high == pytest.approx(domain.nearest(domain.high))
    assert kind.high in domain


def test_the_distribution_of_numbers_has_the_bounds_and_the_scale_of_the_range() -> None:
    assert distribution(Range(0.1, 0.5)) == FloatDistribution(0.1, 0.5)
    assert distribution(Range(1e-4, 1.0, log=True)) == FloatDistribution(1e-4, 1.0, log=True)
    assert distribution(Choice(("a", None, 3, True))) == CategoricalDistribution(("a", None, 3, True))


def test_a_range_of_one_value_is_proposed() -> None:
    space = space_of({RATE: Range(1e-3, 1e-3, log=True), WIDTH: Range(8, 8, log=True, integer=True)})
    proposer = Proposer(space, 0)
    assert [proposer.propose(number)[0].values for number in range(4)] == [{RATE: 1e-3, WIDTH: 8}] * 4


def test_of_a_long_history_the_sampler_sees_the_best_and_the_newest_and_all_that_run() -> None:
    study = optuna.create_study(direction="maximize", storage=proposing._Copy())
    for number in range(500):
        study.add_trial(optuna.trial.create_trial(value=-abs(number - 50.0)))
    running = study.ask()
    seen = {trial.number for trial in study.get_trials(deepcopy=False)}
    assert seen == {*range(21, 80), 20} | set(range(260, 500)) | {running.number}
    assert len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) == 300


def test_the_copy_in_memory_is_not_announced(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        Proposer(space_of(SEARCHED), 0)
        assert capfd.readouterr() == ("", "")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
