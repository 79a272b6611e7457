"""Opening: who may read the file, who may open it twice, and what is said when it cannot be opened."""

import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import make_url

from shared.adapters import postgres, sqlite
from shared.adapters.postgres.throwaway import ThrowAway
from shared.adapters.stores import open_store_at
from shared.errors import Misconfigured, Unavailable
from tests.ports.store.database import numbers, put, things


@pytest.mark.fast
async def test_a_file_is_its_owners_alone_and_so_is_the_folder_that_we_make(tmp_path: Path) -> None:
    store = await open_store_at(f"sqlite:///{tmp_path}/new/store.sqlite", None)
    await store.transact(lambda connection: things.create(connection))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "new", *(tmp_path / "new").iterdir()]}
    await store.close()
    assert modes.pop("new") == 0o700
    assert set(modes) == {"store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "store.sqlite.lock"}
    assert set(modes.values()) == {0o600}


@pytest.mark.fast
async def test_a_file_that_is_open_is_not_opened_again(tmp_path: Path) -> None:
    store = await sqlite.open_store(tmp_path / "store.sqlite")
    with pytest.raises(Misconfigured, match=r"store\.sqlite is in use by process \d+ .*stop that first"):
        await sqlite.open_store(tmp_path / "store.sqlite")
    await store.transact(lambda connection: things.create(connection))
    await store.close()
    again = await sqlite.open_store(tmp_path / "store.sqlite")
    assert await again.read(numbers) == []
    await again.close()


@pytest.mark.fast
async def test_a_file_that_somebody_writes_to_while_it_is_opened_is_no_raw_error(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("CREATE TABLE theirs (id)")
    with pytest.raises(Unavailable, match="cannot open"):
        await sqlite.open_store(tmp_path / "store.sqlite", busy_s=0.05)
    other.close()
    await (await sqlite.open_store(tmp_path / "store.sqlite")).close()


@pytest.mark.fast
async def test_a_long_read_that_finds_no_file_any_more_is_no_raw_error(tmp_path: Path) -> None:
    store = await sqlite.open_store(tmp_path / "here" / "store.sqlite")
    (tmp_path / "here").rename(tmp_path / "gone")
    with pytest.raises(Unavailable, match="does not serve"):
        await store.read_long(numbers)
    await store.close()


@pytest.mark.fast
async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Misconfigured, match="is no SQLite database"):
        await sqlite.open_store(tmp_path / "store.sqlite")


@pytest.mark.fast
@pytest.mark.parametrize(
    "url", ["", "store.sqlite", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "http://[", "postgresql"]
)
async def test_addresses_that_are_not_known_are_refused_with_those_that_are(url: str) -> None:
    with pytest.raises(Misconfigured, match="postgresql://"):
        await open_store_at(url, None)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong"}, "password"),
        ({"username": "nobody-here"}, "refuses us"),
        ({"database": "not-there"}, "does not exist"),
        ({"query": {"options": "-csearch_path=nowhere"}}, "search_path"),
    ],
)
async def test_what_is_wrong_with_the_address_is_said(
    own_server: ThrowAway, change: dict[str, object], words: str
) -> None:
    url = make_url(own_server.url()).set(**change).render_as_string(hide_password=False)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match=words) as refused:
        await open_store_at(url, None)
    assert "wrong" not in str(refused.value).replace("wrong ", "")


@pytest.mark.postgres
async def test_a_server_that_is_not_there_is_unavailable(own_server: ThrowAway) -> None:
    await own_server.stop()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{own_server.port}"):
        await open_store_at(own_server.url(), None)


@pytest.mark.postgres
async def test_a_user_without_rights_is_told_so(own_server: ThrowAway) -> None:
    owner = await postgres.open_store(own_server.url())
    await owner.transact(lambda c: c.exec_driver_sql("CREATE ROLE reader LOGIN PASSWORD 'secret'") and things.create(c))
    await owner.close()
    url = make_url(own_server.url()).set(username="reader", password="secret").render_as_string(hide_password=False)
    store = await postgres.open_store(url)
    with pytest.raises(Misconfigured, match="permission denied"):
        await store.transact(put(1))
    await store.close()
    with pytest.raises(Misconfigured, match="permission denied"):
        await open_store_at(url, "services.scheduler.migrations")
