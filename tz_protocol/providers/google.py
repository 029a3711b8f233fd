"""Google's rows: AI Studio, and Vertex with its own and Anthropic's models.

The one rule: whom to ask and with which key; what to say is the dialects'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tz_protocol.dialects.anthropic_request import MAX_TOKENS_OPTION
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.gemini_embeddings import (
    GEMINI_EMBEDDINGS,
    VERTEX_EMBEDDINGS,
)
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.providers.base import Provider
from tz_protocol.providers.google_tokens import grant_of
from tz_protocol.providers.openai_family import bearer
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret

__all__ = ["GOOGLE", "vertex_url", "x_goog_api_key"]


def x_goog_api_key(request: HttpRequest, key: Secret | None, wall: float) -> Headers:
    """Return Google's ``x-goog-api-key``; nothing if there is no key.

    The key could stand in the query as well, and would then be in every proxy's log.
    Source: https://ai.google.dev/api, "Authentication".
    """
    del request, wall
    return () if key is None else (("x-goog-api-key", key.reveal()),)


_LOCATION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def vertex_url(options: Mapping[str, str]) -> str:
    """Return Vertex's base URL for the ``location`` among *options*.

    Source: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations:
    ``global`` has a host without a prefix, ``us`` and ``eu`` hosts of their own kind.

    Raises:
        KeyError: There is no location.
        ValueError: It is none.
    """
    location = options["location"]
    if not _LOCATION.fullmatch(location):
        message = "expected a location of Google's, such as us-central1, eu or global"
        raise ValueError(message)
    if location == "global":
        return "https://aiplatform.googleapis.com/v1/"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com/v1/"
    return f"https://{location}-aiplatform.googleapis.com/v1/"


# Google's own libraries take GEMINI_API_KEY or GOOGLE_API_KEY; TensorZero's name is
# the default here, and the others are one ``api_key_location`` away.
_AI_STUDIO = Provider(
    name="google_ai_studio_gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/",
    credential="env::GOOGLE_AI_STUDIO_API_KEY",
    authorize=x_goog_api_key,
    dialects={"chat": GEMINI, "embedding": GEMINI_EMBEDDINGS},
    optional=("api_base",),
)

_VERTEX_KEY = "path_from_env::GCP_VERTEX_CREDENTIALS_PATH"
"""A variable that names the file with the service account's key (TensorZero's)."""

_MODEL_KEYS = ("model_name", "model_id", "endpoint_id")

_VERTEX = Provider(
    name="gcp_vertex_gemini",
    base_url=None,
    locate=vertex_url,
    credential=_VERTEX_KEY,
    authorize=bearer,
    grant=grant_of,
    dialects={"chat": VERTEX_GEMINI, "embedding": VERTEX_EMBEDDINGS},
    required=("location", "project_id"),
    optional=(*_MODEL_KEYS, "credential_location", "api_base"),
    has_shorthand=False,
)

_VERTEX_ANTHROPIC = Provider(
    name="gcp_vertex_anthropic",
    base_url=None,
    locate=vertex_url,
    credential=_VERTEX_KEY,
    authorize=bearer,
    grant=grant_of,
    dialects={"chat": VERTEX_ANTHROPIC},
    required=("location", "project_id"),
    optional=(*_MODEL_KEYS, "credential_location", "api_base", MAX_TOKENS_OPTION),
    has_shorthand=False,
)

GOOGLE: tuple[Provider, ...] = (_AI_STUDIO, _VERTEX, _VERTEX_ANTHROPIC)
"""In the order in which they are listed to users."""
