"""What the families for texts promise beyond the contract of all, and the transformer for sequences too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tuner.config import RunConfig
from tuner.data.splits import Shape
from tuner.models import build_model
from tuner.models.bag import FACTOR, places
from tuner.models.textcnn import kernels
from tuner.models.tokens import embedding
from tuner.models.transformer import waves

torch.set_num_threads(1)

TEXTS = Shape("text", "classification", (12,), 2, vocabulary=30)
FAMILIES = ("textcnn", "bag", "transformer")
each = pytest.mark.parametrize("family", FAMILIES)


def configure(family: str, **changes: object) -> RunConfig:
    config = RunConfig.model_validate({"data": {"source": "sklearn:digits"}, "model": {"family": family, "width": 16}})
    return config.replace({f"model.{name}": value for name, value in changes.items()})


def build(family: str, shape: Shape = TEXTS, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(configure(family, **changes), shape).eval()


def texts(n: int = 64, longest: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (n, 1), generator=generator)
    return torch.randint(1, 30, (n, longest), generator=generator) * (torch.arange(longest) < lengths)


@each
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
def test_a_network_learns_which_of_two_tokens_comes_first(family, normalization):
    x = texts(128).clamp(max=27)
    x[:, 2:][x[:, 2:] == 0] = 3
    y = torch.arange(128) % 2
    starts = torch.randint(2, 10, (128,), generator=torch.Generator().manual_seed(1))
    x[torch.arange(128), starts], x[torch.arange(128), starts + 1] = 28 + y, 29 - y
    model = build(family, normalization=normalization, heads=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.95


@each
def test_the_vector_of_padding_stays_zero_while_others_are_learned(family):
    model = build(family).train()
    table = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    before = table.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(texts()).square().sum().backward()
    optimizer.step()
    assert not table.weight[0].any()
    assert (table.weight[1:] != before[1:]).any(1).all()


@each
def test_a_text_longer_than_any_in_training_is_taken(family):
    assert build(family)(texts(longest=40)).isfinite().all()


@each
def test_a_text_of_one_token_beside_others_of_one_is_taken_and_trains(family):
    model = build(family).train()
    model(torch.tensor([[4, 0, 0], [7, 0, 0]])).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_vectors_of_tokens_start_small_and_that_of_padding_at_zero():
    torch.manual_seed(0)
    table = embedding(2000, 50).weight
    assert table[1:].std().item() == pytest.approx(0.1, rel=0.02)
    assert not table[0].any()
    assert embedding(20, 5, padding=None).weight[0].any()


@pytest.mark.parametrize(
    ("widest", "found"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [3, 4, 5]), (63, [61, 62, 63])]
)
def test_a_textcnn_has_three_widths_of_convolutions_none_below_a_token(widest, found):
    assert kernels(widest) == found
    model = build("textcnn", kernel=widest)
    assert [m.kernel_size[0] for m in model.modules() if isinstance(m, nn.Conv1d)] == found
    assert model(texts()).isfinite().all()


def test_a_textcnn_finds_a_run_of_tokens_wherever_it_stands():
    model = build("textcnn", kernel=3)
    x = torch.full((2, 12), 9)
    x[0, 2:5] = x[1, 6:9] = torch.tensor([4, 5, 6])
    one, other = model(x)
    assert torch.allclose(one, other, atol=1e-6)
    x[1, 6:9] = torch.tensor([6, 5, 4])
    assert not torch.allclose(*model(x), atol=1e-6)


def test_of_a_textcnn_of_single_tokens_the_order_is_lost():
    model, x = build("textcnn", kernel=1), torch.randint(1, 30, (8, 12))
    assert torch.allclose(model(x), model(x.flip(1)), atol=1e-6)


def test_a_bag_knows_of_the_order_what_pairs_tell():
    model = build("bag")
    same_pairs = torch.tensor([[3, 4, 5, 3, 6, 3], [3, 6, 3, 4, 5, 3]])
    assert torch.allclose(*model(same_pairs), atol=1e-6)
    other_pairs = torch.tensor([[3, 4, 5, 3, 6, 3], [3, 5, 4, 3, 6, 3]])
    assert not torch.allclose(*model(other_pairs), atol=1e-6)


@pytest.mark.parametrize(("vocabulary", "size"), [(2, 4), (10, 128), (128, 2**14), (20_000, 2**14), (10**6, 2**14)])
def test_a_bags_table_of_pairs_holds_all_of_a_small_vocabulary_and_is_bounded(vocabulary, size):
    assert places(vocabulary) == size
    shape = Shape("text", "classification", (3,), 2, vocabulary=vocabulary)
    highest = torch.tensor([[vocabulary - 1] * 3, [1, vocabulary - 1, 0]])
    assert build("bag", shape, width=2, embedding=2)(highest).isfinite().all()


def test_a_bag_of_depth_one_is_linear_behind_the_pooling():
    assert len([m for m in build("bag", depth=1).modules() if isinstance(m, nn.Linear)]) == 1


@pytest.mark.parametrize(("width", "heads", "found"), [(16, 4, 16), (16, 3, 18), (1, 4, 4), (5, 1, 5), (2, 64, 64)])
def test_a_transformers_width_is_rounded_up_to_a_multiple_of_its_heads(width, heads, found):
    model = build("transformer", width=width, heads=heads)
    assert next(m for m in model.modules() if isinstance(m, nn.Embedding)).embedding_dim == found
    assert model(texts()).isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
def test_a_transformer_sees_the_order_of_steps(masked):
    x = torch.randn(8, 9, 3)
    x[:, :, -1] = 1
    model = build("transformer", Shape("sequence", "classification", (9, 3), 2, masked=masked))
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-4)


@pytest.mark.parametrize("units", [1, 2, 7, 64])
def test_every_place_has_a_wave_of_its_own_that_no_longer_text_changes(units):
    short, long = waves(50, units), waves(2000, units)
    assert short.shape == (50, units)
    assert torch.equal(short, long[:50])
    assert long.abs().max() <= 1
    assert len(set(map(tuple, short.tolist()))) == 50


def test_padding_has_no_part_in_a_transformers_batch_normalization():
    running = []
    for more in (0, 20):
        model = build("transformer", normalization="batch").train()
        x = torch.cat((texts(), torch.zeros(64, more, dtype=torch.int64)), 1)
        x = torch.cat((x, torch.zeros(1, x.shape[1], dtype=torch.int64)))
        x[-1] = torch.tensor([5] * 12 + [0] * more)
        model(x)
        running.append([buffer for name, buffer in model.named_buffers() if "running" in name])
    assert running[0]
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*running, strict=True))


@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
def test_a_deep_transformer_neither_explodes_nor_falls_silent(normalization):
    model = build("transformer", depth=32, normalization=normalization).train()
    output = model(texts())
    output.square().mean().backward()
    first = model.blocks[0].queries_keys_values.weight.grad
    last = model.blocks[-1].queries_keys_values.weight.grad
    assert 1e-3 < output.std() < 10
    assert 1e-3 < first.norm() / last.norm() < 1e3


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 8])
def test_a_textcnn_finds_what_convolutions_over_padded_texts_find(kernel):
    network = build("textcnn", kernel=kernel)
    x = texts()
    vectors, padding = network.embedding(x).transpose(1, 2), (x == 0)[:, None]
    found = []
    for convolution in network.convolutions:
        beyond = convolution.kernel_size[0] - 1
        values = convolution(torch.nn.functional.pad(vectors, (beyond // 2, beyond - beyond // 2)))
        found.append(values.masked_fill(padding, -torch.inf).amax(2))
    assert torch.allclose(network(x), network.head(torch.cat(found, 1)), atol=1e-5)


def test_a_bag_pools_the_tokens_and_the_pairs_that_are_there():
    network = build("bag")
    x = texts()
    rows = []
    for text in x:
        text = text[text != 0]
        tokens = network.tokens.weight[text]
        places = (text[:-1] * FACTOR + text[1:]) % network.pairs.num_embeddings
        pairs = network.pairs.weight[places]
        mean = pairs.mean(0) if len(pairs) else torch.zeros(pairs.shape[1])
        rows.append(torch.cat((tokens.mean(0), tokens.amax(0), mean)))
    assert torch.allclose(network(x), network.head(torch.stack(rows)), atol=1e-5)
