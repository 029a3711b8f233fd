"""The mirror's memory: what stands under each name, and tables made of it.

The one rule: a table is a new object made of the old one and of what has changed; an
entry of several names is decided by the names alone, whatever came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from tz_protocol.errors import StoreRefused
from tz_protocol.flows.keyvalues import Value
from tz_protocol.types.keys import Principal
from tz_protocol.types.settings import Model

__all__ = ["Change", "Merger", "Source", "id_of", "keys_of", "mark_of", "models_of"]

K = TypeVar("K")
T = TypeVar("T")


class Source:
    """One name in Redis, as it was last read."""

    __slots__ = ("is_hashed", "mark", "sequence", "value")

    def __init__(
        self, sequence: int, mark: bytes, value: Value, is_hashed: bool
    ) -> None:
        self.sequence = sequence
        self.mark = mark
        self.value = value
        self.is_hashed = is_hashed


Change = tuple[bytes, Source | None, Source | None]
"""The digest of a name, what stood under it before, and what does now."""


def id_of(name: bytes) -> bytes:
    """Return what a name is remembered by: it may hold a key."""
    return hashlib.blake2b(name, digest_size=16).digest()


def mark_of(data: bytes | StoreRefused) -> bytes:
    """Return what tells one value from another."""
    if isinstance(data, StoreRefused):
        return b""
    return hashlib.blake2b(data, digest_size=8).digest()


def keys_of(value: Value) -> Iterable[tuple[bytes, Principal]]:
    """Return the keys that a value has, by their digests."""
    return ((principal.digest, principal) for principal in value.keys)


def models_of(value: Value) -> Iterable[tuple[str, Model]]:
    """Return the models that a value has, by their ids."""
    return value.models


class Merger(Generic[K, T]):
    """Keeps one table up to date with what stands under each name.

    Of an entry that stands under several names, the one under a hashed name counts,
    then the one whose name's digest is greatest: the same whatever came first.

    Args:
        entries_of: What a value has for this table.
    """

    __slots__ = ("_claims", "_entries_of")

    def __init__(self, entries_of: Callable[[Value], Iterable[tuple[K, T]]]) -> None:
        self._entries_of = entries_of
        self._claims = 0
        """Entries under all names together."""

    def merge(
        self,
        table: Mapping[K, T] | None,
        changes: Sequence[Change],
        sources: Mapping[bytes, Source],
    ) -> Mapping[K, T]:
        """Return *table* with *changes*, which *sources* has already."""
        gone = [(name, *pair) for name, old, _ in changes for pair in self._of(old)]
        come = [(name, *pair) for name, _, new in changes for pair in self._of(new)]
        if not gone and not come:
            return {} if table is None else table
        merged = dict(table or {})
        # Whether anything stands under several names; looking for it takes long.
        has_rivals = self._claims != len(merged)
        self._claims += len(come) - len(gone)
        lost: dict[K, bytes] = {}
        contested: set[K] = set()
        for name_id, key, entry in gone:
            if merged.get(key) is entry:
                del merged[key]
                lost[key] = name_id
        for name_id, key, entry in come:
            if key in merged or lost.get(key, name_id) != name_id:
                contested.add(key)
            else:
                merged[key] = entry
                lost.pop(key, None)
        if has_rivals:
            contested.update(lost)
        if contested:
            self._decide(contested, merged, sources)
        return merged

    def _of(self, source: Source | None) -> Iterable[tuple[K, T]]:
        return () if source is None else self._entries_of(source.value)

    def _decide(
        self, contested: set[K], table: dict[K, T], sources: Mapping[bytes, Source]
    ) -> None:
        best: dict[K, tuple[bool, bytes]] = {}
        for name_id, source in sources.items():
            for key, entry in self._entries_of(source.value):
                rank = (source.is_hashed, name_id)
                if key in contested and rank > best.get(key, (False, b"")):
                    best[key] = rank
                    table[key] = entry
