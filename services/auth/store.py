"""The statements of auth about principals, memberships and signing keys. The tables are in `tables.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select

from services.auth import audit_store
from services.auth.audit import AuditRow
from services.auth.claims import Verified
from services.auth.permissions import PlatformRole, Role
from services.auth.standing import LastSeen
from services.auth.tables import TABLES, assurances, audit, memberships, metadata, principals, runtime, signing_keys
from shared.contracts.commands import Principal
from shared.runtime.clock import micros, moment
from shared.runtime.sql import upsert

__all__ = ["TABLES", "AuditRow", "audit", "memberships", "metadata", "principals", "runtime", "signing_keys"]


_MEMBERSHIPS: Final = select(memberships.c.vo, memberships.c.role).where(
    memberships.c.issuer == bindparam("issuer"),
    memberships.c.subject == bindparam("subject"),
    memberships.c.seen_at >= bindparam("since"),
)
_PRINCIPAL: Final = select(principals.c.platform_roles, principals.c.seen_at).where(
    principals.c.issuer == bindparam("issuer"), principals.c.subject == bindparam("subject")
)

_ASSURANCE: Final = select(assurances.c.said).where(
    assurances.c.issuer == bindparam("issuer"),
    assurances.c.subject == bindparam("subject"),
    assurances.c.seen_at >= bindparam("since"),
)


def remember(connection: Connection, seen: Verified, now: datetime) -> None:
    """Note what a good token said.

    A VO that a narrower token leaves out is kept until its own time is over; one that an issuer leaves out who always
    says everything has ended.
    """
    who = {"issuer": seen.principal.issuer, "subject": seen.principal.subject}
    roles = orjson.dumps(sorted(seen.platform_roles)).decode()
    row = {**who, "name": seen.principal.name, "platform_roles": roles, "seen_at": micros(now)}
    upsert(connection, principals, row, ("issuer", "subject"))
    rows = [{**who, "vo": vo, "role": str(role), "seen_at": micros(now)} for vo, role in seen.memberships.items()]
    upsert(connection, memberships, rows, ("issuer", "subject", "vo"))
    if seen.whole:
        mine = (memberships.c.issuer == who["issuer"]) & (memberships.c.subject == who["subject"])
        connection.execute(delete(memberships).where(mine, memberships.c.vo.not_in(list(seen.memberships))))
    said = {**who, "said": orjson.dumps(sorted(seen.assurance)).decode(), "seen_at": micros(now)}
    upsert(connection, assurances, said, ("issuer", "subject"))


def last_seen(connection: Connection, principal: Principal, since: datetime) -> LastSeen | None:
    """What was seen of a principal at or after `since`; None when nobody of that name was ever seen."""
    who = {"issuer": principal.issuer, "subject": principal.subject}
    row = connection.execute(_PRINCIPAL, who).first()
    if row is None:
        return None
    found = connection.execute(_MEMBERSHIPS, {**who, "since": micros(since)}).all()
    roles = orjson.loads(row.platform_roles) if row.seen_at >= micros(since) else []
    said = connection.execute(_ASSURANCE, {**who, "since": micros(since)}).scalar()
    return LastSeen(
        {vo: Role(role) for vo, role in found}, frozenset(PlatformRole(role) for role in roles),
        frozenset(orjson.loads(said)) if said else frozenset(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key at rest; `sealed` is unreadable without the secret of the settings."""

    kid: str
    sealed: str
    signs_from: datetime


def load_keys(connection: Connection) -> list[StoredKey]:
    """All signing keys, in the order in which they sign."""
    rows = connection.execute(select(signing_keys).order_by(signing_keys.c.signs_from, signing_keys.c.kid))
    return [StoredKey(row.kid, row.sealed, moment(row.signs_from)) for row in rows]


def add_key(connection: Connection, key: StoredKey) -> None:
    row = {"kid": key.kid, "sealed": key.sealed, "signs_from": micros(key.signs_from)}
    connection.execute(insert(signing_keys), row)


def drop_keys(connection: Connection, kids: Sequence[str]) -> None:
    """Forget keys that no grant in the world can still be signed with."""
    if kids:
        connection.execute(delete(signing_keys).where(signing_keys.c.kid.in_(kids)))


def prune(connection: Connection, *, audit_before: datetime, seen_before: datetime) -> None:
    """Drop what is older than it is kept."""
    audit_store.prune(connection, audit_before)
    connection.execute(delete(assurances).where(assurances.c.seen_at < micros(seen_before)))
    connection.execute(delete(memberships).where(memberships.c.seen_at < micros(seen_before)))
    connection.execute(delete(principals).where(principals.c.seen_at < micros(seen_before)))
