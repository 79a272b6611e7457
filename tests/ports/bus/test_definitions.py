"""What compose/ gives a broker at its start: users, virtual hosts and rights, from a folder of two files."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import aio_pika
import pytest

from shared.adapters.rabbitmq import permissions, throwaway
from shared.adapters.rabbitmq.throwaway import ThrowAway

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.skipif(throwaway.installed() is None, reason="no RabbitMQ is installed here"),
]
SCRIPT = Path(__file__).parents[3] / "compose" / "rabbitmq" / "make-definitions"
USERS = ("deploy", "gateway", "scheduler", "monitor", "operator", "subscribers")

GUEST = {
    "vhosts": [{"name": "/"}],
    "users": [{"name": "guest", "password_hash": permissions.hashed("guest", b"salt"), "tags": ""}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": "", "write": "", "read": ""}],
}
"""By whom a throw-away broker is asked whether it serves; a broker with definitions makes none by itself."""


async def test_a_broker_that_reads_the_folder_knows_every_user_in_its_own_virtual_host(tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = {f"AMQP_PASSWORD_{user.upper()}": f"word-of-{user}" for user in USERS}
    told = {"PATH": path, "DEFINITIONS": str(folder)} | words
    await asyncio.to_thread(subprocess.run, [SCRIPT], env=told, check=True, timeout=60)
    (folder / "guest.json").write_text(json.dumps(GUEST))
    broker = await ThrowAway.start(tmp_path / "broker", [f"load_definitions = {folder}"])
    try:
        for user in USERS:
            vhost = "public" if user == "subscribers" else "serai"
            login = f"amqp://serai-{user}:word-of-{user}@127.0.0.1:{broker.port}"
            await (await aio_pika.connect(f"{login}/{vhost}")).close()
            with pytest.raises(aio_pika.exceptions.AMQPError):
                await aio_pika.connect(f"{login}/{'serai' if vhost == 'public' else 'public'}")
    finally:
        await broker.stop()
