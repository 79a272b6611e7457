"""The development issuer's device flow (RFC 8628): codes, and what each asking of the device is answered. Pure.

Codes live in memory: a restart of the issuer ends a sign-in that was begun. Time and chance are arguments. Called by
`dev_issuer.py`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

LIFE: Final = timedelta(minutes=10)
INTERVAL_S: Final = 2
"""Between two askings; short, since the page is on the same machine."""
SLOWER_S: Final = 5
MOST: Final = 1_000
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so no words, and no digits that look like letters (RFC 8628, 6.1)."""


@dataclass(frozen=True, slots=True)
class Begun:
    """One sign-in that waits for a person. `user` is set once somebody allowed it, `denied` once somebody refused."""

    device_code: str
    user_code: str
    client: str
    scopes: frozenset[str]
    ends_at: datetime
    next_at: datetime
    interval_s: int = INTERVAL_S
    user: str | None = None
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the device gets tokens for, once."""

    user: str
    scopes: frozenset[str]


class Devices:
    """All sign-ins that wait."""

    def __init__(self, secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._secret = secret
        self._begun: dict[str, Begun] = {}

    def begin(self, client: str, scopes: frozenset[str], now: datetime) -> Begun:
        """A new pair of codes."""
        self._drop_old(now)
        begun = Begun(
            self._secret(), self._user_code(), client, scopes, now + LIFE, now + timedelta(seconds=INTERVAL_S)
        )
        self._begun[begun.device_code] = begun
        return begun

    def waiting(self, user_code: str, now: datetime) -> Begun | None:
        """The sign-in with this code, typed with or without its dash, in any case, while nobody has decided it."""
        typed = "".join(char for char in user_code.upper() if char in _LETTERS)
        self._drop_old(now)
        undecided = (each for each in self._begun.values() if each.user is None and not each.denied)
        return next((each for each in undecided if each.user_code.replace("-", "") == typed), None)

    def decide(self, begun: Begun, user: str | None) -> None:
        """Somebody allowed it as `user`, or refused it (None)."""
        current = self._begun[begun.device_code]
        self._begun[begun.device_code] = replace(current, user=user, denied=user is None)

    def asked(self, device_code: str, client: str, now: datetime) -> Allowed | str:
        """What the device gets: who signed in, once, or the word of RFC 8628, 3.5."""
        begun = self._begun.get(device_code)
        if begun is None or begun.client != client:
            return "invalid_grant"
        if now >= begun.ends_at:
            del self._begun[device_code]
            return "expired_token"
        if begun.denied or begun.user is not None:
            del self._begun[device_code]
            return "access_denied" if begun.user is None else Allowed(begun.user, begun.scopes)
        return self._not_yet(begun, now)

    def _not_yet(self, begun: Begun, now: datetime) -> str:
        interval_s = begun.interval_s if now >= begun.next_at else begun.interval_s + SLOWER_S
        # Half a second is the network's: a device that keeps its interval may still arrive a little early.
        next_at = now + timedelta(seconds=interval_s - 0.5)
        self._begun[begun.device_code] = replace(begun, interval_s=interval_s, next_at=next_at)
        return "authorization_pending" if interval_s == begun.interval_s else "slow_down"

    def _user_code(self) -> str:
        letters = [secrets.choice(_LETTERS) for _ in range(8)]
        return f"{''.join(letters[:4])}-{''.join(letters[4:])}"

    def _drop_old(self, now: datetime) -> None:
        """What has ended an hour ago; until then a late device is told so."""
        keep = [each for each in self._begun.values() if now < each.ends_at + timedelta(hours=1)]
        self._begun = {each.device_code: each for each in keep[-MOST + 1 :]}
