"""`serai-platform db`: bring the services' databases to this release, or say how they stand. Starts no service.

Services bring their database up themselves when they start, if their user may; an operator runs `db upgrade` where
another user owns the tables, or before the new release starts.
"""

import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from shared.adapters.stores import sqlite_path
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.runtime.migrating import Age, Version, differences, lacks, metadata_of, version

SERVICES: Final = ("auth", "gateway", "monitor", "scheduler")
T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Databases of the services: upgrade them, or check their version.")

Urls = Annotated[
    str,
    typer.Option(
        "--database-url", envvar="SERAI_DATABASE_URL",
        help="postgresql://user:password@host/name or sqlite:///path; `{service}` in it becomes the service's name.",
    ),
]  # fmt: skip
Services = Annotated[
    list[str] | None, typer.Option("--service", help="auth, gateway, monitor or scheduler; all four if left out.")
]


@dataclass(frozen=True, slots=True)
class Found:
    """How a service's database stands: its version, and what is in its tables that the code does not know."""

    service: str
    version: Version
    unlike: int = 0
    lacking: Sequence[str] = ()

    @property
    def good(self) -> bool:
        return self.version.age is Age.CURRENT and self.unlike == 0


@app.command()
def upgrade(database_url: Urls, service: Services = None) -> None:
    """Bring the databases to the newest version that this release knows."""
    for name in _chosen(service, database_url):
        _told(lambda name=name: print(upgraded(name, _url(database_url, name))))  # type: ignore[misc]


@app.command()
def check(database_url: Urls, service: Services = None) -> None:
    """Say how the databases stand; exit 1 unless each is what this release expects. Changes nothing."""
    good = True
    for name in _chosen(service, database_url):
        found = _told(lambda name=name: look(name, _url(database_url, name)))  # type: ignore[misc]
        print(in_words(found))
        good = good and found.good
    if not good:
        raise typer.Exit(1)


def upgraded(service: str, url: str) -> str:
    """Upgrade one service's database; what was done, in words. Raises Misconfigured, Unavailable."""
    import asyncio

    from shared.adapters.stores import open_store_at

    before = look(service, url).version if _exists(url) else None

    async def opened_once() -> None:
        await (await open_store_at(url, _package(service))).close()

    asyncio.run(opened_once())
    after = look(service, url).version
    was = before.present if before else None
    if was == after.present:
        return f"{service}: is at {after.present}, nothing to do"
    return f"{service}: {'made' if was is None else f'upgraded from {was}'}, is at {after.present}"


def look(service: str, url: str) -> Found:
    """How one service's database stands. Raises Misconfigured, Unavailable."""
    if not _exists(url):
        raise Unavailable(
            f"{service}: there is no database at {sqlite_path(url)}; `serai-platform db upgrade` makes it"
        )

    def inside(connection: Connection) -> Found:
        found = version(connection, _package(service))
        if found.age is not Age.CURRENT:
            return Found(service, found)
        wanted = metadata_of(_package(service))
        return Found(service, found, len(differences(connection, wanted)), lacks(connection, wanted))

    return _read(url, inside)


def in_words(found: Found) -> str:
    """One line for an operator, with what to do."""
    at, newest = found.version.present, found.version.newest
    match found.version.age:
        case Age.EMPTY:
            return f"{found.service}: EMPTY; run `serai-platform db upgrade` to bring it to {newest}"
        case Age.OLDER:
            return f"{found.service}: OLDER, at {at}; run `serai-platform db upgrade` to bring it to {newest}"
        case Age.STRANGE:
            return f"{found.service}: NEWER, at {at}, unknown to this release ({newest}); run the newer release"
    if found.lacking:
        lacking = "; ".join(found.lacking)
        return f"{found.service}: at {at}, but LACKS {lacking}: not made by a release, or another service's"
    if found.unlike:
        return f"{found.service}: at {at}, but {found.unlike} things differ from what this release makes; see a backup"
    return f"{found.service}: at {at}, as this release expects"


def _chosen(services: Sequence[str] | None, url: str) -> Sequence[str]:
    chosen = services or SERVICES
    unknown = [name for name in chosen if name not in SERVICES]
    if unknown:
        raise typer.BadParameter(f"there is no service {unknown[0]!r}; there are {', '.join(SERVICES)}")
    if len(chosen) > 1 and "{service}" not in url:
        raise typer.BadParameter(
            "each service has a database of its own: put {service} into --database-url, or name one --service"
        )
    return chosen


def _url(pattern: str, service: str) -> str:
    return pattern.replace("{service}", service)


def _package(service: str) -> str:
    return f"services.{service}.migrations"


def _exists(url: str) -> bool:
    path = sqlite_path(url)
    return path is None or path.exists()


def _read(url: str, body: Callable[[Connection], T]) -> T:
    """Run a body on a connection of its own, that changes nothing and may read beside a running platform."""
    path = sqlite_path(url)
    if path is None:
        from shared.adapters.postgres import connecting

        address = connecting.parsed(url)
        with (
            connecting.translating(connecting.place(address)),
            connecting.alone(address, connecting.Limits()) as connection,
        ):
            return body(connection)
    engine = create_engine("sqlite+pysqlite://", creator=lambda: _opened(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return body(connection)
    finally:
        engine.dispose()


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True, timeout=5, check_same_thread=False)


def _told(work: Callable[[], T]) -> T:
    """A failure that we know is one sentence on standard error; exit 78 when an operator must mend something."""
    try:
        return work()
    except SeraiError as error:
        print(f"serai-platform: {error.what}", file=sys.stderr)
        raise typer.Exit(78 if isinstance(error, Misconfigured) else 1) from None
