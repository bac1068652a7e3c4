"""What `auto` stands for: the model family and its size, the batch size, and whether a GPU is worth its calls.

Decides by the kind and the size of the data and of the network, before anything is trained. A place to start from, not
a finding: what matters is still searched. Knows no torch and trains nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tuner.config import RunConfig

if TYPE_CHECKING:
    from tuner.data.splits import Shape

FEW_TEXTS, LONG_TEXT = 1000, 100  # a long text tells its class by its words, and convolutions over it take long
FEW_STEPS = 16
FEW_EXAMPLES = 500
# Weights times examples of a batch at which a perceptron's step takes one thread of a processor as long as an H200,
# whose calls take 3 ms however little they compute: between two sizes of benchmarks/gpu.py (benchmarks/RESULTS.md).
SMALL = 1 << 24


def default_model(shape: Shape, examples: int, tokens: str | None = None) -> dict[str, Any]:
    """Return dotted names of the model section and their values for data of this shape with so many training rows; of
    texts also by what they are cut into, `data.tokens`.
    """
    small = examples < FEW_EXAMPLES
    match shape.kind:
        case "image":
            gray = shape.input[0] == 1
            found = {"family": "cnn" if gray else "resnet", "width": 16 if small else 32, "depth": 3 if gray else 2}
            found |= {"normalization": "batch"}
        case "text":
            few = examples < FEW_TEXTS
            by_words = tokens != "character" and (few or shape.input[0] > LONG_TEXT)  # a character alone tells little
            found = {
                "family": "bag" if by_words else "textcnn",
                "embedding": 64 if few else 128,
                "width": 32 if few else 64,
                "depth": 1,
            }
        case "sequence":
            steps = shape.input[0]
            family = "conv1d" if steps >= FEW_STEPS else "rnn"
            found = {"family": family, "width": 16 if small else 64, "depth": 4 if family == "conv1d" else 1}
            found |= {"normalization": "batch" if family == "conv1d" else "layer"}
        case _:
            found = {"family": "mlp", "width": 32 if small else 128, "depth": 2}
    return {f"model.{name}": value for name, value in found.items()}


def batch_size(config: RunConfig, examples: int) -> int:
    """Return the batch size; auto is 2^round(log2(clip(n/20, 16, 128))), at most the examples there are."""
    wanted = config.training.batch_size
    if wanted == "auto":
        wanted = 2 ** round(math.log2(min(max(examples / 20, 16), 128)))
    return min(wanted, examples)


def is_small(config: RunConfig, shape: Shape, examples: int) -> bool:
    """Tell whether a processor trains a network on so many examples as fast as a GPU does: a small perceptron."""
    if config.model.family != "mlp" or config.training.loop is not None:
        return False
    width, depth = config.model.width, config.model.depth
    weights = (math.prod(shape.input) + shape.outputs) * width + (depth - 1) * width**2
    return weights * batch_size(config, examples) <= SMALL
