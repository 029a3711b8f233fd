"""``check``: say what ``serve`` would do, without doing it.

The one rule: it loads exactly as ``serve`` does. What is effective goes to standard
output, problems to standard error, one on each line as ``file:line: path: message``.
"""

from __future__ import annotations

from tz_protocol.cli.arguments import USAGE_ERROR
from tz_protocol.cli.loading import load
from tz_protocol.cli.options import Check
from tz_protocol.cli.output import print_problems, say
from tz_protocol.errors import ConfigError
from tz_protocol.machine import Context
from tz_protocol.operations import Flow

__all__ = ["check"]


def check(command: Check, context: Context) -> Flow[int]:
    """Print the effective configuration or its problems; return the exit status."""
    from tz_protocol.config.load import describe, describe_json

    try:
        loaded = yield from load(command.source, context)
    except ConfigError as error:
        yield from print_problems(context, error)
        return USAGE_ERROR
    make_text = describe_json if command.is_json else describe
    yield from say(context, make_text(loaded.snapshot).rstrip("\n") + "\n")
    return 0
