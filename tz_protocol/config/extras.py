"""``extra_headers`` and ``extra_body``: what an operator adds to every request.

The one rule: what is added must not be able to break the request: framing, the
connection and the key are the gateway's, and a value goes out as it was meant or not
at all.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.config.gateway import Problems
from tz_protocol.config.locate import Path
from tz_protocol.config.schema import ExtraBodyItem, ExtraHeaderItem

__all__ = ["extra_body", "extra_headers"]

# RFC 9110, sections 5.6.2 and 5.5, without the obsolete bytes above 0x7F.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")

_OWN = "the gateway sets this header itself"
_KEY = "give the key with api_key_location, so that it does not stand in the file"
_REFUSED_HEADERS = {
    # RFC 9110, section 7.6.1: they concern one connection.
    "connection": _OWN,
    "keep-alive": _OWN,
    "proxy-connection": _OWN,
    "te": _OWN,
    "trailer": _OWN,
    "transfer-encoding": _OWN,
    "upgrade": _OWN,
    # Where the request goes, and how long and of what kind its body is.
    "content-length": _OWN,
    "content-type": _OWN,
    "expect": _OWN,
    "host": _OWN,
    # What the gateway can decode is its own business.
    "accept-encoding": _OWN,
    "api-key": _KEY,
    "authorization": _KEY,
    "proxy-authorization": "a proxy's key belongs into the variable that names it",
}

_BITS = 1_024
"""Of the largest integer that is taken for meant: no double holds a larger one."""

_REFUSED_MEMBERS = {
    "model": "the provider's name of the model is model_name",
    "stream": "whether to stream is the caller's choice",
}


def extra_headers(
    items: Sequence[ExtraHeaderItem], path: Path, problems: Problems
) -> tuple[tuple[str, str], ...]:
    """Return the headers with their names in lower case.

    Args:
        items: As the table has them.
        path: Of the array.
        problems: Is appended to.
    """
    headers: dict[str, str] = {}
    for index, item in enumerate(items):
        name = item.name.lower()
        if not _TOKEN.fullmatch(name):
            message = "expected the name of a header: letters, digits and hyphens"
            problems.append(((*path, index, "name"), message))
        elif name in _REFUSED_HEADERS:
            problems.append(((*path, index, "name"), _REFUSED_HEADERS[name]))
        elif name in headers:
            message = "given twice: a header of this name is above"
            problems.append(((*path, index, "name"), message))
        if not _VALUE.fullmatch(item.value):
            message = (
                "expected ASCII without control characters and without blanks around it"
            )
            problems.append(((*path, index, "value"), message))
        headers[name] = item.value
    return tuple(headers.items())


def extra_body(
    items: Sequence[ExtraBodyItem], path: Path, problems: Problems
) -> dict[str, Raw]:
    """Return the members by name, encoded as JSON.

    Args:
        items: As the table has them; pointers are RFC 6901's.
        path: Of the array.
        problems: Is appended to.
    """
    members: dict[str, Raw] = {}
    for index, item in enumerate(items):
        name, reason = _member(item.pointer)
        if not reason and name in members:
            reason = "given twice: a member of this name is above"
        if reason:
            problems.append(((*path, index, "pointer"), reason))
        try:
            members[name] = Raw(msgspec.json.encode(_sayable(item.value)))
        except ValueError as error:
            message = str(error)
            if isinstance(error, UnicodeError):
                message = "expected text that is valid Unicode"
            problems.append(((*path, index, "value"), message))
    return members


def _member(pointer: str) -> tuple[str, str]:
    """Return the member that *pointer* names, and what is wrong with that."""
    if not pointer.startswith("/") or pointer == "/":
        return "", 'expected a JSON pointer such as "/seed" (RFC 6901)'
    if "/" in pointer[1:]:
        return "", (
            "a pointer to something within a member is not supported yet; name the "
            "member and give its whole value"
        )
    if re.search(r"~(?![01])", pointer):
        return "", "expected ~0 or ~1 after a tilde (RFC 6901)"
    name = pointer[1:].replace("~1", "/").replace("~0", "~")
    return name, _REFUSED_MEMBERS.get(name, "")


def _sayable(value: Any) -> Any:
    """Return *value* if JSON can say it.

    Raises:
        ValueError: It cannot; msgspec would make null or a string of it.
    """
    if isinstance(value, float) and not math.isfinite(value):
        message = "JSON has neither infinity nor nan: expected a finite number"
        raise ValueError(message)
    if isinstance(value, int) and value.bit_length() > _BITS:
        message = "expected a number with fewer digits"
        raise ValueError(message)
    if isinstance(value, (dt.date, dt.time)):
        message = "JSON has no dates and times: expected a string"
        raise ValueError(message)
    if isinstance(value, dict):
        return {key: _sayable(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_sayable(child) for child in value]
    return value
