"""One configuration: what each key may hold, what it is if nothing is said, and what is said of a wrong value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tuner.config import MODULE_ATTR, RunConfig, Section, Stopping, min_epochs, put
from tuner.errors import show
from tuner.values import checker, is_searchable, kind_of, section_of

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


def config(**sections) -> RunConfig:
    return RunConfig.model_validate({"data": {"source": "sklearn:digits"}, **sections})


def fields(model: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for key, field in model.model_fields.items():
        inner = section_of(field)
        yield from fields(inner, f"{prefix}{key}.") if inner else [(prefix + key, field)]


FIELDS = dict(fields())


def test_every_key_is_described_in_a_line():
    for name, field in FIELDS.items():
        assert field.description, name
        assert "\n" not in field.description, name


def test_every_default_is_a_value_that_its_key_allows():
    for name, value in config().flat().items():
        assert checker(name, FIELDS[name])(list(value) if isinstance(value, tuple) else value) is None, name


def test_the_data_are_all_that_must_be_said():
    assert config().data.source == "sklearn:digits"
    with pytest.raises(ValidationError, match=r"data"):
        RunConfig.model_validate({})


def test_the_searchable_keys_are_those_of_a_trial_and_never_those_of_the_study():
    found = [name for name, field in FIELDS.items() if is_searchable(field)]
    assert {name.split(".")[0] for name in found} == {"model", "regularization", "augmentation", "training"}


def test_a_flat_configuration_has_every_key_and_the_options_of_ones_own():
    found = config(model={"options": {"heads": 3}}).flat()
    assert set(FIELDS) - set(found) == {"model.options"}
    assert found["model.options.heads"] == 3
    assert "model.options" not in config().flat()


def test_a_value_is_found_under_its_dotted_name_and_nothing_else_is():
    found = config(model={"options": {"heads": 3}})
    assert (found["model.width"], found["data.split.val"], found["model.options.heads"]) == (64, 0.2, 3)
    for name in ("model.nothing", "model.options.none", "flat", "model.model_dump", "seed.real", "", "data.__class__"):
        with pytest.raises(KeyError):
            found[name]


def test_values_are_replaced_under_their_dotted_names_and_checked():
    found = config().replace({"model.width": 8, "model.options.heads": 3, "regularization.l1": 1})
    assert (found.model.width, found.model.options, found.regularization.l1) == (8, {"heads": 3}, 1.0)
    assert config().model.width == 64
    for wrong in ({"model.width": 0}, {"model.width": "8"}, {"model.nothing": 1}, {"nothing": 1}, {"seed.x": 1}):
        with pytest.raises(ValidationError):
            found.replace(wrong)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        config().model.width = 3  # type: ignore[misc]


def test_stopping_none_turns_every_rule_off():
    assert config(stopping="none").stopping == Stopping.off() == Stopping(overfit=False, plateau=False, behind=False)
    with pytest.raises(ValidationError):
        config(stopping="off")


TIMEOUTS = {90: 90, 0.5: 0.5, "90s": 90, "10m": 600, "1.5h": 5400, "1d": 86400, None: None}


@pytest.mark.parametrize("written", TIMEOUTS)
def test_a_timeout_is_seconds_or_a_number_with_its_unit(written):
    assert config(budget={"timeout": written}).budget.timeout == TIMEOUTS[written]


@pytest.mark.parametrize(
    "written", ["1:30", "10 m", "10M", "m", "", "-5s", "1e3s", "10m\n", "\u0661s", True, 0, -1, "0s", 4e7, [1]]
)
def test_anything_else_is_no_timeout(written):
    with pytest.raises(ValidationError):
        config(budget={"timeout": written})


def test_a_name_of_ones_own_code_is_module_colon_attribute_and_no_more():
    for name in ("a:b", "my_pkg.net:make", "_a._b:_c1"):
        assert MODULE_ATTR.match(name)
    for name in ("a", "a:b.c", "a:b\n", "a.b", ":b", "a:", "a b:c", "a/b:c", "1a:b", "a:b:c"):
        assert not MODULE_ATTR.match(name)


def test_a_key_holds_whole_numbers_numbers_words_or_whatever_is_written():
    kinds = {"model.width": "whole", "training.batch_size": "whole", "regularization.l1": "number"}
    kinds |= {"training.ema": "word", "model.family": "word", "training.schedule": "word"}
    assert {name: kind_of(FIELDS[name]) for name in kinds} == kinds
    assert kind_of(None) == "free"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (0, "0"),
        ("a", "'a'"),
        ([1], "a list"),
        ({}, "a mapping"),
    ],
)
def test_a_value_is_shown_in_the_words_of_a_space_file(value, shown):
    assert show(value) == shown


def test_a_long_text_is_shown_short():
    assert len(show("x" * 10**6)) < 70


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*FIELDS, "model.options.own"]), ANY)
@settings(CALM)
def test_any_value_is_allowed_or_told_in_a_short_text(name, value):
    wrong = checker(name, FIELDS.get(name))(value)
    assert wrong is None or 0 < len(wrong) < 500


@given(st.dictionaries(st.from_regex(r"[a-c](\.[a-c]){0,3}", fullmatch=True), st.integers(), max_size=5))
@settings(CALM)
def test_the_last_value_put_under_a_dotted_name_is_there(flat):
    tree: dict = {}
    for name, value in flat.items():
        put(tree, name, value)
        found = tree
        for part in name.split("."):
            found = found[part]
        assert found == value


def test_the_first_epoch_that_counts_is_a_tenth_of_the_cap_at_least_five_at_most_the_cap():
    assert [min_epochs(cap) for cap in (1, 5, 50, 51, 100, 1000)] == [1, 5, 5, 6, 10, 100]
