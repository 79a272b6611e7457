"""Suspensions and policies in the store. Every change raises the version of trust in the same transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from services.auth import policies
from services.auth.policies import StoredPolicy
from services.auth.standing import Standing
from services.auth.tables import policies as documents
from services.auth.tables import suspensions, trust
from shared.contracts.policies import Policy
from shared.contracts.suspensions import Suspended, Suspension, TrustState
from shared.runtime.clock import micros, moment


def version(connection: Connection) -> int:
    """The version of trust: it grows with every change."""
    return int(connection.execute(select(trust.c.version).where(trust.c.name == "trust")).scalar_one())


def standing(connection: Connection) -> Standing:
    """Everything that holds, of one moment."""
    alive = tuple(_suspension(row) for row in connection.execute(_ALIVE))
    newest = policies.by_vo(_policy(row) for row in connection.execute(select(documents)))
    state = TrustState(version=version(connection), suspensions=alive)
    return Standing(state, Suspended(alive), newest)


_ALIVE = select(suspensions).where(suspensions.c.lifted_at.is_(None)).order_by(suspensions.c.made_at, suspensions.c.id)


def suspend(connection: Connection, suspension: Suspension, by: str, now: datetime) -> None:
    """Write down a suspension; it holds from now on."""
    until = None if suspension.until is None else micros(suspension.until)
    row = suspension.model_dump(exclude={"until"}) | {"until": until, "made_by": by, "made_at": micros(now)}
    connection.execute(insert(suspensions), row)
    _changed(connection)


def lift(connection: Connection, id: str, by: str, now: datetime) -> Suspension | None:
    """End a suspension; None when there is no such one that still holds."""
    row = connection.execute(_ALIVE.where(suspensions.c.id == id)).first()
    if row is None:
        return None
    ended = update(suspensions).where(suspensions.c.id == id).values(lifted_by=by, lifted_at=micros(now))
    connection.execute(ended)
    _changed(connection)
    return _suspension(row)


def history(connection: Connection, most: int = 500) -> list[dict[str, Any]]:
    """Suspensions with who made and who lifted them, newest first."""
    found = connection.execute(select(suspensions).order_by(suspensions.c.made_at.desc()).limit(most))
    return [
        {
            **_suspension(row).model_dump(mode="json"), "made_by": row.made_by, "lifted_by": row.lifted_by,
            "made_at": moment(row.made_at).isoformat(),
            "lifted_at": moment(row.lifted_at).isoformat() if row.lifted_at else None,
        }
        for row in found
    ]  # fmt: skip


def newest(connection: Connection, vo: str) -> StoredPolicy:
    """The newest policy of a VO."""
    query = select(documents).where(documents.c.vo == vo).order_by(documents.c.version.desc()).limit(1)
    row = connection.execute(query).first()
    return policies.nobody_wrote(vo) if row is None else _policy(row)


def versions(connection: Connection, vo: str) -> list[StoredPolicy]:
    """All versions of a VO's policy, newest first."""
    query = select(documents).where(documents.c.vo == vo).order_by(documents.c.version.desc())
    return [_policy(row) for row in connection.execute(query)]


def write(connection: Connection, stored: StoredPolicy, now: datetime) -> None:
    """Keep a further version. Raises the store's own error when somebody else wrote that version meanwhile."""
    connection.execute(insert(documents), {
        "vo": stored.vo, "version": stored.version, "hash": stored.hash, "written_by": stored.written_by,
        "document": policies.canonical(stored.policy), "written_at": micros(now),
    })  # fmt: skip
    _changed(connection)


def _changed(connection: Connection) -> None:
    connection.execute(update(trust).where(trust.c.name == "trust").values(version=trust.c.version + 1))


def _suspension(row: Row[Any]) -> Suspension:
    return Suspension(
        id=row.id, kind=row.kind, issuer=row.issuer, value=row.value, vo=row.vo, reason=row.reason,
        stop_running=bool(row.stop_running), until=None if row.until is None else moment(row.until),
    )  # fmt: skip


def _policy(row: Row[Any]) -> StoredPolicy:
    policy = Policy.model_validate_json(row.document)
    return StoredPolicy(row.vo, row.version, policy, row.hash, row.written_by, moment(row.written_at))
