"""Parts that run and services that do not yet: what a single process needs, for tests of how it starts."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import psycopg
import yaml

from services.embedded.folder import next_free_port
from shared.adapters.consul import throwaway as consul
from shared.adapters.postgres import throwaway as postgres
from shared.adapters.rabbitmq import declare
from shared.adapters.rabbitmq import throwaway as rabbitmq
from shared.runtime.service_identity import SERVICES, made_key
from tests import pacing
from tests.system.processes import Ended, run, started

MASTER: Final = "11111111-2222-3333-4444-555555555555"
_ACL: Final = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
_SITES: Final = {
    "clusters": [{"name": "prague", "region": "prague"}],
    "sites": [
        {
            "name": "prague", "datacenter": "dc1", "allowed_hosts": ["127.0.0.1"], "plain_http": True,
            "vos": ["vo.climate.example"],
        }
    ],
}  # fmt: skip
_SITE: Final = {
    "ID": "serai-site-prague", "Name": "serai-site", "Address": "127.0.0.1", "Port": 4646,
    "Meta": {"site": "prague", "country": "CZ", "nomad_address": "http://127.0.0.1:14999", "nomad_region": "prague"},
}  # fmt: skip
LOOK_S: Final = 0.1
DEADLINE_S: Final = 60.0
KEYS: Final = {service: made_key() for service in SERVICES}
PUBLIC: Final = ",".join(f"{service}={public}" for service, (_, public) in KEYS.items())


@dataclass
class Ground:
    """The parts, all well. `good` is the environment in which a service finds everything."""

    folder: Path
    database: postgres.ThrowAway
    broker: rabbitmq.ThrowAway
    consul: consul.ThrowAwayConsul
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=10))
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def good(self, service: str) -> dict[str, str]:
        """On a database of its own. Without Consul; its site is away, and a service starts nevertheless."""
        number = next(self._numbers)
        name = f"{service}_{number}"
        await self.database.database(name)
        sites = self.folder / "sites.yaml"
        sites.write_text(yaml.safe_dump(_in_file()))
        return {
            "SERAI_SERVICE_KEY": KEYS[service][0], "SERAI_SERVICE_KEYS": PUBLIC,
            "SERAI_DATABASE_URL": self.database.url(name),
            "SERAI_AMQP_URL": self.broker.url, "SERAI_SITES": str(sites), "SERAI_AUTH_DEV_MODE": "true",
            "SERAI_PORT": str(next_free_port(19_000 + 10 * number)), "SERAI_LOG_LEVEL": "info",
        }  # fmt: skip

    async def sql(self, statement: str, database: str = "postgres") -> None:
        """As the database's administrator."""
        url = self.database.url(database)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            await connection.execute(statement)

    def with_consul(self, environment: Mapping[str, str], token: str = MASTER) -> dict[str, str]:
        """The same, where Consul tells where the site is."""
        sites = self.folder / "sites-in-consul.yaml"
        sites.write_text(yaml.safe_dump(_SITES))
        address = {"SERAI_CONSUL__ADDRESS": self.consul.address, "SERAI_CONSUL__TOKEN": token}
        return dict(environment) | address | {"SERAI_SITES": str(sites)}

    async def in_consul(self, path: str, body: Any) -> None:
        """As Consul's administrator."""
        headers = {"X-Consul-Token": MASTER}
        (await self.http.put(self.consul.address + path, json=body, headers=headers)).raise_for_status()

    async def register_site(self) -> None:
        await self.in_consul("/v1/agent/service/register", _SITE)


@dataclass
class Starting:
    """A service that was started, seen from outside."""

    process: asyncio.subprocess.Process
    address: str
    http: httpx.AsyncClient
    log: Path

    async def readiness(self) -> dict[str, Any]:
        """What `/readyz` says; empty while nobody listens yet."""
        with contextlib.suppress(httpx.TransportError):
            found: dict[str, Any] = (await self.http.get(f"{self.address}/readyz")).json()
            return found
        return {}

    async def says(self, dependency: str, *words: str) -> dict[str, Any]:
        """What `/readyz` says once all the words are in what it says of a dependency."""
        said: dict[str, Any] = {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    said = await self.readiness()
                    if all(word in said.get("checks", {}).get(dependency, "") for word in words) and said:
                        return said
                    assert self.process.returncode is None, f"it ended: {self.told}"
                    await pacing.pause(LOOK_S)
        except TimeoutError:
            raise AssertionError(f"never said {words} of {dependency}, but {said}\n{self.told}") from None

    async def opens(self) -> dict[str, Any]:
        """What `/readyz` says when the service works, whatever other services it still misses."""
        async with asyncio.timeout(DEADLINE_S):
            while (said := await self.readiness()).get("status", "starting") == "starting":
                assert self.process.returncode is None, f"it ended: {self.told}"
                await pacing.pause(LOOK_S)
        return said

    @property
    def told(self) -> str:
        """Its log."""
        return self.log.read_text()


@asynccontextmanager
async def starting(ground: Ground, service: str, environment: Mapping[str, str]) -> AsyncIterator[Starting]:
    """A service in an environment; killed at the end."""
    log = ground.folder / f"{service}-{environment['SERAI_PORT']}.log"
    words = ("sh", "-c", f'exec "$@" 2> {log}', "sh", sys.executable, "-m", "services", service)
    async with started(*words, folder=ground.folder, **environment) as process:
        yield Starting(process, f"http://127.0.0.1:{environment['SERAI_PORT']}", ground.http, log)


async def command(ground: Ground, *words: str) -> Ended:
    """A command of the operators."""
    return await run("serai-platform", *words, folder=ground.folder)


@asynccontextmanager
async def ground(folder: Path) -> AsyncIterator[Ground]:
    """A database server, a broker with its topology, a Consul that denies what no token allows."""
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres.server(durable=False))
        broker = await rabbitmq.ThrowAway.start(folder / "rabbitmq")
        stack.push_async_callback(broker.stop)
        await declare(broker.url)
        agent = await consul.ThrowAwayConsul.start(folder / "consul", more={"acl": _ACL}, token=MASTER)
        stack.push_async_callback(agent.stop)
        made = Ground(folder, database, broker, agent)
        stack.push_async_callback(made.http.aclose)
        yield made


def _in_file() -> dict[str, Any]:
    cluster = {"name": "prague", "address": "http://127.0.0.1:14999", "region": "prague"}
    site = {"name": "prague", "cluster": "prague", "country": "CZ", "vos": ["vo.climate.example"]}
    return {"clusters": [cluster], "sites": [site]}
