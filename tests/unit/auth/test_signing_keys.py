"""The signing keys over their life: made once, published before they sign, useless without their secret."""

from datetime import timedelta
from pathlib import Path

import pytest

from services.auth.signing_keys import KeyChest, KeyLife, next_signs_from, retired
from services.auth.store import StoredKey
from shared.errors import Misconfigured
from tests.builders import NOON, TestClock
from tests.stores import open_store

pytestmark = pytest.mark.fast

DAY = timedelta(days=1)
LIFE = KeyLife(rotate_after=90 * DAY, publish_before=DAY, grant_life=timedelta(minutes=15))


def key(kid: str, days: float = 0) -> StoredKey:
    return StoredKey(kid, "sealed", NOON + days * DAY)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_the_first_key_signs_at_once_the_next_a_day_after_it_is_published() -> None:
    assert next_signs_from([], NOON, LIFE) == NOON
    assert next_signs_from([key("a")], NOON + 88 * DAY, LIFE) is None
    assert next_signs_from([key("a")], NOON + 89 * DAY, LIFE) == NOON + 90 * DAY
    assert next_signs_from([key("a"), key("b", 90)], NOON + 90 * DAY, LIFE) is None


def test_a_key_is_kept_until_no_grant_of_it_can_live() -> None:
    keys = [key("a"), key("b", 90)]
    assert retired(keys, NOON + 90 * DAY, LIFE) == []
    assert retired(keys, NOON + 90 * DAY + timedelta(minutes=74), LIFE) == []
    assert retired(keys, NOON + 90 * DAY + timedelta(minutes=76), LIFE) == ["a"]


async def test_a_whole_rotation_as_two_copies_see_it(tmp_path: Path) -> None:
    clock = TestClock()
    database = await open_store(tmp_path / "auth.sqlite", "services.auth.migrations", synchronous="OFF")
    one, other = KeyChest(database, "secret", LIFE, clock), KeyChest(database, "secret", LIFE, clock)
    await one.renew()
    await other.renew()
    first = one.current().kid
    assert other.current().kid == first
    clock.forward(89 * 86_400)
    await one.renew()
    await other.renew()
    assert len(other.published()["keys"]) == 2
    assert one.current().kid == other.current().kid == first
    clock.forward(86_400)
    second = one.current().kid
    assert other.current().kid == second != first
    clock.forward(2 * 3_600)
    await one.renew()
    await other.renew()
    assert [entry["kid"] for entry in other.published()["keys"]] == [second]
    await database.close()


async def test_a_copy_of_the_database_signs_nothing_without_the_secret(tmp_path: Path) -> None:
    clock = TestClock()
    database = await open_store(tmp_path / "auth.sqlite", "services.auth.migrations", synchronous="OFF")
    chest = KeyChest(database, "secret", LIFE, clock)
    await chest.renew()
    with pytest.raises(Misconfigured, match="SERAI_AUTH_KEY_SECRET"):
        await KeyChest(database, "another", LIFE, clock).renew()
    private = chest.current().key.as_dict(private=True)["d"]
    await database.close()
    assert str(private).encode() not in everything_in(tmp_path)


async def test_before_the_keys_time_nothing_is_signed(tmp_path: Path) -> None:
    clock = TestClock()
    database = await open_store(tmp_path / "auth.sqlite", "services.auth.migrations", synchronous="OFF")
    await KeyChest(database, "secret", LIFE, clock).renew()
    clock.forward(-3_600)
    early = KeyChest(database, "secret", LIFE, clock)
    await early.renew()
    with pytest.raises(Misconfigured, match="clock"):
        early.current()
    await database.close()
