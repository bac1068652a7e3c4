"""A BERT-like backbone of a few thousand weights, as files: what a study needs of one, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

UNITS, INNER, LAYERS, WORDS, LONGEST = 16, 32, 3, 40, 12
SETTINGS = {
    "model_type": "bert", "hidden_size": UNITS, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": INNER, "vocab_size": WORDS, "max_position_embeddings": LONGEST,
}  # fmt: skip


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    found = {
        "embeddings.word_embeddings.weight": random(WORDS, UNITS),
        "embeddings.position_embeddings.weight": random(LONGEST, UNITS),
        "embeddings.token_type_embeddings.weight": random(2, UNITS),
    }
    sizes = {
        "attention.self.query": (UNITS, UNITS), "attention.self.key": (UNITS, UNITS),
        "attention.self.value": (UNITS, UNITS), "attention.output.dense": (UNITS, UNITS),
        "intermediate.dense": (INNER, UNITS), "output.dense": (UNITS, INNER),
    }  # fmt: skip
    norms = ["embeddings.LayerNorm"]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
        for name, size in sizes.items():
            found |= {f"{layer}{name}.weight": random(*size), f"{layer}{name}.bias": random(size[0])}
    for name in norms:
        found |= {f"{name}.weight": 1 + random(UNITS), f"{name}.bias": random(UNITS)}
    return found


def write_backbone(folder: Path, seed: int = 0, **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(seed), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**SETTINGS, **settings}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return folder


# Words w4, w5, ... are the tokens 4, 5, ...
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "decoder": None,
    "added_tokens": [
        {"id": number, "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False} for number, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    ],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": {
        "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
    },
    "model": {
        "type": "WordLevel", "unk_token": "[UNK]",
        "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{f"w{i}": i for i in range(4, WORDS)}},
    },
}  # fmt: skip
