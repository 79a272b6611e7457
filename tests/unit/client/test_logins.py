"""Where a sign-in is kept: the keyring where there is one, a file of one's own otherwise, and never half of it."""

import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import null
from keyring.errors import KeyringLocked, PasswordDeleteError

from serai.errors import BadSettings
from serai.signin import secret_service
from serai.signin.logins import Login, Logins
from serai.signin.secret_service import NoKeyring
from tests.unit.client.builders import Time, a_pace

pytestmark = pytest.mark.fast

URL = "https://gateway.example.org"
LOGIN = Login(
    "access", "Alice", datetime(2026, 11, 24, 12, tzinfo=UTC), "refresh", "https://aai.example.org/", "serai-cli",
    "https://serai.example", "https://aai.example.org/token", "https://aai.example.org/revoke",
)  # fmt: skip


class Desktop(KeyringBackend):
    """A keyring as a desktop has one; `locked` while its password is not given."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[tuple[str, str], str] = {}
        self.locked = False

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self._open().get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        if self._open().pop((service, username), None) is None:
            raise PasswordDeleteError("no such password")

    def _open(self) -> dict[tuple[str, str], str]:
        if self.locked:
            raise KeyringLocked("the keyring is locked")
        return self.secrets


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    before, desktop = keyring.get_keyring(), Desktop()
    keyring.set_keyring(desktop)
    yield desktop
    keyring.set_keyring(before)


def test_without_a_keyring_it_lies_in_a_file_for_its_owner_only(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "new", keyring=False)
    assert "which only you can read" in logins.keep(URL, LOGIN)
    assert stat.S_IMODE(logins.path.stat().st_mode) == 0o600
    assert logins.of(URL) == LOGIN and logins.of("https://elsewhere") is None
    assert [each.name for each in logins.path.parent.iterdir()] == ["tokens.json"]
    logins.forget(URL)
    assert logins.of(URL) is None


def test_with_a_keyring_no_secret_lies_in_the_file(tmp_path: Path, desktop: Desktop) -> None:
    logins = Logins(tmp_path)
    assert logins.keep(URL, LOGIN) == "in your keyring"
    text = logins.path.read_text()
    assert "access" not in text.replace("access_", "") and "refresh" not in text and "Alice" in text
    assert list(desktop.secrets) == [("serai", URL)]
    assert logins.of(URL) == LOGIN
    logins.forget(URL)
    assert logins.of(URL) is None and not desktop.secrets


def test_a_keyring_that_is_locked_now_is_told_and_nothing_is_lost(tmp_path: Path, desktop: Desktop) -> None:
    logins = Logins(tmp_path)
    logins.keep(URL, LOGIN)
    desktop.locked = True
    with pytest.raises(BadSettings, match="keyring that cannot be used now: the keyring is locked"):
        logins.of(URL)
    desktop.locked = False
    assert logins.of(URL) == LOGIN


def test_a_keyring_that_cannot_be_used_gives_way_to_the_file(tmp_path: Path, desktop: Desktop) -> None:
    desktop.locked = True
    logins = Logins(tmp_path)
    assert "which only you can read (keyring: the keyring is locked)" in logins.keep(URL, LOGIN)
    assert logins.of(URL) == LOGIN


def test_a_keyring_that_forgets_at_once_is_none(tmp_path: Path, desktop: Desktop) -> None:
    keyring.set_keyring(null.Keyring())
    logins = Logins(tmp_path)
    assert "does not give back" in logins.keep(URL, LOGIN)
    assert logins.of(URL) == LOGIN


def test_a_keyring_that_hangs_is_not_waited_for_without_end() -> None:
    never = threading.Event()
    with pytest.raises(NoKeyring, match="no answer in"):
        secret_service.within(never.wait, deadline_s=0.05)
    never.set()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    logins = Logins(tmp_path, keyring=False)
    logins.keep(URL, LOGIN)
    logins.path.chmod(0o644)
    with pytest.raises(BadSettings, match="chmod 600"):
        logins.of(URL)


@pytest.mark.parametrize("content", ["{", "\x00", '{"https://gateway.example.org": {"token": "x", "expires_at": "?"}}'])
def test_a_file_that_is_broken_says_what_to_do(tmp_path: Path, content: str) -> None:
    logins = Logins(tmp_path, keyring=False)
    logins.keep(URL, LOGIN)
    logins.path.write_text(content)
    with pytest.raises(BadSettings, match="`serai login` again"):
        logins.of(URL)


def test_a_sign_in_of_an_older_client_is_read(tmp_path: Path) -> None:
    logins = Logins(tmp_path, keyring=False)
    logins.keep(URL, LOGIN)
    logins.path.write_text('{"https://gateway.example.org": {"token": "t", "user": "alice", "expires_at": null}}')
    assert logins.of(URL) == Login("t", "alice")


async def test_the_lock_is_held_by_one_and_given_up_for_lost_in_the_end(tmp_path: Path) -> None:
    time, logins = Time(), Logins(tmp_path, keyring=False)
    async with logins.lock(a_pace(time)):
        with pytest.raises(BadSettings, match="another `serai` has held it"):
            async with logins.lock(a_pace(time)):
                raise AssertionError("two hold it")
    assert 29 < time.now < 31
    async with logins.lock(a_pace(time)):
        pass
