"""How many examples a property is tried with: in the fast set some, the same each time; otherwise all, and new ones.

A new example that fails in the fast set would refuse a change that has nothing to do with it; `make test` looks for new
ones, as does a property that is run by itself.
"""

from typing import Final

from hypothesis import HealthCheck, settings

ALL: Final = "all-examples"
SOME: Final = "some-examples"
_USUAL: Final = 100

settings.register_profile(ALL, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(SOME, settings.get_profile(ALL), max_examples=_USUAL // 4, derandomize=True)


def examples(most: int) -> settings:
    """As many in all, and as much of them as the profile takes."""
    return settings(max_examples=max(1, most * settings.default.max_examples // _USUAL))
