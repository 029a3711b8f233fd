"""Cohere's row.

The one rule: whom to ask and with which key; what to say is the dialects'.
"""

from __future__ import annotations

from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.cohere_embeddings import (
    COHERE_EMBEDDINGS,
    INPUT_TYPE_OPTION,
)
from tz_protocol.providers.base import Provider
from tz_protocol.providers.openai_family import bearer

__all__ = ["COHERE"]

COHERE = Provider(
    name="cohere",
    base_url="https://api.cohere.com/v2/",
    credential="env::COHERE_API_KEY",
    authorize=bearer,
    dialects={"chat": COHERE_CHAT, "embedding": COHERE_EMBEDDINGS},
    optional=("api_base", INPUT_TYPE_OPTION),
)
"""https://docs.cohere.com/v2/reference/about."""
