"""Cross-validation inside the search: folds fixed for the study, pruning between them, one honest mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL, call, write

from tuner.best import load_best
from tuner.config import Stopping
from tuner.curve import Curve, pooled
from tuner.errors import DataError
from tuner.grammar import Override
from tuner.live import Screen
from tuner.measuring import predict
from tuner.metrics import per_example_loss
from tuner.planning import prepare
from tuner.plots import PLOTS
from tuner.record import TrialRecord, seconds_kept
from tuner.reporting import summary
from tuner.scoring import Score
from tuner.stopping import finished, judge_folds, over_folds, peer
from tuner.tuning import conduct, tune

FOLDS = SMALL.replace("{source: sklearn:wine}", "{source: sklearn:wine, split: {folds: 3}}")


def timeless(record: TrialRecord) -> TrialRecord:
    def bare(curve: Curve) -> Curve:
        return replace(curve, epochs=tuple(replace(epoch, seconds=0.0) for epoch in curve.epochs))

    assert record.curve is not None
    # what rule `behind` would have done depends on who else had ended by then, which two workers make a matter of time
    rules = {kind: epoch for kind, epoch in record.rules.items() if kind != "behind"}
    return replace(record, seconds=0.0, curve=bare(record.curve), folds=tuple(map(bare, record.folds)), rules=rules)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("folds")
    return tune(write(folder / "small.yaml", FOLDS), studies_dir=folder / "studies")


def test_a_trials_curve_is_the_mean_over_its_folds(study: Any) -> None:
    for record in study.trials.values():
        assert record.state == "complete"
        assert len(record.folds) == 3
        assert {len(fold) for fold in record.folds} == {len(record.curve)}
        assert record.curve.n_val == sum(fold.n_val for fold in record.folds) == 142
        for number in range(1, len(record.curve) + 1):
            mean = np.average([f[number].val.loss for f in record.folds], weights=[f.n_val for f in record.folds])
            assert record.curve[number].val.loss == pytest.approx(mean, rel=1e-5)
        assert record.score.epoch == record.curve.best


def test_screen_text_and_figure_tell_the_same_epochs_of_all_folds(study: Any) -> None:
    records = {number: replace(record, folds=record.folds[:1]) for number, record in study.trials.items() if number}
    records[0] = study.trials[0]
    document = summary(study.record, records, {})
    run, cap = document["epochs"]["run"], document["epochs"]["budgeted"]
    assert cap == 3 * sum(record.curve.budget for record in records.values())
    screen = Screen()
    screen.study = study.record
    assert screen._saved(list(records.values())) == f"{1 - run / cap:.0%} of epochs saved"
    ended = PLOTS["ended"](document, records)
    assert ended is not None
    assert ended.sentence.startswith(f"{run} of {cap} epochs were run, {1 - run / cap:.0%} saved; ended: ")
    caps, *bars = ended.figure["data"]
    assert (caps["name"], sum(caps["y"])) == ("saved", cap)
    assert sum(sum(bar["y"]) for bar in bars) == run


def test_the_folds_errors_add_up_in_squares_as_their_examples_are_disjoint(study: Any) -> None:
    record = study.trials[0]
    sizes = np.array([fold.n_val for fold in record.folds])
    errors = np.array([fold[1].se_val for fold in record.folds])
    expected = np.sqrt(((sizes * errors) ** 2).sum()) / sizes.sum()
    assert record.curve[1].se_val == pytest.approx(expected, rel=1e-5)
    assert record.curve[1].se_val < errors.min()


def test_the_chosen_configuration_is_trained_on_all_folds_and_looked_at_once(study: Any) -> None:
    document = json.loads(json.dumps(study.document))
    assert document["data"]["folds"] == 3
    assert document["test"]["looks"] == 1
    assert Path(document["model"]).is_file()
    run = sum(len(fold) for record in study.trials.values() for fold in record.folds)
    assert document["epochs"]["run"] == run


def test_two_workers_or_one_give_the_same_trials(study: Any, tmp_path: Path) -> None:
    other = tune(write(tmp_path / "small.yaml", FOLDS), workers=2, trials=2, studies_dir=tmp_path / "studies")
    again = tune(write(tmp_path / "b" / "small.yaml", FOLDS), trials=2, studies_dir=tmp_path / "b" / "studies")
    assert list(map(timeless, other.trials.values())) == list(map(timeless, again.trials.values()))
    assert timeless(study.trials[0]) == timeless(other.trials[0])


def test_a_study_stopped_between_folds_goes_on_as_if_nothing_had_happened(study: Any, tmp_path: Path) -> None:
    space = write(tmp_path / "small.yaml", FOLDS)
    run = conduct(prepare(space, studies_dir=tmp_path / "studies"))
    while len(next(run).folds) < 2:
        pass
    run.close()
    resumed = tune(space, studies_dir=tmp_path / "studies")
    assert [timeless(r) for r in resumed.trials.values()] == [timeless(r) for r in study.trials.values()]


def test_a_study_with_folds_that_is_stopped_leaves_its_best_configuration_so_far(study: Any, tmp_path: Path) -> None:
    space, folder = write(tmp_path / "small.yaml", FOLDS), tmp_path / "studies" / "small"
    run = conduct(prepare(space, studies_dir=tmp_path / "studies"))
    while next(run).state == "running":
        pass
    run.close()
    best = load_best("small", tmp_path / "studies")
    assert (best.trial, best.test) == (0, None)
    assert "there is none yet" in best.path.read_text()
    with pytest.raises(DataError, match="the weights are missing; `tuner run` of the study"):
        best.load_model()
    tune(space, studies_dir=tmp_path / "studies")
    whole = load_best("small", tmp_path / "studies")
    model = whole.model_path.read_bytes()
    assert whole.load_model() is not None

    run = conduct(prepare(space, overrides=[Override("budget.trials", "40", "here")], studies_dir=tmp_path / "studies"))
    while not next(run).leads:
        pass
    run.close()
    assert load_best("small", tmp_path / "studies").trial == whole.trial, "a model that is there isn't taken away"
    assert (folder / "model.safetensors").read_bytes() == model


def test_the_command_says_how_many_folds_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "run", write(tmp_path / "small.yaml", FOLDS), "--trials", "2")
    assert said.code == 0, said.err
    assert "3 folds" in said.out
    assert "The model was trained again on 142 rows, " in said.out
    assert "; the model was then trained again on 142 rows" in (tmp_path / "studies/small/best.yaml").read_text()
    assert "epochs in each of 3 folds" in call(capsys, "show", "small", "--trial", "0").out
    assert call(capsys, "train", "studies/small/best.yaml").code == 0


def losses(make_curve: Any, *values: float) -> Curve:
    curve: Curve = make_curve(list(values))
    return curve


def test_a_single_fold_is_its_own_mean(make_curve: Any) -> None:
    curve = losses(make_curve, 1.0, 0.8, 0.7)
    assert pooled([curve]) is curve


def test_the_mean_of_equal_folds_is_that_fold_with_a_smaller_error(make_curve: Any) -> None:
    curve = losses(make_curve, 1.0, 0.8, 0.7)
    mean = pooled([curve, curve, curve, curve])
    assert [epoch.val for epoch in mean.epochs] == [epoch.val for epoch in curve.epochs]
    assert mean.best == curve.best
    assert mean[2].se_val == pytest.approx(curve[2].se_val / 2, rel=1e-6)
    assert mean.n_val == 4 * curve.n_val


def test_a_trial_behind_the_others_is_pruned_between_folds_with_its_reason(make_curve: Any) -> None:
    peers = [peer(losses(make_curve, 1.0, 0.5, level), False) for level in (0.30, 0.31, 0.32, 0.33, 0.34)]
    slow = losses(make_curve, 1.0, 0.9, 0.9)
    verdict = judge_folds(slow, peers, Stopping(), done=2, folds=5)
    assert verdict is not None
    assert (verdict.kind, verdict.outcome) == ("behind", "pruned")
    assert verdict.reason.startswith("pruned after fold 2 of 5: best mean validation loss 0.9 isn't among the best 40")
    assert judge_folds(slow, peers, Stopping(behind=False), done=2, folds=5) is None
    assert judge_folds(slow, peers[:2], Stopping(), done=2, folds=5) is None, "too few to compare with"
    assert judge_folds(losses(make_curve, 1.0, 0.5, 0.31), peers, Stopping(), done=2, folds=5) is None


def test_the_verdict_over_folds_says_why_the_first_ended_and_what_was_kept(make_curve: Any) -> None:
    curve = losses(make_curve, 1.0, 0.5, 0.4)
    verdict = over_folds(finished(curve), curve, 5)
    assert verdict.outcome == "complete"
    assert verdict.reason == "3 epochs in each of 5 folds (the whole budget), kept epoch 3: mean validation loss 0.4"
    assert verdict.numbers["fold_1.val_loss"] == 0.4, "what the first fold was judged by is kept"


@pytest.mark.slow
def test_a_bad_configuration_doesnt_go_through_all_its_folds(tmp_path: Path) -> None:
    text = FOLDS.replace("{low: 2, high: 4}", "8").replace(
        "{low: 3e-3, high: 3e-2, log: true}", "{low: 1e-5, high: 0.1, log: true}"
    )
    study = tune(write(tmp_path / "small.yaml", text), trials=25, studies_dir=tmp_path / "studies")
    counts = {len(record.folds) for record in study.trials.values() if record.state == "pruned"}
    assert counts, "some were pruned"
    assert min(counts) < 3
    assert all(len(r.folds) == 3 for r in study.trials.values() if r.state == "complete")


def test_the_time_for_training_again_is_that_of_the_kept_epochs_of_one_fold(make_curve: Any) -> None:
    rule = Score(1.0, 2, "log_loss", 1.0, 0.0, 0.0, 0.0)
    curve = losses(make_curve, 1.0, 0.8, 0.9)  # half a second an epoch
    record = TrialRecord(0, "complete", {}, 0, curve=curve, score=rule)
    assert seconds_kept(record) == pytest.approx(1.0)
    assert seconds_kept(replace(record, folds=(curve, curve, curve))) == pytest.approx(1.0)
    assert seconds_kept(replace(record, score=None)) == 0


def test_refit_trains_the_chosen_configuration_on_all_rows_but_the_test_rows(tmp_path: Path) -> None:
    text = SMALL.replace("training: {", "training: {refit: true, ")
    plan = prepare(write(tmp_path / "small.yaml", text), studies_dir=tmp_path / "studies")
    assert len(plan.splits.train) == len(plan.folds[0].train) + len(plan.folds[0].val)
    study = tune(tmp_path / "small.yaml", studies_dir=tmp_path / "studies")
    assert study.document["test"]["looks"] == 1
    assert study.document["per_class"]["val"] is not None, "by the trial's own network, which never saw those rows"
    plain = tune(write(tmp_path / "p.yaml", SMALL), study_name="plain", studies_dir=tmp_path / "studies")
    assert study.document["best"]["val"] == plain.document["best"]["val"], "the search is the same"
    models = [Path(each.document["model"]).read_bytes() for each in (study, plain)]
    assert models[0] != models[1]
    assert study.document["per_class"]["val"] == plain.document["per_class"]["val"]


def test_a_study_to_be_refitted_that_is_stopped_leaves_the_trials_own_model(tmp_path: Path) -> None:
    space = write(tmp_path / "small.yaml", SMALL.replace("training: {", "training: {refit: true, "))
    run = conduct(prepare(space, studies_dir=tmp_path / "studies"))
    while next(run).state == "running":
        pass
    run.close()
    early = load_best("small", tmp_path / "studies")
    model = early.model_path.read_bytes()
    assert "it is the trial's own" in early.path.read_text()
    assert early.test is None
    plan = prepare(space, studies_dir=tmp_path / "studies")
    network = early.load_model()
    outputs = predict(network, plan.folds[0].val.x, plan.folds[0].encoder.standard, "classification")
    loss = per_example_loss(outputs, plan.folds[0].val.y, "classification").mean()
    assert loss == pytest.approx(early.val["log_loss"], rel=1e-5), "with the preprocessing that it was trained with"
    assert early.encoder.to_json() == plan.folds[0].encoder.to_json()

    tune(space, studies_dir=tmp_path / "studies")
    whole = load_best("small", tmp_path / "studies")
    assert whole.model_path.read_bytes() != model
    assert whole.encoder.to_json() == plan.splits.encoder.to_json()
    longer = tune(space, trials=12, studies_dir=tmp_path / "studies")
    kept = {path.name for path in (tmp_path / "studies" / "small" / "weights").glob("*-refit.safetensors")}
    numbers = {longer.document["best"]["trial"], longer.document["baseline"]["trial"]}
    assert kept == {f"{number:05d}-refit.safetensors" for number in numbers}


@pytest.mark.parametrize("more", ["training: {refit: true, ", "training: {"], ids=["refit", "folds"])
def test_training_the_best_configuration_alone_gives_a_model_with_its_own_preprocessing(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (SMALL if "refit" in more else FOLDS).replace("training: {", more)
    document = tune(write(tmp_path / "small.yaml", text), trials=2).document
    assert call(capsys, "train", document["config"], "--out", "again").code == 0
    alone, studys = (
        json.loads((Path(name).parent / "best.json").read_text()) for name in ("again/x", document["model"])
    )
    assert alone["encoder"] == studys["encoder"]
    if "refit" in more:
        assert Path("again/model.safetensors").read_bytes() == Path(document["model"]).read_bytes()
