"""The neutral middle of chat: what every format can say, in one vocabulary.

The one rule: a value here means the same whoever said it and whoever hears it; what
only one vendor can say is carried unread (``Opaque``, ``ProviderTool``,
``Conversation.parameters``) and never guessed at. There is no JSON and no vendor here:
``dialects/openai_conversation.py`` is the caller's side, one module a vendor the other.

How a new dialect is made
-------------------------
1. ``render_request(parsed, target)``: ``conversation_of(parsed)`` gives the
   :class:`Conversation`, parsed once for all candidates. Open a
   ``losses.Report(target, conversation, COLUMN)``: it refuses and drops what the
   dialect's column of ``dialects/parameters.py`` says. Render the rest with one
   function for each type of block; hand on ``parameters`` as the raw JSON they are.
   What a block cannot say goes through ``report.refuse`` (it changes meaning) or
   ``report.drop`` (a hint). Return ``(request, report.losses())``.
2. ``stream_decoder(head, limit)``: vendor events -> ``StreamPart`` s made by
   ``dialects/deltas.py``, in this order for every choice: ``Started``, then any of the
   content deltas, then ``Finished``. Blocks that the vendor numbers through must be
   numbered anew: tool calls from 0, reasoning from 0.
3. ``parse_response(head, body)``: a :class:`Completion` of the same blocks that the
   stream's deltas add up to; ``dialects/deltas.py`` has the collector that proves it.
4. Ids that a vendor does not give are made from what is there (``deltas.tool_id``):
   the core has no entropy.

Formats may order what they say: reasoning, text, refusal, tool calls is the order in
which OpenAI's message holds them, and the order in which dialects should expect the
blocks of an assistant's message that came from there.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.types.usage import Usage

__all__ = [
    "ArgumentsDelta",
    "Audio",
    "Block",
    "CacheHint",
    "Choice",
    "Citation",
    "CitationDelta",
    "Completion",
    "CompletionDelta",
    "Conversation",
    "CustomTool",
    "Document",
    "FileId",
    "Finish",
    "Finished",
    "FunctionTool",
    "Image",
    "Inline",
    "Message",
    "Opaque",
    "OpaqueDelta",
    "PlainText",
    "ProviderTool",
    "Reasoning",
    "ReasoningDelta",
    "ReasoningSealed",
    "Refusal",
    "RefusalDelta",
    "ResponseFormat",
    "Role",
    "Source",
    "Started",
    "Text",
    "TextDelta",
    "Thinking",
    "Tool",
    "ToolCall",
    "ToolCallStarted",
    "ToolChoice",
    "ToolResult",
    "Url",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ended, in OpenAI's words."""


class CacheHint(msgspec.Struct, frozen=True):
    """A mark: what comes before and including this may be cached by the provider."""

    ttl: str | UnsetType = UNSET
    """How long, in the vendor's word (``5m``, ``1h``)."""


# -- where content comes from ---------------------------------------------------


class Url(msgspec.Struct, frozen=True):
    """Content behind a link that somebody has to follow."""

    url: str


class Inline(msgspec.Struct, frozen=True):
    """Content that is here, in base64."""

    media_type: str
    """Such as ``image/png``; empty if it was not said."""
    data: str


class PlainText(msgspec.Struct, frozen=True):
    """A document whose content is text."""

    text: str


class FileId(msgspec.Struct, frozen=True):
    """Content that one provider already holds."""

    id: str


Source = Url | Inline | PlainText | FileId


# -- blocks ---------------------------------------------------------------------


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stretch of the answer's text was taken from."""

    start: int
    """First character of the stretch, counted in the text of the whole answer."""
    end: int
    """The character after the last."""
    url: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    quote: str | UnsetType = UNSET
    """The words of the source."""
    native: Raw | UnsetType = UNSET
    """The vendor's own object, unread: needed to say it again to the same vendor."""


class Text(msgspec.Struct, frozen=True):
    """A stretch of text."""

    text: str
    cache: CacheHint | UnsetType = UNSET
    citations: tuple[Citation, ...] = ()


class Image(msgspec.Struct, frozen=True):
    """A picture."""

    source: Source
    detail: str | UnsetType = UNSET
    """OpenAI's ``low``, ``high`` or ``auto``: how closely to look."""
    cache: CacheHint | UnsetType = UNSET


class Document(msgspec.Struct, frozen=True):
    """A PDF, a text or another file to be read."""

    source: Source
    name: str | UnsetType = UNSET
    """File name or title."""
    cache: CacheHint | UnsetType = UNSET


class Audio(msgspec.Struct, frozen=True):
    """Sound to be listened to."""

    format: str
    """Such as ``wav`` or ``mp3``."""
    data: str
    """Base64."""
    cache: CacheHint | UnsetType = UNSET


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """What a model thought, and the seal with which it takes it back.

    Seals are opaque and belong to one vendor (``format``): to any other dialect the
    block is at best its text.
    """

    text: str = ""
    """Readable thought; empty if it is redacted."""
    signature: str | UnsetType = UNSET
    """Proves that ``text`` is the model's own."""
    data: str | UnsetType = UNSET
    """The thought itself, encrypted (redacted thinking, encrypted reasoning)."""
    format: str | UnsetType = UNSET
    """Whose seal it is: ``anthropic-claude-v1``, ``google-gemini-v1``, …"""
    id: str | UnsetType = UNSET
    """What the seal belongs to, where the vendor says so (a tool call's id)."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """The model wants a tool to be called."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; free text for a custom tool."""
    is_custom: bool = False
    """True if ``arguments`` is not JSON (OpenAI's custom tools)."""
    signature: str | UnsetType = UNSET
    """Gemini's thought signature of this call."""
    cache: CacheHint | UnsetType = UNSET


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool answered."""

    call_id: str
    content: tuple[Block, ...] = ()
    """Text most of the time; images and documents where a vendor takes them."""
    is_error: bool | UnsetType = UNSET
    cache: CacheHint | UnsetType = UNSET


class Refusal(msgspec.Struct, frozen=True):
    """The model's own words why it will not answer."""

    text: str


class Opaque(msgspec.Struct, frozen=True):
    """A block that only one dialect knows; the others cannot say it."""

    dialect: str
    """Name of the dialect whose words it is in."""
    kind: str
    """The vendor's name of its type."""
    value: Raw
    """The whole block, unread."""


Block = (
    Text
    | Image
    | Document
    | Audio
    | Thinking
    | ToolCall
    | ToolResult
    | Refusal
    | Opaque
)


class Message(msgspec.Struct, frozen=True):
    """One turn, or a part of one: nothing is merged here.

    Tool results are messages of their own, of role ``tool``, each with the results of
    one message of the caller.
    """

    role: Role
    content: tuple[Block, ...]
    name: str | UnsetType = UNSET
    """Which of several participants speaks."""


# -- what the model may and must do ---------------------------------------------


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the caller will call."""

    name: str
    description: str | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    """JSON Schema as the caller wrote it; unset means no parameters."""
    is_strict: bool | UnsetType = UNSET
    cache: CacheHint | UnsetType = UNSET


class CustomTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that takes free text or a grammar instead of JSON."""

    name: str
    value: Raw
    """OpenAI's ``custom`` object, unread."""


class ProviderTool(msgspec.Struct, frozen=True):
    """A tool that the provider runs itself (search, code, a computer)."""

    kind: str
    """The vendor's name of its type."""
    value: Raw
    """The whole entry of ``tools``, unread."""


Tool = FunctionTool | CustomTool | ProviderTool


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether and which tools must be called."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""
    """The tool to call, if ``named``."""
    allowed: tuple[str, ...] = ()
    """The only tools that may be called, if any are named (``allowed_tools``)."""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The shape that the answer's text must have; unset means free text."""

    kind: Literal["json_object", "json_schema"]
    name: str = ""
    schema: Raw | UnsetType = UNSET
    """JSON Schema as the caller wrote it."""
    description: str | UnsetType = UNSET
    is_strict: bool | UnsetType = UNSET


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """How much to think before answering."""

    effort: str | UnsetType = UNSET
    """``none``, ``minimal``, ``low``, ``medium``, ``high``, ``xhigh`` or ``max``."""
    budget_tokens: int | UnsetType = UNSET
    """At most so many tokens; 0 forbids it."""
    is_adaptive: bool = False
    """True if the model is asked to decide for itself."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request for chat."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | UnsetType = UNSET
    is_parallel: bool | UnsetType = UNSET
    """False forbids more than one tool call in an answer (``parallel_tool_calls``)."""
    response_format: ResponseFormat | UnsetType = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    """Of the answer, thinking included (``max_completion_tokens``)."""
    stop: tuple[str, ...] = ()
    parameters: dict[str, Raw] = {}
    """Every other parameter by OpenAI's name, the JSON as the client wrote it, nulls
    left out: ``temperature``, ``seed``, ``user``, and what no table knows."""
    given: frozenset[str] = frozenset()
    """OpenAI's names of all that the client set, the typed ones above included."""
    is_stream: bool = False
    origin: str = ""
    """Name of the dialect that the client spoke."""
    unread: tuple[str, ...] = ()
    """Paths of members within messages and tools that have no neutral meaning and are
    lost to every other dialect; each must be reported."""


# -- the answer -----------------------------------------------------------------


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers (there are several only if the request's ``n`` says so)."""

    index: int = 0
    content: tuple[Block, ...] = ()
    """Text, Thinking, ToolCall, Refusal, Opaque: in the vendor's order, neighbouring
    stretches of text joined."""
    finish: Finish = "stop"
    native_finish: str | UnsetType = UNSET
    """The vendor's own word for it, where it says more."""
    logprobs: Raw | UnsetType = UNSET
    """OpenAI's object for the whole answer."""


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    """None if the provider did not say."""
    id: str = ""
    """The vendor's id."""
    model: str = ""
    """The vendor's name for the model that answered."""
    service_tier: str | UnsetType = UNSET


# -- the answer, piece by piece -------------------------------------------------


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The answer has begun; nothing to see yet."""

    id: str = ""
    model: str = ""
    service_tier: str | UnsetType = UNSET
    choice: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str
    choice: int = 0
    logprobs: Raw | UnsetType = UNSET
    """OpenAI's object for these tokens."""


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More of a thought."""

    text: str
    index: int = 0
    """Which thought, counted from 0 among the thoughts of this choice."""
    choice: int = 0


class ReasoningSealed(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a thought that has a seal, or is nothing but sealed."""

    index: int = 0
    text: str = ""
    """The whole thought once more: callers must hand it back with its seal, and
    should not have to put it together."""
    signature: str | UnsetType = UNSET
    data: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    choice: int = 0


class ToolCallStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call; its arguments follow, unless they are here already."""

    index: int
    """Counted from 0 among the tool calls of this choice."""
    id: str
    name: str
    arguments: str = ""
    is_custom: bool = False
    signature: str | UnsetType = UNSET
    choice: int = 0


class ArgumentsDelta(msgspec.Struct, frozen=True):
    """More of a tool call's arguments."""

    index: int
    arguments: str
    choice: int = 0


class RefusalDelta(msgspec.Struct, frozen=True):
    """More of a refusal."""

    text: str
    choice: int = 0


class CitationDelta(msgspec.Struct, frozen=True):
    """A citation of text that has been sent."""

    citation: Citation
    choice: int = 0


class OpaqueDelta(msgspec.Struct, frozen=True):
    """A whole block that only one dialect knows."""

    block: Opaque
    choice: int = 0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A choice is complete."""

    finish: Finish
    native_finish: str | UnsetType = UNSET
    choice: int = 0


CompletionDelta = (
    Started
    | TextDelta
    | ReasoningDelta
    | ReasoningSealed
    | ToolCallStarted
    | ArgumentsDelta
    | RefusalDelta
    | CitationDelta
    | OpaqueDelta
    | Finished
)
