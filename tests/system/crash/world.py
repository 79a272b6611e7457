"""Sites that outlive the platform, the platform's lives one after another, and a client that lives through them."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx

from services.auth.dev_issuer import demo_token
from services.embedded.agent import EmbeddedAgent
from services.embedded.agents import open_agents
from services.embedded.folder import open_folder
from services.embedded.platform import Platform, platform
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import read_sites
from shared.adapters.sqlite import open_store
from shared.runtime.tls import trusting_nobody
from tests import pacing
from tests.system.crash.crashing import Life, Point

VO: Final = "vo.climate.example"
SITES: Final = f"""
- {{name: prague, country: CZ, vos: [{VO}], cores: 4, memory_mib: 2048}}
- {{name: lyon, country: FR, vos: [{VO}], cores: 4, memory_mib: 2048}}
"""
FIRST_PORT: Final = 17_000
READY_S: Final = 120.0
QUICK: Final[Mapping[str, Mapping[str, Any]]] = {
    "scheduler": {
        "lease_s": 0.5, "tick_s": 0.25, "retry_first_s": 0.05, "retry_most_s": 0.1, "call_first_s": 0.05,
        "stop_poll_s": 0.1, "auth_pause_s": 0.2, "leftovers_s": 0.5,
    },
    "monitor": {"lease_ttl_s": 1, "first_line_s": 0.5, "probe_interval_s": 0.5, "probe_timeout_s": 2, "settle_s": 2},
}  # fmt: skip
"""Shorter times than in production, so that a thousand crashes take minutes; no promise depends on them."""


class Dead(Exception):
    """The platform died while it was asked."""


@dataclass
class World:
    """The platform as its users and sites see it over a crash. `lives` are its processes, oldest first."""

    folder: Path
    agents: Mapping[str, EmbeddedAgent]
    target: Point | None
    port: int
    lives: list[Life] = field(default_factory=list)
    up: Platform | None = None
    token: str = ""
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=60, verify=trusting_nobody())
    )
    _came_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def life(self) -> Life:
        """The newest life."""
        return self.lives[-1]

    @property
    def crashed(self) -> bool:
        return len(self.lives) > 1 or self.life.died.is_set()

    async def run(self) -> None:
        """Live, crash, live on; until cancelled."""
        while True:
            number = len(self.lives) + 1
            target = self.target if number == 1 else None
            life = Life(target, self.folder / str(number), self.folder / str(number + 1))
            life.counting = number == 1
            self.lives.append(life)
            living = asyncio.create_task(self._live(life, self.folder / str(number)), name="life")
            died = asyncio.create_task(life.died.wait(), name="death")
            try:
                await asyncio.wait([living, died], return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.up = None
                life.bury()
                died.cancel()
                living.cancel()
                await asyncio.wait([living])
            if not life.died.is_set():
                living.result()

    async def _live(self, life: Life, folder: Path) -> None:
        settings = EmbeddedSettings(data=folder, port=self.port, sites=self.folder / "sites.yaml", health_interval_s=1)
        async with platform(settings, around=life.around, overrides=QUICK, agents=self.agents) as up:
            if not self.token:
                self.token = await demo_token(up.issuer, "alice")
            self.up = up
            self._came_up.set()
            await up.running

    # -- asking ---------------------------------------------------------------------------------------------------

    async def alive(self) -> tuple[Platform, Life]:
        """The platform, once one is ready."""
        async with asyncio.timeout(READY_S):
            while self.up is None or self.life.died.is_set():
                self._came_up.clear()
                await self._came_up.wait()
        return self.up, self.life

    async def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The answer of a platform that lives, asked again after a death or trouble of its own, as clients do."""
        for _ in range(100):
            with contextlib.suppress(Dead, httpx.TransportError):
                answer = await self._ask_once(method, path, **given)
                if answer.status_code < 500:
                    return answer
            await pacing.pause(0.05)
        raise TimeoutError(f"{method} {path}: no answer")

    async def _ask_once(self, method: str, path: str, headers: Mapping[str, str] | None = None, **given: Any) -> Any:
        up, life = await self.alive()
        told = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        asking = asyncio.create_task(self.client.request(method, up.gateway + path, headers=told, **given))
        return await unless_dead(asking, life)


async def unless_dead(asking: "asyncio.Task[Any]", life: Life) -> Any:
    """The result of a task. Raises Dead, and ends it, when the platform dies first."""
    died = asyncio.create_task(life.died.wait(), name="death")
    try:
        await asyncio.wait([asking, died], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Dead
        return asking.result()
    finally:
        died.cancel()
        asking.cancel()
        await asyncio.wait([asking])


@contextlib.asynccontextmanager
async def a_world(
    folder: Path, templates: Path, target: Point | None, slot: int = 0
) -> AsyncIterator[World]:  # fmt: skip
    """Two sites and a platform on empty databases, which will crash at `target`. Worlds at a time need slots apart."""
    port = FIRST_PORT + 10 * slot
    shutil.copytree(templates, folder / "1")
    (folder / "sites.yaml").write_text(SITES)
    async with contextlib.AsyncExitStack() as stack:
        places = open_folder(folder / "places")
        stack.callback(places.lock.close)
        places.kept["ports"] = {f"site/{name}": port + 2 + number for number, name in enumerate(("prague", "lyon"))}
        settings = EmbeddedSettings(data=folder / "places", sites=folder / "sites.yaml", end_tasks=True)
        agents = await open_agents(read_sites(settings.sites), places, settings, stack)
        world = World(folder, agents, target, port)  # type: ignore[arg-type]  # they are embedded ones
        stack.push_async_callback(world.client.aclose)
        running = asyncio.create_task(world.run(), name="world")
        stack.push_async_callback(_ended, running)
        yield world


async def empty_databases(folder: Path) -> None:
    """The services' databases as they are at first, made once to be copied for each world."""
    for service in ("auth", "scheduler", "monitor", "gateway"):
        store = await open_store(folder / f"{service}.sqlite", f"services.{service}.migrations")
        await store.close()


async def _ended(running: "asyncio.Task[None]") -> None:
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error
