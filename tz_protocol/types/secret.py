"""A secret that cannot be printed, formatted or serialised by accident."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """Holds one secret string; :meth:`reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret; call only where it goes onto the wire."""
        return self._value

    def __repr__(self) -> str:
        """Return three stars."""
        return "***"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        """Return three stars whatever the format."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Compare by value, so that two config snapshots can be compared."""
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied out."""
        message = "a secret cannot be serialised"
        raise TypeError(message)
