from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from functools import cache
from urllib.parse import parse_qs

import pytest

from tz_protocol.errors import UpstreamGarbled, UpstreamRefused
from tz_protocol.providers.google import GOOGLE, vertex_url, x_goog_api_key
from tz_protocol.providers.google_tokens import MACHINE, grant_of, read_credential
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url
from tz_protocol.types.tokens import Token

REQUEST = HttpRequest(path="x")
NOW = 1_750_000_000.5


# -- rows -----------------------------------------------------------------------


def test_rows_are_the_vendors_three():
    names = [row.name for row in GOOGLE]
    assert names == [
        "google_ai_studio_gemini",
        "gcp_vertex_gemini",
        "gcp_vertex_anthropic",
    ]
    for row in GOOGLE:
        assert "chat" in row.dialects
        assert "api_base" in row.optional


def test_ai_studio_takes_its_key_in_a_header():
    key = Secret("k")
    assert x_goog_api_key(REQUEST, key, NOW) == (("x-goog-api-key", "k"),)
    assert x_goog_api_key(REQUEST, None, NOW) == ()
    assert GOOGLE[0].authorize is x_goog_api_key


def test_vertex_takes_tokens_and_exchanges_credentials_for_them():
    for row in GOOGLE[1:]:
        assert row.authorize(REQUEST, Secret("t"), NOW) == (
            ("authorization", "Bearer t"),
        )
        assert row.grant is grant_of
        assert row.locate is vertex_url


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-east5", "us-east5-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_is_where_the_location_says(location, host):
    assert vertex_url({"location": location}) == f"https://{host}/v1/"


@pytest.mark.parametrize("location", ["", "-", "eu.", "EU", "evil.org/x", "é"])
def test_vertex_is_nowhere_else(location):
    with pytest.raises(ValueError, match="expected a location"):
        vertex_url({"location": location})


# -- credentials ----------------------------------------------------------------


@cache
def private_key():
    """Return an RSA key; skips where the library for it is absent."""
    rsa = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.rsa",
        reason="cryptography is not installed",
    )
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def pem_of(key):
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def service_account(**members):
    """Return a credential as Google's console hands it out."""
    value = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": "-----BEGIN PRIVATE KEY-----\n",
        "client_email": "a@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        **members,
    }
    return Secret(json.dumps(value, indent=2))


USER = {
    "type": "authorized_user",
    "client_id": "id",
    "client_secret": "s&=",
    "refresh_token": "1//r",
}


def form_of(request):
    fields = parse_qs(request.body.decode(), strict_parsing=True)
    return {name: value for name, (value,) in fields.items()}


def unpacked(part):
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.parametrize("key", ["ya29.token", "AIza", " x "])
def test_key_that_is_not_json_is_a_token_already(key):
    assert grant_of(Secret(key)) is None


def test_service_account_asks_with_a_statement_that_it_signed():
    key = private_key()
    grant = read_credential(service_account(private_key=pem_of(key)))
    assert grant is not None
    assert grant.kind == "service_account"
    assert grant.url == Url("https", "oauth2.googleapis.com", 443, "/token")
    request = grant.render(NOW)
    assert (request.method, request.path) == ("POST", "")
    assert request.headers == (("content-type", "application/x-www-form-urlencoded"),)
    form = form_of(request)
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims, signature = form["assertion"].split(".")
    assert unpacked(header) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    assert unpacked(claims) == {
        "iss": "a@p.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_750_000_000,
        "exp": 1_750_003_600,
    }
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    key.public_key().verify(
        urlsafe_b64decode(signature + "=" * (-len(signature) % 4)),
        f"{header}.{claims}".encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )


def test_user_asks_with_its_refresh_token():
    grant = read_credential(Secret(json.dumps(USER)))
    assert grant is not None
    assert form_of(grant.render(NOW)) == {
        "grant_type": "refresh_token",
        "client_id": "id",
        "client_secret": "s&=",
        "refresh_token": "1//r",
    }


def test_machine_asks_its_metadata_server():
    grant = read_credential(MACHINE)
    assert grant is not None
    request = grant.render(NOW)
    path = grant.url.path + request.path
    assert path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert request.method == "GET"
    assert request.headers == (("metadata-flavor", "Google"),)
    assert (grant.url.scheme, grant.url.host) == ("http", "169.254.169.254")


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("http://127.0.0.1:8080/t", Url("http", "127.0.0.1", 8_080, "/t")),
        ("https://e.org", Url("https", "e.org", 443, "/")),
        ("http://[::1]/t", Url("http", "::1", 80, "/t")),
    ],
)
def test_issuer_is_where_the_credential_says(uri, url):
    grant = read_credential(service_account(token_uri=uri))
    assert grant is not None
    assert grant.url == url


def test_grants_of_one_credential_are_one():
    first, second = service_account(), service_account()
    assert read_credential(first) == read_credential(second)
    assert read_credential(first) != read_credential(service_account(client_email="b"))
    assert hash(read_credential(first)) == hash(read_credential(second))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "JSON"),
        ('{"type":5}', "JSON"),
        ("{}", "type"),
        ('{"type":"external_account"}', "type"),
        ('{"type":"service_account","client_email":"a"}', "private_key"),
        ('{"type":"authorized_user","client_id":"a"}', "client_secret"),
    ],
)
def test_credential_that_cannot_be_used_says_why_and_not_what_it_is(text, word):
    with pytest.raises(ValueError, match=word):
        read_credential(Secret(text))
    with pytest.raises(UpstreamRefused) as caught:
        grant_of(Secret(text))
    assert (caught.value.status, caught.value.kind) == (401, "authentication_error")


def test_issuer_that_is_no_url_is_refused():
    with pytest.raises(ValueError, match="token_uri"):
        read_credential(service_account(token_uri="ftp://x"))


@pytest.mark.parametrize("key", ["no PEM", "-----BEGIN PRIVATE KEY-----\n"])
def test_key_that_cannot_sign_is_refused(key):
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    grant = read_credential(service_account(private_key=key))
    assert grant is not None
    with pytest.raises(UpstreamRefused) as caught:
        grant.render(NOW)
    assert "RSA" in caught.value.message
    assert key not in caught.value.message


# -- answers of issuers ---------------------------------------------------------


def read(status, value):
    grant = grant_of(MACHINE)
    assert grant is not None
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return grant.read(ResponseHead(status), body)


@pytest.mark.parametrize(
    ("members", "lifetime"),
    [({"expires_in": 3_599}, 3_599), ({}, 3_600), ({"expires_in": -5}, 0)],
)
def test_answer_holds_a_token_and_its_lifetime(members, lifetime):
    value = {"access_token": "ya29.x", "token_type": "Bearer", **members}
    assert read(200, value) == Token(Secret("ya29.x"), lifetime)


@pytest.mark.parametrize(
    ("status", "value", "error"),
    [
        (200, {}, UpstreamGarbled),
        (200, {"access_token": "a\r\nb"}, UpstreamGarbled),
        (200, b"<html>", UpstreamGarbled),
        (400, {"error": "invalid_grant", "error_description": "x"}, UpstreamRefused),
        (404, b"", UpstreamRefused),
        (500, b"", UpstreamRefused),
    ],
)
def test_answer_without_a_token_is_an_error(status, value, error):
    with pytest.raises(error) as caught:
        read(status, value)
    if error is UpstreamRefused:
        assert caught.value.status == (503 if status == 500 else 401)
        if status == 400:
            assert "invalid_grant" in caught.value.message
