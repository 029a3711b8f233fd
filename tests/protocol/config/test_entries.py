from __future__ import annotations

import dataclasses

import pytest

from tests.protocol.config.reading import entry, model, problems, provider, read, short
from tz_protocol.config.load import build, parse
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.dummy import make_dummy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Credential, ProviderSettings, Timeouts, Url

KEY = {"OPENAI_API_KEY": "sk-1"}
OPENAI = {"type": '"openai"', "model_name": '"gpt"'}
AZURE = {
    "type": '"azure"',
    "model_name": "",
    "deployment_id": '"dep-1"',
    "endpoint": '"https://me.openai.azure.com"',
    "api_key_location": '"env::K"',
}
VLLM = {"type": '"vllm"', "api_base": '"http://h:8000/v1"'}


def wrong(**changes: str) -> list[str]:
    """Return the problems of one entry, without their common place."""
    found = problems(model(provider(**changes)), **KEY)
    assert all("models.m.providers.p" in problem for problem in found)
    return [one.partition("models.m.providers.p")[2].lstrip(".: ") for one in found]


def test_entry_has_everything_that_its_table_says():
    text = provider(
        **OPENAI,
        api_base='"https://proxy.example/v1?x=1"',
        api_key_location='"env::K"',
        extra_headers='[{name = "X-A", value = "b"}]',
        timeouts="{idle_s = 1}",
        ca_file='"/ca.pem"',
    )
    assert entry(text, K="sk-2", https_proxy="http://u:pa@p:1") == ProviderSettings(
        name="p",
        type="openai",
        model="gpt",
        url=Url("https", "proxy.example", 443, "/v1/", "x=1"),
        credential=Credential("static", Secret("sk-2"), location="env::K"),
        extra_headers=(("x-a", "b"),),
        timeouts=Timeouts(idle=1.0),
        ca_file="/ca.pem",
        proxy=Secret("http://u:pa@p:1"),
    )


def test_entry_without_more_has_the_vendors_defaults():
    found = entry(provider(**OPENAI), **KEY)
    assert found == ProviderSettings(
        name="p",
        type="openai",
        model="gpt",
        url=Url("https", "api.openai.com", 443, "/v1/"),
        credential=Credential("static", Secret("sk-1"), location="env::OPENAI_API_KEY"),
    )


def test_entry_azure_has_an_endpoint_and_a_deployment():
    found = entry(provider(**AZURE, api_version='"2025-01-01-preview"'), K="sk")
    assert found.url == Url("https", "me.openai.azure.com", 443, "/")
    assert found.model == "dep-1"
    assert found.options == {
        "deployment_id": "dep-1",
        "api_version": "2025-01-01-preview",
    }


def test_entry_of_a_server_with_one_model_takes_the_models_name():
    text = provider(type='"tgi"', model_name="", api_base='"http://h/v1/"')
    assert entry(text).model == "m"


HUGE = "0x" + "f" * 6_000
"""More than Python writes in decimal digits."""


@pytest.mark.parametrize(
    ("value", "text"), [("5", "5"), ("2.5", "2.5"), ("0", "0")], ids=short
)
def test_entry_option_is_text_as_written(value, text):
    assert entry(provider(spacing_ms=value)).options == {"spacing_ms": text}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"type": ""},
            f"type: missing: this key is required, one of {', '.join(PROVIDERS)}",
        ),
        ({"type": "3"}, "type: expected a string, found an integer"),
        (
            {"type": '"opneai"'},
            "type: unknown provider type (did you mean openai?)",
        ),
        (
            {"type": '"zzz"'},
            "type: unknown provider type: expected one of " + ", ".join(PROVIDERS),
        ),
        (
            {"model_name": ""},
            "model_name: missing: a provider of type dummy needs this key",
        ),
        ({"model_name": '""'}, "model_name: expected some text, found none"),
        ({"model_name": "3"}, "model_name: expected a string, found an integer"),
        (
            {**VLLM, "api_base": ""},
            "api_base: missing: a provider of type vllm needs this key",
        ),
        (
            {**OPENAI, "api_baze": '"x"'},
            (
                "api_baze: unknown key for type openai (did you mean api_base?); its "
                "own keys are model_name, api_base"
            ),
        ),
        (
            {"api_base": '"http://h/"'},
            (
                "api_base: unknown key for type dummy; its own keys are model_name, "
                "spacing_ms"
            ),
        ),
        (
            {**OPENAI, "api_base": '"https://user:sk-secret@h/"'},
            (
                "api_base: a URL here must not hold a user name or password; give the "
                "key with api_key_location"
            ),
        ),
        (
            {**OPENAI, "provider_tools": "[{}]"},
            (
                "provider_tools: tools that run at the provider is not supported yet; "
                "remove this key"
            ),
        ),
        (
            {**OPENAI, "api_type": '"responses"'},
            (
                "api_type: choosing the provider's API is not supported yet; remove "
                "this key"
            ),
        ),
        (
            {"discard_unknown_chunks": "true"},
            (
                "discard_unknown_chunks: discarding unknown chunks is not supported "
                "yet; set this to false or remove it"
            ),
        ),
        ({"spacing_ms": '"5"'}, "spacing_ms: expected a number, found a string"),
        ({"spacing_ms": "true"}, "spacing_ms: expected a number, found a boolean"),
        ({"spacing_ms": "-1"}, "spacing_ms: expected a number of at least 0"),
        ({"spacing_ms": "nan"}, "spacing_ms: expected a number of at least 0"),
        ({"spacing_ms": "inf"}, "spacing_ms: expected a number of at most 31536000000"),
        ({"spacing_ms": HUGE}, "spacing_ms: expected a number of at most 31536000000"),
        (
            {"verify": "false", "ca_file": '"x"'},
            "ca_file: has no effect while verify is false: give only one of the two",
        ),
        ({"ca_file": '""'}, "ca_file: expected some text, found none"),
        ({"verify": '"no"'}, "verify: expected true or false, found a string"),
        ({"timeouts.idel_ms": "1"}, "timeouts.idel_ms: unknown key (did you mean"),
        (
            {"timeout_ms": "1", "timeout_s": "1"},
            "timeout_ms: set in seconds too: give timeout_ms or timeout_s, not both",
        ),
        (
            {"timeout_s": "1", "timeouts.total_s": "1"},
            "timeout_s: says the same as timeouts.total_ms: give only one",
        ),
        (
            {"timeout_ms": "1", "timeouts.non_streaming.total_ms": "1"},
            "timeout_ms: says the same as timeouts.total_ms: give only one",
        ),
    ],
    ids=short,
)
def test_entry_mistake_is_one_clear_problem(changes, problem):
    (found,) = wrong(**changes)
    assert found.startswith(problem)
    assert "sk-secret" not in found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[]", "expected a string, found an array"),
        ("{}", "expected a string, found a table"),
        ("1979-05-27", "expected a string, found a date"),
        (HUGE, "expected a number of at most 9007199254740992"),
        ("nan", "expected a number of at most 9007199254740992"),
    ],
    ids=short,
)
def test_entry_option_that_is_no_text_is_refused(value, reason):
    found = problems(model(provider(**{**AZURE, "api_version": value})), K="k")
    assert [one.partition("api_version: ")[2] for one in found] == [reason]


@pytest.mark.parametrize(
    ("value", "text"), [("true", "true"), ("false", "false"), ("7", "7")]
)
def test_entry_option_of_another_kind_is_said_as_text(value, text):
    found = entry(provider(**{**AZURE, "api_version": value}), K="k")
    assert found.options["api_version"] == text


@pytest.mark.parametrize("text", ["a/b", ".", "..", "a b", "..?x", "é", "%41"])
def test_entry_option_that_becomes_a_path_cannot_leave_it(text):
    found = problems(model(provider(**{**AZURE, "deployment_id": f'"{text}"'})), K="k")
    assert [one.partition("deployment_id: ")[2] for one in found] == [
        "expected letters, digits, hyphens, dots and underscores only"
    ]


def test_entry_mistakes_do_not_hide_others():
    found = wrong(
        type='"groq"',
        model_name="3",
        api_base='"x"',
        verify="1",
        frobnicate="1",
        extra_body='[{pointer = "", value = 1}]',
        timeouts="{idle_s = 0}",
    )
    assert sorted(one.partition(": ")[0] for one in found) == [
        "api_base",
        "extra_body[0].pointer",
        "frobnicate",
        "model_name",
        (
            "the environment variable GROQ_API_KEY is not set; groq takes its key from "
            "there, unless api_key_location says otherwise"
        ),
        "timeouts.idle_s",
        "verify",
    ]


def test_entry_timeout_is_for_whole_answers_and_streams():
    found = entry(provider(timeout_ms="1500"))
    assert found.timeouts == Timeouts(total=1.5, stream_total=1.5)


def test_entry_timeout_past_the_global_cap_is_refused():
    cap = "[gateway]\nglobal_outbound_http_timeout_ms = 60_000\n"
    assert problems(cap + model(provider(**{"timeouts.total_s": "61"}))) == [
        (
            "8: models.m.providers.p.timeouts: longer than "
            "gateway.global_outbound_http_timeout_ms (60000) allows"
        )
    ]
    assert read(cap + model(provider(**{"timeouts.total_s": "60"}))).models


# -- keys -----------------------------------------------------------------------

OWN_SERVER = {**OPENAI, "api_base": '"http://10.0.0.1/v1/"'}


@pytest.mark.parametrize(
    ("changes", "variables", "credential"),
    [
        (
            {**OPENAI, "api_key_location": '{ env = "K" }'},
            {"K": "sk"},
            Credential("static", Secret("sk"), location="env::K"),
        ),
        (
            {**OPENAI, "api_key_location": '{default = "env::A", fallback = "env::B"}'},
            {"B": "sk"},
            Credential("static", Secret("sk"), location="env::B"),
        ),
        (
            {**OPENAI, "api_key_location": '"dynamic::key"'},
            {},
            Credential("dynamic", name="key", location="dynamic::key"),
        ),
        (
            {**OWN_SERVER, "api_key_location": '"none"'},
            {},
            Credential("none", location="none"),
        ),
        (
            {**VLLM, "api_key_location": '"none"'},
            {"VLLM_API_KEY": "sk"},
            Credential("none", location="none"),
        ),
        (VLLM, {}, Credential("none", location="none")),
        (
            VLLM,
            {"VLLM_API_KEY": "sk"},
            Credential("static", Secret("sk"), location="env::VLLM_API_KEY"),
        ),
        ({"type": '"ollama"'}, {}, Credential("none", location="none")),
        (
            {"api_key_location": '"env::K"'},
            {"K": "good_key"},
            Credential("static", Secret("good_key"), location="env::K"),
        ),
    ],
    ids=short,
)
def test_key_is_what_the_table_says(changes, variables, credential):
    assert entry(provider(**changes), **variables).credential == credential


@pytest.mark.parametrize(
    ("changes", "variables", "problem"),
    [
        (
            OPENAI,
            {},
            (
                "3: models.m.providers.p: the environment variable OPENAI_API_KEY is "
                "not set; openai takes its key from there, unless api_key_location "
                "says otherwise"
            ),
        ),
        (
            {**OPENAI, "api_key_location": '"env::K"'},
            {"OPENAI_API_KEY": "sk"},
            (
                "6: models.m.providers.p.api_key_location: the environment variable K "
                "is not set"
            ),
        ),
        (
            {**VLLM, "api_key_location": '"env::K"'},
            {"VLLM_API_KEY": "sk"},
            (
                "7: models.m.providers.p.api_key_location: the environment variable K "
                "is not set"
            ),
        ),
        (
            VLLM,
            {"VLLM_API_KEY": "sk-ü"},
            (
                "3: models.m.providers.p: what is at env::VLLM_API_KEY holds a "
                "character that no HTTP header can carry (a line break or something "
                "that is not ASCII); vllm takes its key from there, unless "
                "api_key_location says otherwise"
            ),
        ),
        (
            {**OPENAI, "api_key_location": '"sk-secret"'},
            {},
            (
                "6: models.m.providers.p.api_key_location: expected env::NAME, "
                "path::FILE, path_from_env::NAME, dynamic::NAME or none; a key itself "
                "does not belong in the file: put it into an environment variable and "
                "write env::NAME"
            ),
        ),
        (
            {**OPENAI, "api_key_location": '"none"'},
            {"OPENAI_API_KEY": "sk"},
            (
                "6: models.m.providers.p.api_key_location: openai answers nobody "
                "without a key; none is for servers of your own, at an api_base"
            ),
        ),
    ],
    ids=short,
)
def test_key_that_is_not_there_is_refused_at_its_place(changes, variables, problem):
    assert problems(model(provider(**changes)), **variables) == [problem]


DEFAULTS = '[provider_types.openai.defaults]\napi_key_location = "env::MINE"\n'


def test_key_default_of_the_type_is_for_tables_shorthand_and_routing():
    text = model(provider(**OPENAI)) + '[models.n]\nrouting = ["openai"]\n' + DEFAULTS
    found = read(text, MINE="sk")
    credential = Credential("static", Secret("sk"), location="env::MINE")
    assert found.models["m"].providers["p"].credential == credential
    assert found.models["n"].providers["openai"].credential == credential
    assert found.shorthand["openai"].credential == credential


def test_key_default_of_the_type_that_is_not_there_is_one_problem():
    assert problems(model(provider(**OPENAI)) + DEFAULTS, **KEY) == [
        (
            "7: provider_types.openai.defaults.api_key_location: the environment "
            "variable MINE is not set"
        )
    ]


def test_key_default_of_the_type_is_no_longer_optional():
    text = model(provider(**VLLM)) + DEFAULTS.replace("openai", "vllm")
    assert problems(text) == [
        (
            "8: provider_types.vllm.defaults.api_key_location: the environment "
            "variable MINE is not set"
        )
    ]


def test_key_default_of_none_is_for_servers_of_ones_own():
    none = DEFAULTS.replace("env::MINE", "none")
    assert entry(provider(**OWN_SERVER) + "\n" + none).credential.kind == "none"
    found = read(none, **KEY)
    assert "openai" not in found.shorthand
    assert "openai" not in found.missing_keys


# -- what has no effect -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"batch_cost": "[]"},
            "batch_cost: has no effect: there is no support yet for the price",
        ),
        (
            {"parse_think_blocks": "true"},
            (
                "parse_think_blocks: has no effect: there is no support yet for taking "
                "thoughts out of the text"
            ),
        ),
    ],
    ids=short,
)
def test_entry_key_that_changes_no_request_is_a_warning(changes, warning):
    (found,) = read(model(provider(**changes))).warnings
    assert found.startswith(f"gw.toml:6: models.m.providers.p.{warning}")


def test_entry_key_that_its_row_has_has_an_effect():
    row = dataclasses.replace(make_dummy(), optional=("parse_think_blocks",))
    document = parse([("a", model(provider(parse_think_blocks="true")))])
    snapshot = build(document, {}, providers={"dummy": row})
    assert snapshot.models["m"].providers["p"].options == {"parse_think_blocks": "true"}
    assert snapshot.warnings == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"parse_think_blocks": "false"},
        {"api_type": '"chat_completions"'},
        {"include_encrypted_reasoning": "false"},
        {"provider_tools": "[]"},
        {"discard_unknown_chunks": "false"},
    ],
    ids=short,
)
def test_entry_key_that_asks_for_what_is_done_is_taken(changes):
    assert read(model(provider(**changes))).warnings == ()
