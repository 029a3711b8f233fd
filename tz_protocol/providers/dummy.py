"""A provider that answers in the core: for your own tests, without any network.

The one rule: it speaks OpenAI's wire format. It gets the rendered request and answers
heads and bytes, so everything above it is the path that a real provider takes.

Use it as ``dummy::NAME``, or as a provider of ``type = "dummy"`` with ``model_name =
"NAME"``. The name says what happens. The same request always gets the same answer.

======================================  =========================================
name                                    what it answers (chat)
======================================  =========================================
any other                               a sentence; streamed: another, in 16 words
``alternate``                           a different sentence
``empty``, ``null``                     an empty text; no content at all
``reasoner``, ``json_reasoner``         ``reasoning_content``, then text or JSON
``reasoner_with_signature``             as ``reasoner``: there is no place for one
``json``, ``json_goodbye``              ``{"answer":"Hello"}``, ``"Goodbye"``
``json_cot``, ``json_diff_schema``      JSON of other shapes
``json_beatles_1``, ``json_beatles_2``  ``{"names":[...]}``
``tool``, ``good_tool``                 a tool call (``get_temperature``,
                                        ``output_schema_tool``)
``tool_split_name``                     as ``tool``; streamed, its name comes in two
``bad_tool``                            a tool call that breaks its schema's enum
``invalid_tool_arguments``              a tool call whose arguments are not JSON
``echo``                                the last user message's first text
``echo_request_messages``               ``{"system":...,"messages":[...]}`` as JSON
``echo_extra_info``,                    the ``extra_body`` and ``extra_headers`` of
``echo_injected_data``                  its table, as JSON
``extract_images``                      the request's images, files, audio, as JSON
``require_pdf``                         the same; 400 if none of them is a PDF
``multiple-text-blocks``                a sentence; 400 unless the first message has
                                        exactly two texts
``random_answer``                       ``{"answer":"<uuid>"}``, made of the request
``best_of_n_0``, ``_1``, ``_big``,      ``{"thinking":...,"answer_choice":N}`` with
``flaky_best_of_n_judge``               0, 1, 100 and 0
``llm_judge::true``, ``false``,         ``{"score":...}``
``zero``, ``one``
``input_tokens_zero``, ...              usage 0/n; ``output_tokens_zero`` 10/0;
                                        ``input_tokens_output_tokens_zero`` 0/0;
                                        ``input_five_output_six`` 5/6
======================================  =========================================

======================================  =========================================
name                                    how it fails or dawdles
======================================  =========================================
``error...``                            the connection is refused
``error_with_raw_response``             500
``llm_judge::error``                    500 (chat)
``flaky_...``                           every second call: 500; 429 with
                                        ``retry-after: 1`` if the name contains
                                        ``rate_limit``
``test_key``                            401 unless the key is ``good_key``
``slow``                                5 s before anything (embeddings: 30 s, any
                                        name that contains it)
``slow_second_chunk``                   2 s before the stream's second chunk
``err_in_stream``,                      3 chunks, then an error event, no terminator
``err_in_stream_with_raw_response``
``fatal_stream_error``,                 2 chunks, an error event, then 5 s of silence
``fatal_stream_error_with_raw_...``
======================================  =========================================

Streamed, only ``tool``, ``tool_split_name``, ``good_tool``, ``json``, the reasoners
and those of the second table differ from the 16 words. Usage is 10 prompt tokens and
one completion token a block (whole) or a chunk (streamed). Between two chunks it
waits 10 ms, or ``spacing_ms`` of its table. What fails before it answers does so for
every capability. Beyond chat: embeddings are 1536 zeros (or ``dimensions``),
moderation flags texts that contain ``harmful``, ``violent`` or ``hate``, transcription
hears ``This is a dummy transcription``, speech is 1024 zero bytes.

How often a flaky name was called is counted for each gateway apart, and forgotten
with it. Source of the names and texts: TensorZero's provider of this name.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from tz_protocol.dialects.openai_audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTION
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import UpstreamBroken
from tz_protocol.machine import Context
from tz_protocol.operations import Flow
from tz_protocol.providers.base import Provider, Reply
from tz_protocol.providers.dummy_audio import answer_speech, answer_transcription
from tz_protocol.providers.dummy_chat import answer_chat
from tz_protocol.providers.dummy_embeddings import (
    answer_embeddings,
    answer_moderations,
)
from tz_protocol.providers.dummy_replies import Call, Failure, pause
from tz_protocol.types.http import Headers, HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings

__all__ = ["Dummy", "make_dummy"]

GOOD_KEY = "good_key"
"""The one key that ``test_key`` takes."""

SPACING = 0.010
"""Seconds between two pieces of a stream, unless the table says otherwise."""

MOST_SPACING = 60.0
"""Seconds; a longer wait is taken for a mistake."""

MOST_NAMES = 1_000
"""Flaky names counted for one gateway; callers choose names, so they are bounded."""

_SLOW = 5.0
_SLOW_EMBEDDING = 30.0

_EMBEDDINGS = "embeddings"

_ANSWERS: dict[str, Callable[[Call], Reply]] = {
    "chat/completions": answer_chat,
    _EMBEDDINGS: answer_embeddings,
    "moderations": answer_moderations,
    "audio/transcriptions": answer_transcription,
    "audio/speech": answer_speech,
}
"""By the path that the dialect asks for."""


class Dummy:
    """Answers for one row; remembers only how often flaky names were called."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: WeakKeyDictionary[Context, dict[str, int]] = WeakKeyDictionary()

    def respond(
        self,
        request: HttpRequest,
        settings: ProviderSettings,
        key: Secret | None,
        deadline: float,
        context: Context,
    ) -> Flow[Reply]:
        """Return the answer to *request*: a ``Responder``.

        Raises:
            UpstreamBroken: The behaviour is to be unreachable.
            OperationTimeout: The behaviour is slower than the deadline.
        """
        name = settings.model
        seconds = _delay(request.path, name)
        if seconds:
            yield from pause(context, seconds, deadline)
        try:
            self._fail_by_name(context, name, request.path)
            if name == "test_key" and (key is None or key.reveal() != GOOD_KEY):
                message = "Invalid API key for Dummy provider"
                kind = "authentication_error"
                raise Failure(401, message, kind=kind, code="invalid_api_key")
            answer = _ANSWERS.get(request.path)
            if answer is None:
                message = f"The dummy provider has no route {request.path}."
                raise Failure(404, message, kind="invalid_request_error")
            return answer(Call(request, settings, context, _spacing(settings)))
        except Failure as failure:
            return failure.reply()

    def _fail_by_name(self, context: Context, name: str, path: str) -> None:
        """Raise if this call is to fail.

        Raises:
            Failure: It is to fail with a status.
            UpstreamBroken: It is to fail without one.
        """
        if name.startswith("flaky_"):
            number = self._count(context, name)
            if number % 2 == 0:
                raise _flaky_failure(name, number)
        elif name == "error_with_raw_response":
            place = "Dummy embedding" if path == _EMBEDDINGS else "Dummy"
            message = f"Error from {place} provider with raw response"
            raise Failure(500, message, raw="dummy error raw response")
        elif name.startswith("error"):
            message = f"Error sending request to Dummy provider for model '{name}'."
            raise UpstreamBroken("refused", message)

    def _count(self, context: Context, name: str) -> int:
        """Return which call of *name* this is, from 1."""
        counts = self._calls.setdefault(context, {})
        if name not in counts and len(counts) >= MOST_NAMES:
            del counts[next(iter(counts))]
        number = counts[name] = counts.get(name, 0) + 1
        return number


def _delay(path: str, name: str) -> float:
    """Return how many seconds pass before anything else happens."""
    if path == _EMBEDDINGS:
        return _SLOW_EMBEDDING if "slow" in name else 0.0
    return _SLOW if name == "slow" else 0.0


def _flaky_failure(name: str, number: int) -> Failure:
    message = f"Flaky model '{name}' failed on call number {number}"
    if "rate_limit" in name:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
        return Failure(429, message, kind=kind, code=code, retry_after=1)
    raw = "dummy flaky error raw response" if "raw_response" in name else None
    return Failure(500, message, raw=raw)


def _spacing(settings: ProviderSettings) -> float:
    """Return the seconds between two pieces of a stream.

    Raises:
        Failure: 400, if the table's ``spacing_ms`` is no such number.
    """
    text = settings.options.get("spacing_ms")
    if text is None:
        return SPACING
    try:
        seconds = float(text) / 1000
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SPACING:
        message = f"spacing_ms must be a number from 0 to {MOST_SPACING * 1000:.0f}"
        raise Failure(400, message, kind="invalid_request_error")
    return seconds


def _no_authorization(request: HttpRequest, key: Secret | None, wall: float) -> Headers:
    """Return no header: the key is handed to the responder as it is."""
    del request, key, wall
    return ()


def make_dummy() -> Provider:
    """Return a row of its own, with its own counts."""
    return Provider(
        name="dummy",
        base_url=None,
        credential=None,
        is_key_optional=True,
        authorize=_no_authorization,
        dialects={
            "chat": OPENAI_CHAT,
            "embedding": OPENAI_EMBEDDINGS,
            "moderation": OPENAI_MODERATIONS,
            "audio_transcription": OPENAI_TRANSCRIPTION,
            "audio_speech": OPENAI_SPEECH,
        },
        optional=("spacing_ms",),
        responder=Dummy().respond,
    )
