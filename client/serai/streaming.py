"""Endless answers that go on after a break: the event log (Last-Event-ID) and logs (byte offset).

A break is a lost connection, a silent one (no heartbeat) or an end that is not the stream's own; the stream is asked
for again from where it was, with back-off. Whatever was missed is either delivered or told as a `Gap`.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx2

from serai.errors import Problem, Unreachable
from serai.retrying import pause_before_next
from serai.values import Event, Gap, Json
from serai.wire import Wire

SILENCE_S: Final = 60.0
"""The gateway sends a heartbeat at least every 15 s; four missed ones are a dead connection."""

LOG_SILENCE_S: Final = 300.0
"""A log has no heartbeat: a task that prints nothing for this long costs one reconnection, and no byte."""

Lost = Problem | Unreachable


class _Contact:
    """Counts breaks in a row: whatever is heard, or a connection that held for a while, begins a new row."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._breaks = 0
        self._away_since: float | None = None
        self._opened_at: float | None = None
        self._least_s = 0.0

    def opened(self) -> None:
        self._opened_at = self._wire.pace.clock()

    def heard(self) -> None:
        self._breaks, self._away_since = 0, None

    def note(self, message: httpx2.ServerSentEvent) -> None:
        """A message came; the opening has `retry:`, the least pause before another connection, and is no news yet."""
        if message.retry is not None:
            self._least_s = message.retry / 1000
        elif message.data or message.id:
            self.heard()

    async def lost(self, error: Lost) -> None:
        """Wait before the next try, or raise `error` when patience is at its end."""
        now, patience = self._wire.pace.clock(), self._wire.patience
        if self._opened_at is not None and now - self._opened_at > patience.cap_s:
            self.heard()
        self._opened_at = None
        self._breaks += 1
        self._away_since = now if self._away_since is None else self._away_since
        pause = pause_before_next(
            patience, tried=self._breaks, elapsed_s=now - self._away_since, chance=self._wire.pace.chance(),
            retry_after_s=error.retry_after_s if isinstance(error, Problem) else None,
        )  # fmt: skip
        if pause is None:
            raise error
        self._wire.notice(error)
        await self._wire.pace.sleep(max(pause, self._least_s))


async def events(
    wire: Wire, path: str, params: Mapping[str, Any], after: str | None = None
) -> AsyncIterator[Event | Gap]:
    """Facts from `path`, in order, from position `after` on; ends where the job ends.

    Raises Problem (for example when the token has expired) and Unreachable when it stays away.
    """
    position, contact = after, _Contact(wire)
    while True:
        try:
            async with wire.stream(
                path, params=params, headers=_headers(position), read_timeout_s=SILENCE_S
            ) as response:
                contact.opened()
                if response.status_code == 204:
                    return
                async for message in httpx2.EventSource(response):
                    contact.note(message)
                    position = message.id or position
                    if message.event == "end" and _object(message.data).get("reason") == "final":
                        return
                    fact = _fact(message)
                    if fact is not None:
                        yield fact
            broken: Lost = Unreachable(wire.url, "the event stream ended")
        except Problem as problem:
            if problem.status == 410:
                position = None
                yield Gap(problem.detail, problem.members)
            elif not problem.temporary:
                raise
            broken = problem
        except Unreachable as error:
            broken = error
        await contact.lost(broken)


def _headers(position: str | None) -> dict[str, str]:
    asked = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    return {**asked, "Last-Event-ID": position} if position else asked


def _fact(message: httpx2.ServerSentEvent) -> Event | Gap | None:
    body = _object(message.data)
    if message.event == "gap":
        return Gap(str(body.get("reason") or "events were missed"), body)
    return Event.of(body, message.id) if "type" in body and "id" in body else None


def _object(text: str) -> Json:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def log_bytes(wire: Wire, path: str, params: Mapping[str, Any], *, follow: bool) -> AsyncIterator[bytes]:
    """Bytes of a log; with `follow` until the attempt has ended and everything was sent.

    A broken log is asked for again from where it was. Only a named attempt has such a place, and only when it was
    read from its beginning; any other break is raised.
    """
    seen, contact = 0, _Contact(wire)
    has_place = params.get("attempt") is not None and params.get("tail") is None
    while True:
        asked = {**params, "follow": "true" if follow else None, "offset": seen or None}
        try:
            async with wire.stream(path, params=asked, read_timeout_s=LOG_SILENCE_S) as response:
                contact.opened()
                async for chunk in response.aiter_bytes():
                    contact.heard()
                    seen += len(chunk)
                    if chunk:
                        yield chunk
            return
        except Problem as problem:
            if not problem.temporary:
                raise
            broken: Lost = problem
        except Unreachable as error:
            broken = error
        if seen and not has_place:
            raise broken
        await contact.lost(broken)
