"""The report: one page that needs nothing else, says first what matters, and shows what is stored."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import SEEN, dom
from command import SMALL, call, write

from tuner.data.readable import readable
from tuner.html_report import report
from tuner.planning import prepare
from tuner.plots import PLOTS
from tuner.ranking import ranked
from tuner.study import Study, open_study
from tuner.tuning import conduct, tune

MANY = SMALL.replace("confirm: false", "confirm: true").replace("trials: 3", "trials: 12") + "stopping: none\n"
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("report")
    return tune(write(folder / "small.yaml", MANY), studies_dir=folder / "studies")


class Page(HTMLParser):
    """What a page asks for and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_a_run_leaves_its_report_and_the_document_says_where(study: Study) -> None:
    path = study.folder / "report.html"
    assert study.document["report"] == str(path)
    assert "<!doctype html>" in path.read_text(encoding="utf-8")


def test_it_asks_for_nothing_outside_itself(study: Study) -> None:
    page = Page(report(study))
    assert [each for each in page.asked if not each.startswith("data:image/png;base64,")] == []
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)


def test_it_opens_with_the_answer_and_shows_every_plot(study: Study) -> None:
    text = report(study)
    body = re.sub(r"<[^>]+>", " ", text[text.index("<body>") : text.index("Figures")])
    best, metric = study.document["best"], study.document["metric"]
    assert f"trial {best['trial']} was chosen" in body
    assert study.document["test"]["verdict"].split("(")[0] in body
    assert f"{best['val'][metric]:.4g}" in body
    assert all(f'id="plot-{name}"' in text for name in PLOTS)


def test_every_trial_is_in_the_table(study: Study) -> None:
    text = report(study)
    table = text[text.index('id="trials"') : text.index("To do it again")]
    numbers = re.findall(r"<tr[^>]*><td>(\d+)</td>", table)
    assert sorted(map(int, numbers)) == sorted(study.trials)


def test_the_table_is_in_the_order_of_the_choice(study: Study) -> None:
    found = ranked(study.trials.values())[0]
    assert found.score is not None
    leader = replace(found, score=replace(found.score, gap=1.0))
    smaller = replace(found, number=100, score=replace(found.score, gap=0.0))
    trials = {**study.trials, leader.number: leader, 100: smaller}
    for form, first in (("penalty", leader.number), ("tiebreak", 100)):
        document = {**study.document, "score": {**study.document["score"], "form": form}}
        rows = re.findall(r"<tr[^>]*>\s*<td[^>]*>(\d+)</td>", report(replace(study, document=document, trials=trials)))
        assert int(rows[0]) == first


def test_a_users_words_are_text_and_nothing_else(study: Study) -> None:
    best = study.trials[study.document["best"]["trial"]]
    hostile = replace(best, values={**best.values, HOSTILE: HOSTILE}, error=HOSTILE)
    document: dict[str, Any] = json.loads(json.dumps(study.document))
    document["best"]["params"][HOSTILE] = HOSTILE
    document["data"]["notes"] = [HOSTILE]
    document["per_class"]["test"][0]["class"] = HOSTILE
    document["space"] += HOSTILE
    mistakes = [{"row": 1, "loss": 1.0, "true": HOSTILE, "predicted": "a", "probability": 1.0, "text": HOSTILE}]
    told = replace(study, document=document, trials={**study.trials, best.number: hostile}, mistakes=mistakes)
    text = report(told)
    assert HOSTILE not in text
    assert Page(text).tags.count("img") == Page(report(study)).tags.count("img")


def test_a_study_of_nothing_but_failures_has_a_report(study: Study) -> None:
    document = {
        **study.document, "best": None, "baseline": None, "without_gap_penalty": None, "search_best": None,
        "confirmed": None, "test": None, "importances": None, "per_class": None,
        "diagnosis": {"best": None, "baseline": None, "bounds": []},
    }  # fmt: skip
    failed = {n: replace(r, state="failed", score=None, verdict=None, error="no") for n, r in study.trials.items()}
    assert "there is no best configuration." in report(replace(study, document=document, trials=failed))


def test_a_large_study_has_a_report_that_can_be_mailed(study: Study) -> None:
    records = list(study.trials.values())
    many = {n: replace(records[n % len(records)], number=n) for n in range(200)}
    assert len(report(replace(study, trials=many)).encode()) < 6_000_000


def test_the_worst_mistakes_are_shown_as_what_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    x = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", X=x, y=y)
    text = SMALL.replace("sklearn:wine", "noise.npz").replace("depth: {low: 1, high: 2}", "family: mlp")
    study = tune(write(tmp_path / "small.yaml", text), studies_dir=tmp_path / "studies")
    assert study.mistakes, "of noise some are wrong"
    losses = [each["loss"] for each in study.mistakes]
    assert losses == sorted(losses, reverse=True)
    for each in study.mistakes:
        assert each["true"] != each["predicted"]
        assert each["true"] == str(y[each["row"]])
        assert each["picture"].startswith("data:image/png;base64,")
    assert "aken for" in (study.folder / "report.html").read_text()
    assert open_study("small", studies_dir=tmp_path / "studies").mistakes == study.mistakes


def test_of_folds_each_row_is_judged_by_the_network_that_has_not_seen_it(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    np.savez(tmp_path / "noise.npz", X=rng.normal(size=(120, 4)), y=y)
    text = SMALL.replace("sklearn:wine", "noise.npz, split: {folds: 3}").replace("trials: 3", "trials: 2, workers: 2")
    path = write(tmp_path / "small.yaml", text)
    study = tune(path, studies_dir=tmp_path / "studies")
    rows = [each["row"] for each in study.mistakes]
    assert len(set(rows)) == len(rows) == 12, "of noise many are wrong"
    assert all(each["true"] == str(y[each["row"]]) != each["predicted"] for each in study.mistakes)
    assert sum(row["rows"] for row in study.document["per_class"]["val"]) == 96, "all but the test rows"
    wrong = sum(row["rows"] - row["taken_for"][k] for k, row in enumerate(study.document["per_class"]["val"]))
    best = study.trials[study.document["best"]["trial"]]
    assert wrong / 96 == pytest.approx(1 - best.kept.val.metrics["accuracy"], abs=0.02), "the networks of the search"
    assert not list((study.folder / "weights").glob("*fold*")), "what was told isn't kept"
    assert list(conduct(prepare(path, studies_dir=tmp_path / "studies"))) == [], "and nothing is trained for it twice"
    assert open_study("small", studies_dir=tmp_path / "studies").mistakes == study.mistakes


def test_of_a_table_is_said_which_columns_of_a_mistake_are_left_out_and_why(study: Study) -> None:
    x = study.best.encode([[float(i) for i in range(13)]])[0]
    row = readable(study.best.encoder, x)
    assert (len(row["values"]), row["left_out"]) == (12, {"number": 1, "category": 0, "date": 0})
    mistakes = [{"row": 1, "loss": 1.0, "true": "a", "predicted": "b", "probability": 1.0, **row}]
    said = report(replace(study, mistakes=mistakes))
    left_out = "1 number column closest to the middle of the training rows"
    assert f"Left out, so that a row can be read: {left_out}." in said
    assert "as the network sees them" not in said
    image = {**study.document, "data": {**study.document["data"], "kind": "image"}}
    assert "as the network sees them" in report(replace(study, document=image, mistakes=mistakes))


def test_a_page_has_the_sign_that_a_terminal_may_lack(study: Study) -> None:
    text = report(study)
    assert "confirmed (± sd)" in text
    assert "+-" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "± sd" in study._repr_html_()


def test_the_terms_of_the_formula_are_told(study: Study) -> None:
    text = report(study)
    assert "that of predicting the class frequencies" in text
    assert "R = (L_val - L_train)/(L_0 - L_train)" in text
    assert "lowest smoothed validation loss" in text


def test_the_command_writes_it_where_it_is_told_to(study: Study, tmp_path: Path, capsys: Any) -> None:
    said = call(capsys, "report", str(study.folder), "--out", tmp_path / "r.html")
    assert (said.code, said.out) == (0, "")
    assert (tmp_path / "r.html").read_text() == report(study)


# In a real browser

PAPER = 718  # px: A4 less the margins of a browser

PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  document.querySelector("#trials th:nth-child(4)").click();
  const drawn = [...document.querySelectorAll(".plot")].map(each => each.querySelectorAll("svg.main-svg").length);
  const first = document.querySelector("#trials tbody tr td").textContent;
  document.querySelector("#trials th:nth-child(7)").click();
  const smallest = document.querySelector("#trials tbody tr td").textContent;
  document.querySelector("#trials th:nth-child(7)").click();
  const largest = document.querySelector("#trials tbody tr td").textContent;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const widths = which => [...document.querySelectorAll(which)].map(each => each.getBoundingClientRect().width);
  const drawings = ".plot svg.main-svg:first-child", before = widths(drawings);
  const panels = widths(`.panels ${drawings.slice(6)}`);
  dispatchEvent(new Event("beforeprint"));
  const printed = Math.max(...widths(drawings));
  dispatchEvent(new Event("afterprint"));
  const same = JSON.stringify(before) === JSON.stringify(widths(drawings));
  document.body.setAttribute("data-seen", JSON.stringify(
    {drawn, first, smallest, largest, wide, panels, printed, same, faults: window.faults}));
}, 3000));
</script>
"""
LISTEN = """
<script>
window.faults = [];
addEventListener("error", event => window.faults.push(String(event.message)));
addEventListener("securitypolicyviolation", event => window.faults.push(event.violatedDirective));
</script>
"""


def watched(text: str) -> str:
    """Return a report with scripts that listen and look, which its policy must be told of."""
    script = PROBE.split("<script>")[1].split("</script>")[0]
    known = f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}' "
    text = text.replace("script-src ", known, 1)
    return text.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", PROBE + "</body>", 1)


@pytest.mark.slow
def test_a_script_that_came_into_the_report_by_its_data_is_not_run(study: Study, tmp_path: Path) -> None:
    hostile = '<script>window.faults.push("ran")</script><img src="https://example.org/x.png" onerror="faults.push(1)">'
    text = watched(report(study)).replace("<main>", f"<main>{hostile}", 1)
    match = SEEN.search(dom(write(tmp_path / "page.html", text).as_uri(), tmp_path))
    assert match is not None
    faults = json.loads(match[1].replace("&quot;", '"'))["faults"]
    assert sorted(set(faults)) == ["img-src", "script-src-attr", "script-src-elem"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400], ids=["desk", "phone"])
def test_a_browser_draws_every_plot_and_asks_for_nothing(study: Study, tmp_path: Path, width: int) -> None:
    page = write(tmp_path / "page.html", watched(report(study)))
    match = SEEN.search(dom(page.as_uri(), tmp_path, width=width))
    assert match is not None
    seen = json.loads(match[1].replace("&quot;", '"'))
    assert seen["faults"] == []
    assert len(seen["drawn"]) == len(PLOTS)
    assert min(seen["drawn"]) > 0
    assert int(seen["first"]) == max(study.trials.values(), key=_worth).number, "sorted by score, the best first"
    by_gap = sorted((r for r in study.trials.values() if r.score is not None), key=lambda r: r.score.gap)
    ends = [by_gap[0].number, by_gap[-1].number]
    assert [int(seen["smallest"]), int(seen["largest"])] == ends, "a gap is better small"
    assert seen["wide"] <= 0, "nothing is wider than the screen"
    assert min(seen["panels"]) >= 640, "panels side by side are scrolled, not squeezed"
    assert seen["printed"] <= PAPER
    assert seen["same"], "after printing everything is as before"


def _worth(record: Any) -> float:
    return record.score.value if record.score is not None else -1e9
