"""Writing and reading the audit chain. Called inside the transactions that it bears witness to: what cannot be written
down is not done.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from services.auth import audit
from services.auth.audit import AuditRow, End
from services.auth.tables import audit as rows
from services.auth.tables import audit_ends
from shared.errors import Unavailable
from shared.runtime.clock import micros

MOST_READ: Final = 1_000

_END: Final = select(audit_ends.c.position, audit_ends.c.hash).where(audit_ends.c.name == bindparam("end"))
_LOCKED_END: Final = _END.with_for_update()
"""On PostgreSQL the copies of auth take turns at the head; SQLite has one writer anyway."""
_INSERT: Final = insert(rows)
_MOVE: Final = (
    update(audit_ends)
    .where(audit_ends.c.name == bindparam("end"))
    .values(position=bindparam("new_position"), hash=bindparam("new_hash"))
)


def append(connection: Connection, decisions: Sequence[AuditRow]) -> None:
    """Write down what was decided, at the chain's end."""
    if not decisions:
        return
    head = _end(connection, "head", lock=True)
    chained = []
    for decision in decisions:
        row = audit.chained(_record(decision), head)
        head = End(row["position"], row["hash"])
        chained.append(row)
    connection.execute(_INSERT, chained)
    _move(connection, "head", head)


def _record(row: AuditRow) -> dict[str, Any]:
    return {
        "kind": row.kind, "question": row.question[:64], "at": micros(row.at), "issuer": row.principal.issuer[:512],
        "subject": row.principal.subject[:255], "verb": row.verb[:64], "vo": row.vo and row.vo[:255],
        "allowed": row.allowed, "code": row.code[:64], "items": row.items, "detail": row.detail[:4_096],
    }  # fmt: skip


def read(connection: Connection, after: int, most: int = MOST_READ) -> list[dict[str, Any]]:
    """Records behind a position, in order, with their hashes."""
    found = connection.execute(select(rows).where(rows.c.position > after).order_by(rows.c.position).limit(most))
    return [{**row._mapping, "allowed": bool(row.allowed)} for row in found]


def ends(connection: Connection) -> tuple[End, End]:
    """Anchor and head: behind which record the chain begins, and its newest."""
    return _end(connection, "anchor"), _end(connection, "head")


def prune(connection: Connection, before: datetime) -> None:
    """Drop records of before this time, from the old end only, and remember where the chain begins now."""
    oldest_kept = select(func.min(rows.c.position)).where(rows.c.at >= micros(before))
    first = connection.execute(oldest_kept).scalar()
    last = (first if first is not None else _end(connection, "head").position + 1) - 1
    found = connection.execute(select(rows.c.position, rows.c.hash).where(rows.c.position == last)).first()
    if found is not None:
        connection.execute(delete(rows).where(rows.c.position <= last))
        _move(connection, "anchor", End(found.position, found.hash))


def _end(connection: Connection, name: str, *, lock: bool = False) -> End:
    found = connection.execute(_LOCKED_END if lock else _END, {"end": name}).first()
    if found is None:
        raise Unavailable(f"the audit log has lost its {name}: nothing is decided until an operator has looked at it")
    return End(found.position, found.hash)


def _move(connection: Connection, name: str, end: End) -> None:
    connection.execute(_MOVE, {"end": name, "new_position": end.position, "new_hash": end.hash})
