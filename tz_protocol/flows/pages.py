"""The routes that call no provider: models, health, metrics.

The one rule: a page is a pure function of the gateway's tables; it asks for nothing,
so it answers however bad the world is. (The figures of several workers are asked for,
and shown in part if they cannot be had.) No page calls a model. What a caller may not
use, no page shows it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tz_protocol import __version__
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.parameters import Handling
from tz_protocol.errors import ModelNotFound
from tz_protocol.operations import Flow, Sleep
from tz_protocol.providers.base import Provider
from tz_protocol.records.figures import Figures
from tz_protocol.routing.breaker import BreakerFacts, TargetKey
from tz_protocol.routing.candidates import resolve
from tz_protocol.routing.keys import model_for, models_of
from tz_protocol.types.keys import Principal
from tz_protocol.types.settings import Model

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["PAGES", "Page", "Shown", "find_page"]

Answer = tuple[int, str, bytes]
"""(status, content type, body)"""

Page = Callable[["Gateway", Principal | None], "Answer | Flow[Answer]"]
"""-> the answer for this caller, or the flow that finds it; None: whoever it is."""


class Shown(enum.Enum):
    """To whom a page is shown while authentication is on; else to everybody."""

    EVERYBODY = enum.auto()
    THIS_MACHINE = enum.auto()
    KEY_HOLDERS = enum.auto()


_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_encode = msgspec.json.Encoder().encode


def status(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
    """Return TensorZero's ``/status``: alive, which version, which configuration."""
    del principal
    body = {
        "status": "ok",
        "version": __version__,
        "config_hash": gateway.snapshot.config_id,
    }
    return 200, _JSON, _encode(body)


def health(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
    """Return what works, part by part; 503 while the gateway takes no requests."""
    del principal
    problems = gateway.problems()
    body: dict[str, Any] = {"gateway": "error" if problems else "ok"}
    if problems:
        body["problems"] = problems
    degraded = gateway.stores.problems()
    if degraded:
        body["degraded"] = degraded
    targets = gateway.targets()
    if targets:
        body["targets"] = [_target(*target) for target in targets]
    return (503 if problems else 200), _JSON, _encode(body)


def _target(target: TargetKey, facts: BreakerFacts) -> dict[str, Any]:
    return {
        "model": target.model,
        "provider": target.provider,
        "state": facts.state.value,
        "failures": facts.failures,
        "opened": facts.opened,
        "ready_in": round(facts.ready_in, 3),
        "last_error": facts.last_error,
    }


def livez(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
    """Return 200 as long as the process can answer at all."""
    del gateway, principal
    return 200, _TEXT, b"ok\n"


def readyz(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
    """Return 200 if requests may be sent here, else 503 and why."""
    del principal
    problems = gateway.problems()
    if problems:
        return 503, _TEXT, ("not ready: " + "; ".join(problems) + "\n").encode()
    degraded = gateway.stores.problems()
    if degraded:
        return 200, _TEXT, ("ready, degraded: " + "; ".join(degraded) + "\n").encode()
    return 200, _TEXT, b"ready\n"


def metrics_page(accept: str) -> Page:
    """Return the page of figures, in a format that *accept* names."""

    def page(gateway: Gateway, principal: Principal | None) -> Flow[Answer]:
        # Whoever serves has loaded it by now; whoever embeds need not have it.
        from tz_protocol.records.exposition import render_parts

        del principal

        def own() -> Figures:
            return gateway.metrics.figures(gateway.gauges())

        sharing = gateway.sharing
        total = own() if sharing is None else (yield from sharing.total(own))
        content_type, parts = render_parts(total, accept)
        pieces = []
        for part in parts:
            pieces.append(part)
            yield from Sleep(gateway.context.now)  # others have their turn
        return 200, content_type, b"".join(pieces)

    return page


def models(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
    """Return the models that the caller may use, in OpenAI's list shape."""
    snapshot = gateway.snapshot
    found = list(snapshot.models.values())
    if principal is not None:
        found = models_of(principal, snapshot, gateway.keys.models, gateway.providers)
    rows = [_model(model) for model in found]
    return 200, _JSON, _encode({"object": "list", "data": rows})


def model_page(name: str) -> Page:
    """Return the page of one model, by public name or shorthand.

    The page raises ``ModelNotFound`` if there is none.
    """

    def page(gateway: Gateway, principal: Principal | None) -> tuple[int, str, bytes]:
        snapshot, providers = gateway.snapshot, gateway.providers
        if not name:
            message = "The path ends where a model's name was expected."
            raise ModelNotFound(message, param="model")
        if principal is None:
            model = resolve(snapshot, name, providers)
        else:
            dynamic = gateway.keys.models
            model = model_for(principal, name, snapshot, dynamic, providers)
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


def capabilities(
    gateway: Gateway, principal: Principal | None
) -> tuple[int, str, bytes]:
    """Return, for each type of provider, what it can do and what of a request it gets.

    A parameter that is not listed is ``other_parameters``. The answer is read from the
    tables by which requests are converted.
    """
    del principal
    follows = gateway.snapshot.gateway.fetch.is_enabled
    rows = [_abilities(one, follows=follows) for one in gateway.providers.values()]
    return 200, _JSON, _encode({"object": "list", "data": rows})


def _abilities(provider: Provider, *, follows: bool) -> dict[str, Any]:
    found = {
        capability: {
            "format": dialect.name,
            "streams": dialect.stream_decoder is not None,
            **_parameters(dialect, provider, follows=follows),
        }
        for capability in provider.dialects
        if (dialect := provider.dialect_of(capability, {})) is not None
    }
    return {"object": "provider", "id": provider.name, "capabilities": found}


def _parameters(
    dialect: AnyDialect, provider: Provider, *, follows: bool
) -> dict[str, Any]:
    """Return what becomes of each parameter.

    Args:
        dialect: Whose table it is.
        provider: Whose deviations apply.
        follows: Whether this gateway follows links for those who do not.
    """
    deviations, table = provider.deviations, dialect.table
    own = {"model": Handling.TRANSLATED}
    own |= dict.fromkeys(deviations.renames, Handling.TRANSLATED)
    own |= dict.fromkeys(deviations.unsupported, Handling.DROPPED)
    if dialect.links is not None:
        handling = Handling.EMULATED if follows else Handling.REFUSED
        own |= {use: handling for use in _LINKS if table is None or use in table}
    others = Handling.PASSED if table is None else Handling.DROPPED
    return {
        "parameters": {
            name: handling.value
            for name, handling in sorted({**(table or {}), **own}.items())
        },
        "other_parameters": others.value,
    }


_LINKS = ("image_url", "file.url")
"""Uses of a parameter that are links."""

PAGES: dict[str, tuple[Page, Shown]] = {
    "/status": (status, Shown.EVERYBODY),
    "/health": (health, Shown.EVERYBODY),
    "/livez": (livez, Shown.EVERYBODY),
    "/readyz": (readyz, Shown.EVERYBODY),
    "/metrics": (metrics_page(""), Shown.THIS_MACHINE),
    "/v1/models": (models, Shown.KEY_HOLDERS),
    "/openai/v1/models": (models, Shown.KEY_HOLDERS),
    "/v1/capabilities": (capabilities, Shown.KEY_HOLDERS),
}
"""Path -> (page, to whom it is shown)."""

_MODEL_PREFIXES = ("/v1/models/", "/openai/v1/models/")


def find_page(
    path: str, unquote: Callable[[str], str], accept: str = ""
) -> tuple[Page, Shown] | None:
    """Return the page at *path* and to whom it is shown; None if there is none.

    A model's name may hold slashes, as they are or percent-encoded.
    """
    page = PAGES.get(path)
    if page is not None:
        is_figures = path == "/metrics"
        return (metrics_page(accept), page[1]) if is_figures else page
    for prefix in _MODEL_PREFIXES:
        if path.startswith(prefix):
            return model_page(unquote(path.removeprefix(prefix))), Shown.KEY_HOLDERS
    return None
