"""The contract of every model family, over the whole dict."""

from __future__ import annotations

from importlib import import_module
from itertools import combinations, pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tuner.config import FAMILIES, RunConfig
from tuner.data.splits import Shape
from tuner.errors import UsageError
from tuner.models import build_model, count_parameters, decays

torch.set_num_threads(1)

IMAGES = [(1, 1, 1), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 5, 9), (1, 1, 7)]
TABLES = [((1,), ()), ((4,), ()), ((1,), (3,)), ((3,), (2, 5, 2)), ((6,), (1, 40, 5))]
SEQUENCES = [((1, 1), False), ((20, 1), False), ((9, 3), False), ((1, 2), True), ((12, 3), True)]
TEXTS = [((1,), 2), ((12,), 30), ((25,), 10)]
NORMALIZATIONS = ("none", "batch", "layer")

SHAPES = {
    **{f"image {'x'.join(map(str, size))}": Shape("image", "classification", size, 4) for size in IMAGES},
    **{f"table {size[0]}, {codes}": Shape("table", "classification", size, 3, codes) for size, codes in TABLES},
    **{
        f"sequence {'x'.join(map(str, size))}{', masked' * masked}": Shape(
            "sequence", "classification", size, 4, masked=masked
        )
        for size, masked in SEQUENCES
    },
    **{f"text {size[0]}": Shape("text", "classification", size, 4, vocabulary=known) for size, known in TEXTS},
    "table regression": Shape("table", "regression", (5,), 1, (4,)),
    "image regression": Shape("image", "regression", (1, 8, 8), 1),
    "sequence regression": Shape("sequence", "regression", (6, 2), 1),
    "text regression": Shape("text", "regression", (6,), 1, vocabulary=9),
}
DIGITS = SHAPES["image 1x8x8"]
LENGTHS = SHAPES["sequence 12x3, masked"]
WORDS = SHAPES["text 12"]
TYPICAL = {"table": SHAPES["table 3, (2, 5, 2)"], "image": DIGITS, "sequence": LENGTHS, "text": WORDS}
SIZED = [*TYPICAL.values(), SHAPES["image 1x28x28"], SHAPES["image 3x32x32"]]


def configure(family: str, **changes: object) -> RunConfig:
    config = RunConfig.model_validate({"data": {"source": "sklearn:digits"}, "model": {"family": family, "width": 16}})
    return config.replace({name.replace("__", "."): value for name, value in changes.items()})


def examples(shape: Shape, n: int = 8) -> torch.Tensor:
    """Return what a model is given; of texts and masked sequences the first example has the full length."""
    generator = torch.Generator().manual_seed(0)
    if shape.kind == "text":
        return padded(torch.randint(1, shape.vocabulary, (n, *shape.input), generator=generator), generator)
    x = torch.randn(n, *shape.input, generator=generator)
    for i, cardinality in enumerate(reversed(shape.cardinalities), 1):
        x[:, -i] = torch.randint(cardinality, (n,), generator=generator).float()
    if not shape.masked:
        return x
    x[:, :, -1] = 1
    return padded(x, generator)


def padded(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    lengths = torch.randint(1, x.shape[1] + 1, (len(x),), generator=generator)
    lengths[0] = x.shape[1]
    there = torch.arange(x.shape[1]) < lengths[:, None]
    return x * (there if x.ndim == 2 else there[:, :, None])


def weights(config: RunConfig, shape: Shape, seed: int) -> dict[str, bytes]:
    torch.manual_seed(seed)
    return {name: value.numpy().tobytes() for name, value in build_model(config, shape).state_dict().items()}


def pairs(found: dict[str, tuple[str, Shape]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("family", "shape"), found.values(), ids=found)


BUILT = tuple(family for family in FAMILIES if family != "pretrained")  # which needs weights that others trained
ALL = {
    f"{family}, {name}": (family, shape)
    for family in BUILT
    for name, shape in SHAPES.items()
    if shape.kind in FAMILIES[family].kinds
}
ONE_STEP = {name for name, (_, shape) in ALL.items() if shape.kind in ("sequence", "text") and shape.input[0] == 1}
PADDED = {
    name: (family, shape)
    for name, (family, shape) in ALL.items()
    if family != "mlp" and (shape.masked or shape.kind == "text")
}
everywhere = pairs(ALL)
each = pairs({f"{family}, {kind}": (family, TYPICAL[kind]) for family in BUILT for kind in FAMILIES[family].kinds})
normalized = pytest.mark.parametrize("normalization", NORMALIZATIONS)


def test_each_family_is_a_function_of_its_name_in_a_file_of_its_name():
    for family in FAMILIES:
        made = getattr(import_module(f"tuner.models.{family}"), family)
        assert made.__module__ == f"tuner.models.{family}"


def test_the_keys_that_families_have_of_their_own_are_keys_of_a_space():
    known = RunConfig.model_validate({"data": {"source": "x.csv"}}).flat()
    assert {key for family in FAMILIES.values() for key in family.keys} <= known.keys()


@normalized
@pairs({name: pair for name, pair in ALL.items() if name not in ONE_STEP})  # whose order teaches nothing
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


@normalized
@everywhere
def test_what_a_row_gives_does_not_depend_on_its_neighbours(family, shape, normalization):
    model = build_model(configure(family, model__normalization=normalization), shape)
    x = examples(shape)
    model(x)  # moves the running averages of batch normalization
    model.eval()
    alone = torch.cat([model(row[None]) for row in x])
    assert torch.allclose(model(x), alone, rtol=0, atol=1e-5)


@normalized
@pairs(PADDED)
def test_more_padding_changes_nothing(family, shape, normalization):
    model = build_model(configure(family, model__normalization=normalization), shape)
    x = examples(shape)
    model(x)
    model.eval()
    for more in (1, 7):
        longer = torch.cat((x, x.new_zeros(len(x), more, *x.shape[2:])), 1)
        assert torch.allclose(model(x), model(longer), rtol=0, atol=1e-5)


@each
def test_dropout_acts_while_training_only(family, shape):
    torch.manual_seed(0)
    model = build_model(configure(family, regularization__dropout=0.5), shape)
    x = examples(shape)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@each
def test_without_dropout_there_is_no_layer_for_it_and_nothing_is_drawn(family, shape):
    model = build_model(configure(family, regularization__dropout=0.0), shape)
    assert not [module for module in model.modules() if "Dropout" in type(module).__name__]
    before = torch.get_rng_state()
    model(examples(shape))
    assert torch.equal(torch.get_rng_state(), before)


@each
def test_dropout_leaves_the_weights_a_seed_gives_as_they_are(family, shape):
    plain, dropping = configure(family), configure(family, regularization__dropout=0.4)
    assert list(weights(plain, shape, 1).values()) == list(weights(dropping, shape, 1).values())


@each
def test_normalization_has_an_effect(family, shape):
    x, outputs = examples(shape), []
    for normalization in NORMALIZATIONS:
        torch.manual_seed(0)
        outputs.append(build_model(configure(family, model__normalization=normalization), shape)(x))
    assert not any(torch.allclose(first, second) for first, second in combinations(outputs, 2))


@normalized
@pairs({name: pair for name, pair in ALL.items() if pair[1] in SIZED})
@pytest.mark.parametrize(("key", "values"), [("width", [4, 8, 16, 32]), ("depth", [1, 2, 3, 4, 5])])
def test_a_wider_or_deeper_network_has_more_parameters(family, normalization, shape, key, values):
    configs = [configure(family, model__normalization=normalization, **{f"model__{key}": value}) for value in values]
    counts = [count_parameters(build_model(config, shape)) for config in configs]
    assert all(fewer < more for fewer, more in pairwise(counts)), counts


@everywhere
def test_the_deepest_network_a_space_allows_is_built_and_runs(family, shape):
    model = build_model(configure(family, model__depth=32, model__width=2), shape)
    output = model(examples(shape))
    assert output.shape == (8, shape.outputs)
    assert output.isfinite().all()


@normalized
@each
def test_weights_go_through_safetensors_and_back(family, shape, normalization, tmp_path):
    config = configure(family, model__normalization=normalization)
    first, second = build_model(config, shape), build_model(config, shape)
    first(examples(shape))  # moves the running averages of batch normalization
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = examples(shape)
    assert torch.equal(first.eval()(x), second.eval()(x))


SHRUNK = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.RNNBase, nn.MultiheadAttention)


@normalized
@each
def test_decay_spares_biases_normalizations_and_embeddings_and_forgets_no_parameter(family, shape, normalization):
    model = build_model(configure(family, model__normalization=normalization), shape)
    shrunk, spared = decays(model)
    assert sorted(map(id, shrunk + spared)) == sorted(map(id, model.parameters()))
    layers = [module for module in model.modules() if isinstance(module, SHRUNK)]
    expected = [p for layer in layers for p in layer.parameters(recurse=False) if p.ndim >= 2]
    assert list(map(id, shrunk)) == list(map(id, expected))


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
@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet", "conv1d"])
def test_a_convolution_or_linear_layer_has_no_bias_under_batch_normalization_only(family, normalization):
    shape = TYPICAL[FAMILIES[family].kinds[-1]]
    model = build_model(configure(family, model__normalization=normalization), shape)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    *hidden, head = [module for module in model.modules() if isinstance(module, kinds)]
    assert [layer.bias is None for layer in hidden] == [normalization == "batch"] * len(hidden)
    assert head.bias is not None


@normalized
@pytest.mark.parametrize("family", ["cnn", "resnet"])
def test_a_network_for_images_stays_in_channels_last(family, normalization):
    shape = SHAPES["image 3x32x32"]
    model = build_model(configure(family, model__normalization=normalization, regularization__dropout=0.2), shape)
    model = model.to(memory_format=torch.channels_last)
    formats = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.ReLU)):
            module.register_forward_hook(
                lambda _module, _x, y: formats.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(examples(shape).to(memory_format=torch.channels_last))
    assert formats
    assert all(formats)


@pytest.mark.parametrize("size", [(3, 224, 224), (1, 65, 20), (1, 3, 300)], ids=str)
def test_a_resnet_brings_large_pictures_down_before_its_first_block(size):
    shape = Shape("image", "classification", size, 4)
    model = build_model(configure("resnet", model__width=2), shape).eval()
    x = examples(shape, 2)
    for layer in model:
        if hasattr(layer, "branch"):
            break
        x = layer(x)
    assert max(x.shape[2:]) <= 16
    assert model(examples(shape, 2)).shape == (2, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_refuses_other_kinds_of_data_and_says_what_takes_them(family):
    for kind in TYPICAL:
        if kind not in FAMILIES[family].kinds:
            with pytest.raises(UsageError) as caught:
                build_model(configure(family), TYPICAL[kind])
            refusal, _, allowed = str(caught.value).partition(f" data and these are of kind {kind}; one of ")
            assert refusal == f"model.family: {family} takes {' and '.join(FAMILIES[family].kinds)}"
            others = [name for name in FAMILIES if kind in FAMILIES[name].kinds]
            assert allowed == ", ".join([*others, "auto", "or module:attr"])


def test_an_unknown_family_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"'mpl' \(did you mean 'mlp'\?\); one of mlp, cnn"):
        build_model(configure("mpl"), DIGITS)


@normalized
@each
def test_each_family_can_be_trained_in_bfloat16(family, shape, normalization):
    torch.manual_seed(0)
    model = build_model(configure(family, model__normalization=normalization, regularization__dropout=0.2), shape)
    x = examples(shape)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    output.float().square().sum().backward()
    assert output.shape == (len(x), shape.outputs)
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        exact = model.eval()(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x).float()
    assert torch.allclose(exact, rough, atol=0.1 * max(1.0, float(exact.abs().max())))
