"""What a flow may ask of a store, Redis commands and messages; and random bytes.

The one rule: the same as for ``operations.py``, whose table these complete: an
operation is data with a deadline, and the deadline is the only clock. The backend sets
no timeout, no retry and no reconnection of its own (the ``redis`` library's defaults
hang for seconds on a dead server). Which keys, when and what they mean is
``flows/keymirror.py``'s and ``flows/limitsync.py``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tz_protocol.operations import Operation
from tz_protocol.types.secret import Secret

__all__ = [
    "MESSAGE_LIMIT",
    "RandomBytes",
    "RedisArgument",
    "RedisCommands",
    "RedisMessages",
    "Reply",
]

RedisArgument: TypeAlias = bytes | str | int | float

Reply: TypeAlias = Any
"""``bytes`` (status replies too), ``int``, ``None``, a ``list`` of replies, or an
``errors.StoreRefused`` in the place of a command that was answered with an error."""


@dataclass(frozen=True, slots=True)
class RedisCommands(Operation[tuple[Reply, ...]]):
    """Send *commands* in one pipeline (no MULTI); return their replies in order.

    Replies are as the server sends them: nothing is decoded, and what the library would
    make of one (a set, a dict, a tuple, a bool) is a list, bytes or an int. A command
    that the server answers with an error has an ``errors.StoreRefused`` in its place
    and does not disturb the others. Fails with ``OperationBroken`` if the server cannot
    be reached, if the connection is lost, or if the server refuses the connection:
    kinds ``dns``, ``refused``, ``tls``, ``reset``, ``missing`` (a socket's path),
    ``denied`` (NOAUTH, WRONGPASS or NOPERM while connecting), and ``url`` for one that
    points nowhere. What was sent before a failure may or may not have been done. A
    connection whose operation did not end well is closed, never used again.
    """

    url: Secret
    """What the ``redis`` library's ``from_url`` takes: ``redis://``, ``rediss://``,
    ``unix://``; and ``redis+sentinel://host:port,host:port/service/db``."""
    commands: tuple[tuple[RedisArgument, ...], ...] = field(repr=False)
    """Not shown: a name or a value may hold an API key."""


@dataclass(frozen=True, slots=True)
class RedisMessages(Operation[tuple[tuple[bytes, bytes], ...]]):
    """Return (channel, data) of the next one or more messages on *patterns*, in order.

    The first answer of a subscription is empty: it has just begun (every PSUBSCRIBE is
    confirmed), and whatever happened before is to be looked for elsewhere. The backend
    keeps one subscription per (url, patterns), and what arrives on it, across this
    operation's deadlines and cancellations, until it is lost, or until the backend is
    closed. A lost one, and one on which more than ``MESSAGE_LIMIT`` messages wait,
    fails with ``OperationBroken`` (kinds as for ``RedisCommands``, and ``overflow``)
    and is forgotten; asking again begins anew.
    """

    url: Secret
    patterns: tuple[str, ...]


MESSAGE_LIMIT = 10_000
"""Messages that may wait on one subscription; a reload is cheaper than more."""


@dataclass(frozen=True, slots=True)
class RandomBytes(Operation[bytes]):
    """Return *count* bytes from the operating system's source for keys."""

    count: int
