"""The vendors by type: one explicit, ordered table.

The one rule: a new vendor is a row in a module beside this one and a place in
``ROWS``. Nothing registers itself.
"""

from __future__ import annotations

from tz_protocol.providers.anthropic import ANTHROPIC
from tz_protocol.providers.aws import AWS_BEDROCK, AWS_SAGEMAKER
from tz_protocol.providers.base import Provider
from tz_protocol.providers.cohere import COHERE
from tz_protocol.providers.dummy import make_dummy
from tz_protocol.providers.embedders import EMBEDDERS
from tz_protocol.providers.google import GOOGLE
from tz_protocol.providers.openai_family import OPENAI_FAMILY

__all__ = ["PROVIDERS", "ROWS", "by_name"]

ROWS: tuple[Provider, ...] = (
    *OPENAI_FAMILY,
    ANTHROPIC,
    *GOOGLE,
    AWS_BEDROCK,
    AWS_SAGEMAKER,
    COHERE,
    *EMBEDDERS,
    make_dummy(),
)
"""Every vendor, in the order in which they are listed to users."""


def by_name(rows: tuple[Provider, ...]) -> dict[str, Provider]:
    """Return *rows* by name, in their order.

    Raises:
        ValueError: Two rows have the same name.
    """
    table: dict[str, Provider] = {}
    for row in rows:
        if row.name in table:
            message = f"two providers have the name {row.name}"
            raise ValueError(message)
        table[row.name] = row
    return table


PROVIDERS: dict[str, Provider] = by_name(ROWS)
"""By ``type``; embedders may pass the gateway a copy with rows of their own."""
