"""What botocore's own parsers read of Bedrock's Converse.

The one rule: as in ``corpus_sdk_openai``; the shapes are those of the service model
that botocore brings along.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.exceptions import EventStreamError  # type: ignore[import-untyped]
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import ServiceModel  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError, create_parser  # type: ignore[import-untyped]

from tests.protocol.dialects.corpus_player import CannotRead
from tests.protocol.dialects.corpus_said import Choice, Said, arguments_of
from tests.protocol.dialects.corpus_vendors import BEDROCK_FINISHES
from tests.protocol.dialects.recordings import Recording


@cache
def model(service: str) -> ServiceModel:
    """Return the description of *service* that botocore has."""
    found = Loader().load_service_model(service, "service-2")
    return ServiceModel(found, service)


class _Body:
    """A body as botocore's streams want it: with its pieces."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def stream(self) -> Iterator[bytes]:
        yield self.data

    def close(self) -> None:
        """There is nothing to close."""


def read_bedrock(recording: Recording) -> Said:
    """Read an answer of Converse or the messages of ConverseStream."""
    operation = "ConverseStream" if recording.is_stream else "Converse"
    shape = model("bedrock-runtime").operation_model(operation).output_shape
    is_error = recording.head.status >= 300
    is_stream = recording.is_stream and not is_error
    answer: dict[str, Any] = {
        "status_code": recording.head.status,
        "headers": dict(recording.head.headers),
        "body": _Body(recording.body) if is_stream else recording.body,
        "context": {"operation_name": operation},
    }
    try:
        found = create_parser("rest-json").parse(answer, shape)
        if is_stream:
            return _stream(found["stream"])
    except ResponseParserError as error:
        if "one and only one member" in str(error):
            raise CannotRead("unions of no member or of several") from error
        raise
    if is_error:
        told = found["Error"]
        if recording.body.lstrip()[:1] != b"{":
            # Of anything else the parser makes a message of its own.
            raise CannotRead("an error that is not in the vendor's form")
        return Said(error=told["Message"], code=told["Code"])
    blocks = dict(enumerate(found["output"]["message"]["content"]))
    return _said(blocks, found["stopReason"], found.get("usage"))


def _stream(events: Any) -> Said:
    blocks: dict[int, dict[str, Any]] = {}
    reason = usage = None
    try:
        for event in events:
            ((name, value),) = event.items()
            block = blocks.setdefault(value.get("contentBlockIndex", 0), {})
            if name == "contentBlockStart":
                block.update({key: dict(v) for key, v in value["start"].items()})
            elif name == "contentBlockDelta":
                _delta(block, value["delta"])
            elif name == "messageStop":
                reason = value["stopReason"]
            elif name == "metadata":
                usage = value.get("usage")
    except EventStreamError as error:
        told = error.response["Error"]
        return Said(error=told["Message"], code=told["Code"])
    return _said(blocks, reason, usage)


def _delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        use = block["toolUse"]
        use["input"] = use.get("input", "") + delta["toolUse"]["input"]
    elif text := delta.get("reasoningContent", {}).get("text"):
        thought = block.setdefault("reasoningContent", {})
        thought = thought.setdefault("reasoningText", {"text": ""})
        thought["text"] += text


def _said(blocks: dict[int, Any], reason: str | None, usage: Any) -> Said:
    one = Choice()
    said = Said(choices={0: one})
    for index in sorted(blocks):
        block = blocks[index]
        one.content += block.get("text", "")
        for piece in block.get("citationsContent", {}).get("content") or ():
            one.content += piece["text"]
        thought = block.get("reasoningContent", {}).get("reasoningText") or {}
        one.reasoning += thought.get("text", "")
        use = block.get("toolUse")
        if use and use.get("type") != "server_tool_use":
            one.calls.append((use["name"], arguments_of(use.get("input") or "{}")))
    if reason is not None:
        one.finish = BEDROCK_FINISHES.get(reason, "stop")
        if one.finish in ("stop", "tool_calls"):
            one.finish = "tool_calls" if one.calls else "stop"
    if usage:
        names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        prompt = sum(usage.get(name) or 0 for name in names)
        said.usage = prompt, usage["outputTokens"]
    return said
