"""AWS keys of the process itself: what was found, and how files and answers are read.

The one rule: nothing is fetched here. The flow ``flows/aws_credentials.py`` looks in
the places that the AWS SDKs look in, understands with these functions what it finds,
and puts it into the :class:`CredentialTable`, from which requests are signed.

Sources: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html,
file-format.html, feature-imds-credentials.html, feature-container-credentials.html.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from tz_protocol.errors import UpstreamRefused
from tz_protocol.operations import Signal
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url
from tz_protocol.wire.sigv4 import AwsCredentials

__all__ = [
    "CredentialTable",
    "Profile",
    "container_address",
    "keys_are_meant",
    "keys_of",
    "profiles_of",
    "read_metadata",
    "refresh_after",
]

Profile = Mapping[str, str]
"""The settings of one profile, keys in lower case."""

_STATIC_SECONDS = 300.0
"""How often keys without an end are looked up again: files are rewritten by the tools
that log people in."""

_AHEAD_SECONDS = 900.0
"""Before their end, borrowed keys are replaced; the SDKs begin then too."""

_RENEW_SECONDS = (60.0, 3_600.0)
"""Between two looks, at least and at most: new ones may come only five minutes before
the end of the old."""


class CredentialTable:
    """What is known of the process's own keys; one for each gateway."""

    def __init__(self) -> None:
        self.region = ""
        """Where the surroundings say that requests should go; empty: they do not."""
        self.demand = Signal()
        """Set once anybody wants credentials."""
        self._news = Signal()
        self._credentials: AwsCredentials | None = None
        self._reason = ""

    def get(self) -> AwsCredentials | None:
        """Return the latest credentials, None if nobody has looked for any yet.

        Those that could not be renewed are kept: AWS decides what is good.

        Raises:
            UpstreamRefused: There are none to be had: the attempt has failed, as it
                would have at AWS.
        """
        if self._credentials is None and self._reason:
            message = f"There are no AWS credentials. {self._reason}"
            raise UpstreamRefused(
                401, message, kind="authentication_error", code="invalid_api_key"
            )
        return self._credentials

    def want(self) -> Signal:
        """Have them looked for; the signal is set when that has been done."""
        self.demand.set()
        return self._news

    def store(self, credentials: AwsCredentials) -> None:
        """Take new credentials."""
        self._credentials, self._reason = credentials, ""
        self._tell()

    def fail(self, reason: str) -> None:
        """Take note of why there are none, in one or more sentences."""
        self._reason = reason
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, Signal()
        news.set()


def refresh_after(credentials: AwsCredentials, wall: float) -> float:
    """Return in how many seconds to look again.

    Args:
        credentials: The latest.
        wall: Unix seconds.
    """
    if credentials.expires is None:
        return _STATIC_SECONDS
    least, most = _RENEW_SECONDS
    return max(least, min(most, credentials.expires - wall - _AHEAD_SECONDS))


# -- files ----------------------------------------------------------------------


def profiles_of(credentials: str, config: str) -> dict[str, Profile]:
    """Return the profiles that the two shared files define.

    Args:
        credentials: Text of ``~/.aws/credentials``; empty if there is none. Its keys
            count where both files have them.
        config: Text of ``~/.aws/config``; empty if there is none.

    Raises:
        ValueError: One of them is not in the format of such files.
    """
    found: dict[str, dict[str, str]] = {}
    for file, text in (("config", config), ("credentials", credentials)):
        for section, settings in _sections(file, text).items():
            name = section
            if file == "config":
                kind, _, rest = section.partition(" ")
                if kind == "profile":
                    name = rest.strip().strip("\"'")
                elif section != "default":
                    continue
            found.setdefault(name, {}).update(settings)
    return dict(found)


def _sections(file: str, text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(
        strict=False,
        default_section="\0",
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=("#", ";"),
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        # Its message quotes the line, which may hold a key.
        message = f"The shared {file} file of AWS is not in the INI format."
        raise ValueError(message) from None
    return {name: dict(parser.items(name)) for name in parser.sections()}


_FOREIGN = {
    "sso_session": "IAM Identity Center",
    "sso_start_url": "IAM Identity Center",
    "role_arn": "a role to be assumed",
    "credential_process": "a program that prints them",
    "web_identity_token_file": "a web identity",
    "login_session": "a console login",
}
"""Setting -> what it asks for, which the gateway does not do."""


def keys_are_meant(profile: Profile | None) -> bool:
    """Return whether a profile says anything about keys; many hold a region only."""
    if profile is None:
        return False
    return not profile.keys().isdisjoint({"aws_access_key_id", *_FOREIGN})


def keys_of(name: str, profile: Profile | None) -> AwsCredentials | str:
    """Return the keys of a profile, or the sentence that says why there are none."""
    if profile is None:
        return f"There is no profile {name} in the shared files."
    access = profile.get("aws_access_key_id", "")
    secret = profile.get("aws_secret_access_key", "")
    if access and secret:
        token = profile.get("aws_session_token", "")
        return AwsCredentials(access, Secret(secret), Secret(token) if token else None)
    for setting, words in _FOREIGN.items():
        if setting in profile:
            return f"The profile {name} asks for {words}, which is not supported."
    return f"The profile {name} has no keys."


# -- what the metadata services answer ------------------------------------------


class _Metadata(msgspec.Struct, rename="pascal"):
    access_key_id: str
    secret_access_key: str
    token: str | None = None
    expiration: str | None = None


_METADATA = msgspec.json.Decoder(_Metadata)


def read_metadata(body: bytes) -> AwsCredentials:
    """Return the keys in an answer of the instance's or the container's service.

    Raises:
        ValueError: There are none in it.
    """
    try:
        found = _METADATA.decode(body)
        expires = None
        if found.expiration is not None:
            moment = datetime.fromisoformat(found.expiration)
            expires = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, UnicodeDecodeError, RecursionError):
        # msgspec's errors are ValueErrors and may quote; ours says what was expected.
        message = "It did not answer with keys."
        raise ValueError(message) from None
    return AwsCredentials(
        found.access_key_id,
        Secret(found.secret_access_key),
        Secret(found.token) if found.token else None,
        expires,
    )


_CONTAINER_HOSTS = frozenset(
    {"localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
)
"""Where keys may be asked for without TLS: this machine, ECS, EKS."""

_CONTAINER = Url("http", "169.254.170.2", 80)


def container_address(relative: str, full: str) -> tuple[Url, str]:
    """Return where a container's keys are: the origin, and the path without its slash.

    Args:
        relative: ``AWS_CONTAINER_CREDENTIALS_RELATIVE_URI``; counts before the other.
        full: ``AWS_CONTAINER_CREDENTIALS_FULL_URI``.

    Raises:
        ValueError: It is no address that keys may be asked of.
    """
    if relative:
        return _CONTAINER, relative.lstrip("/")
    try:
        parts = urlsplit(full)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    path = parts.path.lstrip("/")
    if parts.query:
        path = f"{path}?{parts.query}"
    if host and parts.scheme == "https":
        return Url("https", host, port or 443), path
    if host in _CONTAINER_HOSTS and parts.scheme == "http":
        return Url("http", host, port or 80), path
    message = (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI must be an https address, or one of this "
        "machine, ECS or EKS."
    )
    raise ValueError(message)
