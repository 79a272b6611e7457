"""Every service's migrations, up and down, on both databases; and what `serai-platform db` says of them."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, inspect, text
from typer.testing import CliRunner

from services import databases
from services.databases import SERVICES
from shared.adapters.postgres import connecting
from shared.adapters.stores import open_store_at
from shared.errors import Misconfigured
from shared.ports import Store
from shared.runtime.migrating import BYTEWISE, Age, differences, downgrade, migrate, version
from tests.ports.store.conftest import POSTGRES
from tests.ports.store.database import Database

services = pytest.mark.parametrize("service", SERVICES)


def package(service: str) -> str:
    return f"services.{service}.migrations"


def metadata(service: str) -> MetaData:
    found: MetaData = import_module(f"services.{service}.store").metadata
    return found


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version", "sqlite_sequence"}


async def bare(database: Database) -> Store:
    """A store without tables."""
    store = await database._open(10_000)
    database.opened.append(store)
    return store


def there_and_back(connection: Connection, service: str) -> None:
    """Down to nothing and up again, then each step alone, down and up."""
    downgrade(connection, package(service))
    assert tables(connection) == set()
    assert version(connection, package(service)).age is Age.EMPTY
    migrate(connection, package(service))
    assert tables(connection) == set(metadata(service).tables)
    assert differences(connection, metadata(service)) == []


@services
async def test_migrations_go_up_and_down_and_make_what_the_code_has(database: Database, service: str) -> None:
    store = await bare(database)
    await in_thread(store, database, lambda connection: there_and_back(connection, service))
    assert await store.read(lambda connection: version(connection, package(service)).age) is Age.CURRENT


@services
async def test_a_second_start_has_nothing_to_do(database: Database, service: str) -> None:
    store = await bare(database)
    done: list[bool] = []
    for _ in range(2):
        await in_thread(store, database, lambda connection: done.append(migrate(connection, package(service))))
    assert done == [True, False]


@services
@pytest.mark.parametrize("database", [POSTGRES], indirect=True)
async def test_every_text_is_ordered_by_its_bytes(database: Database, service: str) -> None:
    """As SQLite does anyway, and whatever the collation of the database is."""
    store = await bare(database)
    await in_thread(store, database, lambda connection: migrate(connection, package(service)))
    query = text(
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM :c "
        "AND table_name <> 'alembic_version'"
    )
    assert await store.read(lambda connection: list(connection.execute(query, {"c": BYTEWISE}).scalars())) == []


async def test_a_database_of_a_newer_release_is_refused_in_words(database: Database) -> None:
    store = await bare(database)

    def from_the_future(connection: Connection) -> None:
        migrate(connection, package("scheduler"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await in_thread(store, database, from_the_future)
    await database.close()
    again = databases.look("scheduler", database.url)
    assert "NEWER, at 9999" in databases.in_words(again)
    with pytest.raises(Misconfigured, match=r"at version 9999 .*run the release that wrote it, or a newer one"):
        await open_store_at(database.url, package("scheduler"))


Spoiling = Callable[[Connection], object]


def made_by_an_earlier_state(connection: Connection) -> None:
    """As a developer's database before version 0001 was edited."""
    migrate(connection, package("scheduler"))
    connection.execute(text("ALTER TABLE attempts DROP COLUMN nonce"))


def another_services(connection: Connection) -> None:
    """The monitor is at 0001 as well."""
    migrate(connection, package("monitor"))


def a_strangers(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE jobs (name TEXT)"))


def of_another_program_with_alembic(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE alembic_version (release TEXT)"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (made_by_an_earlier_state, "lacks the column `nonce` of `attempts`: an unreleased state"),
        (another_services, "lacks the table "),
        (a_strangers, "has a table `jobs` that no version of services.scheduler.migrations made"),
        (of_another_program_with_alembic, "has a table `alembic_version` that is none of ours"),
    ],
)
async def test_a_database_that_is_not_what_its_version_says_is_refused_with_place_reason_and_mend(
    database: Database, spoil: Spoiling, words: str
) -> None:
    store = await bare(database)
    await in_thread(store, database, spoil)
    await database.close()
    with pytest.raises(Misconfigured) as refused:
        await open_store_at(database.url, package("scheduler"))
    told = refused.value.what
    assert words in told and "Name this service's own database in its settings, or move that one away" in told
    assert told.startswith(("the database /", "PostgreSQL 127.0.0.1")), told


async def test_one_that_an_upgrade_cannot_mend_is_refused_as_well_and_stays_as_it_was(database: Database) -> None:
    store = await bare(database)

    def halfway(connection: Connection) -> None:
        migrate(connection, package("auth"))
        downgrade(connection, package("auth"), "0001")
        connection.execute(text("DROP TABLE memberships"))

    await in_thread(store, database, halfway)
    await database.close()
    with pytest.raises(Misconfigured, match="lacks"):
        await open_store_at(database.url, package("auth"))
    assert databases.look("auth", database.url).version.present == "0001"


async def test_check_names_what_is_lacking(database: Database) -> None:
    store = await bare(database)
    await in_thread(store, database, made_by_an_earlier_state)
    await database.close()
    told = databases.in_words(databases.look("scheduler", database.url))
    assert told.startswith("scheduler: at 0001, but LACKS the column `nonce` of `attempts`")


async def in_thread(store: Store, database: Database, body: Callable[[Connection], object]) -> None:
    """Migrations do not run on the event loop where its statements give it up: on a connection of their own."""
    if not database.several:
        await store.transact(body)
        return

    def alone() -> None:
        with connecting.alone(connecting.parsed(database.url), connecting.Limits()) as connection:
            body(connection)

    await asyncio.to_thread(alone)


# -- the operators' command ---------------------------------------------------------------------------------------


def test_check_and_upgrade_tell_how_the_databases_stand(tmp_path: Path) -> None:
    run = CliRunner()
    url = f"sqlite:///{tmp_path}/{{service}}.sqlite"
    before = run.invoke(databases.app, ["check", "--database-url", url])
    made = run.invoke(databases.app, ["upgrade", "--database-url", url])
    after = run.invoke(databases.app, ["check", "--database-url", url])
    again = run.invoke(databases.app, ["upgrade", "--database-url", url])
    assert (before.exit_code, made.exit_code, after.exit_code, again.exit_code) == (1, 0, 0, 0)
    assert [line.split(":")[0] for line in after.stdout.splitlines()] == list(SERVICES)
    assert after.stdout.count("as this release expects") == again.stdout.count("nothing to do") == 4
    assert "there is no database" in before.stderr


def test_several_services_in_one_database_are_refused(tmp_path: Path) -> None:
    ended = CliRunner().invoke(databases.app, ["check", "--database-url", f"sqlite:///{tmp_path}/one.sqlite"])
    assert ended.exit_code == 2
    assert "{service}" in ended.output


def test_a_service_that_there_is_not_is_named() -> None:
    ended = CliRunner().invoke(databases.app, ["check", "--service", "schedular", "--database-url", "sqlite:///x"])
    assert ended.exit_code == 2
    assert "schedular" in ended.output


def test_the_command_is_part_of_serai_platform() -> None:
    from services.__main__ import app

    assert CliRunner().invoke(app, ["db", "--help"]).exit_code == 0
