"""What optuna-dashboard is given of a study, as optuna-dashboard itself reads it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest
from command import SMALL, write
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects, is_valid_graph_object_id
from optuna_dashboard._note import get_note_from_system_attrs, save_note
from records import with_gap

from tuner.planning import prepare
from tuner.plots import plots
from tuner.posting import EVERY, FIGURES, LINE, SHARE, Board, _titled, notes
from tuner.store import Store
from tuner.study import open_study
from tuner.tuning import conduct, tune

MOST_OF_A_TITLE = 40  # characters of an axis's, which has to be read in half a small window


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    tune(write(tmp_path / "small.yaml"), trials=9, studies_dir=tmp_path / "studies")
    found = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'studies' / 'tuner.db'}")
    yield found
    found.engine.dispose()


def attributes(storage: Any) -> dict[str, Any]:
    found: dict[str, Any] = storage.get_study_system_attrs(storage.get_study_id_from_name("small"))
    return found


def post(tmp_path: Path, storage: Any) -> None:
    store = Store.load(storage, "small")
    assert store is not None
    study = open_study("small", studies_dir=tmp_path / "studies")
    Board(store).post(lambda: study.document, study.trials, last=True)


def test_the_figures_are_read_back_whole_under_fixed_names(storage: Any, tmp_path: Path) -> None:
    for _ in range(2):
        found = get_plotly_graph_objects(attributes(storage))
        assert set(found) == {f"tuner-{name}" for name in FIGURES}
        assert all(map(is_valid_graph_object_id, found))
        for text in found.values():
            assert go.Figure(json.loads(text)).layout.title.text
        post(tmp_path, storage)


def test_in_a_small_window_nothing_of_a_figure_lies_on_another_part(tmp_path: Path) -> None:
    smoothed = SMALL.replace("  dropout:", "  label_smoothing: {low: 0.0, high: 0.2}\n  dropout:")
    study = tune(write(tmp_path / "small.yaml", smoothed + "stopping: none\n"), trials=9,
                 studies_dir=tmp_path / "studies")  # fmt: skip
    for plot in plots(study.document, study.trials, FIGURES):
        layout = json.loads(_titled(plot.figure, plot.title, "word " * 60))["layout"]
        margin = layout["margin"]
        room = layout["height"] - margin["t"] - margin["b"]
        assert layout["legend"]["y"] < 0, "below the axis"
        assert max(map(len, layout["title"]["text"].split("<br>")[1:])) <= LINE + len("<sub></sub>")
        axes = {name: axis for name, axis in layout.items() if name.startswith(("xaxis", "yaxis"))}
        assert all(len(axis.get("title", {}).get("text", "")) <= MOST_OF_A_TITLE for axis in axes.values())
        rows = sorted({tuple(axis["domain"]) for name, axis in axes.items() if name[0] == "y" and "domain" in axis})
        assert len(rows) == (2 if plot.name == "regularizers" else 0)
        assert all((above[0] - below[1]) * room >= 40 for below, above in pairwise(rows)), "ticks and a title have room"
        assert all(low >= 0 and high <= 1 and (high - low) * room > 40 for low, high in rows)


def test_a_sentence_in_a_title_is_text(storage: Any) -> None:
    title = json.loads(_titled({"data": [], "layout": {"margin": {}, "legend": {}}}, "T", "<a href='x'>"))["layout"]
    assert "<sub>&lt;a href='x'&gt;</sub>" in title["title"]["text"]


def test_a_gap_within_noise_is_no_notable_one(tmp_path: Path) -> None:
    study = tune(write(tmp_path / "small.yaml", SMALL + "stopping: none\n"), trials=9, studies_dir=tmp_path / "studies")

    def noted(gap: float) -> list[str]:
        there = {number: with_gap(record, gap, 0.02) for number, record in study.trials.items()}
        return [body for body in notes(study.document, there).values() if "largest gaps" in body]

    assert noted(0.05)
    assert not noted(0.03), "which the score may have penalized, but the diagnosis calls noise"
    assert not noted(0.01)
    assert not noted(-0.03)


def test_a_shorter_figure_leaves_nothing_of_a_longer_one(storage: Any) -> None:
    store = Store.load(storage, "small")
    assert store is not None
    for text in ('{"data": [], "layout": {"title": {"text": "' + "x" * 5000 + '"}}}', '{"data": [], "layout": {}}'):
        store.pin({"tuner-curves": text}, {})
        assert get_plotly_graph_objects(attributes(storage))["tuner-curves"] == text
    assert set(get_plotly_graph_objects(attributes(storage))) == {f"tuner-{name}" for name in FIGURES}


def test_the_study_and_its_notable_trials_have_notes(storage: Any, tmp_path: Path) -> None:
    study, found = open_study("small", studies_dir=tmp_path / "studies"), attributes(storage)
    body = get_note_from_system_attrs(found, None)["body"]
    assert study.document["formula"] in body
    ids = {t.number: t._trial_id for t in storage.get_all_trials(storage.get_study_id_from_name("small"))}
    best = get_note_from_system_attrs(found, ids[study.document["best"]["trial"]])["body"]
    assert best.startswith("**The chosen one.**")
    assert "epoch" in best


def test_a_note_that_somebody_wrote_is_left_alone_and_others_are_kept_fresh(storage: Any, tmp_path: Path) -> None:
    study = optuna.load_study(study_name="small", storage=storage)
    save_note(study, "my own words")
    before = get_plotly_graph_objects(attributes(storage))
    post(tmp_path, storage)
    assert get_note_from_system_attrs(attributes(storage), None)["body"] == "my own words"
    assert get_plotly_graph_objects(attributes(storage)) == before


def test_what_a_user_called_a_thing_formats_nothing_in_a_note() -> None:
    from tuner.posting import _plain

    assert _plain("![x](http://a) <b>*") == r"\!\[x\](http://a) \<b\>\*"


def test_posting_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(write(tmp_path / "small.yaml", SMALL), studies_dir=tmp_path / "studies")
    list(conduct(plan))
    clock = [100.0]
    monkeypatch.setattr("tuner.posting.time.monotonic", lambda: clock[0])
    posted = []

    class Slow:
        def pin(self, *_: Any) -> None:
            posted.append(clock[0])
            clock[0] += 0.2

    study = open_study("small", studies_dir=tmp_path / "studies")
    board = Board(Slow())  # type: ignore[arg-type]
    for _ in range(2000):
        board.post(lambda: study.document, study.trials)
        clock[0] += 0.1
    apart = [b - a for a, b in pairwise(posted)]
    assert apart
    assert min(apart) >= max(EVERY, 0.2 / SHARE)
