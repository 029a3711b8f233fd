"""What a command line asks for, as values.

The one rule: a value that exists is legal. ``arguments.py`` makes these from text, and
each subcommand's flow takes its own kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Check",
    "Command",
    "Demo",
    "Explain",
    "Invocation",
    "Keys",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "Migrate",
    "Say",
    "Serve",
    "Source",
    "Tail",
    "Usage",
    "Worker",
]

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["pretty", "json"]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Which lines the log has, and how they look."""

    level: LogLevel = "info"
    """The least important level that is shown."""
    log_format: LogFormat = "pretty"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from, and what overrides its address."""

    patterns: tuple[str, ...] = ()
    """Paths or globs, in the order given; empty: no file at all."""
    bind_address: str | None = None
    """As ``Listen`` takes it; wins over the environment and the file."""
    host: str | None = None
    """Replaces the host of whatever address holds otherwise."""
    port: int | None = None
    """Replaces the port of whatever address holds otherwise."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a supervisor tells the process that it starts."""

    number: int
    """From 1."""
    count: int
    """How many there are; each takes its share of the limits."""
    addresses: tuple[str, ...]
    """The sockets that it inherits, such as ``fd:3``."""
    folder: str = ""
    """Where it leaves its figures for the others; empty: nowhere."""

    def __str__(self) -> str:
        """Return the value of the hidden option ``--worker``."""
        folder = f"@{self.folder}" if self.folder else ""
        return f"{self.number}/{self.count}@{','.join(self.addresses)}{folder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """``serve``: the gateway, until a signal."""

    source: Source = Source()
    is_path_positional: bool = False
    """True if the file was given without ``--config-file``, which is deprecated."""
    workers: int = 1
    tls_cert: str | None = None
    tls_key: str | None = None
    arguments: tuple[str, ...] = ()
    """As given, without the subcommand: what a supervisor starts its workers with."""
    worker: Worker | None = None
    """Set in a process that a supervisor started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """``check``: everything that ``serve`` does before it listens."""

    source: Source = Source()
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """``demo``: a gateway that needs no provider, and one request to it."""

    port: int | None = None
    """None: 3000, or any free one if that is taken."""
    is_once: bool = False
    """True: end after the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """``explain``: what would become of a request, without sending it."""

    source: Source = Source()
    model: str
    request: str | None = None
    """Path of a JSON file; None: the least request that the model takes."""
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """``keys``: make, show, disable or replace API keys."""

    action: Literal["create", "list", "disable", "rotate"]
    key_id: str = ""
    """Hexadecimal digits with which its id begins, for ``disable`` and ``rotate``."""
    models: tuple[tuple[str, str], ...] = ()
    """(public name, endpoint id) of what a new key may use."""
    project_id: str = ""
    limits: tuple[tuple[str, int | str], ...] = ()
    """(name, value) as ``api_key_hash:`` has them; money is text."""
    expires_at: str = ""
    """RFC 3339; empty: never."""
    note: str = ""
    is_toml: bool = False
    """True: print what to paste into a file, and leave Redis alone."""


@dataclass(frozen=True, slots=True)
class Migrate:
    """``--run-clickhouse-migrations``: make the tables, and end."""

    source: Source = Source()
    """Its files say for how long rows stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """``tail``: print requests as their records arrive."""

    model: str = ""
    """Only of this model; empty: of all."""
    key_id: str = ""
    """Only of this key; empty: of all."""
    is_failures: bool = False
    """True: only those that did not end well."""
    seconds: int = 0
    """How much of what was there before comes first; 0: the last moments."""
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """``usage``: what was used, and how it went."""

    seconds: int = 86_400
    """Until now."""
    by: tuple[str, ...] = ("model",)
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Print and end: help, version, or what was wrong with the arguments."""

    text: str
    status: int = 0
    """Of the process; 2 for an error, which goes to standard error."""


Command: TypeAlias = (
    Serve | Check | Demo | Explain | Keys | Migrate | Tail | Usage | Say
)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command line, understood."""

    command: Command
    log: LogSettings = LogSettings()
