"""Reads a Serai subscription with plain aio-pika: each event once, in order, through restarts of anything.

python consumer.py POSITION_FILE    the login is in SERAI_AMQP_URL (`connection.url` of POST /v1/subscriptions)
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import aio_pika


async def main(url: str, kept: Path) -> None:
    done = kept.read_text() if kept.exists() else ""
    connection = await aio_pika.connect_robust(url, timeout=10)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=50)
    login = connection.url.user  # the queue has the login's name
    queue = await channel.get_queue(login, ensure=False)
    async with queue.iterator() as messages:
        async for message in messages:
            here = message.headers["serai-event-id"]
            if not done or int(here.split("-")[1]) > int(done.split("-")[1]):
                event = json.loads(message.body)
                print(here, event["type"], event.get("subject", ""), flush=True)  # your work is here
                done = here
                kept.write_text(done)  # together with your work, best in one transaction
            await message.ack()


asyncio.run(main(os.environ["SERAI_AMQP_URL"], Path(sys.argv[1])))
