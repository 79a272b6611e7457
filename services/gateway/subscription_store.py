"""The statements of subscriptions; their table is in `store.py`. Times are Unix microseconds."""

from collections.abc import Iterable
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from services.gateway.store import subscriptions
from services.gateway.subscriptions import ENDED, OPEN, OPENING, Cursor, Subscription
from shared.contracts.commands import Principal

_LIVE: Final = (OPENING, OPEN)
_T: Final = subscriptions.c


def add(connection: Connection, sub: Subscription) -> None:
    connection.execute(insert(subscriptions), _row(sub))


def get(connection: Connection, id: str) -> Subscription | None:
    row = connection.execute(select(subscriptions).where(_T.id == id)).first()
    return None if row is None else _subscription(row)


def of_owner(connection: Connection, owner: Principal) -> list[Subscription]:
    """Newest first, those that have ended lately among them."""
    mine = select(subscriptions).where(_T.owner_issuer == owner.issuer, _T.owner_subject == owner.subject)
    return [_subscription(row) for row in connection.execute(mine.order_by(_T.created_at.desc(), _T.id))]


def live(connection: Connection) -> list[Subscription]:
    """All that have not ended, and those ended ones of which something is left at the broker."""
    found = select(subscriptions).where(_T.state.in_(_LIVE) | ((_T.state == ENDED) & _T.cleared.is_(False)))
    return [_subscription(row) for row in connection.execute(found.order_by(_T.id))]


def live_count(connection: Connection, *, owner: Principal | None = None, vo: str | None = None) -> int:
    """How many of an owner, or of a VO, have not ended."""
    counting = select(func.count()).select_from(subscriptions).where(_T.state.in_(_LIVE))
    if owner is not None:
        counting = counting.where(_T.owner_issuer == owner.issuer, _T.owner_subject == owner.subject)
    if vo is not None:
        counting = counting.where(_T.vo == vo)
    return int(connection.execute(counting).scalar_one())


def opened(connection: Connection, id: str) -> bool:
    """It is set up at the broker; False when it has ended meanwhile."""
    return _change(connection, id, (OPENING,), state=OPEN)


def renewed(connection: Connection, id: str, until: int, now: int, client: str, token_id: str) -> bool:
    """New credentials, for whoever asked now; False when it has ended."""
    return _change(
        connection, id, (OPEN,), credentials_until=until, admitted=True, active_at=now, client=client, token_id=token_id
    )


def locked(connection: Connection, id: str, now: int) -> bool:
    """Its login is over; False when that was renewed meanwhile."""
    change = update(subscriptions).where(_T.id == id, _T.state == OPEN, _T.credentials_until <= now)
    return connection.execute(change.values(admitted=False)).rowcount > 0


def ended(connection: Connection, id: str, reason: str, now: int) -> bool:
    """It is over, for ever; False when it was already."""
    return _change(connection, id, _LIVE, state=ENDED, reason=reason[:1024], ended_at=now, admitted=False)


def cleared(connection: Connection, id: str) -> None:
    """Nothing of it is left at the broker."""
    _change(connection, id, (ENDED,), cleared=True)


def touched(connection: Connection, ids: Iterable[str], now: int) -> None:
    """These have a reader."""
    connection.execute(update(subscriptions).where(_T.id.in_(list(ids))).values(active_at=now))


def moved(connection: Connection, id: str, cursor: Cursor) -> None:
    """How far it was fed."""
    values = {
        "position": cursor.position, "previous": cursor.previous, "gap_reason": cursor.gap_reason,
        "gap_behind": cursor.gap_behind,
    }  # fmt: skip
    connection.execute(update(subscriptions).where(_T.id == id).values(values))


def forget(connection: Connection, before: int) -> int:
    """Delete those that ended before; how many."""
    gone = delete(subscriptions).where(_T.state == ENDED, _T.cleared, _T.ended_at < before)
    return connection.execute(gone).rowcount


def _change(connection: Connection, id: str, states: tuple[str, ...], **values: object) -> bool:
    change = update(subscriptions).where(_T.id == id, _T.state.in_(states)).values(**values)
    return connection.execute(change).rowcount > 0


def _row(sub: Subscription) -> dict[str, object]:
    same = (
        "id", "client", "token_id", "vo", "own", "state", "reason", "created_at", "credentials_until", "active_at",
        "position", "previous", "gap_reason", "gap_behind", "admitted", "ended_at", "cleared",
    )  # fmt: skip
    return {
        **{name: getattr(sub, name) for name in same},
        "owner_issuer": sub.owner.issuer, "owner_subject": sub.owner.subject,
        "states": orjson.dumps(sorted(sub.states)).decode(), "labels": orjson.dumps(dict(sub.labels)).decode(),
    }  # fmt: skip


def _subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        id=row.id, owner=Principal(issuer=row.owner_issuer, subject=row.owner_subject),
        client=row.client, token_id=row.token_id, vo=row.vo, states=frozenset(orjson.loads(row.states)),
        labels=tuple(orjson.loads(row.labels).items()), own=row.own, state=row.state, reason=row.reason,
        created_at=row.created_at, credentials_until=row.credentials_until, active_at=row.active_at,
        position=row.position, previous=row.previous, gap_reason=row.gap_reason, gap_behind=row.gap_behind,
        admitted=row.admitted, ended_at=row.ended_at, cleared=row.cleared,
    )  # fmt: skip
