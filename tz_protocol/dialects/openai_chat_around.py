"""What stands around the message of an answer, made as OpenAI has it.

The one rule: as for the message itself (``openai_chat_repairs``): the time of an
answer, its usage and its log probabilities are touched only if OpenAI could not have
written them so, and nothing is made up that the vendor did not say.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.openai_fields import parse_usage
from tz_protocol.wire.json import NULL, encode_object, scan_object, value_of

__all__ = [
    "Logprobs",
    "is_counted",
    "regular_created",
    "regular_logprobs",
    "regular_usage",
]

_encode = msgspec.json.Encoder().encode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode


# -- when -----------------------------------------------------------------------


def regular_created(fields: dict[str, Raw] | dict[str, Raw | bytes]) -> None:
    """Make the time of an answer a whole number of seconds; leave it out if it is no
    number, for then the gateway's own is put there."""
    raw = fields.get("created", NULL)
    if bytes(raw).isdigit() or raw == NULL:
        return
    value = value_of(raw)
    text = value if isinstance(value, str) else ""
    if text.isdecimal() and text.isascii():
        fields["created"] = Raw(text.encode())
    elif type(value) is float and 0 <= value < 2**53:
        fields["created"] = Raw(b"%d" % int(value))
    else:
        del fields["created"]


# -- how much -------------------------------------------------------------------

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def is_counted(usage: Any) -> bool:
    """Return whether a decoded ``usage`` has OpenAI's three counts, or is none."""
    if not isinstance(usage, dict):
        return usage is None or usage is UNSET
    get = usage.get
    return (
        type(get("prompt_tokens")) is int
        and type(get("completion_tokens")) is int
        and type(get("total_tokens")) is int
    )


def regular_usage(fields: dict[str, Raw]) -> None:
    """Complete the usage of an answer or a chunk.

    A count that is missing follows from the two others; a usage that does not say how
    much was read is none.
    """
    raw = fields.get("usage", NULL)
    if raw == NULL:
        return
    stated = value_of(raw)
    if isinstance(stated, dict) and is_counted(stated):
        return
    usage, members = parse_usage(stated), scan_object(bytes(raw))
    if usage is None or members is None:
        fields["usage"] = NULL
        return
    counts = (usage.input_tokens, usage.output_tokens, usage.total_tokens)
    for name, count in zip(_COUNTS, counts, strict=True):
        if type(stated.get(name)) is not int:
            members[name] = Raw(b"%d" % count)
    fields["usage"] = Raw(encode_object(members))


# -- how probable ---------------------------------------------------------------


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class _Token(_Alternative):
    top_logprobs: list[_Alternative]


class Logprobs(msgspec.Struct):
    """The log probabilities of a choice that need no repair."""

    content: list[_Token] | None
    refusal: list[_Token] | None = None


class _Flat(msgspec.Struct):
    """Those of text completions, which Together and Fireworks give chats as well."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Loose(msgspec.Struct):
    content: list[dict[str, Raw]] | None = None
    refusal: list[dict[str, Raw]] | None = None


_STRICT = msgspec.json.Decoder(Logprobs | None)
_FLAT = msgspec.json.Decoder(_Flat)
_LOOSE = msgspec.json.Decoder(_Loose)
_read_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def regular_logprobs(choice: dict[str, Raw | bytes]) -> None:
    """Say the log probabilities of a choice as chats do; leave out what is none."""
    raw = choice.get("logprobs", NULL)
    for reader in (_as_it_is, _completed, _from_flat):
        try:
            choice_logprobs = reader(raw)
        except (msgspec.DecodeError, RecursionError, KeyError):
            continue
        if choice_logprobs != raw:
            choice["logprobs"] = choice_logprobs
        return
    choice["logprobs"] = NULL


def _as_it_is(raw: Raw | bytes) -> Raw | bytes:
    _STRICT.decode(raw)
    return raw


def _completed(raw: Raw | bytes) -> bytes:
    """Add the members that some servers leave out of each token."""
    found = _LOOSE.decode(raw)
    if found.content is None:
        message = "not those of a chat"
        raise msgspec.ValidationError(message)
    made = encode_object(
        {
            "content": _tokens(found.content),
            "refusal": NULL if found.refusal is None else _tokens(found.refusal),
        }
    )
    _STRICT.decode(made)
    return made


def _tokens(tokens: list[dict[str, Raw]]) -> bytes:
    pieces: list[bytes] = []
    for token in tokens:
        tops = token.get("top_logprobs", NULL)
        others = [] if tops == NULL else _read_objects(tops)
        made: dict[str, Raw | bytes] = {"bytes": NULL, **token}
        alternatives = (encode_object({"bytes": NULL, **other}) for other in others)
        made["top_logprobs"] = b"[%b]" % b",".join(alternatives)
        pieces.append(encode_object(made))
    return b"[%b]" % b",".join(pieces)


def _from_flat(raw: Raw | bytes) -> bytes:
    flat = _FLAT.decode(raw)
    tops = flat.top_logprobs or []
    content = []
    for place, token in enumerate(flat.tokens[: len(flat.token_logprobs)]):
        logprob = flat.token_logprobs[place]
        if logprob is None:
            # Of the first token, before which there was nothing.
            continue
        others = (tops[place] or {}) if place < len(tops) else {}
        alternatives = [_spelled(text, number) for text, number in others.items()]
        content.append({**_spelled(token, logprob), "top_logprobs": alternatives})
    return _encode({"content": content, "refusal": None})


def _spelled(token: str, logprob: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": logprob,
        "bytes": list(token.encode("utf-8", "surrogatepass")),
    }
