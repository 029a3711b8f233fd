"""Notices -> lines of the log: one line each, whatever they carry.

The one rule: what a stranger wrote cannot leave its value. Every character that is not
printable is escaped, so that no line can be forged and no terminal commanded. Prompts
and secrets never come here: a record has no field for them.
"""

from __future__ import annotations

import json
import re
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec

from tz_protocol.cli.options import LogFormat, LogLevel, LogSettings
from tz_protocol.notices import LogLine, Notice, RecordNotice
from tz_protocol.records.record import AttemptRecord, Outcome, Record

__all__ = [
    "Backlog",
    "access_level",
    "is_wanted",
    "line_of",
    "printable",
    "render",
]

_RANKS: dict[str, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}

_QUIET_OUTCOMES = frozenset({Outcome.OK, Outcome.CLIENT_GONE, Outcome.CLIENT_STALLED})
"""Ends that say nothing about the gateway or the providers."""

_MOST_CHARACTERS = 200
"""Of a value that a caller or a provider chose; a model's name is far shorter."""

_MOST_NAMES = 20
"""Of parameters that were dropped, whose names callers make up."""

_BARE = re.compile(r"[^\s\"=\\]+")
"""Values that the pretty format shows without quotes."""

_PARTS_OF_TOKENS = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")

Fields = dict[str, Any]


class Backlog:
    """Notices on their way to a log that may be slow; bounded.

    One thread may add while another takes.

    Args:
        settings: From ``Invocation.log``.
        limit: Notices that may wait; what comes past it is dropped, and counted.
    """

    def __init__(self, settings: LogSettings, limit: int = 10_000) -> None:
        self._settings = settings
        self._limit = limit
        self._waiting: deque[tuple[Notice, float]] = deque()
        self._dropped = 0

    def add(self, notice: Notice, wall: float) -> bool:
        """Keep *notice* if it is wanted; return True if there is now more to take."""
        if not is_wanted(notice, self._settings.level):
            return False
        if len(self._waiting) >= self._limit:
            self._dropped += 1
            return False
        if self._dropped:
            fields, self._dropped = {"lines": self._dropped}, 0
            message = "the log is not read fast enough: lines are lost"
            self._waiting.append((LogLine("error", message, fields), wall))
        self._waiting.append((notice, wall))
        return True

    def take(self) -> str:
        """Return what has come since the last call, a line for each notice."""
        lines: list[str] = []
        while self._waiting:
            notice, wall = self._waiting.popleft()
            line = line_of(notice, self._settings, wall)
            if line is not None:
                lines.append(line + "\n")
        return "".join(lines)


def line_of(notice: Notice, settings: LogSettings, wall: float) -> str | None:
    """Return the line that a transport's sink writes, or None if there is none.

    Args:
        notice: Any notice.
        settings: From ``Invocation.log``.
        wall: Unix seconds.
    """
    if not is_wanted(notice, settings.level):
        return None
    return render(notice, log_format=settings.log_format, wall=wall)


def is_wanted(notice: Notice, level: LogLevel) -> bool:
    """Return True if *notice* is a line of the log at *level* or above."""
    if isinstance(notice, LogLine):
        own = notice.level
    elif isinstance(notice, RecordNotice):
        own = access_level(notice.record)
    else:
        return False
    return _RANKS.get(own, _RANKS["error"]) >= _RANKS[level]


def access_level(record: Record) -> LogLevel:
    """Return ``warning`` for an exchange that an operator should look at."""
    if record.outcome in _QUIET_OUTCOMES:
        return "info"
    is_callers_fault = record.outcome is Outcome.ERROR and (record.status or 500) < 500
    return "info" if is_callers_fault else "warning"


def render(notice: Notice, *, log_format: LogFormat, wall: float) -> str | None:
    """Return *notice* as one line without its end; None if it is not for the log.

    Args:
        notice: A ``LogLine``, or a ``RecordNotice`` for the access log.
        log_format: ``json`` has one object a line; ``pretty`` is for people.
        wall: Unix seconds.
    """
    if isinstance(notice, LogLine):
        level, message, fields = notice.level, notice.message, notice.fields
    elif isinstance(notice, RecordNotice):
        record: Record = notice.record
        level, message, fields = access_level(record), "request", _access(record)
    else:
        return None
    if log_format == "json":
        return _json_line(level, message, fields, wall)
    return _pretty_line(level, message, fields, wall)


# -- the access line ------------------------------------------------------------


def _access(record: Record) -> Fields:
    """Return what the access line says, in the order in which it says it."""
    fields: Fields = {
        "endpoint": record.endpoint,
        "status": record.status,
        "outcome": None if record.outcome is None else record.outcome.value,
        "error": None if record.error is None else record.error[:_MOST_CHARACTERS],
        "model": record.model,
        "asked_model": None,
        "provider": record.provider,
        "key": record.key_id,
        "project": record.project_id or None,
        "stream": record.is_stream,
        "duration_ms": _ms(record.duration),
        "first_content_ms": _ms(record.first_content),
        "attempts": [_attempt(attempt) for attempt in record.attempts],
        "stage": None if record.outcome is Outcome.OK else record.stage.value,
        "dropped": _names(record.dropped),
        "skipped_events": record.skipped_events or None,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "request_id": record.request_id,
        "id": record.id,
        "config_id": record.config_id,
    }
    if record.asked_model is not None and record.asked_model != record.model:
        fields["asked_model"] = record.asked_model[:_MOST_CHARACTERS]
    if record.cache:
        fields["cache"] = record.cache
    if record.usage is not None:
        fields["input_tokens"] = record.usage.input_tokens
        fields["output_tokens"] = record.usage.output_tokens
        for name in _PARTS_OF_TOKENS:
            if count := getattr(record.usage, name):
                fields[name] = count
        if record.usage.quality != "known":
            fields["usage"] = record.usage.quality
    if record.cost is not None:
        fields["cost"] = f"{record.cost:f}"
    return {name: value for name, value in fields.items() if value is not None}


def _names(dropped: tuple[str, ...]) -> list[str] | None:
    names = [name[:_MOST_CHARACTERS] for name in dropped[:_MOST_NAMES]]
    if len(dropped) > _MOST_NAMES:
        names.append(f"and {len(dropped) - _MOST_NAMES} more")
    return names or None


def _attempt(attempt: AttemptRecord) -> Fields:
    seconds = None if attempt.ended is None else attempt.ended - attempt.started
    fields: Fields = {
        "model": attempt.model,
        "provider": attempt.provider,
        "hedge": attempt.is_hedge or None,
        "calls": len(attempt.calls) or None,
        "status": attempt.status,
        "error": attempt.error,
        "ms": _ms(seconds),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


# -- the two formats ------------------------------------------------------------


def _json_line(level: str, message: str, fields: Fields, wall: float) -> str:
    # The four names of our own come first and cannot be replaced.
    own = {"time": _time(wall), "level": level, "message": message}
    document = {**own, **fields, **own}
    return printable(_encode(document))


def _pretty_line(level: str, message: str, fields: Fields, wall: float) -> str:
    pairs = "".join(f" {_shown(name)}={_shown(v)}" for name, v in fields.items())
    return f"{_time(wall)} {printable(level):<7} {printable(message)}{pairs}"


def _shown(value: Any) -> str:
    """Return one value of the pretty format, bare if nothing in it could mislead."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, str) and _BARE.fullmatch(value):
        return printable(value)
    return printable(_encode(value))


def _encode(value: Any) -> str:
    """Return *value* as JSON; what JSON has no form for becomes its text."""
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        # A lone surrogate, a number of more than 64 bits, a key that is no string.
        return json.dumps(_plain(value, 0))


def _plain(value: Any, depth: int) -> Any:
    """Return *value* made of what ``json`` can write: no NaN, no infinite depth."""
    if depth > 20:
        return "..."
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def printable(text: str) -> str:
    """Return *text* with every character that is not printable as ``\\uXXXX``.

    Inside a JSON document such a character can only stand in a string, where the
    escape means the same.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:  # a surrogate pair (RFC 8259, section 7)
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def _time(wall: float) -> str:
    """Return RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
    return moment.removesuffix("+00:00") + "Z"
