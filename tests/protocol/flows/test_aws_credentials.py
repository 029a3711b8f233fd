"""The service that looks for AWS credentials, in a scripted world."""

from __future__ import annotations

import pytest

from tz_protocol.errors import UpstreamRefused, UpstreamTimeout
from tz_protocol.flows.aws_credentials import (
    ANSWER_LIMIT,
    CONNECT_SECONDS,
    TOTAL_SECONDS,
    AwsService,
    credentials_for,
)
from tz_protocol.notices import LogLine
from tz_protocol.providers.aws_credentials import CredentialTable
from tz_protocol.routing.pool import Pool
from tz_protocol.testing import Simulator, World, hang, refuse, reply
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits
from tz_protocol.wire.sigv4 import AwsCredentials

WALL = 1_767_323_045.0
"""Unix seconds when the simulated clock begins: 2026-01-02T03:04:05Z."""
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s"}
HOME = {"HOME": "/home/u"}
FILE = "[default]\naws_access_key_id = FILE\naws_secret_access_key = f\n"
INSTANCE = ("169.254.169.254", 80)
CONTAINER = ("169.254.170.2", 80)


class Process:
    """One process with the service, in a world."""

    def __init__(self, world):
        self.sim = Simulator(world)
        self.table = CredentialTable()
        limits = Limits()
        self.pool = Pool(limits)
        self.service = AwsService(
            table=self.table,
            context=self.sim.context,
            pool=self.pool,
            limits=lambda: limits,
            wall_clock=lambda: WALL + self.sim.now - self.sim.start,
            user_agent="test",
        )
        self.running = self.sim.spawn(self.service.run(), name="service")

    def get(self, seconds=10.0):
        """Return what a request gets that may wait for some seconds."""
        flow = credentials_for(self.table, self.sim.now + seconds)
        return self.sim.run(flow, name="request").result

    def refusal(self):
        with pytest.raises(UpstreamRefused) as caught:
            self.get()
        return caught.value

    def asked(self):
        """Return method, path and headers of each request to a metadata service."""
        return [
            (*message.start.split()[:2], dict(message.headers))
            for _, _, message in self.sim.requests
        ]


def metadata(access="ASIA", expires="2026-01-02T09:04:05Z"):
    return (
        f'{{"Code":"Success","AccessKeyId":"{access}","SecretAccessKey":"s",'
        f'"Token":"t","Expiration":"{expires}"}}'
    ).encode()


def instance_of(*answers):
    """Return the steps of an instance's service for one look."""
    steps = (*reply(200, body=b"TOKEN"), *reply(200, body=b"my-role"))
    return (*steps, *(step for answer in answers for step in reply(200, body=answer)))


# -- where they are looked for --------------------------------------------------


def test_nothing_is_looked_for_before_anybody_wants_it():
    process = Process(World(environment=dict(ENVIRONMENT)))
    process.sim.run_until(process.sim.now + 1_000)
    assert len(process.running.operations) == 1
    assert process.table.get() is None


def test_environment_counts_first():
    world = World(
        environment={
            **ENVIRONMENT,
            **HOME,
            "AWS_SESSION_TOKEN": "t",
            "AWS_REGION": "eu-west-1",
        },
        files={"/home/u/.aws/credentials": FILE},
    )
    process = Process(world)
    assert process.get() == AwsCredentials("AKID", Secret("s"), Secret("t"))
    assert process.table.region == "eu-west-1"
    assert not process.sim.opened


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_environment_with_half_a_pair_is_a_mistake(name):
    process = Process(World(environment={name: "x", **HOME}))
    other = next(one for one in ENVIRONMENT if one != name)
    assert f"{other} is not set" in process.refusal().message


def test_environment_takes_its_region_from_the_files_if_it_has_none():
    files = {"/home/u/.aws/config": "[default]\nregion = us-east-2\n"}
    process = Process(World(environment={**ENVIRONMENT, **HOME}, files=files))
    assert process.get().access_key == "AKID"
    assert process.table.region == "us-east-2"
    files["/home/u/.aws/config"] = "nonsense"
    process = Process(World(environment={**ENVIRONMENT, **HOME}, files=files))
    assert process.get().access_key == "AKID"
    assert process.table.region == ""


@pytest.mark.parametrize(
    ("environment", "files"),
    [
        (HOME, {"/home/u/.aws/credentials": FILE}),
        (HOME, {"/home/u/.aws/config": FILE}),
        ({"USERPROFILE": "/home/u"}, {"/home/u/.aws/credentials": FILE}),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/k[1]"}, {"/k[1]": FILE}),
        ({"AWS_CONFIG_FILE": "~/c", **HOME}, {"/home/u/c": FILE}),
        (
            {"AWS_PROFILE": "work", **HOME},
            {"/home/u/.aws/config": FILE.replace("default", "profile work")},
        ),
    ],
    ids=["credentials", "config", "windows", "elsewhere", "tilde", "profile"],
)
def test_shared_files_are_read(environment, files):
    # A bracket is written [[] in a pattern, which the scripted world reads as it is.
    found = {path.replace("[1]", "[[]1]"): text for path, text in files.items()}
    process = Process(World(environment=dict(environment), files=found))
    assert process.get() == AwsCredentials("FILE", Secret("f"))


@pytest.mark.parametrize(
    ("environment", "text", "reason"),
    [
        ({"AWS_PROFILE": "other"}, FILE, "no profile other"),
        ({}, "[default]\ncredential_process = x\n", "a program that prints them"),
        ({}, "[default\n", "not in the INI format"),
    ],
)
def test_shared_files_that_are_meant_and_have_no_keys_are_a_mistake(
    environment, text, reason
):
    files = {"/home/u/.aws/credentials": text}
    process = Process(World(environment={**HOME, **environment}, files=files))
    error = process.refusal()
    assert reason in error.message
    assert (error.status, error.code) == (401, "invalid_api_key")
    assert not process.sim.opened


def test_keys_that_last_are_looked_up_again_for_who_rewrites_the_file():
    world = World(environment=dict(HOME), files={"/home/u/.aws/credentials": FILE})
    process = Process(world)
    assert process.get().access_key == "FILE"
    world.files["/home/u/.aws/credentials"] = FILE.replace("FILE", "NEW")
    process.sim.run_until(process.sim.now + 299)
    assert process.get().access_key == "FILE"
    process.sim.run_until(process.sim.now + 2)
    assert process.get().access_key == "NEW"


# -- a container's service ------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "authorization"),
    [
        ({}, None),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "abc"}, "abc"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token"}, "from file"),
    ],
)
def test_container_is_asked_where_it_says(environment, authorization):
    world = World(
        environment={
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x",
            **environment,
        },
        files={"/token": "from file\n"},
    )
    world.upstream(*CONTAINER, reply(200, body=metadata()))
    process = Process(world)
    found = process.get()
    assert (found.access_key, found.expires) == ("ASIA", WALL + 6 * 3_600)
    ((method, path, headers),) = process.asked()
    assert (method, path) == ("GET", "/v2/credentials/x")
    assert headers.get("authorization") == authorization


def test_container_with_an_address_that_may_not_be_asked_is_a_mistake():
    url = "http://evil.org/"
    process = Process(World(environment={"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}))
    error = process.refusal()
    assert "FULL_URI must be" in error.message
    assert "evil" not in error.message


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (reply(500, body=b"x"), "answered 500"),
        (reply(200, body=b"x"), "did not answer with keys"),
        (refuse(), "failed: the connection"),
        (hang(), "timed out"),
    ],
    ids=["error", "nonsense", "refused", "hangs"],
)
def test_container_that_has_no_keys_is_a_failure(behaviour, reason):
    world = World(environment={"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"})
    world.upstream(*CONTAINER, behaviour)
    process = Process(world)
    assert reason in process.refusal().message
    lines = [n for n in process.sim.notices if isinstance(n, LogLine)]
    assert lines[0].level == "warning"


def test_container_that_answers_without_end_is_broken_off():
    world = World(environment={"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"})
    world.upstream(*CONTAINER, reply(200, body=b"x" * (ANSWER_LIMIT * 4)))
    process = Process(world)
    assert "over 65536 bytes" in process.refusal().message
    assert process.sim.open_handles == []


# -- the instance's service -----------------------------------------------------


def test_instance_is_asked_with_a_session_token():
    world = World()
    world.upstream(*INSTANCE, instance_of(metadata()))
    process = Process(world)
    found = process.get()
    assert found == AwsCredentials("ASIA", Secret("s"), Secret("t"), WALL + 6 * 3_600)
    base = "/latest/meta-data/iam/security-credentials/"
    asked = process.asked()
    assert [(method, path) for method, path, _ in asked] == [
        ("PUT", "/latest/api/token"),
        ("GET", base),
        ("GET", f"{base}my-role"),
    ]
    assert asked[0][2]["x-aws-ec2-metadata-token-ttl-seconds"] == "300"
    assert [headers["x-aws-ec2-metadata-token"] for *_, headers in asked[1:]] == (
        ["TOKEN"] * 2
    )
    assert len(process.sim.opened) == 1


@pytest.mark.parametrize(
    ("environment", "behaviour"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "TRUE"}, None),
        ({}, refuse()),
        ({}, reply(403)),
        ({}, (*reply(200, body=b"T"), *reply(200, body=b"\n"))),
    ],
    ids=["switched off", "elsewhere", "forbidden", "no role"],
)
def test_nothing_anywhere_says_what_was_looked_for(environment, behaviour):
    world = World(environment=dict(environment))
    if behaviour is not None:
        world.upstream(*INSTANCE, behaviour)
    error = Process(world).refusal()
    assert error.message.startswith("There are no AWS credentials. AWS_ACCESS_KEY_ID")


def test_borrowed_keys_are_renewed_before_their_end():
    world = World()
    first = metadata("FIRST", "2026-01-02T04:04:05Z")
    second = metadata("SECOND", "2026-01-02T10:04:05Z")
    world.upstream(*INSTANCE, instance_of(first), instance_of(second))
    process = Process(world)
    assert process.get().access_key == "FIRST"
    process.sim.run_until(process.sim.start + 2_690)
    assert process.get().access_key == "FIRST"
    process.sim.run_until(process.sim.start + 2_710)
    assert process.get().access_key == "SECOND"


def test_borrowed_keys_that_cannot_be_renewed_are_kept():
    world = World()
    first = metadata("FIRST", "2026-01-02T04:04:05Z")
    world.upstream(*INSTANCE, instance_of(first), refuse())
    process = Process(world)
    assert process.get().access_key == "FIRST"
    process.sim.run_until(process.sim.start + 10_000)
    assert process.get().access_key == "FIRST"


def test_look_that_failed_is_repeated_with_growing_pauses():
    world = World()
    world.upstream(*INSTANCE, refuse())
    process = Process(world)
    process.refusal()
    process.sim.run_until(process.sim.start + 200)
    times = [n for n in process.sim.notices if isinstance(n, LogLine)]
    # After 0, 5, 15, 35, 75, 135 and 195 seconds.
    assert len(times) == 7
    world.environment.update(ENVIRONMENT)
    process.sim.run_until(process.sim.start + 260)
    assert process.get().access_key == "AKID"


# -- who waits ------------------------------------------------------------------


def test_requests_that_come_together_wait_for_one_look():
    world = World()
    world.upstream(*INSTANCE, instance_of(metadata()))
    process = Process(world)
    flows = [credentials_for(process.table, process.sim.now + 10) for _ in range(5)]
    outcomes = [process.sim.spawn(flow) for flow in flows]
    process.sim.run_until_done(*outcomes)
    assert {outcome.result.access_key for outcome in outcomes} == {"ASIA"}
    assert len(process.asked()) == 3


def test_request_does_not_wait_longer_than_it_may():
    world = World()
    world.upstream(*INSTANCE, hang())
    process = Process(world)
    with pytest.raises(UpstreamTimeout) as caught:
        process.get(0.5)
    assert caught.value.phase == "connect"
    assert process.sim.now == process.sim.start + 0.5


def test_service_that_answers_slowly_is_given_up():
    world = World()
    world.upstream(*INSTANCE, reply(200, body=b"T", after=60.0))
    process = Process(world)
    process.refusal()
    assert process.sim.now <= process.sim.start + CONNECT_SECONDS + TOTAL_SECONDS


@pytest.mark.parametrize("step", range(1, 24))
def test_service_cancelled_at_any_step_leaves_nothing_open(step):
    world = World(environment=dict(HOME))
    world.upstream(*INSTANCE, instance_of(metadata()))
    sim = Simulator(world)
    table, limits = CredentialTable(), Limits()
    pool = Pool(limits)
    service = AwsService(
        table=table,
        context=sim.context,
        pool=pool,
        limits=lambda: limits,
        wall_clock=lambda: WALL,
    )
    table.want()
    outcome = sim.spawn(service.run(), cancel_at=step)
    sim.run_until(sim.now + 100)
    assert outcome.is_cancelled
    kept = pool.expire(sim.now, everything=True)
    assert set(sim.open_handles) <= set(kept)


def test_secrets_are_in_no_notice():
    world = World(environment={"AWS_SECRET_ACCESS_KEY": "hush", **HOME})
    process = Process(world)
    error = process.refusal()
    assert "hush" not in str(process.sim.notices) + error.message
