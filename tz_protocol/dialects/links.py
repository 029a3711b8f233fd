"""The links in a chat request that a vendor does not follow, and what replaces them.

The one rule: whoever renders such a request sees no link that the vendor would not
follow: each stands in a copy of the request as the bytes behind it. What is behind a
link is somebody else's business (``flows/fetching.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET

from tz_protocol.dialects.base import Link, Links
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.types.conversation import (
    Block,
    Conversation,
    Document,
    Image,
    Inline,
    Message,
    ToolResult,
    Url,
)
from tz_protocol.types.request import ParsedRequest

__all__ = ["links_unless"]


def links_unless(follows: Callable[[str], bool]) -> Links:
    """Return the links that a vendor with a format of its own does not follow.

    Args:
        follows: (URL) -> whether the vendor follows it.
    """

    def find(parsed: ParsedRequest) -> list[Link]:
        found: list[Link] = []
        for index, message in enumerate(conversation_of(parsed).messages):
            for path, block in _media(message.content, f"messages[{index}]"):
                link = _link(block, path)
                if link is not None and not follows(link.url):
                    found.append(link)
        return found

    def place(parsed: ParsedRequest, contents: Mapping[str, Inline]) -> ParsedRequest:
        conversation: Conversation = conversation_of(parsed)
        messages = tuple(
            msgspec.structs.replace(
                message,
                content=_placed(message.content, f"messages[{index}]", contents),
            )
            if _has_media(message)
            else message
            for index, message in enumerate(conversation.messages)
        )
        neutral = msgspec.structs.replace(conversation, messages=messages)
        return msgspec.structs.replace(parsed, neutral=neutral)

    return Links(find, place)


def _has_media(message: Message) -> bool:
    return any(
        type(block) in (Image, Document, ToolResult) for block in message.content
    )


def _media(
    blocks: tuple[Block, ...], message: str
) -> list[tuple[str, Image | Document]]:
    """Return pictures and documents with their paths; results of tools have some."""
    found: list[tuple[str, Image | Document]] = []
    for place, block in enumerate(blocks):
        if isinstance(block, (Image, Document)):
            found.append((f"{message}.content[{place}]", block))
        elif isinstance(block, ToolResult):
            found += _media(block.content, message)
    return found


def _link(block: Image | Document, path: str) -> Link | None:
    source = block.source
    if not isinstance(source, Url):
        return None
    if isinstance(block, Image):
        return Link(source.url, f"{path}.image_url.url", is_image=True)
    name = "" if block.name is UNSET else block.name
    return Link(source.url, f"{path}.file.file_data", is_image=False, name=name)


def _placed(
    blocks: tuple[Block, ...], message: str, contents: Mapping[str, Inline]
) -> tuple[Block, ...]:
    made: list[Block] = []
    for place, block in enumerate(blocks):
        new: Block = block
        if isinstance(block, (Image, Document)):
            link = _link(block, f"{message}.content[{place}]")
            content = None if link is None else contents.get(link.path)
            if content is not None:
                new = msgspec.structs.replace(block, source=content)
        elif isinstance(block, ToolResult):
            inner = _placed(block.content, message, contents)
            new = msgspec.structs.replace(block, content=inner)
        made.append(new)
    return tuple(made)
