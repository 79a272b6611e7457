"""H9 on real parts: no token, key or secret in PostgreSQL, RabbitMQ, Consul, logs, sites, or what OTLP carries away.

As `tests/scenarios/test_no_secret_leaves.py` does for the embedded platform. Processes log at `debug` here.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import psycopg
import pytest

from serai.client import Serai
from services.auth.dev_issuer import demo_token
from services.embedded.folder import next_free_port
from shared.runtime.redacting import MARK
from shared.runtime.serving import HttpServer
from tests.scenarios.test_no_secret_leaves import spellings
from tests.system.real.marks import REAL
from tests.system.real.whole import Whole, whole

pytestmark = [mark for mark in REAL if mark.name != "asyncio"] + [pytest.mark.asyncio]

CLIMATE: Final = "vo.climate.example"
SECRET: Final = "canary-77c1-0f3e-nobody-tells"
SMALL: Final = {"cpu": 0.1, "memory": 32, "disk": 10}
DEADLINE_S: Final = 60.0
MEANT: Final = {
    "secret": ("/main/secrets/key",), "key of a service": ("platform.json",), "service token": ("platform.json",),
}  # fmt: skip
"""Files that may hold what is proof: the task's own secret, and what services prove themselves with."""


class Collector:
    """An OpenTelemetry collector that keeps every byte it is sent."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.requests = 0

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]
    ) -> None:
        more = True
        while more:
            message = await receive()
            self.sent += message.get("body", b"")
            more = message.get("more_body", False)
        self.sent += b"\n".join(name + b": " + value for name, value in scope["headers"])
        self.requests += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = HttpServer(self, "127.0.0.1", next_free_port(19_700))
        await server.start()
        yield server.address
        await server.stop()


async def test_h9_nothing_that_proves_who_somebody_is_is_left_lying_about_on_real_parts(tmp_path: Path) -> None:
    collector = Collector()
    async with (
        collector.listening() as otlp,
        whole(tmp_path, copies=1, SERAI_OTLP_ENDPOINT=otlp, SERAI_LOG_LEVEL="debug") as platform,
    ):
        tokens = [await demo_token(platform.up.issuer, user) for user in ("alice", "bob", "olga")]
        told = await a_day_of_work(platform, tokens)
        places = dict(await rows(platform)) | dict(files(platform.up.folder))
    places |= dict(files(platform.up.folder / "logs", "at the end, "))
    places |= {"spans": collector.sent.decode("latin-1"), "answers": told}

    found = {"token": {token.rsplit(".", 1)[1] for token in tokens}, "secret": {SECRET}, **kept(platform.up.folder)}
    assert collector.requests > 3 and "job.running" in places["spans"], "the check of the check"
    for place in ("auth.audit_log", "scheduler.jobs", "gateway.event_log"):
        assert any(name.startswith(place) for name in places), place
    assert any("rabbitmq" in place and "x-grant" in text for place, text in places.items())
    assert [
        f"{kind} in {place}"
        for kind, values in found.items()
        for value in values
        for place, text in places.items()
        if not place.endswith(MEANT.get(kind, ("-",))) and any(spelling in text for spelling in spellings(value))
    ] == []
    assert [place for place, text in places.items() if MARK in text] == [], "the last line had nothing to do"


async def a_day_of_work(platform: Whole, tokens: list[str]) -> str:
    """Jobs that succeed with a secret, fail, are cancelled and refused; wrong ways to present oneself. All answers."""
    async with Serai(platform.up.gateway, tokens[0]) as alice:
        told = await jobs(platform, alice, tokens)
    for bad in (tokens[0][:-3] + "AAA", f"{tokens[0]} {tokens[0]}", "x"):
        told.append((await get(platform, bad, "/v1/jobs")).text)
    told.append((await platform.http.get(f"{platform.up.gateway}/v1/jobs?access_token={tokens[0]}")).text)
    told.append((await platform.http.get(f"{platform.up.gateway}/v1/{tokens[0]}")).text)
    return "\n".join(told)


async def jobs(platform: Whole, alice: Serai, tokens: list[str]) -> list[str]:
    told: list[str] = []
    await alice.set_secret("key", SECRET, vo=CLIMATE)
    script = "test -s $NOMAD_SECRETS_DIR/key && env && exit $0"
    for code in (0, 3):
        job = await alice.submit({
            "name": "day", "vo": CLIMATE, "command": ["/bin/sh", "-c", script, str(code)], "resources": SMALL,
            "secrets": [{"name": "key", "file": "key"}],
        })  # fmt: skip
        [ended] = await alice.wait([job.id], timeout_s=DEADLINE_S)
        assert ended.state == ("failed" if code else "succeeded"), ended.reason
        for suffix in ("", "/spec", "/timeline", "/explain", "/logs"):
            told.append((await get(platform, tokens[0], f"/v1/jobs/{job.id}{suffix}")).text)
    endless = await alice.submit({"name": "s", "vo": CLIMATE, "command": ["sleep", "600"], "resources": SMALL})
    await alice.cancel(endless.id)
    await alice.wait([endless.id], timeout_s=DEADLINE_S)
    told.append((await get(platform, tokens[1], f"/v1/jobs/{endless.id}")).text)
    return told


async def get(platform: Whole, token: str, path: str) -> httpx.Response:
    return await platform.http.get(platform.up.gateway + path, headers={"Authorization": f"Bearer {token}"})


async def rows(platform: Whole) -> list[tuple[str, str]]:
    """Every row of every table of every service, as text; what is bytes as these bytes."""
    database = platform.up.parts.database
    assert database is not None
    found = []
    for service in ("auth", "scheduler", "monitor", "gateway"):
        async with await psycopg.AsyncConnection.connect(database.url(f"serai_{service}"), autocommit=True) as opened:
            tables = await opened.execute(
                "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE' and "
                "table_schema not in ('pg_catalog', 'information_schema')"
            )
            for schema, table in await tables.fetchall():
                query = psycopg.sql.SQL("select * from {}").format(psycopg.sql.Identifier(schema, table))
                held = await (await opened.execute(query)).fetchall()
                if held:
                    found.append((f"{service}.{table}", "\n".join(plain(value) for row in held for value in row)))
    return found


def plain(value: Any) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)


def files(folder: Path, named: str = "") -> Iterator[tuple[str, str]]:
    """Every file under a folder that can be read, the broker's, Consul's and the sites' among them."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            try:
                yield named + str(file.relative_to(folder)), file.read_bytes().decode("latin-1")
            except (FileNotFoundError, PermissionError):  # its owner has just taken it away, or shows it to nobody
                continue


def kept(folder: Path) -> dict[str, set[str]]:
    """What services prove themselves with."""
    known = json.loads((folder / "platform.json").read_text())
    return {
        "key of a service": {private for private, _ in known["service_keys"].values()},
        "service token": {known["service_token"]},
    }
