"""The keys of an entry that only its type has -> options, as text.

The one rule: an option reaches a dialect or a URL as it is, so what it may hold is
checked here.
"""

from __future__ import annotations

import re

from tz_protocol.config.credentials import Source
from tz_protocol.config.gateway import Problems
from tz_protocol.config.keyring import Keyring
from tz_protocol.config.locate import Path
from tz_protocol.config.refusals import kind_word
from tz_protocol.config.schema import YEAR, ProviderTable
from tz_protocol.dialects.losses import POLICY_OPTION
from tz_protocol.dialects.sagemaker import (
    ENDPOINT_OPTION,
    HOSTED_OPTION,
    HOSTED_PROVIDERS,
)
from tz_protocol.providers.aws import (
    AUTO_REGION_OPTION,
    REGION_LOCATIONS,
    REGION_OPTION,
)
from tz_protocol.providers.base import Provider

__all__ = ["entry_options"]

_EXACT = 2**53
"""Integers up to this are the same for everybody who reads JSON."""

_PATH_SAFE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")
"""RFC 3986, section 2.3: what needs no escape anywhere in a URL; no dot segments."""

_IN_URLS = frozenset(
    {"location", "project_id", "endpoint_id", ENDPOINT_OPTION, REGION_OPTION}
)
"""Options that vendors have in their hosts or paths, beside those in ``paths``."""


def entry_options(
    row: Provider,
    path: Path,
    table: ProviderTable,
    keyring: Keyring,
    problems: Problems,
    policy: str | None,
) -> dict[str, str]:
    """Return the row's own keys as text, and what is to become of losses.

    Args:
        row: The entry's type.
        path: Of the entry.
        table: The entry; keys that the schema does not name are the row's.
        keyring: Knows the region of the surroundings.
        problems: Is appended to.
        policy: The gateway's ``on_unsupported_param``, None if it says nothing.
    """
    extra = table.model_extra or {}
    in_paths = " ".join(row.paths.values())
    options: dict[str, str] = {}
    if (policy := table.on_unsupported_param or policy) is not None:
        options[POLICY_OPTION] = policy
    for key, value in extra.items():
        if key not in row.required and key not in row.optional:
            continue  # refused already
        reason = _option_problem(key, value)
        is_switch = key in row.deviations.switches or key == AUTO_REGION_OPTION
        if is_switch and not isinstance(value, bool):
            reason = f"expected true or false, found {kind_word(value)}"
        if not reason:
            text = _text(value)
            is_in_url = f"{{{key}}}" in in_paths or key in _IN_URLS
            if is_in_url and text and not _PATH_SAFE.fullmatch(text):
                reason = "expected letters, digits, hyphens, dots and underscores only"
            if key == HOSTED_OPTION and text not in HOSTED_PROVIDERS:
                reason = f"expected {' or '.join(HOSTED_PROVIDERS)}"
        if reason:
            problems.append(((*path, key), reason))
        elif text or key not in _IN_URLS:
            options[key] = text
    has_region = extra.get(REGION_OPTION, "") != ""
    if row.sign is not None and table.api_base is None and not has_region:
        _add_region(options, path, keyring, problems)
    return options


def _add_region(
    options: dict[str, str], path: Path, keyring: Keyring, problems: Problems
) -> None:
    """Detect the region where the URL is made of it, if that is allowed."""
    if options.get(AUTO_REGION_OPTION) == "true":
        found = keyring.find(Source("static", REGION_LOCATIONS))
        if found.secret is not None:
            options[REGION_OPTION] = found.secret.reveal()
            return
        message = f"{found.reason}: there is no region to detect"
    else:
        message = f"missing: give the region, or {AUTO_REGION_OPTION} = true"
    problems.append(((*path, REGION_OPTION), message))


def _option_problem(key: str, value: object) -> str:
    """Return what is wrong with an option, nothing if it can be said as text."""
    highest: float = _EXACT
    if key.endswith(("_ms", "_s")):
        highest = YEAR * 1000 if key.endswith("_ms") else YEAR
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"expected a number, found {kind_word(value)}"
        if not value >= 0:
            return "expected a number of at least 0"
    elif not isinstance(value, (str, bool, int, float)):
        return f"expected a string, found {kind_word(value)}"
    if isinstance(value, (int, float)) and not abs(value) <= highest:
        return f"expected a number of at most {highest}"
    return ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
