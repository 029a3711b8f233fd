"""What the core tells without expecting an answer.

The one rule: a notice never waits and never fails. Cleanup may emit one, which is why
closing a connection is a notice and not an operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tz_protocol.operations import Handle

__all__ = ["Close", "LogLine", "Notice", "RecordNotice"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Base of everything that a machine's ``notices()`` returns."""


@dataclass(frozen=True, slots=True)
class Close(Notice):
    """Close this handle now, without waiting for a graceful end."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class LogLine(Notice):
    """One line for the log; ``cli.logs.render`` makes the text."""

    level: str
    """``debug``, ``info``, ``warning`` or ``error``."""
    message: str
    """A fixed sentence; what varies is in ``fields``."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Values that JSON can carry; never a secret, never a prompt."""


@dataclass(frozen=True, slots=True)
class RecordNotice(Notice):
    """The one terminal record of an exchange, as it settled."""

    record: Any
    """A ``tz_protocol.types.record.Record``."""
