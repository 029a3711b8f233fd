"""``fallback_models``: which models answer when every provider of one has failed.

The one rule: what loads can be followed: every name is a model that can do at least
one thing which is asked of the model that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tz_protocol.config.entries import Building
from tz_protocol.config.locate import Path
from tz_protocol.config.refusals import did_you_mean
from tz_protocol.types.settings import Model

__all__ = ["check_fallbacks"]


def check_fallbacks(
    named: Mapping[Path, Sequence[str]], models: Mapping[str, Model], building: Building
) -> None:
    """Check what every model names as its ``fallback_models``.

    A fallback's own fallbacks are not followed, so that two models may name each
    other; the one cycle that could be is a model that names itself.

    Args:
        named: By the path of the model; models that are wrong in themselves too.
        models: Those that are right.
        building: Collects what is wrong.
    """
    known = {str(path[1]) for path in named}
    for path, names in named.items():
        own = str(path[1])
        for index, name in enumerate(names):
            message = ""
            if name == own:
                message = "a model cannot be its own fallback"
            elif name in names[:index]:
                message = "duplicate entry: the same name stands before it"
            elif name in known:
                message = _unable(models.get(own), models.get(name))
            else:
                message = _unknown(name, known, building)
            if message:
                place = (*path, "fallback_models", index)
                building.problems.append((place, message))


def _unable(model: Model | None, fallback: Model | None) -> str:
    """Return why *fallback* is of no use to *model*, if both are known and it is."""
    if model is None or fallback is None or not model.capabilities:
        return ""
    if model.capabilities & fallback.capabilities:
        return ""
    wanted, there = (
        ", ".join(sorted(one.capabilities)) or "nothing yet"
        for one in (model, fallback)
    )
    return (
        f"this model can do nothing that is asked of {model.name}: its endpoints are "
        f"{there}, expected one of {wanted}"
    )


def _unknown(name: str, known: set[str], building: Building) -> str:
    """Return why *name*, which is no configured model, cannot be fallen back to."""
    kind, separator, rest = name.partition("::")
    row = building.providers.get(kind)
    if not (separator and rest and row is not None and row.has_shorthand):
        hint = did_you_mean(name, known)
        return f"no such model{hint}: expected a name from [models], or TYPE::MODEL"
    try:
        building.keyring.pick(row, None)
    except ValueError as error:
        return str(error)
    return ""
