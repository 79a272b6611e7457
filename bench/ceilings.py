"""What the real parts do by themselves, asked by plain clients: the denominators of `bench.real`.

Each is measured at the very server that the platform uses, in the same run, while the platform stands idle beside it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import aio_pika
import httpx2
import psycopg

BODY: Final = b"x" * 1024
IN_FLIGHT: Final = 64
_QUEUE: Final = "bench.ceiling"


async def publish_and_consume(url: str, seconds: float) -> tuple[float, float]:
    """Messages a second through a quorum queue: published with confirms (64 in flight), consumed with single acks."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=IN_FLIGHT)
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)

        async def publish() -> None:
            await channel.default_exchange.publish(message, _QUEUE)

        published, took_s = await _closed_loop(publish, IN_FLIGHT, seconds)
        consumed_s = await _consume(queue, published)
        await queue.delete(if_unused=False, if_empty=False)
    return published / took_s, published / consumed_s


async def _consume(queue: aio_pika.abc.AbstractQueue, count: int) -> float:
    began, left = time.perf_counter(), count
    async with asyncio.timeout(120), queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            left -= 1
            if not left:
                break
    return time.perf_counter() - began


async def commits(url: str, seconds: float, *, connections: int) -> float:
    """Commits a second of one row of 1 kB each, on so many connections to a table of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        await owner.execute("CREATE TABLE IF NOT EXISTS bench_ceiling (body bytea)")
        opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(connections)]
        free = asyncio.Queue[psycopg.AsyncConnection[Any]]()
        for connection in opened:
            free.put_nowait(connection)

        async def commit() -> None:
            connection = await free.get()
            await connection.execute("INSERT INTO bench_ceiling VALUES (%s)", (BODY,))
            free.put_nowait(connection)

        count, took_s = await _closed_loop(commit, connections, seconds)
        for connection in opened:
            await connection.close()
        await owner.execute("DROP TABLE bench_ceiling")
    return count / took_s


async def registers(client: httpx2.AsyncClient, seconds: float) -> float:
    """Jobs a second that one client registers one after another; no node can run them. They are purged after."""
    registered: list[str] = []

    async def register() -> None:
        id = f"bench-register-{len(registered)}"
        job = batch_job(id, "/bin/true", (), cpu_mhz=100, memory_mb=64)
        job["Constraints"] = [{"LTarget": "${attr.kernel.name}", "RTarget": "none", "Operand": "="}]
        (await client.put("/v1/jobs", json={"Job": job})).raise_for_status()
        registered.append(id)

    count, took_s = await _closed_loop(register, 1, seconds)
    for id in registered:
        (await client.delete(f"/v1/job/{id}", params={"purge": "true"})).raise_for_status()
    return count / took_s


def batch_job(id: str, command: str, args: tuple[str, ...], *, cpu_mhz: int, memory_mb: int) -> dict[str, Any]:
    """A Nomad job of one task, run once, as a plain client would post it (JSON job specification)."""
    task = {
        "Name": "main", "Driver": "raw_exec", "Config": {"command": command, "args": list(args)},
        "Resources": {"CPU": cpu_mhz, "MemoryMB": memory_mb}, "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
    }  # fmt: skip
    group = {
        "Name": "main", "Count": 1, "Tasks": [task], "EphemeralDisk": {"SizeMB": 20},
        "RestartPolicy": {"Attempts": 0, "Mode": "fail"}, "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
    }  # fmt: skip
    return {"ID": id, "Name": id, "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}


async def _closed_loop(one: Callable[[], Any], in_flight: int, seconds: float) -> tuple[int, float]:
    """Call `one` again and again, so many at a time, for so long; how many ended, and in what time."""
    began, count = time.perf_counter(), 0

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            await one()
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return count, time.perf_counter() - began
