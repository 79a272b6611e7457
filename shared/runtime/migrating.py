"""Migrations: bring a service's database to the newest version of its package, with Alembic and no ini file.

Called by the Store adapters when they open, and by `serai-platform db`. A service owns a regular package, e.g.
`services.scheduler.migrations`, with `__init__.py` and `versions/NNNN_title.py` (and `versions/__init__.py`); this
module is their common env.py. The same code runs on SQLite and PostgreSQL: it is handed a sync `Connection` that is
inside a transaction, and the whole way to the newest version is one transaction. Alembic's `op` is one for the whole
process, so migrations take turns in threads, never on the event loop.

How a first version looks (`versions/0001_first.py`), every table by name:

    from alembic import op
    from services.scheduler import store
    from shared.runtime.migrating import create_tables

    revision, down_revision = "0001", None

    def upgrade() -> None:
        create_tables(op.get_bind(), store.jobs, store.attempts, *store.runtime.all)

    def downgrade() -> None:
        drop_tables(op.get_bind(), store.jobs, store.attempts, *store.runtime.all)

Rule: until the first release, edit 0001. After it, a table never changes under an old version: who changes one first
writes its old form into the old version as `op.create_table(...)`, then adds version 0002 with `op.add_column(...)`
and so on. `differences` finds whoever forgot; a test asks it for every service. A new column of text says
`sa.String(..., collation=BYTEWISE)` where `op.get_bind().dialect.name == "postgresql"`.
"""

import ast
import importlib.util
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, MetaData, String, Table, inspect, select, table, text
from sqlalchemy import column as sql_column
from sqlalchemy.exc import OperationalError, ProgrammingError

from shared.errors import Misconfigured

_VERSION_TABLE = "alembic_version"
_ADVISORY_LOCK = 7_360_241
"""Any constant: copies of a service that start together on PostgreSQL migrate one after another."""
_PARSING = threading.Lock()
"""Python 3.11's `ast.parse` fails when several threads do it at once (python/cpython#106905)."""
_ONE_AT_A_TIME = threading.Lock()
"""Alembic's `op` is one for the whole process."""
BYTEWISE: Final = "C"
"""PostgreSQL's collation that orders as SQLite and Python do, whatever the database's own is: by code point."""


class Age(StrEnum):
    """How a database stands to the code: `strange` = written by a newer release, or by something else."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    STRANGE = "strange"


@dataclass(frozen=True, slots=True)
class Version:
    """Where a database is and where this release would bring it; `present` None = it has no tables of ours."""

    package: str
    present: str | None
    newest: str
    age: Age


def migrate(connection: Connection, package: str) -> bool:
    """Bring the database behind `connection` to the newest version of `package`; True when something was to do.

    `connection` is in a transaction, which the caller commits. Alembic is imported only when there is something to
    do. Raises Misconfigured for a database that is newer than this release, or whose tables are not those that its
    version has: it was made by an unreleased state of the code, or by somebody else.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    found = version(connection, package)
    if found.age is Age.STRANGE:
        raise Misconfigured(
            f"it is at version {found.present} of {package}, which this release does not know (its newest is "
            f"{found.newest}): run the release that wrote it, or a newer one; if it is another service's, name our own"
        )
    if found.age is Age.EMPTY:
        _check_no_stranger(connection, package)
    if found.age is not Age.CURRENT:
        _upgrade(connection, found)
    if found.age is not Age.EMPTY:
        _check_whole(connection, found)
    return found.age is not Age.CURRENT


_MEND: Final = (
    "Name this service's own database in its settings, or move that one away (a file: rename it) and let a new one be "
    "made; `serai-platform db check` says how each service's stands"
)


def _check_no_stranger(connection: Connection, package: str) -> None:
    if taken := sorted(metadata_of(package).tables.keys() & _columns(connection).keys()):
        raise Misconfigured(
            f"it has a table `{taken[0]}` that no version of {package} made: it belongs to something else. {_MEND}"
        )


def _upgrade(connection: Connection, found: Version) -> None:
    try:
        _run(connection, _folder(found.package), lambda script, present: script._upgrade_revs("head", present))
    except (OperationalError, ProgrammingError) as error:
        if found.age is Age.EMPTY or not (missing := lacks(connection, metadata_of(found.package))):
            raise
        raise Misconfigured(
            f"it cannot be brought from version {found.present} of {found.package} to {found.newest} "
            f"({str(error.orig).splitlines()[0]}): it lacks {missing[0]}{_and_more(missing)}, and is not what that "
            f"version made. {_MEND}"
        ) from error


def _check_whole(connection: Connection, found: Version) -> None:
    if missing := lacks(connection, metadata_of(found.package)):
        raise Misconfigured(
            f"it says that it is at version {found.newest} of {found.package}, but lacks {missing[0]}"
            f"{_and_more(missing)}: an unreleased state of this program made it, or it is another service's. {_MEND}"
        )


def _and_more(found: list[str]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def lacks(connection: Connection, metadata: MetaData) -> list[str]:
    """What of `metadata` the database does not have: tables, and columns of tables that it has, in words."""
    present = _columns(connection)
    absent = [f"the table `{each.name}`" for each in metadata.sorted_tables if each.name not in present]
    return absent + [
        f"the column `{column.name}` of `{each.name}`"
        for each in metadata.sorted_tables
        for column in each.columns
        if each.name in present and column.name not in present[each.name]
    ]


def metadata_of(package: str) -> MetaData:
    """The tables that the service with these migrations works on."""
    found: MetaData = importlib.import_module(f"{package.rpartition('.')[0]}.store").metadata
    return found


_COLUMNS: Final = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns "
    "WHERE table_schema = current_schema()",
}  # fmt: skip
"""One question; to reflect table by table costs some milliseconds each."""


def _columns(connection: Connection) -> dict[str, set[str]]:
    """The columns of every table there is, by table."""
    found: dict[str, set[str]] = {}
    for name, column in connection.execute(text(_COLUMNS[connection.dialect.name])):
        found.setdefault(str(name), set()).add(str(column))
    return found


def downgrade(connection: Connection, package: str, target: str = "base") -> None:
    """Bring the database down to version `target` of `package`; `base` = without any of our tables. Data is lost.

    Same conditions and failures as `migrate`.
    """
    found = version(connection, package)
    if found.age is Age.STRANGE:
        raise Misconfigured(f"the database is at version {found.present} of {package}, which is not known here")
    if found.age is not Age.EMPTY:
        _run(connection, _folder(package), lambda script, present: script._downgrade_revs(target, present))


def version(connection: Connection, package: str) -> Version:
    """Where the database behind `connection` is. Raises Misconfigured for a package without one newest version."""
    history = _history(_folder(package))
    newest, present = _newest(package, history), _present(connection)
    if present is None:
        age = Age.EMPTY
    elif present == newest:
        age = Age.CURRENT
    else:
        age = Age.OLDER if present in history else Age.STRANGE
    return Version(package, present, newest, age)


def create_tables(connection: Connection, *tables: Table) -> None:
    """Create exactly these tables with their indexes, for a version file. All belong to one MetaData."""
    made = tables if connection.dialect.name != "postgresql" else _bytewise(tables)
    made[0].metadata.create_all(connection, tables=list(made), checkfirst=False)


def drop_tables(connection: Connection, *tables: Table) -> None:
    """The inverse of `create_tables`."""
    tables[0].metadata.drop_all(connection, tables=list(tables), checkfirst=False)


def _bytewise(tables: Iterable[Table]) -> tuple[Table, ...]:
    """The same tables with every text in the order of its bytes: cursors and merged lists rely on it."""
    metadata = MetaData()
    copies = tuple(each.to_metadata(metadata) for each in tables)
    for column in (column for each in copies for column in each.columns):
        if isinstance(column.type, String):
            kind = column.type.copy()
            kind.collation = BYTEWISE
            column.type = kind
    return copies


def differences(connection: Connection, metadata: MetaData) -> list[Any]:
    """What Alembic's autogenerate would still change to make the database look like `metadata`; empty is right."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    return list(compare_metadata(MigrationContext.configure(connection), metadata))


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(f"{package} is not a package with migrations")
    return Path(next(iter(spec.submodule_search_locations)))


def _history(folder: Path) -> dict[str, str | None]:
    """revision -> down_revision, read from the sources: importing them would import Alembic."""
    with _PARSING:
        return dict(_revision(path) for path in sorted((folder / "versions").glob("[0-9]*.py")))


def _revision(path: Path) -> tuple[str, str | None]:
    found: dict[str, str | None] = {}
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                found[name] = value  # type: ignore[assignment]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                found[name] = value  # type: ignore[assignment]
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found |= {n.id: v.value for n, v in zip(names, values, strict=True)}  # type: ignore[attr-defined]
    if "revision" not in found or "down_revision" not in found:
        raise Misconfigured(f"{path.name} must set 'revision' and 'down_revision' to plain constants")
    return str(found["revision"]), found["down_revision"]


def _newest(package: str, history: dict[str, str | None]) -> str:
    heads = set(history) - set(history.values())
    if len(heads) != 1:
        raise Misconfigured(f"{package} must have exactly one newest version, it has {sorted(heads)}")
    return heads.pop()


def _present(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    seen = _columns(connection).get(_VERSION_TABLE)  # PostgreSQL shows none of a table on which we have no rights
    if seen is not None and "version_num" not in seen:
        raise Misconfigured(f"it has a table `{_VERSION_TABLE}` that is none of ours. {_MEND}")
    found = connection.execute(select(table(_VERSION_TABLE, sql_column("version_num")).c.version_num)).scalar()
    return None if found is None else str(found)


def _run(connection: Connection, folder: Path, steps: Callable[[Any, Any], Any]) -> None:
    """Take the steps (of Alembic's script folder, from the present version) within the caller's transaction."""
    from alembic.config import Config
    from alembic.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(folder))
    chosen = lambda present, _context: steps(script, present)  # noqa: E731
    with _ONE_AT_A_TIME, EnvironmentContext(Config(), script, fn=chosen) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
