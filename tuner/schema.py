"""json_schema(): the JSON Schema of a space file, for editors that check and complete while one types.

Decides how the keys of RunConfig, with their types, bounds and descriptions, look as a schema in which a searchable
key also takes a range or a choice. Keeps no list of keys of its own. Doesn't know what only the reader of a space can
see: that low is below high, that a condition names something which can be true, that data are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tuner.config import AUTO, BUNDLED, FAMILIES, MODULE_ATTR, RunConfig, Section
from tuner.values import checker, is_searchable, section_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
OPTION = "^model\\.options\\.[^.]+$"
NUMBERS = ("integer", "number")
CODE = {"type": "string", "pattern": MODULE_ATTR.pattern.replace("\\Z", "$")}
MEANING: dict[str, dict[str, Any]] = {
    "model.family": {"anyOf": [{"enum": [*FAMILIES, AUTO]}, CODE]},
    "data.source": {"examples": [f"sklearn:{name}" for name in BUNDLED]},
}
"""What the reader checks in a text beyond its type."""


def json_schema() -> dict[str, Any]:
    """Return the schema, of draft 2020-12."""
    head = {"$schema": DIALECT, "title": "tuner space file"}
    when = {
        "description": "only where these names have one of these values",
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"anyOf": [{"enum": list(_names(RunConfig, ""))}, {"pattern": OPTION}]},
        "additionalProperties": {"anyOf": [PLAIN, {"type": "array", "items": PLAIN, "minItems": 1}]},
    }
    return head | _section(RunConfig, "") | {"$defs": {"when": when}}


def _names(model: type[Section], prefix: str) -> Iterator[str]:
    for key, field in model.model_fields.items():
        inner = section_of(field)
        yield from _names(inner, f"{prefix}{key}.") if inner else [prefix + key]


def _section(model: type[Section], prefix: str) -> dict[str, Any]:
    required = [key for key, field in model.model_fields.items() if _is_required(field)]
    return {
        "description": (model.__doc__ or "").strip(),
        "type": "object",
        "properties": {key: _key(prefix + key, field) for key, field in model.model_fields.items()},
        "additionalProperties": False,
    } | ({"required": required} if required else {})


def _is_required(field: FieldInfo) -> bool:
    inner = section_of(field)
    return field.is_required() or (
        inner is not None and field.default is PydanticUndefined and any(map(_is_required, inner.model_fields.values()))
    )


def _key(name: str, field: FieldInfo) -> dict[str, Any]:
    if (inner := section_of(field)) is not None:
        section = _section(inner, f"{name}.")
        return {"anyOf": [section, {"const": "none"}]} if checker(name, field)("none") is None else section
    about = {"description": field.description or ""}
    if field.default not in (PydanticUndefined, None, (), {}):
        about["default"] = field.default
    value = _value(name, field)
    if "additionalProperties" in value:
        own = _searchable({"type": [*PLAIN["type"], "array"]}, {"type": "number"})
        return about | {"type": "object", "additionalProperties": own}
    if not is_searchable(field):
        return about | value
    return about | _searchable(value, next(_numbers(value), None))


def _value(name: str, field: FieldInfo) -> dict[str, Any]:
    """Return the schema of one value of a key, as pydantic makes it."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    schema = TypeAdapter(kind).json_schema()
    return schema | MEANING.get(name, {})


def _numbers(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a range's bounds may be: the part of a value's schema that is a number."""
    for part in value.get("anyOf", [value]):
        if part.get("type") in NUMBERS:
            yield part


def _searchable(value: dict[str, Any], number: dict[str, Any] | None) -> dict[str, Any]:
    """Return the schema of a value, of choices of it, and of a range if it can be a number."""
    item = {"type": PLAIN["type"]} if isinstance(value.get("type"), list) else value
    when = {"when": {"$ref": "#/$defs/when"}}
    choices = {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}
    forms = [value, _form({"choices": choices} | when, ["choices"])]
    if number is not None:
        step = {"type": number["type"], "exclusiveMinimum": 0, "description": "distance of two values; not with log"}
        bounds = {"low": number, "high": number, "log": {"type": "boolean", "description": "on a logarithmic scale"}}
        other = {"description": "one value outside the range, such as 0: off", **item}
        forms.append(_form(bounds | {"step": step, "or": other} | when, ["low", "high"]))
    return {"anyOf": forms}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
