"""The user's settings: address, VO and token, from options, environment and two small files. Read once per command.

Order, first wins: command-line option, environment (`SERAI_URL`, `SERAI_TOKEN`, `SERAI_VO`), `config.yaml`, default.
Files lie in `SERAI_CONFIG_DIR`, else in the platform's folder for settings (`~/.config/serai` on Linux).
"""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import platformdirs
import yaml

from serai.errors import BadSettings

DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONFIG_FILE: Final = "config.yaml"
TOKEN_FILE: Final = "tokens.json"
_KNOWN: Final = ("url", "vo")


@dataclass(frozen=True, slots=True)
class Settings:
    """`token` is None when nobody has signed in at `url`; `token_source` says for people where it came from."""

    url: str
    token: str | None
    token_source: str
    vo: str | None
    folder: Path


def read(environment: Mapping[str, str], *, url: str | None = None, vo: str | None = None) -> Settings:
    """The settings that hold for this command. Raises BadSettings."""
    folder = Path(environment.get("SERAI_CONFIG_DIR") or platformdirs.user_config_dir("serai"))
    config = _config(folder / CONFIG_FILE)
    address = (url or environment.get("SERAI_URL") or config.get("url") or DEFAULT_URL).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise BadSettings(f"the address {address!r} must begin with http:// or https://")
    token, source = environment.get("SERAI_TOKEN"), "SERAI_TOKEN"
    if not token:
        token, source = TokenFile(folder / TOKEN_FILE).token(address), str(folder / TOKEN_FILE)
    return Settings(address, token, source, vo or environment.get("SERAI_VO") or config.get("vo"), folder)


def _config(path: Path) -> dict[str, str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise BadSettings(f"{path}: must hold lines like `url: https://gateway.example.org`")
    unknown = sorted(set(content) - set(_KNOWN))
    if unknown:
        raise BadSettings(f"{path}: unknown setting '{unknown[0]}'; known are: {', '.join(_KNOWN)}")
    return content


class TokenFile:
    """Access tokens by gateway address, in a file that only its owner can read (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self, url: str) -> str | None:
        """The token kept for `url`, or None. Raises BadSettings when others can read the file."""
        entry = self._entries().get(url)
        return entry.get("token") if isinstance(entry, dict) else None

    def keep(self, url: str, token: str, *, user: str, expires_in_s: float | None, now: datetime) -> None:
        """Store the token for `url`; the file is replaced whole, so that a reader never sees half of it."""
        expires = (now + timedelta(seconds=expires_in_s)).isoformat() if expires_in_s else None
        self._write({**self._entries(), url: {"token": token, "user": user, "expires_at": expires}})

    def _entries(self) -> dict[str, Any]:
        try:
            if os.name == "posix" and stat.S_IMODE(self._path.stat().st_mode) & 0o077:
                raise BadSettings(f"{self._path}: others can read your tokens; run `chmod 600 {self._path}`")
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadSettings(f"{self._path}: cannot be read ({error}); remove it and `serai login` again") from error
        return content if isinstance(content, dict) else {}

    def _write(self, entries: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".tokens-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1)
            Path(name).replace(self._path)
        except OSError as error:
            raise BadSettings(f"{self._path}: cannot be written: {error}") from error


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
