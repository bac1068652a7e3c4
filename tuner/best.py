"""BestConfig and load_best(): what users import. Needs no database, and no torch until a model is asked for.

Decides what files a study leaves for its best configuration (best.yaml, best.json, model.safetensors) and
reads them back. Knows nothing of the search that found it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.backbones import find_backbone
from tuner.config import PRETRAINED, STUDY_NAME, RunConfig, own_code
from tuner.depositing import fetched, is_url
from tuner.document import plain
from tuner.errors import DataError, UsageError, nearest
from tuner.grammar import parse_space, read_space
from tuner.own_code import code_of
from tuner.space import Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from tuner.data.splits import Encoder

LOG = logging.getLogger("tuner")
STUDIES = Path("studies")
DATABASE = "tuner.db"  # of all studies of a folder, where no other storage is named
MODEL = "model.safetensors"
LOCK = ".lock"  # in a study's folder; held by the process that runs it
FEATURES = ".features"  # of frozen parts, until all trials have ended: what runs after this one needs them, too


@dataclass(frozen=True, slots=True)
class BestConfig:
    """The best configuration of a study, and the way to its model.

    `params` maps the searched dotted names to the values found, `config` is the whole configuration; `train`,
    `val` and `gap` map metrics to their values at the kept epoch, `test` to value, low and high of the one
    look (None without a test set). `path` is the best.yaml that it was read from.
    """

    study: str
    trial: int
    score: float | None
    epoch: int
    params: Mapping[str, Any]
    config: RunConfig = field(repr=False)
    train: Mapping[str, float]
    val: Mapping[str, float]
    gap: Mapping[str, float]
    test: Mapping[str, Any] | None
    path: Path
    folder: Path = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def model_path(self) -> Path:
        """The weights, a safetensors file."""
        return self.path.parent / MODEL

    @property
    def encoder(self) -> Encoder:
        """The preprocessing, as fitted on the training rows."""
        from tuner.data import encoder_from_json

        try:
            return encoder_from_json(self.about["encoder"])
        except (DataError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise DataError(f"{self.path.with_name('best.json')}: {error}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities; empty for regression."""
        return self.encoder.shape.classes

    def _repr_html_(self) -> str:
        """Return the configuration for a notebook: its values, and its figures."""
        values = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(_short(value))}</td></tr>" for name, value in self.params.items()
        )
        metric, test = self.about["metric"], ""
        if self.test and metric in self.test:
            test = ", test {value:.4g} (95 % interval {low:.4g} to {high:.4g})".format(**self.test[metric])
        said = f"{metric}: train {self.train[metric]:.4g}, validation {self.val[metric]:.4g}{test}"
        head = f"<h4>{escape(self.study)}: trial {self.trial}, epoch {self.epoch}</h4>"
        return f"{head}<p>{escape(said)}</p><table>{values}</table>"

    def to_json(self) -> dict[str, Any]:
        """Return the configuration and its figures as plain values, without the preprocessing."""
        figures = {name: value for name, value in self.about.items() if name != "encoder"}
        return {**figures, "config": self.config.flat(), "path": str(self.path), "model": str(self.model_path)}

    @property
    def changed_code(self) -> tuple[str, ...]:
        """The modules of the user's own, named by the configuration, whose files aren't what the study trained with."""
        then = self.about.get("versions", {})
        now = code_of(own_code(self.config), self.folder)
        names = dict.fromkeys(name.partition(":")[0] for name in own_code(self.config))
        return tuple(name for name in names if name in then and now.get(name) != then[name])

    def build_model(self) -> nn.Module:
        """Return an untrained model of this configuration, for a training loop of your own."""
        from tuner.models import build_model

        encoder = self.encoder
        return build_model(self.config, encoder.shape, self.folder, encoder.standard)

    def load_model(self) -> nn.Module:
        """Return the trained model, in eval mode.

        Its input is what `encode` returns, its output logits or the standardized target; `predict` does both
        ends.

        Raises:
            UsageError: the configuration doesn't build the network that the space's own training loop trained.
            DataError: the weights are missing or don't fit the model, or the backbone isn't the one of the training.
        """
        from tuner.weights import read_weights

        if not self.about.get("predicts", True):
            raise UsageError(
                f"{self.path}: its training loop kept no network that model.family {self.config.model.family} builds; "
                f"build it as the loop does, and load {MODEL} if there is one"
            )
        if changed := self.changed_code:
            what = "so the network may be another one than was trained"
            LOG.warning("%s: the code of %s has changed since, %s", self.path, ", ".join(changed), what)
        if self.config.model.family == PRETRAINED:
            found = find_backbone(self.config.model.backbone, self.encoder.shape.kind, self.folder)
            found.check(self.about.get("backbone"), self.path)
        model = self.build_model()
        read_weights(model, self.model_path)
        return model.eval()

    def encode(self, x: Any) -> NDArray[Any]:
        """Return raw examples (a DataFrame, an array, a list of rows) as model input, standardized.

        Raises:
            DataError: a column is missing or the examples have another shape.
        """
        from tuner.measuring import standardized

        return standardized(self.encoder.encode(x), self.encoder.standard)

    def predict(self, x: Any) -> NDArray[Any]:
        """Return the predicted class names (n,), or numbers (n,) in the target's unit."""
        import numpy as np

        outputs = self._outputs(x)
        if self.encoder.shape.task == "regression":
            return self.encoder.target.restore(outputs[:, 0])
        return np.asarray(np.array(self.classes)[outputs.argmax(1)])

    def predict_proba(self, x: Any) -> NDArray[np.float32]:
        """Return the probabilities (n, classes) in the order of `classes`.

        Raises:
            UsageError: the task is regression.
        """
        import numpy as np

        if self.encoder.shape.task == "regression":
            raise UsageError("predict_proba: the task is regression; use predict")
        return np.asarray(np.exp(self._outputs(x)), dtype=np.float32)

    def _outputs(self, x: Any) -> NDArray[np.float32]:
        from tuner.measuring import predict

        encoder = self.encoder
        return predict(self.load_model(), encoder.encode(x), encoder.standard, encoder.shape.task)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def load_best(study: str | Path, studies_dir: str | Path = STUDIES) -> BestConfig:
    """Return the best configuration of a study, by its name, by the path of its folder or best.yaml, or by the URL of
    what `--artifacts` left, such as s3://bucket/digits.

    Raises:
        UsageError: there is no such study, or it has no best configuration yet.
        DataError: its files are damaged.
    """
    path = find_best(study, Path(studies_dir))
    space = read_space(path)
    try:
        about = json.loads(path.with_name("best.json").read_text())
        _check(about)
        return BestConfig(
            about["study"], about["trial"], about["score"], about["epoch"], about["params"], space.config,
            about["train"], about["val"], about["gap"], about["test"], path, space.folder, about,
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError(f"{path.with_name('best.json')}: is missing; it lies beside best.yaml") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path.with_name('best.json')}: is damaged ({error}); run `tuner run` again") from None


def _check(about: Mapping[str, Any]) -> None:
    """Refuse what can't have been written by a study: the file may come from anyone, and Python code is made of it.

    Raises:
        ValueError, TypeError, KeyError: something isn't as it should be.
    """
    if not re.fullmatch(STUDY_NAME, about["study"]):
        raise ValueError("study: is no study name")
    for name, kind in (("trial", int), ("epoch", int), ("score", (int, float, type(None))), ("metric", str)):
        if not isinstance(about[name], kind):
            raise TypeError(f"{name}: is a {type(about[name]).__name__}")
    for name in ("params", "train", "val", "gap"):
        if not isinstance(about[name], dict):
            raise TypeError(f"{name}: is a {type(about[name]).__name__}")
    figures = [value for name in ("train", "val", "gap") for value in about[name].values()]
    for metric, found in (about["test"] or {}).items():
        figures += [found[part] for part in ("value", "low", "high")] if metric != "looks" else []
    if not all(value is None or isinstance(value, (int, float)) for value in figures):
        raise TypeError("a figure is no number")


def find_best(study: str | Path, studies_dir: Path) -> Path:
    """Return the path of a study's best.yaml.

    Raises:
        UsageError: there is no such study, or it has no best configuration yet.
    """
    text = str(study)
    if is_url(text):
        return fetched(text.removesuffix("/best.yaml").rstrip("/")) / "best.yaml"
    path = Path(study)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        return path
    if not (path.is_dir() and os.sep in text):
        if not re.fullmatch(STUDY_NAME, text):
            raise UsageError(f"{text!r} is no study name; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")
        path = studies_dir / text
    if not path.is_dir():
        known = sorted(child.name for child in studies_dir.glob("*") if child.is_dir())
        there = f"; there are: {', '.join(known[:20])}" if known else f"; {studies_dir} holds none"
        raise UsageError(f"no study {text!r}{nearest(text, known)}{there}")
    if not (path / "best.yaml").is_file():
        raise UsageError(f"study {text!r} has no best configuration yet; `tuner run` of it to its end leaves one")
    return path / "best.yaml"


def best_space(space: Space, values: Mapping[str, Any], seed: int, study: str, target: Path) -> str:
    """Return the space file without ranges: every range replaced by the value found, to be run again.

    Its seed is the trial's, so that `tuner train` of it trains the very same network.

    Raises:
        SpaceError: never for values of the space; what is written is read back to make sure.
    """
    tree = space.nested()
    for name in space.domains:
        _drop(tree, name)
    config = space.at(values)
    for name in (*space.middle(values), *values):
        _put(tree, name, config[name])
    tree["study"] = f"{study[:59]}-best"
    tree["seed"] = seed
    tree["folder"] = _way(target.parent, space.folder)
    tree.get("search", {}).pop("enqueue", None)
    tree = {name: value for name, value in tree.items() if value != {}}
    text = plain(json.loads(json.dumps({name: tree[name] for name in ("study", "seed", "folder")} | tree)))
    parse_space(text, target.parent, str(target))
    return text


def space_text(space: Space, folder: Path) -> str:
    """Return the text of a space as it must be to stand in a folder: what its paths start from goes with it."""
    tree = {**space.nested(), "study": space.config.study, "folder": _way(folder, space.folder)}
    return plain(json.loads(json.dumps({name: tree[name] for name in ("study", "folder")} | tree)))


def moved(best: BestConfig, folder: Path) -> str:
    """Return the text of best.yaml as it must be to stand in another folder: paths in it start elsewhere then."""
    line = plain({"folder": _way(folder, best.folder)})
    return re.sub(
        r"^folder: .*\n(?: .*\n)*", lambda _: line, best.path.read_text(encoding="utf-8"), count=1, flags=re.M
    )


def _way(start: Path, end: Path) -> str:
    return os.path.relpath(end.resolve(), start.resolve())


def _drop(tree: dict[str, Any], name: str) -> None:
    *path, leaf = name.split(".")
    for part in path:
        tree = tree.get(part, {})
    tree.pop(leaf, None)


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *path, leaf = name.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[leaf] = value


def as_python(best: BestConfig) -> str:
    """Return Python code that holds the configuration as plain values."""
    lines = [f'"""Best configuration of study {best.study!r}, trial {best.trial}; needs nothing but Python."""', ""]
    lines += ["PARAMS = {", *(f"    {name!r}: {value!r}," for name, value in best.params.items()), "}", ""]
    lines += ["CONFIG = {", *(f"    {name!r}: {value!r}," for name, value in best.config.flat().items()), "}"]
    return "\n".join(lines) + "\n"
