"""The use cases of subscriptions: make, look, renew, delete. What then reaches a queue is `feeding.py`'s."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from services.gateway import event_log, resume, subscription_store, subscriptions
from services.gateway.access import Caller
from services.gateway.subscriptions import ENDED, OPENING, Beginning, Subscription, SubscriptionInput
from shared.errors import Conflict, NotFound, Refused, SeraiError
from shared.ports import Clock, Store, SubscriberBroker
from shared.runtime import logs
from shared.runtime.clock import micros

log = logs.get("gateway.subscribing")

PASSWORD_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How many subscriptions there may be, and how long a login is good."""

    of_user: int
    of_vo: int
    credentials_s: float


@dataclass(frozen=True, slots=True)
class Credentials:
    """The login of one subscription; told once, kept nowhere."""

    sub: Subscription
    password: str


class Subscribing:
    """`broker` None = this platform has none for subscribers."""

    def __init__(
        self, store: Store, broker: SubscriberBroker | None, clock: Clock, ceilings: Ceilings,
        new_id: Callable[[], UUID], wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._broker = broker
        self._clock = clock
        self._ceilings = ceilings
        self._new_id = new_id
        self._wake = wake

    async def create(self, caller: Caller, asked: SubscriptionInput) -> Credentials:
        """A new subscription, set up at the broker. Raises Refused, Conflict (code `subscription_limit`), Unavailable.

        Its row comes first: whatever happens after that, what was made at the broker is found and taken away again.
        """
        broker = self._there()
        asked.checked()
        if not caller.sight.sees_all_of(asked.vo):
            caller.must_belong_to(asked.vo)
        since = subscriptions.read_since(asked.since, self._clock())
        sub = await self._store.transact(lambda connection: self._added(connection, caller, asked, since))
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        try:
            await broker.open(sub.queue, password)
        except SeraiError as error:
            await self._end(sub.id, "it could not be set up at the broker")
            log.warning("subscription_not_opened", id=sub.id, culprit=error.what)
            raise
        if not await self._store.transact(lambda connection: subscription_store.opened(connection, sub.id)):
            raise Conflict("the subscription was ended while it was being set up: make it again", code="conflict")
        self._wake()
        return Credentials(await self.get(caller, sub.id), password)

    async def list(self, caller: Caller) -> list[Subscription]:
        """The caller's own, newest first; none where there is no broker for them."""
        return await self._store.read(
            lambda connection: subscription_store.of_owner(connection, caller.context.principal)
        )

    async def get(self, caller: Caller, id: str) -> Subscription:
        """One of the caller's own. Raises NotFound."""
        sub = await self._store.read(lambda connection: subscription_store.get(connection, id))
        if sub is None or not caller.sight.owns(sub.owner.issuer, sub.owner.subject):
            raise NotFound(
                "you have no subscription with this id; `GET /v1/subscriptions` lists those that you have",
                code="not_found",
            )
        return sub

    async def renew(self, caller: Caller, id: str) -> Credentials:
        """A new password, good for another while; connections that are open stay. Raises Refused (`gone`)."""
        sub, broker = await self.get(caller, id), self._there()
        now, context = self._clock(), caller.context
        until = micros(self._until(now))
        renewed = sub.state != ENDED and await self._store.transact(
            lambda connection: subscription_store.renewed(
                connection, id, until, micros(now), context.client, context.token_id
            )
        )
        if not renewed:
            epoch = (await self._store.read(event_log.state)).epoch
            raise Refused(
                f"the subscription has ended: {sub.reason or 'it was never set up'}. Make a new one, with "
                f'"from": "{resume.event_id(epoch, sub.position)}" to go on where it was',
                code="gone",
            )
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        await broker.open(sub.queue, password)
        return Credentials(await self.get(caller, id), password)

    async def delete(self, caller: Caller, id: str) -> None:
        """End it; its queue goes with what is in it. Ending it again changes nothing."""
        sub, broker = await self.get(caller, id), self._there()
        await self._end(id, "you deleted it")
        try:
            await broker.remove(sub.queue)
        except SeraiError as error:
            log.warning("subscription_not_cleared", id=id, culprit=error.what)  # the feeding copy owes it from now on
        self._wake()

    def connection(self, made: Credentials) -> dict[str, str]:
        """How its reader connects."""
        scheme, _, rest = self._there().address.partition("://")
        user = made.sub.queue
        url = f"{scheme}://{user}:{made.password}@{rest}"
        return {"url": url, "queue": user, "username": user, "password": made.password}

    def _there(self) -> SubscriberBroker:
        if self._broker is None:
            raise Refused(
                "this platform has no broker for subscribers; read `GET /v1/events` (SSE) instead, or start the "
                "platform with `--bus amqp`",
                code="subscriptions_unavailable",
            )
        return self._broker

    def _added(
        self, connection: Connection, caller: Caller, asked: SubscriptionInput, since: datetime | str | None
    ) -> Subscription:
        self._check_limits(connection, caller, asked.vo)
        state = event_log.state(connection)
        first = event_log.first_since(connection, micros(since)) if isinstance(since, datetime) else None
        begin = subscriptions.begin(state, since, first)
        sub = self._new(caller, asked, begin, resume.event_id(state.epoch, begin.position))
        subscription_store.add(connection, sub)
        return sub

    def _check_limits(self, connection: Connection, caller: Caller, vo: str) -> None:
        mine = subscription_store.live_count(connection, owner=caller.context.principal)
        if mine >= self._ceilings.of_user:
            raise Conflict(
                f"you have {mine} subscriptions, as many as one user may have; delete one (GET /v1/subscriptions)",
                code="subscription_limit",
            )
        theirs = subscription_store.live_count(connection, vo=vo)
        if theirs >= self._ceilings.of_vo:
            raise Conflict(
                f"the VO {vo} has {theirs} subscriptions, as many as one VO may have; its members should delete some",
                code="subscription_limit",
            )

    def _new(self, caller: Caller, asked: SubscriptionInput, begin: Beginning, behind: str) -> Subscription:
        now, context = self._clock(), caller.context
        return Subscription(
            id=str(self._new_id()), owner=context.principal, client=context.client, token_id=context.token_id,
            vo=asked.vo, states=frozenset(asked.states), labels=tuple(sorted(asked.labels.items())), own=asked.own,
            state=OPENING, reason="", created_at=micros(now), credentials_until=micros(self._until(now)),
            active_at=micros(now), position=begin.position, previous=behind, gap_reason=begin.gap,
            gap_behind=begin.behind,
        )  # fmt: skip

    def _until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._ceilings.credentials_s)

    async def _end(self, id: str, reason: str) -> None:
        now = micros(self._clock())
        await self._store.transact(lambda connection: subscription_store.ended(connection, id, reason, now))
