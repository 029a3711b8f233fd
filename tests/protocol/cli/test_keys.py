"""``keys``: what is made, stored, shown and changed, and what is never shown."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.protocol.cli.running import Process
from tz_protocol.cli.arguments import parse_arguments
from tz_protocol.cli.options import Keys, Say
from tz_protocol.config.load import build, parse
from tz_protocol.testing import ScriptedRedis, World
from tz_protocol.types.keys import Grant, digest_of

URL = "redis://h"
CREATE = "keys create --model gpt=ep-1 --model m"


class Shell:
    """One Redis, and command lines one after another."""

    def __init__(self, *, is_set=True):
        self.redis = ScriptedRedis()
        self.is_set = is_set
        self.out = self.err = ""

    def run(self, text):
        world = World()
        if self.is_set:
            world.environment["TENSORZERO_REDIS_URL"] = URL
        world.redis[URL] = self.redis
        process = Process(text.split(), world)
        # each process has random bytes of its own
        process.sim.surroundings._random = len(self.redis.pipelines)
        process.sim.run_until_done(process.outcome)
        self.out, self.err = process.out, process.err
        assert not process.log
        return process.outcome.result

    def value(self, key):
        data = self.redis.run("GET", f"api_key_hash:{digest_of(key.encode()).hex()}")
        return None if data is None else json.loads(data)

    def create(self, text=CREATE):
        assert self.run(text) == 0
        return self.out.strip()


def test_created_key_is_printed_once_and_stored_by_its_digest():
    shell = Shell()
    key = shell.create(
        f"{CREATE} --project p --requests-per-minute 3 --budget-per-day 0.10 "
        "--expires-at 2030-01-31 --note mine"
    )
    assert key.startswith("sk-tz-")
    assert len(key) == len("sk-tz-") + 43  # 32 bytes in base64
    assert key not in shell.err
    assert shell.value(key) == {
        "models": {
            "gpt": {"endpoint_id": "ep-1", "project_id": "p"},
            "m": {"endpoint_id": "m", "project_id": "p"},
        },
        "limits": {"requests_per_minute": 3, "budget_per_day": "0.10"},
        "expires_at": "2030-01-31T00:00:00+00:00",
        "note": "mine",
    }
    assert key.encode() not in repr(shell.redis.data).encode()
    assert shell.redis.run("GET", "tz:keys:version") == b"1"
    assert any(command[0] == "PUBLISH" for command in shell.redis.pipelines[-1])


def test_two_keys_differ():
    shell = Shell()
    assert shell.create() != shell.create()


def test_toml_is_what_the_configuration_reads():
    shell = Shell(is_set=False)
    text = (
        f"{CREATE} --toml --tokens-per-minute 9 --budget-per-month 2.5 "
        '--expires-at 2030-01-31T12:00:00+02:00 --note "mine"'
    )
    assert shell.run(text) == 0
    key = shell.err.split()[-1]
    assert key not in shell.out
    tomllib.loads(shell.out)
    models = "".join(
        f'[models.{name}]\nrouting = ["dummy"]\n'
        f'[models.{name}.providers.dummy]\ntype = "dummy"\nmodel_name = "good"\n'
        for name in ("ep-1", "m")
    )
    access = build(parse([("a", models + shell.out)]), {}).access
    principal = access.keys[digest_of(key.encode())]
    assert principal.models == {"gpt": Grant("ep-1"), "m": Grant("m")}
    assert principal.limits.tokens_per_minute == 9
    assert principal.expires_at == 1_896_084_000.0
    assert not shell.redis.pipelines


def test_list_shows_everything_but_keys():
    shell = Shell()
    key = shell.create()
    grants = {"gpt": {"endpoint_id": "e"}}
    shell.redis.run(
        "SET", "api_key:sk-clear-canary", json.dumps({"sk-clear-canary": grants})
    )
    shell.redis.run("SET", "api_key:sk-broken-canary", "{")
    shell.redis.run("HSET", "api_key_hash:x", "a", "b")
    shell.redis.run("SET", "model_table:ep-1", "{}")
    assert shell.run("keys list") == 0
    assert key not in shell.out + shell.err
    assert "canary" not in shell.out + shell.err
    lines = sorted(shell.out.splitlines())
    digests = [digest_of(k.encode()).hex()[:16] for k in (key, "sk-clear-canary")]
    assert [line.split()[0] for line in lines] == sorted(digests)
    assert sum("stored in clear" in line for line in lines) == 1
    assert shell.err.count("cannot be used") == 2


@pytest.mark.parametrize(
    ("expires_at", "shown"),
    [
        ("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00+00:00"),
        (1_900_000_000, "2030-03-17T17:46:40+00:00"),
        (1e20, "100000000000000000000"),
    ],
    ids=["date", "number", "beyond-calendars"],
)
def test_list_shows_expiry_as_it_is_given(expires_at, shown):
    shell = Shell()
    value = {"models": {}, "expires_at": expires_at}
    shell.redis.run("SET", f"api_key_hash:{'0' * 64}", json.dumps(value))
    assert shell.run("keys list") == 0
    assert f"expires_at {shown}" in shell.out


def test_note_cannot_forge_a_line_of_the_list():
    shell = Shell()
    value = {"models": {}, "note": "a\nfeedfeedfeedfeed  enabled\x1b[31m"}
    shell.redis.run("SET", f"api_key_hash:{'0' * 64}", json.dumps(value))
    shell.run("keys list")
    assert shell.out.count("\n") == 1
    assert "\x1b" not in shell.out


def test_disabled_key_keeps_all_that_it_had():
    shell = Shell()
    key = shell.create(f"{CREATE} --budget-per-day 0.10")
    before = shell.value(key)
    assert shell.run(f"keys disable {digest_of(key.encode()).hex()[:8]}") == 0
    assert shell.value(key) == {**before, "disabled": True}
    assert shell.redis.run("GET", "tz:keys:version") == b"2"


def test_key_in_clear_is_disabled_by_a_hashed_form_beside_it():
    shell = Shell()
    key = "sk-clear-0123456789abcdef"
    grants = {"gpt": {"endpoint_id": "e", "project_id": "p"}}
    shell.redis.run("SET", f"api_key:{key}", json.dumps({key: grants}))
    assert shell.run(f"keys disable {digest_of(key.encode()).hex()[:16]}") == 0
    value = shell.value(key)
    assert value["disabled"] is True
    assert value["models"]["gpt"]["project_id"] == "p"
    shell.run("keys list")
    assert "disabled" in shell.out
    assert "stored in clear" not in shell.out


def test_rotated_key_is_replaced_by_one_of_the_same_kind():
    shell = Shell()
    old = shell.create(f"{CREATE} --note mine")
    before = shell.value(old)
    assert shell.run(f"keys rotate {digest_of(old.encode()).hex()[:16]}") == 0
    new = shell.out.strip()
    assert new != old
    assert shell.value(new) == before
    assert shell.value(old) == {**before, "disabled": True}
    assert shell.run(f"keys rotate {digest_of(old.encode()).hex()[:16]}") == 1
    assert "is disabled" in shell.err


def test_ambiguous_or_unknown_id_changes_nothing():
    shell = Shell()
    for end in "01":
        name = f"api_key_hash:{'ab' * 31}a{end}"
        shell.redis.run("SET", name, json.dumps({"models": {}}))
    before = dict(shell.redis.data)
    assert shell.run("keys disable abababab") == 1
    assert "several keys" in shell.err
    assert shell.run("keys disable 00000000") == 1
    assert "there is no key 00000000" in shell.err
    assert shell.redis.data == before


def _forbid(redis):
    redis.refusals["SET"] = "NOPERM"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda redis: setattr(redis, "state", "down"), "(refused)"),
        (lambda redis: setattr(redis, "state", "denied"), "(denied)"),
        (lambda redis: setattr(redis, "state", "frozen"), "within 10 s"),
        (_forbid, "Redis refuses (NOPERM)"),
    ],
    ids=["down", "denied", "frozen", "forbidden"],
)
def test_failing_redis_is_one_line_and_no_key(change, word):
    shell = Shell()
    change(shell.redis)
    assert shell.run(CREATE) == 1
    assert shell.out == ""
    assert word in shell.err
    assert shell.err.count("\n") == 1


def test_without_redis_the_sentence_says_what_to_do():
    shell = Shell(is_set=False)
    assert shell.run(CREATE) == 1
    assert "TENSORZERO_REDIS_URL is not set" in shell.err
    assert "--toml" in shell.err


# -- arguments ------------------------------------------------------------------


def test_arguments_of_keys_are_read():
    command = parse_arguments(f"{CREATE} --concurrent-requests 2".split()).command
    assert command == Keys(
        action="create",
        models=(("gpt", "ep-1"), ("m", "m")),
        limits=(("concurrent_requests", 2),),
    )
    command = parse_arguments(["keys", "disable", "0123abcd"]).command
    assert command == Keys(action="disable", key_id="0123abcd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys", "keys needs an action: create, list, disable, rotate"),
        ("keys show", "keys needs an action: create, list, disable, rotate"),
        ("keys create", "keys create needs --model: what the key may use"),
        ("keys create x --model m", "unexpected argument: keys create takes options"),
        ("keys list x", "unexpected argument: keys list takes options only"),
        ("keys list --toml", "--toml is an option of keys create"),
        ("keys disable", "keys disable needs a key's id, or its first 8 digits"),
        ("keys disable 12", "keys disable needs a key's id, or its first 8 digits"),
        ("keys create --model =x", "--model '=x': expected a model's name"),
        ("keys create --model m --expires-at x", "expected a time such as 2030-01-31"),
        (
            "keys create --model m --expires-at 2030-01-31T00:00:00",
            "expected a time such as 2030-01-31",
        ),
        ("keys create --model m --budget-per-day 1e3", "expected an amount such as 25"),
        ("keys create --model m --requests-per-minute 0", "expected a number from 1"),
        ("serve --model m", "--model is an option of keys"),
    ],
)
def test_wrong_arguments_of_keys_are_explained(text, message):
    command = parse_arguments(text.split()).command
    assert isinstance(command, Say)
    assert command.status == 2
    assert message in command.text


def test_id_in_an_error_is_never_a_key():
    command = parse_arguments(["keys", "disable", "sk-tz-canary"]).command
    assert isinstance(command, Say)
    assert "canary" not in command.text
