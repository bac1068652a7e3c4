"""Confirmation: the best of many is chosen by what it comes to on rows and seeds that it was not chosen on."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import SMALL, call, write
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_wine

from tuner import load_best, open_study, tune
from tuner.ablating import ablate
from tuner.again import Again, Done, again
from tuner.confirmation import (
    FEWEST_ROUNDS,
    ROUNDS,
    SLACK,
    TOP,
    Confirmed,
    Repeat,
    affordable,
    bought,
    chosen,
    confirmed,
    contenders,
    reserved,
)
from tuner.confirming import TRIES, Run, _seed, _split, repeat_each
from tuner.curve import Curve
from tuner.engine import Task
from tuner.errors import DataError
from tuner.grammar import Override
from tuner.opening import open_store, setting_of
from tuner.planning import prepare
from tuner.ranking import best_record
from tuner.record import TrialRecord, seconds_kept
from tuner.scoring import Score
from tuner.search import _Loop
from tuner.showing import _with_spread, study_text
from tuner.storage import opened
from tuner.study import list_studies
from tuner.tuning import conduct
from tuner.workers import Processes

CONFIRMED = SMALL.replace("confirm: false", "confirm: true").replace("trials: 3", "trials: 7")


def worth(value: float) -> Score:
    return Score(value, 1, "log_loss", value, 0.0, 0.0, 0.0)


def trial(number: int, value: float, state: Any = "complete", **values: float) -> TrialRecord:
    return TrialRecord(number, state, values or {"w": number}, 0, score=worth(value))


def repeats(scores: dict[int, list[float | None]]) -> list[Repeat]:
    return [
        Repeat(number, n, 0, n, 1, None, None if value is None else worth(value), "" if value else "broke")
        for number, values in scores.items()
        for n, value in enumerate(values)
    ]


def outcome(records: list[TrialRecord], scores: dict[int, list[float | None]]) -> Confirmed | None:
    return confirmed({record.number: record for record in records}, repeats(scores), 100, 25, "penalty")


class TestChoice:
    def test_the_mean_over_the_rounds_chooses_and_the_error_is_nadeau_and_bengios(self) -> None:
        found = outcome([trial(0, 0.9), trial(1, 0.8)], {0: [0.6, 0.7, 0.8], 1: [0.74, 0.75, 0.76]})
        assert found is not None
        assert (found.trial, found.searched, found.rounds) == (1, 0, (0, 1, 2))
        assert found.optimism == pytest.approx(0.2)
        first, second = found.standings
        assert (first.trial, first.mean, first.sd) == (1, pytest.approx(0.75), pytest.approx(0.01))
        assert second.se == pytest.approx(0.1 * math.sqrt(1 / 3 + 25 / 100))
        assert [repeat.trial for repeat in found.of_chosen] == [1, 1, 1]

    def test_an_interval_ends_where_a_score_can_be_no_better(self) -> None:
        found = outcome([trial(0, 0.99), trial(1, 0.98)], {0: [0.99, 0.97, 0.98], 1: [0.9, 0.8, 0.7]})
        assert found is not None
        assert found.standings[0].high == 1.0
        assert found.standings[0].low < 0.97

    def test_of_equal_means_the_earlier_trial_is_chosen(self) -> None:
        found = outcome([trial(3, 0.8), trial(1, 0.9)], {1: [0.5, 0.5], 3: [0.5, 0.5]})
        assert found is not None
        assert found.trial == 1

    def test_rounds_that_not_all_went_through_dont_count_and_one_alone_chooses_nothing(self) -> None:
        records = [trial(0, 0.9), trial(1, 0.8)]
        found = outcome(records, {0: [0.5, 0.5, 0.1], 1: [0.4, 0.4]})
        assert found is not None
        assert (found.trial, found.rounds) == (0, (0, 1))
        assert outcome(records, {0: [0.5, 0.5, 0.1], 1: [0.4]}) is None
        assert outcome(records, {}) is None

    def test_where_the_time_was_up_the_first_contenders_with_two_rounds_are_compared(self) -> None:
        rows = [trial(0, 0.9), trial(1, 0.8), trial(2, 0.7)]
        found = outcome(rows, {0: [0.6, 0.7], 1: [0.74, 0.75], 2: [0.99]})
        assert found is not None
        assert [each.trial for each in found.standings] == [1, 0]
        assert (found.rounds, found.searched, len(found.repeats)) == ((0, 1), 0, 4)
        assert outcome(rows, {0: [0.6, 0.7], 1: [0.74], 2: [0.99]}) is None

    def test_a_configuration_that_fails_once_is_not_chosen(self) -> None:
        records = [trial(0, 0.9), trial(1, 0.8)]
        found = outcome(records, {0: [0.9, None, 0.9], 1: [0.1, 0.1, 0.1]})
        assert found is not None
        assert found.trial == 1
        assert found.optimism == math.inf
        assert outcome(records, {0: [0.9, None, 0.9], 1: [None, 0.1, 0.1]}) is None

    def test_contenders_are_the_best_distinct_complete_trials_and_at_least_two(self) -> None:
        rows = [trial(n, n / 10) for n in range(8)] + [
            trial(8, 0.75, w=7),
            trial(9, 2.0, "pruned"),
            trial(10, math.nan),
        ]
        assert [record.number for record in contenders(rows, "penalty")] == [8, 6, 5, 4, 3]
        assert len(contenders(rows, "penalty")) == TOP
        assert contenders([trial(0, 0.5)], "penalty") == []
        assert contenders([trial(0, 0.5), trial(1, 0.4, w=0)], "penalty") == [], "one configuration tried twice is one"

    def test_a_trial_that_came_to_the_top_after_the_confirmation_opens_it_again(self) -> None:
        scores: dict[int, list[float | None]] = {0: [0.5, 0.5], 1: [0.6, 0.6]}
        records = [trial(0, 0.9), trial(1, 0.8)]
        assert outcome(records, scores) is not None
        records = [*records, trial(2, 1.0)]
        assert outcome(records, scores) is None
        best = chosen({record.number: record for record in records}, None, "penalty")
        assert best is not None
        assert best.number == 2

    def test_a_repeat_goes_to_json_and_back(self, make_curve: Callable[..., Curve]) -> None:
        curve = make_curve([1.0, 0.7])
        repeat = Repeat(4, 2, 17, 3, 2, curve, worth(0.3))
        assert Repeat.from_json(repeat.to_json()) == repeat
        failed = Repeat(4, 2, 17, 3, 2, None, None, "broke")
        assert Repeat.from_json(failed.to_json()) == failed


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("confirmed")
    return tune(write(folder / "small.yaml", CONFIRMED), studies_dir=folder / "studies")


SECONDS = st.lists(st.floats(0.01, 1000), min_size=2, max_size=TOP)


class TestTime:
    @given(SECONDS, st.integers(1, 8), st.floats(0.0, 10_000))
    def test_what_is_set_aside_is_what_it_takes_but_never_more_than_the_limit(
        self, seconds: list[float], slots: int, limit: float
    ) -> None:
        aside, count = reserved(seconds, slots, limit), affordable(seconds, slots, limit)
        assert 0 <= aside <= limit
        assert aside <= SLACK * max(ROUNDS * sum(seconds) / slots, max(seconds)) * (1 + 1e-9)
        assert (aside == 0) == (count == 0)
        assert count == 0 or 2 <= count <= len(seconds)
        if count:
            assert SLACK * FEWEST_ROUNDS * sum(seconds[:count]) / slots <= limit * (1 + 1e-9)
        if 0 < count < len(seconds):
            one_more = seconds[: count + 1]
            assert SLACK * max(FEWEST_ROUNDS * sum(one_more) / slots, *one_more) > limit * (1 - 1e-9)

    def test_too_short_a_time_is_left_to_the_search(self) -> None:
        assert reserved([40.0, 40.0, 40.0], 2, 40.0) == 0.0
        assert reserved([40.0, 40.0, 40.0], 2, 100.0) == 100.0
        assert affordable([40.0, 40.0, 40.0], 2, 100.0) == 2
        assert reserved([40.0, 40.0, 40.0], 2, 1000.0) == pytest.approx(SLACK * 180.0)
        assert reserved([], 2, 1000.0) == 0.0


def _divides(folder: Path, text: str, seed: int) -> bool:
    path = write(folder / "try.yaml", text.replace("groups: g", f"groups: g, seed: {seed}"))
    try:
        prepare(path, studies_dir=folder / "none")
    except DataError:
        return False
    return True


class TestStudy:
    def test_the_document_says_who_was_confirmed_on_what_and_how_far_the_search_was_too_good(self, study: Any) -> None:
        found, trials = study.document["confirmed"], study.trials
        assert found["trial"] == study.document["best"]["trial"] == study.best.trial
        assert found["fresh_splits"] is True
        assert found["rounds"] == ROUNDS == len(set(found["seeds"])) == len(set(found["splits"]))
        top = [record.number for record in contenders(trials.values(), "penalty")]
        assert sorted(each["trial"] for each in found["contenders"]) == sorted(top)
        assert found["search_choice"] == top[0] == study.document["search_best"]["trial"]
        means = [each["score"] for each in found["contenders"]]
        assert means == sorted(means, reverse=True)
        leader = next(each for each in found["contenders"] if each["trial"] == top[0])
        assert found["optimism"] == pytest.approx(trials[top[0]].score.value - leader["score"], abs=1e-5)
        assert set(found["val"]) == set(study.document["best"]["val"])
        assert study.document["test"]["looks"] == 1

    def test_no_seed_is_a_trials_and_no_split_the_studys(self, study: Any) -> None:
        found = study.document["confirmed"]
        assert not set(found["seeds"]) & {record.seed for record in study.trials.values()}
        assert 0 not in found["splits"], "the study's own"

    def test_the_model_is_the_chosen_trials_own(self, study: Any) -> None:
        best = load_best(study.folder / "best.yaml")
        assert best.trial == study.document["confirmed"]["trial"]
        said = Path(study.document["model"]).read_bytes()
        kept = study.folder / "weights" / f"{best.trial:05d}.safetensors"
        assert said == kept.read_bytes()

    def test_the_error_is_by_the_rows_of_the_rounds_where_they_tell_them(
        self, make_curve: Callable[..., Curve]
    ) -> None:
        records = [trial(0, 0.9), trial(1, 0.8)]
        runs = repeats({0: [0.5, 0.7], 1: [0.4, 0.4]})
        told = [replace(run, curve=make_curve([1.0], n=50), n_train=100) for run in runs]
        found = confirmed({record.number: record for record in records}, told, 900, 100, "penalty")
        assert found is not None
        assert found.standings[0].se == pytest.approx(found.standings[0].sd * math.sqrt(1 / 2 + 50 / 100))

    def test_where_the_leader_failed_its_optimism_is_not_told_as_none(self, study: Any) -> None:
        found = {**study.document["confirmed"], "optimism": None}
        (line,) = [each for each in study_text({**study.document, "confirmed": found}) if "optimism" in each]
        assert line.endswith("the search's choice, came to no score in every round")

    def test_a_second_run_trains_nothing_and_finds_the_same(self, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tuner.tuning.engine_for", None)
        again = tune(study.folder.parent.parent / "small.yaml", studies_dir=study.folder.parent)
        assert again.document["confirmed"] == study.document["confirmed"]

    def test_it_can_be_read_without_the_data(self, study: Any) -> None:
        read = open_study("small", studies_dir=study.folder.parent)
        assert read.document["confirmed"] == study.document["confirmed"]

    def test_under_another_score_the_confirmation_is_scored_again_from_what_is_stored(
        self, study: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = "rescore", "small", "--studies-dir", str(study.folder.parent)
        found, free = study.document["confirmed"], call(capsys, *words, "--form", "none", "--json").document
        own = call(capsys, *words, "--json").document["confirmed"]
        assert own == {key: found[key] for key in ("trial", "search_choice", "optimism", "contenders")}
        for each in free["confirmed"]["contenders"]:
            scores = [
                1 - repeat.curve[repeat.kept].val.loss / repeat.curve.null_loss
                for repeat in study.repeats if repeat.trial == each["trial"]
            ]  # fmt: skip
            assert each["score"] == pytest.approx(fmean(scores))
        means = [each["score"] for each in free["confirmed"]["contenders"]]
        assert means == sorted(means, reverse=True)
        text = " ".join(call(capsys, *words, "--form", "none").out.split())
        assert f"Of the {len(means)} configurations that were confirmed this" in text
        assert f"trial {free['confirmed']['trial']} (" in text

    def test_rows_of_a_round_that_is_over_take_no_more_room(self, tmp_path: Path) -> None:
        two = CONFIRMED.replace("confirm: true", "confirm: true, workers: 2")
        plan = prepare(write(tmp_path / "small.yaml", two), studies_dir=tmp_path / "studies")
        there = set[tuple[str, ...]]()
        for news in conduct(plan):
            if isinstance(news, Repeat):
                there.add(tuple(sorted(place.name for place in plan.folder.glob(".data-*/*"))))
        assert {name for names in there for name in names} == {f"splits-{n}" for n in range(1 + ROUNDS)}
        assert all("splits-0" in names and len(names) <= 3 for names in there), "the search's, and two workers' rounds"

    @pytest.mark.parametrize("runs", [1, 4])
    def test_one_that_was_stopped_in_the_confirmation_goes_on_there(
        self, study: Any, tmp_path: Path, runs: int
    ) -> None:
        plan = prepare(write(tmp_path / "small.yaml", CONFIRMED), studies_dir=tmp_path / "studies")
        run, seen = conduct(plan), 0
        while seen < runs:
            seen += isinstance(next(run), Repeat)
        run.close()
        there = open_study("small", studies_dir=tmp_path / "studies")
        assert there.document["confirmed"] is None
        assert there.document["test"] is None, "nothing was looked at before the choice"
        said = " ".join(" ".join(study_text(there.document)).split())
        assert "not confirmed (the run was stopped; the same command goes on)" in said
        assert "The test set has not been opened." in said
        news = [each for each in conduct(plan) if isinstance(each, Repeat)]
        assert len(news) == len(study.document["confirmed"]["contenders"]) * ROUNDS - runs
        whole = open_study("small", studies_dir=tmp_path / "studies")
        assert whole.document["confirmed"] == study.document["confirmed"]

    def test_one_that_was_stopped_after_two_rounds_leaves_what_these_choose_with_its_model(
        self, study: Any, tmp_path: Path
    ) -> None:
        run = conduct(prepare(write(tmp_path / "small.yaml", CONFIRMED), studies_dir=tmp_path / "studies"))
        seen, enough = 0, 2 * len(study.document["confirmed"]["contenders"]) + 1
        while seen < enough:
            seen += isinstance(next(run), Repeat)
        run.close()
        best, there = load_best("small", tmp_path / "studies"), open_study("small", studies_dir=tmp_path / "studies")
        assert there.document["confirmed"]["rounds"] == 2
        assert best.trial == there.document["confirmed"]["trial"]
        assert best.model_path.read_bytes() == (there.folder / "weights" / f"{best.trial:05d}.safetensors").read_bytes()
        assert there.document["test"] is None

    def test_a_round_whose_rows_cant_be_divided_by_one_seed_is_divided_by_its_next(self, tmp_path: Path) -> None:
        """One group alone holds the last class, so that some seeds put it where no training row has it."""
        rng = np.random.default_rng(0)
        groups = np.repeat(np.arange(10), 30)
        y = np.where(groups == 9, 2, rng.integers(0, 2, 300))
        frame = pd.DataFrame(rng.normal(size=(300, 4)) + y[:, None], columns=list("abcd")).assign(y=y, g=groups)
        frame.to_csv(tmp_path / "rows.csv", index=False)
        text = CONFIRMED.replace("{source: sklearn:wine}", "{source: rows.csv, target: y, split: {groups: g}}")
        fitting = [seed for seed in range(40) if _divides(tmp_path, text, seed)]
        first = next(seed for seed in fitting if seed + 1 not in fitting)  # so that the first round's own seed fails
        path = write(tmp_path / "small.yaml", text.replace("groups: g", f"groups: g, seed: {first}"))
        found = tune(path, trials=3, studies_dir=tmp_path / "studies").document["confirmed"]
        assert found["rounds"] == ROUNDS
        assert found["splits"][0] == first + 1 + ROUNDS * ((found["splits"][0] - first - 1) // ROUNDS) > first + 1
        assert len(set(found["splits"])) == ROUNDS
        assert set(found["splits"]) <= set(fitting)

    def test_two_workers_find_the_same_as_one(self, study: Any, tmp_path: Path) -> None:
        path = write(tmp_path / "small.yaml", CONFIRMED + "search: {sampler: random}\nstopping: none\n")
        one = tune(path, studies_dir=tmp_path / "one").document["confirmed"]
        two = tune(path, workers=2, studies_dir=tmp_path / "two").document["confirmed"]
        assert one == two

    def test_the_fresh_splits_leave_the_test_rows_sealed(self, study: Any, tmp_path: Path) -> None:
        plan = prepare(write(tmp_path / "small.yaml", CONFIRMED), studies_dir=tmp_path / "studies")
        seen = []

        def watch(self: Any, splits: Any) -> int:
            seen.append(splits)
            return take(self, splits)

        from tuner.tasks import InProcess

        take = InProcess.take
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(InProcess, "take", watch)
            for _ in conduct(plan):
                pass
        assert len(seen) == 1 + ROUNDS
        sealed = set(plan.splits.test.rows.tolist()) if plan.splits.test else set()
        for splits in seen:
            assert not sealed & {*splits.train.rows.tolist(), *splits.val.rows.tolist()}
        vals = [tuple(splits.val.rows.tolist()) for splits in seen]
        assert len(set(vals)) == 1 + ROUNDS

    def test_data_that_changed_meanwhile_are_refused(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)

        def save(seed: int) -> None:
            x = np.random.default_rng(seed).normal(size=(90, 4)).astype(np.float32)
            np.savez(tmp_path / "d.npz", X=x, y=rng.integers(0, 2, 90))

        save(0)
        space = CONFIRMED.replace("sklearn:wine", "d.npz")
        run = conduct(prepare(write(tmp_path / "small.yaml", space), studies_dir=tmp_path / "studies"))
        next(run)
        save(1)
        with pytest.raises(DataError, match="is not what it was when the study began"):
            for _ in run:
                pass
        assert (
            load_best("small", tmp_path / "studies").trial
            == best_record(open_study("small", studies_dir=tmp_path / "studies").trials).number
        ), "what was found so far is there"

    def test_without_confirmation_the_search_chooses_and_a_later_run_may_confirm(self, tmp_path: Path) -> None:
        path = write(tmp_path / "small.yaml", CONFIRMED)
        plan = prepare(path, overrides=[Override("budget.confirm", "false", "here")], studies_dir=tmp_path / "studies")
        for _ in conduct(plan):
            pass
        first = open_study("small", studies_dir=tmp_path / "studies").document
        assert first["confirmed"] is None
        assert first["best"]["trial"] == first["search_best"]["trial"]
        assert tune(path, studies_dir=tmp_path / "studies").document["confirmed"] is not None

    def test_time_is_set_aside_for_the_confirmation_and_none_is_begun_after_the_limit(
        self, study: Any, tmp_path: Path
    ) -> None:
        limit = [Override("budget.timeout", "10000", "here")]
        plan = prepare(study.folder.parent.parent / "small.yaml", overrides=limit, studies_dir=study.folder.parent)
        with opened(plan.storage, create=True) as rdb:
            store = open_store(plan, rdb)
            setting = setting_of(plan, store)
            loop = _Loop(setting, SimpleNamespace(slots=2))  # type: ignore[arg-type]
            seconds = sum(seconds_kept(record) for record in contenders(setting.records.values(), "penalty"))
            assert loop.reserve >= ROUNDS * seconds / 2 + ROUNDS * plan.seconds
            setting.deadline = None
            assert _Loop(setting, SimpleNamespace(slots=2)).reserve == 0  # type: ignore[arg-type]
            runs = [Run(record, 0) for record in contenders(setting.records.values(), "penalty")]
            assert not list(repeat_each(plan, store, None, runs, deadline=time.monotonic()))  # type: ignore[arg-type]

    def test_a_metric_without_a_spread_over_the_rounds_is_shown_without_one(self) -> None:
        assert _with_spread(None) == "-"
        assert _with_spread({"mean": None, "sd": None}) == "-"
        assert _with_spread({"mean": 0.5, "sd": None}) == "0.5"
        assert _with_spread({"mean": 0.5, "sd": 0.123}) == "0.5 +- 0.12"

    def test_folds_and_refit_are_confirmed_as_well(self, tmp_path: Path) -> None:
        space = CONFIRMED.replace("{source: sklearn:wine}", "{source: sklearn:wine, split: {folds: 3}}")
        study = tune(write(tmp_path / "small.yaml", space), trials=3, studies_dir=tmp_path / "studies")
        assert study.document["confirmed"]["rounds"] == ROUNDS
        assert study.best.load_model() is not None
        sizes = {len(fold.train) for fold in prepare(tmp_path / "small.yaml", studies_dir=tmp_path / "other").folds}
        assert {repeat.n_train for repeat in study.repeats} <= sizes, "on as many rows as each fold of the search"
        assert all(repeat.fresh for repeat in study.repeats)

    def test_where_the_data_name_the_validation_rows_only_the_seeds_are_fresh_and_that_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(120, 4)).astype(np.float32)
        split = np.array(["train", "train", "train", "val", "test"])[np.arange(120) % 5]
        np.savez(tmp_path / "d.npz", X=x, y=(x[:, 0] > 0).astype(int), split=split)
        write(tmp_path / "small.yaml", CONFIRMED.replace("sklearn:wine", "d.npz"))
        monkeypatch.chdir(tmp_path)
        said = call(capsys, "run", "small.yaml", "--trials", "3")
        assert (
            "confirmed on 3 fresh seeds (the validation rows are the search's: the data name or order them)" in said.out
        )
        found = open_study("small").document["confirmed"]
        assert found["fresh_splits"] is False
        assert "95 % interval" not in said.out.split("contender")[0]
        assert "the error of the seeds alone" in said.out
        assert "optimism: can't be told from the rows that the search chose on" in said.out
        first = found["contenders"][0]
        assert (first["low"], first["high"], found["optimism"]) == (None, None, None)
        assert first["se"] == pytest.approx(first["sd"] / math.sqrt(found["rounds"]), rel=1e-4)

    def test_why_there_is_no_confirmation_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "small.yaml", CONFIRMED)
        assert "not confirmed (it was left out):" in call(capsys, "run", "small.yaml", "--no-confirm").out
        # a search that has used up its time: nothing is left for the runs of the confirmation
        monkeypatch.setattr("tuner.tuning.pending", lambda *_: [])
        monkeypatch.setattr("tuner.tuning._is_over", lambda *_: False)
        said = call(capsys, "run", "small.yaml", "--study-name", "short", "--timeout", "50s").out
        assert "not confirmed (two rounds of the best two take about <1 s, and" in said
        document = call(capsys, "show", "short", "--json").document
        assert document["confirmed"] is None
        assert document["not_confirmed"] in " ".join(said.split())

    def test_the_rounds_are_paired_and_differ(self, tmp_path: Path) -> None:
        plan = prepare(write(tmp_path / "small.yaml", CONFIRMED), studies_dir=tmp_path / "studies")
        assert len({(_split(plan, n), _seed(plan, n)) for n in range(ROUNDS)}) == ROUNDS
        splits = {_split(plan, n, attempt) for n in range(ROUNDS) for attempt in range(TRIES)}
        assert len(splits) == ROUNDS * TRIES
        assert plan.space.config.data.split.seed not in splits
        other = replace(plan, space=replace(plan.space, config=plan.space.config.replace({"seed": 4})))
        assert _seed(plan, 0) != _seed(other, 0)


class TestAblation:
    def test_what_a_regularizer_bought_is_the_paired_difference_and_its_error(self) -> None:
        full = repeats({0: [0.5, 0.6, 0.7]})
        less = [replace(each, without="regularization.l2") for each in repeats({0: [0.4, 0.5, 0.5]})]
        broken = [replace(each, without="regularization.l1") for each in repeats({0: [0.4, None, None]})]
        values = {"regularization.l1": 0.1, "regularization.l2": 0.2}
        (found,) = bought([*full, *less, *broken], 0, values, 100, 25)
        assert (found.name, found.value, found.rounds) == ("regularization.l2", 0.2, 3)
        assert found.score == pytest.approx(0.4 / 3)
        assert found.score_se == pytest.approx(np.std([0.1, 0.1, 0.2], ddof=1) * math.sqrt(1 / 3 + 0.25))

    def test_repeats_without_a_regularizer_confirm_nothing(self) -> None:
        records = [trial(0, 0.9), trial(1, 0.8)]
        runs = repeats({0: [0.5, 0.5], 1: [0.4, 0.4]})
        wrong = [replace(each, without="x", score=worth(99.0)) for each in runs]
        found = confirmed({record.number: record for record in records}, [*runs, *wrong], 100, 25, "penalty")
        assert found is not None
        assert found.standings[0].mean == pytest.approx(0.5)

    def test_the_command_switches_each_regularizer_off_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        space = CONFIRMED.replace("dropout: {low: 0.0, high: 0.5}", "dropout: 0.2").replace(
            "strength: {low: 0.0, high: 0.5}", "strength: 0.3"
        )
        write(tmp_path / "small.yaml", space + "search: {first_trials: false, sampler: random}\n")
        assert call(capsys, "run", "small.yaml", "--trials", "5").code == 0
        first = call(capsys, "ablate", "small", "--trial", "1", "--json")
        assert first.code == 0, first.err
        document = first.document
        best = open_study("small").document["best"]
        assert document["trial"] == 1
        names = {each["name"] for each in document["regularizers"]}
        assert {"regularization.dropout", "augmentation.strength"} <= names
        assert first.err.count(" without ") == len(names) * ROUNDS
        again = call(capsys, "ablate", "small", "--trial", "1")
        assert again.code == 0
        assert not again.err, "nothing is trained twice"
        assert "score bought" in again.out
        refused = call(capsys, "ablate", "small", "--trial", "99")
        assert refused.err.startswith(
            "tuner: --trial 99: only complete trials can be ablated; there is none such in 'small'"
        )
        assert call(capsys, "run", "small.yaml", "--trials", "5", "--json").document["best"]["trial"] == best["trial"]

    def test_a_file_that_names_no_study_or_another_folder_is_ablated_under_its_own_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        x, y = load_wine(return_X_y=True)
        (tmp_path / "sub").mkdir()
        np.savez(tmp_path / "sub" / "wine.npz", X=x, y=y)
        text = SMALL.replace("study: small\n", "folder: sub\n").replace("sklearn:wine", "wine.npz")
        write(tmp_path / "mine.yaml", text.replace("{low: 0.0, high: 0.5}", "0.1"))
        assert call(capsys, "run", "mine.yaml").code == 0
        said = call(capsys, "ablate", "mine", "--trial", "1", "--json")
        assert said.code == 0, said.err
        assert said.document["study"] == "mine"
        assert [study.name for study in list_studies()] == ["mine"]

    def test_what_an_ablation_trains_confirms_nothing(self, tmp_path: Path) -> None:
        path = write(tmp_path / "small.yaml", SMALL.replace("{low: 0.0, high: 0.5}", "0.1"))
        before = tune(path, studies_dir=tmp_path / "studies").document
        plan = prepare(path, studies_dir=tmp_path / "studies")
        complete = [n for n, each in open_study("small", studies_dir=plan.folder.parent).trials.items() if each.score]
        for number in complete:
            list(ablate(plan, number))
        after = open_study("small", studies_dir=plan.folder.parent).document
        assert (after["confirmed"], after["best"]) == (None, before["best"])

    def test_a_study_without_regularizers_has_nothing_to_switch_off(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        plain = "study: small\ndata: {source: sklearn:wine}\ntraining: {epochs: 2}\n"
        write(tmp_path / "small.yaml", plain)
        assert call(capsys, "run", "small.yaml").code == 0
        said = call(capsys, "ablate", "small")
        assert (said.code, said.err) == (0, "")
        assert said.out == "Trial 0 has no regularizer: there is nothing to switch off.\n"


def test_a_worker_that_dies_in_a_repeat_costs_nothing_but_time(tmp_path: Path) -> None:
    plan = prepare(write(tmp_path / "small.yaml", CONFIRMED), studies_dir=tmp_path / "studies")
    engine = Processes(1, tmp_path / "data", tmp_path / "features")
    try:
        task = Task(0, plan.space.config, 7, plan.space.folder, engine.take(plan.splits))
        start, killed = engine.start, []

        def start_and_kill(task: Task) -> None:
            start(task)
            if not killed:
                killed.append(True)
                worker = engine.workers[0]
                if not worker.process:  # it is being born
                    engine._read_report(worker)
                assert worker.process > 0
                os.kill(worker.process, signal.SIGKILL)

        engine.start = start_and_kill  # type: ignore[method-assign]
        *_, done = again(engine, [Again(task, 3)])
        assert isinstance(done, Done)
        assert killed
        assert (done.error, len(done.epochs)) == ("", 3)
    finally:
        engine.close()


def test_the_command_tells_of_each_run_and_of_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml", CONFIRMED)
    said = call(capsys, "run", "small.yaml", "--trials", "3")
    assert said.code == 0, said.err
    assert said.err.count(" confirm 1/3 ") == 3
    assert "confirmed on 3 fresh splits and seeds: score" in said.out
    assert "optimism: " in said.out
    assert re.search(r"train +val +confirmed \(\+- sd\) +gap", said.out)
    skipped = call(capsys, "run", "small.yaml", "--trials", "3", "--no-confirm", "--study-name", "other")
    assert "confirm" not in skipped.err
    assert "not confirmed (it was left out): it may owe some of its score" in skipped.out
