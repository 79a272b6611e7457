"""Python's garbage collector, told once what kind of process this is. Called by whoever starts a whole process.

A started platform holds some 800,000 objects (modules, routes, models, compiled statements) that live as long as it
does. By default each full collection walks all of them: 150 ms in which nobody is served, a tenth of all CPU under load
(docs/figures.md). So they are set aside, and the collector looks less often; reference counting frees all but cycles.
"""

import gc
from typing import Final

YOUNG: Final = 20_000
"""New objects (less freed ones) before the youngest generation is looked at; Python's default is 700."""
MIDDLE, OLD = 20, 50
"""Collections of one generation before the next older one is looked at; the default is 10."""


def settle() -> None:
    """Set everything that is there aside for good. Call it once, when the process has started and before its work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
