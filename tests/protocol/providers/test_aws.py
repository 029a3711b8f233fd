"""The rows of Bedrock and SageMaker: where to ask, and how to prove who asks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tz_protocol.errors import InvalidRequest
from tz_protocol.providers.aws import AWS_BEDROCK, AWS_SAGEMAKER
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings, Url
from tz_protocol.wire.sigv4 import AwsCredentials, Scope, sign

WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
KEYS = AwsCredentials("AKIDEXAMPLE", Secret("secret"), Secret("token"))
ROWS = [AWS_BEDROCK, AWS_SAGEMAKER]
REQUEST = HttpRequest(
    path="model/amazon.nova-lite-v1%3A0/converse",
    headers=(("content-type", "application/json"),),
    body=b"{}",
)


def settings(host="bedrock-runtime.us-west-2.amazonaws.com", **more):
    return ProviderSettings(
        name="mine",
        type="aws_bedrock",
        model="amazon.nova-lite-v1:0",
        url=Url("https", host, 443),
        **more,
    )


def signed(given, *, row=AWS_BEDROCK, request=REQUEST, region=""):
    assert row.sign is not None
    return dict(row.sign(request, given, KEYS, region, WALL))


def scope_of(headers):
    return headers["authorization"].partition("Credential=")[2].split(",")[0].split("/")


@pytest.mark.parametrize(
    ("row", "region", "expected"),
    [
        (AWS_BEDROCK, "us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com/"),
        (
            AWS_BEDROCK,
            "us-gov-west-1",
            "https://bedrock-runtime.us-gov-west-1.amazonaws.com/",
        ),
        (
            AWS_SAGEMAKER,
            "cn-north-1",
            "https://runtime.sagemaker.cn-north-1.amazonaws.com.cn/",
        ),
    ],
)
def test_address_is_that_of_the_region(row, region, expected):
    assert row.locate is not None
    assert row.locate({"region": region}) == expected


@pytest.mark.parametrize("region", ["", "us-east-1.evil.org/", "US-EAST-1", "east"])
def test_address_of_what_is_no_region_is_refused(region):
    assert AWS_BEDROCK.locate is not None
    with pytest.raises(ValueError, match="name of an AWS region"):
        AWS_BEDROCK.locate({"region": region})


def test_address_without_a_region_is_unknown():
    assert AWS_BEDROCK.locate is not None
    with pytest.raises(KeyError, match="region"):
        AWS_BEDROCK.locate({})


@pytest.mark.parametrize("row", ROWS, ids=["bedrock", "sagemaker"])
def test_key_of_the_configuration_goes_out_as_it_is(row):
    headers = row.authorize(REQUEST, Secret("k"), WALL)
    assert headers == (("authorization", "Bearer k"),)


def test_signature_covers_the_request_as_it_goes_out():
    expected = sign(
        "POST",
        "/model/amazon.nova-lite-v1%3A0/converse",
        "",
        (
            ("host", "bedrock-runtime.us-west-2.amazonaws.com"),
            ("content-type", "application/json"),
        ),
        b"{}",
        credentials=KEYS,
        scope=Scope("us-west-2", "bedrock"),
        wall=WALL,
    )
    found = signed(settings())
    assert dict(expected) == found
    assert found["x-amz-date"] == "20260102T030405Z"
    assert found["x-amz-security-token"] == "token"


def test_signature_covers_the_path_and_the_query_of_the_base():
    url = Url("http", "127.0.0.1", 8080, "/proxy/", "a=1")
    given = ProviderSettings(
        name="p",
        type="aws_bedrock",
        model="m",
        url=url,
        options={"region": "eu-west-1"},
    )
    request = HttpRequest(path="x?b=2", body=b"")
    expected = sign(
        "POST",
        "/proxy/x",
        "b=2&a=1",
        (("host", "127.0.0.1:8080"),),
        b"",
        credentials=KEYS,
        scope=Scope("eu-west-1", "bedrock"),
        wall=WALL,
    )
    assert dict(expected) == signed(given, request=request)


def test_signature_covers_the_headers_of_the_config_that_it_must():
    extra = (
        ("content-type", "application/x-json"),
        ("x-amz-custom", "1"),
        ("x-other", "2"),
    )
    found = signed(settings(extra_headers=extra))
    expected = sign(
        "POST",
        "/model/amazon.nova-lite-v1%3A0/converse",
        "",
        (("host", "bedrock-runtime.us-west-2.amazonaws.com"), *extra[:2]),
        b"{}",
        credentials=KEYS,
        scope=Scope("us-west-2", "bedrock"),
        wall=WALL,
    )
    assert dict(expected) == found
    plain = signed(settings(extra_headers=(("x-other", "2"),)))
    assert plain == signed(settings())
    assert plain["authorization"] != found["authorization"]


@pytest.mark.parametrize(
    ("host", "options", "ambient", "expected"),
    [
        ("bedrock-runtime.us-west-2.amazonaws.com", {}, "eu-west-1", "us-west-2"),
        ("proxy.example.org", {}, "eu-west-1", "eu-west-1"),
        ("proxy.example.org", {"region": "ap-south-1"}, "eu-west-1", "ap-south-1"),
        (
            "vpce-1-a.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            {"region": "us-east-1"},
            "",
            "us-east-1",
        ),
    ],
)
def test_region_of_the_signature(host, options, ambient, expected):
    headers = signed(settings(host, options=options), region=ambient)
    assert scope_of(headers)[2] == expected
    assert scope_of(headers)[3:] == ["bedrock", "aws4_request"]


def test_region_that_nobody_says_is_refused():
    with pytest.raises(InvalidRequest, match="needs an AWS region"):
        signed(settings("proxy.example.org"))


def test_service_of_each_row():
    given = settings("runtime.sagemaker.us-east-1.amazonaws.com")
    assert scope_of(signed(given, row=AWS_SAGEMAKER))[3] == "sagemaker"


def test_secret_is_in_no_header():
    assert "secret" not in str(signed(settings()))


@pytest.mark.parametrize("row", ROWS, ids=["bedrock", "sagemaker"])
def test_row_keys_are_named_once(row):
    keys = (*row.required, *row.optional)
    assert len(keys) == len(set(keys))
    assert row.is_key_optional
    assert not row.has_shorthand
