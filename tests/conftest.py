"""How the tests run, wherever they are.

The one rule: nothing here decides what is true. How long an example takes by the clock
is no finding, and what is collected once need not be looked through again and again.
"""

from __future__ import annotations

import gc

from hypothesis import settings

settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")

# What collecting makes stays: the collector's rounds through it were a third of the
# time that collecting took.
gc.disable()


def pytest_collection_finish() -> None:
    """Have the collector look after what tests make, and not after the tests."""
    gc.enable()
    gc.freeze()
