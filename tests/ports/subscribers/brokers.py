"""A SubscriberBroker under test, and a reader outside as they would come. One class for each adapter."""

import asyncio
import secrets
from abc import ABC, abstractmethod

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from yarl import URL

from shared.adapters.rabbitmq.subscribers import RabbitSubscribers
from shared.adapters.rabbitmq.throwaway import Offer, ThrowAway
from shared.contracts.subscriptions import EVENT_ID, PREVIOUS_ID, QUEUE_PREFIX, Letter
from shared.ports import SubscriberBroker
from tests.doubles.subscriber_broker import MemorySubscribers
from tests.pacing import pause

DEADLINE_S = 60.0
LENGTH = 20
Heard = tuple[str, str, bytes]


def a_name() -> str:
    return QUEUE_PREFIX + secrets.token_hex(8)


def letters(first: int, last: int) -> list[Letter]:
    return [Letter(f"e-{n}", f"e-{n - 1}", "eu.serai.job.queued.v1", b"%d" % n) for n in range(first, last + 1)]


class BrokerUnderTest(ABC):
    """`broker` is the adapter; its queues hold `LENGTH` letters."""

    broker: SubscriberBroker

    @abstractmethod
    async def read(self, name: str, password: str, count: int) -> list[Heard]:
        """What a reader with this login takes out of the queue. Raises PermissionError when it is not let in."""

    @abstractmethod
    async def listen(self, name: str, password: str) -> "Listening":
        """A reader that is connected and takes nothing. Raises PermissionError."""


class Listening(ABC):
    """A reader that holds what it got."""

    @abstractmethod
    def cut(self) -> bool:
        """Whether its connection was closed."""

    @abstractmethod
    async def leave(self) -> None:
        """Close it."""


class MemoryUnderTest(BrokerUnderTest):
    def __init__(self) -> None:
        self.memory = MemorySubscribers(LENGTH)
        self.broker = self.memory

    async def read(self, name: str, password: str, count: int) -> list[Heard]:
        self._let_in(name, password)
        return [(each.event_id, each.previous_id, each.body) for each in self.memory.read(name, count)]

    async def listen(self, name: str, password: str) -> Listening:
        self._let_in(name, password)
        self.memory.queues[name].readers += 1
        return _InMemory(self.memory, name)

    def _let_in(self, name: str, password: str) -> None:
        queue = self.memory.queues.get(name)
        if queue is None or queue.password != password:
            raise PermissionError(name)


class _InMemory(Listening):
    def __init__(self, memory: MemorySubscribers, name: str) -> None:
        self._memory, self._name = memory, name

    def cut(self) -> bool:
        return self._name not in self._memory.queues or self._memory.queues[self._name].readers == 0

    async def leave(self) -> None:
        self._memory.queues[self._name].readers -= 1


class RabbitUnderTest(BrokerUnderTest):
    """`offer` has the addresses as the gateway is told them."""

    def __init__(self, process: ThrowAway, offer: Offer) -> None:
        self.process = process
        self.offer = offer
        self.rabbit = RabbitSubscribers(
            offer.subscribers_amqp_url, offer.subscribers_management_url, length=LENGTH, expires_s=86_400
        )
        self.broker = self.rabbit
        self._connections: list[AbstractConnection] = []

    @classmethod
    async def start(cls, process: ThrowAway) -> "RabbitUnderTest":
        return cls(process, await process.for_subscribers())

    async def clean(self) -> None:
        for connection in self._connections:
            if not _dead(connection):
                await connection.close()
        for name in await self.rabbit.seen():
            await self.rabbit.remove(name)
        await self.rabbit.close()

    async def connect(self, name: str, password: str, vhost: str = "public") -> AbstractConnection:
        """A connection with this login. Raises PermissionError when it is refused."""
        url = URL(self.offer.subscribers_amqp_url).with_user(name).with_password(password).with_path(f"/{vhost}")
        try:
            connection = await aio_pika.connect(url, timeout=5)
        except (aio_pika.exceptions.AMQPError, OSError) as error:
            raise PermissionError(repr(error)) from error
        self._connections.append(connection)
        return connection

    async def read(self, name: str, password: str, count: int) -> list[Heard]:
        connection = await self.connect(name, password)
        channel = await connection.channel()
        await channel.set_qos(count)
        queue = await channel.get_queue(name, ensure=False)
        heard: list[Heard] = []
        async with asyncio.timeout(DEADLINE_S), queue.iterator() as came:
            async for message in came:
                await message.ack()
                heard.append((str(message.headers[EVENT_ID]), str(message.headers[PREVIOUS_ID]), message.body))
                if len(heard) == count:
                    break
        await connection.close()
        return heard

    async def listen(self, name: str, password: str) -> Listening:
        connection = await self.connect(name, password)
        channel = await connection.channel()
        queue = await channel.get_queue(name, ensure=False)
        await queue.consume(_keep, consumer_tag="listener")
        return _Connected(connection)


class _Connected(Listening):
    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    def cut(self) -> bool:
        return _dead(self._connection)

    async def leave(self) -> None:
        await self._connection.close()


async def _keep(message: AbstractIncomingMessage) -> None:
    """Take a message and settle nothing."""


def _dead(connection: AbstractConnection) -> bool:
    transport = connection.transport
    return connection.is_closed or transport is None or transport.connection.is_closed


async def is_cut(listening: Listening) -> bool:
    """Whether its connection is closed, soon."""
    async with asyncio.timeout(DEADLINE_S):
        while not listening.cut():
            await pause(0.05)
    return True
