"""What a problem is told like: expectations, suggestions, known absences.

The one rule: a message says what was expected. It names keys and choices, which are
ours, and the kind of a value, never the value, which may be a secret in the wrong
place.
"""

from __future__ import annotations

import datetime as dt
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tz_protocol.config.locate import Path

__all__ = [
    "AGREED",
    "IGNORED_KEYS",
    "IGNORED_ROOTS",
    "UNSUPPORTED_KEYS",
    "UNSUPPORTED_ROOTS",
    "did_you_mean",
    "explain",
    "ignored",
    "kind_word",
    "unknown_key",
    "validated",
]

T = TypeVar("T", bound=BaseModel)

IGNORED_ROOTS: Mapping[str, str] = {
    "functions": "functions and their variants",
    "metrics": "feedback metrics",
    "tools": "tools in the configuration",
    "evaluations": "evaluations",
    "optimizers": "optimisation",
    "object_storage": "object storage",
    "clickhouse": "ClickHouse",
    "postgres": "Postgres",
    "autopilot": "autopilot",
}
"""Tables of TensorZero and of the reference that are not built and that no request
for a model depends on: a file that has them works, with a warning."""

UNSUPPORTED_ROOTS: Mapping[str, str] = {
    "rate_limiting": "rate limiting",
}
"""Tables that restrict what callers may do: without them too much would be allowed,
so that a file which has them is refused."""

IGNORED_KEYS: Mapping[str, str] = {
    "batch_cost": "the price of a model",
    "batch": "batch inference",
    "sft": "fine-tuning",
    "parse_think_blocks": "taking thoughts out of the text",
}
"""Keys of TensorZero within models, providers and provider types that change no
request: a file that has them works, with a warning."""

UNSUPPORTED_KEYS: Mapping[str, str] = {
    "namespace": "restricting a model to a namespace",
    "include_encrypted_reasoning": "encrypted reasoning",
    "provider_tools": "tools that run at the provider",
    "api_type": "choosing the provider's API",
}
"""Keys of TensorZero without which requests would mean something else."""

AGREED: Mapping[str, object] = {
    "api_type": "chat_completions",
    "include_encrypted_reasoning": False,
    "parse_think_blocks": False,
    "provider_tools": [],
}
"""Values of such keys that ask for what is done anyway."""

_LIST_LIMIT = 12
"""More choices than this are not listed; the nearest one is suggested instead."""

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a number"),
    (list, "an array"),
    (dict, "a table"),
    (dt.date, "a date"),
    (dt.time, "a time"),
)

_EXPECTED: Mapping[str, str] = {
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "int_type": "expected an integer",
    "float_type": "expected a number",
    "list_type": "expected an array",
    "dict_type": "expected a table",
    "model_type": "expected a table",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "expected a number greater than"),
    "greater_than_equal": ("ge", "expected a number of at least"),
    "less_than": ("lt", "expected a number less than"),
    "less_than_equal": ("le", "expected a number of at most"),
}


def kind_word(value: object) -> str:
    """Return what *value* is, in TOML's words."""
    for kind, word in _KINDS:
        if isinstance(value, kind):
            return word
    return "something else"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean x?)``, or nothing if no choice resembles *word*."""
    folded = {choice.lower(): choice for choice in choices}
    word = word.lower()[:100]
    # api_key means api_key_location, however near api_base is.
    begun = [choice for choice in folded if len(word) > 3 and choice.startswith(word)]
    nearest = begun or difflib.get_close_matches(word, list(folded), n=1)
    return f" (did you mean {folded[nearest[0]]}?)" if nearest else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the message for a key that its table does not have."""
    if key in UNSUPPORTED_KEYS:
        return f"{UNSUPPORTED_KEYS[key]} is not supported yet; remove this key"
    names = sorted(known)
    message = f"unknown key{did_you_mean(key, names)}"
    if names and len(names) <= _LIST_LIMIT:
        message += f"; known here: {', '.join(names)}"
    return message


def ignored(subject: str) -> str:
    """Return the warning for a key or table that has no effect."""
    return f"has no effect: there is no support yet for {subject}"


def validated(
    model: type[T], raw: object, prefix: Path, problems: list[tuple[Path, str]]
) -> T | None:
    """Return *raw* as a table of the class *model*; what is wrong goes to *problems*.

    The keys that are wrong are then left out, so that the others can be looked at;
    None if nothing useful is left.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = explain(error, model, prefix)
    problems += found
    if not isinstance(raw, dict):
        return None
    wrong = {path[len(prefix)] for path, _message in found}
    try:
        return model.model_validate({k: raw[k] for k in raw.keys() - wrong})
    except ValidationError:
        return None  # a required key is among them


def explain(
    error: ValidationError, model: type[BaseModel], prefix: Path
) -> list[tuple[Path, str]]:
    """Return (path, message) for everything that *error* holds.

    Args:
        error: What validating against *model* raised.
        model: The table's class, to list the keys that it has.
        prefix: Path of the table.
    """
    return [
        ((*prefix, *details["loc"]), _explain(details, model))
        for details in error.errors(include_url=False)
    ]


def _explain(details: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind = details["type"]
    value = details["input"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        table = _table_at(model, details["loc"][:-1])
        key = str(details["loc"][-1])
        return unknown_key(key, table.model_fields if table else ())
    if kind == "missing":
        return "missing: this key is required"
    if kind == "unsupported":
        return str(details["msg"])
    if kind == "literal_error":
        hint = did_you_mean(value, _choices(context)) if isinstance(value, str) else ""
        return f"expected {context['expected']}{hint}"
    if kind in _BOUNDS:
        name, sentence = _BOUNDS[kind]
        return f"{sentence} {context[name]:.16g}"
    if kind == "finite_number":
        return "expected a finite number"
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, found {kind_word(value)}"
    # pydantic's own words may repeat the value
    return f"not a value for this key: {kind_word(value)}"


def _choices(context: Mapping[str, Any]) -> list[str]:
    """Return the choices out of pydantic's ``'a', 'b' or 'c'``."""
    return str(context["expected"]).split("'")[1::2]


def _table_at(
    model: type[BaseModel], location: tuple[str | int, ...]
) -> type[BaseModel] | None:
    """Return the class of the table at *location* below *model*, if it has one."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue  # an array's items have the class that was found at its key
        field = current.model_fields.get(part) if current else None
        current = _table_class(field.annotation) if field else None
    return current


def _table_class(annotation: Any) -> type[BaseModel] | None:
    """Return the table class within an annotation such as ``list[X] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _table_class(argument)
        if found is not None:
            return found
    return None
