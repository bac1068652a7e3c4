"""The JSON Schema of a space file: what the reader takes, it takes; what is mistyped, it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from test_grammar import CALM, DATA, FIELDS, SEARCHABLE, documents, nested, spaces

from tuner.document import parse
from tuner.grammar import dump_space, parse_space
from tuner.schema import json_schema
from tuner.values import kind_of

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
READY = sorted(Path(__file__).parent.parent.glob("search_spaces/*.yaml"))


def valid(text: str) -> bool:
    tree, problems = parse(text, "s.yaml")
    assert not problems
    return VALIDATOR.is_valid(tree.plain())


def schema_of(name: str) -> dict:
    found = SCHEMA
    for part in name.split("."):
        found = next(form for form in found.get("anyOf", [found]) if "properties" in form)["properties"][part]
    return found


def test_the_schema_is_one_of_draft_2020_12():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_every_ready_space_is_valid(path):
    assert list(VALIDATOR.iter_errors(parse(path.read_text(), path.name)[0].plain())) == []


def test_every_key_is_there_with_its_description():
    for name, field in FIELDS.items():
        assert schema_of(name)["description"] == field.description
    for name in ("model", "data.split", "search.enqueue", "model.options", "folder"):
        assert schema_of(name)["description"]


def test_a_searchable_key_has_a_choice_and_a_number_also_a_range_and_no_other_key_has():
    for name, field in FIELDS.items():
        forms = [set(form["properties"]) for form in schema_of(name).get("anyOf", []) if "properties" in form]
        numbers = kind_of(field) in ("whole", "number")
        assert ({"choices", "when"} in forms) == (name in SEARCHABLE)
        assert ({"low", "high", "log", "step", "or", "when"} in forms) == (name in SEARCHABLE and numbers)


FINE = [
    "stopping: none", "stopping: {behind: false}", "budget: {timeout: 10m}", "budget: {timeout: 90}", "study: a.b-c",
    "model: {family: 'my_pkg.net:make'}", "model: {family: {choices: [mlp, 'a:b']}}", "training: {batch_size: auto}",
    "training: {batch_size: {low: 8, high: 64, or: auto}}", "model: {options: {a: [1, 2], b: {low: 1, high: 2.5}}}",
    "model: {options: {a: {choices: [null, x, 3]}, b: {low: 1, high: 2, or: null, when: {model.options.a: x}}}}",
    "regularization: {l1: {low: 1e-3, high: 1, log: true, or: 0, when: {model.family: [mlp, cnn]}}}",
    "model: {width: {low: 1, high: 9}}\nsearch: {enqueue: [{model.width: 3}]}",
]  # fmt: skip


@pytest.mark.parametrize("text", FINE)
def test_what_the_reader_takes_is_valid(text):
    parse_space(DATA + text, Path("/tmp"))
    assert valid(DATA + text)


MISTAKES = [
    "modle: {}", "model: {widht: 3}", "model: 3", "model: none", "stopping: off", "stopping: {overfit: 1}",
    "model: {width: 0}", "model: {width: 1.5}", "model: {width: '8'}", "model: {width: [1, 2]}", "model: {width: true}",
    "model: {width: {low: 1}}", "model: {width: {low: 1, high: 2, logg: true}}", "model: {width: {low: 0, high: 2}}",
    "model: {width: {low: 1.5, high: 2}}", "model: {width: {low: 1, high: 2, step: 0}}", "model: {family: mpl}",
    "model: {width: {choices: []}}", "model: {width: {choices: [8, 8]}}", "model: {width: {choices: [8, x]}}",
    "model: {width: {choices: [1], low: 1, high: 2}}", "model: {width: {low: 1, high: 2, when: {}}}",
    "model: {width: {low: 1, high: 2, when: {family: mlp}}}", "folder: 3",
    "model: {width: {low: 1, high: 2, when: {model.family: []}}}",
    "training: {ema: {low: 0, high: 1}}", "seed: {low: 1, high: 2}", "seed: -1", "seed: 4294967296", "study: a/b",
    "study: ''", "budget: {workers: 10000}", "budget: {timeout: '1:30'}", "budget: {timeout: -5}", "folder: ''",
    "score: {metric: acuracy}", "training: {learning_rate: {low: 0, high: 1}}", "model: {options: {a: {b: 1}}}",
]  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_a_typical_mistake_is_not_valid(text):
    assert not valid(DATA + text)


@pytest.mark.parametrize(
    "text", ["seed: 1", "data: {}", "data: {target: y}", "data: {source: ''}", "data: {source: 3}"]
)
def test_a_space_without_data_is_not_valid(text):
    assert not valid(text)


@given(spaces())
@settings(CALM, max_examples=30)
def test_every_space_that_is_written_is_valid(found):
    assert [error.message for error in VALIDATOR.iter_errors(parse(dump_space(found), "s.yaml")[0].plain())] == []


@given(documents())
@settings(CALM, max_examples=30)
def test_every_space_that_the_reader_takes_is_valid(flat):
    assert [error.message for error in VALIDATOR.iter_errors(nested(flat))] == []


def test_the_schema_needs_neither_torch_nor_optuna_nor_yaml():
    heavy = "{'torch', 'optuna', 'pandas', 'numpy', 'ruamel'}"
    code = f"import sys, tuner.schema; tuner.schema.json_schema(); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
