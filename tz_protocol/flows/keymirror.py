"""Redis -> the process's tables of keys and models, kept up to date.

The one rule: a table is replaced whole and only by what Redis said, and a request
never waits for it. Changes come in three ways, each of which is enough: messages, at
once; our own command line's version number, asked for every second; and a comparison
with everything that Redis holds, every ``RECONCILE_SECONDS``. A message says only that
a name is to be read again, so that one that is lost, late or repeated does no harm.

What cannot be read leaves the old value in use. What is gone from Redis is gone here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tz_protocol.errors import OperationBroken, OperationError, StoreRefused
from tz_protocol.flows.keytables import (
    Change,
    Merger,
    Source,
    id_of,
    keys_of,
    mark_of,
    models_of,
)
from tz_protocol.flows.keyvalues import (
    HASHED,
    MODELS,
    NOTHING,
    Reader,
    Value,
    family_of,
    name_for_log,
)
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Race, Sleep
from tz_protocol.storeops import RedisCommands, RedisMessages, Reply
from tz_protocol.types.keys import Access
from tz_protocol.types.secret import Secret

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["CHANGED_CHANNEL", "RECONCILE_SECONDS", "VERSION_KEY", "KeyMirror"]

VERSION_KEY = "tz:keys:version"
"""A number that our own command line raises with every change."""

CHANGED_CHANNEL = "tz:keys:changed"
"""Where our own command line publishes each name that it changed."""

RECONCILE_SECONDS = 20.0
"""Between two comparisons; with one second for each step it stays below 30."""

POLL_SECONDS = 1.0
ANSWER_SECONDS = 1.0
"""For a version; a Redis that takes longer is taken for gone."""

BATCH_SECONDS = 2.0
"""For a batch of names or values."""

BATCH = 250
"""Values that are read at once: some milliseconds of work for this process."""

_FOREVER = float("inf")
_IDLE_SECONDS = 5.0
"""Between looks at whether a new configuration wants Redis."""

_LISTEN_SECONDS = 30.0

_SCAN_PATTERN = "[am]*_*:*"
"""One pass finds all three kinds of names, and few others."""

_BY_NAME = tuple(
    f"__keyspace@*__:{prefix}*"
    for prefix in ("api_key:", "api_key_hash:", "model_table:")
)
_BY_EVENT = tuple(
    f"__keyevent@*__:{event}"
    for event in ("set", "del", "expired", "evicted", "rename_from", "rename_to")
)


class _Unavailable(Exception):
    """Redis cannot be asked now; the argument is one word for the log."""


Found = tuple[bytes, "bytes | StoreRefused | None"]
"""A name and its value: None if it does not exist, an error if it is no string."""


class KeyMirror:
    """Keeps ``gateway.keys``; :meth:`run` is the flow, which may be begun again."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._book = gateway.keys
        self._context = gateway.context
        self._sources: dict[bytes, Source] = {}
        """By the digest of the name, because a name may hold a key."""
        self._gone: dict[bytes, int] = {}
        """When names were seen to be gone, since the last comparison began: what that
        one read before must not bring them back."""
        self._keys = Merger(keys_of)
        self._models = Merger(models_of)
        self._reader = Reader(None)
        self._access: Access | None = None
        self._sequence = 0
        self._version: object = None
        self._is_due = True
        self._reconciled = -_FOREVER
        self._is_lost: bool | None = None
        self._is_deaf = False
        self._weak = 0

    def run(self) -> Flow[None]:
        """Mirror for as long as the configuration names a Redis."""
        while True:
            access = self._gateway.snapshot.access
            if access is None or access.redis_url is None:
                yield from Sleep(self._context.now + _IDLE_SECONDS)
                continue
            url = access.redis_url
            # Whoever listens may do so for long; the end of the questions is his.
            yield from Race(_FOREVER, (self._poll(url), self._listen(url)))

    def _is_meant(self, url: Secret) -> bool:
        """Return True while the configuration still names this Redis."""
        access = self._gateway.snapshot.access
        return access is not None and access.redis_url == url

    # -- asking -------------------------------------------------------------------

    def _ask(
        self, url: Secret, seconds: float, *commands: tuple[bytes | str | int, ...]
    ) -> Flow[tuple[Reply, ...]]:
        """Return the replies.

        Raises:
            _Unavailable: There are none.
        """
        deadline = self._context.now + seconds
        try:
            return (yield from RedisCommands(deadline, url, commands))
        except OperationBroken as error:
            raise _Unavailable(error.kind) from None
        except OperationError:
            raise _Unavailable("timeout") from None

    def _poll(self, url: Secret) -> Flow[None]:
        """Ask for the version every second; compare everything when it is time."""
        while self._is_meant(url):
            began = self._context.now
            try:
                (version,) = yield from self._ask(
                    url, ANSWER_SECONDS, ("GET", VERSION_KEY)
                )
                if isinstance(version, StoreRefused):
                    if version.code != "WRONGTYPE":
                        raise _Unavailable(version.code)
                    version = None
                yield from self._keep_up(url, version)
            except _Unavailable as error:
                self._lost(str(error))
            else:
                self._heard()
            yield from Sleep(max(began + POLL_SECONDS, self._context.now))

    def _keep_up(self, url: Secret, version: Reply) -> Flow[None]:
        access = self._gateway.snapshot.access
        if access is not None and access is not self._access:
            self._is_due = True
        if version != self._version or self._is_lost is not False:
            self._is_due = True
        since = self._context.now - self._reconciled
        if self._is_due or since >= RECONCILE_SECONDS:
            self._is_due = False
            try:
                yield from self._reconcile(url)
            except BaseException:
                self._is_due = True
                raise
            self._version = version

    def _listen(self, url: Secret) -> Flow[None]:
        """Read again what messages name; a new subscription compares everything."""
        patterns: tuple[str, ...] | None = None
        while True:
            try:
                if patterns is None:
                    patterns = yield from self._patterns(url)
                yield from self._take_messages(url, patterns)
            except _Unavailable as error:
                patterns = None
                self._deafened(str(error))
                yield from Sleep(self._context.now + POLL_SECONDS)

    def _take_messages(self, url: Secret, patterns: tuple[str, ...]) -> Flow[None]:
        deadline = self._context.now + _LISTEN_SECONDS
        try:
            messages = yield from RedisMessages(deadline, url, patterns)
        except OperationBroken as error:
            raise _Unavailable(error.kind) from None
        except OperationError:
            return
        self._is_deaf = False
        if not messages:
            self._is_due = True
            return
        names = dict.fromkeys(_named(channel, data) for channel, data in messages)
        ours = [name for name in names if family_of(name) is not None]
        for batch in _batches(ours, BATCH):
            self._sequence += 1
            sequence = self._sequence
            try:
                found = yield from self._fetch(url, batch)
            except _Unavailable:
                self._is_due = True
                raise
            if self._book.keys is None:
                self._is_due = True  # a first load is under way, and may have missed it
            else:
                self._apply(self._read(found, sequence), sequence)

    def _patterns(self, url: Secret) -> Flow[tuple[str, ...]]:
        """Return what to subscribe to, as far as this Redis tells of changes.

        Whatever it is set to do is enough; nobody's settings are changed.
        """
        (reply,) = yield from self._ask(
            url, ANSWER_SECONDS, ("CONFIG", "GET", "notify-keyspace-events")
        )
        if isinstance(reply, StoreRefused):
            # Where asking is forbidden, listening to both costs nothing.
            return (CHANGED_CHANNEL, *_BY_NAME, *_BY_EVENT)
        flags = reply[-1] if isinstance(reply, list) and reply else b""
        if b"K" in flags:
            return (CHANGED_CHANNEL, *_BY_NAME)
        if b"E" in flags:
            return (CHANGED_CHANNEL, *_BY_EVENT)
        message = (
            "Redis does not tell of changes (notify-keyspace-events): those that "
            "others make are seen only when everything is compared"
        )
        fields = {"every_s": RECONCILE_SECONDS}
        self._context.tell(LogLine("info", message, fields))
        return (CHANGED_CHANNEL,)

    # -- reading ------------------------------------------------------------------

    def _reconcile(self, url: Secret) -> Flow[None]:
        """Compare everything, then replace the tables once."""
        access = self._gateway.snapshot.access
        if access is None:
            return
        is_new = access is not self._access
        if is_new:
            self._reader = Reader(access.read_model)
        self._sequence += 1
        self._gone.clear()
        began = self._sequence
        started = self._context.now
        seen: set[bytes] = set()
        changes: dict[bytes, Source | None] = {}
        cursor: bytes | int = 0
        while True:
            (reply,) = yield from self._ask(
                url,
                BATCH_SECONDS,
                ("SCAN", cursor, "MATCH", _SCAN_PATTERN, "COUNT", 1_000),
            )
            cursor, names = _scanned(reply)
            ours = [name for name in names if family_of(name) is not None]
            for batch in _batches(list(dict.fromkeys(ours)), BATCH):
                self._sequence += 1
                found = yield from self._fetch(url, batch)
                seen.update(id_of(name) for name, value in found if value is not None)
                changes |= self._read(found, self._sequence, is_new=is_new)
                self._alive()
            if cursor in (b"0", 0):
                break
        for name_id, source in self._sources.items():
            if name_id not in seen and source.sequence < began:
                changes[name_id] = None
        self._access = access
        self._apply(changes, began)
        self._reader.forget()
        self._reconciled = started
        self._gateway.metrics.add("tz_redis_reloads_total")

    def _fetch(self, url: Secret, names: Sequence[bytes]) -> Flow[list[Found]]:
        """Return the values of *names*, of which there is at least one."""
        (values,) = yield from self._ask(url, BATCH_SECONDS, ("MGET", *names))
        if not isinstance(values, list) or len(values) != len(names):
            raise _Unavailable(_code(values))
        found: dict[bytes, bytes | StoreRefused | None] = dict(
            zip(names, values, strict=True)
        )
        # MGET says the same of what does not exist and of what is no string.
        empty = [name for name, value in found.items() if value is None]
        if empty:
            asked = tuple(("GET", name) for name in empty)
            replies = yield from self._ask(url, BATCH_SECONDS, *asked)
            for name, reply in zip(empty, replies, strict=True):
                if isinstance(reply, StoreRefused) and reply.code != "WRONGTYPE":
                    raise _Unavailable(reply.code)
                found[name] = reply
        return list(found.items())

    def _read(
        self, found: Iterable[Found], sequence: int, *, is_new: bool = False
    ) -> dict[bytes, Source | None]:
        """Return, by the name's digest, what has changed; None: it is gone."""
        changes: dict[bytes, Source | None] = {}
        for name, data in found:
            name_id = id_of(name)
            old = self._sources.get(name_id)
            if data is None:
                # Even if it was never here: a comparison may be about to bring it.
                changes[name_id] = None
                continue
            if is_new and name.startswith(MODELS):
                old = None  # what may be used is to be decided anew
            mark = mark_of(data)
            if old is not None and old.mark == mark:
                continue
            try:
                value = self._value(name, data)
            except ValueError as error:
                self._tell_bad(name, str(error))
                value = NOTHING if old is None else old.value
            else:
                self._weak += value.weak
            is_hashed = name.startswith(HASHED)
            changes[name_id] = Source(sequence, mark, value, is_hashed)
        return changes

    def _value(self, name: bytes, data: bytes | StoreRefused) -> Value:
        if isinstance(data, StoreRefused):
            message = "it is not a string"
            raise ValueError(message)
        return self._reader.read(name, data)

    # -- the tables ---------------------------------------------------------------

    def _apply(self, changes: dict[bytes, Source | None], sequence: int) -> None:
        """Replace the tables by ones with *changes*, all of them or none.

        What was read after *sequence* by somebody else is newer and stays.
        """
        sources = self._sources
        real: list[Change] = []
        for name_id, new in changes.items():
            old = sources.get(name_id)
            asked = sequence if new is None else new.sequence
            known = self._gone.get(name_id, 0) if old is None else old.sequence
            if known <= asked:
                real.append((name_id, old, new))
        for name_id, _old, new in real:
            if new is None:
                sources.pop(name_id, None)
                self._gone[name_id] = sequence
            else:
                sources[name_id] = new
        if real or self._book.keys is None:
            self._book.replace(
                self._keys.merge(self._book.keys, real, sources),
                self._models.merge(self._book.models, real, sources),
            )
        if self._weak:
            message = "API keys in Redis are short enough to be guessed"
            self._context.tell(LogLine("warning", message, {"keys": self._weak}))
            self._weak = 0

    # -- telling ------------------------------------------------------------------

    def _alive(self) -> None:
        """Redis answers; that is news of it unless something has been missed."""
        if self._is_lost is False:
            self._book.heard(self._context.now)

    def _heard(self) -> None:
        self._book.heard(self._context.now)
        if self._is_lost is not False:
            fields = {
                "keys": len(self._book.keys or ()),
                "models": len(self._book.models),
            }
            message = "the API keys were loaded from Redis"
            self._context.tell(LogLine("info", message, fields))
        self._is_lost = False

    def _lost(self, reason: str) -> None:
        self._book.lost()
        self._count_failure("poll", reason)
        if not self._is_lost:
            message = "Redis cannot be asked for API keys"
            fields = {"reason": reason, "is_loaded": self._book.keys is not None}
            self._context.tell(LogLine("error", message, fields))
        self._is_lost = True

    def _deafened(self, reason: str) -> None:
        self._count_failure("messages", reason)
        if not self._is_deaf and self._is_lost is False:
            self._is_deaf = True
            message = "Redis sends no messages: changes are found by comparing"
            self._context.tell(LogLine("warning", message, {"reason": reason}))

    def _count_failure(self, purpose: str, reason: str) -> None:
        add = self._gateway.metrics.add
        add("tz_redis_failures_total", purpose=purpose, reason=reason.lower()[:40])

    def _tell_bad(self, name: bytes, reason: str) -> None:
        self._gateway.metrics.add("tz_redis_bad_values_total")
        message = "a value in Redis cannot be used: the old one stays in use"
        fields = {"key": name_for_log(name), "reason": reason}
        self._context.tell(LogLine("error", message, fields))


def _named(channel: bytes, data: bytes) -> bytes:
    """Return the name that a message is about."""
    if channel.startswith(b"__keyspace@"):
        return channel.partition(b"__:")[2]
    return data


def _scanned(reply: Reply) -> tuple[bytes | int, list[bytes]]:
    if not isinstance(reply, list) or len(reply) != 2:
        raise _Unavailable(_code(reply))
    cursor, names = reply
    return cursor, names


def _code(reply: Reply) -> str:
    return reply.code if isinstance(reply, StoreRefused) else "garbled"


def _batches(items: list[bytes], size: int) -> Iterable[list[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))
