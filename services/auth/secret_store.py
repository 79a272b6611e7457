"""The statements about users' secrets: sealed values, and what may be told of them. The table is in `tables.py`."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from services.auth.secret_box import Sealed, SecretBox, Whose
from services.auth.tables import secrets
from shared.contracts.commands import Principal
from shared.contracts.questions import SecretTold
from shared.errors import Misconfigured
from shared.runtime.clock import micros, moment

_TOLD: Final = (secrets.c.vo, secrets.c.name, secrets.c.created_at, secrets.c.updated_at, secrets.c.used_at)
_AT_ONCE: Final = 100


def put(connection: Connection, whose: Whose, sealed: Sealed, size: int, now: datetime) -> None:
    """Keep a value; one that was there under the name is gone for good."""
    values: dict[str, Any] = {
        "key_id": sealed.key_id, "box": sealed.box, "size": size, "updated_at": micros(now), "used_at": None,
    }  # fmt: skip
    changed = connection.execute(update(secrets).where(*_is(whose)).values(values))
    if changed.rowcount == 0:
        key = {"issuer": whose.owner.issuer, "subject": whose.owner.subject, "vo": whose.vo, "name": whose.name}
        connection.execute(insert(secrets), key | values | {"created_at": micros(now)})


def drop(connection: Connection, whose: Whose) -> bool:
    """Delete one; False when there was none."""
    return connection.execute(delete(secrets).where(*_is(whose))).rowcount > 0


def count(connection: Connection, owner: Principal, vo: str) -> int:
    """How many somebody has in a VO."""
    return int(connection.execute(select(func.count()).where(*_of(owner, [vo]))).scalar_one())


def told(connection: Connection, owner: Principal, vos: Iterable[str]) -> list[SecretTold]:
    """Names and dates of somebody's secrets, by VO and name."""
    found = connection.execute(select(*_TOLD).where(*_of(owner, vos)).order_by(secrets.c.vo, secrets.c.name))
    return [
        SecretTold(
            vo=row.vo, name=row.name, created_at=moment(row.created_at), updated_at=moment(row.updated_at),
            used_at=None if row.used_at is None else moment(row.used_at),
        )
        for row in found
    ]  # fmt: skip


def sizes(connection: Connection, owner: Principal, vos: Iterable[str]) -> dict[tuple[str, str], int]:
    """Bytes of each of somebody's secrets, by VO and name."""
    found = connection.execute(select(secrets.c.vo, secrets.c.name, secrets.c.size).where(*_of(owner, vos)))
    return {(row.vo, row.name): row.size for row in found}


def take(
    connection: Connection, owner: Principal, vo: str, names: Sequence[str], now: datetime
) -> dict[str, Sealed]:  # fmt: skip
    """The sealed values of these names, as far as there are any, and a note that they were used."""
    named = (*_of(owner, [vo]), secrets.c.name.in_(names))
    found = connection.execute(select(secrets.c.name, secrets.c.key_id, secrets.c.box).where(*named)).all()
    connection.execute(update(secrets).where(*named).values(used_at=micros(now)))
    return {row.name: Sealed(row.key_id, bytes(row.box)) for row in found}


def reseal(connection: Connection, box: SecretBox) -> tuple[int, list[str]]:
    """Put some of what former keys sealed under the current one: how many, and what is wrong with those left behind."""
    query = select(secrets).where(secrets.c.key_id.in_(sorted(box.former))).limit(_AT_ONCE)
    resealed, left = 0, []
    for row in connection.execute(query).all():
        whose = Whose(row.vo, Principal(issuer=row.issuer, subject=row.subject), row.name)
        try:
            fresh = box.seal(box.open(Sealed(row.key_id, bytes(row.box)), whose), whose)
        except Misconfigured as error:
            left.append(error.what)
            continue
        connection.execute(update(secrets).where(*_is(whose)).values(key_id=fresh.key_id, box=fresh.box))
        resealed += 1
    return resealed, left


def under_lost_keys(connection: Connection, box: SecretBox) -> dict[str, int]:
    """How many secrets there are by key, of keys that are not at hand."""
    known = secrets.c.key_id.in_([box.current, *sorted(box.former)])
    found = connection.execute(select(secrets.c.key_id, func.count()).where(~known).group_by(secrets.c.key_id))
    return {key_id: int(count) for key_id, count in found}


def forget_unused(connection: Connection, before: datetime) -> None:
    """Delete what was neither set nor used since then: its owner has most likely gone."""
    newest = func.coalesce(secrets.c.used_at, secrets.c.updated_at)
    connection.execute(delete(secrets).where(newest < micros(before), secrets.c.updated_at < micros(before)))


def _of(owner: Principal, vos: Iterable[str]) -> tuple[ColumnElement[bool], ...]:
    mine = (secrets.c.issuer == owner.issuer, secrets.c.subject == owner.subject)
    return (*mine, secrets.c.vo.in_(sorted(vos)))


def _is(whose: Whose) -> tuple[ColumnElement[bool], ...]:
    return (*_of(whose.owner, [whose.vo]), secrets.c.name == whose.name)
