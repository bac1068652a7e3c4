"""What must fit together for a study: the metric and the task, the model and the data, keys and what they are for.

Decides it before anything is written, and what the data settle that a file leaves open; the user's own code is called
once. Reads no data and makes no plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.backbones import BACKBONES, Backbone, find_backbone, located, tokenizer_file
from tuner.config import AUTO, FAMILIES, LOOP, OWN_TOKENS, PRETRAINED, Data, RunConfig, duration, misfit
from tuner.data.splits import Splits
from tuner.defaults import default_model
from tuner.errors import UsageError, UserCodeError
from tuner.own_code import one_line
from tuner.ranking import BY_EXAMPLE
from tuner.scoring import metric_of
from tuner.space import Range, Space, families, own_families, own_names
from tuner.supervising import cause, try_apart


def check_source(space: Space) -> None:
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


def check_fit(space: Space, folds: Sequence[Splits]) -> str:
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
        backbone.check_unfrozen(int(most(space, "model.unfrozen")))
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


FORKED = "fork-based multiprocessing"  # torch's words
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
    deep = ("bag", PRETRAINED) if most(space, "model.depth") > 1 else ()
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


def noted(space: Space) -> Space:
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
    if most(space, "augmentation.strength") == 0:
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


def most(space: Space, name: str) -> float:
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
            if FORKED in str(error):  # who calls has used a GPU: what is wrong is told by the first trial
                return ""
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
