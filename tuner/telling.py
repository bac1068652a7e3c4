"""What a study came to, in sentences: the document of its figures -> words. Pure.

The terminal, the report and the dashboard's note say the same ones. Decides which sentence is due; every number in it
stands in the document. Knows no layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tuner.scoring import LOSS

FORMS = {
    "penalty": "the gap penalty", "conservative": "the standard error", "tiebreak": "the smaller gap of a tie",
    "none": "the score",
}  # fmt: skip
MOST_MOVERS = 4
# what a spreadsheet takes for the start of a formula, also in the wide forms of East Asian scripts; -1 is a number
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def number(value: Any) -> str:
    """Return a value with four significant digits, as people read it; text without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else clean(value)


def clean(text: object) -> str:
    """Return text without control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def harmless(value: Any) -> Any:
    """Return a cell as no spreadsheet runs it."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # csv quotes a line feed and, before 3.13, no other end
    return f"'{text}" if value.startswith(FORMULA) and not NUMBER.fullmatch(value) else text


def counted(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count} {noun}" + "s" * (count != 1)


def typeset(text: str) -> str:
    """Return words as a page shows them, which can do more than a terminal."""
    return text.replace("+-", "±")


def with_interval(figure: Mapping[str, float] | None) -> str:
    """Return a figure with its interval."""
    if figure is None:
        return "-"
    return f"{number(figure['value'])} ({number(figure['low'])} to {number(figure['high'])})"


def confirmation(document: Mapping[str, Any]) -> list[str]:
    """Return what the confirmation found: who was chosen, with which score, and how far the search's score was luck."""
    found = document["confirmed"]
    if found is None:
        several = document["trials"]["complete"] > 1
        why = f" ({document['not_confirmed']})" if document["not_confirmed"] else ""
        return [f"not confirmed{why}: it may owe some of its score to the rows that it was chosen on"] * several
    first = found["contenders"][0]
    if found["fresh_splits"]:
        said = "fresh splits and seeds"
        said += f": score {number(first['score'])} (95 % interval {number(first['low'])} to {number(first['high'])})"
    else:
        said = "fresh seeds (the validation rows are the search's: the data name or order them)"
        said += f": score {number(first['score'])} +- {number(first['se'])}, the error of the seeds alone"
    line = f"confirmed on {found['rounds']} {said}"
    if found["search_choice"] != found["trial"]:
        line += f"; chosen over trial {found['search_choice']}, which led the search"
    return [line, f"optimism: {_optimism(found)}"]


def _optimism(found: Mapping[str, Any]) -> str:
    by = found["optimism"]
    if not found["fresh_splits"]:
        return "can't be told from the rows that the search chose on; the test rows tell it"
    if by is None:
        return f"not known, for trial {found['search_choice']}, the search's choice, came to no score in every round"
    told = f"{number(abs(by))} {'more' if by >= 0 else 'less'}"
    return f"the search's choice scored {told} in the search than confirmed"


def size(best: Mapping[str, Any]) -> str:
    """Return how large a network is, and how much of it l1 has made zero."""
    facts = f"{best['parameters']:,.0f} parameters" if best["parameters"] else ""
    return facts + (f", {best['sparsity']:.0%} of the weights are exactly zero" if best["sparsity"] else "")


def fits(diagnosis: Mapping[str, Any]) -> list[str]:
    """Return how the chosen trial and the baseline fit."""
    best, base, said = diagnosis["best"], diagnosis["baseline"], list[str]()
    if best:
        said.append(f"Trial {best['trial']} is {best['fit']}: {best['reason']}.")
    if best and base and base["trial"] != best["trial"]:
        said.append(f"The baseline is {base['fit']}: {base['reason']}.")
    return said


def bounds(diagnosis: Mapping[str, Any]) -> list[str]:
    """Return which ranges are too narrow."""
    return [f"{bound['reason']}." for bound in diagnosis["bounds"]]


def movers(shares: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    """Return which values moved the score and the gap most."""
    return [
        f"What moved the {what}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in list(each.items())[:MOST_MOVERS])
        + " of the variance over complete trials."
        for what, each in (shares or {}).items()
    ]


def price(document: Mapping[str, Any]) -> list[str]:
    """Return what the form of the score changed, and what that cost on validation."""
    free, first, metric = document["without_gap_penalty"], document["search_best"], document["metric"]
    if not (free and first and free["trial"] != first["trial"]):
        return []
    loss = LOSS[document["data"]["task"]]
    moved = f"val {metric} {number(free['val'][metric])} -> {number(first['val'][metric])}"
    if apart := free.get("better_by"):
        unit = f"1 - {loss}/L_0" if metric == loss else metric
        moved += f" ({unit} worse by {number(apart['value'])}, SE {number(apart['se'])}, paired)"
    gaps = f"gap {number(free['relative_gap'])} -> {number(first['relative_gap'])}"
    what = FORMS[document["score"]["form"]]
    return [f"In the search {what} put trial {first['trial']} before trial {free['trial']}: {moved}, {gaps}."]


def last_training(document: Mapping[str, Any]) -> list[str]:
    """Return whether the model was trained again in the end."""
    if not (rows := document["trained_again_on"]):
        return []
    return [
        f"The model was trained again on {counted(rows, 'row')}, {counted(document['best']['epoch'], 'epoch')}; train "
        "and validation are the trial's, test is the model's."
    ]


def tested(document: Mapping[str, Any]) -> list[str]:
    """Return whether tuning helped, by the test rows, and how often they were looked at."""
    test = document["test"]
    if test and test["stale"]:
        return [f"The test set was looked at for trial {test['trial']}; `tuner run` looks at the new best one."]
    if test:
        looks = "once" if test["looks"] == 1 else f"{test['looks']} times, so its figures are no longer untouched"
        return [clean(test["verdict"]), *_dependent(document), f"The test set has been looked at {looks}."]
    if document["data"]["test"] == 0:
        return ["There is no test set; the validation figures are those of a search and so too good."]
    if document["best"] and not document["best"]["predicts"]:
        return [
            "The test set has not been opened: the training loop keeps no network that model.family makes, so there is "
            "nothing to predict with; name what makes its network there, as module:attr."
        ]
    return ["The test set has not been opened."]


def _dependent(document: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with intervals where rows belong together."""
    if not (name := document["data"].get("groups")):
        return []
    return [f"Rows of equal {clean(name)} aren't independent, and the intervals take them to be: they are too narrow."]


def ended(document: Mapping[str, Any]) -> str:
    """Return how many trials have ended, and of how many where the study isn't over."""
    trials, progress = document["trials"], document["progress"]
    there = trials["total"] - trials["running"] - trials["waiting"]
    if progress is None or progress["state"] == "over":
        return counted(there, "trial")
    return f"{there} of {counted(progress['trials'], 'trial')}"


def unfinished(document: Mapping[str, Any]) -> list[str]:
    """Return that a study isn't over, where it isn't, and how far it has come."""
    progress, trials = document["progress"], document["trials"]
    if progress is None or progress["state"] == "over":
        return []
    if progress["state"] == "failed":
        return [f"The study came to nothing: {clean(progress['why'])}."]
    first = "still runs" if progress["state"] == "running" else "was stopped (the same command goes on)"
    there = trials["total"] - trials["running"] - trials["waiting"]
    far = f"{ended(document)} {'has' if there == 1 else 'have'} ended"
    if there >= progress["trials"]:
        far += ", but not what comes after them"
    return [f"The study {first}: {far}. What follows is its state so far."]


def nothing(document: Mapping[str, Any]) -> str:
    """Return that there is no best configuration, and whether there will be one."""
    said, waiting = "No trial is complete, so there is no best configuration", document["trials"]["waiting"]
    if document["progress"] is not None and document["progress"]["state"] in ("failed", "over"):
        return f"{said}."
    return f"{said} yet" + (
        f"; {counted(waiting, 'trial')} had no time to end: the same command goes on." if waiting else "."
    )


def answer(document: Mapping[str, Any]) -> list[str]:
    """Return what someone who is handed the report wants to know first, in words."""
    best, metric, so_far = document["best"], document["metric"], unfinished(document)
    if best is None:
        return [*so_far, nothing(document)]
    test = document["test"] if document["test"] and not document["test"]["stale"] else None
    reached = f"train {metric} {number(best['train'][metric])}, validation {number(best['val'][metric])}"
    if test and metric in test:
        reached += f", test {with_interval(test[metric])} (95 % interval, {counted(test['rows'], 'row')})"
    trials = document["trials"]
    there = trials["total"] - trials["running"] - trials["waiting"]
    if so_far:
        first = f"Best so far is trial {best['trial']}"
    elif there == 1:
        first = f"There is one configuration, that of trial {best['trial']}"
    else:
        first = f"Of {there} configurations trial {best['trial']} was chosen"
    return [
        *so_far,
        f"{first}, as it was after epoch {best['epoch']}: {reached}.",
        *(f"{said[0].upper()}{said[1:]}." for said in confirmation(document)),
        *fits(document["diagnosis"])[:1], *tested(document), *price(document), *last_training(document),
        *bounds(document["diagnosis"]),
    ]  # fmt: skip
