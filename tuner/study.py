"""Study, open_study(), list_studies(): studies that are there, to be read. Runs nothing and writes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import reporting, telling
from tuner.best import DATABASE, FEATURES, STUDIES, BestConfig, load_best
from tuner.config import STUDY_NAME
from tuner.confirmation import REPEAT, Repeat
from tuner.errors import UsageError, nearest
from tuner.grammar import Override, parse_space
from tuner.keeping import is_begun, refuse_lost
from tuner.planning import storage_url
from tuner.plots import plots
from tuner.record import StudyRecord, TrialRecord
from tuner.showing import figures_table
from tuner.space import Space
from tuner.speaking import DamagedError, MissingError
from tuner.storage import open_storage
from tuner.store import Store, readable, study_names
from tuner.telling import number
from tuner.urls import masked

if TYPE_CHECKING:
    import pandas as pd
    from optuna.storages import RDBStorage
    from plotly.graph_objects import Figure

PROGRESS = "progress"  # a fact of a study: whether it is running, stopped or over, and how many trials it is to have


@dataclass(frozen=True, slots=True, repr=False)
class Study:
    """A study as it stands: its record, its trials by number, the document of its figures, its folder, the runs of its
    confirmation, and the worst mistakes of the chosen trial in the validation rows (see selection.on_validation).
    """

    record: StudyRecord
    trials: Mapping[int, TrialRecord]
    document: Mapping[str, Any]
    folder: Path
    repeats: Sequence[Repeat] = ()
    mistakes: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """The study's name."""
        return self.record.name

    @property
    def best(self) -> BestConfig:
        """The best configuration, as `load_best` reads it.

        Raises:
            UsageError: no trial is complete.
        """
        return load_best(self.folder / "best.yaml")

    def frame(self) -> pd.DataFrame:
        """Return a row a trial, as in trials.csv: values, figures at the epoch kept, verdict."""
        import pandas as pd

        rows = reporting.trial_rows(self.trials, self.record.data["task"])
        empty = [{name: None if value == "" else value for name, value in row.items()} for row in rows]
        return pd.DataFrame(empty).set_index("trial") if rows else pd.DataFrame()

    def figures(self) -> dict[str, Figure]:
        """Return plotly's figures of the study, those of its report, by name."""
        from plotly.graph_objects import Figure

        return {plot.name: Figure(dict(plot.figure)) for plot in plots(self.document, self.trials)}

    def __repr__(self) -> str:
        best = self.document["best"]
        found = f"best {best['trial']} with score {number(best['score'])}" if best else "none complete"
        return f"<Study {self.name!r}: {telling.counted(len(self.trials), 'trial')}, {found}>"

    def _repr_html_(self) -> str:
        def shown(text: str) -> str:
            return escape(telling.typeset(text))

        head, *rows = figures_table(self.document) if self.document["best"] else [[]]
        cells = "".join(f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in row)}</tr>" for row in rows)
        table = f"<table><tr>{''.join(f'<th>{shown(name)}</th>' for name in head)}</tr>{cells}</table>" if head else ""
        said = "".join(f"<li>{shown(sentence)}</li>" for sentence in telling.answer(self.document))
        return f"<h4>Study {escape(self.name)}</h4><ul>{said}</ul>{table}"


def open_study(study: str, *, storage: str | None = None, studies_dir: str | Path = STUDIES) -> Study:
    """Return a study that is there, by its name or the path of its folder.

    Raises:
        UsageError: there is no such study; the message lists those there are.
        StorageError: the storage can't be read.
    """
    study, folder = named(study, studies_dir)
    rdb = _to_read(study, storage_url(storage, folder), folder)
    try:
        return _of_storage(rdb, study, folder)
    finally:
        rdb.engine.dispose()


def named(study: str, studies_dir: str | Path) -> tuple[str, Path]:
    """Return a study's name and the folder of the studies, from its name or the path of its own folder.

    Raises:
        UsageError: it is no study's name.
    """
    path = Path(study)
    if os.sep in study and path.is_dir():
        study, studies_dir = path.name, path.parent
    if not re.fullmatch(STUDY_NAME, study):
        raise UsageError(f"{study!r} is no study name; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")
    return study, Path(studies_dir)


def _to_read(study: str, url: str, studies_dir: Path) -> RDBStorage:
    try:
        return open_storage(url, read_only=True)
    except MissingError:
        if is_begun(studies_dir / study):
            raise DamagedError(f"{masked(url)}: is gone; `tuner repair {study}` makes it from the ledgers") from None
        raise


def _of_storage(rdb: RDBStorage, study: str, studies_dir: Path) -> Study:
    store, folder = Store.load(rdb, study), studies_dir / study
    if store is None and is_begun(folder):
        raise DamagedError(
            f"study {study} isn't in {masked(rdb.url)}; `tuner repair {study}` writes it from its ledger"
        )
    if store is None:
        known = study_names(rdb)
        there = f"; there are: {', '.join(known[:20])}" if known else "; there are none yet"
        raise UsageError(f"no study {study!r}{nearest(study, known)}{there}")
    records = {record.number: record for record in store.records()}
    refuse_lost(store.study, records, folder)
    with readable(store.where, study):
        return study_of(store, records, folder)


def study_of(store: Store, records: Mapping[int, TrialRecord], folder: Path, **facts: Any) -> Study:
    """Return a study from its store, with some facts in place of those that are stored."""
    told = facts_of(store, folder) | facts
    document = reporting.summary(store.study, records, told)
    seen = told["val_classes"] or {}
    same = document["best"] is not None and seen.get("trial") == document["best"]["trial"]
    mistakes = seen.get("mistakes", ()) if same else ()
    return Study(store.study, records, document, folder, told["repeats"], mistakes)


def space_of(study: Study, overrides: Sequence[Override] = ()) -> Space:
    """Return a study's space as it was run, under the study's name and with the constants of its score, whose defaults
    may have been others then; and with some values put over it.

    Raises:
        SpaceError: an override is wrong.
    """
    record = study.record
    kept = {name: value for name, value in record.identity.items() if name.startswith("score.") and value is not None}
    # a file need not name its study, and its `folder` has been followed already
    own = kept | {"study": record.name, "folder": str(Path(record.folder).absolute())}
    listed = [Override(name, json.dumps(value), "the study's own") for name, value in own.items()]
    return parse_space(record.space, Path(record.folder), "space", [*listed, *overrides])


def list_studies(*, storage: str | None = None, studies_dir: str | Path = STUDIES) -> list[Study]:
    """Return every study of a storage; none if there is no database yet."""
    url = storage or os.environ.get("OPTUNA_STORAGE")
    if url is None and not (Path(studies_dir) / DATABASE).exists():
        return []
    rdb = open_storage(storage_url(url, Path(studies_dir)), read_only=True)
    try:
        return [_of_storage(rdb, name, Path(studies_dir)) for name in study_names(rdb)]
    finally:
        rdb.engine.dispose()


def _trained_again(folder: Path) -> int | None:
    """Return on how many rows the model in a study's folder was trained again in the end, if it was."""
    try:
        told = json.loads((folder / "best.json").read_text(encoding="utf-8")).get("trained_again_on")
    except (OSError, ValueError, AttributeError):  # it isn't there, or not as it was written
        return None
    return told if isinstance(told, int) else None


def _progress(store: Store) -> dict[str, Any] | None:
    """Return how far a study has come; None where an older version made it. One that was killed couldn't say so, but
    no process holds a lease on it.
    """
    told: dict[str, Any] | None = store.get(PROGRESS)
    if told is None or told["state"] != "running" or store.holder() is not None:
        return told
    return told | {"state": "stopped"}


def facts_of(store: Store, folder: Path) -> dict[str, Any]:
    """Return what the document of a study says beside its records."""

    def there(name: str) -> str | None:
        return str(folder / name) if (folder / name).exists() else None

    return {
        "folder": str(folder), "progress": _progress(store),
        "storage": masked(store.rdb.url), "seconds": store.get("seconds"), "test": store.get("test"),
        "val_classes": store.get("val_classes"), "repeats": [Repeat.from_json(found) for found in store.found(REPEAT)],
        "trained_again_on": _trained_again(folder), "features": there(FEATURES),
        "importances": store.get("importances"), "not_confirmed": store.get("not_confirmed"),
        "config": there("best.yaml"), "model": there("model.safetensors"), "report": there("report.html"),
    }  # fmt: skip
