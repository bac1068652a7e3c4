"""An exported model says what the study's model says, without tuner: every family, over raw examples of every kind."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from backbone_files import write_backbone
from command import call, write

from tuner.best import MODEL, BestConfig
from tuner.bundling import Name, bundle
from tuner.config import FAMILIES, RunConfig
from tuner.data import load
from tuner.errors import DataError, TunerError, UsageError
from tuner.exporting import ONNX, export, made_up
from tuner.measuring import predict
from tuner.models.frozen import exactly
from tuner.standalone import NAME, standalone
from tuner.weights import write_weights

torch.set_num_threads(1)

ALONE = """
import json, pickle, sys
sys.modules["tuner"] = None
import numpy, torch
torch.set_num_threads(1)
for folder in json.load(open(sys.argv[1])):
    sys.path.insert(0, folder)
    sys.modules.pop("tuned_model", None)
    import tuned_model
    examples = pickle.load(open(folder + "/raw.pickle", "rb"))
    use = getattr(tuned_model, "predict_proba", tuned_model.predict)
    numpy.save(folder + "/found.npy", use(examples))
    sys.path.remove(folder)
"""


@dataclass(frozen=True)
class Case:
    """Data that are written into a folder, a configuration for them, and raw examples to predict, odd ones too."""

    data: Callable[[Path], dict[str, Any]]
    model: dict[str, Any]
    raw: Callable[[], Any]


def random(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape)


def table(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.lognormal(3, 2, 60), "when": pd.date_range("2024-01-30", periods=60, freq="31h").astype(str),
            "kind": rng.choice(["a", "b", "ç"], 60), "wet": rng.choice(["true", "false"], 60),
            "y": rng.choice(["no", "yes"], 60),
        }
    )  # fmt: skip
    frame.loc[::7, "size"] = np.nan
    frame.to_csv(folder / "rows.csv", index=False)
    return {"source": "rows.csv", "target": "y"}


def prices(folder: Path) -> dict[str, Any]:
    frame = pd.DataFrame({"a": random(60), "b": random(60) ** 2, "y": np.exp(random(60))})
    frame.to_csv(folder / "rows.csv", index=False)
    return {"source": "rows.csv", "target": "y", "target_transform": "log"}


def texts(folder: Path) -> dict[str, Any]:
    words = ["the", "film", "was", "good", "bad", "long", "dull", "don't", "3.14", "é"]
    rng = np.random.default_rng(0)
    rows = [{"text": " ".join(rng.choice(words, rng.integers(1, 9))), "target": "ab"[i % 2]} for i in range(60)]
    write(folder / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    return {"source": "rows.jsonl"}


def pictures(folder: Path) -> dict[str, Any]:
    x = np.random.default_rng(0).integers(0, 256, (60, 20, 24, 3), dtype=np.uint8)
    np.savez(folder / "rows.npz", X=x, y=np.arange(60) % 3)
    return {"source": "rows.npz"}


def float_pictures(folder: Path) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(5, 2, (60, 20, 24, 3)).astype(np.float32)
    np.savez(folder / "rows.npz", X=x, y=np.exp(random(60) * 2))
    return {"source": "rows.npz", "kind": "image", "task": "regression", "target_transform": "log"}


def far_numbers(folder: Path) -> dict[str, Any]:
    x = random(60, 2)
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": 1.7e9 + 1e4 * x[:, 0]})
    frame.to_csv(folder / "rows.csv", index=False)
    return {"source": "rows.csv", "target": "y"}


def sequences(folder: Path) -> dict[str, Any]:
    lengths = np.random.default_rng(0).integers(3, 12, 60)
    lengths[0] = 12
    x = random(60, 12, 2)
    x[np.arange(12) >= lengths[:, None]] = np.nan
    np.savez(folder / "rows.npz", X=x, y=np.arange(60) % 3)
    return {"source": "rows.npz", "kind": "sequence"}


def steps(folder: Path) -> dict[str, Any]:
    np.savez(folder / "rows.npz", X=random(60, 12, 2), y=np.arange(60) % 3)
    return {"source": "rows.npz", "kind": "sequence"}


def odd_rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [1.5, np.nan, "?", 1e9], "when": ["2024-02-29", "2031-01-01T10:00:00Z", None, "never"],
            "kind": ["a", "new", None, "ç"], "wet": [True, "false", "true", None],
        }
    )  # fmt: skip


def odd_texts() -> list[str]:
    return ["the film was good", "never seen", "", "good " * 40, "Don't — é3.14!"]


def odd_sequences() -> list[Any]:
    gap = random(5, 2)
    gap[2, 0] = np.nan
    return [random(1, 2), gap, random(40, 2), random(12, 2) * 1e6]


def few_pictures() -> Any:
    return np.random.default_rng(1).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)


def few_steps() -> Any:
    return random(4, 12, 2)


def with_backbone(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    write_backbone(folder / "bert")
    rows = [{"text": " ".join(rng.choice(list("abcde"), 5)), "target": "ab"[i % 2]} for i in range(60)]
    write(folder / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    return {"source": "rows.jsonl", "tokens": "word", "vocabulary": 30, "length": 8}


CASES = {
    "mlp table": Case(table, {"family": "mlp", "normalization": "batch"}, odd_rows),
    "mlp regression": Case(prices, {"family": "mlp", "depth": 3, "normalization": "layer"}, lambda: random(5, 2)),
    "mlp image": Case(pictures, {"family": "mlp"}, few_pictures),
    "mlp sequence": Case(steps, {"family": "mlp"}, few_steps),
    "cnn": Case(pictures, {"family": "cnn", "depth": 4, "normalization": "batch"}, few_pictures),
    "float pictures": Case(float_pictures, {"family": "cnn"}, lambda: few_pictures() / 100.0 + 3),
    "resnet": Case(pictures, {"family": "resnet", "normalization": "layer"}, few_pictures),
    "conv1d": Case(sequences, {"family": "conv1d", "normalization": "batch", "kernel": 4}, odd_sequences),
    "conv1d whole": Case(steps, {"family": "conv1d", "normalization": "layer"}, few_steps),
    "rnn": Case(sequences, {"family": "rnn", "normalization": "batch"}, odd_sequences),
    "rnn lstm": Case(texts, {"family": "rnn", "cell": "lstm", "bidirectional": False}, odd_texts),
    "transformer": Case(sequences, {"family": "transformer", "normalization": "layer"}, odd_sequences),
    "transformer texts": Case(texts, {"family": "transformer", "normalization": "batch"}, odd_texts),
    "textcnn": Case(texts, {"family": "textcnn", "kernel": 4, "normalization": "batch"}, odd_texts),
    "bag": Case(texts, {"family": "bag", "depth": 2, "normalization": "layer"}, odd_texts),
    "pretrained": Case(with_backbone, {"family": "pretrained", "backbone": "bert"}, lambda: ["a b", "e", "zz a " * 9]),
    "pretrained unfrozen": Case(
        with_backbone, {"family": "pretrained", "backbone": "bert", "unfrozen": 2}, lambda: ["a b", "e", "zz a " * 9]
    ),
    "pretrained image": Case(
        pictures, {"family": "pretrained", "resolution": 64, "unfrozen": 1, "depth": 2}, few_pictures
    ),
}


def made(case: Case, folder: Path) -> BestConfig:
    """Return a best configuration as a study leaves it, whose weights are random and far from what they start as."""
    folder.mkdir()
    config = RunConfig.model_validate(
        {
            "data": case.data(folder),
            "model": {"width": 8, "depth": 1, "heads": 2, "embedding": 8} | case.model,
            "regularization": {"dropout": 0.3},
        }
    )
    encoder = load(config.data, folder).encoder
    about = {"encoder": encoder.to_json(), "metric": "log_loss", "predicts": True}
    if config.model.family == "pretrained":
        from tuner.backbones import find_backbone

        about["backbone"] = find_backbone(config.model.backbone, encoder.shape.kind, folder).identity()
    best = BestConfig(
        "made", 3, 0.5, 7, {}, config, {}, {"log_loss": 0.4}, {}, None, folder / "best.yaml", folder, about
    )
    write(best.path, f"folder: {folder}\n")
    network = best.build_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and "pairs" not in name:
                noise = torch.randn(value.shape, generator=generator) * 0.3
                value.copy_(value + (noise.abs() if "running_var" in name else noise))
        for module in network.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    write_weights(network, folder / MODEL)
    return best


def wanted(best: BestConfig, raw: Any) -> Any:
    return best.predict(raw) if best.encoder.shape.task == "regression" else best.predict_proba(raw)


def test_every_family_has_a_case() -> None:
    assert {case.model["family"] for case in CASES.values()} == set(FAMILIES)


@pytest.mark.slow
def test_the_python_file_predicts_the_same_bits_from_raw_examples_where_tuner_cant_be_imported(tmp_path: Path) -> None:
    bests = {name: made(case, tmp_path / name) for name, case in CASES.items()}
    for name, best in bests.items():
        weights = None
        if best.config.model.family == "pretrained":
            from tuner.backbones import find_backbone

            weights = find_backbone(best.config.model.backbone, best.encoder.shape.kind, best.folder).weights
            (best.folder / f"backbone{weights.suffix}").write_bytes(weights.read_bytes())
        text, _ = standalone(best, f"backbone{weights.suffix}" if weights else "")
        write(best.folder / NAME, text)
        write(best.folder / "best.json", json.dumps(best.about))
        pd.to_pickle(CASES[name].raw(), best.folder / "raw.pickle")
    write(tmp_path / "folders.json", json.dumps([str(best.folder) for best in bests.values()]))
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, "folders.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    for name, best in bests.items():
        found = np.load(best.folder / "found.npy")
        np.testing.assert_array_equal(found, wanted(best, CASES[name].raw()), err_msg=name)


ONNX_CASES = (
    "mlp regression", "conv1d", "rnn", "transformer texts", "textcnn", "bag", "pretrained unfrozen", "pretrained image",
    "float pictures",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ONNX_CASES)
def test_the_onnx_file_predicts_the_same_for_one_example_and_for_many(name: str, tmp_path: Path) -> None:
    from tuner.onnx_file import run_onnx, write_onnx

    best = made(CASES[name], tmp_path / "made")
    write_onnx(best.load_model(), best.encoder, made_up(best.encoder), tmp_path / ONNX, {"study": "made"})
    stored = best.encoder.encode(CASES[name].raw())
    with exactly():
        right = wanted(best, CASES[name].raw())
    relative, absolute = (2e-2, 5e-3) if name == "pretrained image" else (2e-3, 2e-4)  # its features are in float16
    for rows in (slice(None), slice(1), slice(1, 3)):
        np.testing.assert_allclose(run_onnx(tmp_path / ONNX, stored[rows]), right[rows], rtol=relative, atol=absolute)


def test_definitions_of_one_name_are_told_apart_in_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = [Name(f"tuner.data.{kind}", "read_encoder") for kind in ("table", "image", "text", "sequence")]
    families = [Name(f"tuner.models.{family}", family) for family in FAMILIES if family != "pretrained"]
    found = bundle([*encoders, *families], {Name("tuner.config", "RunConfig"): "SimpleNamespace"}, ("predict",))
    module = ModuleType("bundled")
    monkeypatch.setitem(sys.modules, "bundled", module)  # where dataclasses look for what they are made of
    exec("from __future__ import annotations\n" + found.text, vars(module))
    assert "tuner" not in found.packages
    assert len(set(found.names.values())) == len(encoders) + len(families)
    for root in (*encoders, *families):
        ours = getattr(import_module(root.module), root.name)
        assert getattr(module, found.names[root]).__doc__ == ours.__doc__
        assert getattr(module, found.names[root]).__code__.co_consts[0] == ours.__code__.co_consts[0]


STUDY = """
study: it
data: {source: sklearn:iris}
model: {family: FAMILY, width: 8, depth: 1}
training: {epochs: 6}
budget: {trials: 1, confirm: false}
"""
OWN = """
from torch import nn

def encoder(config, shape):
    width = config["model.width"] if config.data.split.val > 0 else config.model.options["width"]
    return nn.Sequential(nn.Linear(shape.input[0], width), nn.Tanh(), nn.Linear(width, shape.outputs))
"""


@pytest.fixture
def studied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[[str], None]:
    def run(family: str) -> None:
        monkeypatch.chdir(tmp_path)  # where code of one's own is looked for, too
        space = write(tmp_path / "spaces" / "it.yaml", STUDY.replace("FAMILY", family))
        assert call(capsys, "run", space).code == 0

    return run


@pytest.mark.slow
def test_a_folder_is_written_once_and_over_files_only_if_it_is_asked_for(
    studied: Callable[[str], None], tmp_path: Path, capsys: Any
) -> None:
    studied("mlp")
    ran = call(capsys, "export", "it", "out", "--onnx")
    assert ran.code == 0, ran.err
    names = {"best.yaml", "best.json", MODEL, NAME, ONNX}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all(f"out/{name}: " in ran.err for name in names)
    import onnx

    props = {each.key: each.value for each in onnx.load(tmp_path / "out" / ONNX).metadata_props}
    assert json.loads(props["classes"]) == ["setosa", "versicolor", "virginica"]
    again = call(capsys, "export", "it", "out")
    assert again.code == 2
    assert again.err.strip().count("\n") == 0
    assert "already" in again.err
    (tmp_path / "out" / NAME).write_text("mine")
    assert call(capsys, "export", "it", "out", "--force").code == 0
    assert (tmp_path / "out" / NAME).read_text() != "mine"
    assert call(capsys, "predict", "out/best.yaml", "sklearn:iris").code == 0  # with tuner, too


@pytest.mark.slow
def test_a_model_of_the_users_own_is_taken_from_where_it_is(
    studied: Callable[[str], None], tmp_path: Path, capsys: Any
) -> None:
    write(tmp_path / "exported_net.py", OWN)
    studied("exported_net:encoder")
    assert call(capsys, "export", "it", "out").code == 0
    text = (tmp_path / "out" / NAME).read_text()
    assert "factory = getattr(import_module('exported_net'), 'encoder')" in text
    write(tmp_path / "exported_net.py", OWN.replace("Tanh", "Missing"))
    gone = call(capsys, "export", "it", "other")
    assert gone.code in (2, 5)
    assert "Missing" in gone.err
    assert not (tmp_path / "other").exists()


def test_nothing_that_a_file_says_becomes_code(tmp_path: Path) -> None:
    best = made(CASES["mlp regression"], tmp_path / "made")
    evil = 'log_loss\'"""\nimport os\nos._exit(7)\n"""\\'
    best.about["metric"] = evil  # type: ignore[index]
    best.about["encoder"]["columns"] = [evil, "b"]
    best.about["encoder"]["numbers"][0]["column"] = evil
    text, _ = standalone(best)
    tree = ast.parse(text)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import) and node.names[0].name == "os"]


@pytest.mark.parametrize("kind", ["mlp table", "textcnn", "cnn", "conv1d"])
def test_a_task_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    best = made(CASES[kind], tmp_path / "made")
    best.about["encoder"]["task"] = 'classification"))\n\n\nopen("PWNED", "w")\n\n\ndef f():\n    return (('
    with pytest.raises(DataError, match="preprocessing is damaged"):
        standalone(best)


@pytest.mark.slow
def test_a_far_target_is_compared_in_its_own_spread(tmp_path: Path) -> None:
    best = made(Case(far_numbers, {"family": "mlp"}, lambda: random(5, 2)), tmp_path / "made")
    assert len(export(best, tmp_path / "out", onnx=True)) == 5
    from tuner.onnx_file import run_onnx

    raw = random(5, 2)
    np.testing.assert_allclose(run_onnx(tmp_path / "out" / ONNX, best.encoder.encode(raw)), best.predict(raw), atol=1.0)


def test_what_is_in_the_way_is_told_before_anything_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = made(CASES["mlp regression"], tmp_path / "made")
    write(tmp_path / "file", "")
    (tmp_path / "out" / "best.yaml").mkdir(parents=True)
    for folder, words in ((tmp_path / "file", "is no folder"), (tmp_path / "out", "which is no file")):
        for force in (False, True):
            with pytest.raises(UsageError, match=words):
                export(best, folder, force=force)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match="needs the packages onnx and onnxscript"):
        export(best, tmp_path / "new", onnx=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_nothing_stays_of_an_older_export(tmp_path: Path) -> None:
    best, out = made(CASES["mlp regression"], tmp_path / "made"), tmp_path / "out"
    for name in (ONNX, "backbone.safetensors", "notes.txt"):
        write(out / name, "old")
    with pytest.raises(UsageError, match=r"backbone\.safetensors, model\.onnx already"):
        export(best, out)
    export(best, out, force=True)
    assert {path.name for path in out.iterdir()} == {"best.yaml", "best.json", MODEL, NAME, "notes.txt"}


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = made(CASES["mlp regression"], tmp_path / "made")
    write(best.folder / "best.json", json.dumps(best.about))
    monkeypatch.setattr("tuner.exporting.predict", lambda *given: predict(*given) + 0.5)
    with pytest.raises(TunerError, match="predicts other numbers"):
        export(best, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_whose_loop_alone_knows_its_data_is_refused(tmp_path: Path) -> None:
    best = made(CASES["mlp regression"], tmp_path / "made")
    best.about["predicts"] = False  # type: ignore[index]
    with pytest.raises(UsageError, match="training loop"):
        export(best, tmp_path / "out")
