"""Feeds subscriptions from the event log, and ends those that are over. One copy of the gateway does it at a time.

Each subscription has a task of its own with a place of its own in the log: a queue that is full or gone holds up
nobody else. Letters are confirmed before the place is written down, so a crash repeats some and loses none.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from services.gateway import event_log, permissions, subscription_store, subscriptions
from services.gateway.changes import Changes
from services.gateway.log_reader import LogReader
from services.gateway.permissions import Sight
from services.gateway.subscriptions import ENDED, OPEN, Cursor, Subscription, Window
from shared.contracts.questions import Bearer, Remembered, RememberedAnswer, RememberedRequest
from shared.errors import Misconfigured, NotFound, SeraiError, Unavailable
from shared.ports import Clock, QueueSeen, Store, SubscriberBroker
from shared.runtime import logs
from shared.runtime.clock import micros
from shared.runtime.leadership import Leadership
from shared.runtime.questions import Questions
from shared.runtime.retrying import Backoff

log = logs.get("gateway.feeding")

PAGE: Final = 256
MOST_BEARERS: Final = 500
_SAVE_S: Final = 5.0
"""A place in the log that moved without a letter is written down this often."""
_WAIT_S: Final = 2.0
_OPENING_S: Final = 60.0
_TOUCH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: between rounds, without a reader, without word from auth."""

    recheck_s: float
    idle_s: float
    stale_s: float


@dataclass(slots=True)
class Feed:
    """One subscription that is being fed. `sight` is renewed in every round; `sight_at` is when auth said so."""

    sub: Subscription
    cursor: Cursor
    window: Window
    sight: Sight | None = None
    sight_at: datetime | None = None
    stopped: bool = False
    saved_at: datetime | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Something changed that it may wait for: room, sight, the end."""
    task: "asyncio.Task[None] | None" = None

    def wake(self) -> None:
        self.moved.set()


class Feeding:
    """The service's task `subscriptions`."""

    def __init__(
        self, store: Store, changes: Changes, broker: SubscriberBroker, auth: Questions, leadership: Leadership,
        clock: Clock, times: Times, length: int,
    ) -> None:  # fmt: skip
        self._store = store
        self._changes = changes
        self._log = LogReader(store, changes)
        self._broker = broker
        self._auth = auth
        self._leadership = leadership
        self._clock = clock
        self._times = times
        self._length = length
        self._feeds: dict[str, Feed] = {}
        self._woken = asyncio.Event()
        self._away: set[str] = set()
        self._epoch = ""
        self.seen: Mapping[str, QueueSeen] = {}

    def wake(self) -> None:
        """A subscription is new, or over: look at once. Harmless at a copy that does not lead."""
        self._woken.set()

    async def run(self) -> None:
        """For ever: a round of looking after all subscriptions, then a while of feeding. Raises Unavailable."""
        await self._leadership.held()
        self._epoch = (await self._store.read(event_log.state)).epoch
        async with asyncio.TaskGroup() as group:
            try:
                while self._leadership.leads:
                    self._woken.clear()
                    await self.round(group)
                    await _until(self._woken, self._times.recheck_s)
                raise Unavailable("another copy of the gateway feeds the subscriptions", code="lease_lost")
            finally:
                self._stop(list(self._feeds))

    async def round(self, group: asyncio.TaskGroup) -> None:
        """Who may still hear; what is read; what is over; then a feed for each of the others.

        All of it as of the moment when it began: what was read then says nothing about a later one.
        """
        now = self._clock()
        subs = await self._store.read_long(subscription_store.live)
        remembered = await self._remembered([sub.bearer for sub in subs if sub.state == OPEN])
        figures = await self._figures() if subs else None
        going: list[Subscription] = []
        for sub in subs:
            if sub.state == ENDED:
                await self._clear(sub)
            elif await self._goes_on(sub, remembered.get(sub.bearer), micros(now)) and sub.state == OPEN:
                going.append(sub)
        await self._note_readers(going, now)
        self._stop(sorted(self._feeds.keys() - {sub.id for sub in going}))
        for sub in going:
            self._keep_fed(group, sub, remembered.get(sub.bearer), figures, now)

    # -- a round --------------------------------------------------------------------------------------------------

    async def _remembered(self, bearers: Sequence[Bearer]) -> dict[Bearer, Remembered]:
        """What each may see by now; nothing while auth is away."""
        unique = list(dict.fromkeys(bearers))
        found: dict[Bearer, Remembered] = {}
        try:
            for start in range(0, len(unique), MOST_BEARERS):
                some = tuple(unique[start : start + MOST_BEARERS])
                body = RememberedRequest(bearers=some)
                answer = await self._auth.ask("POST", "/internal/remembered", RememberedAnswer, body=body)
                found |= zip(some, answer.answers, strict=True)
        except SeraiError as error:
            self._note("auth", error)
            return found
        self._note("auth", None)
        return found

    async def _figures(self) -> Mapping[str, QueueSeen] | None:
        try:
            self.seen = await self._broker.seen()
        except SeraiError as error:
            self._note("broker", error)
            return None
        self._note("broker", None)
        return self.seen

    async def _goes_on(self, sub: Subscription, known: Remembered | None, now: int) -> bool:
        """Judge one; end it or its login where that is due."""
        sight = None if known is None else permissions.sight(sub.owner, known.memberships, known.platform_verbs)
        refusal = "" if known is None else known.refusal
        verdict = subscriptions.judge(
            sub, sight, refusal, now, int(self._times.idle_s * 1e6), int(_OPENING_S * 1e6)
        )  # fmt: skip
        if verdict.due == "ended":
            await self._end(sub, verdict.reason)
            return False
        if verdict.due == "locked" and await self._store.transact(
            lambda connection: subscription_store.locked(connection, sub.id, now)
        ):
            log.info("subscription_locked", id=sub.id)
            await self._at_broker(sub, "shut_out")
        return True

    async def _end(self, sub: Subscription, reason: str) -> None:
        self._stop([sub.id])
        now = micros(self._clock())
        await self._store.transact(lambda connection: subscription_store.ended(connection, sub.id, reason, now))
        log.info("subscription_ended", id=sub.id, vo=sub.vo, owner=sub.owner.subject, reason=reason)
        await self._clear(sub)

    async def _clear(self, sub: Subscription) -> None:
        """Take away what is left of it at the broker; owed until that has worked."""
        if await self._at_broker(sub, "remove"):
            await self._store.transact(lambda connection: subscription_store.cleared(connection, sub.id))

    async def _at_broker(self, sub: Subscription, what: str) -> bool:
        if "broker" in self._away:
            return False  # one wait a round is enough
        try:
            await getattr(self._broker, what)(sub.queue)
        except SeraiError as error:
            self._note("broker", error)
            return False
        return True

    async def _note_readers(self, subs: Sequence[Subscription], now: datetime) -> None:
        """Write down who is being read, now and then: idle ones are ended."""
        stale = micros(now - timedelta(seconds=min(_TOUCH_S, self._times.idle_s / 4)))
        read = [sub.id for sub in subs if sub.active_at < stale and _has_reader(self.seen.get(sub.queue))]
        if read:
            await self._store.transact(lambda connection: subscription_store.touched(connection, read, micros(now)))

    def _keep_fed(
        self, group: asyncio.TaskGroup, sub: Subscription, known: Remembered | None,
        figures: Mapping[str, QueueSeen] | None, now: datetime,
    ) -> None:  # fmt: skip
        feed = self._feeds.get(sub.id)
        if feed is None:
            window = Window(self._length, self._broker.lag_s)
            feed = self._feeds[sub.id] = Feed(sub, subscriptions.cursor_of(sub), window)
            feed.task = group.create_task(self._feed(feed), name=f"gateway.feed.{sub.id}")
        if known is not None:
            feed.sight = permissions.sight(sub.owner, known.memberships, known.platform_verbs)
            feed.sight_at = now
        if figures is not None:
            found = figures.get(sub.queue)
            feed.window.found(found.messages if found else 0, now)
        feed.wake()

    def _stop(self, ids: Sequence[str]) -> None:
        """Feeds end by themselves after what they are at: cancelled, they would take the common channel with them."""
        for id in ids:
            feed = self._feeds.pop(id, None)
            if feed is not None:
                feed.stopped = True
                feed.wake()

    def _note(self, whom: str, error: SeraiError | None) -> None:
        """Say once that somebody is away, and once that they are back."""
        if error is None:
            self._away.discard(whom)
        elif whom not in self._away:
            self._away.add(whom)
            log.warning("subscriptions_wait", whom=whom, culprit=error.what)

    # -- one feed -------------------------------------------------------------------------------------------------

    async def _feed(self, feed: Feed) -> None:
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while not feed.stopped:
            try:
                await self.step(feed)
            except NotFound:
                await self._end(feed.sub, "its queue was deleted at the broker")
            except (Unavailable, Misconfigured) as error:
                pause = backoff.next_s()
                log.warning("feed_waits", id=feed.sub.id, culprit=error.what, again_in_s=round(pause, 3))
                await asyncio.sleep(pause)
            else:
                backoff.reset()

    async def step(self, feed: Feed) -> None:
        """Send what there is room for, or wait for a while for what is missing: sight, room, events."""
        feed.moved.clear()
        sight, room = self._sight(feed), feed.window.room
        if sight is None or room == 0 or self._changes.closed:
            await _until(feed.moved, _WAIT_S)
            return
        cursor = feed.cursor
        entries, looked_to = await self._log.more(cursor.position, PAGE)
        letters, cursor = subscriptions.next_letters(feed.sub, cursor, entries, looked_to, sight, self._epoch, room)
        if letters:
            await self._broker.publish(feed.sub.queue, letters)
            feed.window.sent(len(letters), self._clock())
        if cursor != feed.cursor:
            feed.cursor = cursor
            await self._save(feed, sent=bool(letters))
        else:
            await self._more_events(feed)

    def _sight(self, feed: Feed) -> Sight | None:
        """What its owner may hear of, as long as auth has said so not too long ago."""
        if feed.sight_at is None or (self._clock() - feed.sight_at).total_seconds() > self._times.stale_s:
            return None
        return feed.sight

    async def _save(self, feed: Feed, *, sent: bool) -> None:
        now = self._clock()
        if not sent and feed.saved_at is not None and (now - feed.saved_at).total_seconds() < _SAVE_S:
            return
        cursor = feed.cursor

        def save(connection: Connection) -> None:
            self._leadership.check(connection)
            subscription_store.moved(connection, feed.sub.id, cursor)

        await self._store.transact(save)
        feed.saved_at = now

    async def _more_events(self, feed: Feed) -> None:
        """Wait until the log grows, or something about this feed changes."""
        position = feed.cursor.position
        waits = {
            asyncio.create_task(self._changes.beyond(position, _WAIT_S), name="feed.log"),
            asyncio.create_task(_until(feed.moved, _WAIT_S), name="feed.moved"),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _has_reader(seen: QueueSeen | None) -> bool:
    return seen is not None and seen.readers > 0


async def _until(event: asyncio.Event, most_s: float) -> None:
    try:
        async with asyncio.timeout(most_s):
            await event.wait()
    except TimeoutError:
        return
