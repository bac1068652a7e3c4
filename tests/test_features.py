"""Features of a frozen part: computed once, shared, whole, and worth the same as the network they come from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from backbone_files import LONGEST, WORDS, write_backbone
from made import Fitted

from tuner import load_best, tune
from tuner.backbones import find_backbone
from tuner.config import RunConfig
from tuner.data.splits import Part, Shape, Splits, Standard
from tuner.devices import Draws
from tuner.errors import DataError, StorageError, UsageError
from tuner.features import CHUNK, VIEWS, Feed, _filled, with_features
from tuner.grammar import Override
from tuner.measuring import predict
from tuner.models import build_model, decays
from tuner.models.pretrained import Tail, Transfer
from tuner.planning import prepare
from tuner.training import train
from tuner.tuning import conduct
from tuner.weights import read_weights, sparsity, write_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return write_backbone(tmp_path / "bert")


def texts(n_train: int = 150, n_val: int = 60) -> Splits:
    """Texts of two classes, told apart by which words they use."""
    rng, n = np.random.default_rng(0), n_train + n_val
    y, x = rng.integers(0, 2, n), np.zeros((n, LONGEST), dtype=np.int32)
    for row, length in enumerate(rng.integers(2, LONGEST + 1, n)):
        x[row, :length] = rng.integers(4, WORDS // 2, length) + y[row] * (WORDS // 2 - 4)
    parts = [Part(x[rows], y[rows], rows) for rows in np.split(np.arange(n), [n_train])]
    shape = Shape("text", "classification", (LONGEST,), 2, vocabulary=WORDS)
    return Splits(parts[0], parts[1], None, Fitted(shape), "", "")


def pictures(n_train: int = 30, n_val: int = 10) -> Splits:
    try:
        find_backbone("auto", "image")
    except UsageError as error:
        pytest.skip(f"NOT TESTED: {error}")
    rng, n = np.random.default_rng(0), n_train + n_val
    y = rng.integers(0, 2, n)
    x = (rng.integers(0, 128, (n, 3, 16, 16)) + 120 * y[:, None, None, None]).astype(np.uint8)
    parts = [Part(x[rows], y[rows], rows) for rows in np.split(np.arange(n), [n_train])]
    standard = Standard(1 / 255, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return Splits(parts[0], parts[1], None, Fitted(Shape("image", "classification", (3, 16, 16), 2), standard), "", "")


def configure(backbone: Path | None = None, **values: object) -> RunConfig:
    small = {
        "model.family": "pretrained", "model.depth": 1, "model.resolution": 32, "training.epochs": 2,
        "training.learning_rate": 0.01, "training.batch_size": 32,
    } | ({"model.backbone": str(backbone)} if backbone else {})  # fmt: skip
    changed = {name.replace("__", "."): value for name, value in values.items()}
    return RunConfig.model_validate({"data": {"source": "made"}}).replace(small | changed)


def feed(config: RunConfig, splits: Splits, cache: Path | None = None) -> Feed:
    model = build_model(config, splits.shape, None, splits.encoder.standard)
    return with_features(model, splits, config, cache)


def drain(config: RunConfig, splits: Splits, cache: Path | None = None) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses, state = [], {}
    for epoch, network, *_ in train(config, splits, 3, None, cache):
        losses.append(epoch.val.loss)
        state = {name: value.clone() for name, value in network.state_dict().items()}
    return losses, state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class TestWorth:
    @pytest.mark.parametrize("blocks", [0, 2])
    def test_what_is_measured_on_features_of_texts_is_what_the_whole_network_gives(
        self, backbone: Path, blocks: int, tmp_path: Path
    ) -> None:
        self.agree(configure(backbone, model__unfrozen=blocks), texts(), tmp_path)

    @pytest.mark.parametrize("blocks", [0, 2])
    def test_what_is_measured_on_features_of_images_is_what_the_whole_network_gives(
        self, blocks: int, tmp_path: Path
    ) -> None:
        self.agree(configure(model__unfrozen=blocks), pictures(), tmp_path)

    @staticmethod
    def agree(config: RunConfig, splits: Splits, folder: Path) -> None:
        fed = feed(config, splits)
        *_, (_, network, *_) = train(config, splits, 0)
        write_weights(network, folder / "model.safetensors")
        whole = build_model(config, splits.shape, None, splits.encoder.standard)
        read_weights(whole, folder / "model.safetensors")
        fed.model.load_state_dict(network.state_dict())
        on_features = predict(fed.model, fed.splits.val.x, fed.splits.encoder.standard, "classification")
        raw = predict(whole, splits.val.x, splits.encoder.standard, "classification")
        assert np.abs(on_features - raw).max() < 0.01

    def test_a_network_on_frozen_features_learns(self, backbone: Path) -> None:
        losses, _ = drain(configure(backbone, training__epochs=30, training__learning_rate=0.03), texts())
        assert losses[-1] < 0.75 * losses[0]

    def test_any_other_network_comes_back_with_its_examples(self) -> None:
        splits = pictures()
        config = configure(model__family="cnn")
        model = build_model(config, splits.shape)
        found = with_features(model, splits, config)
        assert found.model is model
        assert found.splits is splits
        assert found.fetch(0.5, Draws.of(0)) is None


class TestTraining:
    @pytest.mark.parametrize("blocks", [0, 1])
    def test_the_same_seed_gives_the_same_bytes_with_a_cache_of_its_own_a_shared_one_and_a_filled_one(
        self, backbone: Path, blocks: int, tmp_path: Path
    ) -> None:
        config = configure(backbone, model__unfrozen=blocks, regularization__dropout=0.2)
        own, shared, filled = (drain(config, texts(), each) for each in (None, tmp_path / "c", tmp_path / "c"))
        assert own[0] == shared[0] == filled[0]
        assert same(own[1], shared[1])
        assert same(own[1], filled[1])

    def test_unfrozen_blocks_learn_at_their_own_rate_and_frozen_ones_not_at_all(self, backbone: Path) -> None:
        def moved(rate: float) -> tuple[float, float]:
            config = configure(
                backbone, model__unfrozen=1, training__backbone_rate=rate, training__epochs=1,
                training__ema=False, training__batch_size=150, training__warmup=0.0,
            )  # fmt: skip
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                start = build_model(config, texts().shape).state_dict()
            _, end = drain(config, texts())
            far = {name: (end[name] - value).abs().max().item() for name, value in start.items()}
            return far["head.0.weight"], far["blocks.layers.0.widen.weight"]

        (head, slow), (other_head, fast) = moved(0.01), moved(0.5)
        assert head == pytest.approx(0.01, rel=1e-3)
        assert other_head == pytest.approx(0.01, rel=1e-3)
        assert slow == pytest.approx(0.01 * 0.01, rel=0.02)
        assert fast == pytest.approx(0.01 * 0.5, rel=0.02)

    def test_l1_makes_weights_of_the_head_zero_and_none_of_the_blocks(self, backbone: Path) -> None:
        config = configure(backbone, model__unfrozen=1, regularization__l1=5.0, training__epochs=10)
        *_, (_, network, *_) = train(config, texts(), 0)
        assert isinstance(network, Tail)
        assert sparsity(network) > 0.1
        assert network.blocks is not None
        assert all((each != 0).all() for each in network.blocks.parameters() if each.ndim == 2)
        assert len(decays(network)[0]) == 1

    def test_mixup_mixes_features(self) -> None:
        (plain, _), (mixed, _) = (drain(configure(augmentation__mixup=alpha), pictures()) for alpha in (0.0, 0.5))
        assert np.isfinite(mixed).all()
        assert mixed != plain


class TestViews:
    def test_at_strength_zero_there_are_none_and_nothing_is_drawn(self, tmp_path: Path) -> None:
        fed, generator = feed(configure(), pictures(), tmp_path), torch.Generator().manual_seed(0)
        before = generator.get_state()
        fetch = fed.fetch(0.0, Draws(generator, generator))
        assert fetch is not None
        assert fed.views == ()
        assert torch.equal(fetch(torch.tensor([3, 1])), torch.from_numpy(fed.splits.train.x[[3, 1]]).float())
        assert torch.equal(generator.get_state(), before)
        assert len(list(tmp_path.iterdir())) == 2  # the features, and which of them are whole

    def test_an_example_is_drawn_from_a_view_with_the_probability_of_the_strength(self) -> None:
        fed = feed(configure(augmentation__strength=0.6, augmentation__flip="horizontal"), pictures())
        assert fed.views is not None
        assert len(fed.views) == VIEWS
        rows = torch.arange(30).repeat(100)
        fetch = fed.fetch(0.6, Draws.of(0))
        assert fetch is not None
        x = fetch(rows)
        shares = [
            np.mean([torch.equal(one, torch.from_numpy(view[row]).float()) for one, row in zip(x, rows, strict=True)])
            for view in (fed.splits.train.x, *fed.views)
        ]
        assert shares == pytest.approx([0.4, 0.3, 0.3], abs=0.05)

    def test_the_views_are_the_same_whatever_the_seed_and_the_strength(self, tmp_path: Path) -> None:
        one, two = (
            feed(configure(augmentation__strength=s), pictures(), tmp_path / name) for s, name in ((0.2, "a"), (1, "b"))
        )
        assert one.views is not None
        assert two.views is not None
        assert all(np.array_equal(a, b) for a, b in zip(one.views, two.views, strict=True))
        assert not np.array_equal(one.views[0], one.views[1])
        assert not np.array_equal(one.views[0], one.splits.train.x)

    def test_validation_is_measured_on_clean_examples(self) -> None:
        clean = feed(configure(), pictures()).splits
        changed = feed(configure(augmentation__strength=1.0), pictures()).splits
        assert np.array_equal(clean.val.x, changed.val.x)
        assert np.array_equal(clean.train.x, changed.train.x)

    def test_texts_have_views_too(self, backbone: Path) -> None:
        losses, _ = drain(configure(backbone, augmentation__strength=0.5), texts())
        assert np.isfinite(losses).all()


class TestCache:
    def test_runs_that_need_the_same_features_share_them_and_others_do_not(
        self, backbone: Path, tmp_path: Path
    ) -> None:
        def files() -> int:
            return len(list(tmp_path.glob("c/*.0")))

        drain(configure(backbone), texts(), tmp_path / "c")
        drain(configure(backbone, regularization__dropout=0.5, model__depth=2), texts(), tmp_path / "c")
        assert files() == 1
        drain(configure(backbone, model__unfrozen=1), texts(), tmp_path / "c")
        assert files() == 2
        drain(configure(write_backbone(tmp_path / "other", seed=1)), texts(), tmp_path / "c")
        assert files() == 3
        drain(configure(backbone), texts(n_train=140), tmp_path / "c")
        assert files() == 4

    def test_folds_share_the_features_of_a_row_that_they_have_in_common(self, backbone: Path, tmp_path: Path) -> None:
        rest = texts()
        x, y = (np.concatenate([getattr(part, name) for part in (rest.train, rest.val)]) for name in ("x", "y"))
        config, found = configure(backbone, data__split__folds=3), []
        for fold in range(3):
            val = np.arange(fold, len(y), 3)
            train = np.setdiff1d(np.arange(len(y)), val)
            splits = replace(rest, train=Part(x[train], y[train], train), val=Part(x[val], y[val], val))
            found.append(feed(config, splits, tmp_path / "c").splits)
        assert len(list(tmp_path.glob("c/*.0"))) == 1
        alone = feed(configure(backbone), rest).splits
        everything = np.concatenate([alone.train.x, alone.val.x])
        for part in (part for splits in found for part in (splits.train, splits.val)):
            assert np.array_equal(part.x, everything[part.rows])

    def test_without_a_cache_nothing_is_left_behind(
        self, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = sorted(tmp_path.iterdir())
        fed = feed(configure(backbone, model__unfrozen=1), texts())
        assert sorted(tmp_path.iterdir()) == before
        assert np.isfinite(np.asarray(fed.splits.train.x)).all()

    def test_a_write_that_takes_a_part_is_gone_on_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted, pwrite = np.arange(CHUNK * 40, dtype=np.float16).reshape(CHUNK, 40), os.pwrite
        monkeypatch.setattr("os.pwrite", lambda handle, content, start: pwrite(handle, bytes(content)[:100], start))
        assert np.array_equal(_filled(tmp_path / "f", wanted.shape, [0], lambda _: wanted), wanted)

    def test_a_file_that_was_deleted_to_make_room_is_made_again(self, tmp_path: Path) -> None:
        wanted = np.ones((CHUNK, 4), np.float16)
        for _ in range(2):
            assert np.array_equal(_filled(tmp_path / "f", wanted.shape, [0], lambda _: wanted), wanted)
            (tmp_path / "f").unlink()

    def test_what_cant_be_written_is_no_fault_of_a_trial(self, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        with pytest.raises(StorageError, match="features can't be kept"):
            _filled(tmp_path / "f", (CHUNK, 4), [0], lambda _: np.ones((CHUNK, 4), np.float16))

    def test_padding_takes_no_place(self, tmp_path: Path) -> None:
        states = np.zeros((CHUNK, 512, 64), np.float16)
        states[:, :3] = 1
        states[7] = 2
        assert np.array_equal(_filled(tmp_path / "f", states.shape, [0], lambda _: states), states)
        file = (tmp_path / "f").stat()
        assert file.st_blocks * 512 < 0.3 * file.st_size

    @pytest.mark.parametrize("blocks", [0, 1])
    def test_features_that_would_take_too_much_are_computed_as_they_are_needed_and_come_to_the_same(
        self, backbone: Path, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = configure(backbone, model__unfrozen=blocks)
        kept, state = drain(config, texts(), tmp_path / "c")
        monkeypatch.setattr("tuner.features.MOST_BYTES", 1000)
        assert isinstance(feed(config, texts()).model, Transfer)
        passing, other = drain(config, texts(), tmp_path / "d")
        assert not list(tmp_path.glob("d/*.0"))
        assert passing == pytest.approx(kept, abs=0.01)
        assert state.keys() == other.keys()


FILL = """
import sys, time
import numpy as np
from pathlib import Path
from tuner.features import CHUNK, _filled
folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def compute(chunk):
    with open(folder / f"{name}.log", "a") as file:
        file.write(f"{chunk}\\n")
    time.sleep(seconds)
    return np.full((CHUNK, 4), chunk + 1, np.float16)
found = _filled(folder / "f", (8 * CHUNK, 4), range(8), compute)
assert (np.asarray(found)[:, 0] == 1 + np.arange(8).repeat(CHUNK)).all()
"""


class TestSharing:
    @staticmethod
    def start(folder: Path, name: str, seconds: float) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", FILL, str(folder), name, str(seconds)])

    @staticmethod
    def log(folder: Path, name: str) -> list[int]:
        path = folder / f"{name}.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def test_processes_share_the_work_and_each_sees_all_of_it(self, tmp_path: Path) -> None:
        processes = [self.start(tmp_path, name, 0.2) for name in "ab"]
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
        assert sorted(self.log(tmp_path, "a") + self.log(tmp_path, "b")) == list(range(8))

    def test_the_work_of_a_process_that_was_killed_is_done_by_another(self, tmp_path: Path) -> None:
        killed = self.start(tmp_path, "killed", 600)
        while not self.log(tmp_path, "killed"):
            assert killed.poll() is None
            time.sleep(0.02)
        other = self.start(tmp_path, "other", 0)
        while len(self.log(tmp_path, "other")) < 7:
            assert other.poll() is None
            time.sleep(0.02)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert other.wait(timeout=60) == 0
        assert sorted(self.log(tmp_path, "other")) == list(range(8))

    def test_a_chunk_whose_computation_failed_is_not_whole(self, tmp_path: Path) -> None:
        def fails(chunk: int) -> Any:
            if chunk == 1:
                raise ValueError("no")
            return np.ones((CHUNK, 2), np.float16)

        with pytest.raises(ValueError, match="no"):
            _filled(tmp_path / "f", (2 * CHUNK, 2), range(2), fails)
        again: list[int] = []

        def works(chunk: int) -> Any:
            again.append(chunk)
            return np.ones((CHUNK, 2), np.float16)

        assert (_filled(tmp_path / "f", (2 * CHUNK, 2), range(2), works) == 1).all()
        assert again == [1]


SPACE = """
study: mine
data: {source: my.jsonl, target: label, split: {val: 0.25, test: 0.25}}
model: {family: pretrained, backbone: bert, unfrozen: {low: 0, high: 2}, depth: 1}
regularization: {dropout: {low: 0.0, high: 0.3}}
training: {epochs: 2, learning_rate: {low: 1e-3, high: 1e-1, log: true}}
budget: {trials: 4}
"""


class TestStudy:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        pytest.importorskip("tokenizers", reason="NOT TESTED: tokenizers isn't installed")
        monkeypatch.chdir(tmp_path)
        write_backbone(tmp_path / "bert")
        rng = np.random.default_rng(0)
        lines = [
            json.dumps(
                {"text": " ".join(f"w{word}" for word in rng.integers(4, 20, 5) + 18 * (i % 2)), "label": "ab"[i % 2]}
            )
            for i in range(80)
        ]
        (tmp_path / "my.jsonl").write_text("\n".join(lines))
        (tmp_path / "space.yaml").write_text(SPACE)
        return tmp_path

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_study_finds_a_network_that_predicts_raw_texts_and_leaves_no_features(
        self, folder: Path, workers: int
    ) -> None:
        study = tune(folder / "space.yaml", workers=workers)
        best = load_best(study.name)
        assert best.about["backbone"] == find_backbone("bert", "text", folder).identity()
        assert best.predict(["w5 w6 w7", "w25 w26"]).tolist() in (["a", "b"], ["a", "a"], ["b", "b"], ["b", "a"])
        assert best.load_model()(torch.from_numpy(best.encoder.encode(["w5"])).long()).shape == (1, 2)
        assert not list((folder / "studies" / "mine").glob(".data*"))
        assert not (folder / "studies" / "mine" / ".features").exists()

    def test_a_study_that_goes_on_finds_the_features_that_it_had(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        overrides = [Override("model.unfrozen", "1", "here"), Override("data.split.folds", "3", "here")]
        run = conduct(prepare(folder / "space.yaml", overrides=overrides))
        while next(run).state == "running":
            pass
        run.close()
        files = {path.name for path in (folder / "studies" / "mine" / ".features").iterdir()}
        assert len(files) == 2, "the folds share one file of features, and one that says which are whole"

        def refuse(*_: object) -> None:
            raise AssertionError("features are computed a second time")

        monkeypatch.setattr("tuner.features._write", refuse)
        run = conduct(prepare(folder / "space.yaml", overrides=overrides))
        for news in run:
            assert not getattr(news, "error", "")
        assert not (folder / "studies" / "mine" / ".features").exists()

    def test_a_disk_without_room_for_the_features_is_told_in_one_line(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
            with pytest.raises(StorageError, match=r"the network's frozen part need 0\.0 GB and 0\.0 GB are free"):
                tune(folder / "space.yaml", overrides={"model.unfrozen": 1})
        study = tune(folder / "space.yaml", overrides={"model.unfrozen": 1})
        assert study.document["trials"]["failed"] == 0, "the trial that found no room is run again"

    def test_a_network_whose_backbone_was_changed_is_refused(self, folder: Path) -> None:
        tune(folder / "space.yaml", trials=1)
        write_backbone(folder / "bert", seed=1)
        with pytest.raises(DataError, match="was trained on another bert"):
            load_best("mine").load_model()

    def test_too_many_unfrozen_blocks_are_told_before_anything_is_written(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"model.unfrozen: 4 is more than the blocks of bert; 0 to 3"):
            tune(folder / "space.yaml", overrides={"model.unfrozen": 4})
        assert not (folder / "studies").exists()
