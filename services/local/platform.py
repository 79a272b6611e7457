"""The wiring of the platform on real parts on one machine: parts first, then the services as processes."""

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import orjson

from services.auth import dev_issuer, dev_tokens
from services.embedded.agents import HOST
from services.embedded.folder import DataFolder, open_folder
from services.embedded.sites import clusters_of
from services.local.parts import SERVICES, Parts, authority_of, folder_for, open_parts
from services.local.settings import LocalSettings
from services.local.supervising import Supervisor
from shared.errors import Unavailable
from shared.runtime.clock import system_clock
from shared.runtime.serving import HttpServer

Told = Callable[[Parts], contextlib.AbstractAsyncContextManager[Mapping[str, str]]]
"""Further environment of every process, open as long as the platform runs: tests put proxies before the parts."""

_FIRST_PORT: Final = {"auth": 18_100, "scheduler": 18_200, "monitor": 18_300}
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class LocalPlatform:
    """A platform that runs: addresses of every copy of each service, and who keeps them alive."""

    issuer: str
    addresses: Mapping[str, tuple[str, ...]]
    parts: Parts
    supervisor: Supervisor
    folder: Path

    @property
    def gateway(self) -> str:
        """The first gateway."""
        return self.addresses["gateway"][0]

    @property
    def sites(self) -> dict[str, str]:
        """Address of each site's agent."""
        return {site.name: self.parts.agent_of(site).address for site in self.parts.sites}

    async def wait_until_ready(self, deadline_s: float) -> None:
        """Return when every copy says that it can do its work. Raises Unavailable naming the culprits."""
        culprits: dict[str, str] = {}
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client, asyncio.timeout(deadline_s):
                while True:
                    if not (culprits := await self.culprits(client)):
                        return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            words = "; ".join(f"{name}: {culprit}" for name, culprit in culprits.items())
            raise Unavailable(f"not ready within {deadline_s:g} s: {words}; logs are in {self.folder}/logs") from None

    async def culprits(self, client: httpx2.AsyncClient) -> dict[str, str]:
        """Of every copy that is not ready, what it waits for. Raises Unavailable for one that ends again and again."""
        found = {}
        for service, addresses in self.addresses.items():
            for number, address in enumerate(addresses, 1):
                name = f"{service}-{number}"
                if culprit := await _not_ready(client, address):
                    found[name] = culprit
        for kept in self.supervisor.kept.values():
            if kept.name in found and kept.failures >= 3:
                raise Unavailable(f"{kept.name} ends again and again:\n{kept.last_words()}")
        return found


async def _not_ready(client: httpx2.AsyncClient, address: str) -> str:
    try:
        answer = await client.get(f"{address}/readyz")
    except httpx2.HTTPError as error:
        return repr(error)
    if answer.status_code == 200:
        return ""
    checks: dict[str, Any] = answer.json().get("checks", {})
    return ", ".join(f"{name}: {word}" for name, word in checks.items() if word != "ok") or "starting"


@contextlib.asynccontextmanager
async def nothing_further(_: Parts) -> AsyncIterator[Mapping[str, str]]:
    """Processes are told of the parts, and of nothing else."""
    yield {}


@contextlib.asynccontextmanager
async def local_platform(settings: LocalSettings, told: Told = nothing_further) -> AsyncIterator[LocalPlatform]:
    """The platform on real parts, running and ready; ended in the opposite order."""
    async with contextlib.AsyncExitStack() as stack:
        fresh = Path(tempfile.gettempdir()) / f"serai-real-{system_clock():%Y%m%d-%H%M%S-%f}"
        folder = open_folder(folder_for(settings, fresh))
        stack.callback(_throw_away, folder)
        parts = await open_parts(settings, folder, stack)
        issuer = await _issuer(folder, stack)
        addresses = {service: _addresses(service, settings, folder) for service in SERVICES}
        supervisor = Supervisor(folder.path / "logs")
        up = LocalPlatform(issuer, addresses, parts, supervisor, folder.path)
        further = await stack.enter_async_context(told(parts))
        common = parts.environment | _common(settings, folder, addresses) | dict(further)
        stack.push_async_callback(supervisor.stop)
        for service in SERVICES:
            for number, address in enumerate(addresses[service], 1):
                environment = (
                    common | {"SERAI_PORT": str(urlsplit(address).port)} | _own(service, number, issuer, parts)
                )
                environment |= {"SERAI_SERVICE_KEY": folder.service_keys[service][0]}
                await supervisor.add(f"{service}-{number}", [sys.executable, "-m", "services", service], environment)
        await up.wait_until_ready(settings.ready_within_s)
        yield up


def _throw_away(folder: DataFolder) -> None:
    """Everything but the logs, and the file that says that the folder was used."""
    folder.lock.close()
    for entry in folder.path.iterdir():
        if entry.name in ("logs", "platform.json"):
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _addresses(service: str, settings: LocalSettings, folder: DataFolder) -> tuple[str, ...]:
    first = _FIRST_PORT.get(service, settings.port)
    ports = [folder.port(f"{service}-{number}", first) for number in range(1, settings.copies + 1)]
    return tuple(f"http://{HOST}:{port}" for port in ports)


def _common(settings: LocalSettings, folder: DataFolder, addresses: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """What every process is told, beside the parts."""
    told = {"SERAI_SERVICE_KEYS": folder.public_keys, "SERAI_LOG_LEVEL": settings.log_level}
    asked = ("auth", "scheduler", "monitor")
    return told | {f"SERAI_{service.upper()}_URL": ",".join(addresses[service]) for service in asked}


def _own(service: str, number: int, issuer: str, parts: Parts) -> dict[str, str]:
    """What only this service is told."""
    if service == "auth":
        people = dev_issuer.trusted_as(issuer, dev_issuer.DevIssuerSettings().mode)
        clusters = [
            dev_tokens.cluster_trusted_as(
                parts.agents[name].address, (site.name for site in sites), authority_of(parts.agents[name])
            )
            for name, sites in clusters_of(parts.sites).items()
        ]
        trusted = [each.model_dump(mode="json") for each in (people, *clusters)]
        return {"SERAI_AUTH_ISSUERS": orjson.dumps(trusted).decode(), "SERAI_AUTH_DEV_MODE": "true"}
    if service == "gateway":
        named = {
            "issuer": issuer, "name": "Development issuer (demo users)", "client_id": dev_issuer.CLI,
            "demo_token_endpoint": f"{issuer}/demo/token",
        }  # fmt: skip
        named_copy = {"SERAI_GATEWAY_INSTANCE": f"{service}-{number}"}
        return named_copy | {"SERAI_GATEWAY_ISSUERS": orjson.dumps([named]).decode()}
    if service in ("monitor", "scheduler"):
        return {f"SERAI_{service.upper()}_INSTANCE": f"{service}-{number}"}
    return {}


async def _issuer(folder: DataFolder, stack: contextlib.AsyncExitStack) -> str:
    """The development issuer, served by this process."""
    port = folder.issuer_port(18_000)
    url = f"http://{HOST}:{port}"
    settings = dev_issuer.DevIssuerSettings(url=url, key_file=folder.path / "dev-issuer-key.json")
    server = HttpServer(dev_issuer.assemble(settings, clock=system_clock).app, HOST, port)
    await server.start()
    stack.push_async_callback(server.stop)
    return url
