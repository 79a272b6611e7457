"""Following one service in one datacenter by blocking queries. The one layer that retries Consul's failures."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from shared.adapters.consul.agent import ConsulAgent
from shared.adapters.consul.answers import AWAY, DATACENTER, SILENT
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.runtime.retrying import Backoff


@dataclass(frozen=True, slots=True)
class Query:
    """A service in a datacenter; `datacenter` None is the agent's own."""

    service: str
    datacenter: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The copies of the service, as Consul's JSON."""

    entries: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, and how long until the next try (seconds)."""

    error: SeraiError
    again_in_s: float

    @property
    def datacenter_away(self) -> bool:
        """Our agent answers and the datacenter behind it does not; else it is our agent, or our settings."""
        return self.error.code == DATACENTER


def next_index(asked: int, answered: int) -> int:
    """The index for the next query. Backwards (a restored or new Consul) means to begin anew; 0 never blocks, so 1."""
    return 0 if answered < asked else max(1, answered)


async def watch(agent: ConsulAgent, query: Query, rng: random.Random) -> AsyncIterator[Answered | Failed]:
    """What the service is, at first and at each change, and each failure; for ever.

    Consul wakes for changes of others too: an answer like the one before is not told again, unless a failure lies
    between. After a failure the query begins anew, without index.
    """
    settings = agent.settings
    backoff = Backoff(settings.retry_first_s, settings.retry_most_s, rng)
    index, told = 0, None
    while True:
        begun = asyncio.get_running_loop().time()
        try:
            answered, entries = await agent.copies(query.service, datacenter=query.datacenter, index=index)
        except (Unavailable, Misconfigured) as error:
            index, told = 0, None
            wait_s = backoff.next_s()
            yield Failed(await _blamed(agent, query, error), wait_s)
            await asyncio.sleep(wait_s)
            continue
        backoff.reset()
        index = next_index(index, answered)
        if told != (now := tuple(entries)):
            told = now
            yield Answered(now)
        await asyncio.sleep(max(0.0, begun + settings.pace_s - asyncio.get_running_loop().time()))


async def _blamed(agent: ConsulAgent, query: Query, error: SeraiError) -> SeraiError:
    """Whose silence it is: a query that was not answered is the datacenter's fault while our agent answers."""
    if error.code != SILENT:
        return error
    try:
        await agent.leader()
    except (Unavailable, Misconfigured):
        return Unavailable(error.what, code=AWAY)
    return Unavailable(
        f"{error.what}; Consul's datacenter {query.datacenter or 'of our agent'} is silent", code=DATACENTER
    )
