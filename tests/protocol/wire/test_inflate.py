from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire.feeding import cut, in_bytes
from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.inflate import PIECE_BYTES, Inflater

TEXT = b"The quick brown fox jumps over the lazy dog. " * 20


def raw_deflate(data):
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    " GZIP ": gzip.compress,
    "deflate": zlib.compress,
    "deflate (raw)": raw_deflate,
}
SPLITS = {"whole": lambda data: [data], "bytes": in_bytes}


def inflated(encoding, pieces, limit=1_000_000):
    inflater = Inflater(encoding.partition("(")[0], limit)
    found = b"".join(piece for data in pieces for piece in decoded(inflater, data))
    inflater.receive_eof()
    return found


def decoded(inflater, data):
    """Yield all that *data* decodes to."""
    yield inflater.receive_data(data)
    while inflater.has_more:
        yield inflater.receive_data(b"")


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_body_is_decoded_however_split(encoding, split):
    assert inflated(encoding, split(ENCODERS[encoding](TEXT))) == TEXT


@given(
    st.sampled_from(sorted(ENCODERS)),
    st.binary(max_size=300),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_body_comes_out_as_it_went_in(encoding, body, places):
    assert inflated(encoding, cut(ENCODERS[encoding](body), places)) == body


@given(
    st.sampled_from(sorted(ENCODERS)),
    st.binary(max_size=60),
    st.lists(st.integers(0, 80), max_size=5),
)
def test_any_bytes_are_decoded_or_refused_however_split(encoding, data, places):
    def outcome(pieces):
        try:
            return inflated(encoding, pieces, 1_000)
        except RemoteProtocolError as error:
            return error.code

    whole = outcome([data])
    assert outcome(cut(data, places)) == whole
    assert outcome(in_bytes(data)) == whole


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_members_of_gzip_are_one_body(split):
    data = gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(TEXT)
    assert inflated("gzip", split(data)) == b"a" + TEXT


@pytest.mark.parametrize("encoding", ENCODERS)
def test_empty_body_stands_for_itself(encoding):
    assert inflated(encoding, []) == b""
    assert inflated(encoding, [b""]) == b""


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("missing", [1, 4, 8, 20])
def test_body_that_was_cut_is_refused_at_its_end(encoding, missing):
    data = ENCODERS[encoding](TEXT)
    with pytest.raises(RemoteProtocolError, match="ends before its end") as caught:
        inflated(encoding, [data[:-missing]])
    assert caught.value.code == "bad_content_encoding"


def test_body_of_one_byte_is_cut():
    with pytest.raises(RemoteProtocolError, match="ends before its end"):
        inflated("deflate", [b"\x78"])


def test_second_member_that_was_cut_is_refused_at_its_end():
    data = gzip.compress(b"a") + gzip.compress(TEXT)[:-1]
    with pytest.raises(RemoteProtocolError, match="ends before its end"):
        inflated("gzip", [data])


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_bytes_after_the_end_are_refused(encoding, split):
    with pytest.raises(RemoteProtocolError) as caught:
        inflated(encoding, split(ENCODERS[encoding](TEXT) + b"\0garbage"))
    assert caught.value.code == "bad_content_encoding"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_corrupt_body_is_refused(encoding):
    data = bytearray(ENCODERS[encoding](TEXT))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(RemoteProtocolError) as caught:
        inflated(encoding, [bytes(data)])
    assert caught.value.code == "bad_content_encoding"


@pytest.mark.parametrize("data", [b"hello, this is no gzip", b"{}" * 10])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_in_another_encoding_is_refused(encoding, data):
    with pytest.raises(RemoteProtocolError) as caught:
        inflated(encoding, [data])
    assert caught.value.code == "bad_content_encoding"


@pytest.mark.parametrize("encoding", ENCODERS)
def test_limit_is_the_most_that_is_decoded(encoding):
    data = ENCODERS[encoding](TEXT)
    assert inflated(encoding, [data], len(TEXT)) == TEXT
    for pieces in ([data], in_bytes(data)):
        with pytest.raises(RemoteProtocolError, match="over the limit") as caught:
            inflated(encoding, pieces, len(TEXT) - 1)
        assert caught.value.code == "upstream_too_large"


def test_limit_counts_all_members():
    data = gzip.compress(TEXT) * 2
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        inflated("gzip", [data], 2 * len(TEXT) - 1)


def test_bomb_is_not_decoded_past_the_limit():
    inflater = Inflater("gzip", 10_000)
    found = []
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        found.extend(decoded(inflater, gzip.compress(bytes(30_000_000))))
    assert sum(map(len, found)) <= 10_000


@pytest.mark.parametrize("size", [0, 1, 999_999, 10_000_000])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_large_body_is_decoded_in_bounded_pieces(encoding, size):
    body = TEXT + bytes(size) + TEXT
    inflater = Inflater(encoding.partition("(")[0], len(body))
    pieces = list(decoded(inflater, ENCODERS[encoding](body)))
    inflater.receive_eof()
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert all(pieces)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_body_that_fills_a_piece_is_whole_or_cut(encoding, size):
    data = ENCODERS[encoding](bytes(size))
    assert inflated(encoding, [data], 2 * size) == bytes(size)
    assert inflated(encoding, in_bytes(data), size) == bytes(size)
    with pytest.raises(RemoteProtocolError, match="ends before its end"):
        inflated(encoding, [data[:-1]], 2 * size)


@pytest.mark.parametrize(
    "encoding",
    ["br", "zstd", "identity", "", "gzip, gzip", "gzip,deflate", "compress", "gz\xedp"],
)
def test_unknown_encoding_is_refused(encoding):
    with pytest.raises(RemoteProtocolError, match="gzip or deflate") as caught:
        Inflater(encoding, 1)
    assert caught.value.code == "unknown_content_encoding"
