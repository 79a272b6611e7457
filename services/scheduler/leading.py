"""One leader among the copies of the service: holds the lease `scheduler` and runs the loops that only one may run.

Every write of these loops goes through `Leader.run`, which checks the fencing number in the same transaction: a leader
that was deposed without noticing cannot write.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from shared.errors import Conflict, Unavailable
from shared.ports import Lease
from shared.runtime import logs
from shared.runtime.leases import holder_of, under_lease
from shared.runtime.transactions import Transactions, Unit

log = logs.get("scheduler.leading")

LEASE: Final = "scheduler"
T = TypeVar("T")
Loop = Callable[[], Awaitable[None]]


class Leader:
    """`instance` names this copy of the service; `lease_s` is how long a lease is good without being renewed."""

    def __init__(self, transactions: Transactions, instance: str, lease_s: float) -> None:
        self._transactions = transactions
        self._holder = holder_of(instance)
        self._succeeds = instance
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._stands_by = False

    @property
    def fence(self) -> int:
        """The fencing number of the lease that is held; asked by the leader's loops only."""
        assert self._lease is not None
        return self._lease.fence

    async def run(self, body: Callable[[Unit], T], *, cause: str) -> T:
        """A transaction that only the leader may do. Raises Conflict (code `lease_lost`) when it is not any more."""
        lease = self._lease
        if lease is None:
            raise Conflict("this copy does not lead", code="lease_lost")

        def fenced(unit: Unit) -> T:
            with under_lease(unit.connection, lease):
                return body(unit)

        return await self._transactions.run(fenced, cause=cause)

    async def lead(self, loops: Sequence[Loop]) -> None:
        """For ever: wait for the lease, run the loops while it is held, begin again when it is lost."""
        while True:
            self._lease = await self._acquire()
            if self._lease is None:
                self._tell_that_it_stands_by()
                await asyncio.sleep(self._lease_s / 3)
                continue
            self._stands_by = False
            log.info("leading", holder=self._holder, fence=self._lease.fence)
            try:
                await self._run_loops(loops)
            except* Conflict as lost:
                if any(error.code != "lease_lost" for error in _leaves(lost)):
                    raise
                log.warning("deposed", holder=self._holder)
            finally:
                await self._release()

    def _tell_that_it_stands_by(self) -> None:
        """Once: also to a copy that lost its lease together with its store, and never heard that it was deposed."""
        if not self._stands_by:
            log.info("standing_by", holder=self._holder)
        self._stands_by = True

    async def _run_loops(self, loops: Sequence[Loop]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew(), name="scheduler.lease")
            for loop in loops:
                group.create_task(_awaited(loop), name=f"scheduler.{getattr(loop, '__qualname__', 'loop')}")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            lease = await self._acquire()
            if lease is None or self._lease is None or lease.fence != self._lease.fence:
                raise Conflict("another copy took the lease", code="lease_lost")
            self._lease = lease

    async def _acquire(self) -> Lease | None:
        """The first time also from an earlier life of this copy; later, one of the same name is another copy."""
        store, now, succeeds = self._transactions.store, self._transactions.clock(), self._succeeds
        lease = await store.acquire_lease(LEASE, self._holder, self._lease_s, now, succeeds=succeeds)
        self._succeeds = ""
        return lease

    async def _release(self) -> None:
        """Best effort: a lease that is not given back runs out by itself."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(2):
                    await self._transactions.store.release_lease(lease)


async def _awaited(loop: Loop) -> None:
    await loop()


def _leaves(group: BaseExceptionGroup[Conflict]) -> list[Conflict]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
