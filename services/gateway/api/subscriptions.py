"""Routes for subscriptions: being told of events over AMQP, in a queue of one's own."""

from datetime import datetime
from typing import Literal

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from services.gateway import event_log, requests, subscriptions
from services.gateway.access import Access
from services.gateway.api import bodies, routing
from services.gateway.feeding import Feeding
from services.gateway.subscribing import Credentials, Subscribing
from services.gateway.subscriptions import Subscription, SubscriptionInput
from shared.ports import Store

_BODY_LIMIT = 16_384
_PATH = "/v1/subscriptions"


class SubscriptionDocument(BaseModel):
    """A subscription of yours."""

    id: str
    state: Literal["opening", "open", "ended"]
    reason: str | None = Field(description="Why it has ended.")
    vo: str
    states: list[str] = Field(description="Empty = all.")
    labels: dict[str, str]
    own: bool
    created_at: datetime
    credentials_expire_at: datetime = Field(
        description="Then its connections are closed and its login is refused until you renew it; its queue stays."
    )
    queue: str
    position: str = Field(description="How far the event log was looked through for it: an event's id.")
    waiting: int | None = Field(
        description="Messages in its queue, a few seconds ago; null where this copy of the gateway does not know."
    )
    ended_at: datetime | None


class ConnectionDocument(BaseModel):
    """How to connect (AMQP 0-9-1). The password is told now and never again."""

    url: str = Field(description="With the login in it: a secret.")
    queue: str
    username: str
    password: str


class OpenedDocument(SubscriptionDocument):
    """With the login."""

    connection: ConnectionDocument


class SubscriptionsDocument(BaseModel):
    """Yours, newest first."""

    items: list[SubscriptionDocument]


class SubscriptionRoutes:
    """See each route's own words; they are the API's documentation."""

    def __init__(self, access: Access, subscribing: Subscribing, store: Store, feeding: Feeding) -> None:
        self._access = access
        self._subscribing = subscribing
        self._store = store
        self._feeding = feeding

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        permission, tag, away = "job.view_own", "subscriptions", "subscriptions_unavailable"
        sent = ("invalid_request", "undecodable", "unsupported_media_type", "too_large")
        routing.add(
            app, "POST", _PATH, self.create_subscription, tag=tag, permission=permission, answer=OpenedDocument,
            status=201, problems=(*sent, "forbidden", "subscription_limit", "invalid_cursor", away),
            body="SubscriptionInput",
        )  # fmt: skip
        routing.add(
            app, "GET", _PATH, self.list_subscriptions, tag=tag, permission=permission, answer=SubscriptionsDocument
        )
        one = _PATH + "/{subscription_id}"
        routing.add(
            app, "GET", one, self.get_subscription, tag=tag, permission=permission, answer=SubscriptionDocument,
            problems=("not_found",),
        )  # fmt: skip
        routing.add(
            app, "POST", one + ":renew", self.renew_subscription, tag=tag, permission=permission, answer=OpenedDocument,
            problems=("not_found", "gone", away),
        )  # fmt: skip
        routing.add(
            app, "DELETE", one, self.delete_subscription, tag=tag, permission=permission, status=204,
            problems=("not_found", away),
        )  # fmt: skip

    async def create_subscription(self, request: Request) -> Response:
        """Be told of events over AMQP: a queue of your own, and a login that reads it and does nothing else."""
        caller = await self._access.caller(request)
        body = await bodies.read_body(request, _BODY_LIMIT)
        asked = requests.read(SubscriptionInput, bodies.decode_json(request, body))
        return await self._opened(await self._subscribing.create(caller, asked), status=201)

    async def list_subscriptions(self, request: Request) -> Response:
        """Your subscriptions, newest first; those that have ended in the last days too, and why."""
        caller = await self._access.caller(request)
        epoch = (await self._store.read(event_log.state)).epoch
        items = [self._document(sub, epoch) for sub in await self._subscribing.list(caller)]
        return routing.json_bytes(orjson.dumps({"items": items}))

    async def get_subscription(self, request: Request, subscription_id: str) -> Response:
        """One of them."""
        caller = await self._access.caller(request)
        sub = await self._subscribing.get(caller, subscription_id)
        epoch = (await self._store.read(event_log.state)).epoch
        return routing.json_bytes(orjson.dumps(self._document(sub, epoch)))

    async def renew_subscription(self, request: Request, subscription_id: str) -> Response:
        """A new password for another while. Connections that are open go on; needs a valid token, as at first."""
        caller = await self._access.caller(request)
        return await self._opened(await self._subscribing.renew(caller, subscription_id), status=200)

    async def delete_subscription(self, request: Request, subscription_id: str) -> Response:
        """End it: its login, its connections, its queue with what is in it. Repeatable."""
        caller = await self._access.caller(request)
        await self._subscribing.delete(caller, subscription_id)
        return Response(status_code=204)

    async def _opened(self, made: Credentials, *, status: int) -> Response:
        epoch = (await self._store.read(event_log.state)).epoch
        document = {**self._document(made.sub, epoch), "connection": self._subscribing.connection(made)}
        headers = {"Location": f"{_PATH}/{made.sub.id}", "Cache-Control": "no-store"}
        return routing.json_bytes(orjson.dumps(document), status=status, headers=headers)

    def _document(self, sub: Subscription, epoch: str) -> dict[str, object]:
        found = self._feeding.seen.get(sub.queue)
        return subscriptions.document(sub, epoch, None if found is None else found.messages)
