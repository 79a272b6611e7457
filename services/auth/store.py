"""The tables of auth and their statements. Times are Unix microseconds; private keys come here sealed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
)

from services.auth.claims import Verified
from services.auth.permissions import PlatformRole, Role
from shared.contracts.commands import Principal
from shared.runtime.clock import micros, moment
from shared.runtime.sql import upsert
from shared.runtime.tables import RuntimeTables

metadata = MetaData()
runtime = RuntimeTables(metadata)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
)
principals = Table(
    "principals",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("platform_roles", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("principals_age", "seen_at"),
)
memberships = Table(
    "memberships",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("vo", String(255), primary_key=True),
    Column("role", String(32), nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("memberships_age", "seen_at"),
)
audit = Table(
    "audit",
    metadata,
    Column("position", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    Column("question", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("issuer", String(512), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("verb", String(64), nullable=False),
    Column("vo", String(255)),
    Column("allowed", Boolean, nullable=False),
    Column("code", String(64), nullable=False),
    Column("items", Integer, nullable=False),
    Index("audit_age", "at"),
    Index("audit_who", "issuer", "subject", "at"),
)
TABLES: Final = (signing_keys, principals, memberships, audit)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """`items` commands of one question (its id is the first part of their grants' `jti`) with the same outcome."""

    question: str
    at: datetime
    principal: Principal
    verb: str
    vo: str | None
    allowed: bool
    code: str
    items: int


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The memberships and platform roles of a principal that were seen no longer ago than asked."""

    memberships: dict[str, Role]
    platform_roles: frozenset[PlatformRole]


_MEMBERSHIPS = select(memberships.c.vo, memberships.c.role).where(
    memberships.c.issuer == bindparam("issuer"),
    memberships.c.subject == bindparam("subject"),
    memberships.c.seen_at >= bindparam("since"),
)
_PRINCIPAL = select(principals.c.platform_roles, principals.c.seen_at).where(
    principals.c.issuer == bindparam("issuer"), principals.c.subject == bindparam("subject")
)


def remember(connection: Connection, seen: Verified, now: datetime) -> None:
    """Note what a good token said. A VO that a narrower token leaves out is kept until its own time is over."""
    who = {"issuer": seen.principal.issuer, "subject": seen.principal.subject}
    roles = orjson.dumps(sorted(seen.platform_roles)).decode()
    row = {**who, "name": seen.principal.name, "platform_roles": roles, "seen_at": micros(now)}
    upsert(connection, principals, row, ("issuer", "subject"))
    rows = [{**who, "vo": vo, "role": str(role), "seen_at": micros(now)} for vo, role in seen.memberships.items()]
    upsert(connection, memberships, rows, ("issuer", "subject", "vo"))


def last_seen(connection: Connection, principal: Principal, since: datetime) -> LastSeen | None:
    """What was seen of a principal at or after `since`; None when nobody of that name was ever seen."""
    who = {"issuer": principal.issuer, "subject": principal.subject}
    row = connection.execute(_PRINCIPAL, who).first()
    if row is None:
        return None
    found = connection.execute(_MEMBERSHIPS, {**who, "since": micros(since)}).all()
    roles = orjson.loads(row.platform_roles) if row.seen_at >= micros(since) else []
    return LastSeen({vo: Role(role) for vo, role in found}, frozenset(PlatformRole(role) for role in roles))


def append_audit(connection: Connection, rows: Sequence[AuditRow]) -> None:
    """Write down what was decided."""
    if rows:
        connection.execute(insert(audit), [_audit_row(row) for row in rows])


def _audit_row(row: AuditRow) -> dict[str, object]:
    return {
        "question": row.question, "at": micros(row.at), "issuer": row.principal.issuer,
        "subject": row.principal.subject, "verb": row.verb[:64], "vo": row.vo and row.vo[:255],
        "allowed": row.allowed, "code": row.code, "items": row.items,
    }  # fmt: skip


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
    connection.execute(delete(audit).where(audit.c.at < micros(audit_before)))
    connection.execute(delete(memberships).where(memberships.c.seen_at < micros(seen_before)))
    connection.execute(delete(principals).where(principals.c.seen_at < micros(seen_before)))
