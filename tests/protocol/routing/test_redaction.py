"""What a provider quotes of us is taken out, in whatever shape it quotes it."""

from __future__ import annotations

import json
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tz_protocol.errors import UpstreamGarbled, UpstreamRefused, UpstreamTimeout
from tz_protocol.routing.redaction import Redaction
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings, Url

KEY = "Qz/7+pL=w9-Xk.2mVt_8rBn~4cDf"
URL = Url("https", "llm-7.corp.example", 8443, "/team-x/v1/")

LEFT = 5
"""Characters in a row that may be left of a key by chance or by a word around it."""


def redaction(*keys, url=URL, **settings):
    provider = ProviderSettings(name="a", type="openai", model="x", url=url, **settings)
    return Redaction(provider, *(Secret(key) for key in keys))


def leaks(text, secret, size=LEFT + 1):
    """Return what *text* has of *secret* in a row, however it is escaped."""
    lowered = text.lower()
    pieces = (secret[at : at + size] for at in range(len(secret) - size + 1))
    return [
        piece
        for piece in pieces
        for shape in (piece, quote(piece, safe=""), json.dumps(piece)[1:-1])
        if shape.lower() in lowered
    ]


ALPHABET = string.ascii_letters + string.digits + "-_"
KEYS = st.one_of(
    st.text(ALPHABET, min_size=16, max_size=60),
    st.text(ALPHABET + "/+=~.:", min_size=16, max_size=60),
    st.text(ALPHABET, min_size=20, max_size=40).map("sk-proj-".__add__),
    st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16).map(
        "AKIA".__add__
    ),
)
MASKS = st.sampled_from(["...", "…", "****", "*" * 40, "xxxx", "[REDACTED]", "••••"])


@st.composite
def echoes(draw, keys=KEYS):
    """Return (a key, how a provider quotes it)."""
    key = draw(keys)
    begin, end = draw(st.integers(2, 12)), draw(st.integers(4, 9))
    shortened = key[:begin] + draw(MASKS) + key[-end:]
    shapes = [
        key,
        key.upper(),
        f"'{key}'",
        f"Bearer {key}",
        quote(key, safe=""),
        quote(key),
        quote_plus(key).lower(),
        quote(quote(key, safe=""), safe=""),
        "".join(f"%{byte:02x}" for byte in key.encode()),
        json.dumps(key),
        json.dumps({"error": json.dumps({"key": key})}),
        key.replace("/", "\\/"),
        "".join(f"\\u{ord(letter):04x}" for letter in key),
        "".join(f"&#{ord(letter)};" for letter in key),
        "".join(f"&#x{ord(letter):x};" for letter in key),
        key[:-1],
        key[1:],
        key[:12],
        key[-12:],
        key[3:14],
        shortened,
        quote(shortened, safe=""),
        key[: max(begin, 3)] + "...",
        "***" + key[-end:],
        f"... that ends in {key[-end:]}",
        f"key {key[:8]} is",
    ]
    return key, draw(st.sampled_from(shapes))


@given(
    echoes(),
    st.sampled_from(["Incorrect API key provided: ", "", "key=", "x/", "(", '{"k":"']),
    st.sampled_from([". See the manual.", "", "&a=b", ")", "/x", '"}']),
)
def test_key_is_taken_out_however_it_is_quoted(echo, before, after):
    key, quoted = echo
    cleaned = redaction(key).text(before + quoted + after)
    assert not leaks(cleaned, key)
    assert "[removed]" in cleaned
    assert redaction(key).text(cleaned) == cleaned


@example((KEY, KEY[1:]), 12)
@given(echoes(st.just(KEY)), st.integers(0, 200))
def test_key_in_a_message_that_is_cut_is_taken_out(echo, place):
    _, quoted = echo
    cleaned = redaction(KEY).text(("It is " + quoted)[:place])
    assert not leaks(cleaned, KEY)


@pytest.mark.parametrize(
    ("quoted", "left"),
    [
        (f"Incorrect API key: {KEY}.", "Incorrect API key: [removed]."),
        (f"key {KEY[:6]}...{KEY[-4:]} is bad", "key [removed] is bad"),
        (f"key ****{KEY[-4:]} is bad", "key [removed] is bad"),
        (f"it ends in {KEY[-4:]}, so no", "it ends in [removed], so no"),
        ("nothing ... of it *** here", "nothing ... of it *** here"),
        ("", ""),
    ],
)
def test_only_the_key_is_taken_out(quoted, left):
    assert redaction(KEY).text(quoted) == left


@given(st.text(string.ascii_lowercase + " .,*-", max_size=200))
def test_text_without_the_key_stays_as_it_is(text):
    assert redaction("Q7Z9X8W6V5U4T3S2R1").text(text) == text


@pytest.mark.parametrize("key", ["EMPTY", "none", "local"])
def test_key_that_is_a_word_is_taken_out_as_a_word_only(key):
    text = f"{key}-ness of {key}s: the key {key} is wrong"
    cleaned = redaction(key).text(text)
    assert f"{key}s" in cleaned
    assert "the key [removed] is wrong" in cleaned


GOOGLE = {
    "type": "service_account",
    "project_id": "p",
    "private_key_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n"
    "-----END PRIVATE KEY-----\n",
    "client_email": "robot@p.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_members_of_a_credential_file_are_taken_out():
    cleaner = redaction(json.dumps(GOOGLE))
    for name in ("private_key_id", "client_email"):
        assert cleaner.text(f"No {GOOGLE[name]} here") == "No [removed] here"
    assert "QIBADAN" not in cleaner.text(json.dumps(GOOGLE))
    assert "kqhkiG9w" not in cleaner.text(f"bad key {GOOGLE['private_key']}")
    told = "A service_account needs https://oauth2.googleapis.com/token"
    assert cleaner.text(told) == told


@pytest.mark.parametrize(
    ("quoted", "left"),
    [
        ("POST https://llm-7.corp.example:8443/team-x/v1/chat: no", None),
        ("no route to LLM-7.CORP.EXAMPLE", "no route to [removed]"),
        ("llm-7.corp.example:8443 refused", "[removed] refused"),
        ("https%3A%2F%2Fllm-7.corp.example%3A8443%2Fteam-x", "[removed]"),
        ("http://me:pw@llm-7.corp.example/", "[removed]"),
        ("Invalid URL (POST /team-x/v1/chat/completions)", None),
        ("see https://docs.example/keys", "see https://docs.example/keys"),
        ("my-llm-7.corp.example.org", "my-llm-7.corp.example.org"),
    ],
)
def test_address_is_taken_out(quoted, left):
    cleaned = redaction().text(quoted)
    assert "team-x" not in cleaned
    if left is None:
        assert "[removed]" in cleaned
    else:
        assert cleaned == left


@pytest.mark.parametrize("host", ["10.1.2.3", "fd00::12", "vllm-0"])
def test_address_of_any_kind_is_taken_out(host):
    url = Url("http", host, 8000, "/v1/")
    cleaned = redaction(url=url).text(
        f"{host}; {url.authority}; http://{url.authority}/"
    )
    assert host not in cleaned
    assert "8000" not in cleaned


def test_host_that_is_a_word_is_taken_out_where_it_is_an_address():
    cleaner = redaction(url=Url("http", "model", 8000, "/v1/"))
    text = "the model at model:8000 or http://model/v1 or host='model' has no model x"
    left = "the model at [removed] or [removed] or host='[removed]' has no model x"
    assert cleaner.text(text) == left


def test_headers_query_and_proxy_of_the_config_are_taken_out():
    cleaner = redaction(
        url=Url("https", "a.test", 443, "/", "sig=Sz8%2Bq1Lw3x&v=1"),
        extra_headers=(("x-team", "Basic dXNlcjpwYXNz"),),
        proxy=Secret("http://me-42:pr0xy%21pass@proxy.corp:3128"),
    )
    told = "dXNlcjpwYXNz Sz8+q1Lw3x me-42 pr0xy!pass proxy.corp:3128 v=1"
    expected = "[removed] [removed] [removed] [removed] [removed] v=1"
    assert cleaner.text(told) == expected


def test_error_is_cleaned_in_everything_that_it_says():
    error = UpstreamRefused(400, f"a {KEY}", kind=f"k {KEY}", code=KEY, param=KEY)
    redaction(KEY).clean(error)
    assert (error.message, error.kind) == ("a [removed]", "k [removed]")
    assert error.code == error.param == "[removed]"
    assert KEY not in str(error)
    assert KEY not in repr(error)
    garbled = UpstreamGarbled(f"not JSON: {KEY}", KEY)
    redaction(KEY).clean(garbled)
    assert (garbled.message, garbled.code) == ("not JSON: [removed]", "[removed]")
    assert KEY not in repr(garbled)


def test_error_without_words_of_the_provider_stays_as_it_is():
    error = UpstreamTimeout("total")
    redaction("total-total").clean(error)
    assert str(error) == "the provider timed out (total)"


def test_secret_that_came_later_is_taken_out():
    cleaner = redaction()
    cleaner.add((Secret(KEY),))
    assert cleaner.text(KEY) == "[removed]"
