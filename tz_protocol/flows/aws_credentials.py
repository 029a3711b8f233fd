"""The process's own AWS credentials are looked up here, off the path of any request.

The one rule: a request never looks; it waits, at most as long as it may take to
connect, for the service that does. The places are those of the AWS SDKs, in their
order: environment, shared files, the container's service, the instance's (IMDSv2). As
soon as one of them is meant, the others do not count, even if it fails.

Sources: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html;
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/
instancedata-data-retrieval.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tz_protocol.errors import (
    OperationBroken,
    OperationTimeout,
    UpstreamError,
    UpstreamTimeout,
)
from tz_protocol.flows.upstream import Call, open_upstream, read_all
from tz_protocol.machine import Context
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, ReadFiles, ResolveSecret, Sleep, Wait
from tz_protocol.providers.aws_credentials import (
    CredentialTable,
    Profile,
    container_address,
    keys_are_meant,
    keys_of,
    profiles_of,
    read_metadata,
    refresh_after,
)
from tz_protocol.routing.pool import Pool
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits, ProviderSettings, Url
from tz_protocol.wire.sigv4 import AwsCredentials, escape_segment

__all__ = ["AwsService", "credentials_for"]

LOOK_SECONDS = 5.0
"""By when a variable or a file must have been read."""

CONNECT_SECONDS = 1.0
TOTAL_SECONDS = 5.0
"""Of a metadata service: it is on the same machine, or there is none. The SDKs wait
for one second."""

ANSWER_LIMIT = 65_536
"""Bytes of its answer; real ones stay under 4 KiB."""

RETRY_SECONDS = (5.0, 60.0)
"""After a look that failed, growing from the first to the second."""

_INSTANCE = Url("http", "169.254.169.254", 80)
_TOKEN_SECONDS = "300"
"""For how long the instance's session token is asked for; it is used once."""

_NOWHERE = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, the shared files have no "
    "profile default, and the instance has no role."
)


class _Missing(Exception):
    """A place that was meant has no keys; its text is a sentence."""


def credentials_for(table: CredentialTable, deadline: float) -> Flow[AwsCredentials]:
    """Return the process's own credentials, waiting for the first look if need be.

    Args:
        table: Of the process.
        deadline: When to stop waiting; the attempt's deadline to connect.

    Raises:
        UpstreamError: There are none; ``UpstreamTimeout`` (``connect``) if nobody
            said so in time.
    """
    while (credentials := table.get()) is None:
        try:
            yield from Wait(deadline, table.want())
        except OperationTimeout:
            raise UpstreamTimeout("connect") from None
    return credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsService:
    """Looks for credentials as soon as any are wanted, and renews them.

    Drive :meth:`run` until the process ends.
    """

    table: CredentialTable
    context: Context
    pool: Pool
    limits: Callable[[], Limits]
    """Those of the configuration that holds now."""
    wall_clock: Callable[[], float]
    """Unix seconds, in which the end of borrowed keys is said."""
    user_agent: str = ""

    def run(self) -> Flow[None]:
        """Look for ever; nothing that is found ends it."""
        yield from Wait(math.inf, self.table.demand)
        least, most = RETRY_SECONDS
        pause = least
        while True:
            try:
                found = yield from self._look()
            except _Missing as error:
                self.table.fail(str(error))
                self._warn(str(error))
                delay, pause = pause, min(most, pause * 2)
            else:
                self.table.store(found)
                delay, pause = refresh_after(found, self.wall_clock()), least
            yield from Sleep(self.context.now + delay)

    def _warn(self, reason: str) -> None:
        line = LogLine("warning", "no AWS credentials could be had", {"error": reason})
        self.context.tell(line)

    def _look(self) -> Flow[AwsCredentials]:
        """Return what the first place that is meant has."""
        region = yield from self._variable("AWS_REGION", "AWS_DEFAULT_REGION")
        profile = yield from self._variable("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
        found = yield from self._environment()
        if found is None or not region:
            profiles = yield from self._profiles(is_needed=found is None)
            settings = profiles.get(profile or "default")
            if settings is not None:
                region = region or settings.get("region", "")
            if found is None and (profile or keys_are_meant(settings)):
                keys = keys_of(profile or "default", settings)
                if isinstance(keys, str):
                    raise _Missing(keys)
                found = keys
        self.table.region = region
        if found is None:
            found = yield from self._container()
        if found is None:
            found = yield from self._instance()
        return found

    # -- environment and files ----------------------------------------------------

    def _variable(self, *names: str) -> Flow[str]:
        """Return the first of these variables that is set, empty if none is."""
        for name in names:
            value = yield from self._secret(f"env::{name}")
            if value:
                return value
        return ""

    def _secret(self, location: str) -> Flow[str]:
        try:
            secret = yield from ResolveSecret(self.context.now + LOOK_SECONDS, location)
        except (OperationBroken, OperationTimeout):
            return ""
        return secret.reveal().strip()

    def _environment(self) -> Flow[AwsCredentials | None]:
        access = yield from self._variable("AWS_ACCESS_KEY_ID")
        secret = yield from self._variable("AWS_SECRET_ACCESS_KEY")
        if not access and not secret:
            return None
        if not access or not secret:
            name = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
            raise _Missing(f"{name} is not set, and the other of the two keys is.")
        token = yield from self._variable("AWS_SESSION_TOKEN")
        return AwsCredentials(access, Secret(secret), Secret(token) if token else None)

    def _profiles(self, *, is_needed: bool) -> Flow[dict[str, Profile]]:
        """Return the profiles of the shared files.

        Args:
            is_needed: False if only the region is wanted, so that a file that cannot
                be read is no matter.
        """
        texts = []
        for name, file in (
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            ("AWS_CONFIG_FILE", "config"),
        ):
            path = yield from self._variable(name)
            if not path or path.startswith("~"):
                home = yield from self._variable("HOME", "USERPROFILE")
                path = home + (path[1:] if path else f"/.aws/{file}") if home else ""
            texts.append((yield from self._file(path)) if path else "")
        try:
            return profiles_of(*texts)
        except ValueError as error:
            if is_needed:
                raise _Missing(str(error)) from None
            return {}

    def _file(self, path: str) -> Flow[str]:
        pattern = "".join(f"[{one}]" if one in "*?[" else one for one in path)
        try:
            files = yield from ReadFiles(self.context.now + LOOK_SECONDS, pattern)
        except (OperationBroken, OperationTimeout):
            return ""
        return files[0][1] if files else ""

    # -- metadata services --------------------------------------------------------

    def _container(self) -> Flow[AwsCredentials | None]:
        """Ask the service of ECS or EKS, if the container was given one."""
        prefix = "AWS_CONTAINER_CREDENTIALS"
        relative = yield from self._variable(f"{prefix}_RELATIVE_URI")
        full = yield from self._variable(f"{prefix}_FULL_URI")
        if not relative and not full:
            return None
        try:
            url, path = container_address(relative, full)
        except ValueError as error:
            raise _Missing(str(error)) from None
        prefix = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
        file = yield from self._variable(f"{prefix}_FILE")
        token = yield from self._variable(prefix)
        if file:
            token = yield from self._secret(f"path::{file}")
        headers = (("authorization", token),) if token else ()
        body = yield from self._ask("GET", url, path, headers)
        return self._read(body, "The container's service")

    def _instance(self) -> Flow[AwsCredentials]:
        """Ask the instance's service for the keys of its role."""
        is_off = yield from self._variable("AWS_EC2_METADATA_DISABLED")
        if is_off.lower() == "true":
            raise _Missing(_NOWHERE)
        try:
            headers = (("x-aws-ec2-metadata-token-ttl-seconds", _TOKEN_SECONDS),)
            token = yield from self._ask("PUT", _INSTANCE, "latest/api/token", headers)
        except _Missing:
            raise _Missing(_NOWHERE) from None
        headers = (("x-aws-ec2-metadata-token", token.decode("latin-1").strip()),)
        path = "latest/meta-data/iam/security-credentials/"
        listed = yield from self._ask("GET", _INSTANCE, path, headers)
        roles = listed.decode("utf-8", "replace").split()
        if not roles:
            raise _Missing(_NOWHERE)
        path += escape_segment(roles[0])
        body = yield from self._ask("GET", _INSTANCE, path, headers)
        return self._read(body, "The instance's service")

    def _read(self, body: bytes, whose: str) -> AwsCredentials:
        try:
            return read_metadata(body)
        except ValueError:
            raise _Missing(f"{whose} did not answer with keys.") from None

    def _ask(self, method: str, url: Url, path: str, headers: Headers) -> Flow[bytes]:
        """Return the body of a metadata service's answer.

        Raises:
            _Missing: There is none.
        """
        now = self.context.now
        call = Call(
            request=HttpRequest(method=method, path=path),
            headers=(*headers, ("user-agent", self.user_agent)),
            settings=ProviderSettings(name="aws", type="aws", model="", url=url),
            connect_deadline=now + CONNECT_SECONDS,
            head_deadline=now + TOTAL_SECONDS,
            total_deadline=now + TOTAL_SECONDS,
        )
        try:
            response = yield from open_upstream(
                call, self.pool, self.context, self.limits()
            )
            try:
                body = yield from read_all(
                    response, now + TOTAL_SECONDS, "total", ANSWER_LIMIT
                )
            finally:
                response.close()
        except UpstreamError as error:
            message = f"The metadata service for credentials failed: {error}."
            raise _Missing(message) from None
        if response.head.status != 200:
            status = response.head.status
            message = f"The metadata service for credentials answered {status}."
            raise _Missing(message)
        return body
