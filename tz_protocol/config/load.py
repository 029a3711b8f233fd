"""TOML texts and resolved secrets -> one ``Snapshot``.

The one rule: nothing is read here. The caller reads the files, resolves what
:func:`locations` lists and hands both in; every problem of both comes out at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tz_protocol.config.access import KEYS_ROOT, access_locations, read_access
from tz_protocol.config.credentials import (
    MACHINE_LOCATION,
    Source,
    parse_location,
)
from tz_protocol.config.describe import describe, describe_json
from tz_protocol.config.document import Document, merge_files
from tz_protocol.config.entries import Building, built_in, drop_ignored, type_problem
from tz_protocol.config.fetch import with_fetch
from tz_protocol.config.gateway import Problems, gateway_settings
from tz_protocol.config.keyring import Defaults, Keyring, location_of
from tz_protocol.config.locate import Path
from tz_protocol.config.models import read_models
from tz_protocol.config.policy import with_policy
from tz_protocol.config.proxies import PROXY_LOCATIONS, Proxies
from tz_protocol.config.records import CLICKHOUSE_LOCATION, with_records
from tz_protocol.config.refusals import (
    IGNORED_ROOTS,
    UNSUPPORTED_ROOTS,
    ignored,
    kind_word,
    unknown_key,
    validated,
)
from tz_protocol.config.schema import GatewayTable, ProviderTypeTable
from tz_protocol.errors import ConfigError, ConfigProblem
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.aws import REGION_LOCATIONS
from tz_protocol.providers.base import Provider
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    GatewaySettings,
    ProviderSettings,
    Snapshot,
)

__all__ = ["build", "describe", "describe_json", "locations", "parse"]

_ROOTS = ("gateway", "models", "embedding_models", "provider_types", KEYS_ROOT)


def parse(files: Sequence[tuple[str, str]]) -> Document:
    """Return the merged files; next, resolve :func:`locations` and call :func:`build`.

    Args:
        files: (path, text) pairs; none at all is a configuration too.

    Raises:
        ConfigError: A file is no TOML, or two files set one key.
    """
    return merge_files(files)


def locations(
    document: Document, providers: Mapping[str, Provider] = PROVIDERS
) -> tuple[str, ...]:
    """Return every location to resolve, each once; what is wrong is left out.

    They are ``env::NAME``, ``path::FILE`` and ``path_from_env::NAME``, which is the
    file that the variable names. Not all of them need exist: :func:`build` decides.
    """
    defaults = Defaults(document.data, providers)
    # a dictionary, because it keeps the order
    found: dict[str, None] = dict.fromkeys(PROXY_LOCATIONS)
    found.update(dict.fromkeys(access_locations(document.data)))
    found[CLICKHOUSE_LOCATION] = None
    found.update(dict.fromkeys(REGION_LOCATIONS))
    for name in providers:
        found.update(dict.fromkeys(defaults.source(name).locations))
    for section in ("models", "embedding_models"):
        for model in _tables(document.data.get(section)):
            for entry in _tables(model.get("providers")):
                location = location_of(entry)
                if location is None:
                    continue
                try:
                    source = parse_location(location)
                except ValueError:
                    continue  # ``build`` reports it with its line
                found.update(dict.fromkeys(source.locations))
    found.pop(MACHINE_LOCATION, None)  # nothing is read there
    return tuple(found)


def _tables(table: object) -> list[dict[str, Any]]:
    """Return the tables within *table*, which need not be one."""
    values = table.values() if isinstance(table, dict) else ()
    return [value for value in values if isinstance(value, dict)]


def build(
    document: Document,
    secrets: Mapping[str, Secret | None],
    *,
    bind_address: str | None = None,
    providers: Mapping[str, Provider] = PROVIDERS,
) -> Snapshot:
    """Return the configuration.

    Args:
        document: What :func:`parse` returned.
        secrets: By location; absent and None both mean that nothing is there.
        bind_address: Overrides the file's; already checked.
        providers: The rows by type.

    Raises:
        ConfigError: With every problem found, in the order of the files.
    """
    data = document.data
    building = Building(
        providers=providers,
        keyring=Keyring(secrets, Defaults(data, providers)),
        proxies=Proxies(secrets),
    )
    _check_roots(data, building)
    gateway = _gateway(data.get("gateway", {}), bind_address, secrets, building)
    _check_provider_types(data.get("provider_types", {}), building)
    models = read_models(data, building)
    shorthand, missing = _shorthand(building)
    access = read_access(data, gateway, models, shorthand, secrets, building)
    if building.problems:
        raise ConfigError(_placed(document, building.problems))
    return Snapshot(
        gateway=gateway,
        models=models,
        shorthand=shorthand,
        missing_keys=missing,
        config_id=document.config_id,
        access=access,
        warnings=tuple(map(str, _placed(document, building.warnings))),
    )


def _placed(
    document: Document, found: Sequence[tuple[Path, str]]
) -> list[ConfigProblem]:
    """Return *found* with files and lines, each once, in the order of the files."""
    order = {file: index for index, (file, _text) in enumerate(document.files)}
    problems = [
        document.problem(path, message)
        if path
        else ConfigProblem("", None, "", message)
        for path, message in dict.fromkeys(found)
    ]
    return sorted(
        problems,
        key=lambda problem: (order.get(problem.file, -1), problem.line or 0),
    )


# -- the tables -----------------------------------------------------------------


def _check_roots(data: Mapping[str, Any], building: Building) -> None:
    for key in data:
        if key in _ROOTS:
            continue
        if key in IGNORED_ROOTS:
            building.warnings.append(((key,), ignored(IGNORED_ROOTS[key])))
        elif key in UNSUPPORTED_ROOTS:
            subject = UNSUPPORTED_ROOTS[key]
            message = f"there is no support yet for {subject}; remove this table"
            building.problems.append(((key,), message))
        else:
            building.problems.append(((key,), unknown_key(key, _ROOTS)))


def _gateway(
    raw: object,
    bind_address: str | None,
    secrets: Mapping[str, Secret | None],
    building: Building,
) -> GatewaySettings:
    """Return ``[gateway]``, without what is wrong in it."""
    found: Problems = []
    table = validated(GatewayTable, raw, ("gateway",), found)
    building.problems += found
    if table is None:
        return GatewaySettings()
    settings = gateway_settings(table, bind_address, building.problems)
    settings = with_policy(settings, table, building.problems)
    settings = with_records(settings, table, secrets, building)
    settings = with_fetch(settings, table, building)
    building.timeouts = settings.timeouts
    building.policy = settings.policy
    building.on_unsupported_param = table.on_unsupported_param
    if table.global_outbound_http_timeout_ms is not None:
        building.cap = table.global_outbound_http_timeout_ms / 1000
    return settings


def _check_provider_types(raw: object, building: Building) -> None:
    root: Path = ("provider_types",)
    problems, known = building.problems, building.providers
    if not isinstance(raw, dict):
        problems.append((root, f"expected a table, found {kind_word(raw)}"))
        return
    for name, table in raw.items():
        path = (*root, name)
        if name not in known:
            problems.append((path, type_problem(name, known)))
            continue
        if isinstance(table, dict):
            table = drop_ignored(table, path, building.warnings)
        validated(ProviderTypeTable, table, path, problems)
    defaults = building.keyring.defaults
    problems += [(defaults.path(name), why) for name, why in defaults.wrong.items()]
    for name, source in defaults.chosen():
        reason = building.keyring.find(source).reason if source.locations else ""
        if reason:
            problems.append((defaults.path(name), reason))


def _shorthand(
    building: Building,
) -> tuple[dict[str, ProviderSettings], dict[str, str]]:
    """Return what ``type::model`` means, and for other types what would enable it."""
    keyring = building.keyring
    shorthand: dict[str, ProviderSettings] = {}
    missing: dict[str, str] = {}
    for name, row in building.providers.items():
        if not row.has_shorthand:
            continue
        source = keyring.defaults.source(name)
        try:
            credential = keyring.pick(row, None)
        except ValueError as error:
            if source.kind == "static":
                missing[name] = _names(source)
            if keyring.is_there(source):
                message = f"{name}::MODEL cannot be used: {error}"
                building.warnings.append(((), message))
            continue
        shorthand[name] = built_in(building, row, "", credential)
    return shorthand, missing


def _names(source: Source) -> str:
    """Return the variables or files of *source*, to be put after "set"."""
    return " or ".join(text.removeprefix("env::") for text in source.locations)
