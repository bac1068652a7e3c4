"""Every plot: it is plotly's, it draws what is stored, and says in a sentence what to see."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from command import SMALL, write
from records import with_gap

from tuner.diagnosis import diagnose
from tuner.plots import PLOTS, plots
from tuner.plots.base import binned, said
from tuner.plots.curves import COLUMNS, SMALL_BEST
from tuner.ranking import best_records
from tuner.record import TrialRecord
from tuner.study import Study
from tuner.tuning import tune

MANY = SMALL.replace("confirm: false", "confirm: true").replace("trials: 3", "trials: 14") + "stopping: none\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("plots")
    return tune(write(folder / "small.yaml", MANY), studies_dir=folder / "studies")


def plot(study: Study, name: str) -> Any:
    (found,) = plots(study.document, study.trials, [name])
    return found


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_plotlys_has_its_name_and_a_sentence(study: Study, name: str) -> None:
    found = PLOTS[name](study.document, study.trials)
    assert found is not None
    assert found.name == name
    assert found.title
    assert found.sentence.endswith(".")
    assert found.figure["layout"]["height"] > 0
    go.Figure(dict(found.figure))  # which refuses a key that plotly doesn't know
    json.dumps(found.figure, allow_nan=False)


@pytest.mark.parametrize("name", PLOTS)
def test_of_a_study_without_trials_nothing_is_drawn(study: Study, name: str) -> None:
    empty = {
        **study.document, "best": None, "baseline": None, "without_gap_penalty": None, "confirmed": None, "test": None,
        "importances": None, "per_class": None,
    }  # fmt: skip
    assert PLOTS[name](empty, {}) is None


@pytest.mark.parametrize("name", PLOTS)
def test_a_study_whose_losses_are_no_numbers_is_drawn_without_them(study: Study, name: str) -> None:
    def broken(record: TrialRecord) -> TrialRecord:
        assert record.curve is not None
        last = record.curve.last
        worst = replace(last, train=replace(last.train, loss=math.inf), val=replace(last.val, loss=math.nan))
        return replace(record, curve=record.curve.then(replace(worst, number=len(record.curve) + 1)))

    found = PLOTS[name](study.document, {number: broken(record) for number, record in study.trials.items()})
    if found is not None:
        json.dumps(found.figure, allow_nan=False)


def test_the_winners_star_stands_at_the_epoch_it_kept_and_its_validation_loss(study: Study) -> None:
    best = study.trials[study.document["best"]["trial"]]
    assert best.score is not None
    assert best.curve is not None
    star = plot(study, "winner").figure["data"][-1]
    assert star["x"] == [best.score.epoch]
    assert star["y"] == [pytest.approx(best.curve[best.score.epoch].val.loss, rel=1e-3)]


def test_the_chosen_trial_is_drawn_over_the_others_and_named_before_them(study: Study) -> None:
    traces = plot(study, "curves").figure["data"]
    chosen = f"trial {study.document['best']['trial']}"
    assert traces[-1]["name"].startswith(f"{chosen} ended")
    assert any(trace["name"].startswith(f"{chosen} kept") for trace in traces[-4:])
    named = sorted((trace for trace in traces if trace.get("showlegend", True)), key=lambda each: each["legendrank"])
    assert named[0]["name"] == f"{chosen} (chosen)"
    assert len({trace["legendrank"] for trace in named}) == len(named)


def test_panels_on_one_scale_have_its_numbers_at_the_left_alone(study: Study) -> None:
    axes = [axis for name, axis in plot(study, "small").figure["layout"].items() if name.startswith("yaxis")]
    assert len(axes) > COLUMNS
    assert [axis["showticklabels"] for axis in axes] == [i % COLUMNS == 0 for i in range(len(axes))]


def test_the_front_holds_the_chosen_trial_or_one_better_in_validation_or_gap(study: Study) -> None:
    drawn = {trace["name"].split(":")[0]: trace for trace in plot(study, "validation-gap").figure["data"]}
    (gap,), (skill,) = drawn["chosen"]["x"], drawn["chosen"]["y"]
    ahead = zip(drawn["front"]["x"], drawn["front"]["y"], strict=True)
    assert any(x <= gap and y >= skill for x, y in ahead)


def test_where_trials_ended_is_told_of_each_and_epochs_add_up(study: Study) -> None:
    bars = [trace for trace in plot(study, "ended").figure["data"] if trace["name"] != "saved"]
    assert sum(sum(bar["y"]) for bar in bars) == study.document["epochs"]["run"]
    assert sorted(number for bar in bars for number in bar["x"]) == sorted(study.trials)


def test_the_confusion_adds_up_to_the_rows_and_its_diagonal_to_the_accuracy(study: Study) -> None:
    (heat,) = plot(study, "confusion").figure["data"]
    rows = study.document["test"]["rows"]
    assert sum(map(sum, heat["text"])) == rows
    hits = sum(heat["text"][i][i] for i in range(len(heat["text"])))
    assert hits / rows == pytest.approx(study.document["test"]["accuracy"]["value"])


def test_a_regularizer_that_is_off_lies_left_of_the_powers_of_ten(study: Study) -> None:
    found = plot(study, "regularizers")
    titles = {value["title"]["text"]: value for key, value in found.figure["layout"].items() if key.startswith("xaxis")}
    axis = titles["l2"]
    assert axis["ticktext"][0] == "off"
    assert axis["tickvals"] == sorted(axis["tickvals"])


def test_a_trial_that_only_the_confirmation_chose_is_no_price_of_the_penalty(study: Study) -> None:
    first, second, third = sorted(study.trials)[:3]

    def told(best: int, searched: int, free: int) -> Any:
        chosen = {"best": best, "search_best": searched, "without_gap_penalty": free}
        document = {**study.document, **{name: {"trial": number} for name, number in chosen.items()}}
        (found,) = plots(document, study.trials, ["validation-gap"])
        return found.sentence, " ".join(trace["name"] for trace in found.figure["data"])

    sentence, names = told(first, first, first)
    assert "alone" not in sentence + names
    assert "confirmation" not in sentence
    sentence, names = told(first, first, second)
    assert f"validation alone would have chosen trial {second}, not {first}" in sentence
    assert f"without the penalty: trial {second}" in names
    sentence, names = told(first, second, second)
    assert "alone" not in sentence
    assert "without the penalty" not in names
    assert f"the search chose trial {second}, the confirmation chose {first}" in sentence
    sentence, _ = told(first, second, third)
    assert f"chosen trial {third}, not {second}; the search chose trial {second}" in sentence


def test_an_overfitter_is_what_the_diagnosis_calls_so(study: Study) -> None:
    leading = {record.number for record in best_records(study.trials.values(), SMALL_BEST)}

    def told(gap: float, others: int) -> tuple[str, list[str]]:
        there, left = {}, others
        for number, record in study.trials.items():
            there[number] = with_gap(record, gap if number not in leading and left > 0 else 0.0, 0.02)
            left -= number not in leading
        (found,) = plots(study.document, there, ["small"])
        for note in found.figure["layout"]["annotations"]:
            if note["text"].startswith("gap"):
                fit = diagnose(there[int(note["text"].split()[-1])])
                assert fit is not None
                assert "overfit" in fit.fit
        titles = [each["text"] for each in found.figure["layout"]["annotations"] if each["text"].startswith("gap")]
        return f"{found.title}: {found.sentence}", titles

    said, panels = told(0.05, 5)
    assert "worst overfitters" in said
    assert "of the 5 others that are overfit, the 3 with the largest gaps" in said
    assert len(panels) == 3
    said, panels = told(0.05, 1)
    assert "the only other one that is overfit" in said
    assert len(panels) == 1
    for quiet in (0.03, 0.01, -0.03, math.nan):  # the first is beyond the score's 1 SE, within the diagnosis' 2
        said, panels = told(quiet, 5)
        assert "overfitters" not in said
        assert "of the others none is overfit" in said
        assert panels == []


def test_a_bars_row_says_what_the_bar_is(study: Study) -> None:
    rounds = study.document["confirmed"]["rounds"]
    names = [
        trace["name"].replace("<br>", " ") for trace in plot(study, "promised").figure["data"] if "error_x" in trace
    ]
    assert names == [f"confirmed (± sd of {rounds} rounds)", "test (95 % interval)", "test, baseline (95 % interval)"]


def test_bins_hold_about_as_many_points_each_and_few_points_have_none() -> None:
    x, y = binned(list(range(30)), [2.0 * value for value in range(30)])
    assert len(x) == 6
    assert y == [2.0 * value for value in x]
    assert binned([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == ([], [])


def test_points_of_equal_x_are_never_in_two_bins() -> None:
    assert binned([0.0] * 30, [float(i) for i in range(30)]) == ([], []), "nothing rises with what doesn't change"
    x, y = binned([1.0] * 5 + [2.0] * 11 + [3.0] * 5, [float(i % 7) for i in range(21)])
    assert x == [1.0, 2.0, 3.0]
    assert y == [2.0, 3.0, 4.0]


def test_what_is_off_is_a_bin_of_its_own_or_in_none() -> None:
    values, gaps = [0.0, *(0.1 * i for i in range(1, 7))], [9.0, *(float(i) for i in range(1, 7))]
    assert binned(values, gaps, 0.0) == (pytest.approx([0.2, 0.5]), [2.0, 5.0]), "one trial is too few to tell of off"
    assert binned([0.0] * 3 + values[1:], [9.0] * 3 + gaps[1:], 0.0) == (pytest.approx([0, 0.2, 0.5]), [9.0, 2.0, 5.0])


def test_of_a_regularizer_that_is_off_in_all_trials_but_few_nothing_is_said(study: Study) -> None:
    def told(values: list[float]) -> Any:
        there = {}
        for i, value in enumerate(values):
            record = study.trials[study.document["best"]["trial"]]
            score = record.score and replace(record.score, gap=0.01 * (i + 1))
            there[i] = replace(record, number=i, values={"regularization.l1": value}, score=score)
        return PLOTS["regularizers"](study.document, there)

    quiet = told([0.0] * 18 + [0.002, 0.004])
    assert "too few for a median" in quiet.sentence
    assert [trace["mode"] for trace in quiet.figure["data"]] == ["markers"], "no line of what isn't known"
    loud = told([0.0] * 6 + [0.002, 0.004, 0.008])
    assert "From regularization.l1 off to its strongest bin the median gap rises from 0.035 to 0.08" in loud.sentence


def test_a_caption_tells_of_no_line_that_is_not_drawn(study: Study) -> None:
    four = dict(list(study.trials.items())[:5])
    for name in ("capacity", "regularizers"):
        found = PLOTS[name](study.document, four)
        assert found is not None
        assert "lines" not in {trace["mode"] for trace in found.figure["data"]}
        assert "for a median over bins" in found.sentence


def test_a_users_word_is_no_tag() -> None:
    assert said("<a href='x'>\x1b[31m &amp;") == "&lt;a href='x'&gt;?[31m &amp;amp;", "quotes plotly shows as they are"


def test_a_class_is_called_in_a_sentence_what_the_user_calls_it(study: Study) -> None:
    names = ['5" <b>', "don't & won't", "x"]
    rows = [{"class": name, "taken_for": [9, int(i == 1), 0]} for i, name in enumerate(names)]
    (found,) = plots({**study.document, "per_class": {"test": rows}}, study.trials, ["confusion"])
    assert 'Most often taken for another: x for 5" <b>, in 9 rows.' in found.sentence
    (heat,) = found.figure["data"]
    assert heat["x"] == heat["y"] == ['5" &lt;b&gt;', "don't &amp; won't", "x"]
    rows = [{"class": name, "taken_for": [9 * (i == 0), int(i == 1), 0]} for i, name in enumerate(names)]
    rows[2]["taken_for"] = [0, 1, 9]
    (found,) = plots({**study.document, "per_class": {"test": rows}}, study.trials, ["confusion"])
    assert "x for don't & won't, in 1 row." in found.sentence


def test_one_trial_on_the_front_is_one(study: Study) -> None:
    (found,) = plots(study.document, {n: r for n, r in study.trials.items() if n == 0}, ["validation-gap"])
    assert "of 1 complete trial 1 is on the front" in found.sentence


def test_a_study_shows_itself_in_a_notebook(study: Study) -> None:
    assert set(study.figures()) == set(PLOTS)
    frame = study.frame()
    assert list(frame.index) == sorted(study.trials)
    assert frame.loc[study.document["best"]["trial"], "score"] == study.document["best"]["score"]
    text = study._repr_html_()
    assert "was chosen, as it was after epoch" in text
    assert "<td>log_loss</td>" in text
    assert "regularization.dropout" in study.best._repr_html_()


def test_a_folder_is_no_part_of_what_is_drawn(study: Study, tmp_path: Path) -> None:
    moved = replace(study, folder=tmp_path)
    assert plots(moved.document, moved.trials) == plots(study.document, study.trials)
