"""AWS Signature Version 4: what a request is -> the headers that sign it.

The one rule: the signature covers what goes over the wire, byte for byte; whoever
changes the path, the query, the body or a signed header afterwards breaks it. There is
no clock and no look-up of keys here: both are given.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/
reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

from tz_protocol.types.http import Headers
from tz_protocol.types.secret import Secret

__all__ = ["AwsCredentials", "Scope", "escape_segment", "sign"]

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"
_SPACES = re.compile(r" +")


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """A pair of keys, and the token that goes with them if they are borrowed."""

    access_key: str
    """Public; part of every signed request."""
    secret_key: Secret
    session_token: Secret | None = None
    expires: float | None = None
    """Unix seconds; None for keys that last."""

    def secrets(self) -> tuple[Secret, ...]:
        """Return all that must not be told, the public key too: it is an account's."""
        found = (Secret(self.access_key), self.secret_key, self.session_token)
        return tuple(secret for secret in found if secret is not None)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for, besides its day."""

    region: str
    service: str
    """The signing name: ``bedrock``, ``sagemaker``."""


def escape_segment(text: str) -> str:
    """Return *text* as one segment of a path, with everything but letters, digits and
    ``-_.~`` escaped, slashes too.

    The segments ``.`` and ``..`` cannot be escaped: refuse them before.
    """
    return quote(text, safe=_UNRESERVED)


def sign(
    method: str,
    path: str,
    query: str,
    headers: Headers,
    body: bytes,
    *,
    credentials: AwsCredentials,
    scope: Scope,
    wall: float,
) -> Headers:
    """Return the headers to add to a request: its date, token and signature.

    Args:
        method: In capitals.
        path: As it goes over the wire, escaped once, without the query.
        query: As it goes over the wire, without the question mark.
        headers: What is to be signed: ``host`` must be among them, and whatever begins
            with ``x-amz-``; names in lower case.
        body: Whole.
        credentials: Whose signature.
        scope: What for.
        wall: Unix seconds; AWS allows five minutes of difference to its own clock.
    """
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%SZ")
    added: list[tuple[str, str]] = [("x-amz-date", stamp)]
    if credentials.session_token is not None:
        added.append(("x-amz-security-token", credentials.session_token.reveal()))
    lines = _canonical_headers((*headers, *added))
    names = ";".join(name for name, _ in lines)
    canonical = "\n".join(
        (
            method,
            _canonical_path(path),
            _canonical_query(query),
            *(f"{name}:{value}" for name, value in lines),
            "",
            names,
            sha256(body).hexdigest(),
        )
    )
    day = stamp[:8]
    purpose = f"{day}/{scope.region}/{scope.service}/aws4_request"
    digest = sha256(canonical.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{purpose}\n{digest}"
    key = _signing_key(credentials.secret_key, day, scope)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{purpose}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return (*added, ("authorization", authorization))


def _signing_key(secret: Secret, day: str, scope: Scope) -> bytes:
    key = f"AWS4{secret.reveal()}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return one pair a name, sorted, with runs of spaces made one."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if "  " in value or value[:1] == " " or value[-1:] == " ":
            value = _SPACES.sub(" ", value.strip(" "))
        values.setdefault(name, []).append(value)
    return [(name, ",".join(values[name])) for name in sorted(values)]


@lru_cache(maxsize=1_024)
def _canonical_path(path: str) -> str:
    """Return *path* without ``.``, ``..`` and empty segments, escaped once more.

    Every service but S3 wants its path escaped twice in the signature: the ``%3A`` in
    the path of a Bedrock model's name is signed as ``%253A``.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(quote(segment, safe=_UNRESERVED))
    is_folder = bool(kept) and path.endswith("/")
    return "/" + "/".join(kept) + ("/" if is_folder else "")


def _canonical_query(query: str) -> str:
    """Return the parameters sorted, each escaped exactly once."""
    if not query:
        return ""
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        pairs.append((_escaped_once(name), _escaped_once(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _escaped_once(text: str) -> str:
    return quote(unquote_to_bytes(text), safe=_UNRESERVED)
