"""Pretrained networks: what is frozen stays as it was, what is trained is the rest, and inputs mean what they meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_files import LAYERS, LONGEST, UNITS, WORDS, tensors, write_backbone
from torch import Tensor

from tuner.backbones import find_backbone
from tuner.config import RunConfig
from tuner.data.splits import Shape, Standard
from tuner.errors import DataError, UsageError
from tuner.models import build_model, count_parameters, decays, unfrozen
from tuner.models.frozen import has_fast_bfloat16
from tuner.models.pretrained import Transfer

torch.set_num_threads(1)

TEXTS = Shape("text", "classification", (LONGEST,), 3, vocabulary=WORDS)
PICTURES = Shape("image", "classification", (3, 20, 24), 4)


@pytest.fixture(autouse=True)
def _same_pixels() -> None:
    torch.manual_seed(0)


def configure(folder: Path | None = None, **changes: object) -> RunConfig:
    model = {"family": "pretrained", "width": 8, "depth": 1, "resolution": 64}
    config = RunConfig.model_validate({"data": {"source": "made"}, "model": model})
    if folder is not None:
        changes["model__backbone"] = str(folder)
    return config.replace({name.replace("__", "."): value for name, value in changes.items()})


def texts(n: int = 9, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    x = np.zeros((n, LONGEST), dtype=np.int64)
    for row, length in enumerate(rng.integers(1, LONGEST + 1, n)):
        x[row, :length] = rng.integers(1, WORDS, length)
    return torch.from_numpy(x)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_backbone(tmp_path / "bert")


def transfer(config: RunConfig, shape: Shape = TEXTS, standard: Standard | None = None) -> Transfer:
    model = build_model(config, shape, None, standard)
    assert isinstance(model, Transfer)
    return model


def of_images(config: RunConfig, shape: Shape = PICTURES, standard: Standard | None = None) -> Transfer:
    try:
        find_backbone("auto", "image")
    except UsageError as error:
        pytest.skip(f"NOT TESTED: {error}")
    return transfer(config, shape, standard)


def plain_bert(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """BERT as the paper has it, one text at a time, without padding: the mean of its last states."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.nn.functional.layer_norm(
            x, (UNITS,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12
        )

    found = []
    for row in x:
        words = row[row != 0]
        emb = "embeddings.{}_embeddings.weight".format
        states = weights[emb("word")][words] + weights[emb("position")][: len(words)] + weights[emb("token_type")][0]
        states = norm(states, "embeddings.LayerNorm")
        for number in range(LAYERS):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                linear(states, f"{layer}.attention.self.{name}").view(len(words), 4, UNITS // 4).transpose(0, 1)
                for name in ("query", "key", "value")
            )
            seen = (query @ key.transpose(1, 2) / (UNITS // 4) ** 0.5).softmax(-1) @ value
            out = linear(seen.transpose(0, 1).reshape(len(words), UNITS), f"{layer}.attention.output.dense")
            states = norm(states + out, f"{layer}.attention.output.LayerNorm")
            inner = torch.nn.functional.gelu(linear(states, f"{layer}.intermediate.dense"))
            states = norm(states + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        found.append(states.mean(0))
    return torch.stack(found)


class TestTexts:
    @pytest.mark.parametrize("blocks", range(LAYERS + 1))
    def test_frozen_or_not_the_blocks_compute_what_bert_does(self, folder: Path, blocks: int) -> None:
        model = transfer(configure(folder, model__unfrozen=blocks)).eval()
        features = model.front(texts()).float()
        with torch.no_grad():
            pooled = features if model.tail.blocks is None else model.tail.blocks(features)
        assert torch.allclose(pooled, plain_bert(texts(), tensors()), atol=0.05 if has_fast_bfloat16() else 5e-3)

    def test_minilm_gives_the_numbers_of_the_original(self) -> None:
        try:
            find_backbone("minilm", "text")
        except UsageError as error:
            pytest.skip(f"NOT TESTED: {error}")
        x = torch.tensor([[101, 7592, 2088, 102, 0, 0], [101, 2129, 2116, 2111, 102, 0]])
        found = transfer(configure(), Shape("text", "classification", (6,), 2, vocabulary=30522)).front(x)
        # by transformers 5.23's AutoModel, mean over the tokens
        assert found[0, :5].tolist() == pytest.approx([-0.1974, 0.1777, 0.0386, 0.1495, -0.2254], abs=0.01)
        assert found[1, :5].tolist() == pytest.approx([0.3399, -0.2385, -0.1075, 0.0487, -0.6078], abs=0.01)

    @pytest.mark.parametrize("blocks", [0, 2])
    def test_padding_and_the_other_texts_of_a_batch_change_nothing(self, folder: Path, blocks: int) -> None:
        model, x = transfer(configure(folder, model__unfrozen=blocks)).eval(), texts()
        with torch.no_grad():
            alone = torch.cat([model(row[None]) for row in x])
            assert torch.allclose(model(x), alone, atol=0.02)

    def test_features_are_zero_at_padding_alone(self, folder: Path) -> None:
        x = texts()
        features = transfer(configure(folder, model__unfrozen=1)).front(x)
        assert features.dtype == torch.float16
        assert torch.equal((features != 0).any(2), x != 0)

    def test_tokens_of_another_vocabulary_are_refused_with_the_setting(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"data.tokens: .* knows 40 tokens of its own .* set data.tokens"):
            transfer(configure(folder), Shape("text", "classification", (4,), 2, vocabulary=41))

    def test_a_text_longer_than_the_backbone_takes_is_refused_with_the_most(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"data.length: .* takes up to 12 tokens, not 13"):
            transfer(configure(folder), Shape("text", "classification", (13,), 2, vocabulary=WORDS))

    def test_a_file_without_the_tensors_it_should_have_is_told(self, tmp_path: Path) -> None:
        write_backbone(tmp_path, num_hidden_layers=5)
        with pytest.raises(DataError, match=r"doesn't hold what its config.json says"):
            transfer(configure(tmp_path))

    def test_more_unfrozen_blocks_than_there_are_is_refused(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"model.unfrozen: 4 is more .* 0 to 3"):
            transfer(configure(folder, model__unfrozen=4))


class TestImages:
    def test_the_frozen_part_gives_the_numbers_of_the_original(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tuner.models.frozen.has_fast_bfloat16", lambda: False)
        y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
        picture = torch.stack((x, y, x * y))[None]
        found = of_images(configure(), Shape("image", "classification", (3, 64, 64), 2)).front(picture)[0].float()
        # by efficientnet-lite-pytorch 0.1.0, mean over the places
        original = {2: 2.5478, 17: 3.6308, 49: 1.6672, 66: 2.1289, 72: 3.317, 82: 2.2693, 106: 3.7653, 110: 2.8098}
        assert {i: found[i].item() for i in original} == pytest.approx(original, abs=2e-3)
        assert found.mean().item() == pytest.approx(0.4489, abs=1e-3)

    @pytest.mark.parametrize("blocks", [1, 3, 16])
    def test_unfrozen_blocks_start_as_they_were_frozen(self, blocks: int) -> None:
        x = torch.rand(2, 3, 20, 24)
        whole, cut = of_images(configure()), of_images(configure(model__unfrozen=blocks))
        assert cut.front(x).shape[1:] == cut.front.shape
        assert cut.tail.blocks is not None
        with torch.no_grad():
            assert torch.allclose(cut.tail.blocks(cut.front(x).float()), whole.front(x).float(), atol=0.15)

    def test_standardized_pictures_are_seen_as_they_were(self) -> None:
        pixels = torch.rand(2, 3, 20, 24)
        standard = Standard(1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
        center, scale = (torch.tensor(each).view(-1, 1, 1) for each in (standard.center, standard.scale))
        plain, told = of_images(configure()), of_images(configure(), standard=standard)
        wanted, standardized = plain.front(pixels).float(), (pixels - center) / scale
        # bfloat16 rounds features of up to 6 by as much as a tenth
        assert torch.allclose(told.front(standardized).float(), wanted, atol=0.2)
        assert not torch.allclose(plain.front(standardized).float(), wanted, atol=0.2)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_gray_is_three_equal_channels_and_a_fourth_is_left_out(self, channels: int) -> None:
        x = torch.rand(2, channels, 20, 24)
        colors = x.expand(-1, 3, -1, -1) if channels == 1 else x[:, :3]
        shape = Shape("image", "classification", (channels, 20, 24), 4)
        assert torch.equal(of_images(configure(), shape).front(x), of_images(configure()).front(colors.contiguous()))

    def test_a_batch_in_parts_is_the_batch(self) -> None:
        model, x = of_images(configure(model__unfrozen=1)).eval(), torch.rand(40, 3, 20, 24)
        with torch.no_grad():
            assert torch.allclose(model(x), torch.cat([model(x[:7]), model(x[7:])]), atol=0.02)


class TestTail:
    def test_its_state_is_what_is_trained_and_nothing_of_the_front(self, folder: Path) -> None:
        model = transfer(configure(folder, model__unfrozen=1))
        assert model.state_dict().keys() == model.tail.state_dict().keys()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert [id(one) for one in trainable] == [id(one) for one in model.tail.parameters()]
        assert count_parameters(model) == sum(each.numel() for each in model.tail.state_dict().values())
        other = transfer(configure(folder, model__unfrozen=1))
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(other.eval()(texts()), model.eval()(texts()))

    @pytest.mark.parametrize("blocks", [0, 2])
    def test_training_changes_the_tail_and_never_the_files_weights(self, folder: Path, blocks: int) -> None:
        model = transfer(configure(folder, model__unfrozen=blocks))
        before = copy.deepcopy(model.front.state_dict())
        fresh = transfer(configure(folder, model__unfrozen=blocks)).tail.blocks
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model.train()(texts()).square().sum().backward()
        assert all(each.grad is not None and each.grad.any() for each in model.tail.parameters() if each.ndim > 1)
        optimizer.step()
        assert all(torch.equal(model.front.state_dict()[name], value) for name, value in before.items())
        again = transfer(configure(folder, model__unfrozen=blocks)).tail.blocks
        if fresh is not None and again is not None:
            assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))

    def test_no_penalty_acts_on_unfrozen_blocks(self, folder: Path) -> None:
        model = transfer(configure(folder, model__unfrozen=1, model__depth=2))
        shrunk, others = decays(model)
        assert [id(one) for one in shrunk] == [id(one) for one in model.tail.head.parameters() if one.ndim == 2]
        assert {id(one) for one in unfrozen(model)} <= {id(one) for one in others}
        assert model.tail.blocks is not None
        assert len(unfrozen(model)) == len(list(model.tail.blocks.parameters()))

    @pytest.mark.parametrize(
        ("depth", "sizes"), [(1, [(3, 16)]), (2, [(8, 16), (3, 8)]), (3, [(8, 16), (8, 8), (3, 8)])]
    )
    def test_depth_counts_the_layers_of_the_head(self, folder: Path, depth: int, sizes: list[Any]) -> None:
        head = transfer(configure(folder, model__depth=depth, model__normalization="batch")).tail.head
        assert [tuple(one.weight.shape) for one in head if isinstance(one, torch.nn.Linear)] == sizes
        assert sum(isinstance(one, torch.nn.BatchNorm1d) for one in head) == depth - 1

    def test_a_seed_gives_the_same_head_whatever_was_built_before(self, folder: Path) -> None:
        heads = []
        for blocks in (0, 2, 0):
            torch.manual_seed(3)
            heads.append(transfer(configure(folder, model__unfrozen=blocks)).tail.head[-1].weight)
        assert torch.equal(heads[0], heads[1])
        assert torch.equal(heads[0], heads[2])
