"""The keys that only some vendors have, and what is asked of every vendor alike."""

from __future__ import annotations

import pytest

from tests.protocol.config.reading import model, problems, read
from tz_protocol.config.load import build, parse
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.google_tokens import MACHINE
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Credential, Url

VERTEX = {"type": "gcp_vertex_gemini", "location": "us-central1", "project_id": "p-1"}
BEDROCK = {"type": "aws_bedrock", "model_id": "amazon.nova-lite-v1:0"}
SAGEMAKER = {
    "type": "aws_sagemaker",
    "endpoint_name": "mine",
    "model_name": "llama",
    "hosted_provider": "tgi",
}
EAST = {"region": "us-east-1"}
OPENAI = {"type": "openai", "model_name": "gpt"}
STUDIO = {"type": "google_ai_studio_gemini", "model_name": "gemini-2.5-flash"}
ENV = {"api_key_location": "env::K"}
TABLE = "models.m.providers.p"

ACCOUNT = """{
  "type": "service_account",
  "client_email": "a@b",
  "private_key": "canary"
}"""


def written(values, capability="chat", more=""):
    """Return a model with one provider that has *values*; None leaves a key out."""
    lines = [f"{key} = {told(value)}" for key, value in values.items() if value != ()]
    return (
        f'[models.m]\nrouting = ["p"]\nendpoints = ["{capability}"]\n{more}\n'
        f"[{TABLE}]\n" + "\n".join(lines) + "\n"
    )


def told(value):
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {told(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    return str(value).lower() if isinstance(value, (bool, int)) else f'"{value}"'


def found(values, capability="chat", **variables):
    """Return the provider that *values* describe."""
    snapshot = read(written(values, capability), **variables)
    return snapshot.models["m"].providers["p"]


def wrong(values, **variables):
    """Return what is wrong with them, without the line."""
    lines = problems(written(values), **variables)
    return [one.partition(f": {TABLE}")[2].removeprefix(".") for one in lines]


# -- every vendor ---------------------------------------------------------------

WORDS = {
    "api_base": "http://h/v1/",
    "endpoint": "http://h/",
    "hosted_provider": "openai",
    "region": "eu-west-1",
}


def minimal(row):
    """Return the least that an entry of *row* must say."""
    wanted = {key: WORDS.get(key, "x") for key in row.required}
    if "region" in row.optional:
        wanted["region"] = WORDS["region"]
    return {"type": row.name, **wanted}


def secrets_of(row):
    return {row.credential: Secret("sk")} if row.credential else {}


def settings_of(row, values):
    """Return what *values* come to where the vendor's usual key is set."""
    document = parse([("a", written(values, next(iter(row.dialects))))])
    return build(document, secrets_of(row)).models["m"].providers["p"]


ROWS = pytest.mark.parametrize("row", PROVIDERS.values(), ids=lambda row: row.name)


@ROWS
def test_vendor_with_the_least_that_it_needs_is_configured(row):
    settings = settings_of(row, minimal(row))
    assert settings.type == row.name
    assert (settings.url is None) is (row.responder is not None)
    assert settings.credential.kind == ("static" if row.credential else "none")


@ROWS
def test_vendor_at_another_address_is_asked_there(row):
    key = "endpoint" if "endpoint" in row.required else "api_base"
    values = {**minimal(row), key: "http://proxy.test:81/x?y=1"}
    if row.responder is not None:
        (problem,) = problems(written(values))
        assert f"{key}: unknown key for type {row.name}" in problem
        return
    # a region is needed for the URL that is not used now, and for nothing else
    values.pop("region", None)
    url = settings_of(row, values).url
    assert url == Url("http", "proxy.test", 81, "/x/", "y=1")


@ROWS
@pytest.mark.parametrize("policy", ["error", "warn", "drop"])
def test_vendor_may_say_what_becomes_of_losses(row, policy):
    values = {**minimal(row), "on_unsupported_param": policy}
    assert settings_of(row, values).options["on_unsupported_param"] == policy


@ROWS
def test_vendor_says_nothing_of_losses_by_default(row):
    assert "on_unsupported_param" not in settings_of(row, minimal(row)).options


def test_losses_of_all_providers_are_told_by_the_gateway_and_overridden_by_one():
    gateway = '[gateway]\non_unsupported_param = "drop"\n'
    entry = 'type = "dummy"\nmodel_name = "good"\n'
    one = read(gateway + model(entry)).models["m"].providers["p"]
    assert one.options["on_unsupported_param"] == "drop"
    entry += 'on_unsupported_param = "error"\n'
    one = read(gateway + model(entry)).models["m"].providers["p"]
    assert one.options["on_unsupported_param"] == "error"
    (problem,) = problems(gateway.replace("drop", "dorp"))
    assert problem == (
        "2: gateway.on_unsupported_param: expected 'error', 'warn' or 'drop' (did you "
        "mean drop?)"
    )


# -- addresses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (STUDIO, "generativelanguage.googleapis.com"),
        (VERTEX, "us-central1-aiplatform.googleapis.com"),
        ({**VERTEX, "location": "global"}, "aiplatform.googleapis.com"),
        (
            {**VERTEX, "type": "gcp_vertex_anthropic", "location": "eu"},
            "aiplatform.eu.rep.googleapis.com",
        ),
        ({**BEDROCK, **EAST}, "bedrock-runtime.us-east-1.amazonaws.com"),
        ({**SAGEMAKER, **EAST}, "runtime.sagemaker.us-east-1.amazonaws.com"),
        (
            {**BEDROCK, "region": "cn-north-1"},
            "bedrock-runtime.cn-north-1.amazonaws.com.cn",
        ),
        ({"type": "cohere", "model_name": "command-a"}, "api.cohere.com"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_address_follows_from_the_table(values, host):
    url = found({**values, **ENV}, K="k").url
    assert (url.scheme, url.host, url.port) == ("https", host, 443)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-2"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-east-2"}, "us-east-2"),
    ],
    ids=["first", "second"],
)
def test_region_is_detected_where_that_is_allowed(variables, region):
    settings = found({**BEDROCK, "allow_auto_detect_region": True}, **variables)
    assert settings.url.host == f"bedrock-runtime.{region}.amazonaws.com"
    assert settings.options["region"] == region


def test_region_of_the_table_counts_before_the_detected_one():
    values = {**BEDROCK, **EAST, "allow_auto_detect_region": True}
    assert found(values, AWS_REGION="eu-west-1").options["region"] == "us-east-1"


SAFE = "expected letters, digits, hyphens, dots and underscores only"
LOCATION = "expected a location of Google's, such as us-central1, eu or global"
REGION = "expected the name of an AWS region, such as us-east-1"
MISSING = "region: missing: give the region, or allow_auto_detect_region = true"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({**BEDROCK}, MISSING),
        ({**SAGEMAKER}, MISSING),
        ({**BEDROCK, "region": ""}, MISSING),
        ({**BEDROCK, "allow_auto_detect_region": False}, MISSING),
        (
            {**BEDROCK, "allow_auto_detect_region": True},
            (
                "region: the environment variable AWS_REGION is not set; the "
                "environment variable AWS_DEFAULT_REGION is not set: there is no "
                "region to detect"
            ),
        ),
        (
            {**BEDROCK, **EAST, "allow_auto_detect_region": "true"},
            "allow_auto_detect_region: expected true or false, found a string",
        ),
        ({**BEDROCK, "region": "nowhere"}, f"region: {REGION}"),
        ({**BEDROCK, "region": "US-EAST-1"}, f"region: {REGION}"),
        ({**BEDROCK, "region": 3}, f"region: {REGION}"),
        ({**BEDROCK, "region": "us-east-1/x"}, f"region: {SAFE}"),
        ({**BEDROCK, "region": {}}, "region: expected a string, found a table"),
        (
            {**BEDROCK, **EAST, "model_id": ""},
            "model_id: expected some text, found none",
        ),
        (
            {**BEDROCK, **EAST, "model_name": "x"},
            "model_name: unknown key for type aws_bedrock (did you mean model_id?)",
        ),
        (
            {**SAGEMAKER, **EAST, "hosted_provider": "vllm"},
            "hosted_provider: expected openai or tgi",
        ),
        ({**SAGEMAKER, **EAST, "endpoint_name": ".."}, f"endpoint_name: {SAFE}"),
        (
            {**SAGEMAKER, **EAST, "hosted_provider": ()},
            "hosted_provider: missing: a provider of type aws_sagemaker needs this key",
        ),
        ({**VERTEX, **ENV, "location": "a/b"}, f"location: {SAFE}"),
        ({**VERTEX, **ENV, "location": "é"}, f"location: {SAFE}"),
        ({**VERTEX, **ENV, "location": "a..b"}, f"location: {LOCATION}"),
        ({**VERTEX, **ENV, "location": ""}, "location: expected some text, found none"),
        (
            {**VERTEX, **ENV, "location": ()},
            "location: missing: a provider of type gcp_vertex_gemini needs this key",
        ),
        ({**VERTEX, **ENV, "project_id": "p/../q"}, f"project_id: {SAFE}"),
        ({**VERTEX, **ENV, "endpoint_id": "1/2"}, f"endpoint_id: {SAFE}"),
        (
            {**VERTEX, **ENV, "on_unsupported_param": "warm"},
            (
                "on_unsupported_param: expected 'error', 'warn' or 'drop' (did you "
                "mean warn?)"
            ),
        ),
        (
            {**BEDROCK, **EAST, "on_unsupported_param": 3},
            "on_unsupported_param: expected 'error', 'warn' or 'drop'",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else value["type"],
)
def test_mistake_of_one_key_is_one_clear_problem(values, problem):
    (one,) = wrong(values, K="k")
    assert one.startswith(problem)


def test_region_that_was_detected_and_is_none_is_a_problem_without_the_value():
    values = {**BEDROCK, "allow_auto_detect_region": True}
    assert wrong(values, AWS_REGION="canary") == [f"region: {REGION}"]


# -- the model ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({**VERTEX, "model_name": "a"}, "a"),
        ({**VERTEX, "model_id": "b"}, "b"),
        ({**VERTEX, "endpoint_id": "7"}, "7"),
        ({**VERTEX, "model_name": "a", "endpoint_id": "7"}, "a"),
        (VERTEX, "m"),
        ({**BEDROCK, **EAST}, "amazon.nova-lite-v1:0"),
        ({**SAGEMAKER, **EAST}, "llama"),
    ],
    ids=["name", "id", "endpoint", "both", "none", "bedrock", "sagemaker"],
)
def test_model_is_named_by_whichever_key_the_vendor_has(values, name):
    assert found({**values, **ENV}, K="k").model == name


# -- keys -----------------------------------------------------------------------

NO_KEY = Credential("none", location="none (signed with the process's own credentials)")
SDK = {"api_key_location": "sdk"}
EITHER = {"api_key_location": {"default": "env::K", "fallback": "sdk"}}
APPLICATION = "path_from_env::GOOGLE_APPLICATION_CREDENTIALS"


def credential(values, secrets):
    document = parse([("a", written(values))])
    return build(document, secrets).models["m"].providers["p"].credential


@pytest.mark.parametrize("key", ["api_key_location", "credential_location"])
def test_sdk_at_google_is_the_file_of_its_libraries_or_the_machine(key):
    values = {**VERTEX, key: "sdk"}
    found = credential(values, {APPLICATION: Secret(ACCOUNT)})
    assert found.location == APPLICATION
    assert found.secret.reveal().startswith('{"type":"service_account"')
    found = credential(values, {})
    assert (found.secret, found.location) == (MACHINE, "sdk::machine")


@pytest.mark.parametrize(
    ("values", "secrets", "expected"),
    [
        (SDK, {"env::AWS_BEARER_TOKEN_BEDROCK": Secret("k")}, NO_KEY),
        ({"api_key_location": "none"}, {}, NO_KEY),
        ({}, {}, NO_KEY),
        (
            {},
            {"env::AWS_BEARER_TOKEN_BEDROCK": Secret("k")},
            Credential("static", Secret("k"), location="env::AWS_BEARER_TOKEN_BEDROCK"),
        ),
        (
            EITHER,
            {"env::K": Secret("k")},
            Credential("static", Secret("k"), location="env::K"),
        ),
        (EITHER, {APPLICATION: Secret(ACCOUNT)}, NO_KEY),
    ],
    ids=["sdk", "none", "nothing", "usual", "first", "second"],
)
def test_requests_to_aws_are_signed_unless_there_is_a_key(values, secrets, expected):
    assert credential({**BEDROCK, **EAST, **values}, secrets) == expected


@pytest.mark.parametrize("values", [OPENAI, STUDIO], ids=lambda one: one["type"])
def test_sdk_is_for_vendors_whose_libraries_know_who_asks(values):
    (problem,) = wrong({**values, **SDK})
    assert problem.startswith("api_key_location: sdk is for cloud vendors; use env::")


def test_credential_location_is_another_word_for_the_same_key():
    values = {**VERTEX, "credential_location": "env::K"}
    assert found(values, K="k").credential == Credential(
        "static", Secret("k"), location="env::K"
    )
    assert wrong({**VERTEX, "credential_location": "env::K"}) == [
        "credential_location: the environment variable K is not set"
    ]
    assert wrong({**values, **ENV}, K="k") == [
        "credential_location: says the same as api_key_location: give only one"
    ]
    (problem,) = wrong({**OPENAI, **ENV, "credential_location": "env::K"}, K="k")
    assert problem.startswith("credential_location: unknown key for type openai")


def test_credential_location_of_the_type_is_another_word_too():
    table = "[provider_types.gcp_vertex_gemini.defaults]\n"
    place = "provider_types.gcp_vertex_gemini.defaults.credential_location"
    text = written(VERTEX) + table + 'credential_location = "env::K"\n'
    assert read(text, K="k").models["m"].providers["p"].credential.location == "env::K"
    (problem,) = problems(text)
    assert problem == f"10: {place}: the environment variable K is not set"
    text += 'api_key_location = "env::K"\n'
    (problem,) = problems(text, K="k")
    assert problem == (f"10: {place}: says the same as api_key_location: give only one")


def test_key_of_a_service_account_may_have_many_lines():
    usual = {"path_from_env::GCP_VERTEX_CREDENTIALS_PATH": Secret(ACCOUNT)}
    secret = credential(VERTEX, usual).secret
    assert "\n" not in secret.reveal()
    grant = PROVIDERS["gcp_vertex_gemini"].grant
    assert grant is not None
    assert grant(secret).kind == "service_account"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"private_key": "canary"', "is not the JSON of a credential"),
        (
            '{"type": "service_account", "private_key": "canary"}',
            "a credential of type service_account needs client_email",
        ),
        (
            '{"type": "external_account", "private_key": "canary"}',
            "its type must be service_account or authorized_user",
        ),
        ('{"private_key":\n"canary"', "a character that no HTTP header can carry"),
    ],
    ids=["cut", "part", "type", "lines"],
)
def test_key_that_is_no_credential_is_told_before_it_is_used(text, reason):
    (problem,) = wrong({**VERTEX, **ENV}, K=text)
    assert problem.startswith("api_key_location: ")
    assert reason in problem
    assert "env::K" in problem
    assert "canary" not in problem


def test_key_of_vertex_that_is_not_set_names_the_variable_of_the_file():
    (problem,) = wrong(VERTEX)
    assert problem.startswith(
        ": the environment variable GCP_VERTEX_CREDENTIALS_PATH is not set, or the file"
    )
