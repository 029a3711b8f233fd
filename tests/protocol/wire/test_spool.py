"""Segments survive being cut off, doubled and damaged anywhere."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tz_protocol.wire import spool
from tz_protocol.wire.spool import frame, read_segment

PAYLOADS = st.lists(st.binary(max_size=200), max_size=10)


def segment(payloads):
    return b"".join(map(frame, payloads))


@given(PAYLOADS)
def test_what_went_in_comes_out(payloads):
    found = read_segment(segment(payloads))
    assert found.payloads == payloads
    assert found.damage == 0


@given(PAYLOADS, st.data())
def test_cut_anywhere_keeps_every_whole_payload(payloads, data):
    whole = segment(payloads)
    cut = data.draw(st.integers(0, len(whole)))
    found = read_segment(whole[:cut])
    ends = [len(segment(payloads[: n + 1])) for n in range(len(payloads))]
    kept = sum(end <= cut for end in ends)
    assert found.payloads == payloads[:kept]
    assert found.damage == (0 if cut in (0, *ends) else 1)


@given(PAYLOADS.filter(bool), st.data())
def test_byte_changed_anywhere_costs_at_most_one_payload(payloads, data):
    broken = bytearray(segment(payloads))
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] ^= data.draw(st.integers(1, 255))
    found = read_segment(bytes(broken))
    assert found.damage == 1
    missing = [payload for payload in payloads if payload not in found.payloads]
    assert len(missing) <= 1
    assert len(found.payloads) == len(payloads) - 1


@given(PAYLOADS, st.binary(max_size=60), PAYLOADS)
@example([b"a"], spool._MAGIC, [b"b"])
@example([], spool._MAGIC + b"\x00\x00\x00\x01", [b"b"])
def test_rubbish_between_frames_costs_no_payload(before, rubbish, after):
    found = read_segment(segment(before) + rubbish + segment(after))
    assert found.payloads == [*before, *after]
    assert found.damage == bool(rubbish)


@given(st.binary(max_size=500))
def test_anything_can_be_read(data):
    read_segment(data)


def test_payload_that_holds_a_frame_is_one_payload():
    inner = frame(b"inner")
    assert read_segment(frame(inner)).payloads == [inner]


def test_payload_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(spool, "PAYLOAD_LIMIT", 3)
    with pytest.raises(ValueError, match="4 bytes is over the limit"):
        frame(b"four")
