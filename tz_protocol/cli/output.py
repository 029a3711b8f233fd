"""What the subcommands print, and the sentences that more than one of them uses.

The one rule: standard output has what was asked for, standard error what went wrong.
"""

from __future__ import annotations

from tz_protocol import __version__
from tz_protocol.errors import ConfigError, OperationBroken, OperationError
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Print

__all__ = ["announcement", "cannot_listen", "print_error", "print_problems", "say"]

_SECONDS = 10.0
"""For a terminal or a pipe that does not take what is printed."""


def say(context: Context, text: str, *, is_error: bool = False) -> Flow[None]:
    """Print *text*; a stream that nobody reads any more is no reason to fail."""
    try:
        yield from Print(context.now + _SECONDS, text, is_error)
    except OperationError:
        return


def print_error(context: Context, message: str) -> Flow[None]:
    """Print one line to standard error."""
    yield from say(context, f"tz-gateway: {message}\n", is_error=True)


def print_problems(context: Context, error: ConfigError) -> Flow[None]:
    """Print every problem of a configuration, one on each line."""
    lines = "".join(f"{problem}\n" for problem in error.problems)
    yield from say(context, lines, is_error=True)


def announcement(addresses: tuple[str, ...], what: str) -> str:
    """Return the line by which people and scripts know that requests may come.

    Its beginning is kept: programs look for the address in it.
    """
    where = " and ".join(addresses)
    return f"tz-gateway {__version__} is listening on {where} ({what})\n"


def cannot_listen(address: str, error: OperationError) -> str:
    """Return the sentence that says why the gateway cannot listen on *address*."""
    if not isinstance(error, OperationBroken):
        return f"cannot listen on {address}: {error}"
    reason = error.detail or error.kind
    hint = ""
    if "in use" in reason.lower():
        hint = "; another process uses it: end that one, or choose another address"
    return f"cannot listen on {address}: {reason}{hint}"
