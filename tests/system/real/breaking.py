"""What can happen to the parts under the services, as data: a name, and how it is done and undone."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.embedded.agent import EmbeddedAgent
from tests import pacing
from tests.proxy import Proxy
from tests.system.real.whole import Whole

SILENT_S: Final = 12.0
"""Longer than it takes the broker and its clients to notice a silent peer (5 s heartbeats)."""
DELAY_S: Final = 0.15


@dataclass(frozen=True, slots=True)
class Break:
    """`happens` breaks the part and mends it; the platform is left to find that out by itself."""

    name: str
    happens: Callable[[Whole, random.Random], Awaitable[None]]
    times: int = 1


async def broker_killed(platform: Whole, rng: random.Random) -> None:
    """In the middle of publishing and consuming: the load never stops."""
    broker = platform.up.parts.broker
    assert broker is not None
    await broker.kill()
    await broker.restart()


async def database_killed(platform: Whole, rng: random.Random) -> None:
    """kill -9: every transaction is cut, and recovery comes first at the start."""
    database = platform.up.parts.database
    assert database is not None
    await database.kill()
    await database.restart()


async def consul_killed(platform: Whole, rng: random.Random) -> None:
    """The one server of the home datacenter is its leader as well; it comes back with its data."""
    agent = platform.up.parts.consuls["dc1"]
    await agent.kill()
    await pacing.pause(rng.uniform(1, 3))
    await agent.restart()


async def site_restarted(platform: Whole, rng: random.Random) -> None:
    """A Nomad agent ends in order and is started on the same data; its tasks live on meanwhile."""
    agents = platform.up.parts.agents
    name = rng.choice(sorted(agents))
    old = agents[name]
    assert isinstance(old, EmbeddedAgent)
    await old.stop(end_tasks=False)
    await pacing.pause(rng.uniform(0.2, 2))
    new = EmbeddedAgent(old.settings)
    await new.start()
    platform.renewed.append(new)
    agents[name] = new


def cut(which: Callable[[Whole], Proxy]) -> Callable[[Whole, random.Random], Awaitable[None]]:
    """Every connection at once, without a word."""

    async def happens(platform: Whole, rng: random.Random) -> None:
        which(platform).cut()
        await pacing.pause(rng.uniform(0.2, 1))

    return happens


def silent(which: Callable[[Whole], Proxy]) -> Callable[[Whole, random.Random], Awaitable[None]]:
    """Half-open: both ends believe in their connections, and no byte arrives; then they are gone."""

    async def happens(platform: Whole, rng: random.Random) -> None:
        proxy = which(platform)
        proxy.silent = True
        await pacing.pause(SILENT_S)
        proxy.cut()
        proxy.silent = False

    return happens


def slow(which: Callable[[Whole], Proxy]) -> Callable[[Whole, random.Random], Awaitable[None]]:
    """Every chunk comes late, for a while."""

    async def happens(platform: Whole, rng: random.Random) -> None:
        proxy = which(platform)
        proxy.delay_s = DELAY_S
        await pacing.pause(rng.uniform(3, 4))
        proxy.delay_s = 0

    return happens


BROKER: Final = (
    Break("broker killed and restarted", broker_killed),
    Break("connections to the broker cut", cut(lambda platform: platform.broker), times=4),
    Break("connections to the broker half-open", silent(lambda platform: platform.broker)),
    Break("the broker far away", slow(lambda platform: platform.broker)),
)
DATABASE: Final = (
    Break("database killed and restarted", database_killed),
    Break("connections to the database cut", cut(lambda platform: platform.database), times=4),
    Break("connections to the database half-open", silent(lambda platform: platform.database)),
)
CONSUL: Final = (
    Break("Consul's leader killed and restarted", consul_killed),
    Break("connections to Consul cut", cut(lambda platform: platform.consul), times=4),
    Break("connections to Consul half-open", silent(lambda platform: platform.consul)),
)
SITES: Final = (Break("a site's Nomad agent restarted", site_restarted, times=2),)
EVERY: Final = {"broker": BROKER, "database": DATABASE, "consul": CONSUL, "sites": SITES}
