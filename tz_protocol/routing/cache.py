"""Which requests are the same request, and the answers that a process remembers.

The one rule: an answer is found only by whoever would have been given the same one. The
key is made of everything that decides an answer: the request's members, whatever their
order; the model, and what it is at its providers; the tenant; the caller's own
credentials. Whether an answer may be stored, and where else it is looked for, is
``flows/caching.py``'s business.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from decimal import Decimal
from hashlib import sha256

import msgspec

from tz_protocol.types.keys import Principal
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.settings import Model
from tz_protocol.types.usage import Usage

__all__ = ["Answer", "Memory", "cache_key", "tenant_of"]

_NEUTRAL = frozenset({"stream", "stream_options"})
"""Members that say how an answer is to come, not what it is."""


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object's members, each of which must be there once.

    Which of two counts differs from reader to reader.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a member is there twice"
        raise ValueError(message)
    return found


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _DIGITS else Decimal(digits)


def _refuse(constant: str) -> object:
    message = f"{constant} is no JSON"
    raise ValueError(message)


_DIGITS = 19
"""Fewer of them are an integer that every encoder can write."""

# A float would lose digits: two different numbers could make one key.
_decode = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_float=Decimal,
    parse_int=_integer,
    parse_constant=_refuse,
).decode
_encode = msgspec.json.Encoder(order="sorted", decimal_format="number").encode

_OVERHEAD = 400
"""Bytes of an entry beside its parts, about."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One complete, successful answer, in the caller's format and without identity."""

    members: bytes = b""
    """JSON object, if it came whole."""
    chunks: tuple[bytes, ...] = ()
    """JSON objects, if it came as a stream; without the one that states the usage."""
    model: str
    """Public name of the model that answered."""
    provider: str
    usage: Usage | None = None
    """What it cost when it was made."""
    written: float
    """Unix seconds."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.members) + sum(map(len, self.chunks)) + _OVERHEAD


def tenant_of(principal: Principal | None, project_id: str | None) -> str:
    """Return whose answers a caller may see.

    The project that its key names, else the key itself; everybody is one tenant where
    nobody needs a key.
    """
    if principal is None:
        return ""
    return f"project {project_id}" if project_id else f"key {principal.digest.hex()}"


def cache_key(
    parsed: ParsedRequest, route: str, model: Model, tenant: str
) -> bytes | None:
    """Return 32 bytes that two requests share only if their answers may be shared.

    None if the request cannot be put in order: it is then like no other.

    Args:
        parsed: The request; its body must be JSON.
        route: Of the endpoint.
        model: As resolved.
        tenant: From :func:`tenant_of`, or one word for everybody.
    """
    try:
        members = {
            name: _decode(bytes(value).decode())
            for name, value in parsed.fields.items()
            if name not in _NEUTRAL
        }
        whole = [route, tenant, _identity(model), _credentials(parsed), members]
        return sha256(_encode(whole)).digest()
    except (ArithmeticError, ValueError, TypeError, RecursionError):
        return None


def _identity(model: Model) -> list[object]:
    """Return what tells the model from one of the same name that is configured anew."""
    return [
        model.key,
        [
            [
                name,
                settings.type,
                settings.model,
                settings.url,
                settings.options,
                settings.extra_headers,
                {k: bytes(v).hex() for k, v in settings.extra_body.items()},
            ]
            for name, settings in ((n, model.providers[n]) for n in model.routing)
        ],
    ]


def _credentials(parsed: ParsedRequest) -> dict[str, str]:
    credentials = parsed.extensions.credentials
    return {name: secret.reveal() for name, secret in credentials.items()}


class Memory:
    """The process's table of answers: the least recently used goes first.

    Args:
        limit: Bytes of all answers together; 0: nothing is remembered.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        """Bytes, about."""
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        """Return how many answers are remembered."""
        return len(self._answers)

    def get(self, key: bytes, now: float, max_age: float | None) -> Answer | None:
        """Return the answer to *key* that is not older than *max_age* seconds.

        Args:
            key: From :func:`cache_key`.
            now: Unix seconds.
            max_age: None: whatever its age.
        """
        answer = self._answers.get(key)
        if answer is None or (max_age is not None and now - answer.written > max_age):
            return None
        self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        """Remember *answer*, in the place of an older one."""
        size = answer.size
        if size > self.limit:
            return
        old = self._answers.pop(key, None)
        if old is not None:
            self.size -= old.size
        self._answers[key] = answer
        self.size += size
        self.shrink()

    def shrink(self) -> None:
        """Forget until the limit holds; call after lowering it."""
        while self.size > self.limit and self._answers:
            _, answer = self._answers.popitem(last=False)
            self.size -= answer.size
