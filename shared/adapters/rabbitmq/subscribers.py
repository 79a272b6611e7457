"""The SubscriberBroker on RabbitMQ, 3.10 to 4.x: queues and logins over its management API, letters over AMQP.

A virtual host of its own (`public`), or a broker of its own, which is better: whoever may make users there is its
administrator. A login may read the one queue of its name and neither declare, bind nor publish, hence no dead-letter
argument or binding can lead anywhere (docs/decisions/023).
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from yarl import URL

from shared.adapters.rabbitmq import wire
from shared.adapters.rabbitmq.addresses import address
from shared.adapters.rabbitmq.connections import Link
from shared.adapters.rabbitmq.management import Management
from shared.adapters.rabbitmq.permissions import NOTHING, SALT_BYTES, hashed
from shared.adapters.rabbitmq.publishing import Parcel, Publisher
from shared.contracts.codec import EVENT_CONTENT_TYPE
from shared.contracts.subscriptions import EVENT_ID, PREVIOUS_ID, QUEUE_PREFIX, VHOST, Letter
from shared.errors import Misconfigured, NotFound, Unavailable
from shared.ports import QueueSeen

LAG_S: Final = 10.0
"""A quorum queue counts itself every 5 s (`quorum_tick_interval`), and the management passes that on as late again."""
CONNECTIONS: Final = 4
CHANNELS: Final = 8
LOOKS: Final = 20
LOOK_S: Final = 0.1
NEVER: Final = 1_000_000
"""Redeliveries before a message is dropped; 4.x would drop after 20, and nobody would be told."""


class RabbitSubscribers:
    """See `shared.ports.SubscriberBroker`. Nothing is contacted before the first call."""

    def __init__(
        self, amqp_url: str, management_url: str, *, public_url: str = "", length: int, expires_s: float,
        lag_s: float = LAG_S,
    ) -> None:  # fmt: skip
        """`amqp_url` names the virtual host. Raises Misconfigured for an address that cannot work."""
        link = Link(amqp_url, "serai subscriptions")
        self._vhost = address(amqp_url).url.path.removeprefix("/")
        if not self._vhost:
            raise Misconfigured(f"the address of the subscribers' RabbitMQ names no virtual host: .../{VHOST}")
        self._link = link
        self._publisher = Publisher(link)
        self._management = Management(management_url)
        self._public = public_url or str(URL(amqp_url).with_user(None).with_query(None))
        self._length = length
        self._expires_s = expires_s
        self._lag_s = lag_s

    @property
    def address(self) -> str:
        return self._public

    @property
    def lag_s(self) -> float:
        return self._lag_s

    async def open(self, name: str, password: str) -> None:
        await self._management.put("queues", self._vhost, name, body=self._queue())
        await self._management.put("users", name, body=_login(password))
        for limit, value in (("max-connections", CONNECTIONS), ("max-channels", CHANNELS)):
            await self._management.put("user-limits", name, limit, body={"value": value})
        rights = {"configure": NOTHING, "write": NOTHING, "read": f"^{re.escape(name)}$"}
        await self._management.put("permissions", self._vhost, name, body=rights)

    async def shut_out(self, name: str) -> None:
        """Deleting a user closes its connections; those that were just being made are looked for until none is left."""
        await self._management.delete("users", name)
        for _ in range(LOOKS):
            if not await self._management.get("connections", "username", name):
                return
            with contextlib.suppress(Unavailable):  # it answers 500 when one of them closes in the same moment
                await self._management.delete("connections", "username", name)
            await asyncio.sleep(LOOK_S)
        raise Unavailable(f"{self._management.where}: connections of {name} are still open", code="subscribers_away")

    async def remove(self, name: str) -> None:
        await self.shut_out(name)
        await self._management.delete("queues", self._vhost, name)

    async def publish(self, name: str, letters: Sequence[Letter]) -> None:
        try:
            await self._publisher.publish([Parcel("", name, _packed(name, letter)) for letter in letters])
        except Misconfigured as error:
            if error.code == "unroutable":
                raise NotFound(f"there is no queue {name}", code="not_found") from error
            raise

    async def seen(self) -> Mapping[str, QueueSeen]:
        columns = "name,messages,consumers"
        found = await self._management.get("queues", self._vhost, columns=columns)
        if found is None:
            raise Misconfigured(f"{self._management.where}: there is no virtual host {self._vhost!r}")
        return {
            each["name"]: QueueSeen(each.get("messages", 0), each.get("consumers", 0))
            for each in found
            if each["name"].startswith(QUEUE_PREFIX)
        }

    async def ready(self) -> None:
        """Return when both ways to the broker work. Raises Unavailable, Misconfigured."""
        await self.seen()
        async with self._link.channel("look whether it is there"):
            pass

    async def close(self) -> None:
        await self._publisher.close()
        await self._link.close()
        await self._management.close()

    def _queue(self) -> dict[str, Any]:
        """Quorum: what is confirmed outlives a broker. One reader at a time gets letters, so that order holds."""
        arguments = {
            "x-queue-type": "quorum", "x-max-length": self._length, "x-overflow": "drop-head",
            "x-single-active-consumer": True, "x-delivery-limit": NEVER, "x-expires": int(self._expires_s * 1000),
        }  # fmt: skip
        return {"durable": True, "auto_delete": False, "arguments": arguments}


def _login(password: str) -> dict[str, str]:
    """The broker is told a salted hash and never the password."""
    return {
        "password_hash": hashed(password, secrets.token_bytes(SALT_BYTES)),
        "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "",
    }  # fmt: skip


def _packed(name: str, letter: Letter) -> wire.Packed:
    """The message id is never that of another message in flight, else a return is credited to the wrong one."""
    headers = {EVENT_ID: letter.event_id, PREVIOUS_ID: letter.previous_id}
    return wire.persistent(letter.body, headers, EVENT_CONTENT_TYPE, f"{name}/{letter.event_id}", letter.type)
