"""Space files: what is said of a wrong one, what an override does, and that a space survives being written."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.config import RunConfig, Training, put
from tuner.document import plain
from tuner.errors import SpaceError
from tuner.grammar import Override, dump_space, parse_space, plain_domain, read_space
from tuner.space import Choice, Range
from tuner.values import is_searchable, kind_of, section_of

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
DATA = "data: {source: sklearn:digits}\n"
TOP = "known: study, seed, folder, data, model, regularization, augmentation, training, score, stopping, budget, search"
MODEL_KEYS = (
    "family, width, depth, normalization, embedding, kernel, cell, bidirectional, heads, backbone, unfrozen, "
    "resolution, options"
)
MODEL = f"known: {MODEL_KEYS}"
TRAINING = f"known: {', '.join(Training.model_fields)}"
DATA_KEYS = (
    "source, kind, target, task, target_transform, drop, text, tokens, vocabulary, length, id, time, image_size, split"
)
FAMILIES = "one of mlp, cnn, resnet, conv1d, rnn, transformer, textcnn, bag, pretrained, auto, or module:attr"
ONE_VALUE = "can't be searched; give it one value for the whole study"
NAME = "isn't allowed; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
FORMS = "a range has low, high, log, step, or, when; a choice has choices, when"
UNITS = "is no duration; write 90s, 10m, 2h or 1d"
GIVE = "give it a value, or leave the key out"


def said(text: str, *overrides: str) -> list[str]:
    """Return what is said of a wrong space."""
    with pytest.raises(SpaceError) as caught:
        parse_space(text, Path("/tmp"), "s.yaml", [Override.parse(item) for item in overrides])
    assert str(caught.value).split("\n") == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


def space(text: str, *overrides: str):
    return parse_space(DATA + text, Path("/tmp"), "s.yaml", [Override.parse(item) for item in overrides])


SAID = {
    # sections and keys
    "modle: {}": f"2:1 unknown key 'modle' (did you mean 'model'?); {TOP}",
    "model: {widht: 3}": f"2:9 model: unknown key 'widht' (did you mean 'width'?); {MODEL}",
    "model: {dropout: 0.5}": f"2:9 model: unknown key 'dropout' (it belongs under regularization.dropout); {MODEL}",
    "epochs: 3": f"2:1 unknown key 'epochs' (it belongs under training.epochs); {TOP}",
    "training.epochs: 3": "2:1 unknown key 'training.epochs'; write it nested, one level for each dot",
    "model:": f"2:7 model: is empty; remove it, or give it keys of: {MODEL_KEYS}",
    "model: none": f"2:8 model: must be a mapping with keys of: {MODEL_KEYS}",
    "model: [a]": f"2:8 model: must be a mapping with keys of: {MODEL_KEYS}",
    "stopping: off": "2:11 stopping: must be `none` or a mapping with keys of: overfit, plateau, behind",
    "stopping: {overfit: 1}": "2:21 stopping.overfit: must be true or false, not 1",
    "direction: maximize": "2:1 unknown key 'direction'; leave it out: the metric says which way is better",
    "device: cuda": f"2:1 unknown key 'device' (it belongs under training.device); {TOP}",
    "training: {lr: 1}": f"2:12 training: unknown key 'lr' (did you mean 'learning_rate'?); {TRAINING}",
    "training: {device: GPU}": "2:20 training.device: must be one of auto, cpu, cuda, not 'GPU' (did you mean 'cuda'?)",
    "weight_decay: 1": f"2:1 unknown key 'weight_decay' (did you mean 'regularization.l2'?); {TOP}",
    "model: {Width: 3}": f"2:9 model: unknown key 'Width' (did you mean 'width'?); {MODEL}",
    # single values
    "study: ''": f"2:8 study: '' {NAME}",
    "study: a/b": f"2:8 study: 'a/b' {NAME}",
    "study: ..": f"2:8 study: '..' {NAME}",
    'study: "a\\n"': f"2:8 study: 'a\\n' {NAME}",
    "study: 3": "2:8 study: must be a word, not 3",
    "study: {choices: [a]}": f"2:8 study: {ONE_VALUE}",
    "seed: -1": "2:7 seed: must be >= 0, not -1",
    "seed: 1180591620717411303424": "2:7 seed: 1180591620717411303424 is beyond 64 bits; use a smaller number",
    "seed: 4294967296": "2:7 seed: must be < 4294967296, not 4294967296",
    "seed: abc": "2:7 seed: must be a whole number, not 'abc'",
    "seed: true": "2:7 seed: must be a whole number, not true",
    "seed: 1.0": "2:7 seed: must be a whole number, not 1.0; write 1",
    "seed: '7'": "2:7 seed: must be a whole number, not '7'; write 7",
    "seed: 1_000": "2:7 seed: must be a whole number, not '1_000'; write 1000",
    "seed:": f"2:6 seed: must be a whole number, not nothing; {GIVE}",
    "seed: {low: 1, high: 3}": f"2:7 seed: {ONE_VALUE}",
    "folder: ''": "2:9 folder: must not be empty; leave the key out or give it a value",
    "budget: {trials: -1}": "2:18 budget.trials: must be >= 0, not -1",
    "budget: {workers: 0}": "2:19 budget.workers: must be >= 1, not 0",
    "budget: {workers: -1}": "2:19 budget.workers: must be >= 1, not -1",
    "budget: {workers: 10000}": "2:19 budget.workers: must be <= 256, not 10000",
    "budget: {timeout: -5}": "2:19 budget.timeout: must be > 0, not -5",
    "budget: {timeout: 0s}": "2:19 budget.timeout: must be > 0, not '0s'",
    "budget: {timeout: 1:30}": f"2:19 budget.timeout: '1:30' {UNITS}",
    "budget: {timeout: 10 m}": f"2:19 budget.timeout: '10 m' {UNITS}",
    "budget: {timeout: true}": f"2:19 budget.timeout: true {UNITS}",
    "budget: {timeout: ''}": f"2:19 budget.timeout: '' {UNITS}",
    "budget: {timeout: 9999d}": "2:19 budget.timeout: must be <= 32000000, not '9999d'",
    "search: {sampler: cma}": "2:19 search.sampler: must be one of tpe, random, not 'cma'",
    "score: {metric: acuracy}": (
        "2:17 score.metric: must be one of log_loss, accuracy, balanced_accuracy, precision, recall, f1, roc_auc, mse, "
        "mae, r2 or module:attr, not 'acuracy' (did you mean 'accuracy'?)"
    ),
    "training: {warmup: 0.9}": "2:20 training.warmup: must be <= 0.5, not 0.9",
    "training: {ema: no}": "2:17 training.ema: must be true or false, not 'no'",
    "training: {learning_rate: .nan}": "2:27 training.learning_rate: must be a finite number, not nan",
    "training: {learning_rate: 1e400}": (
        "2:27 training.learning_rate: 1e400 is too large for a number; use a smaller one"
    ),
    "training: {batch_size: foo}": "2:24 training.batch_size: must be a whole number or auto, not 'foo'",
    "training: {batch_size: 0}": "2:24 training.batch_size: must be >= 1 or auto, not 0",
    "training: {batch_size: [32, 64]}": (
        "2:24 training.batch_size: must be a whole number or auto, not a list; several go into {choices: [...]}"
    ),
    "model: {family: mpl}": (f"2:17 model.family: unknown family 'mpl' (did you mean 'mlp'?); {FAMILIES}"),
    "model: {family: my_pkg.net}": f"2:17 model.family: unknown family 'my_pkg.net'; {FAMILIES}",
    "model: {family: {choices: [mlp, 'a b:c']}}": (f"2:33 model.family: choices: unknown family 'a b:c'; {FAMILIES}"),
    "model: {normalization: bath}": (
        "2:24 model.normalization: must be one of none, batch, layer, not 'bath' (did you mean 'batch'?)"
    ),
    # ranges
    "model: {width: {}}": (
        "2:16 model.width: must be a value, a range {low: ..., high: ...} or a choice {choices: [...]}"
    ),
    "model: {width: {low: 1}}": "2:16 model.width: a range needs low and high; high is missing",
    "model: {width: {low: 1, hgih: 2}}": "2:25 model.width: unknown key 'hgih' (did you mean 'high'?)",
    "model: {width: {low: 1, high: 2, logg: true}}": "2:34 model.width: unknown key 'logg' (did you mean 'log'?)",
    "model: {width: {choises: [1]}}": "2:17 model.width: unknown key 'choises' (did you mean 'choices'?)",
    "model: {width: {min: 1}}": f"2:17 model.width: unknown key 'min'; {FORMS}",
    "model: {width: {low: 1, choices: [1]}}": "2:17 model.width: low can't go with choices; remove one of them",
    "model: {width: {low: 8, high: 4}}": "2:16 model.width: low (8) is above high (4); swap them",
    "model: {width: {low: 0, high: 4}}": "2:22 model.width: low: must be >= 1, not 0",
    "model: {width: {low: 1.0, high: 4}}": "2:22 model.width: low: must be a whole number, not 1.0; write 1",
    "model: {width: {low: a, high: 4}}": "2:22 model.width: low: must be a finite number, not 'a'",
    "model: {width: {low: 1, high: 4, log: 'true'}}": "2:39 model.width: log: must be true or false, not 'true'",
    "model: {width: {low: 1, high: 4, step: 0}}": "2:40 model.width: step: must be a number > 0, not 0",
    "model: {width: {low: 1, high: 4, step: -1}}": "2:40 model.width: step: must be a number > 0, not -1",
    "model: {width: {low: 1, high: 4, step: .nan}}": "2:40 model.width: step: must be a number > 0, not nan",
    "model: {width: {low: 1, high: 4, step: 9}}": (
        "2:40 model.width: step: 9 is longer than the range (3); take a smaller one"
    ),
    "model: {width: {low: 1, high: 4, step: 1.5}}": (
        "2:40 model.width: step: must be a whole number in a range of whole numbers, not 1.5"
    ),
    "model: {width: {low: 1, high: 4, step: 1, log: true}}": (
        "2:40 model.width: step: can't go with log: true; remove one of them"
    ),
    "model: {width: {low: 4, high: 8, or: 5}}": "2:38 model.width: or: 5 lies inside the range; remove it",
    "model: {width: {low: 4, high: 8, or: [1]}}": "2:38 model.width: or: must be one plain value, not a list",
    "model: {width: {low: 4, high: 8, or: }}": (f"2:37 model.width: or: must be a whole number, not nothing; {GIVE}"),
    "model: {width: {low: 8, high: 9223372036854775808}}": (
        "2:31 model.width.high: 9223372036854775808 is beyond 64 bits; use a smaller number"
    ),
    "model: {options: {a: {low: 0, high: 9007199254740993}}}": (
        "2:22 model.options.a: whole numbers beyond 2**53 lose digits in the search; narrow the range"
    ),
    "model: {options: {a: {low: -1e308, high: 1e308}}}": (
        "2:22 model.options.a: low and high are further apart than numbers go; narrow the range"
    ),
    "model: {options: {a: {low: 0.0, high: 1, step: 1e-310}}}": (
        "2:48 model.options.a: step: 1e-310 is too fine beside the bounds (over 10,000,000 steps); leave it out"
    ),
    "regularization: {l1: {low: 0, high: 8, log: true}}": (
        "2:28 regularization.l1: low: must be > 0 where log is true, not 0.0; write a small one, and `or: 0` for 0 too"
    ),
    "regularization: {l1: {low: 0, high: .inf}}": ("2:37 regularization.l1: high: must be a finite number, not inf"),
    "training: {ema: {low: 0, high: 1}}": (
        "2:17 training.ema: holds no numbers, so it can't have a range; write {choices: [...]}"
    ),
    # choices
    "model: {width: {choices: []}}": (
        "2:26 model.width: choices: must be a list with at least one value, such as [16, 32]"
    ),
    "model: {width: {choices: 3}}": (
        "2:26 model.width: choices: must be a list with at least one value, such as [16, 32]"
    ),
    "model: {width: {choices: [[1]]}}": "2:27 model.width: choices: must be plain values, not a list",
    "model: {width: {choices: [8, '9']}}": "2:30 model.width: choices: must be a whole number, not '9'; write 9",
    "model: {width: {choices: [8, 8]}}": "2:30 model.width: choices: 8 is the same as 8 before it; keep one",
    "model: {options: {a: {choices: [1, true]}}}": (
        "2:36 model.options.a: choices: true is the same as 1 before it; keep one"
    ),
    "model: {options: {a: {choices: [1, 1.0]}}}": (
        "2:36 model.options.a: choices: 1.0 is the same as 1 before it; keep one"
    ),
    "model: {options: {a: {choices: [null, ~]}}}": (
        "2:39 model.options.a: choices: nothing is the same as nothing before it; keep one"
    ),
    "model: {options: {a: {choices: [.inf]}}}": "2:33 model.options.a: choices: must be a finite number, not inf",
    # options of one's own
    "model: {options: 3}": "2:18 model.options: must be a mapping of names of your own to values",
    "model: {options: {a-b: 3}}": (
        "2:19 model.options: 'a-b' can't be the name of an option; use letters, digits and _"
    ),
    "model: {options: {a: .nan}}": "2:22 model.options.a: must be a finite number, not nan",
    "model: {options: {a: [1, {b: 1}]}}": "2:22 model.options.a: item 2 must be a plain value, not a mapping",
    "model: {options: {a: {b: 1}}}": f"2:23 model.options.a: unknown key 'b'; {FORMS}",
    # conditions
    "model: {width: {low: 8, high: 16, when: cnn}}": (
        "2:41 model.width: when: must be a mapping such as {model.family: cnn}"
    ),
    "model: {width: {low: 8, high: 16, when: {}}}": (
        "2:41 model.width: when: must be a mapping such as {model.family: cnn}"
    ),
    "model: {width: {low: 8, high: 16, when: {family: cnn}}}": (
        "2:42 model.width: when: unknown name 'family' (did you mean 'model.family'?); "
        "write it in full, as model.family"
    ),
    "model: {width: {low: 8, high: 16, when: {model.family: cnnn}}}": (
        f"2:42 model.width: when: model.family: unknown family 'cnnn' (did you mean 'cnn'?); {FAMILIES}"
    ),
    "model: {width: {low: 8, high: 16, when: {model.family: []}}}": (
        "2:56 model.width: when: model.family needs one value or a list of values"
    ),
    "model: {width: {low: 8, high: 16, when: {model.family: [cnn, cnn]}}}": (
        "2:56 model.width: when: model.family names 'cnn' twice; keep one"
    ),
    "model: {depth: {low: 1, high: 3}, width: {low: 8, high: 16, when: {model.depth: 2.0}}}": (
        "2:68 model.width: when: model.depth: must be a whole number, not 2.0; write 2"
    ),
    "model: {depth: {low: 1, high: 3}, width: {low: 8, high: 16, when: {model.depth: 7}}}": (
        "2:68 model.width: when: never true, as model.depth is searched in {low: 1, high: 3}; name values of it"
    ),
    "model: {family: {choices: [mlp]}, width: {low: 8, high: 16, when: {model.family: cnn}}}": (
        "2:68 model.width: when: never true, as model.family is searched in {choices: [mlp]}; name values of it"
    ),
    "model: {width: {low: 8, high: 16, when: {model.width: 8}}}": (
        "2:16 model.width: when: waits for itself; break the circle"
    ),
    # points of one's own
    "search: {enqueue: 3}": "2:19 search.enqueue: must be a list, not 3",
    "search: {enqueue: [3]}": "2:19 search.enqueue: item 1 must be a mapping, not 3",
    "search: {enqueue: [{model.depth: 3}]}": "2:34 search.enqueue[0].model.depth: isn't searched; searched: nothing",
}


@pytest.mark.parametrize("text", SAID)
def test_what_is_wrong_is_told_in_one_line_with_its_place_what_is_allowed_and_how_to_mend_it(text):
    assert said(DATA + text) == [f"s.yaml:{SAID[text]}"]


SOURCES = {
    "model: {width: 3}": "s.yaml data.source: is missing; name the data, for example `data: {source: sklearn:digits}`",
    "data: {}": "s.yaml:1:1 data.source: is missing; name the data, for example `data: {source: sklearn:digits}`",
    "data: sklearn:digits": (f"s.yaml:1:7 data: must be a mapping with keys of: {DATA_KEYS}"),
    "data: {source: ''}": "s.yaml:1:16 data.source: must not be empty; leave the key out or give it a value",
    "data: {source: }": f"s.yaml:1:15 data.source: must be a word, not nothing; {GIVE}",
    "data: {source: {choices: [a, b]}}": f"s.yaml:1:16 data.source: {ONE_VALUE}",
    "data: {source: sklearn:digit}": (
        "s.yaml:1:16 data.source: scikit-learn bundles no 'digit' (did you mean 'digits'?); "
        "one of digits, breast_cancer, wine, iris, diabetes"
    ),
    "data: {source: x, drop: a}": "s.yaml:1:25 data.drop: must be a list, not 'a'",
    "data: {source: x, drop: [a, 1, ~]}": (
        f"s.yaml:1:25 data.drop: item 2 must be a word, not 1; item 3 must be a word, not nothing; {GIVE}"
    ),
    "data: {source: x, kind: tabel}": (
        "s.yaml:1:25 data.kind: must be one of table, image, text, sequence, not 'tabel' (did you mean 'table'?)"
    ),
    "data: {source: x, split: {val: 0.5, test: 0.5}}": (
        "s.yaml:1:32 data.split: val 0.5 and test 0.5 leave no rows to train on; take less than 1 together"
    ),
    "data: {source: x, split: {test: 0.8}}": (
        "s.yaml:1:33 data.split: val 0.2 and test 0.8 leave no rows to train on; take less than 1 together"
    ),
    "data: {source: x, split: {val: 1}}": "s.yaml:1:32 data.split.val: must be < 1, not 1",
}


@pytest.mark.parametrize("text", SOURCES)
def test_what_is_wrong_with_the_data_section_is_told_in_one_line(text):
    assert said(text) == [SOURCES[text]]


def test_all_problems_of_a_file_and_of_the_overrides_are_told_at_once_in_the_order_of_the_lines():
    text = "model: {width: {low: !!int 3, high: 9}, depth: 0}\nmodel: {}\nbogus: 1\ntraining: {epochs: 1e999}\n"
    text += "regularization:\n  l1: {low: 2, high: 1, when: {seeed: 1}}\n  l2: {low: 1, high: 2, when: {sed: 1}}\n"
    assert said(text, "seed=-1", "study=[") == [
        "s.yaml data.source: is missing; name the data, for example `data: {source: sklearn:digits}`",
        "s.yaml:1:22 model.width.low: the tag !!int isn't allowed; remove it (quotes make a word of a number)",
        "s.yaml:1:48 model.depth: must be >= 1, not 0",
        "s.yaml:2:1 model: duplicate key (first on line 1); keep one",
        f"s.yaml:3:1 unknown key 'bogus'; {TOP}",
        "s.yaml:4:20 training.epochs: 1e999 is too large for a number; use a smaller one",
        "s.yaml:6:7 regularization.l1: low (2.0) is above high (1.0); swap them",
        "s.yaml:7:32 regularization.l2: when: unknown name 'sed' (did you mean 'seed'?); "
        "write it in full, as model.family",
        "-S study: this bracket isn't closed; add the missing ] or }",
        "-S seed: must be >= 0, not -1",
    ]


def test_a_circle_of_conditions_is_told_at_each_of_its_members():
    text = "model: {width: {low: 8, high: 9, when: {model.depth: 3}}, depth: {low: 1, high: 3, when: {model.width: 8}}}"
    assert said(DATA + text) == [
        "s.yaml:2:16 model.width: when: waits for itself; break the circle",
        "s.yaml:2:66 model.depth: when: waits for itself; break the circle",
    ]


def test_a_point_of_ones_own_must_lie_in_the_space():
    text = "model: {family: {choices: [mlp, cnn]}, width: {low: 8, high: 16, when: {model.family: cnn}}}\nsearch:\n"
    points = ["{model.width: 8}", "{model.wdth: 9, model.family: cnn}", "{model.width: 99, model.family: cnn}"]
    text += "".join(f"  enqueue: [{', '.join(points)}, {{model.family: cnn, model.width: 9}}]")
    where = "isn't searched at this point, where its condition isn't true; remove it or mend that"
    assert said(DATA + text) == [
        f"s.yaml:4:27 search.enqueue[0].model.width: {where}",
        "s.yaml:4:44 search.enqueue[1].model.wdth: isn't searched (did you mean 'model.width'?); "
        "searched: model.family, model.width",
        "s.yaml:4:81 search.enqueue[2].model.width: 99 isn't in {low: 8, high: 16, when: {model.family: cnn}}; "
        "take one of these",
    ]


def test_a_whole_number_is_a_member_of_a_range_or_choice_of_numbers():
    text = "regularization: {dropout: {choices: [0, 0.5]}, l1: {low: 0, high: 2}}\n"
    text += "search: {enqueue: [{regularization.dropout: 0, regularization.l1: 1}]}"
    assert space(text).domains["regularization.dropout"].choices == (0.0, 0.5)


HOSTILE = {
    '"\\e[31m": 1': "s.yaml:2:1 '\\x1b[31m' can't be a key; use letters, digits and _, a letter first",
    'model: {family: "\\e[31m"}': "s.yaml:2:17 model.family: holds a control character; write plain text",
    'model: {family: "a\\nb"}': f"s.yaml:2:17 model.family: unknown family 'a\\nb'; {FAMILIES}",
    'model: {family: "\\u202eabc"}': (f"s.yaml:2:17 model.family: unknown family '\\u202eabc'; {FAMILIES}"),
    f"model: {{family: {'x' * 9000}}}": (f"s.yaml:2:17 model.family: unknown family '{'x' * 57}...'; {FAMILIES}"),
    f"model: {{options: {{a: {{low: 1, high: 2, or: {'[' * 40 + ']' * 40}}}}}}}": (
        "s.yaml:2:44 model.options.a: or: must be one plain value, not a list"
    ),
}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_and_values_are_quoted_short_and_printable(text):
    assert said(DATA + text) == [HOSTILE[text]]


def test_escapes_in_a_file_name_or_an_option_never_reach_the_terminal(tmp_path: Path):
    path = tmp_path / "a\x1b[31m\nb.yaml"
    path.write_text("seed: -1")
    with pytest.raises(SpaceError) as caught:
        read_space(path)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    with pytest.raises(SpaceError) as caught:
        Override.parse("\x1b[31m\n")
    assert str(caught.value) == "-S: '\\x1b[31m\\n' isn't key=value; write for example -S training.epochs=30"


OVERRIDES = {
    "training.epochs": "-S: 'training.epochs' isn't key=value; write for example -S training.epochs=30",
    "=3": "-S: '=3' isn't key=value; write for example -S training.epochs=30",
    "a b=3": "-S: 'a b=3' isn't key=value; write for example -S training.epochs=30",
    "model..width=3": "-S: 'model..width=3' isn't key=value; write for example -S training.epochs=30",
    "modle.width=3": f"-S: unknown key 'modle' (did you mean 'model'?); {TOP}",
    "model.widht=3": f"-S model: unknown key 'widht' (did you mean 'width'?); {MODEL}",
    "data=3": f"-S data: must be a mapping with keys of: {DATA_KEYS}",
    "data.source.x=3": f"-S data.source: {ONE_VALUE}",
    "seed.x=3": f"-S seed: {ONE_VALUE}",
    "training.epochs=": f"-S training.epochs: must be a whole number, not nothing; {GIVE}",
    "training.epochs=''": "-S training.epochs: must be a whole number, not ''",
    "training.epochs=[1": "-S training.epochs: this bracket isn't closed; add the missing ] or }",
    "training.epochs=!!int 3": (
        "-S training.epochs: the tag !!int isn't allowed; remove it (quotes make a word of a number)"
    ),
    "training.epochs=\x1b[31m": (
        "-S training.epochs: holds a character that isn't text (U+001B); write plain UTF-8 text"
    ),
    "model.width={low: 8, high: 4}": "-S model.width: low (8) is above high (4); swap them",
    "model.width.low=300": "-S model.width: low (300) is above high (256); swap them",
    "model={width: 3, widht: 4}": f"-S model: unknown key 'widht' (did you mean 'width'?); {MODEL}",
    f"study={'x' * 9000}": f"-S study: '{'x' * 57}...' {NAME}",
    "study=a\nb: c": "-S study: no ':' can stand here; check the indent, and quote a text that holds ': '",
}


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: ascii(text[:30]))
def test_a_wrong_override_is_told_in_one_line(override):
    problem = OVERRIDES[override]
    lines = said(DATA + "model: {width: {high: 256, low: 8}}", override)
    assert [line.replace("s.yaml:2:16", "-S") for line in lines] == [problem]


def test_an_override_is_a_value_a_range_a_choice_or_a_whole_section():
    text = "model: {width: 64, depth: 3}\nstopping: {overfit: false}"
    assert space(text, "model.width={low: 8, high: 32}").domains["model.width"] == Range(8, 32, integer=True)
    assert space(text, "model.width={choices: [8, 9]}").domains["model.width"] == Choice((8, 9))
    assert space(text, "model.width = 8").config.model.width == 8
    assert space(text, "model={width: 9}").given == {
        "data.source": "sklearn:digits", "model.width": 9, "stopping.overfit": False,
    }  # fmt: skip
    assert not space(text, "stopping=none").config.stopping.behind
    assert space("", "model.options.heads=3").config.model.options == {"heads": 3}
    assert space("", "seed=1", "seed=2").config.seed == 2


def test_an_override_of_one_bound_keeps_the_others():
    text = "model: {width: {low: 8, high: 32, log: true}}"
    assert space(text, "model.width.low=16").domains["model.width"] == Range(16, 32, log=True, integer=True)


def test_a_path_in_an_override_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for override in ("data.source=a/b.csv", "data={source: a/b.csv}"):
        assert space("", override).config.data.source == str(tmp_path / "a/b.csv")
    for source in ("sklearn:iris", "my_pkg.net:make", "/x/y.csv"):
        assert space("", f"data.source={source}").config.data.source == source
    assert space("", "folder=sub").folder == tmp_path / "sub"


def test_a_folder_in_the_file_is_relative_to_the_file(tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(DATA)
    assert read_space(path).folder == tmp_path
    path.write_text(DATA + "folder: ../other")
    assert read_space(path).folder == tmp_path.parent / "other"
    (tmp_path / "link").symlink_to("link")
    path.write_text(DATA + "folder: link")
    assert read_space(path).folder == tmp_path / "link"


@pytest.mark.parametrize(
    ("stem", "name"),
    [("digits", "digits"), ("my space", "my-space"), (".hidden", "hidden"), ("ü", "-"), ("...", "study")],
)
def test_a_study_without_a_name_has_its_file_s(tmp_path: Path, stem, name):
    path = tmp_path / f"{stem}.yaml"
    path.write_text(DATA)
    assert read_space(path).config.study == name
    path.write_text(DATA + "study: given")
    assert read_space(path).config.study == "given"


def test_bounds_have_the_kind_of_their_key_and_options_the_kind_that_is_written():
    text = "regularization: {l1: {low: 1, high: 4, step: 1, or: 0}}\n"
    text += "model: {options: {a: {low: 1, high: 4}, b: {low: 1, high: 4.0}, c: {low: 1, high: 4, or: null}}}"
    found = space(text).domains
    assert found["regularization.l1"] == Range(1.0, 4.0, step=1.0, alternative=0.0, has_alternative=True)
    assert [type(bound) for bound in (found["regularization.l1"].low, found["model.options.b"].low)] == [float, float]
    assert found["model.options.a"] == Range(1, 4, integer=True)
    assert found["model.options.b"] == Range(1.0, 4.0)
    assert found["model.options.c"] == Range(1, 4, integer=True, alternative=None, has_alternative=True)


def test_a_batch_size_is_a_number_a_range_or_auto():
    assert space("training: {batch_size: auto}").config.training.batch_size == "auto"
    found = space("training: {batch_size: {low: 16, high: 64, or: auto}}")
    assert found.domains["training.batch_size"].middle() == "auto"
    assert space("training: {batch_size: {choices: [32, auto]}}").middle() == {"training.batch_size": 32}


def test_a_family_may_be_chosen_among_ready_ones_and_ones_own():
    found = space("model: {family: {choices: [mlp, 'my_pkg.net:make']}}")
    assert found.at({"model.family": "my_pkg.net:make"}).model.family == "my_pkg.net:make"


def test_the_reader_is_told_of_a_constant_range_of_a_high_off_the_steps_and_of_what_is_never_searched():
    text = "model: {width: {low: 8, high: 8}, depth: {low: 1, high: 6, step: 2, when: {model.family: cnn}}}"
    found = space(text)
    assert found.notes == (
        "model.width: low == high, so it is the constant 8",
        "model.depth: high (6) is no step from low; the last one is 5",
        "model.depth: is never searched, as model.family is mlp",
    )
    assert found.given["model.width"] == 8
    assert "model.width" not in found.domains


def test_a_range_with_an_alternative_or_a_condition_stays_a_range_where_low_is_high():
    text = "model: {width: {low: 8, high: 8, or: 9}, depth: {low: 3, high: 3, when: {model.width: 9}}}"
    assert set(space(text).domains) == {"model.width", "model.depth"}


def test_parents_come_before_their_children_whatever_the_order_of_the_file():
    text = "model:\n  width: {low: 8, high: 9, when: {model.depth: 2}}\n"
    text += "  depth: {low: 1, high: 3, when: {training.ema: true}}\ntraining: {ema: {choices: [true, false]}}"
    assert list(space(text).domains) == ["training.ema", "model.depth", "model.width"]


def test_a_domain_is_shown_in_the_words_of_a_space_file_and_in_printable_characters():
    text = 'model:\n  options:\n    a: {choices: [null, true, 2, "x\\n"]}\n'
    text += "    b: {low: 1, high: 2, or: false, when: {seed: [0, 1]}}"
    found = space(text).domains
    assert plain_domain(found["model.options.a"]) == "{choices: [null, true, 2, x\\n]}"
    assert plain_domain(found["model.options.b"]) == "{low: 1, high: 2, or: false, when: {seed: [0, 1]}}"


# -- any space ---------------------------------------------------------------------------------------------------------


def fields(model=RunConfig, prefix=""):
    for key, field in model.model_fields.items():
        if (inner := section_of(field)) is not None:
            yield from fields(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, field


FIELDS = {name: field for name, field in fields() if name not in ("model.options", "search.enqueue", "folder")}
SEARCHABLE = [name for name, field in FIELDS.items() if is_searchable(field)]
OPTIONS = [f"model.options.{name}" for name in ("alpha", "b_2", "größe")]
WORD = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True)
ANY_WORD = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co"]), min_size=1, max_size=30)
FAMILY = st.sampled_from(["mlp", "cnn", "my_pkg.net:make", "other:Net"])
SPECIAL = {
    "study": WORD,
    "data.source": st.sampled_from(["sklearn:digits", "a.csv", "pkg:data", "no", "1e5"]),
    "data.drop": st.lists(ANY_WORD, max_size=3),
    "budget.timeout": st.sampled_from([None, 90, 0.5, "10m", "1.5h", "1d"]),
    "budget.trial_timeout": st.sampled_from([None, 90, 0.5, "10m", "1.5h", "1d"]),
    "budget.trial_memory": st.sampled_from([None, 10**9, "4GB", "512MiB"]),
    "training.batch_size": st.just("auto") | st.integers(1, 1000),
    "model.family": FAMILY,
    "augmentation.function": st.sampled_from([None, "pkg:change"]),
    "training.optimizer": st.sampled_from(["adamw", "pkg:sgd", "torch.optim:RAdam"]),
    "training.loop": st.sampled_from([None, "pkg.train:fit"]),
    "score.metric": st.sampled_from([None, "log_loss", "mae", "pkg:kappa"]),
}
VALUE = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | ANY_WORD


def bounds(field) -> tuple[float, float]:
    """Return a low and a high that a number of a key may have."""
    low, high = -1000.0, 1000.0
    for item in field.metadata if field is not None else ():
        low = item.ge if isinstance(item, Ge) else item.gt + 1e-6 if isinstance(item, Gt) else low
        high = min(high, item.le if isinstance(item, Le) else item.lt - 1e-3 if isinstance(item, Lt) else high)
    return low, high


def values(name: str) -> st.SearchStrategy:
    """Return the values that a key may have."""
    field = FIELDS.get(name)
    if name in SPECIAL or field is None:
        return SPECIAL.get(name, VALUE)
    low, high = bounds(field)
    kind, text = kind_of(field), str(field.annotation)
    if kind == "whole":
        return st.integers(int(low), int(high))
    if kind == "number":
        return st.floats(low, high)
    if "bool" in text:
        return st.booleans()
    words = text.split("'")[1::2]
    return st.sampled_from(words) if words else ANY_WORD


@st.composite
def ranges(draw, name: str) -> dict:
    """Return a range of a key as a file has it."""
    field = FIELDS.get(name)
    low, high = (1, 1000) if name == "training.batch_size" else bounds(field)
    whole = kind_of(field) == "whole" or (field is None and draw(st.booleans()))
    number = st.integers(math.ceil(low), int(high)) if whole else st.floats(low, high).map(lambda v: round(v, 5))
    first, last = (min(max(value, low), high) for value in sorted(draw(st.tuples(number, number))))
    doc = {"low": int(first), "high": int(last)} if whole else {"low": first, "high": last}
    scale = draw(st.sampled_from(["plain", "log", "step"]))
    if scale == "log" and doc["low"] > 0:
        doc["log"] = True
    elif scale == "step" and whole and doc["high"] > doc["low"]:
        doc["step"] = draw(st.integers(1, doc["high"] - doc["low"]))
    elif scale == "step" and not whole and doc["high"] - doc["low"] > 0.05:
        doc |= {"low": math.ceil(doc["low"] * 100) / 100, "high": math.floor(doc["high"] * 100) / 100, "step": 0.01}
    if draw(st.booleans()):
        other = draw(values(name))
        number = isinstance(other, (int, float)) and not isinstance(other, bool)
        if not number or not doc["low"] <= other <= doc["high"]:
            doc["or"] = other
    return doc


@st.composite
def choices(draw, name: str) -> dict:
    unique = lambda value: value if not isinstance(value, (bool, int, float)) else float(value)  # noqa: E731
    return {"choices": draw(st.lists(values(name), min_size=1, max_size=4, unique_by=unique))}


@st.composite
def documents(draw) -> dict:
    """Return a valid space as a file has it: dotted name -> value, range or choice; parents come first."""
    names = draw(st.lists(st.sampled_from([*FIELDS, *OPTIONS]), unique=True, max_size=8))
    names += draw(st.lists(st.sampled_from([*SEARCHABLE, *OPTIONS]), unique=True, max_size=6))
    flat = {"data.source": draw(SPECIAL["data.source"])}
    for name in dict.fromkeys(names):
        forms = [values(name)]
        if name in SEARCHABLE or name in OPTIONS:
            numbers = kind_of(FIELDS.get(name)) != "word"
            forms += [choices(name), *([ranges(name)] * 3 if numbers else [])]
        flat[name] = draw(st.one_of(forms))
        if isinstance(flat[name], dict) and len(flat) > 1 and draw(st.booleans()):
            parent = draw(
                st.sampled_from(
                    [other for other in flat if other not in (name, "data.drop") and "budget." not in other]
                )
            )
            flat[name]["when"] = {parent: draw(conditions(flat[parent]))}
    if flat.get("data.split.val", 0.2) + flat.get("data.split.test", 0.2) >= 1:
        flat |= {"data.split.val": 0.25, "data.split.test": 0.5}
    return flat


def conditions(parent) -> st.SearchStrategy:
    """Return values of a parent, one or a list of some."""
    if not isinstance(parent, dict):
        return st.just(parent)
    if "choices" in parent:
        some = st.lists(st.sampled_from(parent["choices"]), min_size=1, unique_by=repr)
        return st.sampled_from(parent["choices"]) | some
    return st.sampled_from([parent["low"], [parent["low"]]])


def nested(flat: dict) -> dict:
    tree: dict = {}
    for name, value in flat.items():
        put(tree, name, value)
    return tree


def spaces() -> st.SearchStrategy:
    """Return valid spaces, read from text."""
    return documents().map(lambda flat: parse_space(plain(nested(flat)), Path("/tmp")))


def shuffled(value, order: random.Random):
    if not isinstance(value, dict):
        return value
    keys = list(value)
    order.shuffle(keys)
    return {key: shuffled(value[key], order) for key in keys}


@given(spaces())
@settings(CALM, max_examples=50)
def test_a_space_that_is_written_and_read_again_is_the_same(found):
    again = parse_space(dump_space(found), Path("/tmp"))
    assert replace(again, notes=()) == replace(found, notes=())
    assert again.fingerprint == found.fingerprint
    assert dump_space(again) == dump_space(found)


@given(documents(), st.randoms(use_true_random=False))
@settings(CALM, max_examples=50)
def test_the_order_of_keys_changes_neither_the_space_nor_its_fingerprint(flat, order):
    one = parse_space(plain(nested(flat)), Path("/tmp"))
    two = parse_space(plain(shuffled(nested(flat), order)), Path("/tmp"))
    assert (two.config, two.fingerprint) == (one.config, one.fingerprint)
    assert dict(two.domains) == dict(one.domains)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab{[:.\x1b\n", max_size=6) | ANY_WORD,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["low", "high", "step", "or", "log", "when", "choices", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(documents(), st.data())
@settings(CALM, max_examples=70)
def test_a_mutated_space_is_a_space_or_a_space_error(flat, data):
    names = [
        *FIELDS,
        *OPTIONS,
        "model.options",
        "search.enqueue",
        "folder",
        "model",
        "stopping",
        "model.width.low",
        "x",
    ]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        flat[name] = data.draw(ANYTHING)
    check_refused_or_read(plain(nested(flat)))


@given(documents(), st.data())
@settings(CALM, max_examples=70)
def test_a_torn_space_file_is_a_space_or_a_space_error(flat, data):
    text = plain(nested(flat))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    check_refused_or_read(text[:start] + data.draw(st.text("{}[]:, \n-#'&*!", max_size=4)) + text[end:])


@given(st.text(max_size=60) | st.text("model: {width} [low] seed\n,&*!'0123.e-", max_size=80))
@settings(CALM, max_examples=100)
def test_any_text_is_a_space_or_a_space_error(text):
    check_refused_or_read(text)


@given(st.text(max_size=40), ANYTHING)
@settings(CALM, max_examples=100)
def test_any_override_is_a_space_or_a_space_error(text, value):
    try:
        space("model: {width: {low: 8, high: 16}}", text)
    except SpaceError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))  # noqa: PT017


def check_refused_or_read(text: str) -> None:
    try:
        parse_space(text, Path("/tmp"), "s.yaml")
    except SpaceError as error:
        assert error.problems  # noqa: PT017
        assert all(str(problem).isprintable() for problem in error.problems)  # noqa: PT017
