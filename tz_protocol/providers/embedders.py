"""Vendors of embeddings and nothing else, in whichever format.

The one rule: what one says otherwise than its format does is data, as for the vendors
of ``openai_family``. A new vendor is a row here; a new format is a module among the
dialects, and a row here.
"""

from __future__ import annotations

from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.providers.base import Deviations, Provider
from tz_protocol.providers.openai_family import bearer

__all__ = ["EMBEDDERS"]

# https://docs.voyageai.com/reference/embeddings-api: ``input_type`` and ``truncation``
# pass as the client writes them; usage is a total without its parts.
_VOYAGE = Provider(
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

EMBEDDERS: tuple[Provider, ...] = (_VOYAGE,)
"""In the order in which they are listed to users."""
