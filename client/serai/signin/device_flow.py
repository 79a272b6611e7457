"""The waiting of the device flow (RFC 8628, 3.3 to 3.5): when to ask again, and when there is nothing to wait for.

`first` and `after` are pure, time is an argument; `wait` asks and sleeps as they say.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from serai.errors import IssuerRefused, NoWayIn, Unreachable
from serai.signin.oauth import Started, Tokens
from serai.wire import Pace

NO_ANSWER: Final = "no_answer"
"""Not a word of the protocol: the issuer was not reached, or answered that it is away."""

SLOWER_S: Final = 5.0
"""What `slow_down` adds to the interval, for good (3.5)."""

LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Polling:
    """`pause_s` before the next question; `interval_s` as the issuer wants it; `ends_at` on the caller's clock."""

    pause_s: float
    interval_s: float
    ends_at: float


def first(started: Started, now: float) -> Polling:
    """Before the first question. Nobody types a code in less than the interval."""
    return Polling(started.interval_s, started.interval_s, now + started.expires_in_s)


def after(polling: Polling, word: str, now: float) -> Polling | str:
    """What follows on a refusal's word (or NO_ANSWER): when to ask next, or the word with which it is over."""
    match word:
        case "authorization_pending":
            later = replace(polling, pause_s=polling.interval_s)
        case "slow_down":
            slower = polling.interval_s + SLOWER_S
            later = replace(polling, pause_s=slower, interval_s=slower)
        case "no_answer":
            later = replace(polling, pause_s=max(polling.interval_s, min(LONGEST_PAUSE_S, polling.pause_s * 2)))
        case _:
            return word
    return later if now + later.pause_s < polling.ends_at else "expired_token"


async def wait(
    ask: Callable[[], Awaitable[Tokens]], started: Started, client_id: str, pace: Pace,
    on_trouble: Callable[[str], None] = lambda words: None,
) -> Tokens:  # fmt: skip
    """The tokens once the person has signed in. Raises NoWayIn when that cannot come to pass any more.

    `on_trouble` is told when the issuer stops answering; asking goes on, ever more slowly, while the code is good.
    """
    polling, away = first(started, pace.clock()), False
    while True:
        await pace.sleep(polling.pause_s)
        try:
            return await ask()
        except IssuerRefused as refusal:
            word, cause, away = refusal.code, refusal, False
        except Unreachable as error:
            word, cause = NO_ANSWER, error  # type: ignore[assignment]
            if not away:
                on_trouble(f"{error}; trying again while the code is good")
            away = True
        further = after(polling, word, pace.clock())
        if isinstance(further, str):
            raise _over(further, client_id, cause, away) from cause
        polling = further


def _over(word: str, client_id: str, cause: IssuerRefused | Unreachable, away: bool) -> NoWayIn:
    """Why it is over, and what to do now."""
    again = "begin again: `serai login`"
    match word:
        case "expired_token" if away:
            return NoWayIn(f"the code has expired while nobody could be asked: {cause}").then(again)
        case "expired_token":
            return NoWayIn("the code has expired before anybody signed in with it").then(again)
        case "access_denied":
            return NoWayIn("the sign-in was refused on the issuer's page").then(f"if that was a slip, {again}")
        case "invalid_grant":
            return NoWayIn(f"the issuer does not know this sign-in any more: {cause}").then(again)
        case "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" | "invalid_target":
            return NoWayIn(f"the issuer does not let `{client_id}` sign people in: {cause}").then(
                "tell the operators of the platform; it is a setting of theirs or of the issuer's"
            )
    return NoWayIn(f"the issuer refused the sign-in: {cause}").then(again)
