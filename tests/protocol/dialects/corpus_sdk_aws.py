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
from tests.protocol.dialects.corpus_said import Said
from tests.protocol.dialects.corpus_vendors import bedrock_delta, bedrock_said
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
    return bedrock_said(blocks, found["stopReason"], found.get("usage"))


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
                bedrock_delta(block, value["delta"])
            elif name == "messageStop":
                reason = value["stopReason"]
            elif name == "metadata":
                usage = value.get("usage")
    except EventStreamError as error:
        told = error.response["Error"]
        return Said(error=told["Message"], code=told["Code"])
    return bedrock_said(blocks, reason, usage)
