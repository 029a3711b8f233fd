"""Forms: requests whose body is ``multipart/form-data``.

The one rule: a part that exists can be written down. Which fields a form has, and what
they mean, is the dialects' business.
"""

from __future__ import annotations

import re

import msgspec

from tz_protocol.types.request import ParsedRequest

__all__ = ["FormPart", "FormRequest"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTENT_TYPE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class FormPart(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a form, or one file in it.

    Raises:
        ValueError: A value cannot be written in a header line.
    """

    name: str
    """The field's name, any text without control characters; may repeat."""
    data: bytes | memoryview
    """The value as it was sent; a view spares copying a file."""
    filename: str | None = None
    """What the sender calls the file; None for a plain field."""
    content_type: str | None = None
    """What the sender says the value is; None if it did not say."""

    def __post_init__(self) -> None:
        for text in (self.name, self.filename or ""):
            if _CONTROL.search(text):
                message = "a control character in a name"
                raise ValueError(message)
            try:
                text.encode()
            except UnicodeEncodeError:
                message = "half of a surrogate pair in a name"
                raise ValueError(message) from None
        if self.content_type is not None and not _CONTENT_TYPE.fullmatch(
            self.content_type
        ):
            message = "a content type that is not printable ASCII"
            raise ValueError(message)


class FormRequest(ParsedRequest, kw_only=True):
    """A client's request that came as a form."""

    parts: tuple[FormPart, ...]
    """Every field in the client's order, ``model`` included, the ``tensorzero::`` ones
    not."""
