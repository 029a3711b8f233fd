from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol import __version__
from tz_protocol.cli.arguments import COMMANDS, OPTIONS, USAGE_ERROR, parse_arguments
from tz_protocol.cli.options import (
    Check,
    Demo,
    Invocation,
    LogSettings,
    Say,
    Serve,
    Source,
    Worker,
)
from tz_protocol.cli.usage import HELP, KEYS_HELP, STORE_HELP


def parse(text):
    return parse_arguments(text.split())


ACCEPTED = {
    "nothing": ("", Serve()),
    "serve": ("serve", Serve()),
    "file": (
        "--config-file a.toml",
        Serve(
            source=Source(("a.toml",)),
            arguments=("--config-file", "a.toml"),
        ),
    ),
    "file-with-equals": (
        "--config-file=a=b.toml",
        Serve(source=Source(("a=b.toml",)), arguments=("--config-file=a=b.toml",)),
    ),
    "files": (
        "check --config-file a.toml --config-file b/*.toml",
        Check(source=Source(("a.toml", "b/*.toml"))),
    ),
    "positional": (
        "a.toml",
        Serve(
            source=Source(("a.toml",)), is_path_positional=True, arguments=("a.toml",)
        ),
    ),
    "after-dashes": (
        "check -- --odd.toml",
        Check(source=Source(("--odd.toml",))),
    ),
    "address": (
        "check --bind-address unix:/run/tz.sock",
        Check(source=Source(bind_address="unix:/run/tz.sock")),
    ),
    "host-and-port": (
        "check --host ::1 --port 0",
        Check(source=Source(host="::1", port=0)),
    ),
    "last-one-counts": ("check --port 1 --port 2", Check(source=Source(port=2))),
    "json": ("check --json", Check(is_json=True)),
    "demo": ("demo", Demo()),
    "demo-once": ("demo --once --port 8080", Demo(port=8080, is_once=True)),
    "version": ("--version", Say(text=f"tz-gateway {__version__}\n")),
    "version-short": ("-V", Say(text=f"tz-gateway {__version__}\n")),
    "help": ("--help", Say(text=HELP)),
    "help-of-tail": ("tail --help", Say(text=STORE_HELP)),
    "help-of-keys": ("keys create --help", Say(text=KEYS_HELP)),
    "help-short-of-a-command": ("demo -h", Say(text=HELP)),
    "help-beside-what-would-be-refused": ("--tls-key k --help", Say(text=HELP)),
}


@pytest.mark.parametrize(("text", "command"), ACCEPTED.values(), ids=list(ACCEPTED))
def test_arguments_legal_are_understood(text, command):
    assert parse(text).command == command


def test_arguments_of_serve_reach_every_field():
    text = "--workers 4 --tls-cert c.pem --tls-key k.pem --default-config"
    assert parse(f"serve {text}").command == Serve(
        workers=4, tls_cert="c.pem", tls_key="k.pem", arguments=tuple(text.split())
    )


def test_arguments_of_a_worker_are_what_its_supervisor_passes():
    worker = Worker(2, 4, ("fd:3", "fd:4"))
    command = parse_arguments(["serve", "--worker", str(worker), "--workers", "4"])
    assert isinstance(command.command, Serve)
    assert command.command.worker == worker


LOGS = {
    "default": ("", LogSettings("info", "pretty")),
    "level": ("--log-level debug", LogSettings("debug", "pretty")),
    "format": ("check --log-format json", LogSettings("info", "json")),
    "demo": ("demo", LogSettings("warning", "pretty")),
    "demo-level": ("demo --log-level info", LogSettings("info", "pretty")),
}


@pytest.mark.parametrize(("text", "expected"), LOGS.values(), ids=list(LOGS))
def test_arguments_log_options_become_settings(text, expected):
    assert parse(text).log == expected


REFUSED = {
    "unknown": ("--frobnicate", "unknown option '--frobnicate'\n"),
    "typo": ("--prot 80", "unknown option '--prot'; did you mean --port?"),
    "unknown-short": ("-x", "unknown option '-x'"),
    "no-abbreviation": ("--config a.toml", "did you mean --config-file?"),
    "typo-of-a-command": ("chekc", "unknown command 'chekc'; did you mean check?"),
    "command-not-first": ("--port 80 check", "the command comes first"),
    "command-after-the-file": ("--config-file a.toml check", "the command comes first"),
    "no-value": ("--port", "--port needs a value"),
    "value-of-a-flag": ("check --json=yes", "--json takes no value"),
    "empty": ("--config-file=", "expected something that is not empty"),
    "port-text": ("--port http", "--port 'http': expected a number from 0 to 65535"),
    "port-large": ("--port 65536", "expected a number from 0 to 65535"),
    "port-negative": ("--port -1", "expected a number from 0 to 65535"),
    "port-not-ascii": ("--port ٣", "expected a number from 0 to 65535"),
    "no-workers": ("--workers 0", "expected a number from 1 to 1024"),
    "address": ("--bind-address 3000", "--bind-address '3000': expected host:port"),
    "address-v6": ("--bind-address ::1:3000", "an IPv6 address needs its brackets"),
    "host": ("--host a/b", "--host 'a/b': expected"),
    "level": ("--log-level loud", "expected debug, info, warning or error"),
    "format": ("--log-format xml", "expected pretty or json"),
    "cert-alone": ("--tls-cert c.pem", "--tls-cert and --tls-key belong together"),
    "key-alone": ("--tls-key k.pem", "--tls-cert and --tls-key belong together"),
    "two-addresses": ("--bind-address a:1 --port 2", "--host and --port do not go"),
    "file-and-none": ("--config-file a --default-config", "only one of the two"),
    "path-and-none": ("a.toml --default-config", "only one of the two"),
    "two-paths": ("a.toml b.toml", "unexpected argument 'b.toml'"),
    "path-and-file": ("--config-file a b.toml", "unexpected argument 'b.toml'"),
    "demo-path": ("demo a.toml", "demo reads no file"),
    "option-of-another": ("check --once", "--once is an option of demo, not of check"),
    "option-of-two": ("demo --host h", "--host is an option of serve and check"),
    "worker": ("--worker 1", "a supervisor passes this"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=list(REFUSED))
def test_arguments_illegal_are_refused_with_a_reason(text, message):
    command = parse(text).command
    assert isinstance(command, Say)
    assert command.status == USAGE_ERROR
    assert command.text.startswith("tz-gateway: ")
    assert message in command.text
    assert command.text.endswith("Try: tz-gateway --help\n")


def test_arguments_hidden_option_is_never_suggested():
    command = parse("--worke").command
    assert isinstance(command, Say)
    assert "did you mean --workers?" in command.text


@given(st.lists(st.text() | st.sampled_from([*OPTIONS, *COMMANDS, "1", "--port=80"])))
def test_arguments_whatever_is_typed_there_is_an_invocation(argv):
    invocation = parse_arguments(argv)
    assert isinstance(invocation, Invocation)
    if isinstance(invocation.command, Say) and invocation.command.status:
        assert invocation.command.text.count("\n") == 2


# -- help -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [HELP, KEYS_HELP, STORE_HELP], ids=["all", "keys", "store"]
)
def test_help_fits_a_terminal(text):
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_help_names_every_option_that_is_not_hidden():
    words = {
        re.split(r"[,\[]", word)[0] for word in (HELP + KEYS_HELP + STORE_HELP).split()
    }
    shown = OPTIONS.keys() & words
    assert shown == {name for name, option in OPTIONS.items() if not option.is_hidden}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command):
    assert f"tz-gateway {command}" in HELP or f"[{command}]" in HELP
