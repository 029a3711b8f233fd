"""How AWS's files and services are understood, and what is kept of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import UpstreamRefused
from tz_protocol.providers.aws_credentials import (
    CredentialTable,
    container_address,
    keys_are_meant,
    keys_of,
    profiles_of,
    read_metadata,
    refresh_after,
)
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url
from tz_protocol.wire.sigv4 import AwsCredentials

KEYS = AwsCredentials("AKID", Secret("s"))

# -- files ----------------------------------------------------------------------

CREDENTIALS = """
# a comment
[default]
aws_access_key_id = AKID
aws_secret_access_key=s3cr=t%1 # with a comment
[work]
AWS_ACCESS_KEY_ID = WORK
aws_secret_access_key = w
aws_session_token = t
region = eu-west-1
"""

CONFIG = """
[default]
region = us-east-1
s3 =
    max_concurrent_requests = 20
[profile work]
region = us-west-2
output = json
[profile "with space"]
role_arn = arn:aws:iam::1:role/x
[plugins]
a = b
[sso-session mine]
sso_start_url = x
"""


def test_profiles_of_both_files_are_joined():
    profiles = profiles_of(CREDENTIALS, CONFIG)
    assert set(profiles) == {"default", "work", "with space"}
    assert profiles["default"]["region"] == "us-east-1"
    assert profiles["work"]["region"] == "eu-west-1"
    assert keys_of("default", profiles["default"]) == AwsCredentials(
        "AKID", Secret("s3cr=t%1")
    )
    assert keys_of("work", profiles["work"]) == AwsCredentials(
        "WORK", Secret("w"), Secret("t")
    )


def test_profiles_of_no_files_are_none():
    assert profiles_of("", "") == {}


@pytest.mark.parametrize(
    "text", ["aws_access_key_id = a\n", "[default\n", "[a]\nkey\n"]
)
def test_file_in_another_format_is_refused_without_its_text(text):
    with pytest.raises(ValueError, match="credentials file of AWS") as caught:
        profiles_of(text, "")
    assert "key" not in str(caught.value)


@given(st.text(max_size=60), st.text(max_size=60))
def test_files_of_anything_are_read_or_refused(credentials, config):
    try:
        profiles = profiles_of(credentials, config)
    except ValueError as error:
        said = str(error)
        assert said.startswith("The shared "), said
        return
    for name, profile in profiles.items():
        keys_of(name, profile)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (None, "no profile p in"),
        ({}, "p has no keys"),
        ({"aws_access_key_id": "a"}, "p has no keys"),
        ({"sso_session": "x"}, "IAM Identity Center"),
        ({"role_arn": "x", "source_profile": "y"}, "a role to be assumed"),
        ({"credential_process": "x"}, "a program"),
    ],
)
def test_profile_without_keys_says_why(profile, reason):
    found = keys_of("p", profile)
    assert isinstance(found, str)
    assert reason in found


def test_profile_that_says_nothing_of_keys_does_not_mean_any():
    assert not keys_are_meant(None)
    assert not keys_are_meant({"region": "us-east-1"})
    assert keys_are_meant({"aws_access_key_id": "a"})
    assert keys_are_meant({"credential_process": "x"})


# -- services -------------------------------------------------------------------

METADATA = (
    b'{"Code":"Success","LastUpdated":"2026-01-02T03:04:05Z","Type":"AWS-HMAC",'
    b'"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t",'
    b'"Expiration":"2015-08-30T12:36:00Z"}'
)


def test_metadata_is_read():
    assert read_metadata(METADATA) == AwsCredentials(
        "ASIA", Secret("s"), Secret("t"), 1_440_938_160.0
    )
    naive = METADATA.replace(b"00Z", b"00")
    assert read_metadata(naive).expires == 1_440_938_160.0
    lasting = read_metadata(b'{"AccessKeyId":"A","SecretAccessKey":"s"}')
    assert lasting == AwsCredentials("A", Secret("s"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"Code":"Failed"}',
        b'{"AccessKeyId":1}',
        METADATA.replace(b"2015-", b"x"),
        b"\xff",
    ],
)
def test_metadata_without_keys_is_refused_without_its_text(body):
    with pytest.raises(ValueError, match="did not answer with keys"):
        read_metadata(body)


@pytest.mark.parametrize(
    ("relative", "full", "expected"),
    [
        (
            "/v2/credentials/x",
            "",
            (Url("http", "169.254.170.2", 80), "v2/credentials/x"),
        ),
        ("/a", "http://evil.org/b", (Url("http", "169.254.170.2", 80), "a")),
        ("", "http://127.0.0.1:51679/c", (Url("http", "127.0.0.1", 51_679), "c")),
        (
            "",
            "http://169.254.170.23/v1/credentials?x=1",
            (Url("http", "169.254.170.23", 80), "v1/credentials?x=1"),
        ),
        ("", "http://[fd00:ec2::23]/v1", (Url("http", "fd00:ec2::23", 80), "v1")),
        (
            "",
            "https://keys.example.org/d",
            (Url("https", "keys.example.org", 443), "d"),
        ),
    ],
)
def test_address_of_a_containers_keys(relative, full, expected):
    assert container_address(relative, full) == expected


@pytest.mark.parametrize(
    "full",
    [
        "http://evil.org/",
        "http://169.254.169.254/",
        "ftp://127.0.0.1/",
        "https://",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "nonsense",
    ],
)
def test_address_that_keys_may_not_be_asked_of_is_refused(full):
    with pytest.raises(ValueError, match="FULL_URI must be"):
        container_address("", full)


# -- the table ------------------------------------------------------------------


def test_table_gives_the_latest_credentials_and_tells_who_waits():
    table = CredentialTable()
    assert table.get() is None
    assert not table.demand.is_set
    news = table.want()
    assert (table.demand.is_set, news.is_set) == (True, False)
    table.store(KEYS)
    assert (table.get(), news.is_set) == (KEYS, True)
    assert not table.want().is_set


def test_table_without_credentials_says_why_until_there_are_some():
    table = CredentialTable()
    news = table.want()
    table.fail("Nothing is set.")
    assert news.is_set
    with pytest.raises(
        UpstreamRefused, match=r"no AWS credentials\. Nothing"
    ) as caught:
        table.get()
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    table.store(KEYS)
    assert table.get() == KEYS
    table.fail("Gone.")
    assert table.get() == KEYS


@pytest.mark.parametrize(
    ("expires", "expected"),
    [(None, 300), (100_000, 3_600), (3_000, 2_100), (900, 60), (0, 60), (-5, 60)],
)
def test_refresh_is_before_the_end(expires, expected):
    end = None if expires is None else 1_000.0 + expires
    keys = AwsCredentials("A", Secret("s"), None, end)
    assert refresh_after(keys, 1_000.0) == expected
