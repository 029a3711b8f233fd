"""Command line -> ``Invocation``, as a pure function.

The one rule: nothing is printed and nothing ends here. Help, the version and every
mistake come back as a ``Say`` for the root flow. ``argparse`` is not used because it
reads the terminal's size, the environment and message catalogues.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, cast

from tz_protocol import __version__
from tz_protocol.cli.options import (
    Check,
    Command,
    Demo,
    Explain,
    Invocation,
    Keys,
    LogFormat,
    LogLevel,
    LogSettings,
    Migrate,
    Say,
    Serve,
    Source,
    Tail,
    Usage,
    Worker,
)
from tz_protocol.cli.reports import GROUPS
from tz_protocol.cli.usage import HELP, KEYS_HELP, STORE_HELP
from tz_protocol.config.addresses import parse_bind_address, with_host_and_port

__all__ = ["COMMANDS", "MOST_WORKERS", "OPTIONS", "USAGE_ERROR", "parse_arguments"]

USAGE_ERROR = 2
"""Exit status for arguments, and for a configuration, that cannot be used."""

MOST_WORKERS = 1_024
"""More processes than that on one machine is taken for a mistake."""

COMMANDS = ("serve", "check", "demo", "explain", "keys", "tail", "usage")
"""The first argument; ``serve`` if it is none of these."""

_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("pretty", "json")
_WORKER = re.compile(
    r"([0-9]{1,4})/([0-9]{1,4})@(fd:[0-9]{1,9}(?:,fd:[0-9]{1,9})*)(?:@(/.+))?"
)


class _Refused(Exception):
    """The arguments cannot be used; the message says why."""


# -- the options ----------------------------------------------------------------


def _text(text: str) -> str:
    if not text:
        message = "expected something that is not empty"
        raise ValueError(message)
    return text


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,9}", text) and lowest <= int(text) <= highest:
            return int(text)
        message = f"expected a number from {lowest} to {highest}"
        raise ValueError(message)

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text in words:
            return text
        message = f"expected {', '.join(words[:-1])} or {words[-1]}"
        raise ValueError(message)

    return read


def _money(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", text):
        return text
    message = "expected an amount such as 25 or 0.50"
    raise ValueError(message)


def _time(text: str) -> str:
    # A day alone is its beginning; a time needs its zone.
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        text += "T00:00:00Z"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        message = "expected a time such as 2030-01-31 or 2030-01-31T12:00:00Z"
        raise ValueError(message)
    return time.isoformat()


_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _span(text: str) -> int:
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[1]):
        message = "expected a time such as 30m, 24h or 7d"
        raise ValueError(message)
    return int(match[1]) * _UNITS[match[2]]


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if len(set(names)) == len(names) and all(name in GROUPS for name in names):
        return names
    message = f"expected some of {', '.join(GROUPS)}, with commas between"
    raise ValueError(message)


def _grant(text: str) -> tuple[str, str]:
    public, _, table_id = text.partition("=")
    if not public or not text.isprintable():
        message = "expected a model's name, or NAME=ENDPOINT_ID"
        raise ValueError(message)
    return public, table_id or public


def _host(text: str) -> str:
    with_host_and_port("127.0.0.1:0", _text(text), None)
    return text


def _worker(text: str) -> Worker:
    match = _WORKER.fullmatch(text)
    if match is None:
        message = "expected NUMBER/COUNT@fd:N[@FOLDER]; a supervisor passes this"
        raise ValueError(message)
    number, count, addresses, folder = match.groups(default="")
    return Worker(int(number), int(count), tuple(addresses.split(",")), folder)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: who takes it, and how its value is read."""

    commands: tuple[str, ...]
    read: Callable[[str], Any] | None
    """Makes the value, or raises ``ValueError``; None: the option takes none."""
    is_repeatable: bool = False
    """False: the last one given counts."""
    is_hidden: bool = False


_SOURCE = ("serve", "check", "explain")
_ADDRESS = ("serve", "check")
_KEYS = ("keys",)
_MODEL = ("keys", "explain", "tail")
_count = _number(1, 999_999_999)

OPTIONS: dict[str, Option] = {
    "--config-file": Option(_SOURCE, _text, is_repeatable=True),
    "--default-config": Option(_SOURCE, None),
    "--bind-address": Option(_ADDRESS, parse_bind_address),
    "--host": Option(_ADDRESS, _host),
    "--port": Option(("serve", "check", "demo"), _number(0, 65_535)),
    "--workers": Option(("serve",), _number(1, MOST_WORKERS)),
    "--tls-cert": Option(("serve",), _text),
    "--tls-key": Option(("serve",), _text),
    "--worker": Option(("serve",), _worker, is_hidden=True),
    "--run-clickhouse-migrations": Option(("serve",), None),
    "--json": Option(("check", "explain", "tail", "usage"), None),
    "--once": Option(("demo",), None),
    "--model": Option(_MODEL, _grant, is_repeatable=True),
    "--request": Option(("explain",), _text),
    "--project": Option(_KEYS, _text),
    "--requests-per-minute": Option(_KEYS, _count),
    "--tokens-per-minute": Option(_KEYS, _count),
    "--concurrent-requests": Option(_KEYS, _count),
    "--budget-per-day": Option(_KEYS, _money),
    "--budget-per-month": Option(_KEYS, _money),
    "--expires-at": Option(_KEYS, _time),
    "--note": Option(_KEYS, _text),
    "--toml": Option(_KEYS, None),
    "--key": Option(("tail",), _text),
    "--failures": Option(("tail",), None),
    "--since": Option(("tail", "usage"), _span),
    "--by": Option(("usage",), _groups),
    "--log-level": Option(COMMANDS, _one_of(_LEVELS)),
    "--log-format": Option(COMMANDS, _one_of(_FORMATS)),
    "--help": Option(COMMANDS, None),
    "--version": Option(COMMANDS, None),
}
"""By name, in the order in which the help lists them."""

_SHORT = {"-h": "--help", "-V": "--version"}


# -- parsing --------------------------------------------------------------------


def parse_arguments(argv: Sequence[str]) -> Invocation:
    """Return what *argv*, without the program's name, asks for.

    Run it with ``tz_protocol.cli.main.run``. Never raises for what a user typed.
    """
    name = argv[0] if argv and argv[0] in COMMANDS else "serve"
    rest = tuple(argv[1:] if argv and argv[0] in COMMANDS else argv)
    try:
        given, paths = _take(name, rest)
        if "--help" in given:
            return Invocation(Say(text=_HELP.get(name, HELP)))
        if "--version" in given:
            return Invocation(Say(text=f"tz-gateway {__version__}\n"))
        command = _MAKE[name](given, paths, rest)
    except _Refused as error:
        topic = f"{name} " if name in _HELP else ""
        text = f"tz-gateway: {error}\nTry: tz-gateway {topic}--help\n"
        return Invocation(Say(text=text, status=USAGE_ERROR))
    # The demo's own output is what one wants to see there.
    is_quiet = name not in ("serve", "check")
    level = given.get("--log-level", "warning" if is_quiet else "info")
    log_format = given.get("--log-format", "pretty")
    settings = LogSettings(cast("LogLevel", level), cast("LogFormat", log_format))
    return Invocation(command, settings)


def _take(command: str, argv: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return the options' values by name, and the arguments that are no options."""
    given: dict[str, Any] = {}
    paths: list[str] = []
    items = iter(argv)
    for item in items:
        if item == "--":
            paths += items
            break
        if not item.startswith("-") or item == "-":
            paths.append(item)
            continue
        name, equals, text = item.partition("=")
        name = _SHORT.get(name, name)
        option = OPTIONS.get(name)
        if option is None:
            raise _Refused(f"unknown option {name!r}{_suggest(command, name)}")
        if command not in option.commands:
            takers = " and ".join(option.commands)
            raise _Refused(f"{name} is an option of {takers}, not of {command}")
        if option.read is None:
            if equals:
                raise _Refused(f"{name} takes no value")
            given[name] = True
            continue
        value = text if equals else next(items, None)
        if value is None:
            raise _Refused(f"{name} needs a value")
        try:
            read = option.read(value)
        except ValueError as error:
            raise _Refused(f"{name} {value!r}: {error}")
        given[name] = (*given.get(name, ()), read) if option.is_repeatable else read
    return given, paths


def _suggest(command: str, name: str) -> str:
    known = [
        key
        for key, option in OPTIONS.items()
        if command in option.commands and not option.is_hidden
    ]
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


# -- the commands ---------------------------------------------------------------


def _source(given: Mapping[str, Any], paths: list[str], command: str) -> Source:
    patterns: tuple[str, ...] = given.get("--config-file", ())
    if paths and paths[0] in COMMANDS:
        raise _Refused(f"the command comes first: tz-gateway {paths[0]} [options]")
    if len(paths) > 1 or (paths and patterns):
        message = (
            f"unexpected argument {paths[-1]!r}; give every file with --config-file"
        )
        raise _Refused(message)
    if paths and "/" not in paths[0] and "." not in paths[0]:
        near = get_close_matches(paths[0], COMMANDS, n=1)
        if near:
            raise _Refused(f"unknown command {paths[0]!r}; did you mean {near[0]}?")
    patterns = (*patterns, *paths)
    if patterns and "--default-config" in given:
        raise _Refused("--default-config means no file: give only one of the two")
    bind_address = given.get("--bind-address")
    if bind_address is not None and ("--host" in given or "--port" in given):
        message = "--bind-address has a host and a port: --host and --port do not go"
        raise _Refused(f"{message} with it")
    return Source(patterns, bind_address, given.get("--host"), given.get("--port"))


def _make_serve(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    if "--run-clickhouse-migrations" in given:
        return Migrate(_source(given, paths, "serve"))
    if ("--tls-cert" in given) != ("--tls-key" in given):
        raise _Refused("--tls-cert and --tls-key belong together: give both")
    return Serve(
        source=_source(given, paths, "serve"),
        is_path_positional=bool(paths),
        workers=given.get("--workers", 1),
        tls_cert=given.get("--tls-cert"),
        tls_key=given.get("--tls-key"),
        arguments=argv,
        worker=given.get("--worker"),
    )


def _make_check(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    source = _source(given, paths, "check")
    return Check(source=source, is_json="--json" in given)


def _make_demo(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    if paths:
        raise _Refused(f"unexpected argument {paths[0]!r}: demo reads no file")
    return Demo(port=given.get("--port"), is_once="--once" in given)


def _make_explain(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    models = given.get("--model", ())
    if len(models) != 1:
        raise _Refused("explain needs one --model: what a caller asks for")
    public, table_id = models[0]
    return Explain(
        source=_source(given, paths, "explain"),
        model=public if public == table_id else f"{public}={table_id}",
        request=given.get("--request"),
        is_json="--json" in given,
    )


_ACTIONS = ("create", "list", "disable", "rotate")
_LIMITS = (
    "requests-per-minute",
    "tokens-per-minute",
    "concurrent-requests",
    "budget-per-day",
    "budget-per-month",
)
_KEY_ID = re.compile(r"[0-9a-f]{8,64}")


def _make_keys(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    action = paths[0] if paths else ""
    if action not in _ACTIONS:
        raise _Refused(f"keys needs an action: {', '.join(_ACTIONS)}")
    rest = paths[1:]
    takes_id = action in ("disable", "rotate")
    if takes_id and (len(rest) != 1 or not _KEY_ID.fullmatch(rest[0])):
        message = f"keys {action} needs a key's id, or its first 8 digits"
        raise _Refused(f"{message}: see keys list")
    if rest and not takes_id:
        raise _Refused(f"unexpected argument: keys {action} takes options only")
    if action != "create":
        extra = [name for name in given if OPTIONS[name].commands in (_KEYS, _MODEL)]
        if extra:
            raise _Refused(f"{extra[0]} is an option of keys create")
    models = dict(given.get("--model", ()))
    if action == "create" and not models:
        raise _Refused("keys create needs --model: what the key may use")
    limits = ((name, given.get(f"--{name}")) for name in _LIMITS)
    return Keys(
        action=cast("Any", action),
        key_id=rest[0] if rest else "",
        models=tuple(models.items()),
        project_id=given.get("--project", ""),
        limits=tuple(
            (name.replace("-", "_"), value)
            for name, value in limits
            if value is not None
        ),
        expires_at=given.get("--expires-at", ""),
        note=given.get("--note", ""),
        is_toml="--toml" in given,
    )


def _make_tail(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    models = given.get("--model", ())
    if paths or len(models) > 1:
        raise _Refused("tail takes options only, and one --model at most")
    return Tail(
        model=models[0][0] if models else "",
        key_id=given.get("--key", ""),
        is_failures="--failures" in given,
        seconds=given.get("--since", 0),
        is_json="--json" in given,
    )


def _make_usage(
    given: Mapping[str, Any], paths: list[str], argv: tuple[str, ...]
) -> Command:
    if paths:
        raise _Refused(f"unexpected argument {paths[0]!r}: usage takes options only")
    return Usage(
        seconds=given.get("--since", 86_400),
        by=given.get("--by", ("model",)),
        is_json="--json" in given,
    )


_MAKE: dict[str, Callable[[Mapping[str, Any], list[str], tuple[str, ...]], Command]] = {
    "serve": _make_serve,
    "check": _make_check,
    "demo": _make_demo,
    "explain": _make_explain,
    "keys": _make_keys,
    "tail": _make_tail,
    "usage": _make_usage,
}

_HELP = {"keys": KEYS_HELP, "tail": STORE_HELP, "usage": STORE_HELP}
