"""MLflow: `tuner run --track mlflow`, with MLFLOW_TRACKING_URI as for any other program.

A study is a run in the experiment `tuner`, its trials are child runs of it. A study that is resumed goes on in its run;
a trial that is there already isn't told again.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from tuner.record import shown

if TYPE_CHECKING:
    from tuner.record import TrialRecord
    from tuner.study import Study

EXPERIMENT, STUDY, TRIAL = "tuner", "tuner.study", "tuner.trial"
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 5000  # of one call, and letters of a value, as MLflow allows
FILES = ("best.yaml", "report.html", "trials.csv", "model.safetensors")


class Tracker:
    """Logs a study as a parent run and its trials as child runs."""

    def __init__(self) -> None:
        self.client: Any = None
        self.experiment = self.run = ""
        self.there: set[int] = set()

    def begin(self, study: Study) -> None:
        self.client = MlflowClient()  # which asks its server, or makes its database
        found = self.client.get_experiment_by_name(EXPERIMENT)
        self.experiment = found.experiment_id if found else self.client.create_experiment(EXPERIMENT)
        key = f"{study.name} {study.record.created}"
        runs = self._runs(f"tags.`{STUDY}` = '{key}'")
        if runs:
            self.run = runs[0].info.run_id
            children = self._runs(f"tags.`{PARENT}` = '{self.run}'")
            self.there = {int(each.data.tags[TRIAL]) for each in children if each.info.status == "FINISHED"}
            self.client.update_run(self.run, "RUNNING")
            return
        self.run = self.client.create_run(self.experiment, tags={STUDY: key}, run_name=study.name).info.run_id
        about = {**study.record.identity, "metric": study.record.metric, "seed": study.record.seed}
        self._params(self.run, {name: value for name, value in about.items() if not isinstance(value, dict)})

    def trial(self, record: TrialRecord) -> None:
        if record.number in self.there:
            return
        tags = {
            PARENT: self.run,
            TRIAL: str(record.number),
            NAME: f"trial {record.number}",
            "tuner.state": record.state,
        }
        tags |= {"tuner.reason": record.reason, "tuner.label": record.label}
        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        self._params(run, dict(record.all_values))
        metrics = [
            Metric(f"{part}_{name}", value, 0, epoch.number)
            for epoch in (record.curve.epochs if record.curve else ())
            for part, measure in (("train", epoch.train), ("val", epoch.val))
            for name, value in {"loss": measure.loss, **measure.metrics}.items()
            if math.isfinite(value)
        ]
        told = {f"best.{name}": value for name, value in shown(record).items() if isinstance(value, (int, float))}
        if record.score is not None and math.isfinite(record.score.value):
            told["score"] = record.score.value
        metrics += [Metric(name, float(value), 0, 0) for name, value in told.items()]
        for start in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(run, metrics=metrics[start : start + MOST_METRICS])
        self.client.set_terminated(run, "FINISHED")
        self.there.add(record.number)

    def end(self, study: Study) -> None:
        document = study.document
        if (best := document["best"]) is not None:
            told = {f"best.{part}_{name}": value for part in ("train", "val") for name, value in best[part].items()}
            told |= {"best.trial": best["trial"], "best.score": best["score"]}
            told |= {f"test_{name}": value["value"] for name, value in _tested(document).items()}
            now = round(1000 * time.time())  # of two values at one step the later one is shown
            metrics = [Metric(name, float(value), now, 0) for name, value in told.items() if value is not None]
            self.client.log_batch(self.run, metrics=metrics)
            self.client.log_batch(self.run, tags=[RunTag("tuner.best", str(best["trial"]))])
        for path in (Path(study.folder) / name for name in FILES):
            if path.exists():
                self.client.log_artifact(self.run, str(path))
        over = (document["progress"] or {}).get("state") == "over"
        self.client.set_terminated(self.run, "FINISHED" if over else "KILLED")

    def _runs(self, which: str) -> list[Any]:
        found, token = list[Any](), None
        while True:
            page = self.client.search_runs([self.experiment], which, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _params(self, run: str, values: dict[str, Any]) -> None:
        params = [Param(name, str(value)[:LONGEST]) for name, value in values.items()]
        for start in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(run, params=params[start : start + MOST_PARAMS])


def _tested(document: Any) -> dict[str, Any]:
    return {
        name: value for name, value in (document["test"] or {}).items() if isinstance(value, dict) and "low" in value
    }
