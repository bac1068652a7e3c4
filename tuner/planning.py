"""prepare(): a space file and its data -> Plan. Everything is read and checked here, and nothing is written.

Decides what must fit together: the metric and the task, the model and the kind of data. Knows no storage's content
and trains nothing.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tuner.backbones import BACKBONES, Backbone, find_backbone, located, tokenizer_file
from tuner.best import DATABASE, STUDIES
from tuner.config import AUTO, FAMILIES, LOOP, OWN_TOKENS, PRETRAINED, Data, RunConfig, duration, min_epochs, misfit
from tuner.curve import Curve
from tuner.data import load_folds
from tuner.data.splits import Splits
from tuner.defaults import default_model
from tuner.errors import UsageError, UserCodeError
from tuner.grammar import Override, dump_space, put_over, read_space
from tuner.identity import this_code, this_version
from tuner.metrics import null_loss
from tuner.own_code import code_of, one_line
from tuner.proposing import first_trials
from tuner.ranking import BY_EXAMPLE
from tuner.record import StudyRecord
from tuner.scoring import metric_of
from tuner.space import Range, Space, families, own_data, own_families, own_names
from tuner.supervising import cause, try_apart

VERSIONS = ("torch", "optuna", "numpy", "scikit-learn", "pandas")


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that can be run: everything is read and checked, nothing is written yet.

    `folds` are what trials are scored over, and `splits` what the chosen configuration is trained on and looked at
    with: the same one, unless it is to be trained again on training and validation rows together. It was `started` at a
    moment of the monotonic clock and took `seconds` to make.
    """

    space: Space
    splits: Splits
    folds: tuple[Splits, ...]
    study: StudyRecord
    storage: str
    folder: Path
    started: float
    seconds: float

    @property
    def refit(self) -> bool:
        """Whether the chosen configuration is trained again, on more rows than its trial was."""
        return self.splits is not self.folds[0]

    @property
    def divisions(self) -> tuple[Splits, ...]:
        """All that is trained on: the folds and, where it isn't one of them, what is trained on in the end."""
        return (*self.folds, self.splits) if self.refit else self.folds

    @property
    def deadline(self) -> float | None:
        """The moment of the monotonic clock at which the time is up; None if there is no limit."""
        limit = self.space.config.budget.timeout
        return None if limit is None else self.started + limit

    @property
    def trials(self) -> int:
        """How many trials the study has in all."""
        return total_trials(self.space)


def prepare(
    space: str | Path | Space,
    *,
    overrides: Sequence[Override] = (),
    storage: str | None = None,
    studies_dir: str | Path = STUDIES,
) -> Plan:
    """Read and check a space and its data.

    Raises:
        SpaceError: the space file is wrong.
        UsageError: settings of it don't go together.
        DataError: the data can't be used.
    """
    known = put_over(space, overrides) if isinstance(space, Space) else read_space(Path(space), overrides)
    return plan_of(known, storage, studies_dir)


def versions_of(space: Space) -> dict[str, str]:
    """Return of which versions of what a study is made: a trial is the same byte for byte where they are."""
    own = [*own_data(space), *(name for names in own_names(space).values() for name in names)]
    return {
        "python": platform.python_version(), "tuner": this_version(), "tuner's code": this_code(),
        **{name: version(name) for name in VERSIONS}, "processor": _processor(), **code_of(own, space.folder),
    }  # fmt: skip


def _processor() -> str:
    """Return what numbers are computed by: libraries choose their instructions by it, and round otherwise."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()}, {line.partition(':')[2].strip()}"
    return ", ".join(filter(None, (platform.machine(), platform.processor())))


def plan_of(space: Space, storage: str | None = None, studies_dir: str | Path = STUDIES) -> Plan:
    """Return the plan of a space that has been read (see `prepare`)."""
    try:
        return _plan_of(space, storage, studies_dir)
    except UsageError as error:
        raise UsageError(space.placed(str(error))) from error


def _plan_of(space: Space, storage: str | None, studies_dir: str | Path) -> Plan:
    started = time.monotonic()
    _check_source(space)
    whole, folds = load_folds(data_of(space), space.folder, space.config.training.refit)
    space = settled(space, folds[0])
    config, splits = space.config, whole
    metric, identity = _check_fit(space, folds), space.identity()
    space = _noted(space)
    if PRETRAINED in families(space):
        backbone = find_backbone(config.model.backbone, splits.shape.kind, space.folder)
        identity |= {"model.backbone file": f"SHA-256 {backbone.sha256}"}
    folder = _folder(Path(studies_dir), config.study, url := storage_url(storage, Path(studies_dir)))
    data = dict(folds[0].summary()) | {"classes": list(splits.shape.classes), "notes": list(folds[0].notes)}
    data |= {"folds": len(folds)} if len(folds) > 1 else {}
    data |= {"refit": len(whole.train)} if whole is not folds[0] else {}
    study = StudyRecord(
        config.study, dump_space(space), str(space.folder), identity, metric, config.seed, data,
        splits.fingerprint, splits.test_hash, versions_of(space),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Plan(
        space,
        splits,
        folds,
        study,
        url,
        folder,
        started,
        time.monotonic() - started,
    )


def _check_source(space: Space) -> None:
    """Check that what a training loop is to bring along is brought, and by one.

    Raises:
        UsageError: it isn't.
    """
    config = space.config
    if config.data.source != LOOP:
        return
    if config.training.loop is None:
        raise UsageError(
            f"data.source: {LOOP} is for a training.loop of your own that brings its data; name it, or data"
        )
    if config.score.null_loss is None:
        raise UsageError(
            f"score.null_loss: is needed with data.source {LOOP}: the validation loss of a prediction that knows "
            "nothing (of equally frequent classes the logarithm of their number; of numbers their variance)"
        )


def total_trials(space: Space) -> int:
    """Return how many trials a study of this space has: its budget, or as many as differ if nothing is searched."""
    budget = space.config.budget.trials
    return budget if space.domains else min(budget, len(first_trials(space)))


def storage_url(given: str | None, studies_dir: Path) -> str:
    """Return the storage given, or the one of OPTUNA_STORAGE, or the database that holds all studies of a folder."""
    return given or os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{studies_dir / DATABASE}"


def _folder(studies_dir: Path, study: str, url: str) -> Path:
    """Return a study's folder.

    Raises:
        UsageError: it would lie where the database, or a file that SQLite keeps beside it, has its place.
    """
    there = [studies_dir / DATABASE]
    if url.startswith("sqlite"):
        there.append(Path(unquote(url.partition(":///")[2].partition("?")[0])))
    for name in (path.name for path in there if path.parent.absolute() == studies_dir.absolute()):
        if study == name or study.startswith((f"{name}-", f"{name}.")):
            raise UsageError(f"study {study!r}: is the name of a file of the database {name}; choose --study-name")
    return studies_dir / study


def data_of(space: Space) -> Data:
    """Return the data section as it is read: texts for a pretrained network are cut into that network's own tokens."""
    config = space.config
    if PRETRAINED in families(space) and config.model.backbone not in (*BACKBONES, AUTO):
        find_backbone(config.model.backbone, "text", space.folder)  # a wrong folder is told as what it is
    if config.data.tokens is None and PRETRAINED in families(space):
        return config.data.model_copy(update={"tokens": located(config.model.backbone, space.folder)})
    return config.data


def settled(space: Space, splits: Splits) -> Space:
    """Return the space with what the data decide: the family that `model.family: auto` stands for, and its size where
    the file gives none; the tokens of texts for a pretrained network.
    """
    if PRETRAINED in families(space) and splits.shape.kind == "text" and space.config.data.tokens is None:
        tokens = {"data.tokens": space.config.model.backbone}
        return replace(space, given={**space.given, **tokens}, config=space.config.replace(tokens))
    if space.config.model.family != AUTO or "model.family" in space.domains:
        return space
    chosen = default_model(splits.shape, len(splits.train), space.config.data.tokens)
    values = {name: value for name, value in chosen.items() if name not in space.given and name not in space.domains}
    values["model.family"] = chosen["model.family"]
    size = ", ".join(f"{name} {value}" for name, value in values.items())
    return replace(
        space,
        given={**space.given, **values},
        config=space.config.replace(values),
        notes=(*space.notes, f"model.family auto: {size}"),
    )


def _check_fit(space: Space, folds: Sequence[Splits]) -> str:
    """Check that model, augmentation and metric go with the data; return the metric."""
    config, splits = space.config, folds[0]
    kind = splits.shape.kind
    try:
        metric = metric_of(config.score, splits.shape.task)
    except ValueError as error:
        raise UsageError(str(error)) from None
    refuse_unknown_error(space, metric)
    if config.score.form == "tiebreak" and metric not in BY_EXAMPLE:
        raise UsageError(
            f"score.form: tiebreak pairs examples, and {metric} is no mean over examples; score by one of "
            f"{', '.join(BY_EXAMPLE)}, or use another form"
        )
    if metric == "roc_auc" and any(len(set(fold.val.y.tolist())) < 2 for fold in folds):
        raise UsageError("score.metric: roc_auc needs two classes in the validation rows, which have one; use log_loss")
    for family in families(space):
        if family == AUTO:
            raise UsageError("model.family: auto stands alone; name the families to choose from, or say family: auto")
        if family in FAMILIES and config.training.loop is None and (problem := misfit(family, kind)):
            raise UsageError(problem)
    for key, names in own_names(space).items():
        for name in names:
            _check_own(key, config.replace({key: name}), splits, space.folder)
    if config.training.loop is not None:  # which may do what it likes with any key
        return metric
    if PRETRAINED in families(space):
        backbone = find_backbone(config.model.backbone, kind, space.folder)
        backbone.check_unfrozen(int(_most(space, "model.unfrozen")))
        if kind == "text" and not _has_tokens_of(config, backbone, space.folder):
            raise UsageError(
                f"data.tokens: {config.data.tokens} doesn't go with model.family pretrained, whose backbone "
                f"{backbone.name} knows tokens of its own; leave it out"
            )
    _refuse_idle(space, kind, splits.shape.task)
    _refuse_lone(space)
    return metric


def _has_tokens_of(config: RunConfig, backbone: Backbone, folder: Path) -> bool:
    """Tell whether texts are cut by the very tokenizer that a backbone was trained with."""
    tokens = config.data.tokens
    if tokens is None or tokens in OWN_TOKENS:
        return False
    return tokenizer_file(str(tokens), folder).resolve() == backbone.tokenizer.resolve()


KINDS_OF_KEYS = {
    "data.text": ("text",),
    "data.tokens": ("text",),
    "data.vocabulary": ("text",),
    "data.length": ("text", "sequence"),
    "data.image_size": ("image",),
    "model.embedding": ("text",),
    "model.resolution": ("image",),
    "augmentation.flip": ("image",),
    "augmentation.shift": ("sequence",),
    "augmentation.wrap": ("sequence",),
    "augmentation.mixup": ("table", "image", "sequence"),
}


def _refuse_idle(space: Space, kind: str, task: str) -> None:
    """Refuse keys that would do nothing with such data, where the space sets them."""
    own = bool(own_families(space))  # whose networks may read any key of the model
    for name, kinds in KINDS_OF_KEYS.items():
        if kind not in kinds and _is_set(space, name) and not (own and name.startswith("model.")):
            raise UsageError(f"{name}: is for {' or '.join(kinds)} data and these are of kind {kind}; leave it out")
    if task == "regression" and _is_set(space, "training.class_weights"):
        raise UsageError("training.class_weights: is for classification and the task is regression; leave it out")


def refuse_unknown_error(space: Space, metric: str) -> None:
    """Refuse forms of score that need an error of R2 where the target is learned as its logarithm: the recorded errors
    are those of the logarithm.

    Raises:
        UsageError: the space asks for one.
    """
    config = space.config
    needs = config.score.form in ("tiebreak", "conservative")
    if metric == "r2" and config.data.target_transform != "none" and needs:
        raise UsageError(
            f"score.form: {config.score.form} needs the error of r2, which isn't known with data.target_transform "
            f"{config.data.target_transform}; score by mse or mae, or use another form"
        )


def _refuse_lone(space: Space) -> None:
    """Refuse batches of one example where normalization is over a batch: every trial with both would fail.

    Other families normalize over the places or the steps of an example, too.
    """
    deep = ("bag", PRETRAINED) if _most(space, "model.depth") > 1 else ()
    units = {"mlp", "textcnn", *deep} & set(families(space))
    if units and _may_be(space, "training.batch_size", 1) and _may_be(space, "model.normalization", "batch"):
        raise UsageError(
            "training.batch_size: 1 leaves model.normalization batch nothing to take a mean of; "
            "use batches of 2 or more, or normalization layer"
        )


def _may_be(space: Space, name: str, value: Any) -> bool:
    """Tell whether a trial of the space may have a value under a name."""
    domain = space.domains.get(name)
    return space.config[name] == value if domain is None else value in domain


def _noted(space: Space) -> Space:
    """Return the space with a note on each key that it sets and that nothing is done with: no family of its networks
    has it, or code of the user's own stands in its place.
    """
    space, known = _noted_augmentation(noted_score(space)), families(space)
    if own_families(space) or space.config.training.loop is not None:
        return space
    own = {key for family in FAMILIES.values() for key in family.keys}
    idle = [
        f"{name} {'is searched for nothing' if name in space.domains else 'does nothing'}: "
        f"it is for model.family {' or '.join(_having(name))}, and here it is {' or '.join(known)}"
        for name in sorted(own.difference(*(FAMILIES[family].keys for family in known)))
        if _is_set(space, name)
    ]
    return replace(space, notes=(*space.notes, *idle)) if idle else space


def _noted_augmentation(space: Space) -> Space:
    """Return the space with a note on what an augmentation of the user's own leaves idle, or is left idle by."""
    name, said = space.config.augmentation.function, []
    if name is None or space.config.training.loop is not None:
        return space
    idle = [key for key in ("augmentation.flip", "augmentation.shift", "augmentation.wrap") if _is_set(space, key)]
    if idle:
        said.append(f"{', '.join(idle)}: nothing is done with it, as augmentation.function {name} is in its place")
    if _most(space, "augmentation.strength") == 0:
        said.append(f"augmentation.function: {name} is never called, as augmentation.strength is 0")
    return replace(space, notes=(*space.notes, *said))


def noted_score(space: Space) -> Space:
    """Return the space with a note on the keys of a score that its form doesn't have."""
    rule = space.config.score
    idle = [name for name in ("gap_penalty", "noise", "tolerance") if _is_set(space, f"score.{name}")]
    if rule.form == "penalty" or not idle:
        return space
    said = f"score.{', score.'.join(idle)}: nothing is done with it, as score.form is {rule.form}"
    return replace(space, notes=(*space.notes, said))


def _having(key: str) -> list[str]:
    return [name for name, family in FAMILIES.items() if key in family.keys]


def _is_set(space: Space, name: str) -> bool:
    """Tell whether a space searches a key or gives it another value than its default."""
    section, key = name.split(".")
    default = type(getattr(space.config, section)).model_fields[key].default
    return name in space.domains or space.config[name] != default


def _most(space: Space, name: str) -> float:
    """Return the largest number that a trial of the space may have under a name."""
    domain = space.domains.get(name)
    values = (space.config[name],) if domain is None else (domain.top,) if isinstance(domain, Range) else domain.choices
    return max(value for value in values if isinstance(value, (int, float)))


def _check_own(key: str, config: RunConfig, splits: Splits, folder: Path) -> None:
    """Call the user's own code once, so that what is wrong with it is told before anything is written; in a process of
    its own, as it may end that.

    Raises:
        UserCodeError: it fails.
    """
    import torch

    from tuner.rehearsing import rehearse

    name = f"{key} {config[key]}"

    def call() -> str:
        torch.set_num_threads(1)  # the threads of this process aren't there in a fork of it
        try:
            rehearse(config, splits, folder)
        except UserCodeError as error:
            return str(error)
        except Exception as error:  # of an optimizer's step, or what the network's own code did
            return f"{name}: {one_line(error)}"
        return ""

    limit = config.budget.trial_timeout
    found = try_apart(call, limit)
    if isinstance(found, int):
        found = f"{name}: the process that tried it died ({cause(found)})"
    elif found is None:
        found = f"{name}: trying it took longer than {duration(limit or 0.0)} (--trial-timeout)"
    if found:
        raise UserCodeError(found)


def blank_curve(config: RunConfig, splits: Splits) -> Curve:
    """Return the curve of a run of this configuration before its first epoch."""
    epochs, shape = config.training.epochs, splits.shape
    null = config.score.null_loss or null_loss(splits.train.y, splits.val.y, shape.task, shape.outputs)
    n_val, n_train = len(splits.val), len(splits.train)
    return Curve(epochs, min_epochs(epochs), null, n_val, min(n_val, n_train))
