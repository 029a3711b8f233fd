from __future__ import annotations

import pytest

from tests.protocol.cli.running import config, start
from tz_protocol.cli.loading import load
from tz_protocol.cli.options import Source
from tz_protocol.errors import ConfigError
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import Print, ReadFiles, ResolveSecret
from tz_protocol.testing import Simulator, World
from tz_protocol.testing.surroundings import AT_ONCE


def run(source, world):
    sim = Simulator(world)
    return sim.run(load(source, sim.context))


def test_load_reads_patterns_in_order_and_each_file_once():
    world = World(files={"b.toml": "", "a.toml": config("one"), "c.toml": ""})
    loaded = run(Source(("b.toml", "*.toml")), world).result
    assert loaded.files == ("b.toml", "a.toml", "c.toml")


def test_load_resolves_each_location_once():
    world = World(environment={"KEY": "sk"}, files={"a.toml": config("one")})
    outcome = run(Source(("a.toml",)), world)
    asked = [op.location for _, op in outcome.operations if type(op) is ResolveSecret]
    assert len(asked) == len(set(asked))


def test_load_path_from_env_is_two_steps():
    files = {"key.txt": "sk-x", "a.toml": config("one")}
    files["a.toml"] += 'api_key_location = "path_from_env::KEY_FILE"\n'
    outcome = run(Source(("a.toml",)), World({"KEY_FILE": "key.txt"}, files))
    asked = [op.location for _, op in outcome.operations if type(op) is ResolveSecret]
    at = asked.index("env::KEY_FILE")
    assert asked[at : at + 2] == ["env::KEY_FILE", "path::key.txt"]
    assert "path_from_env::KEY_FILE" not in asked


def test_load_file_that_cannot_be_read_is_a_problem_with_its_reason(monkeypatch):
    def refuse(surroundings, operation):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(AT_ONCE, ReadFiles, refuse)
    error = run(Source(("a.toml", "b.toml")), World()).error
    assert isinstance(error, ConfigError)
    assert [str(problem) for problem in error.problems] == [
        "a.toml: cannot be read: [Errno 13] Permission denied",
        "b.toml: cannot be read: [Errno 13] Permission denied",
    ]


def test_load_file_that_never_comes_is_a_problem():
    machine = Machine(load(Source(("a.toml",)), Context()), Context())
    operation = machine.start(1.0)
    assert type(operation) is ReadFiles
    with pytest.raises(ConfigError, match=r"a\.toml: cannot be read: nothing came"):
        machine.timed_out(operation.deadline)


def test_load_secret_that_never_comes_is_missing():
    context = Context()
    machine = Machine(load(Source(), context), context)
    operation = machine.start(1.0)
    while operation is not None:
        assert type(operation) is ResolveSecret
        operation = machine.timed_out(operation.deadline)
    assert machine.result is not None
    assert machine.result.snapshot.shorthand.get("openai") is None


def test_output_that_nobody_reads_is_no_reason_to_fail(monkeypatch):
    def refuse(surroundings, operation):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setitem(AT_ONCE, Print, refuse)
    world = World(signals=[(5.0, "SIGTERM")])
    process = start("--config-file gateway.toml", world, gateway=config("one"))
    assert process.finish() == 0
    assert process.ended_after == 5.0
