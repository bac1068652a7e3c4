"""What a range contains, agreed with Optuna; what is active; which configuration a point is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from pydantic import ValidationError
from test_grammar import CALM, spaces

from tuner.grammar import parse_space
from tuner.proposing import Proposer, distribution, first_trials
from tuner.record import TrialRecord
from tuner.space import Choice, Range, Space, differences, same

DATA = "data: {source: sklearn:digits}\n"


def space(text: str) -> Space:
    return parse_space(DATA + text, Path("/tmp"))


@st.composite
def integer_ranges(draw) -> Range:
    low = draw(st.integers(-1000, 2**53 - 1))
    high = draw(st.integers(low, min(low + draw(st.sampled_from([5, 1000, 2**53])), 2**53)))
    if low > 0 and draw(st.booleans()):
        return Range(low, high, log=True, integer=True)
    step = draw(st.none() | st.integers(1, max(1, high - low)))
    return Range(low, high, step=step, integer=True)


@st.composite
def float_ranges(draw) -> Range:
    if draw(st.booleans()):
        unit = draw(st.sampled_from([1.0, 10.0, 100.0, 1000.0]))
        low = draw(st.integers(-1000, 1000))
        high, step = low + draw(st.integers(1, 1000)), draw(st.integers(1, 50))
        assume(step <= high - low)
        return Range(low / unit, high / unit, step=step / unit)
    low, high = sorted(draw(st.tuples(*[st.floats(-1e300, 1e300)] * 2)))
    return Range(low, high, log=low > 0 and draw(st.booleans()))


RANGES = integer_ranges() | float_ranges()
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)


@given(RANGES, NUMBERS)
@settings(CALM, max_examples=200)
def test_nearest_is_always_contained_and_is_its_own_nearest(found, value):
    member = found.nearest(value)
    assert member in found
    assert found.nearest(member) == member
    assert type(member) is (int if found.integer else float)


@given(RANGES)
@settings(CALM, max_examples=200)
def test_the_middle_is_contained_and_optuna_has_the_same_bounds(found):
    assert found.middle() in found
    kind = distribution(found)
    assert isinstance(kind, IntDistribution if found.integer else FloatDistribution)
    assert (kind.low, kind.high, kind.log) == (found.low, found.top, found.log)


@given(RANGES, NUMBERS, st.integers(0, 100))
@settings(CALM, max_examples=200)
def test_optuna_agrees_about_what_a_range_contains(found, value, steps):
    kind = distribution(found)
    for number in (
        value,
        found.nearest(value),
        found.low + steps * (found.step or 1),
        found.low,
        found.high,
        found.top,
    ):
        if not found.integer or float(number).is_integer():
            # Optuna holds a parameter as a float.
            assert (number in found) == kind._contains(float(number)), number


@given(integer_ranges())
@settings(CALM, max_examples=100)
def test_a_whole_number_range_counts_exactly(found):
    step = int(found.step or 1)
    assert found.top == max(found.low, found.low + (found.high - found.low) // step * step)
    assert (found.low + 1 in found) == (step == 1 and found.high > found.low)


@pytest.mark.parametrize(
    ("low", "high", "step", "top"),
    [(0.0, 1.0, 0.3, 0.9), (0.0, 1.0, 0.1, 1.0), (0.1, 0.7, 0.2, 0.7), (0.0, 0.95, 0.1, 0.9), (-0.5, 0.5, 0.4, 0.3)],
)
def test_a_high_between_two_steps_is_no_member_and_optuna_has_nothing_to_warn_of(low, high, step, top):
    found = Range(low, high, step=step)
    assert (found.top, found.nearest(high), high in found) == (top, top, high == top)
    assert distribution(found).high == top


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1", None, True, [1], 10**400, -(10**400)])
def test_what_is_no_number_of_the_range_is_simply_not_contained(value):
    assert value not in Range(1, 4, integer=True)
    assert value not in Range(0.5, 4.0)
    assert value not in Range(0.0, 4.0, step=0.5)


def test_a_range_with_an_alternative_contains_it_and_starts_there():
    for alternative in (0, 0.0, None, "auto", True):
        found = Range(2, 8, integer=True, alternative=alternative, has_alternative=True)
        assert alternative in found
        assert found.middle() == alternative
    assert None not in Range(2, 8, integer=True)
    assert True not in Range(2, 8, integer=True, alternative=1, has_alternative=True)
    assert 1 not in Range(2, 8, integer=True, alternative=True, has_alternative=True)


def test_the_middle_of_a_range_is_on_its_own_scale():
    assert Range(16, 256, log=True, integer=True).middle() == 64
    assert Range(1e-4, 1e-2, log=True).middle() == pytest.approx(1e-3)
    assert Range(1e-300, 1e300, log=True).middle() == pytest.approx(1.0)
    assert Range(-1.5e308, 1.5e308).middle() == 0.0
    assert Range(0.0, 0.6).middle() == 0.3


def test_a_choice_contains_its_values_and_true_is_not_one():
    assert 1.0 in Choice((1, 2))
    assert True not in Choice((1, 2))
    assert 1 not in Choice((True, "a"))
    assert None in Choice((None, "a"))
    assert None not in Choice(("a",))


def test_the_same_value_is_the_same_number_and_no_number_is_true():
    assert same(1, 1.0)
    assert same(None, None)
    assert not same(1, True)
    assert not same(0, False)
    assert not same("1", 1)


CONDITIONAL = """
model:
  family: {choices: [mlp, 'my_pkg.net:make']}
  options:
    heads: {low: 2, high: 8, when: {model.family: 'my_pkg.net:make'}}
    scale: {low: 0.1, high: 0.9, when: {model.options.heads: [5, 6]}}
"""


def test_a_condition_holds_where_its_parent_is_active_and_has_one_of_the_values():
    found = space(CONDITIONAL)
    own = {"model.family": "my_pkg.net:make"}
    assert not found.active("model.options.heads", {"model.family": "mlp"})
    assert found.active("model.options.heads", own)
    assert found.active("model.options.scale", own | {"model.options.heads": 5})
    assert not found.active("model.options.scale", own | {"model.options.heads": 4})
    assert not found.active("model.options.scale", {"model.family": "mlp"})


def test_a_condition_on_a_fixed_or_a_default_value_holds_or_not_for_the_whole_study():
    text = "model: {depth: 3, width: {low: 8, high: 16, when: {model.depth: 3, training.ema: true}}}"
    assert space(text).middle() == {"model.width": 12}
    closed = space(text.replace("when: {model.depth: 3", "when: {model.depth: 2"))
    assert closed.middle() == {}
    assert closed.notes == ("model.width: is never searched, as model.depth is 3",)


def test_true_does_not_meet_a_condition_on_1():
    text = "model: {options: {a: {choices: [true, 2]}, b: {low: 1, high: 3, when: {model.options.a: [1, 2]}}}}"
    found = space(text)
    assert not found.active("model.options.b", {"model.options.a": True})
    assert found.active("model.options.b", {"model.options.a": 2})


def test_an_inactive_value_is_as_if_the_file_did_not_name_it():
    text = "model: {family: {choices: [cnn, mlp]}, width: {low: 8, high: 16, when: {model.family: cnn}}}"
    found = space(text)
    assert found.config.model.width == 12
    assert found.at({"model.family": "mlp"}).model.width == 64
    assert found.at({"model.family": "cnn"}).model.width == 12
    assert found.at({"model.family": "cnn", "model.width": 9}).model.width == 9
    options = space(CONDITIONAL)
    assert options.at({"model.family": "mlp"}).model.options == {}
    assert options.at({"model.family": "my_pkg.net:make", "model.options.heads": 3}).model.options == {"heads": 3}


def test_a_point_outside_of_what_a_key_allows_is_refused():
    found = space("model: {width: {low: 8, high: 16}}")
    for wrong in ({"model.width": 0}, {"model.nothing": 1}, {"seed.x": 1}, {"study": 3}):
        with pytest.raises(ValidationError):
            found.at(wrong)


@given(spaces())
@settings(CALM, max_examples=40)
def test_the_middle_lies_in_the_domains_and_is_a_valid_configuration(found):
    values = found.middle()
    for name, domain in found.domains.items():
        assert found.active(name, values) == (name in values)
        if name in values:
            assert values[name] in domain
    config = found.at(values)
    assert config == found.config == found.at({})
    assert all(config[name] == value for name, value in values.items())


@given(spaces(), st.integers(0, 2**32 - 1))
@settings(CALM, max_examples=15)
def test_samples_satisfy_their_ranges_and_conditions(found, seed):
    proposer = Proposer(found, seed)
    first = len(first_trials(found))  # the baseline and those of one's own are made, not sampled
    for number in range(first + 2):
        values = proposer.propose(number)[0].values
        proposer.tell(TrialRecord(number, "failed", values, 0))
        if number < first:
            continue
        assert list(values) == [name for name in found.domains if found.active(name, values)]
        assert all(value in found.domains[name] for name, value in values.items())
        assert all(found.at(values)[name] == value for name, value in values.items())


@given(spaces(), st.data())
@settings(CALM, max_examples=40)
def test_a_conditional_value_is_active_exactly_where_its_parents_hold(found, data):
    values = {}
    for name, domain in found.domains.items():
        parents = [
            (values.get(parent) if parent in found.domains else found.config[parent], allowed, parent)
            for parent, allowed in domain.when.items()
        ]
        holds = all(
            (parent in values or parent not in found.domains) and any(same(value, other) for other in allowed)
            for value, allowed, parent in parents
        )
        assert found.active(name, values) == holds
        if holds:
            values[name] = data.draw(members(domain))
            assert values[name] in domain
    config = found.at(values)
    assert all(config[name] == value for name, value in values.items())


def members(domain):
    if isinstance(domain, Choice):
        return st.sampled_from(domain.choices)
    inside = st.floats(domain.low, domain.high).map(domain.nearest)
    return inside | st.just(domain.alternative) if domain.has_alternative else inside


def changes(domain):
    """Return domains that differ from one in a single thing."""
    if isinstance(domain, Choice):
        return [replace(domain, choices=(*domain.choices, "another")), replace(domain, choices=domain.choices[:-1])]
    found = [
        replace(domain, low=domain.low - 1),
        replace(domain, high=domain.high + 1),
        replace(domain, log=not domain.log),
    ]
    found += [replace(domain, step=(domain.step or 0) + 1), replace(domain, when={"seed": (12345,)})]
    return [*found, replace(domain, alternative="another", has_alternative=True)]


@given(spaces())
@settings(CALM, max_examples=30)
def test_the_fingerprint_changes_with_every_bound_step_choice_and_condition(found):
    for name, domain in found.domains.items():
        for change in changes(domain):
            other = replace(found, domains={**found.domains, name: change})
            assert other.fingerprint != found.fingerprint
            assert any(line.startswith(f"{name}: ") for line in differences(found.identity(), other.identity()))


def test_the_fingerprint_does_not_know_the_budget_the_name_and_where_the_data_lie():
    one = space("budget: {trials: 3}\nstudy: a")
    two = space("budget: {trials: 5, workers: 2, timeout: 10m}\nstudy: b\nfolder: elsewhere")
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != space("seed: 1").fingerprint


def test_the_fingerprint_knows_values_and_not_how_they_are_written():
    one = space("regularization: {l1: {low: 1, high: 2, log: false}, l2: 1}\nmodel: {width: 64}")
    two = space("regularization: {l2: 1.0, l1: {high: 2.0, low: 1.0}}")
    assert one.fingerprint == two.fingerprint


def test_differences_are_lines_in_the_words_of_a_space_file():
    one, two = space("model: {width: {low: 8, high: 16}}").identity(), space("model: {width: 8, depth: 3}").identity()
    assert differences(one, two) == ["model.depth: 2 -> 3", "model.width: {low: 8, high: 16} -> 8"]
    assert differences({"a": "x\x1b[31m\n"}, {"a": None}) == ["a: 'x\\x1b[31m\\n' -> none"]
