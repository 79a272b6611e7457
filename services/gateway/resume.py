"""Where an event stream begins, given where its reader was. Pure.

An event's id is `<epoch>-<position>`; the epoch names the log, so an id of another log is recognised.
"""

import re
from dataclasses import dataclass
from typing import Final

from shared.errors import Refused

PATTERN: Final = r"^([0-9a-f]{1,16})-([0-9]{1,18})$"
_ID: Final = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class LogState:
    """The event log: `head` is the newest position, `floor` the newest deleted one."""

    epoch: str
    head: int
    floor: int
    stream_offset: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """Go on behind `position`; `gap` says why events between the reader's id and here may be lost, None = none."""

    position: int
    gap: str | None = None


def event_id(epoch: str, position: int) -> str:
    return f"{epoch}-{position}"


def read_id(text: str) -> tuple[str, int]:
    """(epoch, position) of an event's id. Raises Refused (code `invalid_cursor`)."""
    found = _ID.fullmatch(text)
    if found is None:
        raise Refused(
            f"{text[:80]!r} is not the id of an event; send the last `id:` that you received, or none",
            code="invalid_cursor",
        )
    return found[1], int(found[2])


def start(state: LogState, last_id: str | None, *, from_oldest: bool) -> Start:
    """Where to begin: behind the reader's last id; without one at the oldest entry (a job's stream) or at the head."""
    oldest = Start(state.floor)
    if not last_id:
        return oldest if from_oldest else Start(state.head)
    epoch, position = read_id(last_id)
    if epoch != state.epoch or position > state.head:
        return Start(state.floor if from_oldest else state.head, "other_log")
    if position < state.floor:
        return Start(state.floor, "too_old")
    return Start(position)
