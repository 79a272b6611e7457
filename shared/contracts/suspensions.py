"""Who and what is suspended: the answer of auth's `/internal/trust`, and the look-ups that every service does in it.

Pure values. Auth is the only writer (`services/auth`); other services hold the last answer for seconds
(`shared/runtime/trust_watch.py`). A suspension ends by itself at `until`, if it has one.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shared.contracts.commands import Principal

Kind = Literal["subject", "client", "token", "vo", "membership"]


class Suspension(BaseModel):
    """One suspension. `value` is the subject, client or token id at `issuer`; for `vo` and `membership`, `vo` is named
    (and for the latter the subject of `issuer` who is out of it). `stop_running`: running jobs are to be stopped.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: Kind
    issuer: str = ""
    value: str = ""
    vo: str = ""
    reason: str = ""
    until: datetime | None = None
    stop_running: bool = False

    def words(self) -> str:
        """For the person who is hit: what is suspended, why, until when."""
        what = {
            "subject": "your access is suspended", "client": "the application that you use is suspended",
            "token": "this access token is revoked; sign in again", "vo": f"the VO {self.vo} is suspended",
            "membership": f"your membership of the VO {self.vo} is suspended",
        }[self.kind]  # fmt: skip
        until = f" until {self.until.isoformat(timespec='minutes')}" if self.until else ""
        return f"{what}{until}{f' ({self.reason})' if self.reason else ''}; ask the operators of the platform"

    def words_of_job(self) -> str:
        """For the owner of a job that is hit."""
        what = {
            "subject": "its owner is suspended", "client": "the application that it was handed in with is suspended",
            "token": "the access token that it was handed in with is revoked",
            "vo": f"the VO {self.vo} is suspended",
            "membership": f"its owner's membership of the VO {self.vo} is suspended",
        }[self.kind]  # fmt: skip
        until = f" until {self.until.isoformat(timespec='minutes')}" if self.until else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"The job waits: {what}{until}{why}; it goes on when that is over. Ask the operators of the platform."


class Stops(BaseModel):
    """Where policies say that running jobs of the suspended are stopped (`on_suspension: stop`): the platform's, those
    of VOs, those of sites.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    everywhere: bool = False
    vos: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()

    def at(self, vo: str, site: str) -> bool:
        """Whether jobs of this VO at this site are stopped."""
        return self.everywhere or vo in self.vos or site in self.sites

    @property
    def nowhere(self) -> bool:
        return not (self.everywhere or self.vos or self.sites)


class TrustState(BaseModel):
    """`GET /internal/trust` at auth. `version` grows with every change of a suspension or of a policy."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int
    suspensions: tuple[Suspension, ...] = ()
    stops: Stops = Stops()


class Suspended:
    """An index over suspensions; every question is one or a few look-ups in it."""

    def __init__(self, suspensions: Sequence[Suspension] = ()) -> None:
        self._by_key: dict[tuple[str, str, str, str], list[Suspension]] = {}
        for each in suspensions:
            self._by_key.setdefault((each.kind, each.issuer, each.value, each.vo), []).append(each)
        self._kinds = frozenset(key[0] for key in self._by_key)
        self._ends = sorted(each.until for each in suspensions if each.until is not None)

    @property
    def nobody(self) -> bool:
        """Whether nothing is suspended."""
        return not self._by_key

    def ended(self, now: datetime) -> int:
        """How many have ended by their time; grows at the moment at which one does."""
        return bisect_right(self._ends, now) if self._ends else 0

    def any_of(self, kind: Kind) -> bool:
        """Whether anything of this kind is suspended."""
        return kind in self._kinds

    def access(self, principal: Principal, client: str, token_id: str, now: datetime) -> Suspension | None:
        """Why this principal, with this client and token, may do nothing at all."""
        issuer = principal.issuer
        return (
            self._one("subject", issuer, principal.subject, "", now)
            or (self._one("client", issuer, client, "", now) if client else None)
            or (self._one("token", issuer, token_id, "", now) if token_id else None)
        )

    def of_job(self, owner: Principal, vo: str, client: str, token_id: str, now: datetime) -> Suspension | None:
        """Why a job of this owner, handed in with this client and token, may not begin or go on."""
        if not self._by_key:
            return None
        return self.access(owner, client, token_id, now) or self.membership(owner, vo, now) or self.vo(vo, now)

    def membership(self, principal: Principal, vo: str, now: datetime) -> Suspension | None:
        """Why this principal is out of this VO."""
        return self._one("membership", principal.issuer, principal.subject, vo, now)

    def vo(self, vo: str, now: datetime) -> Suspension | None:
        """Why nothing new may be done in this VO."""
        return self._one("vo", "", "", vo, now)

    def _one(self, kind: str, issuer: str, value: str, vo: str, now: datetime) -> Suspension | None:
        if kind not in self._kinds:
            return None
        found = self._by_key.get((kind, issuer, value, vo), ())
        return next((each for each in found if each.until is None or now < each.until), None)
