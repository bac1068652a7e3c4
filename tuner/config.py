"""RunConfig: one point of a space, fully specified; the sections and keys of a space file.

Decides which keys there are, what each may hold, which may be searched, and what a key is when the file
doesn't say. Knows nothing of ranges, of files, of Optuna or of torch: a field's bounds are here, a range
over it is `space`'s business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from tuner.errors import UsageError, show

STUDY_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
MODULE_ATTR = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
DURATION = r"^(\d+(?:\.\d+)?)(s|m|h|d)$"


class Family(NamedTuple):
    """A family of networks: the kinds of data that it takes, and the keys that not every family has."""

    kinds: tuple[str, ...]
    keys: tuple[str, ...] = ()


FAMILIES = {  # each is a function of that name in a file of that name in `models`
    "mlp": Family(("table", "image", "sequence")),
    "cnn": Family(("image",)),
    "resnet": Family(("image",)),
    "conv1d": Family(("sequence",), ("model.kernel",)),
    "rnn": Family(("sequence", "text"), ("model.embedding", "model.cell", "model.bidirectional")),
    "transformer": Family(("sequence", "text"), ("model.heads",)),
    "textcnn": Family(("text",), ("model.embedding", "model.kernel")),
    "bag": Family(("text",), ("model.embedding",)),
    "pretrained": Family(
        ("image", "text"), ("model.backbone", "model.unfrozen", "model.resolution", "training.backbone_rate")
    ),
}
AUTO, PRETRAINED = "auto", "pretrained"
OWN_TOKENS = ("word", "character")
LOOP = "loop"  # the data source of a training loop that brings its own
BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")

Metric = Literal[
    "log_loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "mse", "mae", "r2"
]


CODE_KEYS = (
    "model.family",
    "augmentation.function",
    "training.optimizer",
    "training.loop",
    "score.metric",
)  # run as a trial trains
CODE_TYPE = "own_code"  # of the error where a name of code is none


def _named(value: str) -> str:
    if not MODULE_ATTR.match(value):
        raise PydanticCustomError(CODE_TYPE, "module:attr")
    return value


Code = Annotated[str, AfterValidator(_named), Field(json_schema_extra={"pattern": MODULE_ATTR.pattern[:-2] + "$"})]


def searchable(default: Any, text: str, **bounds: Any) -> Any:
    """A field that a space may give a range or choices."""
    return Field(default, description=text, json_schema_extra={"searchable": True}, **bounds)


def fixed(default: Any, text: str, **bounds: Any) -> Any:
    """A field that holds one value for the whole study."""
    return Field(default, description=text, **bounds)


class Section(BaseModel):
    """A frozen group of keys; an unknown key is an error and a word is never a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class Split(Section):
    """How the rows are divided; an official split found in the data is kept instead."""

    val: float = fixed(0.2, "share of all rows for validation", gt=0, lt=1)
    test: float = fixed(0.2, "share of all rows for the sealed test set; 0: none", ge=0, lt=1)
    seed: int = fixed(0, "seed of the split", ge=0, lt=2**32)
    stratify: bool = fixed(True, "keep the class frequencies in every part (classification)")
    folds: int | None = fixed(None, "cross-validation: each trial is scored over so many folds", ge=2, le=20)
    groups: str | None = fixed(None, "column whose equal values stay in one part", min_length=1)
    time: str | None = fixed(None, "column to order by: train is the past, test the latest", min_length=1)


class Data(Section):
    """Where the examples come from."""

    source: str = fixed(
        ...,
        "sklearn:NAME, a file (.csv, .parquet, .jsonl, .npz, also .gz), a folder of images, module:attr, or loop: a "
        "training.loop brings its own",
        min_length=1,
    )
    kind: Literal["table", "image", "text", "sequence"] | None = fixed(None, "kind of data; inferred where it can be")
    target: str | None = fixed(None, "column to predict; target for .jsonl if not given", min_length=1)
    task: Literal["classification", "regression"] | None = fixed(None, "inferred from the target if not given")
    target_transform: Literal["none", "log"] = fixed("none", "log: learn the logarithm of a positive target")
    drop: Columns = fixed((), "columns to leave out")
    text: str | None = fixed(None, "column that holds the text; text if not given", min_length=1)
    tokens: str | None = fixed(
        None, "what a text is cut into: word, character, or a backbone's name for its own; word if not given",
        min_length=1,
    )  # fmt: skip
    vocabulary: int = fixed(20_000, "most tokens that are known; all others are one", ge=10, le=1_000_000)
    length: int | None = fixed(None, "most tokens or steps of an example; by the training rows if not given", ge=1)
    id: str | None = fixed(None, "column that names the sequence a row belongs to (a row a step)", min_length=1)
    time: str | None = fixed(None, "column that orders the rows of a sequence", min_length=1)
    image_size: int | None = fixed(None, "side in pixels that images of a folder are brought to", ge=4, le=1024)
    split: Split = Split()


class Model(Section):
    """The network."""

    family: str = searchable("mlp", f"one of {', '.join(FAMILIES)}, auto, or module:attr", min_length=1)
    width: int = searchable(64, "units of a hidden layer, or channels of the first convolution", ge=1, le=8192)
    depth: int = searchable(2, "hidden layers, blocks, or convolution stages", ge=1, le=32)
    normalization: Literal["none", "batch", "layer"] = searchable("none", "normalization after each layer")
    embedding: int = searchable(64, "numbers that stand for a token (rnn, textcnn, bag)", ge=1, le=4096)
    kernel: int = searchable(5, "steps that a convolution sees (conv1d; textcnn: the widest of three)", ge=1, le=63)
    cell: Literal["gru", "lstm"] = searchable("gru", "kind of recurrent layer (rnn)")
    bidirectional: bool = searchable(True, "read a sequence from both ends (rnn)")
    heads: int = searchable(4, "attention heads; the width is rounded up to a multiple (transformer)", ge=1, le=64)
    backbone: str = fixed(AUTO, "network to start from: minilm, efficientnet_lite0, or auto by the kind of data")
    unfrozen: int = searchable(0, "last blocks of the backbone that are trained too (pretrained)", ge=0, le=64)
    resolution: int = searchable(128, "side in pixels that images are resized to (pretrained)", ge=32, le=1024)
    options: Mapping[str, Any] = searchable({}, "values for a family of your own, searchable too")


class Regularization(Section):
    """What keeps the network from memorizing."""

    dropout: float = searchable(0.0, "share of units dropped while training, to the nearest 1/256", ge=0, lt=1)
    l1: float = searchable(0.0, "proximal, decoupled: after each step weights shrink by lr * l1, to exact zeros", ge=0)
    l2: float = searchable(0.0, "decoupled weight decay (AdamW)", ge=0)
    label_smoothing: float = searchable(0.0, "share of the target spread over all classes", ge=0, lt=1)


class Augmentation(Section):
    """Random changes of the training examples."""

    function: Code | None = fixed(None, "module:attr: a function (batch, strength, generator) in place of tuner's own")
    strength: float = searchable(0.0, "one knob from 0 (exactly none) to 1", ge=0, le=1)
    mixup: float = searchable(0.0, "alpha of mixup: examples and targets are mixed in pairs; 0: off", ge=0, le=10)
    flip: Literal["none", "horizontal", "vertical", "both"] = fixed(
        "none", "flips of an image that leave its label true"
    )
    shift: float = searchable(0.1, "furthest shift of a sequence at strength 1, as a share of its length", ge=0, le=1)
    wrap: bool = fixed(False, "what a shift moves out of a sequence comes in at its other end")


class Training(Section):
    """The optimization."""

    epochs: int = searchable(50, "cap of the epochs; the epoch kept is the best by validation", ge=1, le=100_000)
    learning_rate: float = searchable(1e-3, "after the warm-up", gt=0, le=10)
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = searchable(
        "auto", "examples a step; auto: by the size of the data"
    )
    schedule: Literal["constant", "cosine"] = searchable("constant", "cosine turns the stopping rules off")
    warmup: float = searchable(0.05, "share of the steps with a linearly rising learning rate", ge=0, le=0.5)
    optimizer: Literal["adamw"] | Code = searchable("adamw", "adamw, or module:attr: what makes an optimizer of yours")
    loop: Code | None = fixed(None, "module:attr: a function (run) of your own that trains, in place of tuner's loop")
    class_weights: bool = searchable(False, "weigh classes in the training loss so that each counts alike")
    backbone_rate: float = searchable(0.1, "learning rate of unfrozen blocks, as a share of learning_rate", gt=0, le=1)
    precision: Literal["float32", "bfloat16"] = fixed(
        "float32",
        "bfloat16: mixed precision, for processors and GPUs that have it: on such a processor networks of convolutions "
        "and large layers train in half the time; weights stay float32",
    )
    refit: bool = fixed(
        False, "train the chosen configuration again on train and validation rows together; always with folds"
    )
    device: Literal["auto", "cpu", "cuda"] = fixed(
        "auto",
        "where networks are trained: cpu; cuda, a GPU; auto: a GPU where there is one, but small perceptrons on the "
        "processor",
    )
    ema: bool = searchable(True, "evaluate and keep the running average of the weights")


class Score(Section):
    """What a trial is worth."""

    metric: Metric | Code | None = fixed(
        None, "log_loss for classification and mse for regression if not given; module:attr: a function (y, predicted)"
    )
    form: Literal["penalty", "tiebreak", "conservative", "none"] = fixed(
        "penalty",
        "penalty: less a price of the gap; tiebreak: of what ties, the smallest gap; conservative: less a standard "
        "error; none: as it is",
    )
    gap_penalty: float = fixed(0.25, "price of the gap between train and validation", ge=0, le=100)
    noise: float = fixed(1.0, "standard errors of the gap that cost nothing", ge=0, le=100)
    tolerance: float = fixed(0.0, "gap beyond the noise that costs nothing", ge=0)
    null_loss: float | None = fixed(
        None, "validation loss of knowing nothing; by the rows if not given, and needed with data.source loop", gt=0
    )


class Stopping(Section):
    """The rules that end a trial before its epoch cap; a diverged trial always ends."""

    overfit: bool = fixed(True, "stop when validation worsens while the training loss still falls")
    plateau: bool = fixed(True, "stop when validation has not improved for long")
    behind: bool = fixed(True, "prune a trial that is not among the best 40 % of the others at the same epoch")

    @classmethod
    def off(cls) -> Self:
        """Return the rules of `stopping: none`: every trial runs its whole budget, unless it diverges."""
        return cls(overfit=False, plateau=False, behind=False)


def _duration(value: Any) -> Any:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    match = re.match(DURATION, value, re.ASCII) if isinstance(value, str) and not value.endswith("\n") else None
    if match is None:
        raise ValueError(f"{show(value)} is no duration; write 90s, 10m, 2h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def seconds_of(text: str, where: str) -> float:
    """Return the seconds of a duration as people write it, such as 90s, 10m or 2h.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(_duration(text))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


Written = Annotated[float, Field(gt=0, le=3.2e7)] | Annotated[str, Field(pattern=DURATION)]
Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=Written), Field(gt=0, le=3.2e7)]


SIZE = r"^(\d+(?:\.\d+)?) ?(K|M|G|T)(i?)B$"


def _size(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    match = re.match(SIZE, value, re.ASCII) if isinstance(value, str) and not value.endswith("\n") else None
    if match is None:
        raise ValueError(f"{show(value)} is no size of memory; write 500MB, 4GB or 4GiB")
    return round(float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2]) + 1))


LEAST, MOST = 1_000_000, 2**60  # bytes
Sized = Annotated[int, Field(ge=LEAST, le=MOST)] | Annotated[str, Field(pattern=SIZE)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=Sized), Field(ge=LEAST, le=MOST)]


class Budget(Section):
    """How much the study may spend."""

    trials: int = fixed(50, "trials of the study in all, not more of them", ge=0, le=1_000_000)
    workers: int = fixed(1, "processes that train", ge=1, le=256)
    timeout: Duration | None = fixed(None, "seconds, or 90s, 10m, 2h: for the search, the confirmation and refit")
    trial_timeout: Duration | None = fixed(
        None, "seconds, or 90s, 10m, 2h: the longest that one trial may train, with all its folds"
    )
    trial_memory: Size | None = fixed(
        None, "bytes, or 500MB, 4GB, 4GiB: the most that one trial may hold, with all processes that it started"
    )
    confirm: bool = fixed(True, "train the best configurations again on fresh splits and seeds, and choose by the mean")


class Search(Section):
    """How the next point is chosen."""

    sampler: Literal["tpe", "random"] = fixed("tpe", "Optuna's TPE, or random points")
    first_trials: bool = fixed(True, "start with no, light and strong regularization and with half and double size")
    enqueue: Annotated[tuple[Mapping[str, Any], ...], BeforeValidator(_as_tuple)] = fixed(
        (), "points of your own to try first, each a mapping of dotted names to values"
    )


def _stopping(value: Any) -> Any:
    return Stopping.off() if value == "none" else value


class RunConfig(Section):
    """One configuration: every key of a space file with one value each."""

    study: Annotated[str, StringConstraints(pattern=STUDY_NAME)] = fixed("study", "name of the study")
    seed: int = fixed(0, "seed of the search and of every trial", ge=0, lt=2**32)
    folder: str | None = fixed(
        None, "what paths and module:attr names are relative to; the file's own folder if not given", min_length=1
    )
    data: Data
    model: Model = Model()
    regularization: Regularization = Regularization()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    score: Score = Score()
    stopping: Annotated[Stopping, BeforeValidator(_stopping)] = Stopping()
    budget: Budget = Budget()
    search: Search = Search()

    @property
    def rules(self) -> Stopping:
        """The stopping rules in force: none with a schedule that anneals, for its epochs can't be compared."""
        return self.stopping if self.training.schedule == "constant" else Stopping.off()

    def flat(self) -> dict[str, Any]:
        """Return every value under its dotted name, in the order of the sections."""
        return dict(_flatten(self.model_dump(), ""))

    def __getitem__(self, name: str) -> Any:
        """Return the value of a dotted name; KeyError if there is none."""
        value: Any = self
        for part in name.split("."):
            if isinstance(value, Section) and part in type(value).model_fields:
                value = getattr(value, part)
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
            else:
                raise KeyError(name)
        return value

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with the values of some dotted names replaced, checked like a file's.

        Raises:
            pydantic.ValidationError: a name is unknown or a value isn't allowed.
        """
        tree = self.model_dump()
        for name, value in values.items():
            put(tree, name, value)
        return type(self).model_validate(tree)


def own_code(config: RunConfig) -> list[str]:
    """Return what names code of the user's own (`module:attr`) that runs as a trial of a configuration trains."""
    return [str(config[key]) for key in CODE_KEYS if MODULE_ATTR.match(str(config[key]))]


def put(tree: dict[str, Any], name: str, value: Any) -> None:
    """Put a value under a dotted name of nested mappings, making those on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[leaf] = value


def _flatten(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and (value or prefix + key != "model.options"):
            yield from _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            yield prefix + key, value


def misfit(family: str, kind: str) -> str:
    """Return why a family that comes with tuner can't take data of a kind, and which can; nothing if it can."""
    if kind in FAMILIES[family].kinds:
        return ""
    others = ", ".join(name for name, other in FAMILIES.items() if kind in other.kinds)
    return (
        f"model.family: {family} takes {' and '.join(FAMILIES[family].kinds)} data and these are of kind {kind}; "
        f"one of {others}, {AUTO}, or module:attr"
    )


def min_epochs(epochs: int) -> int:
    """Return the first epoch that may be kept or judged: max(5, 10 % of the cap), at most the cap."""
    return min(epochs, max(5, math.ceil(0.1 * epochs)))


def duration(seconds: float) -> str:
    """Return a limit of time as people say it."""
    return f"{seconds / 60:.4g} min" if seconds >= 60 else f"{seconds:.4g} s"


def size_of(size: float | None) -> str:
    """Return a limit of memory as people say it."""
    return f"{size / 1e9:.4g} GB" if size and size >= 1e9 else f"{(size or 0) / 1e6:.4g} MB"
