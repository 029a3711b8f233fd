from __future__ import annotations

from dataclasses import replace
from string import Formatter

import pytest

from tz_protocol.dialects.azure_moderations import AZURE_MODERATIONS
from tz_protocol.dialects.mistral_moderations import MISTRAL_MODERATIONS
from tz_protocol.dialects.openai_audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTION
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.providers import PROVIDERS, ROWS, by_name
from tz_protocol.providers.openai_family import OPENAI_FAMILY
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.secret import Secret

DIALECTS = {
    "chat": OPENAI_CHAT,
    "embedding": OPENAI_EMBEDDINGS,
    "moderation": OPENAI_MODERATIONS,
    "audio_transcription": OPENAI_TRANSCRIPTION,
    "audio_speech": OPENAI_SPEECH,
}

PATHS = ("chat/completions", "embeddings", "audio/transcriptions", "audio/speech")


def rows(values):
    return pytest.mark.parametrize("row", values, ids=[row.name for row in values])


def test_providers_are_the_rows_by_name_in_order():
    assert list(PROVIDERS.values()) == list(ROWS)
    assert (ROWS[0].name, ROWS[-1].name) == ("openai", "dummy")


def test_by_name_with_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="two providers have the name openai"):
        by_name((ROWS[0], ROWS[1], ROWS[0]))


@rows(OPENAI_FAMILY)
def test_row_of_the_family_speaks_openais_dialects(row):
    assert "chat" in row.dialects
    foreign = {
        "mistral": {"moderation": MISTRAL_MODERATIONS},
        "azure": {"moderation": AZURE_MODERATIONS},
    }.get(row.name, {})
    expected = {**DIALECTS, **foreign}
    assert all(expected[name] is row.dialects[name] for name in row.dialects)


@rows(ROWS)
def test_row_keys_are_named_once(row):
    keys = (*row.required, *row.optional)
    assert len(keys) == len(set(keys))


@rows(OPENAI_FAMILY)
def test_row_address_is_a_folder_or_asked_for(row):
    if row.base_url is None:
        assert {"api_base", "endpoint"} & set(row.required)
        assert not row.has_shorthand
    else:
        assert row.base_url.startswith(("https://", "http://127.0.0.1"))
        assert row.base_url.endswith("/")
        assert "api_base" in row.optional


@rows(OPENAI_FAMILY)
def test_row_without_key_sends_no_header(row):
    assert row.authorize(HttpRequest(path="x"), None, 0.0) == ()


@rows(OPENAI_FAMILY)
def test_row_with_key_sends_it_in_one_header(row):
    headers = row.authorize(HttpRequest(path="x"), Secret("k"), 0.0)
    if row.name == "azure":
        assert headers == (("api-key", "k"),)
    else:
        assert headers == (("authorization", "Bearer k"),)


@rows(OPENAI_FAMILY)
def test_row_credential_is_a_variable_or_none_is_needed(row):
    if row.credential is None:
        assert row.is_key_optional
    else:
        kind, _, name = row.credential.partition("::")
        assert kind == "env"
        assert name.isupper()
        assert name.endswith("_API_KEY")


@rows(OPENAI_FAMILY)
def test_row_deviations_do_not_overlap(row):
    deviations = row.deviations
    assert not deviations.unsupported & set(deviations.renames)
    assert not deviations.unsupported & set(deviations.renames.values())


@rows(OPENAI_FAMILY)
def test_row_paths_name_only_keys_that_it_has(row):
    keys = {*row.required, *row.optional}
    assert set(row.defaults) <= set(row.optional)
    for path in row.paths.values():
        fields = {field for _, field, _, _ in Formatter().parse(path) if field}
        assert fields <= keys
        assert fields <= {*row.required, *row.defaults}


@pytest.mark.parametrize("path", PATHS)
def test_azure_path_has_deployment_and_version(path):
    azure = PROVIDERS["azure"]
    template = azure.paths[path]
    options = {**azure.defaults, "deployment_id": "gpt", "endpoint": "unused"}
    assert template.format_map(options) == (
        f"openai/deployments/gpt/{path}?api-version=2024-10-21"
    )
    options["api_version"] = "2025-04-01-preview"
    assert template.format_map(options).endswith("?api-version=2025-04-01-preview")


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        (
            "embedding",
            {
                "openai",
                "azure",
                "mistral",
                "together",
                "fireworks",
                "vllm",
                "ollama",
                "openrouter",
            },
        ),
        ("moderation", {"openai"}),
    ],
)
def test_capability_of_openais_dialect_is_spoken_by(capability, names):
    dialect = DIALECTS[capability]
    found = {
        row.name for row in OPENAI_FAMILY if row.dialects.get(capability) is dialect
    }
    assert found == names


def test_openai_keeps_the_newer_name_of_the_limit():
    for name in ("openai", "azure", "groq", "openrouter"):
        assert PROVIDERS[name].deviations.renames == {}


def test_mistral_is_not_sent_what_its_closed_schema_refuses():
    deviations = PROVIDERS["mistral"].deviations
    assert deviations.renames["max_completion_tokens"] == "max_tokens"
    assert deviations.renames["seed"] == "random_seed"
    assert "stream_options" in deviations.unsupported


def test_rows_are_values_that_an_embedder_may_change():
    acme = replace(PROVIDERS["openai"], name="acme", base_url="https://acme.test/v1/")
    assert by_name((*ROWS, acme))["acme"].dialects is PROVIDERS["openai"].dialects
