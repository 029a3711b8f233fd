"""Spool segments: payloads <-> frames that survive being cut off anywhere.

The one rule: a payload that comes out is one that went in, whole. A process may die,
and a disk fill up, in the middle of a frame; what is damaged is passed over up to the
next frame, and counted. What a payload is, is not known here.

A frame is: four bytes that tell it from its surroundings, the length of the payload and
a CRC-32 of length and payload (32 bits each, big-endian), the payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from zlib import crc32

__all__ = ["PAYLOAD_LIMIT", "Segment", "frame", "read_segment"]

PAYLOAD_LIMIT = 268_435_456
"""Bytes: a length beyond 256 MiB is no length, but damage."""

_MAGIC = b"\xf5TZ1"
# 0xF5 is in no UTF-8 text, so that content is rarely taken for the start of a frame.
_HEAD = Struct(">4sII")
_LENGTH = Struct(">I")


def frame(payload: bytes) -> bytes:
    """Return *payload* as it stands in a segment.

    Raises:
        ValueError: It is longer than ``PAYLOAD_LIMIT``.
    """
    if len(payload) > PAYLOAD_LIMIT:
        message = f"a payload of {len(payload)} bytes is over the limit"
        raise ValueError(message)
    return _HEAD.pack(_MAGIC, len(payload), _checksum(payload)) + payload


def _checksum(payload: bytes | memoryview) -> int:
    return crc32(payload, crc32(_LENGTH.pack(len(payload))))


class Segment:
    """What a segment holds."""

    __slots__ = ("damage", "payloads")

    def __init__(self, payloads: list[bytes], damage: int) -> None:
        self.payloads = payloads
        """In the order in which they went in."""
        self.damage = damage
        """Stretches that could not be read."""


def read_segment(data: bytes) -> Segment:
    """Return everything in *data* that is whole."""
    payloads: list[bytes] = []
    view, at, damage = memoryview(data), 0, 0
    while at < len(data):
        end = _end_of_frame(view, at)
        if end:
            payloads.append(data[at + _HEAD.size : end])
            at = end
            continue
        damage += 1
        at = _next_frame(data, view, at + 1)
    return Segment(payloads, damage)


def _next_frame(data: bytes, view: memoryview, at: int) -> int:
    """Return where the next whole frame begins, the end of *data* if none does."""
    for place in _places(data, at):
        if _end_of_frame(view, place):
            return place
    return len(data)


def _places(data: bytes, at: int) -> Iterable[int]:
    while (at := data.find(_MAGIC, at)) >= 0:
        yield at
        at += 1


def _end_of_frame(view: memoryview, at: int) -> int:
    """Return where the whole frame at *at* ends, 0 if there is none."""
    if at + _HEAD.size > len(view):
        return 0
    magic, length, checksum = _HEAD.unpack_from(view, at)
    start = at + _HEAD.size
    if magic != _MAGIC or length > PAYLOAD_LIMIT or start + length > len(view):
        return 0
    payload = view[start : start + length]
    return start + length if _checksum(payload) == checksum else 0
