"""Ids of tool calls, made without entropy.

The one rule: the same input makes the same id, so that a call and its result, and two
attempts at two providers, agree without anybody remembering anything.
"""

from __future__ import annotations

import re
from hashlib import blake2b

__all__ = ["CallIds", "legal_id", "legal_name", "minted_id", "short_id"]


def minted_id(*parts: object) -> str:
    """Return an id for something that its vendor gave none.

    Args:
        parts: What makes it unique: the id of the answer, the choice, the place of
            the call, its name.

    Returns:
        29 characters of ``[a-z0-9_]``, legal for every vendor but Mistral.
    """
    text = "\x1f".join(map(str, parts))
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12)
    return f"call_{digest.hexdigest()}"


class CallIds:
    """The ids of one choice's calls: the vendor's, where it gave one and gave it once.

    Callers match results with calls by them, and have nothing else to match by.
    """

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: set[str] = set()

    def own(self, stated: str | None, *parts: object) -> str:
        """Return the id of the next call.

        Args:
            stated: By the vendor; may be empty.
            parts: What makes it unique, as for :func:`minted_id`.
        """
        call_id = stated
        if not call_id or call_id in self._used:
            call_id = minted_id(*parts)
        self._used.add(call_id)
        return call_id


def legal_id(value: str, pattern: re.Pattern[str]) -> str:
    """Return *value* if a vendor takes it, and else an id that stands for it.

    Args:
        value: An id as the caller wrote it.
        pattern: What the vendor takes, matched whole.
    """
    return value if pattern.fullmatch(value) else minted_id("foreign", value)


def legal_name(name: str, pattern: re.Pattern[str], size: int) -> str:
    """Return *name* if a vendor takes it, and else a name that stands for it.

    For calls of the past only: what the model may call must have its own name.

    Args:
        name: Of a tool.
        pattern: What the vendor takes, matched whole; letters, digits and ``_`` are.
        size: Characters that the vendor takes.
    """
    if pattern.fullmatch(name):
        return name
    mark = short_id(name, 6)
    clean = _NOT_IN_NAMES.sub("_", name)[: size - 7]
    return f"{clean}_{mark}"


_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


def short_id(value: str, size: int) -> str:
    """Return *size* small letters and digits that stand for *value*."""
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    number = int.from_bytes(digest)
    made = ""
    for _ in range(size):
        number, place = divmod(number, len(_LETTERS))
        made += _LETTERS[place]
    return made


_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
