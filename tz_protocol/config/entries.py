"""One entry of a model's ``providers`` table -> ``ProviderSettings``.

The one rule: which keys an entry may have is its provider's row to say. What is wrong
is collected, never raised, so that one run names everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tz_protocol.config.addresses import parse_url
from tz_protocol.config.extras import extra_body, extra_headers
from tz_protocol.config.gateway import Problems, merge_timeouts, pick_seconds
from tz_protocol.config.keyring import (
    DEFAULTS_ALIAS,
    DEFAULTS_KEY,
    SAID_TWICE,
    Keyring,
)
from tz_protocol.config.locate import Path
from tz_protocol.config.options import entry_options
from tz_protocol.config.policy import merge_breaker, retry_count
from tz_protocol.config.prices import read_prices
from tz_protocol.config.proxies import BadProxy, Proxies
from tz_protocol.config.refusals import (
    AGREED,
    IGNORED_KEYS,
    UNSUPPORTED_KEYS,
    did_you_mean,
    ignored,
    kind_word,
    unknown_key,
    validated,
)
from tz_protocol.config.schema import (
    EmbeddingModelTable,
    ModelTable,
    ProviderTable,
    TimeoutsTable,
)
from tz_protocol.providers.aws import REGION_OPTION
from tz_protocol.providers.base import Provider
from tz_protocol.types.policy import Policy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Credential,
    ProviderSettings,
    Timeouts,
    Url,
)

__all__ = [
    "Building",
    "built_in",
    "drop_ignored",
    "effective_timeouts",
    "entry_settings",
    "type_problem",
]

_ADDRESS_KEYS = ("api_base", "endpoint")
_PROCESS = "none (signed with the process's own credentials)"
"""Where the key is of a provider that knows us without one."""

_ROW_KEYS = frozenset({"model_name", "credential_location", *_ADDRESS_KEYS})
"""Keys that the schema knows and that an entry has only if its row says so."""

_URL_KEYS = (REGION_OPTION, "location")
"""Keys that rows make base URLs of."""

_COMMON_KEYS = frozenset(ProviderTable.model_fields) - _ROW_KEYS


@dataclass(slots=True, kw_only=True)
class Building:
    """What one build has at hand, and what it found."""

    providers: Mapping[str, Provider]
    keyring: Keyring
    proxies: Proxies
    timeouts: Timeouts = field(default_factory=Timeouts)
    """The gateway's."""
    policy: Policy = field(default_factory=Policy)
    """The gateway's."""
    on_unsupported_param: str | None = None
    """The gateway's."""
    cap: float | None = None
    """Seconds that no provider may take longer, None for no such bound."""
    problems: Problems = field(default_factory=list)
    warnings: Problems = field(default_factory=list)
    spoken: frozenset[str] = frozenset()
    """Capabilities that at least one type supports."""
    _urls: dict[str, Url] = field(default_factory=dict)
    _chosen: dict[tuple[str, str, int], Secret | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spoken = frozenset().union(
            *(row.dialects for row in self.providers.values())
        )

    def url(self, text: str) -> Url:
        """Return the parts of *text*, which many entries share.

        Raises:
            ValueError: It is no URL.
        """
        url = self._urls.get(text)
        if url is None:
            url = self._urls[text] = parse_url(text)
        return url

    def proxy(self, url: Url) -> Secret | None:
        """Return the proxy for *url*; a bad variable is a problem without a place."""
        origin = (url.scheme, url.host, url.port)
        if origin not in self._chosen:
            self._chosen[origin] = None
            try:
                self._chosen[origin] = self.proxies.choose(url)
            except BadProxy as error:
                self.problems.append(((), f"the environment variable {error}"))
        return self._chosen[origin]


def drop_ignored(
    table: dict[str, Any], path: Path, warnings: Problems, row: Provider | None = None
) -> dict[str, Any]:
    """Return *table* without the keys that have no effect; most have none of them.

    Args:
        table: As it is in the file.
        path: Of the table.
        warnings: Is appended to.
        row: Of the entry's type, if it is an entry: what the row has, has an effect.
    """
    if not (AGREED.keys() & table.keys() or IGNORED_KEYS.keys() & table.keys()):
        return table
    own = row.optional if row else ()
    kept = dict(table)
    for key in table:
        if key in own:
            continue
        if key in AGREED and table[key] == AGREED[key]:
            del kept[key]
        elif key in IGNORED_KEYS:
            del kept[key]
            warnings.append(((*path, key), ignored(IGNORED_KEYS[key])))
    return kept


def type_problem(kind: str, known: Mapping[str, Provider]) -> str:
    """Return why *kind* is no provider type; it may be anything, and is not echoed."""
    hint = did_you_mean(kind, known) or f": expected one of {', '.join(known)}"
    return f"unknown provider type{hint}"


def entry_settings(
    building: Building,
    path: Path,
    raw: dict[str, Any],
    base: Timeouts,
    policy: Policy,
) -> ProviderSettings | None:
    """Return the entry at *path*, or None if it is wrong.

    Args:
        building: Collects what is wrong.
        path: Of the entry; its last part is the entry's name.
        raw: The entry.
        base: The model's effective timeouts.
        policy: The model's effective policy.
    """
    problems = building.problems
    before = len(problems)
    row = _row(building, path, raw)
    raw = drop_ignored(raw, path, building.warnings, row)
    if row is not None:
        _check_keys(row, path, raw, problems)
    found: Problems = []
    table = validated(ProviderTable, raw, path, found)
    # what is wrong with the type was said above in other words
    problems += [one for one in found if one[0] != (*path, "type")]
    if row is None or table is None:
        return None
    options = entry_options(
        row, path, table, building.keyring, problems, building.on_unsupported_param
    )
    url = _url(building, row, path, table, options)
    proxy = building.proxy(url) if url else None
    credential = _credential(building, row, path, table)
    _check_certificates(path, table, problems)
    timeouts = effective_timeouts(building, path, table, base)
    headers = extra_headers(table.extra_headers, (*path, "extra_headers"), problems)
    body = extra_body(table.extra_body, (*path, "extra_body"), problems)
    prices = read_prices(table.cost, row.name, path, problems)
    trying = _trying(policy, path, table, problems)
    if len(problems) > before or credential is None:
        return None
    return ProviderSettings(
        name=str(path[-1]),
        type=row.name,
        model=_model_name(table, options, path),
        url=url,
        credential=credential,
        options=options,
        extra_headers=headers,
        extra_body=body,
        timeouts=None if timeouts is base else timeouts,
        verify=table.verify,
        ca_file=table.ca_file,
        proxy=proxy,
        prices=prices,
        **trying,
    )


def _model_name(table: ProviderTable, options: Mapping[str, str], path: Path) -> str:
    """Return the model's name at the vendor, by whichever key it is known there."""
    keys = ("deployment_id", "model_id", "endpoint_id")
    names = (table.model_name, *(options.get(key) for key in keys))
    # some vendors serve one model to everybody
    return next(filter(None, names), str(path[1]))


def _trying(
    policy: Policy, path: Path, table: ProviderTable, problems: Problems
) -> dict[str, Any]:
    """Return what decides when, and how often, the provider is tried."""
    breaker = merge_breaker(policy.breaker, table.breaker, (*path, "breaker"), problems)
    return {
        "weight": table.weight,
        "retry_count": retry_count(table.retries, (*path, "retries"), problems),
        "breaker": None if breaker is policy.breaker else breaker,
        "context_tokens": table.context_tokens,
    }


def _check_certificates(path: Path, table: ProviderTable, problems: Problems) -> None:
    if table.ca_file == "":
        problems.append(((*path, "ca_file"), "expected some text, found none"))
    elif table.ca_file is not None and not table.verify:
        message = "has no effect while verify is false: give only one of the two"
        problems.append(((*path, "ca_file"), message))


def built_in(
    building: Building, row: Provider, model: str, credential: Credential
) -> ProviderSettings:
    """Return the settings of a provider that has no table, only its type."""
    url = building.url(row.base_url) if row.base_url else None
    return ProviderSettings(
        name=row.name,
        type=row.name,
        model=model,
        url=url,
        credential=credential,
        proxy=building.proxy(url) if url else None,
    )


def effective_timeouts(
    building: Building,
    path: Path,
    table: ModelTable | EmbeddingModelTable | ProviderTable,
    base: Timeouts,
) -> Timeouts:
    """Return *base* with what *table* sets; *base* itself if it sets nothing."""
    problems = building.problems
    prefix = (*path, "timeouts")
    merged = merge_timeouts(base, table.timeouts, prefix, problems)
    if not isinstance(table, ModelTable):
        whole = pick_seconds(table, "timeout", path, problems)
        if whole is not None:
            key = "timeout_s" if table.timeout_ms is None else "timeout_ms"
            if _has_total(table.timeouts):
                message = "says the same as timeouts.total_ms: give only one"
                problems.append(((*path, key), message))
            merged = msgspec.structs.replace(merged, total=whole, stream_total=whole)
            prefix = (*path, key)
    cap = building.cap
    if cap is not None and merged is not base:
        longest = max(merged.total, merged.stream_total)
        if longest > cap:
            message = (
                "longer than gateway.global_outbound_http_timeout_ms "
                f"({cap * 1000:.16g}) allows"
            )
            problems.append((prefix, message))
    return merged


def _has_total(table: TimeoutsTable) -> bool:
    ways = (table.total_ms, table.total_s, table.non_streaming.total_ms)
    return any(value is not None for value in ways)


# -- an entry's parts -----------------------------------------------------------


def _row(building: Building, path: Path, raw: dict[str, Any]) -> Provider | None:
    """Return the row of the entry's type, or None if it has none."""
    problems, known = building.problems, building.providers
    kind = raw.get("type")
    if kind is None:
        message = f"missing: this key is required, one of {', '.join(known)}"
        problems.append(((*path, "type"), message))
    elif not isinstance(kind, str):
        message = f"expected a string, found {kind_word(kind)}"
        problems.append(((*path, "type"), message))
    elif kind not in known:
        problems.append(((*path, "type"), type_problem(kind, known)))
    else:
        return known[kind]
    return None


def _check_keys(
    row: Provider, path: Path, raw: dict[str, Any], problems: Problems
) -> None:
    """Refuse keys that the row does not have, and require those that it needs."""
    for key in row.required:
        if key not in raw:
            message = f"missing: a provider of type {row.name} needs this key"
            problems.append(((*path, key), message))
        elif raw[key] == "":
            problems.append(((*path, key), "expected some text, found none"))
    own = (*row.required, *row.optional)
    for key in raw:
        if key in _COMMON_KEYS or key in own:
            continue
        if key in UNSUPPORTED_KEYS:
            message = unknown_key(key, ())
        else:
            hint = did_you_mean(key, [*own, *_COMMON_KEYS])
            message = f"unknown key for type {row.name}{hint}"
            message += f"; its own keys are {', '.join(own)}"
        problems.append(((*path, key), message))


def _url(
    building: Building,
    row: Provider,
    path: Path,
    table: ProviderTable,
    options: Mapping[str, str],
) -> Url | None:
    """Return where the provider is; None if it is in the core, or badly said."""
    for key in _ADDRESS_KEYS:
        text = getattr(table, key)
        if text is None or key not in (*row.required, *row.optional):
            continue
        try:
            return building.url(text)
        except ValueError as error:
            building.problems.append(((*path, key), str(error)))
            return None
    if row.locate is not None:
        try:
            return building.url(row.locate(options))
        except KeyError:
            return None  # a key that is missing was told
        except ValueError as error:
            key = next((key for key in _URL_KEYS if key in options), "type")
            building.problems.append(((*path, key), str(error)))
            return None
    return building.url(row.base_url) if row.base_url else None


def _credential(
    building: Building, row: Provider, path: Path, table: ProviderTable
) -> Credential | None:
    """Return the entry's key, or None if it has not the one that it needs."""
    key, location = DEFAULTS_KEY, table.api_key_location
    if table.credential_location is not None and DEFAULTS_ALIAS in row.optional:
        if location is not None:
            building.problems.append(((*path, DEFAULTS_ALIAS), SAID_TWICE))
            return None
        key, location = DEFAULTS_ALIAS, table.credential_location
    is_own_server = any(getattr(table, key) is not None for key in _ADDRESS_KEYS)
    try:
        found = building.keyring.pick(row, location, is_own_server=is_own_server)
    except ValueError as error:
        place = building.keyring.place(row, path, None if location is None else key)
        building.problems.append((place, str(error)))
        return None
    if found.kind == "none" and row.sign is not None:
        return msgspec.structs.replace(found, location=_PROCESS)
    return found
