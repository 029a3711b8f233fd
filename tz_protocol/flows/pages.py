"""The routes that call no provider: models, health, metrics.

The one rule: a page is a pure function of the gateway's tables; it asks for nothing,
so it answers however bad the world is. No page calls a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tz_protocol import __version__
from tz_protocol.dialects.parameters import TABLE, Handling
from tz_protocol.errors import ModelNotFound
from tz_protocol.providers.base import Provider
from tz_protocol.routing.candidates import resolve
from tz_protocol.types.settings import Model

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["PAGES", "Page", "find_page"]

Page = Callable[["Gateway"], tuple[int, str, bytes]]
"""-> (status, content type, body)."""

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_encode = msgspec.json.Encoder().encode


def status(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return TensorZero's ``/status``: alive, which version, which configuration."""
    body = {
        "status": "ok",
        "version": __version__,
        "config_hash": gateway.snapshot.config_id,
    }
    return 200, _JSON, _encode(body)


def health(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return what works, part by part; 503 while the gateway takes no requests."""
    problems = gateway.problems()
    body: dict[str, Any] = {"gateway": "error" if problems else "ok"}
    if problems:
        body["problems"] = problems
    return (503 if problems else 200), _JSON, _encode(body)


def livez(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return 200 as long as the process can answer at all."""
    del gateway
    return 200, _TEXT, b"ok\n"


def readyz(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return 200 if requests may be sent here, else 503 and why."""
    problems = gateway.problems()
    if problems:
        return 503, _TEXT, ("not ready: " + "; ".join(problems) + "\n").encode()
    return 200, _TEXT, b"ready\n"


def metrics(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return Prometheus text."""
    return 200, _PROMETHEUS, gateway.metrics.render(gateway.gauges()).encode()


def models(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return the configured models in OpenAI's list shape."""
    rows = [_model(model) for model in gateway.snapshot.models.values()]
    return 200, _JSON, _encode({"object": "list", "data": rows})


def model_page(name: str) -> Page:
    """Return the page of one model, by public name or shorthand.

    The page raises ``ModelNotFound`` if there is none.
    """

    def page(gateway: Gateway) -> tuple[int, str, bytes]:
        if not name:
            message = "The path ends where a model's name was expected."
            raise ModelNotFound(message, param="model")
        model = resolve(gateway.snapshot, name, gateway.providers)
        return 200, _JSON, _encode(_model(model))

    return page


def _model(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.providers[model.routing[0]].type,
        "capabilities": sorted(model.capabilities),
    }


def capabilities(gateway: Gateway) -> tuple[int, str, bytes]:
    """Return, for each type of provider, what it can do and what of a request it gets.

    A parameter that is not listed is ``other_parameters``. The answer is read from the
    tables by which requests are converted.
    """
    rows = [_abilities(provider) for provider in gateway.providers.values()]
    return 200, _JSON, _encode({"object": "list", "data": rows})


def _abilities(provider: Provider) -> dict[str, Any]:
    found = {
        capability: {
            "format": dialect.name,
            "streams": dialect.stream_decoder is not None,
            **_parameters(dialect.name, provider),
        }
        for capability, dialect in provider.dialects.items()
    }
    return {"object": "provider", "id": provider.name, "capabilities": found}


def _parameters(format_name: str, provider: Provider) -> dict[str, Any]:
    deviations = provider.deviations
    own = dict.fromkeys(deviations.renames, Handling.TRANSLATED)
    own |= dict.fromkeys(deviations.unsupported, Handling.DROPPED)
    table = TABLE.get(format_name)
    others = Handling.PASSED if table is None else Handling.DROPPED
    return {
        "parameters": {
            name: handling.value
            for name, handling in sorted({**(table or {}), **own}.items())
        },
        "other_parameters": others.value,
    }


PAGES: dict[str, tuple[Page, bool]] = {
    "/status": (status, False),
    "/health": (health, False),
    "/livez": (livez, False),
    "/readyz": (readyz, False),
    "/metrics": (metrics, False),
    "/v1/models": (models, True),
    "/openai/v1/models": (models, True),
    "/v1/capabilities": (capabilities, True),
}
"""Path -> (page, whether a key is needed)."""

_MODEL_PREFIXES = ("/v1/models/", "/openai/v1/models/")


def find_page(path: str, unquote: Callable[[str], str]) -> tuple[Page, bool] | None:
    """Return the page at *path* and whether it needs a key; None if there is none.

    A model's name may hold slashes, as they are or percent-encoded.
    """
    page = PAGES.get(path)
    if page is not None:
        return page
    for prefix in _MODEL_PREFIXES:
        if path.startswith(prefix):
            return model_page(unquote(path.removeprefix(prefix))), True
    return None
