"""Reads configurations for the tests, with the environment as keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tz_protocol.config.load import build, parse
from tz_protocol.errors import ConfigError
from tz_protocol.providers import PROVIDERS
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings, Snapshot

__all__ = [
    "FEW",
    "FILE",
    "entry",
    "environment",
    "model",
    "problems",
    "provider",
    "read",
    "refusal",
    "short",
]

FILE = "gw.toml"

FEW = {
    name: PROVIDERS[name]
    for name in ("openai", "azure", "groq", "mistral", "vllm", "dummy")
}
"""Rows for what must not change when a provider comes to them."""


def short(value: object) -> str:
    """Return an id for a parameter of a test."""
    return str(value).partition("\n")[0][:40]


def refusal(function: Callable[[str], object], text: str) -> str:
    """Return what *function* refuses *text* with; nothing if it takes it."""
    try:
        function(text)
    except ValueError as error:
        return str(error)
    return ""


def environment(**variables: str) -> dict[str, Secret | None]:
    """Return the secrets that these variables are."""
    return {f"env::{name}": Secret(value) for name, value in variables.items()}


def read(*texts: str, **variables: str) -> Snapshot:
    """Return what *texts*, a file each, come to."""
    return build(parse(_named(texts)), environment(**variables))


def _named(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    names = [FILE] if len(texts) == 1 else [f"{index}.toml" for index in range(9)]
    return list(zip(names, texts, strict=False))


def problems(*texts: str, **variables: str) -> list[str]:
    """Return what is wrong with *texts*; a line each, without the only file's name."""
    try:
        read(*texts, **variables)
    except ConfigError as error:
        return [str(one).removeprefix(f"{FILE}:") for one in error.problems]
    return []


def model(text: str) -> str:
    """Return a model ``m`` with one provider ``p``, which *text* describes."""
    return f'[models.m]\nrouting = ["p"]\n[models.m.providers.p]\n{text}\n'


def entry(text: str, **variables: str) -> ProviderSettings:
    """Return the provider that *text* describes."""
    return read(model(text), **variables).models["m"].providers["p"]


def provider(**changes: Any) -> str:
    """Return an entry that needs nothing, with *changes* as TOML values."""
    values = {"type": '"dummy"', "model_name": '"good"', **changes}
    return "\n".join(f"{key} = {value}" for key, value in values.items() if value)
