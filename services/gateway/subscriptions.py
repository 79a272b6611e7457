"""What a subscription is, what may be asked for, and what its reader is to get next. Pure.

A subscription is a place in the event log with a filter; its queue at the broker is a window on what comes next, which
we fill only as fast as it is read (docs/decisions/023).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, StringConstraints

from services.gateway import permissions, requests, resume
from services.gateway.event_log import Entry
from services.gateway.input_errors import InputError, nearest
from services.gateway.permissions import EventFilter, Sight, Told
from services.gateway.requests import Input, LabelName, LabelValue, VoName
from services.gateway.resume import LogState
from shared import ids
from shared.contracts import events
from shared.contracts.codec import TYPE_PREFIX
from shared.contracts.commands import Principal
from shared.contracts.questions import Bearer
from shared.contracts.subscriptions import Letter, SubscriptionGap, queue_of
from shared.errors import Refused
from shared.runtime.clock import moment

SOURCE: Final = "gateway"
OPENING, OPEN, ENDED = "opening", "open", "ended"
KINDS: Final = tuple(kind for kind in events.EVENTS if kind not in (events.SiteObserved, events.SiteStray))
"""Every event that a reader outside may hear of."""
STATES: Final = frozenset(
    str(state) for kind in KINDS for name in ("state", "status", "what") if (state := getattr(kind, name, None))
)


class SubscriptionInput(Input):
    """What to be told of: all events of one VO that you may see, or fewer."""

    vo: VoName = Field(description="The virtual organisation whose events you want.")
    states: list[Annotated[str, StringConstraints(max_length=32)]] = Field(
        default=[], max_length=len(STATES), description="Of the job, its attempt or a site; empty = all."
    )
    labels: dict[LabelName, LabelValue] = Field(
        default={}, max_length=32, description="Only jobs that have all of these.",
        json_schema_extra={"additionalProperties": False},
    )  # fmt: skip
    own: bool = Field(default=False, description="Only jobs of your own, also where you may see all of the VO's.")
    since: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        default=None, alias="from",
        description="Go on behind an event's id (`<epoch>-<position>`), or begin at a time (RFC 3339, with its zone); "
        "none = from now on.",
    )  # fmt: skip

    def checked(self) -> "SubscriptionInput":
        """The same. Raises Refused (code `invalid_request`) naming each state that there is not."""
        wrong = [
            InputError(f"/states/{index}", f"there is no state {state[:32]!r}", nearest(state, STATES))
            for index, state in enumerate(self.states)
            if state not in STATES
        ]
        if wrong:
            raise requests.refused(wrong)
        return self


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription as it is stored. Times are Unix microseconds.

    `position` is how far the log was looked through for it, `previous` the id of the last event that it was sent,
    `gap` why and behind which id events may be missing, as long as the reader has not been told. `admitted`: there is
    a login at the broker; `cleared`: nothing of it is left there.
    """

    id: str
    owner: Principal
    client: str
    token_id: str
    vo: str
    states: frozenset[str]
    labels: tuple[tuple[str, str], ...]
    own: bool
    state: str
    reason: str
    created_at: int
    credentials_until: int
    active_at: int
    position: int
    previous: str
    gap_reason: str = ""
    gap_behind: str = ""
    admitted: bool = True
    ended_at: int | None = None
    cleared: bool = False

    @property
    def queue(self) -> str:
        return queue_of(self.id)

    @property
    def bearer(self) -> Bearer:
        """On whose behalf it is told."""
        return Bearer(principal=self.owner, client=self.client, token_id=self.token_id)

    def wants(self, told: Told, sight: Sight) -> bool:
        """Whether its reader asked for this and may hear of it."""
        wanted = EventFilter(vos=frozenset({self.vo}), states=self.states, labels=self.labels)
        if not wanted.wants(told) or not permissions.may_hear(sight, told):
            return False
        return not self.own or told.job_id is None or sight.owns(told.owner_issuer or "", told.owner_subject or "")


# -- where it begins ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beginning:
    """As `resume.Start`, with the id that the reader named."""

    position: int
    gap: str = ""
    behind: str = ""


def read_since(text: str | None, now: datetime) -> datetime | str | None:
    """A time, the id of an event, or None. Raises Refused for what is neither, and for the future."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            resume.read_id(text)
        except Refused:
            raise _bad_since(
                f"{text!r} is neither the id of an event nor a time", "write '1f2e3d4c-1042' or '2026-11-24T12:00:00Z'"
            ) from None
        return text
    if time.tzinfo is None:
        raise _bad_since(f"the time {text!r} has no zone", f"write '{text}Z' if you mean UTC")
    if time > now:
        raise _bad_since(
            f"{text!r} is in the future; it is now {now.isoformat(timespec='seconds')}", "leave it out: from now on"
        )
    return time


def begin(state: LogState, since: datetime | str | None, first_since: int | None) -> Beginning:
    """Where a subscription begins. `first_since` is the first position kept that is not older than `since`, if any."""
    if since is None:
        return Beginning(state.head)
    if isinstance(since, datetime):
        position = state.head if first_since is None else first_since - 1
        lost = 0 < state.floor == position
        return Beginning(position, "too_old" if lost else "", since.isoformat() if lost else "")
    start = resume.start(state, since, from_oldest=False)
    epoch, position = resume.read_id(since)
    if epoch == state.epoch and position > state.head:
        raise _bad_since(f"{since!r} is in the future; the newest event is {resume.event_id(epoch, state.head)}", None)
    return Beginning(start.position, start.gap or "", since if start.gap else "")


def _bad_since(detail: str, hint: str | None) -> Refused:
    return requests.refused([InputError("/from", detail, hint)])


# -- what comes next ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a subscription was fed."""

    position: int
    previous: str
    gap_reason: str = ""
    gap_behind: str = ""


def cursor_of(sub: Subscription) -> Cursor:
    return Cursor(sub.position, sub.previous, sub.gap_reason, sub.gap_behind)


def next_letters(
    sub: Subscription, cursor: Cursor, entries: Sequence[Entry], looked_to: int, sight: Sight, epoch: str, room: int
) -> tuple[list[Letter], Cursor]:  # fmt: skip
    """Up to `room` (at least 1) letters out of the entries behind the cursor, and the cursor behind them.

    Positions of the log have no holes: where one is missing, the log is not kept so far back, and that is told first.
    `looked_to` is how far the log was searched.
    """
    letters: list[Letter] = []
    if not entries and looked_to > cursor.position:
        cursor = _behind_hole(cursor, looked_to, epoch)
    for entry in entries:
        if entry.position > cursor.position + 1:
            cursor = _behind_hole(cursor, entry.position - 1, epoch)
        cursor = _gap_told(sub, cursor, epoch, letters, room)
        wanted = sub.wants(entry.told, sight)
        if wanted and len(letters) == room:
            return letters, cursor
        if wanted:
            id = resume.event_id(epoch, entry.position)
            letters.append(Letter(id, cursor.previous, event_type(entry.body), entry.body))
            cursor = replace(cursor, previous=id)
        cursor = replace(cursor, position=entry.position)
    return letters, _gap_told(sub, cursor, epoch, letters, room)


def _behind_hole(cursor: Cursor, position: int, epoch: str) -> Cursor:
    """The cursor where the log goes on, with the gap that is to be told."""
    last = cursor.gap_behind or resume.event_id(epoch, cursor.position)
    return Cursor(position, cursor.previous, "too_old", last)


def _gap_told(sub: Subscription, cursor: Cursor, epoch: str, letters: list[Letter], room: int) -> Cursor:
    """Put a gap that nobody was told of yet among the letters, if there is room."""
    if not cursor.gap_reason or len(letters) == room:
        return cursor
    letters.append(gap_letter(sub, cursor, epoch))
    return Cursor(cursor.position, letters[-1].event_id)


def gap_letter(sub: Subscription, cursor: Cursor, epoch: str) -> Letter:
    """Tells that events are missing before the next letter; the same gap always has the same id."""
    here = resume.event_id(epoch, cursor.position)
    gap = SubscriptionGap(
        reason="other_log" if cursor.gap_reason == "other_log" else "too_old", last_event_id=cursor.gap_behind,
        resumed_at=here,
    )  # fmt: skip
    type = f"{TYPE_PREFIX}{gap.kind}.v{gap.version}"
    body = {
        "specversion": "1.0", "id": str(ids.command_id(gap.kind, sub.id, here)), "source": SOURCE, "type": type,
        "subject": sub.id, "datacontenttype": "application/json", "data": gap.model_dump(),
    }  # fmt: skip
    return Letter(here, cursor.previous, type, orjson.dumps(body))


def event_type(body: bytes) -> str:
    """The CloudEvent's type."""
    return str(orjson.loads(body)["type"])


@dataclass(slots=True)
class Window:
    """How many letters a queue has room for, though the broker's figures are up to `lag_s` old.

    What was sent within the lag is counted twice rather than not at all, so the queue never overflows.
    """

    length: int
    lag_s: float
    messages: int | None = None
    _sent: deque[tuple[datetime, int]] = field(default_factory=deque)

    def found(self, messages: int, now: datetime) -> None:
        """The broker's figure, just fetched."""
        self.messages = messages
        while self._sent and now - self._sent[0][0] >= timedelta(seconds=self.lag_s):
            self._sent.popleft()

    def sent(self, count: int, now: datetime) -> None:
        self._sent.append((now, count))

    @property
    def room(self) -> int:
        """0 as long as no figure was ever fetched."""
        if self.messages is None:
            return 0
        return max(0, self.length - self.messages - sum(count for _, count in self._sent))


# -- when it is over -------------------------------------------------------------------------------------------------

Due = Literal["ended", "locked"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a subscription now; `reason` is for its owner."""

    due: Due | None = None
    reason: str = ""


def judge(sub: Subscription, sight: Sight | None, refusal: str, now: int, idle_us: int, opening_us: int) -> Verdict:
    """Whether it ends, or its login does. `sight` None = auth could not be asked."""
    if sub.state == OPENING:
        return (
            Verdict("ended", "it could not be set up at the broker") if now - sub.created_at > opening_us else Verdict()
        )
    if refusal:
        return Verdict("ended", refusal)
    if sight is not None and not sight.hears(sub.vo):
        return Verdict("ended", f"you may not see anything of the VO {sub.vo} any more")
    if now - sub.active_at > idle_us:
        return Verdict("ended", "nobody has read its queue for too long")
    return Verdict("locked") if sub.admitted and sub.credentials_until <= now else Verdict()


def document(sub: Subscription, epoch: str, waiting: int | None = None) -> dict[str, Any]:
    """As its owner sees it."""
    return {
        "id": sub.id, "state": sub.state, "reason": sub.reason or None, "vo": sub.vo, "states": sorted(sub.states),
        "labels": dict(sub.labels), "own": sub.own, "created_at": moment(sub.created_at).isoformat(),
        "credentials_expire_at": moment(sub.credentials_until).isoformat(), "queue": sub.queue,
        "position": resume.event_id(epoch, sub.position), "waiting": waiting,
        "ended_at": None if sub.ended_at is None else moment(sub.ended_at).isoformat(),
    }  # fmt: skip
