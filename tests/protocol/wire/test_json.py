"""Objects taken apart and put together: what is refused, and that bytes survive."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from tz_protocol.errors import InvalidRequest
from tz_protocol.wire.json import (
    MEMBERS_LIMIT,
    NULL,
    encode_object,
    kind_of_value,
    mended,
    parse_object,
    read_boolean,
    read_integer,
    read_object,
    read_string,
    scan_object,
    value_of,
    without_nulls,
)

CASES = Path(__file__).parents[4] / "shared" / "http_cases"

STRICTER = {
    "y_object_duplicated_key.json": "duplicate_parameter",
    "y_object_duplicated_key_and_value.json": "duplicate_parameter",
}
"""Cases that RFC 8259, section 4, leaves to the reader, and our code for each."""

GENERATED = {
    "n_structure_100000_opening_arrays.json": b"[" * 100_000,
    "n_structure_open_array_object.json": b'[{"":' * 50_000,
}
"""Cases that their file gives as a rule."""


def cases():
    path = CASES / "json_parsing.json"
    if not path.is_file():
        mark = pytest.mark.skip(reason=f"there is no {path}")
        return [pytest.param(None, None, id="absent", marks=mark)]
    return [
        pytest.param(
            base64.b64decode(case["b64"]) if "b64" in case else GENERATED[case["id"]],
            case,
            id=case["id"],
        )
        for case in json.loads(path.read_bytes())["cases"]
    ]


def refused(data):
    with pytest.raises(InvalidRequest) as caught:
        parse_object(data)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(("data", "case"), cases())
def test_parse_third_party_case_as_the_whole_body(data, case):
    expect = case["expect"]
    text = data.strip()
    code = STRICTER.get(case["id"])
    if code is not None:
        assert refused(data).code == code
    elif expect == "accept" and text.startswith(b"{"):
        assert encode_object(parse_object(data)).startswith(b"{")
    elif expect == "accept":
        assert refused(data).message == "The request's body must be a JSON object."
    elif expect == "reject":
        assert refused(data).message
    else:
        try:
            parse_object(data)
        except InvalidRequest as error:
            assert error.message  # noqa: PT017 (either is right)


@pytest.mark.parametrize(("data", "case"), cases())
def test_parse_third_party_case_as_a_member(data, case):
    body = b'{"v":' + data + b"}"
    if case["expect"] == "accept":
        assert parse_object(body)["v"] == Raw(data.strip(b" \t\r\n"))
    elif case["expect"] == "reject":
        refused(body)
    else:
        try:
            parse_object(body)
        except InvalidRequest as error:
            assert error.message  # noqa: PT017 (either is right)


def naughty():
    path = CASES / "blns.json"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf-8"])
def test_parse_naughty_strings_survive_as_values_and_names(ascii_only):
    for text in naughty():
        body = json.dumps({"a": text, f"x{text}": 1}, ensure_ascii=ascii_only).encode()
        fields = parse_object(body)
        assert read_string(fields["a"], "a") == text
        assert list(fields) == ["a", f"x{text}"]
        assert json.loads(encode_object(fields)) == json.loads(body)


# -- what is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":', "ends too early"),
        (b'{"a":1} x', "trailing characters at byte 8 (line 1, column 9)"),
        (b'{\n "a": 01}', "invalid number at byte 9 (line 2, column 8)"),
        (b'{"a":NaN}', "invalid character at byte 5"),
        (b"model=x&messages=y", "invalid character at byte 0"),
        (b'{"a":"\xff"}', "not UTF-8: see byte 6"),
        (b'{"a\xff":1}', "not UTF-8: see byte 3"),
        (b'\xff\xfe{\x00"\x00', "not UTF-8: see byte 0"),
        (b'{"a":"\\ud83d"}', "half of a surrogate pair"),
        (b'{"a":"\\ud83d and more of the text"}', "half of a surrogate pair"),
        (b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "nested too deeply"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested too deeply"),
    ],
)
def test_parse_what_is_no_object_says_what_and_where(body, words):
    error = refused(body)
    assert words in error.message
    assert (error.kind, error.param) == ("invalid_request_error", None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":1,"model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":1,"MODEL":2,"model":3}',
    ],
)
def test_parse_member_twice_names_it(body):
    error = refused(body)
    assert (error.param, error.code) == ("model", "duplicate_parameter")
    assert "'model'" in error.message


def test_parse_member_twice_below_the_top_is_not_ours_to_judge():
    body = b'{"a":{"b":1,"b":2}}'
    assert encode_object(parse_object(body)) == body


def test_parse_members_without_end_are_bounded():
    body = b"{" + b'"a":1,' * MEMBERS_LIMIT + b'"b":1}'
    assert "more than 10000 members" in refused(body).message


def test_parse_error_does_not_echo_the_body():
    assert "sk-canary" not in refused(b'{"a":"sk-canary",}').message


# -- what survives --------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)
BLANK = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@given(
    st.dictionaries(st.text(), PLAIN, max_size=8),
    BLANK,
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_splice_of_any_object_keeps_every_value_as_written(
    value, blank, ascii_, indent
):
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    try:
        body = f"{blank}{text}{blank}".encode()
    except UnicodeEncodeError:
        return
    try:
        fields = parse_object(body)
    except InvalidRequest as error:
        assert "surrogate" in error.message  # noqa: PT017 (the one thing json lets by)
        return
    assert list(fields) == list(value)
    for name, raw in fields.items():
        assert bytes(raw) in body
        assert json.loads(bytes(raw)) == value[name]
    assert json.loads(encode_object(fields)) == value
    assert encode_object(parse_object(encode_object(fields))) == encode_object(fields)


@pytest.mark.parametrize(
    "number",
    ["1.0", "1e3", "1E+2", "-0", "-0.0", "0.1000", "123456789012345678901234567890"],
)
def test_splice_keeps_numbers_as_the_client_wrote_them(number):
    body = f'{{"n":{number}}}'.encode()
    assert encode_object(parse_object(body)) == body


@given(st.binary(max_size=60))
@example(b'{"a":"\\')
@example(b'{"\\ud800')
def test_parse_of_any_bytes_raises_nothing_else(data):
    try:
        fields = parse_object(data)
    except InvalidRequest:
        return
    assert scan_object(encode_object(fields)) == fields


@given(st.text(alphabet='{}[]":,\\u0123dD8aetrfalsn \n', max_size=40))
def test_parse_of_text_that_looks_like_json_agrees_with_another_reader(text):
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    try:
        fields = parse_object(text.encode())
    except InvalidRequest as error:
        is_stricter = error.code == "duplicate_parameter" or "pair" in error.message
        assert not isinstance(expected, dict) or is_stricter
    else:
        assert {
            name: json.loads(bytes(raw)) for name, raw in fields.items()
        } == expected


def test_encode_of_nothing_is_an_empty_object():
    assert encode_object({}) == b"{}"


# -- what a provider sent -------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"a":1',
        b'{"a":"\xff"}',
        b"[" * 5_000,
        b'{"a":' * 5_000,
    ],
)
def test_scan_of_what_is_no_object_is_none(data):
    assert scan_object(data) is None


def test_scan_is_lenient_where_parse_is_not():
    assert scan_object(b'\xef\xbb\xbf{"a":1,"a":2}') == {"a": Raw(b"2")}
    assert scan_object(b'\n\n   {"a": 1}\n') == {"a": Raw(b"1")}


@pytest.mark.parametrize("data", [b"", b"{", b'"\xff"', b"[" * 5_000, b"[1e999]"])
def test_value_of_what_cannot_be_decoded_is_none(data):
    assert value_of(data) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb"a\ud83d", rb"a\ufffd"),
        (rb"\uDE00\ud83d", rb"\ufffd\ufffd"),
        (rb"\ud83d\ude00\ud83d\ude00", rb"\ud83d\ude00\ud83d\ude00"),
        (rb"\ude00\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\\ud83d", rb"\\ud83d"),
        (rb"\\\ud83d\n", rb"\\\ufffd\n"),
        (rb"\u00e9", rb"\u00e9"),
    ],
)
def test_halves_of_surrogate_pairs_become_the_replacement_character(text, expected):
    assert mended(text) == expected
    assert scan_object(b'{"a":"%b"}' % text) == {"a": Raw(b'"%b"' % expected)}


@given(st.text(st.characters(codec="utf-8")))
def test_text_that_is_whole_is_mended_into_itself(text):
    for data in (json.dumps(text).encode(), json.dumps(text, ensure_ascii=False)):
        data = data if isinstance(data, bytes) else data.encode()
        assert mended(data) == data


def test_nulls_go_and_all_else_stays_as_it_was_written():
    data = b'{"a":null,"b":[null,{"c":null,"d":1.50e1}],"k":{"x":null},"e":{"f":null}}'
    assert without_nulls(data, frozenset("k")) == (
        b'{"b":[null,{"d":1.50e1}],"k":{"x":null},"e":{}}'
    )


@pytest.mark.parametrize("data", [b"", b"{", b"5", b'"a"', b"[" * 5_000, b'{"a":[}'])
def test_what_has_no_members_stays_as_it_is(data):
    assert without_nulls(data) == data


# -- single members -------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b'"a"', "a string"),
        (b"{}", "an object"),
        (b"[1]", "an array"),
        (b"null", "null"),
        (b"true", "a boolean"),
        (b"false", "a boolean"),
        (b"-1", "a number"),
        (b"7.5", "a number"),
    ],
)
def test_kind_of_value_is_its_type_in_words(value, kind):
    assert kind_of_value(Raw(value)) == kind


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (read_string, b"1", "expected a string, but got a number"),
        (read_boolean, b'"true"', "expected a boolean, but got a string"),
        (read_boolean, b"1", "expected a boolean, but got a number"),
        (read_object, b"[]", "expected an object, but got an array"),
        (read_object, b"null", "expected an object, but got null"),
    ],
)
def test_read_of_another_type_names_both(read, value, words):
    with pytest.raises(InvalidRequest, match=words) as caught:
        read(Raw(value), "some.path")
    assert (caught.value.param, caught.value.code) == ("some.path", "invalid_type")


@pytest.mark.parametrize("value", [b'"1"', b"1.0", b"1e2", b"null", b"9" * 21, b"[]"])
def test_read_integer_of_what_is_none_is_refused(value):
    with pytest.raises(InvalidRequest, match="expected an integer") as caught:
        read_integer(Raw(value), "n", 1)
    assert caught.value.code == "invalid_type"


def test_read_integer_below_the_least_is_refused():
    assert read_integer(Raw(b"1"), "n", 1) == 1
    with pytest.raises(InvalidRequest, match=">= 1, but got 0") as caught:
        read_integer(Raw(b"0"), "n", 1)
    assert caught.value.code == "integer_below_min_value"


def test_read_object_nested_too_deeply_is_refused():
    with pytest.raises(InvalidRequest, match="'x' is nested too deeply") as caught:
        read_object(Raw(b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"), "x")
    assert caught.value.param == "x"


def test_read_object_keeps_its_members():
    assert read_object(Raw(b'{"a": 1.0}'), "x") == {"a": Raw(b"1.0")}
    assert read_boolean(Raw(b"true"), "x")
    assert not read_boolean(Raw(b"false"), "x")
    assert Raw(b"null") == NULL
