"""Google's credentials -> grants of access tokens.

The one rule: what a credential is its own JSON says; a key that is not JSON is a token
already. Nothing is sent here, and ``cryptography`` is imported only where a request is
signed.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account,
"Addendum"; https://google.aip.dev/auth/4111 to 4115; RFC 7523, sections 2.1 and 3;
https://cloud.google.com/compute/docs/access/authenticate-workloads, "Applications".
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import msgspec

from tz_protocol.errors import UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url
from tz_protocol.types.tokens import Grant, Token
from tz_protocol.wire.json import value_of

__all__ = ["MACHINE", "grant_of", "read_credential"]

MACHINE = Secret('{"type":"compute_metadata"}')
"""The credential of the machine itself: the service account that it runs as."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LIFETIME = 3_600
"""Seconds; the most that the issuer takes."""

_ISSUER = "https://oauth2.googleapis.com/token"
_METADATA = Url(
    "http",
    "169.254.169.254",
    80,
    "/computeMetadata/v1/instance/service-accounts/default/",
)
"""By number: the name resolves only on Google's machines, and then to this."""

_FORM = (("content-type", "application/x-www-form-urlencoded"),)
_URL = re.compile(
    r"(https?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?(/\S*)?"
)


class _Credential(msgspec.Struct):
    """A file of Google's, of whatever type; which members count depends on it."""

    type: str = ""
    client_email: str = ""
    private_key: str = ""
    private_key_id: str = ""
    token_uri: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""


_CREDENTIAL = msgspec.json.Decoder(_Credential)


@lru_cache(maxsize=256)
def grant_of(key: Secret) -> Grant | None:
    """Return the grant that *key* is, None if it is a token already.

    Raises:
        UpstreamRefused: It is neither; the message says what is wrong.
    """
    try:
        return read_credential(key)
    except ValueError as error:
        raise _refused(f"The credential cannot be used: {error}.") from None


def read_credential(key: Secret) -> Grant | None:
    """Return the grant that *key* is, None if it is a token already.

    Raises:
        ValueError: It is neither; the sentence, without its full stop, says why.
    """
    text = key.reveal().strip()
    if not text.startswith("{"):
        return None
    try:
        credential = _CREDENTIAL.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        message = "it begins with a brace and is not the JSON of a credential"
        raise ValueError(message) from None
    kind = credential.type
    if kind == "compute_metadata":
        return Grant(kind, kind, _METADATA, _ask_machine, _read_token)
    if kind == "service_account":
        _require(credential, ("client_email", "private_key"))
        url, render = _issuer(credential), _Assertion(credential).render
    elif kind == "authorized_user":
        _require(credential, ("client_id", "client_secret", "refresh_token"))
        url, render = _issuer(credential), _Refresh(credential).render
    else:
        message = (
            "its type must be service_account or authorized_user; keys of other "
            "identities have to be exchanged for a token beforehand"
        )
        raise ValueError(message)
    return Grant((kind, key), kind, url, render, _read_token)


def _require(credential: _Credential, names: tuple[str, ...]) -> None:
    for name in names:
        if not getattr(credential, name):
            message = f"a credential of type {credential.type} needs {name}"
            raise ValueError(message)


def _issuer(credential: _Credential) -> Url:
    found = _URL.fullmatch(credential.token_uri or _ISSUER)
    if found is None:
        message = "its token_uri is not a URL"
        raise ValueError(message)
    scheme, host, port, path = found.groups()
    usual = 443 if scheme == "https" else 80
    return Url(
        "https" if scheme == "https" else "http",
        host.strip("[]"),
        int(port) if port else usual,
        path or "/",
    )


# -- requests -------------------------------------------------------------------


def _ask_machine(wall: float) -> HttpRequest:
    del wall
    headers = (("metadata-flavor", "Google"),)
    return HttpRequest(method="GET", path="token", headers=headers)


def _form(**members: str) -> HttpRequest:
    return HttpRequest(path="", headers=_FORM, body=urlencode(members).encode())


class _Refresh:
    """Asks with a user's refresh token (RFC 6749, section 6)."""

    __slots__ = ("_credential",)

    def __init__(self, credential: _Credential) -> None:
        self._credential = credential

    def render(self, wall: float) -> HttpRequest:
        """Return the request."""
        del wall
        credential = self._credential
        return _form(
            grant_type="refresh_token",
            client_id=credential.client_id,
            client_secret=credential.client_secret,
            refresh_token=credential.refresh_token,
        )


class _Assertion:
    """Asks with a statement that a service account has signed (RFC 7523)."""

    __slots__ = ("_credential",)

    def __init__(self, credential: _Credential) -> None:
        self._credential = credential

    def render(self, wall: float) -> HttpRequest:
        """Return the request.

        Raises:
            UpstreamRefused: The key cannot sign.
        """
        credential = self._credential
        header = {"alg": "RS256", "typ": "JWT"}
        if credential.private_key_id:
            header["kid"] = credential.private_key_id
        issued = int(wall)
        claims = {
            "iss": credential.client_email,
            "scope": SCOPE,
            "aud": credential.token_uri or _ISSUER,
            "iat": issued,
            "exp": issued + LIFETIME,
        }
        statement = _encoded(header) + b"." + _encoded(claims)
        signature = _sign(credential.private_key, statement)
        assertion = statement + b"." + _base64(signature)
        return _form(
            grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",
            assertion=assertion.decode(),
        )


def _encoded(value: Any) -> bytes:
    return _base64(msgspec.json.encode(value))


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _sign(private_key: str, statement: bytes) -> bytes:
    """Return the RS256 signature (RFC 7518, section 3.3) of *statement*."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError:
        message = "Service accounts need the extra: pip install tz-gateway[gcp]."
        raise _refused(message) from None
    try:
        key = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError, UnicodeEncodeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        message = "The credential cannot be used: its private_key is not an RSA key."
        raise _refused(message)
    return key.sign(statement, padding.PKCS1v15(), hashes.SHA256())


# -- answers --------------------------------------------------------------------


def _read_token(head: ResponseHead, body: bytes) -> Token:
    """Return the token that an issuer's answer holds (RFC 6749, section 5).

    Raises:
        UpstreamRefused: It says no.
        UpstreamGarbled: It says nothing that can be read.
    """
    value = value_of(body)
    members = value if isinstance(value, dict) else {}
    if head.status != 200:
        word = members.get("error")
        reason = word if isinstance(word, str) and len(word) <= 64 else "no reason"
        if head.status in (400, 401, 403, 404):
            raise _refused(f"The credential was not exchanged for a token: {reason}.")
        message = f"The issuer of tokens answered with status {head.status}."
        raise UpstreamRefused(503, message, kind="server_error", code="overloaded")
    token, lifetime = members.get("access_token"), members.get("expires_in")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        message = "the issuer of tokens answered without one"
        raise UpstreamGarbled(message)
    seconds = lifetime if isinstance(lifetime, (int, float)) else LIFETIME
    return Token(Secret(token), max(0.0, min(float(seconds), 86_400.0)))


_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What a header can carry (RFC 6750, section 2.1)."""


def _refused(message: str) -> UpstreamRefused:
    return UpstreamRefused(
        401, message, kind="authentication_error", code="invalid_api_key"
    )
