"""What proves to a provider who asks: a key, a token got for it, or a signature.

The one rule: most providers take their key as it is, and nothing is waited for. Where
a token or the process's own credentials are needed, a service fetches and renews them;
a request waits only for the first, no longer than for a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.flows.aws_credentials import credentials_for
from tz_protocol.flows.tokens import token_for
from tz_protocol.operations import Flow
from tz_protocol.routing.candidates import Candidate
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.tokens import Grant

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["Proof", "prove"]


class Proof:
    """The headers of one request, and the token among them if there is one.

    Args:
        gateway: Whose tables of tokens are told of a refusal.
        headers: Of the request.
        grant: What the token was got for.
        token: The key or token that the headers hold.
        secrets: All else that was used and is nobody's to know.
    """

    __slots__ = ("_gateway", "_grant", "_token", "headers", "secrets")

    def __init__(
        self,
        gateway: Gateway,
        headers: Headers,
        grant: Grant | None = None,
        token: Secret | None = None,
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        self._gateway = gateway
        self.headers = headers
        self._grant = grant
        self._token = token
        self.secrets = secrets if token is None else (*secrets, token)

    def refused(self) -> None:
        """Say that the provider did not accept it: a token is then got anew."""
        if self._grant is not None and self._token is not None:
            gateway = self._gateway
            gateway.tokens.refused(self._grant, self._token, gateway.context.now)


def prove(
    gateway: Gateway,
    candidate: Candidate,
    request: HttpRequest,
    key: Secret | None,
    deadline: float,
) -> Flow[Proof]:
    """Return what authorises *request* at the candidate's provider.

    Args:
        gateway: Whose tables of tokens and credentials are used.
        candidate: Whom the request is for.
        request: With the vendor's own path, which a signature covers.
        key: Of the candidate, None if it has none.
        deadline: By when a token or credentials must be there.

    Raises:
        UpstreamError: They could not be had.
        InvalidRequest: It is not known for which region to sign.
    """
    provider = candidate.provider
    if key is None and provider.sign is not None:
        credentials = yield from credentials_for(gateway.aws, deadline)
        settings, region = candidate.settings, gateway.aws.region
        wall = gateway.wall_clock()
        headers = provider.sign(request, settings, credentials, region, wall)
        return Proof(gateway, headers, secrets=credentials.secrets())
    grant = None
    if key is not None and provider.grant is not None:
        grant = provider.grant(key)
        if grant is not None:
            key = yield from token_for(gateway.tokens, grant, gateway.context, deadline)
    headers = provider.authorize(request, key, gateway.wall_clock())
    return Proof(gateway, headers, grant, key)
