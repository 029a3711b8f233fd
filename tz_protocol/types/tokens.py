"""Access tokens: what they are got for, and how.

The one rule: a grant says what to ask and how to read the answer; who asks, when, and
how often is ``flows/tokens.py``'s and ``routing/tokens.py``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url

__all__ = ["Grant", "Token"]


@dataclass(frozen=True, slots=True)
class Token:
    """A short-lived key, as it was issued."""

    secret: Secret
    lifetime: float
    """Seconds from now."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A credential that is exchanged for tokens; two of one ``identity`` are one."""

    identity: Hashable
    """What makes it this grant; holds a ``Secret`` and is never shown."""
    kind: str = field(compare=False)
    """For people: ``service_account``, ``authorized_user`` or ``compute_metadata``."""
    url: Url = field(compare=False)
    """Where tokens are issued; its path is that of the request."""
    render: Callable[[float], HttpRequest] = field(compare=False, repr=False)
    """(Unix seconds) -> the request, its path relative to ``url``. May take a
    millisecond of CPU (RSA). Raises ``UpstreamError``."""
    read: Callable[[ResponseHead, bytes], Token] = field(compare=False, repr=False)
    """The answer, whatever its status -> the token. Raises ``UpstreamError``."""
