"""A BERT-like text encoder (Devlin et al. 2019) from a safetensors file: MiniLM, or one of the user's own.

Decides how its layers are computed: the sums that run through the network in float32, the products in bfloat16 where
the processor has it. Knows nothing of heads and of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tuner.errors import DataError
from tuner.models.frozen import Front, Unfrozen, fast_products
from tuner.models.layers import masked_mean, tokens_mask

TOKENS_AT_ONCE = 4096
Tensors = Mapping[str, Tensor]


class Packing:
    """The tokens of some texts in one row after another, (all tokens, units): what is padding costs nothing there.

    In an exported network, whose shapes can't depend on what is in them, padding is packed, too.
    """

    def __init__(self, there: Tensor) -> None:
        self.at: Tensor | None = None
        self.there = there
        self.mask: Tensor | None = there[:, None, None]
        if not torch.compiler.is_exporting():
            self.there = there[:, : max(1, int(there.sum(1).max()))]
            self.at = self.there.flatten().nonzero()[:, 0]
            self.mask = None if len(self.at) == self.there.numel() else self.there[:, None, None]

    def pack(self, x: Tensor) -> Tensor:
        """Return the tokens of (n, tokens, units)."""
        n, tokens = self.there.shape
        row = x[:, :tokens].reshape(n * tokens, -1)
        return row if self.at is None else row[self.at]

    def unpack(self, x: Tensor) -> Tensor:
        """Return packed tokens as (n, tokens of the longest text, units), zero at padding."""
        n, tokens = self.there.shape
        if self.at is None:
            return x.view(n, tokens, -1) * self.there[:, :, None]
        return x.new_zeros(n * tokens, x.shape[1]).index_copy(0, self.at, x).view(n, tokens, -1)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the tokens of each text, (n, units)."""
        return masked_mean(self.unpack(x), self.there, 1)


class Layer(nn.Module):
    """One layer: attention and two linear layers, each added to its input and normalized then."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        units, inner, epsilon = settings["hidden_size"], settings["intermediate_size"], settings["layer_norm_eps"]
        self.heads: int = settings["num_attention_heads"]
        self.attend, self.out = nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.widen, self.narrow = nn.Linear(units, inner), nn.Linear(inner, units)
        self.first, self.second = nn.LayerNorm(units, eps=epsilon), nn.LayerNorm(units, eps=epsilon)

    def forward(self, x: Tensor, texts: Packing) -> Tensor:
        """Return the states of packed tokens (all tokens, units)."""
        x = self.first(x + self.out(self._seen(self.attend(x), texts)).float())
        x = self.second(x + self.narrow(F.gelu(self.widen(x))).float())
        return x

    def _seen(self, parts: Tensor, texts: Packing) -> Tensor:
        padded = texts.unpack(parts)
        n, tokens, wide = padded.shape
        # on a processor torch's attention goes backward in bfloat16 at a fifth of the speed of float32
        padded = padded.float() if padded.requires_grad and padded.device.type == "cpu" else padded
        with torch.autocast(padded.device.type, enabled=False):
            query, key, value = padded.view(n, tokens, 3, self.heads, wide // 3 // self.heads).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=texts.mask)
        return texts.pack(seen.transpose(1, 2).reshape(n, tokens, wide // 3))


class Layers(Unfrozen):
    """Some last layers of the encoder and the mean over the tokens: states (n, tokens, units) -> (n, units).

    States are zero at padding and nowhere else, so that they say themselves where a text ends.
    """

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        texts = Packing((x != 0).any(2))
        x = texts.pack(x)
        with fast_products(x):
            for layer in self.layers:
                x = layer(x, texts)
        return texts.mean(x)


class TextFront(Front):
    """The frozen part: tokens (n, tokens) -> states after some layers, (n, tokens, units), or the mean of the last."""

    def __init__(self, tensors: Tensors, settings: Mapping[str, Any], layers: int, tokens: int) -> None:
        super().__init__()
        names = {f"{name}_embeddings.weight": name for name in ("word", "position", "token_type")}
        names |= {"LayerNorm.weight": "gain", "LayerNorm.bias": "shift"}
        for there, here in names.items():
            self.register_buffer(here, tensors[f"embeddings.{there}"])
        self.epsilon: float = settings["layer_norm_eps"]
        self.layers = nn.ModuleList(load_layer(tensors, settings, number) for number in range(layers))
        self.pools = layers == settings["num_hidden_layers"]
        units = settings["hidden_size"]
        self.shape = (units,) if self.pools else (tokens, units)

    def features(self, x: Tensor) -> Tensor:
        """Return the features of texts, computed together with others of like length."""
        if torch.compiler.is_exporting():
            return self._states(x)
        lead = x.shape[:1] if self.pools else x.shape
        found = torch.zeros(*lead, self.shape[-1], dtype=torch.float16, device=x.device)
        lengths = tokens_mask(x).sum(1)
        for rows in _of_like_length(lengths):
            states = self._states(x[rows])
            if self.pools:
                found[rows] = states
            else:
                found[rows, : states.shape[1]] = states
        return found

    def _states(self, x: Tensor) -> Tensor:
        texts, buffer = Packing(tokens_mask(x)), self.get_buffer
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        words, places = (texts.pack(each[:, :, None])[:, 0] for each in (x, places))
        sums = buffer("word")[words] + buffer("position")[places] + buffer("token_type")[0]
        states = F.layer_norm(sums, sums.shape[1:], buffer("gain"), buffer("shift"), self.epsilon)
        with fast_products(states):
            for layer in self.layers:
                states = layer(states, texts)
        return (texts.mean(states) if self.pools else texts.unpack(states)).half()


def _of_like_length(lengths: Tensor) -> list[Tensor]:
    """Return the rows, shortest first, in batches of a bounded number of tokens."""
    order, batches, start = lengths.argsort(stable=True), [], 0
    sizes = lengths[order].tolist()
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end + 1 - start) * sizes[end] > TOKENS_AT_ONCE:
            batches.append(order[start:end])
            start = end
    return batches


def load_layer(tensors: Tensors, settings: Mapping[str, Any], number: int) -> Layer:
    """Return one layer with the weights of a file, shared with it: to be copied before it is trained."""

    def linear(name: str) -> dict[str, Tensor]:
        return {kind: tensors[f"encoder.layer.{number}.{name}.{kind}"] for kind in ("weight", "bias")}

    each = [linear(f"attention.self.{name}") for name in ("query", "key", "value")]
    parts = {
        "attend": {kind: torch.cat([part[kind] for part in each]) for kind in ("weight", "bias")},
        "out": linear("attention.output.dense"), "first": linear("attention.output.LayerNorm"),
        "widen": linear("intermediate.dense"),
        "narrow": linear("output.dense"), "second": linear("output.LayerNorm"),
    }  # fmt: skip
    with torch.device("meta"):  # so that nothing is drawn for weights that are replaced
        layer = Layer(settings)
    state = {f"{part}.{kind}": value for part, values in parts.items() for kind, value in values.items()}
    layer.load_state_dict(state, assign=True)
    return layer.requires_grad_(False)


def unfit(path: Path, error: Exception) -> DataError:
    """Return the error for a file whose tensors aren't those that its configuration promises."""
    said = str(error).splitlines()[0]
    return DataError(f"model.backbone: {path} doesn't hold what its config.json says: no tensor {said}")


@lru_cache(maxsize=2)
def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a BERT-like model's file by their plain names, in float32.

    Raises:
        DataError: the file can't be read.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is no readable safetensors file ({error})") from None
    return {name.removeprefix("bert."): value.float() for name, value in found.items()}
