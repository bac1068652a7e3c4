"""Examples as torch has them, from the user's own code: a Dataset, tensors, or such a thing for each part.

Decides how these become what any other source returns. Imports no torch: what isn't loaded can't have been returned.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tuner.data.divide import OFFICIAL
from tuner.errors import DataError
from tuner.own_code import blaming


def as_arrays(result: Any, where: str) -> Any:
    """Return what user code returned, without what is torch's: a Dataset or parts as a dict with X and y (and split),
    or as a table of texts; tensors as arrays.

    Raises:
        UserCodeError: an item of a Dataset can't be made.
        DataError: a Dataset can't be read through, or parts don't go together.
    """
    if (parts := _parts(result)) is not None and all(isinstance(part, pd.DataFrame) for part in parts.values()):
        return pd.concat([part.assign(split=OFFICIAL[name]) for name, part in parts.items()], ignore_index=True)
    if parts is not None:
        return _together({OFFICIAL[name]: _pair(part, f"{where}: {name}") for name, part in parts.items()}, where)
    if _is_dataset(result):
        return _told(*_pair(result, where))
    if isinstance(result, Mapping):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, (tuple, list)) and len(result) == 2:
        return tuple(map(plain, result))
    return result


def plain(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        found = value.detach().cpu()
        return (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    return value


def _is_dataset(value: Any) -> bool:
    torch = sys.modules.get("torch.utils.data")
    return torch is not None and isinstance(value, torch.Dataset)


def _parts(result: Any) -> dict[str, Any] | None:
    """Return the parts of what has a training and a validation part under these names, as keys or as attributes."""
    if isinstance(result, Mapping):
        found = {name: result[name] for name in OFFICIAL if name in result}
    elif isinstance(result, (tuple, list, pd.DataFrame, np.ndarray)) or _is_dataset(result):
        return None
    else:
        found = {name: getattr(result, name) for name in OFFICIAL if getattr(result, name, None) is not None}
    if "train" not in found or len(found) < 2:
        return None
    return {name: part for name, part in found.items() if part is not None}


def _pair(part: Any, where: str) -> tuple[Any, Any]:
    """Return a part's examples and targets."""
    if _is_dataset(part) or (hasattr(part, "__getitem__") and not isinstance(part, (tuple, list, Mapping))):
        return _read_through(part, where)
    if isinstance(part, Mapping) and {"X", "y"} <= set(part):
        return plain(part["X"]), plain(part["y"])
    if isinstance(part, (tuple, list)) and len(part) == 2:
        return plain(part[0]), plain(part[1])
    if hasattr(part, "x") and hasattr(part, "y"):
        return plain(part.x), plain(part.y)
    raise DataError(f"{where}: is a {type(part).__name__}; a torch Dataset, (X, y), or a dict with X and y is allowed")


def _read_through(dataset: Any, where: str) -> tuple[Any, Any]:
    """Return the examples and targets of a Dataset, of which each item is a pair."""
    torch = sys.modules.get("torch.utils.data")
    if torch is not None and type(dataset) is torch.TensorDataset and len(dataset.tensors) == 2:
        return plain(dataset.tensors[0]), plain(dataset.tensors[1])
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        what = f"is a {type(dataset).__name__} that can't be indexed; a Dataset with a length is needed"
        raise DataError(f"{where}: {what}")
    with blaming(f"data.source {where}"):
        items = [dataset[i] for i in range(len(dataset))]
    examples, targets = list[Any](), list[Any]()
    for i, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"{where}: its item {i} is a {type(item).__name__}; a pair (example, target) is needed")
        example, target = map(plain, item)
        examples.append(example if isinstance(example, str) else np.asarray(example))
        targets.append(target.item() if isinstance(target, (np.ndarray, np.generic)) and target.size == 1 else target)
    if not examples:
        raise DataError(f"{where}: has no items")
    alike = not isinstance(examples[0], str) and len({example.shape for example in examples}) == 1
    return (np.stack(examples) if alike else examples), np.asarray(targets)


def _told(x: Any, y: Any, split: Any = None) -> Any:
    """Return examples and targets as a dict, or as a table if they are texts."""
    more = {} if split is None else {"split": split}
    if isinstance(x, Sequence) and x and isinstance(x[0], str):
        return pd.DataFrame({"text": x, "target": y, **more})
    return {"X": x, "y": y, **more}


def _together(parts: Mapping[str, tuple[Any, Any]], where: str) -> Any:
    """Return the rows of all parts, and which part each is of."""
    examples, targets = zip(*parts.values(), strict=True)
    split = np.concatenate([np.full(len(y), name) for name, (_, y) in parts.items()])
    try:
        if all(isinstance(x, pd.DataFrame) for x in examples):
            x: Any = pd.concat(examples, ignore_index=True)
        elif all(isinstance(x, list) for x in examples):
            x = [each for some in examples for each in some]
        else:
            x = np.concatenate([np.asarray(each) for each in examples])
        return _told(x, np.concatenate([np.asarray(each) for each in targets]), split)
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: its parts don't go together ({said})") from error
