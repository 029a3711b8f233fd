"""What the vendors' own libraries hold against a request: a second opinion.

The one rule: the first opinion is the vendor's description (``../shared/specs``); these
are the types and validators that its client checks requests with.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import anthropic.types
import cohere.types
from botocore.validate import ParamValidator  # type: ignore[import-untyped]
from google.genai import types as genai
from pydantic import TypeAdapter, ValidationError

from tests.protocol.dialects.corpus_sdk_aws import model

__all__ = ["of_anthropic", "of_botocore", "of_cohere", "of_google"]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _told(error: ValidationError) -> list[str]:
    return [f"{one['loc']}: {one['msg']}" for one in error.errors()]


def of_anthropic(body: dict[str, Any]) -> list[str]:
    try:
        _exhaust(_adapter(anthropic.types.MessageCreateParams).validate_python(body))
    except ValidationError as error:
        return _told(error)
    return []


def _exhaust(value: Any) -> None:
    """Go through *value*: pydantic looks into an ``Iterable`` only then."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            _exhaust(one)


def of_google(body: dict[str, Any]) -> list[str]:
    """Check the members that the client has types for; it forbids unknown ones."""
    kinds: dict[str, Any] = {
        "contents": list[genai.Content],
        "systemInstruction": genai.Content,
        "tools": list[genai.Tool],
        "toolConfig": genai.ToolConfig,
        "generationConfig": genai.GenerationConfig,
    }
    return _of_members(body, kinds)


def _of_members(body: dict[str, Any], kinds: dict[str, Any]) -> list[str]:
    found = []
    for name, kind in kinds.items():
        try:
            if name in body:
                _adapter(kind).validate_python(body[name])
        except ValidationError as error:
            found += _told(error)
    return found


def of_cohere(body: dict[str, Any]) -> list[str]:
    kinds: dict[str, Any] = {
        "messages": cohere.types.ChatMessages,
        "tools": list[cohere.types.ToolV2],
    }
    return _of_members(body, kinds)


def of_botocore(body: dict[str, Any]) -> list[str]:
    shape = model("bedrock-runtime").operation_model("Converse").input_shape
    report = ParamValidator().validate({**body, "modelId": "m"}, shape)
    return [report.generate_report()] if report.has_errors() else []
