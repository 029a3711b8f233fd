"""The messages of a chat request, made to fit a vendor that takes less than OpenAI.

The one rule: only what a vendor's row states as a quirk is changed; what no quirk is
about stays the bytes that the client wrote. A hint that a vendor would refuse is left
out and named; what means something is left for the vendor to refuse by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Raw

from tz_protocol.dialects.ids import short_id
from tz_protocol.wire.json import NULL, encode_object, kind_of_value, value_of

__all__ = [
    "CLOSED_MESSAGES",
    "MESSAGE_QUIRKS",
    "NO_DEVELOPER",
    "NO_LINKS",
    "REASONING_ECHO",
    "SHORT_IDS",
    "fitted_messages",
    "fitted_tools",
]

NO_DEVELOPER = "no_developer"
NO_LINKS = "no_links"
REASONING_ECHO = "reasoning_echo"
SHORT_IDS = "short_ids"
CLOSED_MESSAGES = "closed_messages"

MESSAGE_QUIRKS: Mapping[str, str] = MappingProxyType(
    {
        NO_DEVELOPER: "There is no role developer; it is system.",
        NO_LINKS: "Pictures are in data URLs; links to them are not followed.",
        REASONING_ECHO: "What was thought comes back in reasoning.",
        SHORT_IDS: "Ids of tool calls are nine letters or digits.",
        CLOSED_MESSAGES: "Messages may have no member that they do not know.",
    }
)
"""What a vendor's row may say of the messages that it takes."""

_read_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_message = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

_DEVELOPER = Raw(b'"developer"')
_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""https://docs.mistral.ai/api, error 3280."""

_ECHOED = frozenset(
    {
        "annotations",
        "audio",
        "citations",
        "name",
        "provider_content",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
    }
)
"""Members of answers, which clients send back with them, and names of speakers: known
to many vendors, and no loss that changes the meaning."""

_EMPTY = (NULL, Raw(b'""'), Raw(b"[]"), Raw(b"{}"))

_THINKERS = re.compile(r"magistral")
"""Models that take back what they thought, as the first part of their content."""


def fitted_messages(
    raw: Raw | bytes, quirks: frozenset[str], model: str
) -> tuple[Raw | bytes, list[str]]:
    """Return the messages *raw* as a vendor takes them, and what was left out.

    Args:
        raw: The client's ``messages``, an array.
        quirks: Of the vendor.
        model: The model's name at the vendor.
    """
    if not _concerns(bytes(raw), quirks):
        return raw, []
    try:
        messages = _read_messages(raw)
    except (msgspec.DecodeError, RecursionError):
        # For the vendor to refuse.
        return raw, []
    losses: list[str] = []
    pieces: list[bytes] = []
    for index, message in enumerate(messages):
        made: dict[str, Raw | bytes] = dict(message)
        if NO_DEVELOPER in quirks and message.get("role") == _DEVELOPER:
            made["role"] = b'"system"'
        if REASONING_ECHO in quirks and "reasoning_content" in made:
            made["reasoning"] = made.pop("reasoning_content")
        if SHORT_IDS in quirks:
            _shorten(made)
        if CLOSED_MESSAGES in quirks:
            lost = _close(made, is_thinker=_THINKERS.match(model) is not None)
            losses += [f"messages[{index}].{name}" for name in lost]
        pieces.append(encode_object(made))
    return b"[%b]" % b",".join(pieces), losses


def _concerns(raw: bytes, quirks: frozenset[str]) -> bool:
    """Return whether *raw* may hold what *quirks* are about; cheap, since most do
    not."""
    return (
        CLOSED_MESSAGES in quirks
        or (NO_DEVELOPER in quirks and b'"developer"' in raw)
        or (SHORT_IDS in quirks and b'"tool_call' in raw)
        or (REASONING_ECHO in quirks and b'"reasoning_content"' in raw)
    )


def fitted_tools(raw: Raw | bytes) -> Raw | bytes:
    """Return the tools *raw* as a vendor takes them that wants every function to have
    parameters, and no member to be null.

    Args:
        raw: The client's ``tools``.
    """
    pieces: list[bytes] = []
    try:
        for tool in _read_messages(raw):
            made: dict[str, Raw | bytes] = dict(tool)
            function = tool.get("function", NULL)
            if function != NULL:
                stated = _read_message(function)
                members = {name: one for name, one in stated.items() if one != NULL}
                made["function"] = encode_object({**members, **_unsaid(members)})
            pieces.append(encode_object(made))
    except (msgspec.DecodeError, RecursionError):
        # For the vendor to refuse.
        return raw
    return b"[%b]" % b",".join(pieces)


def _unsaid(members: Mapping[str, Raw]) -> dict[str, bytes]:
    """Return the parameters of a function that has none."""
    if "parameters" in members:
        return {}
    return {"parameters": b'{"type":"object","properties":{}}'}


def _shorten(message: dict[str, Raw | bytes]) -> None:
    """Give a call and its result the same short id."""
    call_id = value_of(message.get("tool_call_id", NULL))
    if type(call_id) is str:
        message["tool_call_id"] = _encode(_short(call_id))
    calls = Raw(message.get("tool_calls", NULL))
    if kind_of_value(calls) != "an array":
        return
    pieces: list[bytes] = []
    try:
        entries = _read_messages(calls)
    except (msgspec.DecodeError, RecursionError):
        return
    for entry in entries:
        made: dict[str, Raw | bytes] = dict(entry)
        own = value_of(entry.get("id", NULL))
        if type(own) is str:
            made["id"] = _encode(_short(own))
        pieces.append(encode_object(made))
    message["tool_calls"] = b"[%b]" % b",".join(pieces)


def _short(call_id: str) -> str:
    return call_id if _ID.fullmatch(call_id) else short_id(call_id, 9)


def _close(message: dict[str, Raw | bytes], *, is_thinker: bool) -> list[str]:
    """Leave out what closed messages may not have; return what is lost by that."""
    lost: list[str] = []
    role = value_of(message.get("role", NULL))
    thought = value_of(message.get("reasoning_content", NULL))
    is_said = is_thinker and type(thought) is str and thought and role == "assistant"
    for name in _ECHOED & message.keys():
        if name == "name" and role == "tool":
            continue
        value = Raw(message.pop(name))
        if value in _EMPTY or (is_said and name.startswith("reasoning")):
            continue
        if name == "refusal" and message.get("content", NULL) in _EMPTY:
            message["content"] = value
            continue
        lost.append(name)
    for name in [one for one, value in message.items() if value == NULL]:
        if name != "content":
            # As SDKs write a message down: there is no such thing in it.
            del message[name]
    if is_said:
        _think(message, str(thought))
    return sorted(lost)


def _think(message: dict[str, Raw | bytes], thought: str) -> None:
    """Put what was thought at the beginning of the content."""
    part = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
    content = value_of(message.get("content", NULL))
    parts = [{"type": "text", "text": content}] if type(content) is str else content
    message["content"] = _encode([part, *(parts or ())])
