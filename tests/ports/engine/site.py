"""A cluster under test: short sentences for what the tests do again and again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

from shared.adapters.nomad import ClusterSettings, NomadCluster
from shared.adapters.nomad.operator import NomadOperator
from shared.adapters.nomad.policies import Role
from shared.engine import AllocationSeen, AttemptOrder, JobSeen, Line, Seen, Submission, Submitted
from shared.ids import AttemptId, new_job_id, traceparent
from shared.ports import EngineWatch, JobEngine
from tests.builders import a_site, a_spec
from tests.pacing import pause
from tests.real_nomad import RealNomad

DEADLINE_S = 20.0
Opening = AbstractAsyncContextManager["SiteUnderTest"]
SMALL = {"cpu_cores": 0.05, "memory_mib": 16, "disk_mib": 20}


def an_order(
    *command: str, job: UUID | None = None, nonce: str = "n-1", at: dict[str, Any] | None = None, **spec: Any
) -> AttemptOrder:
    """An order for small work under an id that nobody used."""
    attempt = AttemptId(job or new_job_id(), 1)
    wanted = a_spec(**({"command": command or ("/bin/true",), "resources": SMALL} | spec))
    return AttemptOrder(attempt, wanted, a_site(**(at or {})), nonce, traceparent(attempt.job_id))


def a_script(text: str, **spec: Any) -> AttemptOrder:
    return an_order("/bin/sh", "-c", text, **spec)


class SiteUnderTest:
    """Only ports are used; `operator` is for what they do not offer."""

    def __init__(
        self, engine: JobEngine, watch: EngineWatch, operator: NomadOperator, again: "Callable[..., Opening]"
    ) -> None:
        self.engine = engine
        self.watch = watch
        self.operator = operator
        self._again = again

    def with_settings(self, **settings: Any) -> "Opening":
        """The same cluster through another adapter."""
        return self._again(**settings)

    async def by_hand(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Nomad's API for what the ports do not offer, as the site's operator."""
        return await asyncio.to_thread(self.operator.ask, method, path, body)

    async def since(self, *version: int) -> bool:
        """Whether its Nomad is this new."""
        return await asyncio.to_thread(self.operator.version) >= version

    async def submitted(self, order: AttemptOrder) -> AttemptOrder:
        assert await self.engine.submit(order) == Submission(Submitted.ACCEPTED)
        return order

    async def seen_until(self, done: Callable[[list[Seen]], bool], index: int = 0) -> list[Seen]:
        """Everything on the stream until `done` says so."""
        seen: list[Seen] = []
        async with asyncio.timeout(DEADLINE_S), aclosing(self.watch.stream(index)) as stream:  # type: ignore[type-var]
            async for item in stream:
                if isinstance(item, Line):
                    seen += item.seen
                    if done(seen):
                        return seen
        raise AssertionError("the stream ended")

    async def ended(self, order: AttemptOrder) -> AllocationSeen:
        """The attempt's allocation once its client is done with it."""
        return await self.reached(order, "complete", "failed")

    async def reached(self, order: AttemptOrder, *statuses: str) -> AllocationSeen:
        def hit(seen: Sequence[Seen]) -> list[AllocationSeen]:
            return [one for one in of(order, seen, AllocationSeen) if one.client_status in statuses]

        return hit(await self.seen_until(lambda seen: bool(hit(seen))))[-1]

    async def over(self, order: AttemptOrder) -> None:
        """Return when its client is done with it, by asking: there is one stream at a time, and the test has it."""
        async with asyncio.timeout(DEADLINE_S):
            while "complete" not in [
                one.client_status for one in await self.watch.allocations(order.attempt.nomad_id, order.namespace)
            ]:
                await pause(0.05)

    async def dead(self, order: AttemptOrder) -> JobSeen:
        def hit(seen: Sequence[Seen]) -> list[JobSeen]:
            return [one for one in of(order, seen, JobSeen) if one.status == "dead"]

        return hit(await self.seen_until(lambda seen: bool(hit(seen))))[-1]

    async def output(self, allocation: AllocationSeen, stream: str = "stdout", **place: Any) -> bytes:
        chunks = self.watch.logs(allocation.id, "main", stream, **place)
        return b"".join([chunk.data async for chunk in chunks])

    async def file(self, allocation: AllocationSeen, path: str) -> bytes:
        return await self.watch.file(allocation.id, f"main/local/{path}", 1_048_576)


def of(order: AttemptOrder, seen: Sequence[Seen], kind: type[Any]) -> list[Any]:
    """What was seen of one kind about one attempt, in order."""
    name = order.attempt.nomad_id
    return [one for one in seen if isinstance(one, kind) and (one.id if kind is JobSeen else one.job_id) == name]


@asynccontextmanager
async def of_address(address: str, **settings: Any) -> AsyncIterator[SiteUnderTest]:
    """A cluster at an address, both ports with the same settings; closed at the end."""
    cluster = opened(address, **settings)
    operator = NomadOperator(address, settings.get("token", ""))
    try:
        yield SiteUnderTest(cluster.engine, cluster.watch, operator, partial(of_address, address))
    finally:
        operator.close()
        await cluster.aclose()


@asynccontextmanager
async def of_region(region: RealNomad, **settings: Any) -> AsyncIterator[SiteUnderTest]:
    """A region with ACLs and TLS, each port with its service's own token."""
    scheduler, monitor = (
        opened(region.address, **{**trusting(region, role), **settings}) for role in (Role.SCHEDULER, Role.MONITOR)
    )
    try:
        yield SiteUnderTest(scheduler.engine, monitor.watch, region.operator, partial(of_region, region))
    finally:
        await scheduler.aclose()
        await monitor.aclose()


def trusting(region: RealNomad, role: Role) -> dict[str, Any]:
    """What a service is told of a region with ACLs and TLS."""
    assert region.authority is not None
    return {
        "ca_file": region.authority.file, "tls_server_name": f"server.{region.name}.nomad",
        "token": region.tokens[role],
    }  # fmt: skip


def opened(address: str, **settings: Any) -> NomadCluster:
    """The adapter, told to read small pages."""
    wanted = {"name": "prague", "address": address, "allow_mock": True, "page_size": 7} | settings
    return NomadCluster(ClusterSettings.model_validate(wanted))
