"""The development issuer's refresh tokens: each is good once, and one that comes again ends its whole family.

That is refresh token rotation with reuse detection (RFC 9700, 4.14.2), as Keycloak, EGI Check-in and others do it. The
families lie in one small file, so that people stay signed in over a restart; secrets lie there as hashes. Called by
`dev_issuer.py`, one request at a time.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from services.auth.private_file import write_private
from shared.errors import Misconfigured

IDLE: Final = timedelta(days=30)
MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Family:
    """One sign-in: all refresh tokens that descend from it. `current` is the hash of the only one that is good."""

    id: str
    user: str
    client: str
    current: str
    used_at: datetime


class Families:
    """The sign-ins that are not over."""

    def __init__(self, file: Path, secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        """Raises Misconfigured when the file cannot be read."""
        self._file = file
        self._secret = secret
        self._families = _read(file)

    def begin(self, user: str, client: str, now: datetime) -> tuple[Family, str]:
        """A new sign-in and its first refresh token."""
        family, token = self._next(Family(self._secret()[:16], user, client, "", now), now)
        return self._kept(family), token

    def rotate(self, token: str, client: str, now: datetime) -> tuple[Family, str] | None:
        """The next refresh token for this one, None when it is void; that it was used before ends its family."""
        family = self._of(token, client)
        if family is None:
            return None
        if family.current != _hash(token) or now >= family.used_at + IDLE:
            self._end(family)
            return None
        further, next_token = self._next(family, now)
        return self._kept(further), next_token

    def revoke(self, token: str, client: str) -> None:
        """End the sign-in of a refresh token, current or not (RFC 7009)."""
        family = self._of(token, client)
        if family is not None:
            self._end(family)

    def lives(self, id: str) -> bool:
        """Whether the sign-in is not over."""
        return id in self._families

    def user_of(self, token: str) -> str | None:
        """Who is behind a refresh token that is good."""
        family = self._families.get(token.partition(".")[0])
        return family.user if family is not None and family.current == _hash(token) else None

    def _of(self, token: str, client: str) -> Family | None:
        family = self._families.get(token.partition(".")[0])
        return family if family is not None and family.client == client else None

    def _next(self, family: Family, now: datetime) -> tuple[Family, str]:
        token = f"{family.id}.{self._secret()}"
        return replace(family, current=_hash(token), used_at=now), token

    def _kept(self, family: Family) -> Family:
        self._families.pop(family.id, None)
        self._families[family.id] = family
        while len(self._families) > MOST:
            del self._families[next(iter(self._families))]
        self._write()
        return family

    def _end(self, family: Family) -> None:
        del self._families[family.id]
        self._write()

    def _write(self) -> None:
        write_private(self._file, orjson.dumps([asdict(each) for each in self._families.values()]))


def _read(file: Path) -> dict[str, Family]:
    try:
        rows = orjson.loads(file.read_bytes()) if file.exists() else []
        found = [Family(**{**row, "used_at": datetime.fromisoformat(row["used_at"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Misconfigured(f"the sign-ins of the development issuer in {file} cannot be read: {error}") from error
    return {each.id: each for each in found}


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
