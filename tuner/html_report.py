"""A study -> one self-contained HTML file that explains it to someone who doesn't have the tool.

Decides the order: first the answer in words, then the figures, each with a sentence, then the trials and how to do it
again. Which figures there are is `plots`', which sentences `telling`'s. The page loads nothing: plotly.js is in it, and
a policy in its head keeps it from asking anyone and from running any script but its own. What came from a user's data
is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tuner import telling
from tuner.grammar import known_space, plain_domain
from tuner.plots import Plot, plots
from tuner.ranking import ranked
from tuner.record import TrialRecord
from tuner.reporting import figures
from tuner.scoring import LOWER_IS_BETTER
from tuner.showing import figures_table, where
from tuner.space import Space
from tuner.study import Study
from tuner.telling import clean, counted, number
from tuner.terminal import duration, told_of

if TYPE_CHECKING:
    from jinja2 import Template

REPORT = "report.html"
MOST_TRIALS, GAP = 1000, "gap"  # in the table
AGAIN, MOST_OF_A_NAME = "-again", 64


def report(study: Study) -> str:
    """Return the report of a study as HTML."""
    from markupsafe import Markup

    document, drawn = study.document, plots(study.document, study.trials)
    best, space = document["best"], known_space(study.record.space, study.record.folder)
    return _page().render(
        doc=document, data=told_of(document["data"]), took=duration(document["seconds"]),
        created=study.record.created[:10], answer=[telling.typeset(said) for said in telling.answer(document)],
        verdict=telling.typeset(clean(document["test"]["verdict"])) if document["test"] else None, best=best,
        ended=telling.ended(document), chosen=best["trial"] if best else None,
        figures=[[telling.typeset(cell) for cell in row] for row in figures_table(document)] if best else [],
        values=_values(study, space) if best else [], size=telling.size(best) if best else "", plots=drawn,
        classes=_classes(document), part="test" if (document["per_class"] or {}).get("test") else "validation",
        mistakes=[_mistake(each) for each in study.mistakes], shown_of=_shown_of(document, study.mistakes),
        trials=_trials(study), commands=_commands(study), rising=_rising(document["metric"]),
        facts=_facts(study, space), notes=document["data"]["notes"],
        plotly=Markup(_plotly()) if drawn else "", drawn=Markup(_inline(drawn)), hashes=Markup(_hashes()),
    )  # fmt: skip


@cache
def _page() -> Template:
    """Return the page's template; to compile it takes as long as to fill it in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(loader=PackageLoader("tuner", "."), autoescape=True, undefined=StrictUndefined,
                       keep_trailing_newline=True, finalize=_fit)  # fmt: skip
    return page.get_template("report.html")


def _fit(value: Any) -> Any:
    """Return what is put into the page: of words, those that have no control characters in them but line ends."""
    if type(value) is not str:  # markup of ours is of a kind of its own
        return value
    return "\n".join(map(clean, value.split("\n")))


def _plotly() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def _hashes() -> str:
    """Return the scripts that the page may run, by their hashes: plotly.js and those of the template as it is kept."""
    template = (files("tuner") / "report.html").read_text(encoding="utf-8")
    own = [script for script in re.findall(r"<script>(.*?)</script>", template, re.DOTALL) if "{{" not in script]
    digests = [hashlib.sha256(script.encode()).digest() for script in (_plotly(), *own)]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _inline(drawn: Sequence[Plot]) -> str:
    """Return figures as JSON that can stand in a script: nothing in it ends one."""
    text = json.dumps({plot.name: plot.figure for plot in drawn}, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _values(study: Study, space: Space | None) -> list[tuple[str, str, str, str]]:
    """Return each value that was searched: of the chosen trial, of the baseline, and what it was searched in."""
    document = study.document
    searched = {name: plain_domain(domain) for name, domain in space.domains.items()} if space else {}
    best, base = document["best"]["params"], (document["baseline"] or {"params": {}})["params"]
    return [
        (clean(name), number(value), number(base.get(name)), clean(searched.get(name, "")))
        for name, value in best.items()
    ]


def _classes(document: Mapping[str, Any]) -> list[list[str]]:
    """Return each class's figures, the one that is predicted worst first."""
    per_class = document["per_class"] or {}
    rows = per_class.get("test") or per_class.get("val") or []
    order = sorted(rows, key=lambda row: row["f1"] if row["f1"] is not None else -1.0)
    return [[clean(r["class"]), str(r["rows"]), *(number(r[k]) for k in ("precision", "recall", "f1"))] for r in order]


def _mistake(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mistake with a sentence, and a sequence's lines as points of a drawing of 100 x 40."""
    if "probability" in each:
        said = f"{clean(each['true'])}, taken for {clean(each['predicted'])} ({each['probability']:.0%} sure)"
    else:
        said = f"{number(each['true'])}, predicted {number(each['predicted'])}"
    lines: list[list[float]] = each.get("lines") or []
    known = [value for line in lines for value in line]
    low, high = min(known, default=0.0), max(known, default=1.0)
    paths = [
        " ".join(
            f"{100 * i / max(1, len(line) - 1):.1f},{38 - 36 * (value - low) / ((high - low) or 1):.1f}"
            for i, value in enumerate(line)
        )
        for line in lines
    ]
    return {"picture": None, "text": None, "values": None, **each, "said": said, "paths": paths}


def _shown_of(document: Mapping[str, Any], mistakes: Sequence[Mapping[str, Any]]) -> str:
    """Return what is shown of the examples that were mistaken, and what is left out of them, and why."""
    if document["data"]["kind"] != "table":
        return "as the network sees them"
    left: Mapping[str, int] = next((each["left_out"] for each in mistakes if each.get("left_out")), {})
    said = "by their values (a number that is missing is filled, as for the network)"
    why = {"number": " closest to the middle of the training rows", "category": " (the last ones)", "date": ""}
    parts = [f"{counted(left[kind], f'{kind} column')}{why[kind]}" for kind in why if left.get(kind)]
    return f"{said}. Left out, so that a row can be read: {', '.join(parts)}" if parts else said


def _trials(study: Study) -> list[Any]:
    """Return the head of the table of trials, then of each its number, its cells and why it ended."""
    metric = study.document["metric"]
    order = ranked(study.trials.values(), study.document["score"]["form"])
    placed = {record.number for record in order}
    records = [*order, *(study.trials[number] for number in sorted(study.trials) if number not in placed)][:MOST_TRIALS]
    names = list(dict.fromkeys(name for record in records for name in record.all_values))
    val, train = f"val {metric}", f"train {metric}"
    head = ["trial", "label", "ended", "score", val, train, GAP, "kept", "epochs", "parameters"]
    rows = [_row(record, study.record.data["task"], metric, names) for record in records]
    return [[*head, *map(clean, names)], *rows]


def _rising(metric: str) -> list[str]:
    """Return the columns of the table that are sorted with the smallest number first, which is the best."""
    return ["trial", GAP, *(f"{part} {metric}" for part in ("val", "train") if metric in LOWER_IS_BETTER)]


def _row(record: TrialRecord, task: str, metric: str, names: Sequence[str]) -> tuple[int, list[str], str]:
    found = figures(record, task)
    ended = record.state + (f": {record.verdict.kind}" if record.verdict else "")
    cells = [str(record.number), record.label, ended]
    if found is None:
        cells += ["-"] * 5
    else:
        cells += [number(found["score"]), number(found["val"].get(metric)), number(found["train"].get(metric)),
                  number(found["relative_gap"]), str(found["epoch"])]  # fmt: skip
    cells += [str(len(record.curve)) if record.curve else "-", number(record.model.get("parameters"))]
    return record.number, cells + [number(record.all_values.get(name)) for name in names], clean(record.reason)


def _commands(study: Study) -> list[str]:
    """Return the commands that make the study, and its chosen network, again; of a study that isn't over, those whose
    files are there.
    """
    space, config, options = study.folder / "space.yaml", study.document["config"], where(study.document)
    again = f"{study.name[: MOST_OF_A_NAME - len(AGAIN)]}{AGAIN}"
    commands = [f"tuner run {shlex.quote(str(space))} --study-name {again}{options}"] if space.exists() else []
    commands += [f"tuner train {shlex.quote(config)}"] if config else []
    return [*commands, f"tuner show {study.name}{options}"]


def _facts(study: Study, space: Space | None) -> list[tuple[str, str]]:
    document, record = study.document, study.record
    workers = space.config.budget.workers if space else 1
    told = [("seed", str(record.seed)), ("workers", str(workers)),
            ("data", f"SHA-256 {record.fingerprint}"), ("test rows", f"SHA-256 {record.test_hash or '-'}")]  # fmt: skip
    return [*told, *((clean(name), clean(value)) for name, value in document["versions"].items())]
