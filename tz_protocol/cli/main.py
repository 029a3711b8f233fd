"""What a transport calls: its arguments become the root flow of the process.

The one rule: everything that differs between subcommands is decided here and below,
so that a transport's ``__main__`` reads the same whatever was asked for::

    invocation = parse_arguments(sys.argv[1:])
    status = drive(run(invocation, context, make_gateway))

and gives ``invocation.log`` to ``cli.logs.line_of`` in its sink for notices.
"""

from __future__ import annotations

from tz_protocol.cli.arguments import parse_arguments
from tz_protocol.cli.check import check
from tz_protocol.cli.demo import demo
from tz_protocol.cli.explain import explain
from tz_protocol.cli.keys import keys
from tz_protocol.cli.options import (
    Check,
    Demo,
    Explain,
    Invocation,
    Keys,
    Migrate,
    Serve,
    Tail,
    Usage,
)
from tz_protocol.cli.output import say
from tz_protocol.cli.serve import MakeGateway, serve
from tz_protocol.cli.store import run_migrations, tail, usage
from tz_protocol.cli.workers import supervise
from tz_protocol.machine import Context
from tz_protocol.operations import Flow

__all__ = ["parse_arguments", "run"]


def run(
    invocation: Invocation, context: Context, make_gateway: MakeGateway
) -> Flow[int]:
    """Do what was asked for; return the exit status of the process.

    When it ends, cancel the connections that are left: their time is over.

    Args:
        invocation: From :func:`parse_arguments`.
        context: Shared by every machine of the process.
        make_gateway: Called at most once, with a snapshot, before ``Listen``.
    """
    command = invocation.command
    if isinstance(command, Serve):
        if command.workers > 1 and command.worker is None:
            return (yield from supervise(command, context))
        return (yield from serve(command, context, make_gateway))
    if isinstance(command, Check):
        return (yield from check(command, context))
    if isinstance(command, Demo):
        return (yield from demo(command, context, make_gateway))
    if isinstance(command, Explain):
        return (yield from explain(command, context))
    if isinstance(command, Keys):
        return (yield from keys(command, context))
    if isinstance(command, Migrate):
        return (yield from run_migrations(command, context))
    if isinstance(command, Tail):
        return (yield from tail(command, context))
    if isinstance(command, Usage):
        return (yield from usage(command, context))
    yield from say(context, command.text, is_error=command.status != 0)
    return command.status
