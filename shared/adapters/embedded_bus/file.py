"""The bus's file: its schema and every statement on it. Synchronous; no decision is made here.

Raw sqlite3 on purpose: this is the hottest path of the embedded platform, its format is nobody else's, and it will
never be PostgreSQL's. Times are Unix microseconds.

- `log`: every message once, in the order of publishing; `position` never repeats, also when rows are gone.
- `waiting`: one row per queue and message that is not settled. `due_at` > 0 = not before then (a retry);
  `held` = a consumer has it now, so that after a crash its attempt is known to have been spent.
- `dead`: what was set aside; its `log` row stays as long.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import orjson

from shared.adapters.embedded_bus.ownership import make_private
from shared.contracts.envelope import Message
from shared.errors import Unavailable

_SCHEMA = """
create table if not exists log (
  position integer primary key autoincrement, exchange text not null, routing_key text not null, id text not null,
  type text not null, content_type text not null, headers text not null, body blob not null, at integer not null
);
create index if not exists log_exchange on log (exchange, position);
create table if not exists waiting (
  queue text not null, position integer not null, attempt integer not null, due_at integer not null,
  held integer not null, primary key (queue, position)
) without rowid;
create index if not exists waiting_retries on waiting (queue, due_at) where due_at > 0;
create table if not exists dead (
  number integer primary key autoincrement, queue text not null, position integer not null, reason text not null,
  at integer not null
);
create index if not exists dead_queue on dead (queue, number);
create index if not exists dead_position on dead (position);
"""
_MESSAGE = "log.id, log.type, log.exchange, log.routing_key, log.body, log.content_type, log.headers"

Waiting = tuple[int, int, Message]
"""Position, attempt, message."""


class Dead(NamedTuple):
    number: int
    reason: str
    at: int
    message: Message


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; the first one makes the schema. Raises Unavailable."""
    try:
        make_private(path)
        raw = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
            raw.execute(f"PRAGMA {pragma}")
        if read_only:
            raw.execute("PRAGMA query_only=ON")
        else:
            raw.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        mend = "; another program (a database shell, a backup) holds it: end that" if busy else ""
        raise Unavailable(f"cannot open the bus {path}: {error}{mend}", code="bus_failed") from error
    return raw


# -- opening ------------------------------------------------------------------------------------------------------


def spend_held(raw: sqlite3.Connection) -> None:
    """After a crash: what a consumer held then has used up an attempt."""
    raw.execute("update waiting set attempt = attempt + 1, held = 0 where held = 1")


def last_position(raw: sqlite3.Connection) -> int:
    found = raw.execute("select seq from sqlite_sequence where name = 'log'").fetchone()
    return int(found[0]) if found else 0


def depth(raw: sqlite3.Connection, queue: str) -> int:
    return int(raw.execute("select count(*) from waiting where queue = ?", (queue,)).fetchone()[0])


def retries(raw: sqlite3.Connection, queue: str) -> list[tuple[int, int]]:
    """(due_at, position) of everything that waits for its time."""
    return raw.execute("select due_at, position from waiting where queue = ? and due_at > 0", (queue,)).fetchall()


# -- writing ------------------------------------------------------------------------------------------------------


def append(raw: sqlite3.Connection, rows: Iterable[tuple[int, Message]], at: int) -> None:
    raw.executemany(
        "insert into log (position, exchange, routing_key, id, type, content_type, headers, body, at)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (position, m.exchange, m.routing_key, m.id, m.type, m.content_type, _packed(m), m.body, at)
            for position, m in rows
        ],
    )


def enqueue(raw: sqlite3.Connection, rows: Iterable[tuple[str, int]]) -> None:
    """(queue, position) rows, at their first attempt."""
    raw.executemany("insert into waiting values (?, ?, 1, 0, 0)", rows)


def hold(raw: sqlite3.Connection, queue: str, positions: Iterable[int], held: bool) -> None:
    raw.executemany(
        "update waiting set held = ? where queue = ? and position = ?",
        [(int(held), queue, position) for position in positions],
    )


def settle(raw: sqlite3.Connection, rows: Iterable[tuple[str, int]]) -> None:
    raw.executemany("delete from waiting where queue = ? and position = ?", rows)


def postpone(raw: sqlite3.Connection, queue: str, position: int, due_at: int) -> None:
    raw.execute(
        "update waiting set attempt = attempt + 1, held = 0, due_at = ? where queue = ? and position = ?",
        (due_at, queue, position),
    )


def bury(raw: sqlite3.Connection, queue: str, position: int, reason: str, at: int) -> None:
    settle(raw, [(queue, position)])
    raw.execute("insert into dead (queue, position, reason, at) values (?, ?, ?, ?)", (queue, position, reason, at))


def unbury(raw: sqlite3.Connection, queue: str, number: int) -> int | None:
    """Move a dead letter back; its position in the log, None when there is no such dead letter."""
    found = raw.execute(
        "delete from dead where queue = ? and number = ? returning position", (queue, number)
    ).fetchall()
    if not found:
        return None
    enqueue(raw, [(queue, int(found[0][0]))])
    return int(found[0][0])


def trim(raw: sqlite3.Connection, exchange: str, before: int, queues: Sequence[str], behind: int) -> int | None:
    """Delete up to 512 log rows of an exchange behind a position, older than `before`, that nobody needs any more.

    Returns the last position looked at, None when all old rows were seen. Looks no further than to the first row that
    is not old: there may be days of them.
    """
    rows = raw.execute(
        "select position, at from log where exchange = ? and position > ? order by position limit 512",
        (exchange, behind),
    )
    old = list(takewhile(lambda row: row[1] < before, rows))
    rows.close()
    waits = "".join(
        " and not exists (select 1 from waiting where queue = ? and position = log.position)" for _ in queues
    )
    raw.executemany(
        "delete from log where position = ?" + waits
        + " and not exists (select 1 from dead where dead.position = log.position)",
        [(position, *queues) for position, _ in old],
    )  # fmt: skip
    return int(old[-1][0]) if len(old) == 512 else None


# -- reading ------------------------------------------------------------------------------------------------------


def fresh(raw: sqlite3.Connection, queue: str, behind: int, limit: int) -> list[Waiting]:
    """What waits behind a position and is no retry, in order."""
    return _waiting(
        raw.execute(
            f"select waiting.position, waiting.attempt, {_MESSAGE} from waiting cross join log"
            " on log.position = waiting.position"
            " where waiting.queue = ? and waiting.position > ? and waiting.due_at = 0"
            " order by waiting.position limit ?",
            (queue, behind, limit),
        )
    )


def chosen(raw: sqlite3.Connection, queue: str, positions: Sequence[int]) -> list[Waiting]:
    """These, in order of position, as far as they still wait."""
    marks = ", ".join("?" for _ in positions)
    return _waiting(
        raw.execute(
            f"select waiting.position, waiting.attempt, {_MESSAGE} from waiting cross join log"
            f" on log.position = waiting.position where waiting.queue = ? and waiting.position in ({marks})"
            " order by waiting.position",
            (queue, *positions),
        )
    )


def page(raw: sqlite3.Connection, exchange: str, behind: int, limit: int) -> list[tuple[int, Message]]:
    """The log of one exchange behind a position, in order."""
    found = raw.execute(
        f"select log.position, {_MESSAGE} from log where exchange = ? and position > ? order by position limit ?",
        (exchange, behind, limit),
    )
    return [(row[0], _message(row[1:])) for row in found.fetchall()]


def dead(raw: sqlite3.Connection, queue: str, limit: int) -> list[Dead]:
    found = raw.execute(
        f"select dead.number, dead.reason, dead.at, {_MESSAGE} from dead join log on log.position = dead.position"
        " where dead.queue = ? order by dead.number limit ?",
        (queue, limit),
    )
    return [Dead(row[0], row[1], row[2], _message(row[3:])) for row in found.fetchall()]


def _waiting(found: sqlite3.Cursor) -> list[Waiting]:
    return [(row[0], row[1], _message(row[2:])) for row in found.fetchall()]


def _packed(message: Message) -> str:
    return orjson.dumps(dict(message.headers)).decode()


def _message(row: Sequence[object]) -> Message:
    id, type, exchange, key, body, content_type, headers = row
    return Message(id, type, exchange, key, body, content_type, orjson.loads(headers))  # type: ignore[arg-type]
