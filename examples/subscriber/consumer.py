"""Reads a Serai subscription with plain aio-pika: each event once, in order, through restarts of anything.

python consumer.py POSITION_FILE    the login is in SERAI_AMQP_URL (`connection.url` of POST /v1/subscriptions)
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import aio_pika

KEPT = Path(sys.argv[1])


def handle(position: str, event: dict) -> None:
    print(position, event["type"], event.get("subject", ""), flush=True)  # your work is here,
    KEPT.write_text(position)  # and the position is kept together with it, best in one transaction


async def main(url: str, done: str) -> None:
    connection = await aio_pika.connect(url, timeout=10)  # lost: this ends, and is started again by what runs it
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=50)
    queue = await channel.get_queue(connection.url.user, ensure=False)  # the queue has the login's name
    async with queue.iterator() as messages:
        async for message in messages:
            here = message.headers["serai-event-id"]
            if not done or int(here.split("-")[1]) > int(done.split("-")[1]):  # else it came twice
                handle(here, json.loads(message.body))
                done = here
            await message.ack()


asyncio.run(main(os.environ["SERAI_AMQP_URL"], KEPT.read_text() if KEPT.exists() else ""))
