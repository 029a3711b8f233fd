from __future__ import annotations

import pytest

from tests.protocol.config.reading import problems, provider, read, short
from tz_protocol.config.models import ALIASES, CAPABILITIES
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.providers import PROVIDERS
from tz_protocol.types.settings import Model, Timeouts

DUMMY = '{type = "dummy", model_name = "good"}'
GROQ = '{type = "groq", model_name = "x"}'
VLLM = '{type = "vllm", model_name = "x", api_base = "http://h/v1/"}'


def table(routing: str, providers: str = "", rest: str = "", name: str = "m") -> str:
    lines = [f"[models.{name}]", f"routing = {routing}"]
    lines += [f"providers = {{{providers}}}"] if providers else []
    return "\n".join([*lines, rest, ""])


def test_models_keep_the_order_of_file_and_routing():
    text = table('["b", "dummy", "a"]', f"a = {DUMMY}, b = {DUMMY}", name="z")
    text += table('["dummy"]', name="a") + '[embedding_models.e]\nrouting = ["dummy"]'
    found = read(text).models
    assert list(found) == ["z", "a", "e"]
    assert found["z"].routing == ("b", "dummy", "a")
    assert set(found["z"].providers) == {"a", "b", "dummy"}


def test_model_names_may_hold_nearly_anything():
    names = ["gpt-4.1", "org/name", "a b", "模型", "x::y", "openai:x", "openai"]
    text = "".join(table('["dummy"]', name=f'"{name}"') for name in names)
    assert list(read(text).models) == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "openai::gpt-4o",
            (
                "the name begins with openai::, which is reserved: openai::NAME is "
                "that provider's model NAME"
            ),
        ),
        (
            "azure::x",
            (
                "the name begins with azure::, which is reserved: azure::NAME is that "
                "provider's model NAME"
            ),
        ),
        ("tensorzero::x", "the name begins with tensorzero::, which is reserved"),
        ("", "the name of a model is some text without control characters"),
        (" ", "the name of a model is some text without control characters"),
        ("a\\nb", "the name of a model is some text without control characters"),
    ],
    ids=short,
)
def test_model_name_that_is_reserved_or_none_is_refused(name, message):
    (found,) = problems(table('["dummy"]', name=f'"{name}"'))
    assert found.endswith(f'": {message}')
    assert found.startswith("1: models.")


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_model_name_every_type_is_reserved(kind):
    assert "reserved" in problems(table('["dummy"]', name=f'"{kind}::x"'))[0]


def test_model_name_in_both_sections_is_refused():
    text = table('["dummy"]') + '[embedding_models.m]\nrouting = ["dummy"]\n'
    assert problems(text) == [
        (
            "4: embedding_models.m: this name is used in both [models] and "
            "[embedding_models]"
        )
    ]


# -- routing --------------------------------------------------------------------


def test_routing_type_without_a_table_is_the_provider_with_the_models_name():
    text = table('["groq", "dummy", "ollama"]', name='"llama-3.3"')
    found = read(text, GROQ_API_KEY="sk").models["llama-3.3"]
    assert found.routing == ("groq", "dummy", "ollama")
    for name, settings in found.providers.items():
        assert (settings.name, settings.type, settings.model) == (
            name,
            name,
            "llama-3.3",
        )
    assert found.providers["groq"].credential.location == "env::GROQ_API_KEY"
    assert found.providers["ollama"].credential.kind == "none"


def test_routing_table_of_a_types_name_wins():
    found = read(table('["groq"]', f"groq = {DUMMY}")).models["m"]
    assert found.providers["groq"].type == "dummy"


@pytest.mark.parametrize(
    ("routing", "providers", "expected"),
    [
        (
            "[]",
            "",
            ["2: models.m.routing: must not be empty: name at least one provider"],
        ),
        (
            '["a", "a"]',
            f"a = {DUMMY}",
            ["2: models.m.routing[1]: duplicate entry: the same name stands before it"],
        ),
        (
            '["dummy", "dummy"]',
            "",
            ["2: models.m.routing[1]: duplicate entry: the same name stands before it"],
        ),
        (
            '["man"]',
            f"main = {DUMMY}",
            [
                (
                    "2: models.m.routing[0]: no such provider (did you mean main?): "
                    "expected a key of providers, or a provider type"
                ),
                (
                    "3: models.m.providers.main: not listed in routing, so that it "
                    "would never be tried"
                ),
            ],
        ),
        (
            '["dumy"]',
            "",
            [
                (
                    "2: models.m.routing[0]: no such provider (did you mean dummy?): "
                    "expected a key of providers, or a provider type"
                )
            ],
        ),
        (
            '["zzz", 3]',
            "",
            ["2: models.m.routing[1]: expected a string, found an integer"],
        ),
        (
            '["zzz"]',
            "",
            [
                (
                    "2: models.m.routing[0]: no such provider: expected a key of "
                    "providers, or a provider type"
                )
            ],
        ),
        (
            '["azure"]',
            "",
            [
                (
                    "2: models.m.routing[0]: azure needs deployment_id and endpoint: "
                    "add a table of this name to providers"
                )
            ],
        ),
        (
            '["groq"]',
            "",
            [
                (
                    "2: models.m.routing[0]: the environment variable GROQ_API_KEY is "
                    "not set; groq takes its key from there, unless api_key_location "
                    "says otherwise"
                )
            ],
        ),
        (
            '["tensorzero::x"]',
            f'"tensorzero::x" = {DUMMY}',
            [
                (
                    '3: models.m.providers."tensorzero::x": the name of a '
                    "provider cannot start with tensorzero::"
                )
            ],
        ),
        (
            '[""]',
            f'"" = {DUMMY}',
            [
                (
                    '3: models.m.providers."": the name of a provider is some '
                    "text without control characters"
                )
            ],
        ),
        (
            '["a"]',
            "a = 3",
            ["3: models.m.providers.a: expected a table, found an integer"],
        ),
        ('["a"]', "a = {}", None),
    ],
    ids=short,
)
def test_routing_to_nowhere_is_refused(routing, providers, expected):
    found = problems(table(routing, providers))
    if expected is None:
        assert [one.partition(": ")[0] for one in found] == ["3"]
        assert ".type: missing" in found[0]
    else:
        assert found == expected


def test_model_without_routing_still_has_its_providers_checked():
    text = "[models.m]\n[models.m.providers.p]\ntype = 'opnai'\n"
    assert problems(text) == [
        "1: models.m.routing: missing: this key is required",
        "3: models.m.providers.p.type: unknown provider type (did you mean openai?)",
    ]


@pytest.mark.parametrize("section", ["models", "embedding_models"])
def test_model_that_is_no_table_is_refused(section):
    assert problems(f"[{section}]\nm = 3") == [
        f"2: {section}.m: expected a table, found an integer"
    ]
    assert problems(f"{section} = []") == [
        f"1: {section}: expected a table, found an array"
    ]


def test_model_unknown_key_has_a_suggestion():
    assert problems(table('["dummy"]', rest='endpoint = ["chat"]')) == [
        "3: models.m.endpoint: unknown key (did you mean endpoints?)"
    ]
    assert problems(table('["dummy"]', rest='namespace = "x"')) == [
        (
            "3: models.m.namespace: restricting a model to a namespace is not "
            "supported yet; remove this key"
        )
    ]


# -- capabilities ---------------------------------------------------------------


def capabilities(endpoints: str, routing: str = '["dummy"]') -> frozenset[str]:
    text = table(routing, rest=f"endpoints = {endpoints}")
    return read(text, GROQ_API_KEY="sk").models["m"].capabilities


def test_endpoints_default_is_chat():
    assert read(table('["dummy"]')).models["m"].capabilities == {"chat"}


@pytest.mark.parametrize(
    "endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.capability
)
def test_endpoints_every_served_capability_is_a_word(endpoint):
    assert endpoint.capability in CAPABILITIES
    assert capabilities(f'["{endpoint.capability}"]') == {endpoint.capability}


@pytest.mark.parametrize(("alias", "capability"), ALIASES.items())
def test_endpoints_alias_means_the_capability(alias, capability):
    assert capabilities(f'["{alias}", "{capability}"]') == {capability}


def test_endpoints_one_provider_that_can_is_enough():
    assert "embedding" in capabilities('["chat", "embedding"]', '["groq", "dummy"]')


UNBUILT = sorted(
    set(CAPABILITIES).difference(*(row.dialects for row in PROVIDERS.values()))
)


@pytest.mark.parametrize("capability", UNBUILT)
def test_endpoints_word_that_nobody_speaks_yet_is_a_warning(capability):
    text = table('["dummy"]', rest=f'endpoints = ["chat", "{capability}"]')
    found = read(text)
    assert found.models["m"].capabilities == {"chat"}
    assert found.warnings == (
        (
            "gw.toml:3: models.m.endpoints[1]: has no effect: there is no support yet "
            f"for the capability {capability}"
        ),
    )


@pytest.mark.parametrize(
    ("endpoints", "problem"),
    [
        (
            "[]",
            "3: models.m.endpoints: must not be empty: name a capability such as chat",
        ),
        (
            '["chta"]',
            "3: models.m.endpoints[0]: unknown capability (did you mean chat?)",
        ),
        (
            '["xyzzy"]',
            "3: models.m.endpoints[0]: unknown capability: expected one of "
            + ", ".join(CAPABILITIES),
        ),
        ('"chat"', "3: models.m.endpoints: expected an array, found a string"),
        ("[1]", "3: models.m.endpoints[0]: expected a string, found an integer"),
    ],
    ids=short,
)
def test_endpoints_mistake_is_refused(endpoints, problem):
    assert problems(table('["dummy"]', rest=f"endpoints = {endpoints}")) == [problem]


def test_endpoints_that_no_provider_of_the_model_has_names_them():
    text = table('["a", "groq"]', f"a = {GROQ}", 'endpoints = ["chat", "moderation"]')
    able = ", ".join(
        row.name for row in PROVIDERS.values() if "moderation" in row.dialects
    )
    assert problems(text, GROQ_API_KEY="sk") == [
        (
            "4: models.m.endpoints[1]: no provider of this model supports moderation: "
            f"a (type groq), groq; types that do: {able}"
        )
    ]


def test_endpoints_are_not_judged_while_a_type_is_unknown():
    text = table('["a"]', 'a = {type = "x"}', 'endpoints = ["moderation"]')
    assert len(problems(text)) == 1


# -- [embedding_models] ---------------------------------------------------------


def test_embedding_model_is_a_model_with_one_capability():
    text = f'[embedding_models.e]\nrouting = ["v"]\nproviders.v = {VLLM}\n'
    text += "timeout_ms = 1500"
    found = read(text).models["e"]
    assert found == Model(
        name="e",
        capabilities=frozenset({"embedding"}),
        routing=("v",),
        providers=found.providers,
        timeouts=Timeouts(total=1.5, stream_total=1.5),
    )


def test_embedding_model_whose_provider_has_no_embeddings_is_refused():
    text = f'[embedding_models.e]\nrouting = ["g"]\nproviders.g = {GROQ}'
    (found,) = problems(text, GROQ_API_KEY="sk")
    assert found.startswith(
        "1: embedding_models.e: no provider of this model supports embedding: g (type "
        "groq); types that do: openai, "
    )


def test_embedding_model_has_no_endpoints():
    text = '[embedding_models.e]\nrouting = ["dummy"]\nendpoints = ["embedding"]'
    (found,) = problems(text)
    assert found.startswith("3: embedding_models.e.endpoints: unknown key")


def test_models_spread_over_files_are_one():
    files = table('["p"]'), f"[models.m.providers.p]\n{provider()}", "\n[models.n]"
    assert problems(*files) == [
        "2.toml:2: models.n.routing: missing: this key is required"
    ]
    assert list(read(*files[:2]).models["m"].providers) == ["p"]
