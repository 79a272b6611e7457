"""Which tests one process runs one after the other, and which begin first. Used by `conftest.py`.

Tests of a room share its servers, and those of `system` the ports that a newcomer's platform gets; two files of it
have ports of their own.
"""

from typing import Final

from xdist.scheduler import LoadScopeScheduling

ROOMS: Final = (
    "tests/system/", "tests/system/crash/test_every_call.py", "tests/system/real/test_wrong_at_start.py",
    "tests/ports/bus/", "tests/ports/engine/", "tests/ports/registry/", "tests/ports/store/",
    "tests/ports/subscribers/",
)  # fmt: skip
"""The longest first, so that no process is left with it when all others have ended."""


def group_of(test: str) -> str:
    """The smallest room of a test, by its id, else its file."""
    rooms = (room for room in ROOMS if test.startswith(room))
    return max(rooms, key=len, default=test.partition("::")[0])


def rank(test: str) -> int:
    """Where its group stands in the order of a run."""
    group = group_of(test)
    return ROOMS.index(group) if group in ROOMS else len(ROOMS)


class InRooms(LoadScopeScheduling):  # type: ignore[misc]
    """A process takes a whole group at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
