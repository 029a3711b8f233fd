"""Voyage's row: embeddings in OpenAI's format.

The one rule: what it says otherwise is data, as for the vendors of ``openai_family``.
"""

from __future__ import annotations

from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.providers.base import Deviations, Provider
from tz_protocol.providers.openai_family import bearer

__all__ = ["VOYAGE"]

# ``input_type`` and ``truncation`` pass as the client writes them. Usage is a total
# without its parts.
VOYAGE = Provider(
    name="voyage",
    base_url="https://api.voyageai.com/v1/",
    credential="env::VOYAGE_API_KEY",
    authorize=bearer,
    dialects={"embedding": OPENAI_EMBEDDINGS},
    optional=("api_base",),
    deviations=Deviations(
        renames={"dimensions": "output_dimension"},
        implied={"encoding_format": b'"float"'},
        unsupported=frozenset({"user"}),
    ),
)
"""https://docs.voyageai.com/reference/embeddings-api."""
