"""Leases as rows: who leads, until when, with which fencing number. The same statements on every database.

Used by the Store adapters (`acquire_lease`, `release_lease`); `check_lease` or `under_lease` by services, inside every
transaction that only the leader may do. Not a lock service: a lease is as good as its database.
"""

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, MetaData, bindparam, insert, select, update

from shared.errors import Conflict
from shared.ports import Lease
from shared.runtime.clock import moment
from shared.runtime.sql import asked
from shared.runtime.tables import RuntimeTables

LEASES: Final = RuntimeTables(MetaData()).leases
_NOBODY: Final = ""
_LIFE: Final = "/"
_ROW: Final = select(LEASES).where(LEASES.c.name == bindparam("of_name"))
_HELD: Final = select(LEASES.c.holder, LEASES.c.fence).where(LEASES.c.name == bindparam("of_name"))


def holder_of(instance: str) -> str:
    """A holder that no other process is: the copy's name (the host's when empty), and what is new at each start.

    Two copies with one name, by mistake or by default, are two holders therefore, and never lead both.
    """
    return f"{instance or socket.gethostname()}{_LIFE}{secrets.token_hex(6)}"


def acquire(
    connection: Connection, name: str, holder: str, ttl_s: float, now: datetime, *, succeeds: str = ""
) -> Lease | None:
    """Take a lease that is new, released or run out, or renew one's own; None while somebody else's is good.

    `succeeds` is the name of a copy whose earlier life is succeeded at once: it is taken to be dead, and is deposed if
    it is not. `fence` grows by 1 with every change of holder. Needs a serialisable transaction.
    """
    until = now.timestamp() + ttl_s
    row = connection.execute(_ROW, {"of_name": name}).first()
    if row is None:
        connection.execute(insert(LEASES), {"name": name, "holder": holder, "fence": 1, "until": until})
        return Lease(name, holder, 1, moment(int(until * 1_000_000)))
    earlier_life = bool(succeeds) and row.holder.startswith(succeeds + _LIFE)
    if row.holder != holder and row.until > now.timestamp() and not earlier_life:
        return None
    fence = row.fence if row.holder == holder else row.fence + 1
    connection.execute(update(LEASES).where(LEASES.c.name == name).values(holder=holder, fence=fence, until=until))
    return Lease(name, holder, fence, moment(int(until * 1_000_000)))


def release(connection: Connection, lease: Lease) -> None:
    """Give a lease back; nothing happens when it is not ours any more."""
    connection.execute(
        update(LEASES)
        .where(LEASES.c.name == lease.name, LEASES.c.holder == lease.holder, LEASES.c.fence == lease.fence)
        .values(holder=_NOBODY, until=0.0)
    )


def check_lease(connection: Connection, lease: Lease) -> None:
    """Raise Conflict (code `lease_lost`) unless `lease` is still the newest of its name.

    Call it in the transaction whose writes it protects: a deposed leader then cannot write, however late it wakes.
    """
    _check(asked(connection, _HELD, {"of_name": lease.name})(), lease)


@contextmanager
def under_lease(connection: Connection, lease: Lease) -> Iterator[None]:
    """As `check_lease`, around what the leader reads and writes: raises at its end, without a wait of its own.

    Nobody else can take the lease in between, as writers take turns.
    """
    held = asked(connection, _HELD, {"of_name": lease.name})
    yield
    _check(held(), lease)


def _check(rows: Sequence[Any], lease: Lease) -> None:
    if not rows or rows[0].holder != lease.holder or rows[0].fence != lease.fence:
        raise Conflict(f"{lease.holder} no longer holds the lease {lease.name!r}", code="lease_lost")
