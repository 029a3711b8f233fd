"""What the audio endpoints relay besides bytes."""

from __future__ import annotations

import msgspec

__all__ = ["BodyOpened"]


class BodyOpened(msgspec.Struct, frozen=True):
    """The provider's body is relayed as it is: bytes, not events, follow.

    The value of the first part of such a stream; not content.
    """

    content_type: str
    """What the provider calls it, fit for a header."""
