"""Event streams (Server-Sent Events, WHATWG HTML): resume, heartbeats, gaps, and the end with the token.

Each stream goes through the log at its own speed, from memory while it keeps up and from the store otherwise, so a
slow reader holds up nobody.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from services.gateway import event_log, permissions, resume
from services.gateway.access import Access, Caller
from services.gateway.changes import Changes
from services.gateway.event_log import Entry
from services.gateway.log_reader import LogReader
from services.gateway.permissions import EventFilter
from services.gateway.resume import LogState, Start
from services.gateway.room import Room
from shared.contracts import events
from shared.errors import Refused, Unavailable
from shared.ports import Clock, Store

CONTENT_TYPE: Final = "text/event-stream"
RETRY_MS: Final = 2000
_PAGE: Final = 500
_RECHECK_S: Final = 2.0
"""A quiet stream looks this often whether its reader was suspended."""
_FINAL_KINDS: Final = frozenset(event.kind for event in events.JOB_EVENTS if issubclass(event, events.JobEnded))


def is_end(entry: Entry) -> bool:
    """Whether a job's stream ends after this entry."""
    return entry.kind in _FINAL_KINDS


def frame(epoch: str, entry: Entry) -> bytes:
    """One event: its id, its kind, and the CloudEvent on one line."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        resume.event_id(epoch, entry.position).encode(), entry.kind.encode(), entry.body,
    )  # fmt: skip


def gap(state: LogState, last_id: str, begin: Start) -> bytes:
    """Events behind `last_id` may be lost: read what you follow again, then go on from here."""
    id = resume.event_id(state.epoch, begin.position)
    data = {"reason": begin.gap, "last_event_id": last_id, "resumed_at": id}
    return b"id: %b\nevent: gap\ndata: %b\n\n" % (id.encode(), orjson.dumps(data))


def _opening(state: LogState, last_id: str, begin: Start) -> bytes:
    """An id at once, of the gap or of the beginning: who is cut off before the first event has a place to resume at."""
    if begin.gap is not None:
        return b"retry: %d\n\n" % RETRY_MS + gap(state, last_id, begin)
    return b"retry: %d\nid: %b\n\n" % (RETRY_MS, resume.event_id(state.epoch, begin.position).encode())


def end(reason: str) -> bytes:
    """The last thing on a stream that we end: `final`, `unavailable`, or the code of what is wrong with the token."""
    return b"event: end\ndata: %b\n\n" % orjson.dumps({"reason": reason})


def heartbeat(epoch: str, position: int) -> bytes:
    """A comment that keeps proxies awake; the id lets a filtered stream resume from here."""
    return b": heartbeat\nid: %b\n\n" % resume.event_id(epoch, position).encode()


@dataclass(slots=True)
class _Reading:
    """One open stream."""

    caller: Caller
    wanted: EventFilter
    epoch: str
    position: int
    spoke_at: datetime


class Streams:
    """Opens event streams, where there is room."""

    def __init__(
        self, store: Store, changes: Changes, access: Access, clock: Clock, *, heartbeat_s: float, room: Room
    ) -> None:
        self._store = store
        self._changes = changes
        self._log = LogReader(store, changes)
        self._access = access
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._room = room

    async def open(self, caller: Caller, wanted: EventFilter, last_id: str | None) -> AsyncIterator[bytes]:
        """The stream from where the reader was. Raises Refused for a bad id, Unavailable without room."""
        self._room.check()
        state = await self._store.read(event_log.state)
        begin = resume.start(state, last_id, from_oldest=wanted.job_id is not None)
        now, opening = self._clock(), _opening(state, last_id or "", begin)
        return self._run(_Reading(caller, wanted, state.epoch, begin.position, now), opening)

    async def is_over(self, job_id: str, last_id: str | None) -> bool:
        """Whether the log has no end of this job behind where the reader was (asked for a job that has ended)."""
        state = await self._store.read(event_log.state)
        position = resume.start(state, last_id, from_oldest=True).position
        rest = await self._store.read_long(lambda connection: event_log.after(connection, position, 10_000, job_id))
        return not any(is_end(entry) for entry in rest)

    async def _run(self, reading: _Reading, opening: bytes) -> AsyncIterator[bytes]:
        with self._room.taken():
            yield opening
            while not self._changes.closed:
                entries = await self._more(reading)
                ending = await self._ending(reading)
                chunk, over = (b"", False) if ending else self._told(reading, entries)
                if chunk:
                    reading.spoke_at = self._clock()
                    yield chunk
                if ending or over:
                    yield ending or end("final")
                    return
                if not entries:
                    await self._changes.beyond(reading.position, self._patience_s(reading))
                if (self._clock() - reading.spoke_at).total_seconds() >= self._heartbeat_s:
                    reading.spoke_at = self._clock()
                    yield heartbeat(reading.epoch, reading.position)

    async def _more(self, reading: _Reading) -> list[Entry]:
        """The next entries; moves the position past what does not concern a job."""
        entries, looked_to = await self._log.more(reading.position, _PAGE, reading.wanted.job_id)
        if not entries:
            reading.position = looked_to
        return entries

    def _told(self, reading: _Reading, entries: list[Entry]) -> tuple[bytes, bool]:
        """The frames of those entries that concern this reader, and whether the stream ends with them."""
        frames = []
        for entry in entries:
            reading.position = entry.position
            if reading.wanted.wants(entry.told) and permissions.may_hear(reading.caller.sight, entry.told):
                frames.append(frame(reading.epoch, entry))
                if reading.wanted.job_id is not None and is_end(entry):
                    return b"".join(frames), True
        return b"".join(frames), False

    async def _ending(self, reading: _Reading) -> bytes | None:
        """The stream ends with its token: when that expires, when auth does not know it any more, and when auth has
        been away for too long. What its reader may hear is what auth says by now.
        """
        try:
            reading.caller = await self._access.again(reading.caller)
        except Refused as refusal:
            return end(refusal.code or "unauthenticated")
        except Unavailable:
            return end("unavailable")
        return None

    def _patience_s(self, reading: _Reading) -> float:
        now = self._clock()
        left = (reading.caller.context.expires_at - now).total_seconds()
        quiet = (now - reading.spoke_at).total_seconds()
        return max(0.01, min(self._heartbeat_s - quiet, left, _RECHECK_S))
