"""The sign-ins that are kept, one for each gateway: the secrets in the keyring where there is one, the rest in a file.

Without a keyring the secrets lie in the file too. It can be read by its owner only (mode 0600; others' eyes are an
error) and is replaced whole, so a reader never sees half of it. Whoever writes holds `lock`.
"""

import json
import os
import stat
import tempfile
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from serai.errors import BadSettings
from serai.signin import file_lock, secret_service
from serai.wire import Pace

FILE: Final = "tokens.json"
SECRET: Final = ("token", "refresh_token", "expires_at")
"""What goes into the keyring; the expiry with it, so that both are always of the same answer."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who signed in, and all that renewing and ending it needs. `expires_at` is of the access token."""

    token: str
    user: str = ""
    expires_at: datetime | None = None
    refresh_token: str | None = None
    issuer: str = ""
    client_id: str = ""
    audience: str | None = None
    token_endpoint: str = ""
    revocation_endpoint: str | None = None

    def good_at(self, moment: datetime) -> bool:
        """Whether the access token is good then, as far as is known."""
        return self.expires_at is None or self.expires_at > moment


class Logins:
    """The kept sign-ins. `keyring` = use the desktop's, where there is one."""

    def __init__(self, folder: Path, *, keyring: bool = True) -> None:
        self.path = folder / FILE
        self._keyring = keyring

    def lock(self, pace: Pace) -> AbstractAsyncContextManager[None]:
        """For changes: one process at a time. Raises BadSettings."""
        return file_lock.held(self.path.with_suffix(".lock"), pace)

    def of(self, url: str) -> Login | None:
        """The sign-in at a gateway. Raises BadSettings when the file or the keyring cannot be read."""
        entry = self._entries().get(url)
        if not isinstance(entry, dict):
            return None
        if entry.get("kept_in") == "keyring":
            entry = {**entry, **self._secrets(url)}
        known = {field.name: entry[field.name] for field in fields(Login) if entry.get(field.name) is not None}
        try:
            expires = datetime.fromisoformat(known["expires_at"]) if "expires_at" in known else None
            return Login(**{**known, "expires_at": expires}) if known.get("token") else None
        except (TypeError, ValueError) as error:
            raise BadSettings(f"{self.path}: the sign-in at {url} cannot be read; `serai login` again") from error

    def keep(self, url: str, login: Login) -> str:
        """Keep it; says where the secrets are now, in words. The caller holds the lock. Raises BadSettings."""
        entry = {name: _plain(value) for name, value in asdict(login).items()}
        where, why = self._kept_in_keyring(url, {name: entry[name] for name in SECRET})
        if where == "keyring":
            entry = {name: value for name, value in entry.items() if name not in SECRET} | {"kept_in": "keyring"}
        self._write({**self._entries(), url: entry})
        return "in your keyring" if where == "keyring" else f"in {self.path}, which only you can read ({why})"

    def forget(self, url: str) -> None:
        """Drop it, in the keyring too. The caller holds the lock. Raises BadSettings."""
        entries = self._entries()
        entry = entries.pop(url, None)
        if isinstance(entry, dict) and entry.get("kept_in") == "keyring":
            try:
                secret_service.forget(url)
            except secret_service.NoKeyring as error:
                raise BadSettings(f"your keyring cannot be used: {error}") from error
        if entry is not None:
            self._write(entries)

    def urls(self) -> list[str]:
        """The gateways with a kept sign-in."""
        return list(self._entries())

    def _kept_in_keyring(self, url: str, secrets: dict[str, Any]) -> tuple[str, str]:
        if not self._keyring:
            return "file", "SERAI_KEYRING is off"
        try:
            secret_service.keep(url, json.dumps(secrets))
        except secret_service.NoKeyring as error:
            return "file", f"keyring: {str(error).splitlines()[0][:80]}"
        return "keyring", ""

    def _secrets(self, url: str) -> dict[str, Any]:
        try:
            found = json.loads(secret_service.read(url) or "{}")
        except secret_service.NoKeyring as error:
            raise BadSettings(f"your sign-in is in a keyring that cannot be used now: {error}").then(
                "unlock it, or `serai login` again"
            ) from error
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _entries(self) -> dict[str, Any]:
        try:
            if os.name == "posix" and stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                raise BadSettings(f"{self.path}: others can read your tokens; run `chmod 600 {self.path}`")
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadSettings(f"{self.path}: cannot be read ({error}); remove it and `serai login` again") from error
        return content if isinstance(content, dict) else {}

    def _write(self, entries: dict[str, Any]) -> None:
        """On the disk before it returns: the refresh token that it replaces is void already. What one that was killed
        while it wrote has left behind goes.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self.path.parent.glob(".tokens-*"):
                left.unlink(missing_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".tokens-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError as error:
            raise BadSettings(f"{self.path}: cannot be written: {error}") from error


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
