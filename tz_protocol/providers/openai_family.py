"""The vendors that speak OpenAI's formats, one row each.

The one rule: a vendor is a row. What differs from OpenAI's own API is data (renamed
and refused parameters, paths, the header that carries the key); a vendor that needs a
function of its own has a dialect of its own and is not here. Any other vendor of this
kind needs no row either: it is ``type = "openai"`` with its ``api_base``.

A parameter is listed as unsupported only if leaving it out does not change what the
answer means. What does change it (``logprobs``, ``logit_bias``, ``n``) is passed on,
so that the vendor's own refusal, which names the field, reaches the caller.
"""

from __future__ import annotations

from dataclasses import replace

from tz_protocol.dialects.azure_moderations import ANALYZE_TEXT, AZURE_MODERATIONS
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.mistral_moderations import MISTRAL_MODERATIONS
from tz_protocol.dialects.openai_audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTION
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_messages import (
    CLOSED_MESSAGES,
    NO_DEVELOPER,
    NO_LINKS,
    REASONING_ECHO,
    SHORT_IDS,
)
from tz_protocol.dialects.openai_chat_repairs import (
    REASONING,
    THINK_BLOCKS,
    WEAK_IDS,
)
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.providers.base import Deviations, Provider
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret

__all__ = ["OPENAI_FAMILY", "api_key_header", "bearer"]


def bearer(request: HttpRequest, key: Secret | None, wall: float) -> Headers:
    """Return ``authorization: Bearer``; nothing if there is no key.

    Source: RFC 6750, section 2.1.
    """
    del request, wall
    return () if key is None else (("authorization", f"Bearer {key.reveal()}"),)


def api_key_header(request: HttpRequest, key: Secret | None, wall: float) -> Headers:
    """Return Azure's header for the key; nothing if there is no key.

    Source: https://learn.microsoft.com/azure/ai-services/openai/reference,
    "Authentication"; for Content Safety, see ``azure_moderations``.
    """
    del wall
    if key is None:
        return ()
    is_openai = not request.path.startswith(_CONTENT_SAFETY)
    return (("api-key" if is_openai else "ocp-apim-subscription-key", key.reveal()),)


_CHAT: dict[str, AnyDialect] = {"chat": OPENAI_CHAT}
_CHAT_EMBEDDING: dict[str, AnyDialect] = {**_CHAT, "embedding": OPENAI_EMBEDDINGS}
_TRANSCRIPTION: dict[str, AnyDialect] = {"audio_transcription": OPENAI_TRANSCRIPTION}
_AUDIO: dict[str, AnyDialect] = {**_TRANSCRIPTION, "audio_speech": OPENAI_SPEECH}

_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
"""For servers that know the older name only and ignore the newer one in silence, so
that the caller's limit would be lost (ollama issue 7125, for one)."""

_THINK_OPTION = "parse_think_blocks"
_THINK_SWITCH = {_THINK_OPTION: THINK_BLOCKS}
"""Whether models write what they think into their answer depends on the model and on
how it is served; where the vendor's models do, that is taken for granted."""

_SERVER = Deviations(
    renames=_MAX_TOKENS,
    quirks=frozenset({NO_DEVELOPER, REASONING}),
    switches=_THINK_SWITCH,
)
"""Servers of open models: their chat templates know no developer, and newer releases
have renamed ``reasoning_content`` (https://docs.vllm.ai, "Reasoning Outputs")."""

_CONTENT_SAFETY = "contentsafety/"
"""What paths of Azure's begin with that have nothing to do with OpenAI."""

_AZURE_OPERATIONS = (
    "chat/completions",
    "embeddings",
    "audio/transcriptions",
    "audio/speech",
)

_OPENAI = Provider(
    name="openai",
    base_url="https://api.openai.com/v1/",
    credential="env::OPENAI_API_KEY",
    authorize=bearer,
    dialects={**_CHAT_EMBEDDING, "moderation": OPENAI_MODERATIONS, **_AUDIO},
    optional=("api_base", _THINK_OPTION),
    deviations=Deviations(switches=_THINK_SWITCH),
)

# https://learn.microsoft.com/azure/ai-services/openai/reference; 2024-10-21 is the
# newest version there that is not a preview. There is no moderations route: what Azure
# has for that is Content Safety, beside the models of the same resource.
_AZURE = Provider(
    name="azure",
    base_url=None,
    credential="env::AZURE_OPENAI_API_KEY",
    authorize=api_key_header,
    dialects={**_CHAT_EMBEDDING, "moderation": AZURE_MODERATIONS, **_AUDIO},
    required=("deployment_id", "endpoint"),
    optional=("api_version",),
    has_shorthand=False,
    paths={
        operation: f"openai/deployments/{{deployment_id}}/{operation}"
        "?api-version={api_version}"
        for operation in _AZURE_OPERATIONS
    }
    | {ANALYZE_TEXT: f"{_CONTENT_SAFETY}{ANALYZE_TEXT}?api-version=2024-09-01"},
    defaults={"api_version": "2024-10-21"},
)

# https://console.groq.com/docs/api-reference: chat and audio, no embeddings.
_GROQ = Provider(
    name="groq",
    base_url="https://api.groq.com/openai/v1/",
    credential="env::GROQ_API_KEY",
    authorize=bearer,
    dialects={**_CHAT, **_AUDIO},
    optional=("api_base",),
    # Thoughts are in reasoning, and reasoning_content in a message is a 400.
    deviations=Deviations(quirks=frozenset({REASONING, REASONING_ECHO})),
)

# https://docs.together.ai/openapi: chat knows max_tokens only; audio is OpenAI's.
_TOGETHER = Provider(
    name="together",
    base_url="https://api.together.xyz/v1/",
    credential="env::TOGETHER_API_KEY",
    authorize=bearer,
    dialects={**_CHAT_EMBEDDING, **_AUDIO},
    optional=("api_base", _THINK_OPTION),
    deviations=Deviations(
        renames=_MAX_TOKENS,
        quirks=frozenset({NO_DEVELOPER, REASONING, THINK_BLOCKS}),
        switches=_THINK_SWITCH,
    ),
)

# Transcription is served by hosts of its own, which ``api_base`` must then name:
# https://docs.fireworks.ai/guides/querying-asr-models.
_FIREWORKS = Provider(
    name="fireworks",
    base_url="https://api.fireworks.ai/inference/v1/",
    credential="env::FIREWORKS_API_KEY",
    authorize=bearer,
    dialects={**_CHAT_EMBEDDING, **_TRANSCRIPTION},
    optional=("api_base", _THINK_OPTION),
    deviations=Deviations(
        quirks=frozenset({NO_DEVELOPER, THINK_BLOCKS}), switches=_THINK_SWITCH
    ),
)

# https://api-docs.deepseek.com/api/create-chat-completion: max_tokens only.
_DEEPSEEK = Provider(
    name="deepseek",
    base_url="https://api.deepseek.com/v1/",
    credential="env::DEEPSEEK_API_KEY",
    authorize=bearer,
    dialects=_CHAT,
    optional=("api_base", _THINK_OPTION),
    deviations=Deviations(
        renames=_MAX_TOKENS,
        quirks=frozenset({NO_DEVELOPER}),
        switches=_THINK_SWITCH,
    ),
)

_XAI = Provider(
    name="xai",
    base_url="https://api.x.ai/v1/",
    credential="env::XAI_API_KEY",
    authorize=bearer,
    dialects=_CHAT,
    optional=("api_base",),
)

# https://openrouter.ai/docs/api-reference. HTTP-Referer and X-Title would name the
# caller's product; that is for ``extra_headers`` to say, not for us.
_OPENROUTER = Provider(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1/",
    credential="env::OPENROUTER_API_KEY",
    authorize=bearer,
    dialects={**_CHAT_EMBEDDING, **_AUDIO},
    optional=("api_base",),
    deviations=Deviations(quirks=frozenset({REASONING, REASONING_ECHO})),
)

# https://docs.mistral.ai/api: the schemas are closed, an unknown member is a 422.
# Usage comes in the last chunk of every stream, unasked. Speech answers JSON: not
# OpenAI's.
_MISTRAL = Provider(
    name="mistral",
    base_url="https://api.mistral.ai/v1/",
    credential="env::MISTRAL_API_KEY",
    authorize=bearer,
    dialects={
        **_CHAT_EMBEDDING,
        "moderation": MISTRAL_MODERATIONS,
        **_TRANSCRIPTION,
    },
    optional=("api_base",),
    deviations=Deviations(
        quirks=frozenset({CLOSED_MESSAGES, NO_DEVELOPER, SHORT_IDS}),
        renames={
            "max_completion_tokens": "max_tokens",
            "seed": "random_seed",
            "dimensions": "output_dimension",
        },
        # Refused by their names, though they ask for nothing.
        implied={
            "logit_bias": b"{}",
            "logprobs": b"false",
            "modalities": b'["text"]',
        },
        unsupported=frozenset(
            {
                "prompt_cache_options",
                "prompt_cache_retention",
                "safety_identifier",
                "service_tier",
                "store",
                "stream_options",
                "user",
                "verbosity",
            }
        ),
    ),
)

_HYPERBOLIC = Provider(
    name="hyperbolic",
    base_url="https://api.hyperbolic.xyz/v1/",
    credential="env::HYPERBOLIC_API_KEY",
    authorize=bearer,
    dialects=_CHAT,
    optional=("api_base", _THINK_OPTION),
    deviations=_SERVER,
)

# The four below are servers that one runs oneself: three of them anywhere, most of
# the time without a key. Old releases know max_tokens only, new ones know both.
_VLLM = Provider(
    name="vllm",
    base_url=None,
    credential="env::VLLM_API_KEY",
    is_key_optional=True,
    authorize=bearer,
    dialects=_CHAT_EMBEDDING,
    required=("model_name", "api_base"),
    optional=(_THINK_OPTION,),
    has_shorthand=False,
    deviations=_SERVER,
)

_SGLANG = Provider(
    name="sglang",
    base_url=None,
    credential="env::SGLANG_API_KEY",
    is_key_optional=True,
    authorize=bearer,
    dialects=_CHAT,
    required=("model_name", "api_base"),
    optional=(_THINK_OPTION,),
    has_shorthand=False,
    deviations=_SERVER,
)

# One server serves one model, whatever the request calls it.
_TGI = Provider(
    name="tgi",
    base_url=None,
    credential="env::TGI_API_KEY",
    is_key_optional=True,
    authorize=bearer,
    dialects=_CHAT,
    required=("api_base",),
    optional=("model_name", _THINK_OPTION),
    has_shorthand=False,
    # Every answer's first tool call has the id 0.
    deviations=replace(_SERVER, quirks=_SERVER.quirks | {WEAK_IDS}),
)

# https://docs.ollama.com/api/openai-compatibility.
_OLLAMA = Provider(
    name="ollama",
    base_url="http://127.0.0.1:11434/v1/",
    credential=None,
    is_key_optional=True,
    authorize=bearer,
    dialects=_CHAT_EMBEDDING,
    optional=("api_base", _THINK_OPTION),
    # The same page, "Vision": base64 yes, URL no.
    deviations=replace(_SERVER, quirks=_SERVER.quirks | {NO_LINKS}),
)

OPENAI_FAMILY: tuple[Provider, ...] = (
    _OPENAI,
    _AZURE,
    _GROQ,
    _TOGETHER,
    _FIREWORKS,
    _DEEPSEEK,
    _XAI,
    _OPENROUTER,
    _MISTRAL,
    _HYPERBOLIC,
    _VLLM,
    _SGLANG,
    _TGI,
    _OLLAMA,
)
"""In the order in which they are listed to users."""
