"""The contract of every model family, over the whole dict."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tuner.config import FAMILIES, RunConfig
from tuner.data.splits import Shape
from tuner.errors import UsageError
from tuner.models import MODELS, build_model, count_parameters, decays

torch.set_num_threads(1)

IMAGES = [(1, 1, 1), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 5, 9), (1, 1, 7)]
TABLES = [((1,), ()), ((4,), ()), ((1,), (3,)), ((3,), (2, 5, 2)), ((6,), (1, 40, 5))]
NORMALIZATIONS = ("none", "batch", "layer")

SHAPES = {
    **{f"image {'x'.join(map(str, size))}": Shape("image", "classification", size, 4) for size in IMAGES},
    **{f"table {size[0]}, {codes}": Shape("table", "classification", size, 3, codes) for size, codes in TABLES},
    "regression": Shape("table", "regression", (5,), 1, (4,)),
    "image regression": Shape("image", "regression", (1, 8, 8), 1),
}


def configure(family: str, **changes: object) -> RunConfig:
    config = RunConfig.model_validate({"data": {"source": "sklearn:digits"}, "model": {"family": family, "width": 16}})
    return config.replace({name.replace("__", "."): value for name, value in changes.items()})


def examples(shape: Shape, n: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape.input, generator=generator)
    for i, cardinality in enumerate(reversed(shape.cardinalities), 1):
        x[:, -i] = torch.randint(cardinality, (n,), generator=generator).float()
    return x


def weights(config: RunConfig, shape: Shape, seed: int) -> dict[str, bytes]:
    torch.manual_seed(seed)
    return {name: value.numpy().tobytes() for name, value in build_model(config, shape).state_dict().items()}


PAIRS = [
    pytest.param(family, shape, id=f"{family}, {name}")
    for family in MODELS
    for name, shape in SHAPES.items()
    if family == "mlp" or shape.kind == "image"
]
everywhere = pytest.mark.parametrize(("family", "shape"), PAIRS)
normalized = pytest.mark.parametrize("normalization", NORMALIZATIONS)
each = pytest.mark.parametrize("family", MODELS)
DIGITS = SHAPES["image 1x8x8"]


def test_the_families_are_those_a_space_may_name():
    assert tuple(MODELS) == FAMILIES


@normalized
@everywhere
def test_every_parameter_gets_a_gradient(family, shape, normalization):
    torch.manual_seed(0)
    model = build_model(configure(family, model__normalization=normalization, model__depth=3), shape)
    output = model(examples(shape))
    (output - torch.randn(output.shape)).square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert dead == []
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


@normalized
@everywhere
def test_the_output_is_one_row_of_floats_an_example_even_for_a_batch_of_one(family, shape, normalization):
    model = build_model(configure(family, model__normalization=normalization), shape).eval()
    for n in (1, 2, 7):
        output = model(examples(shape, n))
        assert output.shape == (n, shape.outputs)
        assert output.dtype == torch.float32
        assert output.isfinite().all()


@everywhere
def test_the_same_seed_gives_the_same_weights_to_the_byte(family, shape):
    config = configure(family, model__normalization="batch")
    assert weights(config, shape, seed=3) == weights(config, shape, seed=3)
    assert weights(config, shape, seed=3) != weights(config, shape, seed=4)


@each
def test_dropout_acts_while_training_only(family):
    torch.manual_seed(0)
    model = build_model(configure(family, regularization__dropout=0.5), DIGITS)
    x = examples(DIGITS)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@each
def test_without_dropout_there_is_no_layer_for_it_and_nothing_is_drawn(family):
    model = build_model(configure(family, regularization__dropout=0.0), DIGITS)
    assert not [module for module in model.modules() if "Dropout" in type(module).__name__]
    before = torch.get_rng_state()
    model(examples(DIGITS))
    assert torch.equal(torch.get_rng_state(), before)


@each
def test_dropout_leaves_the_weights_a_seed_gives_as_they_are(family):
    plain, dropping = configure(family), configure(family, regularization__dropout=0.4)
    assert list(weights(plain, DIGITS, 1).values()) == list(weights(dropping, DIGITS, 1).values())


@normalized
@each
@pytest.mark.parametrize("shape", [DIGITS, SHAPES["image 1x28x28"], SHAPES["image 3x32x32"]], ids=str)
@pytest.mark.parametrize(("key", "values"), [("width", [4, 8, 16, 32]), ("depth", [1, 2, 3, 4, 5])])
def test_a_wider_or_deeper_network_has_more_parameters(family, normalization, shape, key, values):
    configs = [configure(family, model__normalization=normalization, **{f"model__{key}": value}) for value in values]
    counts = [count_parameters(build_model(config, shape)) for config in configs]
    assert all(fewer < more for fewer, more in pairwise(counts)), counts


@each
@pytest.mark.parametrize("shape", [SHAPES["image 1x1x1"], SHAPES["image 1x28x28"]], ids=str)
def test_the_deepest_network_a_space_allows_is_built_and_runs(family, shape):
    model = build_model(configure(family, model__depth=32, model__width=2), shape).eval()
    assert model(examples(shape)).shape == (8, shape.outputs)


@normalized
@everywhere
def test_weights_go_through_safetensors_and_back(family, shape, normalization, tmp_path):
    config = configure(family, model__normalization=normalization)
    first, second = build_model(config, shape), build_model(config, shape)
    first(examples(shape))  # moves the running averages of batch normalization
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = examples(shape)
    assert torch.equal(first.eval()(x), second.eval()(x))


@normalized
@everywhere
def test_decay_spares_biases_normalizations_and_embeddings_and_forgets_no_parameter(family, shape, normalization):
    model = build_model(configure(family, model__normalization=normalization), shape)
    shrunk, spared = decays(model)
    assert sorted(map(id, shrunk + spared)) == sorted(map(id, model.parameters()))
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    assert list(map(id, shrunk)) == [id(layer.weight) for layer in layers]


def test_decay_spares_a_normalization_with_a_matrix_a_tied_embedding_and_what_is_frozen():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm, self.out = nn.Embedding(5, 3), nn.LayerNorm((2, 3)), nn.Linear(3, 5)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)
            self.free = nn.Linear(3, 3)
            self.out.weight = self.words.weight

    model = Tied()
    shrunk, spared = decays(model)
    assert list(map(id, shrunk)) == [id(model.free.weight)]
    assert len(spared) == 5
    assert count_parameters(model) == 15 + 6 + 6 + 5 + 9 + 3


@normalized
def test_a_convolution_or_linear_layer_has_no_bias_under_batch_normalization_only(normalization):
    for family in MODELS:
        model = build_model(configure(family, model__normalization=normalization), DIGITS)
        *hidden, head = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        assert [layer.bias is None for layer in hidden] == [normalization == "batch"] * len(hidden)
        assert head.bias is not None


@normalized
def test_a_cnn_stays_in_channels_last(normalization):
    model = build_model(configure("cnn", model__normalization=normalization, regularization__dropout=0.2), DIGITS)
    model = model.to(memory_format=torch.channels_last)
    formats = []
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.ReLU)):
            module.register_forward_hook(
                lambda _module, _x, y: formats.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(examples(DIGITS).to(memory_format=torch.channels_last))
    assert formats
    assert all(formats)


def test_a_cnn_refuses_a_table_and_says_what_takes_one():
    with pytest.raises(UsageError, match=r"cnn is for images, the data are a table; allowed: mlp, module:attr"):
        build_model(configure("cnn"), SHAPES["regression"])


def test_an_unknown_family_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"'mpl' \(did you mean 'mlp'\?\); one of mlp, cnn, or module:attr"):
        build_model(configure("mpl"), DIGITS)
