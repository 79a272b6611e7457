"""The event log that users see: positions without holes, given within the transaction that folds the events.

One row of state holds epoch, head, floor (everything up to it has been deleted) and the offset in the bus's stream;
it is updated in the same transaction, so copies of the gateway that read the same stream never tell a fact twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from services.gateway.permissions import Told
from services.gateway.resume import LogState
from services.gateway.store import log, log_state
from shared.runtime.sql import asked, insert_or_ignore

_STATE_ROW: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `kind` as in `job.running`, `body` the CloudEvent as it came."""

    position: int
    kind: str
    told: Told
    body: bytes


_AFTER: Final = (
    select(log)
    .where(log.c.position > bindparam("after"))
    .order_by(log.c.position)
    .limit(bindparam("limit"))
)  # fmt: skip
_AFTER_OF_JOB: Final = (
    select(log)
    .where(log.c.job_id == bindparam("job"), log.c.position > bindparam("after"))
    .order_by(log.c.position)
    .limit(bindparam("limit"))
)
_STATE: Final = select(log_state).where(log_state.c.id == _STATE_ROW)
_LOCKED: Final = _STATE.with_for_update()
_APPEND: Final = insert(log)
_MOVE: Final = update(log_state).values(head=bindparam("new_head"), stream_offset=bindparam("new_offset"))


def prepare(connection: Connection, epoch: str) -> None:
    """Make the row of state when the log is new; `epoch` names this log for ever."""
    row = {"id": _STATE_ROW, "epoch": epoch, "head": 0, "floor": 0, "stream_offset": None}
    insert_or_ignore(connection, log_state, row)


def state(connection: Connection, *, lock: bool = False) -> LogState:
    """The state; with `lock` nobody else writes the log until the transaction ends."""
    return ask_state(connection, lock=lock)()


def ask_state(connection: Connection, *, lock: bool = False) -> Callable[[], LogState]:
    """As `state`, asked for now and looked at later."""
    rows = asked(connection, _LOCKED if lock else _STATE)

    def look() -> LogState:
        (row,) = rows()
        return LogState(row.epoch, row.head, row.floor, row.stream_offset)

    return look


def move(connection: Connection, head: int, stream_offset: int) -> None:
    """Record how far the log and the stream were taken."""
    connection.execute(_MOVE, {"new_head": head, "new_offset": stream_offset})


def set_head(connection: Connection, head: int) -> None:
    """Record how far the log was taken, where the stream has no part in it."""
    connection.execute(update(log_state).values(head=head))


def append(connection: Connection, entries: Sequence[Entry], at: int) -> None:
    """Write entries whose positions were given under the lock."""
    if entries:
        connection.execute(_APPEND, [_row(entry, at) for entry in entries])


def after(connection: Connection, position: int, limit: int, job_id: str | None = None) -> list[Entry]:
    """Up to `limit` entries behind a position, of all jobs or of one."""
    given: dict[str, Any] = {"after": position, "limit": limit}
    if job_id is None:
        return [_entry(row) for row in connection.execute(_AFTER, given)]
    return [_entry(row) for row in connection.execute(_AFTER_OF_JOB, {**given, "job": job_id})]


def first_since(connection: Connection, at: int) -> int | None:
    """The position of the first entry taken in at a time (microseconds) or later, None when there is none yet."""
    query = select(log.c.position).where(log.c.at >= at).order_by(log.c.at, log.c.position).limit(1)
    return connection.execute(query).scalar()


def forget(connection: Connection, before: int, limit: int) -> int:
    """Delete up to `limit` of the oldest entries older than `before` (microseconds), raise the floor; how many."""
    old = select(log.c.position).where(log.c.at < before).order_by(log.c.position).limit(limit).subquery()
    last = connection.execute(select(func.max(old.c.position))).scalar()
    if last is None:
        return 0
    gone = connection.execute(delete(log).where(log.c.position <= last)).rowcount
    connection.execute(update(log_state).values(floor=last))
    return gone


def _row(entry: Entry, at: int) -> dict[str, object]:
    told = entry.told
    return {
        "position": entry.position, "kind": entry.kind, "job_id": told.job_id, "vo": told.vo,
        "owner_issuer": told.owner_issuer, "owner_subject": told.owner_subject, "state": told.state,
        "labels": orjson.dumps(dict(told.labels)).decode(), "at": at, "body": entry.body,
    }  # fmt: skip


def _entry(row: Row[Any]) -> Entry:
    told = Told(row.vo, row.owner_issuer, row.owner_subject, row.job_id, row.state, orjson.loads(row.labels))
    return Entry(row.position, row.kind, told, bytes(row.body))
