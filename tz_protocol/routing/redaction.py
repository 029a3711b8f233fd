"""What a provider's error may not tell the caller: whose key was used, and where.

The one rule: exact, not by looks. The very credentials and the very address of one
attempt are taken out of what its provider said, whole or shortened, whatever their
shape and however they are escaped. What merely looks like somebody's key is the
dialects' business (``openai_errors``), since no attempt knows it.

Nothing is worked out before a provider has said something that a caller may see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from tz_protocol.errors import UpstreamError, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings, Url
from tz_protocol.wire.json import value_of

__all__ = ["REMOVED", "Redaction"]

REMOVED = "[removed]"

SHORT = 8
"""Characters; a shorter secret is taken out only where it stands alone: a local
server's key may be a word."""

FRAGMENT = 10
"""Characters in a row that are never left of a secret, whatever is around them."""

PREFIX, SUFFIX = 6, 4
"""Characters of a secret's beginning or end that are not left as a word by themselves:
vendors say "the key that ends in 1x4Z"."""

MASKED = 3
"""The same beside what stands for the rest, beginning and end together."""

_MASK = re.compile(
    r"\[(?:removed|redacted|\.\.\.|hidden)\]|<(?:redacted|hidden|\.\.\.)>"
    r"|[*\u2022\u00b7\u2026#]+|\.{2,}|[xX]{3,}|-{3,}|_{3,}"
)
"""What vendors put in the place of the middle of a key."""

_ESCAPE = re.compile(
    r"((?:%[0-9A-Fa-f]{2})+)|\\u([0-9A-Fa-f]{4})|&#x?([0-9A-Fa-f]{1,6});"
    r"|\\([\"'\\/nrt])|&(amp|lt|gt|quot|apos);"
)
_CHARACTERS = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "amp": "&",
    "lt": "<",
    "gt": ">",
    "quot": '"',
    "apos": "'",
}
_NESTING = 3
"""How often what is escaped may be escaped again: an error within an error."""

_FRAME = re.compile(r"-----(?:BEGIN|END) [A-Z ]+-----")
_PUBLIC = frozenset(
    {
        "type",
        "token_uri",
        "auth_uri",
        "project_id",
        "universe_domain",
        "auth_provider_x509_cert_url",
    }
)
"""Members of a Google credential that say nothing of whose it is."""

_VERSION = re.compile(r"(?:/(?:v\d\w*|api|openai))*")
"""Paths that say nothing about an address: the vendors' own."""

_Span = tuple[int, int]


class Redaction:
    """What may not be told of one attempt.

    Args:
        settings: Of its provider: the address, and further headers.
        secrets: Credentials; None is none.
    """

    __slots__ = ("_secrets", "_settings")

    def __init__(self, settings: ProviderSettings, *secrets: Secret | None) -> None:
        self._settings = settings
        self._secrets = list(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        """Take out these as well: a token, say, that came only now."""
        self._secrets += secrets

    def clean(self, error: UpstreamError) -> None:
        """Take what may not be told out of whatever *error* says."""
        if isinstance(error, UpstreamRefused):
            error.message = self.text(error.message)
            error.kind = self._word(error.kind)
            error.code = self._word(error.code)
            error.param = self._word(error.param)
        elif isinstance(error, UpstreamGarbled):
            error.message = self.text(error.message)
            error.code = self.text(error.code)
        else:
            return
        error.args = tuple(map(self._argument, error.args))

    def text(self, text: str) -> str:
        """Return *text* without what may not be told."""
        if not text:
            return text
        secrets = [secret.lower() for secret in self._words()]
        address = self._address()
        spans: list[_Span] = []
        for view in _views(text):
            lowered = view.text
            for secret in secrets:
                spans += map(view.origin, _found(lowered, secret))
            if address is not None:
                found = address.finditer(lowered)
                spans += (view.origin(one.span()) for one in found)
        return _without(text, spans) if spans else text

    def _word(self, word: str | None) -> str | None:
        return None if word is None else self.text(word)

    def _argument(self, argument: Any) -> Any:
        return self.text(argument) if isinstance(argument, str) else argument

    def _words(self) -> set[str]:
        """Return every secret as it may be quoted."""
        found: set[str] = set()
        for secret in self._secrets:
            if secret is not None:
                found.update(_parts(secret.reveal()))
        settings = self._settings
        for _, value in settings.extra_headers:
            # Of any name: what the config adds is nobody's business but its author's.
            found.update(part for part in (value, *value.split()) if len(part) >= SHORT)
        if settings.url is not None:
            found.update(_values(settings.url.query))
        if settings.proxy is not None:
            proxy = urlsplit(settings.proxy.reveal())
            parts = (proxy.password, proxy.username)
            found.update(unquote(part) for part in parts if part)
        return {secret for secret in found if len(secret) >= SUFFIX}

    def _address(self) -> re.Pattern[str] | None:
        """Return what the attempt's addresses look like in small letters."""
        settings, patterns = self._settings, list[str]()
        if settings.url is not None:
            patterns += _patterns(settings.url)
        if settings.proxy is not None:
            proxy = urlsplit(settings.proxy.reveal())
            if proxy.hostname:
                patterns += _patterns(Url("http", proxy.hostname, proxy.port or 80))
        return re.compile("|".join(patterns)) if patterns else None


# -- what is looked for ---------------------------------------------------------


def _parts(secret: str) -> Iterator[str]:
    """Yield the secrets that *secret* is: itself, or the members of a JSON file."""
    secret = secret.strip()
    members = value_of(secret.encode("utf-8", "replace")) if secret[:1] == "{" else None
    if not isinstance(members, dict):
        yield secret
        return
    for name, value in members.items():
        if isinstance(value, str) and name not in _PUBLIC and not _is_url(value):
            yield _FRAME.sub("", value).strip()


def _is_url(value: str) -> bool:
    return value.startswith("https://")


def _values(query: str) -> Iterator[str]:
    for pair in query.split("&"):
        value = unquote(pair.partition("=")[2])
        if len(value) >= SHORT:
            yield value


def _patterns(url: Url) -> Iterator[str]:
    """Yield patterns of every way in which *url* may be written."""
    host = url.host.lower()
    name = rf"\[?{re.escape(host)}\]?"
    yield rf"\w+://(?:[^\s/@]*@)?{name}(?![\w-])[^\s'\"<>)\],;]*"
    if re.search(r"[.:\d-]", host):
        yield rf"(?<![\w-]){name}(?::\d+)?(?![\w-])"
    else:
        # A name that may be a word: only where it is an address.
        yield rf"(?<![\w-]){name}:\d+"
        yield rf"(?:(?<=@)|(?<=//)|(?<=host=['\"])){name}(?![\w-])"
    path = url.path.rstrip("/").lower()
    if len(path) >= PREFIX and not _VERSION.fullmatch(path):
        yield rf"{re.escape(path)}(?![\w-])[^\s'\"<>)\],;]*"


# -- where it is ----------------------------------------------------------------


class _View:
    """A text in small letters with its escapes undone, and where each came from."""

    __slots__ = ("_ends", "_starts", "text")

    def __init__(self, pieces: Iterable[tuple[str, int, int]]) -> None:
        letters: list[str] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        for piece, start, end in pieces:
            lowered = piece.lower()
            letters.append(lowered if len(lowered) == 1 else piece)
            self._starts.append(start)
            self._ends.append(end)
        self.text = "".join(letters)

    def origin(self, span: _Span) -> _Span:
        """Return where in the text *span* of this view is."""
        start, end = span
        return self._starts[start], self._ends[end - 1]

    def undone(self) -> _View:
        """Return this with one layer of escapes undone; itself if there is none."""
        pieces: list[tuple[str, int, int]] = []
        place = 0
        for found in _ESCAPE.finditer(self.text):
            start, end = found.span()
            pieces += self._between(place, start)
            first, last = self.origin((start, end))
            pieces += ((letter, first, last) for letter in _unescaped(found))
            place = end
        if not place:
            return self
        pieces += self._between(place, len(self.text))
        return _View(pieces)

    def _between(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        for at in range(start, end):
            yield self.text[at], self._starts[at], self._ends[at]


def _unescaped(found: re.Match[str]) -> str:
    percent, unicode, number, slashed, entity = found.groups()
    if percent:
        return unquote(percent)
    if unicode:
        return chr(int(unicode, 16))
    if number:
        code = int(number, 16 if found[0][2] == "x" or not number.isdigit() else 10)
        return chr(code) if code < 0x110000 else found[0]
    return _CHARACTERS.get(slashed or entity, slashed or "")


def _views(text: str) -> Iterator[_View]:
    """Yield *text* as it is, and with its escapes undone as often as there are any."""
    view = _View((letter, at, at + 1) for at, letter in enumerate(text))
    yield view
    for _ in range(_NESTING):
        before, view = view, view.undone()
        if view is before:
            return
        yield view


def _found(text: str, secret: str) -> Iterator[_Span]:
    """Yield where *secret*, or enough of it, is in *text*; both in small letters."""
    if len(secret) < SHORT:
        for found in re.finditer(rf"(?<!\w){re.escape(secret)}(?!\w)", text):
            yield found.span()
        return
    size = min(FRAGMENT, len(secret))
    grams = {secret[at : at + size] for at in range(len(secret) - size + 1)}
    for at in range(len(text) - size + 1):
        if text[at : at + size] in grams:
            yield at, at + size
    for mask in _MASK.finditer(text):
        before = _begun(text[: mask.start()], secret)
        after = _ended(text[mask.end() :], secret)
        if before + after >= MASKED:
            yield mask.start() - before, mask.end() + after
    words = [secret[:count] for count in range(PREFIX, size)]
    words += [secret[-count:] for count in range(SUFFIX, size)]
    either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    for found in re.finditer(rf"(?<!\w)(?:{either})(?!\w)", text):
        yield found.span()
    cut = _cut(text, secret, size)
    if cut:
        yield len(text) - cut, len(text)


def _begun(text: str, secret: str) -> int:
    """Return how many characters of *secret*'s beginning *text* ends with."""
    for count in range(min(len(text), len(secret)), 0, -1):
        if text.endswith(secret[:count]):
            return count
    return 0


def _cut(text: str, secret: str, size: int) -> int:
    """Return how much of *secret* is left at the end of a message that was cut there.

    Args:
        text: The message.
        secret: Of which as much as *size* is found wherever it is.
        size: In characters.
    """
    for count in range(min(size - 1, len(text)), SUFFIX - 1, -1):
        tail = text[-count:]
        if secret.startswith(tail) or (count >= PREFIX and tail in secret):
            return count
    return 0


def _ended(text: str, secret: str) -> int:
    """Return how many characters of *secret*'s end *text* begins with."""
    for count in range(min(len(text), len(secret)), 0, -1):
        if text.startswith(secret[-count:]):
            return count
    return 0


def _without(text: str, spans: list[_Span]) -> str:
    """Return *text* with each of *spans* replaced, those that touch by one."""
    pieces: list[str] = []
    place = -1
    for start, end in sorted(spans):
        if start > place:
            pieces += (text[max(place, 0) : start], REMOVED)
        place = max(place, end)
    return "".join((*pieces, text[place:]))
