from __future__ import annotations

import json
import re

import pytest

from tests.protocol.cli.running import config, start
from tz_protocol.operations import Bind, Listen, Spawn
from tz_protocol.testing import World

ARGV = "check --config-file gateway.toml"


def test_check_good_file_prints_the_routes_and_starts_nothing():
    process = start(ARGV, gateway=config("one", "two"))
    assert process.finish() == 0
    assert "one" in process.out
    assert "two" in process.out
    assert process.out.endswith("\n")
    assert not process.out.endswith("\n\n")
    assert process.err == ""
    assert not process.gateways
    kinds = {type(op) for _, op in process.outcome.operations}
    assert not kinds & {Listen, Bind, Spawn}


def test_check_json_prints_one_document():
    process = start(f"{ARGV} --json", gateway=config("one"))
    assert process.finish() == 0
    assert "one" in json.loads(process.out)["models"]


def test_check_bad_file_prints_problems_to_standard_error():
    text = config("one", rest="[frobnicate]\nx = 1\n[modles]\ny = 1\n")
    process = start(ARGV, gateway=text)
    assert process.finish() == 2
    assert process.out == ""
    for line in process.err.splitlines():
        assert re.match(r"gateway\.toml:\d+: [a-z.]+: \S", line)


@pytest.mark.parametrize("output", ["", "--json"], ids=["text", "json"])
def test_check_never_shows_a_secret(output):
    world = World(environment={"KEY": "sk-very-secret"})
    text = config("one") + 'api_key_location = "env::KEY"\n'
    process = start(f"{ARGV} {output}", world, gateway=text)
    assert process.finish() == 0
    assert "sk-very-secret" not in process.out + process.err


def test_check_says_what_serve_would_say():
    text = config("one", gateway='bind_address = "0.0.0.0:3000"')
    checked = start(ARGV, gateway=text)
    served = start("--config-file gateway.toml", gateway=text)
    assert (checked.finish(), served.finish()) == (2, 2)
    assert checked.err == served.err != ""


def test_check_options_override_the_address():
    text = config("one", gateway='bind_address = "0.0.0.0:3000"')
    assert start(f"{ARGV} --host 127.0.0.1", gateway=text).finish() == 0


def test_check_no_file_is_good():
    process = start("check", World(environment={"OPENAI_API_KEY": "sk-secret"}))
    assert process.finish() == 0
    assert "openai" in process.out
    assert "sk-secret" not in process.out


@pytest.mark.parametrize("argv", ["--help", "--version", "--frobnicate"])
def test_say_prints_to_where_it_belongs(argv):
    process = start(argv)
    status = process.finish()
    assert (process.out == "", process.err == "") == (status == 2, status == 0)
