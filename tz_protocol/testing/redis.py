"""A Redis in memory, for ``Simulator``: strings, hashes, messages, and faults.

The one rule: a test holds one of these and changes it, between steps or at a moment of
the simulated clock, as people and failures change a real one. It knows the commands
that the core uses, answers with what the protocol would bring, and tells subscribers of
changes as far as ``events`` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from tz_protocol.errors import OperationBroken, StoreRefused

__all__ = ["ScriptedRedis", "Subscription"]

State = Literal["up", "down", "frozen", "denied"]


class Subscription:
    """What one subscriber has not read yet."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = tuple(_glob(pattern.encode()) for pattern in patterns)
        self.is_begun = False
        self.waiting: list[tuple[bytes, bytes]] = []

    def take(self) -> tuple[tuple[bytes, bytes], ...] | None:
        """Return what an operation would be answered with, None if it must wait."""
        if not self.is_begun:
            self.is_begun = True
            return ()
        if not self.waiting:
            return None
        taken, self.waiting = tuple(self.waiting), []
        return taken


class ScriptedRedis:
    """One server.

    Args:
        events: Its ``notify-keyspace-events``, of which K and E are looked at.
    """

    def __init__(self, events: str = "KEA") -> None:
        self.events = events
        self.data: dict[bytes, bytes | dict[bytes, bytes]] = {}
        self.expires: dict[bytes, float] = {}
        """By name, on the clock of :attr:`now`."""
        self.now: Callable[[], float] = lambda: 0.0
        """The simulator sets its own clock."""
        self.latency = 0.0
        """Seconds before a pipeline is carried out and answered."""
        self.page = 10
        """Names that one SCAN looks at."""
        self.refusals: dict[str, str] = {}
        """Command -> code of the error that it is answered with."""
        self.drops_events = False
        """True: subscribers are told nothing, and do not notice."""
        self.pipelines: list[tuple[tuple[Any, ...], ...]] = []
        """All that were carried out."""
        self.watchers: list[Callable[[], None]] = []
        """Called when something may have become possible."""
        self._state: State = "up"
        self._subscriptions: dict[tuple[str, ...], Subscription] = {}
        self._cursors: list[bytes] = [b""]

    # -- what a test does to it ---------------------------------------------------

    @property
    def state(self) -> State:
        """``down`` refuses connections, ``frozen`` says nothing, ``denied`` wants a
        password. Leaving ``up`` for ``down`` or ``denied`` ends every subscription."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        if state in ("down", "denied"):
            self._subscriptions.clear()
        self._changed()

    def cut(self) -> None:
        """End every subscription; what they had not read is lost."""
        self._subscriptions.clear()
        self._changed()

    def run(self, *command: Any) -> Any:
        """Carry out one command at once, whatever the state; return its reply."""
        return self._run(tuple(_bytes(part) for part in command))

    def evict(self, name: str) -> None:
        """Remove *name* as a full server does."""
        if self.data.pop(name.encode(), None) is not None:
            self._tell(name.encode(), b"evicted")

    def flush(self, *, silently: bool = True) -> None:
        """Remove everything; a server tells nobody of it."""
        names = list(self.data)
        self.data.clear()
        self.expires.clear()
        if not silently:
            for name in names:
                self._tell(name, b"del")

    # -- what the simulator asks --------------------------------------------------

    def check(self) -> None:
        """Raise what a connection finds; call unless frozen."""
        if self._state == "down":
            raise OperationBroken("refused")
        if self._state == "denied":
            raise OperationBroken("denied")

    def carry_out(self, commands: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
        """Return the replies of a pipeline."""
        self.pipelines.append(commands)
        return tuple(self.run(*command) for command in commands)

    def subscription(self, patterns: tuple[str, ...]) -> Subscription:
        """Return the subscription to *patterns*, a new one if there is none."""
        found = self._subscriptions.get(patterns)
        if found is None:
            found = self._subscriptions[patterns] = Subscription(patterns)
        return found

    def has(self, subscription: Subscription) -> bool:
        """Return False if *subscription* was lost."""
        return subscription in self._subscriptions.values()

    # -- commands -----------------------------------------------------------------

    def _run(self, command: tuple[bytes, ...]) -> Any:
        self._expire()
        word = command[0].decode().upper()
        if word in self.refusals:
            return StoreRefused(self.refusals[word])
        perform = _COMMANDS.get(word)
        assert perform is not None, f"the scripted Redis has no command {word}"
        try:
            return perform(self, *command[1:])
        except TypeError:
            return StoreRefused("WRONGTYPE")

    def _expire(self) -> None:
        for name, when in list(self.expires.items()):
            if when <= self.now():
                del self.expires[name]
                if self.data.pop(name, None) is not None:
                    self._tell(name, b"expired")

    def _string(self, name: bytes) -> bytes | None:
        value = self.data.get(name)
        if isinstance(value, dict):
            raise TypeError
        return value

    def _hash(self, name: bytes) -> dict[bytes, bytes]:
        value = self.data.setdefault(name, {})
        if not isinstance(value, dict):
            raise TypeError
        return value

    def _get(self, name: bytes) -> bytes | None:
        return self._string(name)

    def _mget(self, *names: bytes) -> list[bytes | None]:
        values = (self.data.get(name) for name in names)
        return [value if isinstance(value, bytes) else None for value in values]

    def _set(self, name: bytes, value: bytes) -> bytes:
        self.data[name] = value
        self.expires.pop(name, None)
        self._tell(name, b"set")
        return b"OK"

    def _delete(self, *names: bytes) -> int:
        count = 0
        for name in names:
            if self.data.pop(name, None) is not None:
                count += 1
                self._tell(name, b"del")
        return count

    def _rename(self, old: bytes, new: bytes) -> bytes | StoreRefused:
        if old not in self.data:
            return StoreRefused("ERR")
        self.data[new] = self.data.pop(old)
        self._tell(old, b"rename_from")
        self._tell(new, b"rename_to")
        return b"OK"

    def _increase(self, name: bytes) -> int:
        number = int(self._string(name) or b"0") + 1
        self.data[name] = b"%d" % number
        self._tell(name, b"incrby")
        return number

    def _hset(self, name: bytes, *pairs: bytes) -> int:
        self._hash(name).update(zip(pairs[::2], pairs[1::2], strict=True))
        self._tell(name, b"hset")
        return len(pairs) // 2

    def _hgetall(self, name: bytes) -> list[bytes]:
        if name not in self.data:
            return []
        return [part for pair in self._hash(name).items() for part in pair]

    def _expire_after(self, name: bytes, seconds: bytes) -> int:
        if name not in self.data:
            return 0
        self.expires[name] = self.now() + int(seconds)
        return 1

    def _flushdb(self) -> bytes:
        self.flush()
        return b"OK"

    def _publish(self, channel: bytes, data: bytes) -> int:
        return self._send(channel, data)

    def _config(self, word: bytes, name: bytes) -> list[bytes]:
        assert (word, name) == (b"GET", b"notify-keyspace-events"), (word, name)
        return [name, self.events.encode()]

    def _scan(
        self, cursor: bytes, _match: bytes, pattern: bytes, _count: bytes, _n: bytes
    ) -> list[Any]:
        """Go on after the last name looked at: what stays is found whatever changes."""
        after = self._cursors[int(cursor)]
        names = sorted(name for name in self.data if name > after)
        looked_at, rest = names[: self.page], names[self.page :]
        following = b"0"
        if rest:
            self._cursors.append(looked_at[-1])
            following = b"%d" % (len(self._cursors) - 1)
        glob = _glob(pattern)
        return [following, [name for name in looked_at if glob.fullmatch(name)]]

    # -- messages -----------------------------------------------------------------

    def _tell(self, name: bytes, event: bytes) -> None:
        if self.drops_events:
            return
        if "K" in self.events:
            self._send(b"__keyspace@0__:" + name, event)
        if "E" in self.events:
            self._send(b"__keyevent@0__:" + event, name)

    def _send(self, channel: bytes, data: bytes) -> int:
        found = [
            subscription
            for subscription in self._subscriptions.values()
            if subscription.is_begun
            and any(glob.fullmatch(channel) for glob in subscription.patterns)
        ]
        for subscription in found:
            subscription.waiting.append((channel, data))
        if found:
            self._changed()
        return len(found)

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()


_COMMANDS: dict[str, Callable[..., Any]] = {
    "CONFIG": ScriptedRedis._config,
    "DEL": ScriptedRedis._delete,
    "EXPIRE": ScriptedRedis._expire_after,
    "FLUSHDB": ScriptedRedis._flushdb,
    "GET": ScriptedRedis._get,
    "HGETALL": ScriptedRedis._hgetall,
    "HSET": ScriptedRedis._hset,
    "INCR": ScriptedRedis._increase,
    "MGET": ScriptedRedis._mget,
    "PUBLISH": ScriptedRedis._publish,
    "RENAME": ScriptedRedis._rename,
    "SCAN": ScriptedRedis._scan,
    "SET": ScriptedRedis._set,
}


def _bytes(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def _glob(pattern: bytes) -> re.Pattern[bytes]:
    """Return Redis's glob as an expression: ``*``, ``?`` and ``[abc]``."""
    parts = re.split(rb"(\*|\?|\[[^\]]*\])", pattern)
    words = {b"*": b".*", b"?": b"."}
    return re.compile(
        b"".join(
            words.get(part, part if part[:1] == b"[" else re.escape(part))
            for part in parts
        ),
        re.DOTALL,
    )
