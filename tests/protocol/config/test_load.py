from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.config.reading import (
    FEW,
    environment,
    model,
    problems,
    provider,
    read,
)
from tests.protocol.config.tomls import Literal, Text
from tests.protocol.purity import no_io
from tz_protocol.config.access import REDIS_LOCATION
from tz_protocol.config.document import Document
from tz_protocol.config.load import build, describe, describe_json, locations, parse
from tz_protocol.config.proxies import PROXY_LOCATIONS
from tz_protocol.config.records import CLICKHOUSE_LOCATION
from tz_protocol.errors import ConfigError
from tz_protocol.providers import PROVIDERS, by_name
from tz_protocol.providers.aws import REGION_LOCATIONS
from tz_protocol.providers.dummy import make_dummy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import GatewaySettings

GOLDEN = Path(__file__).parent / "golden"
README = Path(__file__).parents[3] / "README.md"


# -- no file --------------------------------------------------------------------


def test_build_no_file_is_shorthand_for_every_key_that_is_set():
    snapshot = read(OPENAI_API_KEY="sk-1", GROQ_API_KEY="sk-2")
    assert (snapshot.gateway, snapshot.models) == (GatewaySettings(), {})
    assert list(snapshot.shorthand) == ["openai", "groq", "ollama", "dummy"]
    assert snapshot.config_id == "default"
    assert snapshot.missing_keys["mistral"] == "MISTRAL_API_KEY"
    assert not snapshot.missing_keys.keys() & snapshot.shorthand.keys()
    groq = snapshot.shorthand["groq"]
    assert (groq.name, groq.type, groq.model) == ("groq", "groq", "")
    assert groq.credential.secret == Secret("sk-2")
    assert groq.url is not None
    assert groq.url.host == "api.groq.com"


def test_shorthand_every_type_is_there_or_says_what_would_enable_it():
    snapshot = read()
    for name, row in PROVIDERS.items():
        is_there = name in snapshot.shorthand or name in snapshot.missing_keys
        assert is_there is row.has_shorthand


def test_shorthand_with_a_file_is_the_same():
    assert read("", OPENAI_API_KEY="k").shorthand == read(OPENAI_API_KEY="k").shorthand


def test_shorthand_key_that_no_header_carries_is_a_warning():
    snapshot = read(OPENAI_API_KEY="sk-ü")
    assert snapshot.missing_keys["openai"] == "OPENAI_API_KEY"
    (warning,) = snapshot.warnings
    assert warning.startswith("openai::MODEL cannot be used: what is at env::OPENAI")
    assert "ü" not in warning


def test_shorthand_default_of_the_type_says_what_would_enable_it():
    text = """
        [provider_types.groq.defaults]
        api_key_location = "dynamic::key"
        [provider_types.openai.defaults]
        api_key_location = { default = "env::A", fallback = "path::/b" }
    """
    snapshot = read(text, A="sk")
    assert snapshot.shorthand["groq"].credential.name == "key"
    assert snapshot.shorthand["openai"].credential.location == "env::A"
    assert problems(text) == [
        (
            "5: provider_types.openai.defaults.api_key_location: the environment "
            "variable A is not set; the file /b is empty or cannot be read"
        )
    ]


# -- roots and types ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[modles.x]",
            (
                "1: modles: unknown key (did you mean models?); known here: "
                "api_keys, embedding_models, gateway, models, provider_types"
            ),
        ),
        (
            "x = 1",
            (
                "1: x: unknown key; known here: api_keys, embedding_models, gateway, "
                "models, provider_types"
            ),
        ),
        (
            '[api_keys."sk-secret".m]',
            (
                "1: api_keys: expected models with their endpoint_id: Object missing "
                "required field `endpoint_id` - at `$[...]`"
            ),
        ),
        (
            "[rate_limiting]",
            (
                "1: rate_limiting: there is no support yet for rate limiting; remove "
                "this table"
            ),
        ),
        ("provider_types = 1", "1: provider_types: expected a table, found an integer"),
        (
            "[provider_types]\nopenai = 1",
            "2: provider_types.openai: expected a table, found an integer",
        ),
        (
            "[provider_types.opnai]",
            "1: provider_types.opnai: unknown provider type (did you mean openai?)",
        ),
        (
            "[provider_types.openai]\ndefault = 1",
            (
                "2: provider_types.openai.default: unknown key (did you mean "
                "defaults?); known here: defaults"
            ),
        ),
        (
            "[provider_types.openai.defaults]\napi_key_location = 3",
            (
                "2: provider_types.openai.defaults.api_key_location: expected "
                "env::NAME, path::FILE, path_from_env::NAME, dynamic::NAME or none"
            ),
        ),
    ],
    ids=lambda value: value[:20],
)
def test_build_mistake_outside_the_models_is_one_problem(text, problem):
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            '[functions.f]\ntype = "chat"',
            (
                "functions: has no effect: there is no support yet for functions and "
                "their variants"
            ),
        ),
        ("[clickhouse]", "clickhouse: has no effect: there is no support yet for "),
        (
            "[provider_types.together.sft]",
            (
                "provider_types.together.sft: has no effect: there is no support yet "
                "for fine-tuning"
            ),
        ),
    ],
    ids=lambda value: value[:20],
)
def test_build_what_no_request_depends_on_is_a_warning(text, warning):
    (found,) = read(text).warnings
    assert found.startswith(f"gw.toml:1: {warning}")


# -- proxies --------------------------------------------------------------------


def test_build_proxy_is_chosen_for_every_origin():
    text = model(provider(type='"vllm"', api_base='"http://10.0.0.1/"'))
    proxies = {"http_proxy": "http://a", "https_proxy": "http://b"}
    snapshot = read(text, OPENAI_API_KEY="k", NO_PROXY="10.1.0.0/16", **proxies)
    assert snapshot.models["m"].providers["p"].proxy == Secret("http://a")
    assert snapshot.shorthand["openai"].proxy == Secret("http://b")
    assert snapshot.shorthand["ollama"].proxy is None
    assert snapshot.shorthand["dummy"].proxy is None


def test_build_bad_proxy_is_one_problem_without_its_value():
    text = model(provider(type='"vllm"', api_base='"http://10.0.0.1/"'))
    text += '[models.n]\nrouting = ["openai", "groq"]'
    keys = {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}
    assert problems(text, ALL_PROXY="gopher://secret", **keys) == [
        "the environment variable ALL_PROXY must hold an http, https or socks5 URL"
    ]


# -- locations ------------------------------------------------------------------


ALWAYS = (
    *PROXY_LOCATIONS,
    REDIS_LOCATION,
    CLICKHOUSE_LOCATION,
    *REGION_LOCATIONS,
)


def asked(text: str) -> set[str]:
    """Return what *text* wants resolved beyond what every configuration does."""
    usual = {row.credential for row in PROVIDERS.values()} | set(ALWAYS)
    return set(locations(parse([("a", text)]))) - usual


def test_locations_without_a_file_are_the_usual_variables():
    found = locations(parse([]))
    assert len(found) == len(set(found))
    usual = {row.credential for row in PROVIDERS.values() if row.credential}
    assert set(found) == usual | set(ALWAYS)


def test_locations_are_those_of_tables_and_types():
    text = """
        [models.m.providers]
        a = { api_key_location = "env::A" }
        b = { api_key_location = { default = "path::/b", fallback = "env::B" } }
        c = { api_key_location = "dynamic::c" }
        d = { api_key_location = "none" }
        e = { api_key_location = "sk-secret" }
        f = { api_key_location = 3 }
        h = { credential_location = "sdk" }
        [embedding_models.m.providers]
        g = { api_key_location = { path_from_env = "G" } }
        [provider_types.openai.defaults]
        api_key_location = "env::MINE"
        [provider_types.gcp_vertex_gemini.defaults]
        credential_location = "path::/gcp.json"
        [provider_types.nobody.defaults]
        api_key_location = "env::NOBODY"
    """
    assert asked(text) == {
        "path_from_env::GOOGLE_APPLICATION_CREDENTIALS",
        "path::/gcp.json",
        "env::A",
        "path::/b",
        "env::B",
        "path_from_env::G",
        "env::MINE",
    }
    assert "env::OPENAI_API_KEY" not in locations(parse([("a", text)]))


@pytest.mark.parametrize(
    "text",
    [
        "models = 3",
        "models.m = 3",
        "models.m.providers = 3",
        "models.m.providers.p = 3",
        "provider_types = 3",
        "provider_types.openai = 3",
        "provider_types.openai.defaults = 3",
        "provider_types.openai.defaults.api_key_location = 3",
    ],
)
def test_locations_of_what_is_wrong_are_none_and_build_says_why(text):
    assert asked(text) == set()
    assert problems(text)


def test_build_takes_rows_of_ones_own():
    own = make_dummy()
    rows = by_name((own,))
    document = parse([("a", model(provider()))])
    assert locations(document, rows) == ALWAYS
    snapshot = build(document, {}, providers=rows)
    assert list(snapshot.shorthand) == ["dummy"]
    with pytest.raises(ConfigError, match="unknown provider type: expected one of d"):
        build(parse([("a", model('type = "openai"'))]), {}, providers=rows)


# -- all together ---------------------------------------------------------------


def test_build_problems_are_golden():
    """One run names everything; where it changes, look whether it still helps."""
    text = (GOLDEN / "mistakes.toml").read_text(encoding="utf-8")
    document = parse([("mistakes.toml", text)])
    secrets = environment(HTTPS_PROXY="sk-secret://x", OPENAI_API_KEY="sk")
    with pytest.raises(ConfigError) as info:
        build(document, secrets, providers=FEW)
    expected = (GOLDEN / "mistakes.txt").read_text(encoding="utf-8")
    assert str(info.value) + "\n" == expected
    assert "sk-secret" not in expected
    assert "://" not in expected.replace("https://host/v1/", "")


def test_build_problems_of_several_files_are_in_their_order():
    files = ["[models.b]\nx = 1", "[models.a]\nx = 1\n[gateway]\ny = 1"]
    places = [line.split(": ")[0] for line in problems(*files)]
    assert places == ["0.toml:1", "0.toml:2", "1.toml:1", "1.toml:2", "1.toml:4"]


@pytest.mark.parametrize(
    "number", range(README.read_text(encoding="utf-8").count("```toml"))
)
def test_build_readme_examples_load(number):
    text = (
        README.read_text(encoding="utf-8")
        .split("```toml\n")[number + 1]
        .partition("```")[0]
    )
    snapshot = read(text, OPENAI_API_KEY="sk")
    assert snapshot.models
    assert snapshot.warnings == ()


def test_build_reads_nothing():
    text = model(provider(type='"openai"', api_key_location='"path::/etc/passwd"'))
    with no_io():
        document = parse([("a", text)])
        secrets = dict.fromkeys(locations(document), Secret("sk"))
        del secrets[REDIS_LOCATION], secrets[CLICKHOUSE_LOCATION]
        snapshot = build(document, secrets)
        describe(snapshot)
        describe_json(snapshot)


def test_import_of_the_core_leaves_pydantic_out():
    code = "import sys, tz_protocol.cli.arguments; print('pydantic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# -- anything -------------------------------------------------------------------

SECRET = "sk-resolved"
MARK = "sk-in-the-file"
TABLE_WORDS = (
    "gateway models embedding_models provider_types functions cost namespace routing "
    "endpoints providers timeouts limits defaults m p env path fallback default enabled"
)
ENTRY_WORDS = (
    "type model_name api_base endpoint deployment_id api_key_location extra_body "
    "extra_headers pointer name value timeout_ms total_s verify ca_file openai azure "
    "vllm auth spacing_ms location project_id endpoint_id model_id region "
    "allow_auto_detect_region endpoint_name hosted_provider credential_location "
    "on_unsupported_param warn sdk tgi eu"
)
WORDS = re.findall(r"\w+", TABLE_WORDS + " " + ENTRY_WORDS)


@st.composite
def words(draw):
    """Return one of the words; as a function it has a short name in messages."""
    return draw(st.sampled_from(WORDS))


LEAVES = st.one_of(
    st.just(MARK),
    words(),
    st.sampled_from(["chat", "none", "env::K", "dynamic::k", "http://h/"]),
    st.sampled_from([f"https://{MARK}@h/", f"env::{MARK}", f"{MARK}::x", ""]),
    st.integers(-1, 3),
    st.integers(),
    st.just(Literal("0x" + "f" * 6_000)),
    st.floats(allow_nan=False),
    st.booleans(),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(words(), inner, max_size=4),
    ),
    max_leaves=12,
)
ENTRIES = st.tuples(
    st.dictionaries(st.sampled_from(re.findall(r"\w+", ENTRY_WORDS)), TREES),
    st.fixed_dictionaries({"type": st.sampled_from(sorted(PROVIDERS))}),
).map(lambda pair: pair[0] | pair[1])
MODELS = st.fixed_dictionaries(
    {
        "routing": st.lists(st.sampled_from(["m", "p", "openai", "vllm", "dummy"])),
        "providers": st.dictionaries(st.sampled_from(["m", "p", "openai"]), ENTRIES),
    },
    optional={"endpoints": TREES, "timeouts": TREES, "timeout_ms": TREES},
)
ROOTS = st.fixed_dictionaries(
    {"models": st.dictionaries(st.sampled_from(["m", "p", "openai::x", ""]), MODELS)},
    optional={
        "gateway": TREES,
        "embedding_models": st.dictionaries(st.sampled_from(["m", "e"]), MODELS),
        "provider_types": TREES,
        "functions": TREES,
    },
)


def outcome(document: Document) -> tuple[str, str]:
    """Return what is wrong with *document*, and what it comes to if nothing is."""
    secrets = dict.fromkeys(locations(document), Secret(SECRET))
    secrets[REDIS_LOCATION] = Secret(f"redis://:{SECRET}@h")
    secrets[CLICKHOUSE_LOCATION] = Secret(f"http://u:{SECRET}@h/d")
    try:
        snapshot = build(document, secrets)
    except ConfigError as error:
        return str(error), ""
    return "", describe(snapshot) + describe_json(snapshot) + repr(snapshot)


@given(tree=st.one_of(ROOTS, st.dictionaries(words(), TREES)))
def test_build_any_tree_is_built_or_refused_without_showing_a_value(tree):
    document = parse([("a", Text(tree, lambda count: 0).text)])
    refused, built = outcome(document)
    assert MARK not in refused
    assert SECRET not in refused + built


@given(text=st.text())
@example(text="[models.m]\nrouting = ['\ud800']")
@example(text="[models.'\ud800']\nrouting = ['dummy']")
@example(text="[gateway]\nlimits.requests = " + "9" * 400)
@example(text="[gateway]\ntimeouts.idle_s = " + "9" * 400)
def test_build_any_text_raises_nothing_but_config_error(text):
    try:
        document = parse([("a", text)])
    except ConfigError:
        document = parse([])
    assert any(outcome(document))
