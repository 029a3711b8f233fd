"""Configuration files -> one ``Snapshot``, as a flow.

The one rule: ``serve``, ``check``, every worker and every reload load in this one way,
so that what ``check`` accepts is what ``serve`` runs with. Everything that is wrong
comes out together, as one ``ConfigError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tz_protocol.cli.options import Source
from tz_protocol.config.addresses import parse_bind_address, with_host_and_port
from tz_protocol.errors import (
    ConfigError,
    ConfigProblem,
    OperationBroken,
    OperationError,
)
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, ReadFiles, ResolveSecret
from tz_protocol.types.records import RecordSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import GatewaySettings, Snapshot

if TYPE_CHECKING:
    from tz_protocol.config.document import Document

__all__ = ["ADDRESS_LOCATION", "Loaded", "load", "load_records"]

ADDRESS_VARIABLE = "TENSORZERO_GATEWAY_BIND_ADDRESS"
ADDRESS_LOCATION = f"env::{ADDRESS_VARIABLE}"
"""Read before the file's address and after the options."""

_SECONDS = 30.0
"""For each file or secret; a disk that is slower is taken for gone."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used."""

    snapshot: Snapshot
    files: tuple[str, ...]
    """Paths, in the order in which they were read."""


def load(source: Source, context: Context) -> Flow[Loaded]:
    """Read, resolve and build what *source* describes.

    Raises:
        ConfigError: With every problem found.
    """
    # pydantic takes longer to import than everything else together.
    from tz_protocol.config.load import build, locations, parse

    files = yield from _read_files(source.patterns, context)
    document = parse(files)
    secrets: dict[str, Secret | None] = {}
    for location in locations(document):
        secrets[location] = yield from _resolve(location, context)
    problems: list[ConfigProblem] = []
    address = yield from _address(source, document, context, problems)
    try:
        snapshot = build(document, secrets, bind_address=address)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems])
    if problems:
        raise ConfigError(problems)
    return Loaded(snapshot, tuple(path for path, _text in files))


def load_records(source: Source, context: Context) -> Flow[RecordSettings]:
    """Return what *source* says of records, whatever else is in it.

    Whoever prepares a store need not have the providers' keys.

    Raises:
        ConfigError: It cannot be read, or this part of it is wrong.
    """
    from tz_protocol.config.document import Document
    from tz_protocol.config.load import build, parse

    files = yield from _read_files(source.patterns, context)
    whole = parse(files)
    gateway = whole.data.get("gateway")
    part: dict[str, Any] = {}
    if isinstance(gateway, dict):
        table = gateway.get("observability", {})
        if isinstance(table, dict):
            table = {**table, "enabled": None}  # the store is named elsewhere
        part = {"gateway": {"observability": table}}
    return build(Document(whole.files, part), {}).gateway.records


def _read_files(
    patterns: tuple[str, ...], context: Context
) -> Flow[tuple[tuple[str, str], ...]]:
    problems: list[ConfigProblem] = []
    found: dict[str, str] = {}
    for pattern in patterns:
        try:
            pairs = yield from ReadFiles(context.now + _SECONDS, pattern)
        except OperationBroken as error:
            message = f"cannot be read: {error.detail or error.kind}"
            problems.append(ConfigProblem(pattern, None, "", message))
            continue
        except OperationError:
            message = f"cannot be read: nothing came within {_SECONDS:.0f} s"
            problems.append(ConfigProblem(pattern, None, "", message))
            continue
        if not pairs:
            message = "there is no such file"
            if any(sign in pattern for sign in "*?["):
                message = "no file matches this pattern"
            problems.append(ConfigProblem(pattern, None, "", message))
        # Patterns may overlap; a file that is read twice would clash with itself.
        found.update(pairs)
    if problems:
        raise ConfigError(problems)
    return tuple(found.items())


def _resolve(location: str, context: Context) -> Flow[Secret | None]:
    """Return what is at *location*, None if nothing is."""
    kind, _, name = location.partition("::")
    if kind == "path_from_env":
        path = yield from _resolve(f"env::{name}", context)
        if path is None:
            return None
        location = f"path::{path.reveal()}"
    try:
        return (yield from ResolveSecret(context.now + _SECONDS, location))
    except OperationError:
        return None


# -- the address ----------------------------------------------------------------


def _address(
    source: Source,
    document: Document,
    context: Context,
    problems: list[ConfigProblem],
) -> Flow[str | None]:
    """Return the address that overrides the file's; None if none does, or if wrong."""
    if source.bind_address is not None:
        return source.bind_address
    address: str | None = None
    variable = yield from _resolve(ADDRESS_LOCATION, context)
    text = "" if variable is None else variable.reveal().strip()
    try:
        if text:
            address = parse_bind_address(text)
    except ValueError as error:
        problems.append(_problem(f"the environment variable {ADDRESS_VARIABLE}", error))
        return None
    if source.host is None and source.port is None:
        return address
    try:
        return with_host_and_port(
            address or _address_of(document), source.host, source.port
        )
    except ValueError as error:
        problems.append(_problem("--host and --port", error))
        return None


def _problem(subject: str, error: ValueError) -> ConfigProblem:
    return ConfigProblem("", None, "", f"{subject}: {error}")


def _address_of(document: Document) -> str:
    """Return the file's address; the default if it has none, or one that is wrong."""
    gateway = document.data.get("gateway")
    text = gateway.get("bind_address") if isinstance(gateway, dict) else None
    try:
        return parse_bind_address(text) if isinstance(text, str) else _DEFAULT
    except ValueError:
        return _DEFAULT  # ``build`` reports it with its line


_DEFAULT = GatewaySettings().bind_address
