"""One copy of a service does what only one may do; the others answer questions and stand by. A lease says which.

Every transaction of the leader's loops calls `check`, or runs within `leading`: a deposed leader cannot write, however
late it wakes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from shared.errors import Conflict, Unavailable
from shared.ports import Clock, Lease, Store
from shared.runtime import logs
from shared.runtime.leases import holder_of, under_lease

log = logs.get("runtime.leadership")


class Leadership:
    """Keeps the lease for as long as `run` runs."""

    def __init__(self, store: Store, clock: Clock, *, lease: str, instance: str, ttl_s: float) -> None:
        """`lease` is what is led; `instance` names this copy."""
        self._store = store
        self._clock = clock
        self._name = lease
        self._holder = holder_of(instance)
        self._succeeds = instance
        self._ttl_s = ttl_s
        self._lease: Lease | None = None
        self._taken: Lease | None = None
        self._held = asyncio.Event()

    async def run(self) -> None:
        """Take the lease when it is free, and renew it in time; for ever. Raises Unavailable with the store."""
        try:
            while True:
                self._note(await self._acquire())
                await asyncio.sleep(self._ttl_s / 3)
        finally:
            self._note(None)

    async def _acquire(self) -> Lease | None:
        """The first time also from an earlier life of this copy; later, one of the same name is another copy."""
        now, succeeds = self._clock(), self._succeeds
        lease = await self._store.acquire_lease(self._name, self._holder, self._ttl_s, now, succeeds=succeeds)
        self._succeeds = ""
        return lease

    @property
    def leads(self) -> bool:
        """Whether this copy led when it looked last."""
        return self._lease is not None

    async def held(self) -> None:
        """Return once this copy leads."""
        await self._held.wait()

    def check(self, connection: Connection) -> None:
        """Raise Unavailable unless this copy still leads; call it in every transaction of a leader's loop."""
        with self.leading(connection):
            pass

    @contextmanager
    def leading(self, connection: Connection) -> Iterator[None]:
        """Around what a transaction reads and writes: as `check`, at its end, and without a wait of its own."""
        if self._lease is None:
            raise Unavailable(f"another copy leads {self._name}", code="lease_lost")
        try:
            with under_lease(connection, self._lease):
                yield
        except Conflict as lost:
            if lost.code != "lease_lost":
                raise
            raise Unavailable(lost.what, code="lease_lost") from lost

    async def give_back(self) -> None:
        """Let another copy take over at once. Called when `run` has ended, in the order of a stop."""
        if self._taken is not None:
            await self._store.release_lease(self._taken)
            self._note(None)

    def _note(self, lease: Lease | None) -> None:
        if (lease is None) != (self._lease is None):
            log.info("leading" if lease else "standing_by", lease=self._name, holder=self._holder)
        self._lease = lease
        self._taken = lease or self._taken
        if lease is None:
            self._held.clear()
        else:
            self._held.set()
