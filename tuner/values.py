"""One value against its key -> what is wrong with it, in the words of a space file.

Reads types and bounds off the fields of `config`; knows no file, no range and no space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tuner.config import AUTO, BUNDLED, FAMILIES, MODULE_ATTR, Metric, Section
from tuner.errors import nearest, show

Kind = Literal["whole", "number", "word", "free"]
Check = Callable[[Any], str | None]


def section_of(field: FieldInfo) -> type[Section] | None:
    """Return the section that stands under a key, or None if a value does."""
    return next((k for k in kinds_of(field.annotation) if isinstance(k, type) and issubclass(k, Section)), None)


def kinds_of(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows, without unions and annotations."""
    if get_origin(annotation) is Annotated:
        yield from kinds_of(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from kinds_of(part)
    else:
        yield annotation


def is_searchable(field: FieldInfo) -> bool:
    """Tell whether a space may give a key a range or choices."""
    return field.json_schema_extra == {"searchable": True}


def kind_of(field: FieldInfo | None) -> Kind:
    """Tell what a range over a key would hold: whole numbers, numbers, nothing (words), or what is written."""
    if field is None:
        return "free"
    kinds = list(kinds_of(field.annotation))
    return "whole" if int in kinds else "number" if float in kinds else "word"


def checker(name: str, field: FieldInfo | None) -> Check:
    """Return the function that says what is wrong with one value of a key, or None; no field: a name of one's own."""
    if field is None:
        return _free
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    config: Any = None if section_of(field) else {"strict": True, "allow_inf_nan": False}
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=config)

    def check(value: Any) -> str | None:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            return _wrong(error, value)
        return _meaning(name, value)

    return check


def _free(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {show(value)}"
    if isinstance(value, list):
        return next((f"item {i + 1} {wrong}" for i, item in enumerate(value) if (wrong := _free(item))), None)
    return "must be a plain value, not a mapping" if isinstance(value, Mapping) else None


def _meaning(name: str, value: Any) -> str | None:
    """Say what is wrong with a well-typed value that names something."""
    if name == "model.family" and value not in (*FAMILIES, AUTO) and not MODULE_ATTR.match(value):
        known = (*FAMILIES, AUTO)
        return f"unknown family {show(value)}{nearest(value, known)}; one of {', '.join(known)}, or module:attr"
    if name == "score.metric" and isinstance(value, str) and value.partition(":")[2] in (*get_args(Metric), "loss"):
        return f"{show(value)} has the name of a metric of tuner's; give your function another one"
    if name == "data.source" and value.startswith("sklearn:") and value.removeprefix("sklearn:") not in BUNDLED:
        word = value.removeprefix("sklearn:")
        return f"scikit-learn bundles no {show(word)}{nearest(word, BUNDLED)}; one of {', '.join(BUNDLED)}"
    return None


WANTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "string_type": "a word", "finite_number": "a finite number",
    "own_code": "module:attr", "mapping_type": "a mapping", "dict_type": "a mapping", "tuple_type": "a list",
    "greater_than": "> {gt}", "greater_than_equal": ">= {ge}", "less_than": "< {lt}", "less_than_equal": "<= {le}",
}  # fmt: skip


def _wrong(error: ValidationError, value: Any) -> str:
    """Return what is wrong with a value in the words of a space file."""
    found = error.errors()
    items = [item for item in found if item["loc"] and isinstance(item["loc"][0], int)]
    if items:
        return "; ".join(f"item {int(item['loc'][0]) + 1} {explain([item], item['input'])}" for item in items)
    return explain(found, value)


def explain(errors: list[Any], value: Any) -> str:
    """Return pydantic's errors over one value, of which each names a way to mend it, in words."""
    ways = [way for error in errors if (way := _way(error))]
    if ways:
        return f"must be {' or '.join(dict.fromkeys(ways))}, not {show(value)}{_hint(errors, value)}"
    error = errors[0]
    if error["type"] == "string_pattern_mismatch":
        return f"{show(value)} isn't allowed; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
    if error["type"] == "string_too_short":
        return "must not be empty; leave the key out or give it a value"
    return str(error.get("ctx", {}).get("error") or error["msg"])


def _way(error: Any) -> str | None:
    if error["type"] == "literal_error":
        options = _options(error)
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    context = {key: f"{bound:.12g}" for key, bound in error.get("ctx", {}).items() if isinstance(bound, (int, float))}
    return WANTED[error["type"]].format(**context) if error["type"] in WANTED else None


CALLED = {"gpu": "cuda", "cuda": "cuda"}  # what people say for a word; which GPU, CUDA_VISIBLE_DEVICES says


def _options(error: Any) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _hint(errors: list[Any], value: Any) -> str:
    """Return what was probably meant: the nearest word, or the number that a text or a fraction is."""
    kinds = {error["type"] for error in errors}
    if value is None:
        return "; give it a value, or leave the key out"
    if isinstance(value, str) and kinds & {"int_type", "float_type"}:
        digits = value.replace("_", "").strip()
        if re.fullmatch(r"[-+]?\d{1,18}" + (r"(\.\d*)?([eE][-+]?\d{1,3})?" if "float_type" in kinds else ""), digits):
            return f"; write {digits}"
    if isinstance(value, float) and kinds & {"int_type", "int_from_float"} and value.is_integer() and abs(value) < 1e15:
        return f"; write {int(value)}"
    words = [word for error in errors if error["type"] == "literal_error" for word in _options(error)]
    if not (isinstance(value, str) and words):
        return ""
    meant = next((word for called, word in CALLED.items() if word in words and value.lower().startswith(called)), None)
    return f" (did you mean {meant!r}?)" if meant else nearest(value[:100], words)
