"""How many examples a property is tried with, and which.

`-m fast` tries a quarter of them, `make test` all, both the same ones each time: a new example that fails would refuse
a change that has nothing to do with it. New ones are tried when a property is run by itself.
"""

from typing import Final

from hypothesis import HealthCheck, settings

NEW: Final = "new-examples"
ALL: Final = "all-examples"
SOME: Final = "some-examples"
_USUAL: Final = 100

settings.register_profile(NEW, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(ALL, settings.get_profile(NEW), derandomize=True)
settings.register_profile(SOME, settings.get_profile(ALL), max_examples=_USUAL // 4)


def examples(most: int) -> settings:
    """As many in all, and as much of them as the profile takes."""
    return settings(max_examples=max(1, most * settings.default.max_examples // _USUAL))
