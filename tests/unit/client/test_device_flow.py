"""The waiting of the device flow, as RFC 8628 (3.3 to 3.5) wants it."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from serai.errors import IssuerRefused, NoWayIn, Unreachable
from serai.signin import device_flow
from serai.signin.device_flow import NO_ANSWER, Polling
from serai.signin.oauth import Started, Tokens
from tests.unit.client.builders import Time, a_pace

pytestmark = pytest.mark.fast

ISSUER = "https://aai.example.org"
HERE = Tokens("access", "refresh", 900)
PENDING = IssuerRefused(ISSUER, "authorization_pending")
SLOW = IssuerRefused(ISSUER, "slow_down")
AWAY = Unreachable(ISSUER, "no answer in time")

Answer = Tokens | Exception


def begun(interval_s: float = 5, life_s: float = 600) -> Started:
    return Started("device", "ABCD-EFGH", f"{ISSUER}/device", None, life_s, interval_s)


async def history(answers: Sequence[Answer], started: Started | None = None) -> tuple[Tokens, list[float], list[str]]:
    """The tokens, the pauses before each question, and what the person was told meanwhile."""
    time, left, told = Time(), list(answers), list[str]()
    tokens = await device_flow.wait(asking(left), started or begun(), "serai-cli", a_pace(time), told.append)
    assert not left, "it stopped asking too early"
    return tokens, time.pauses, told


def asking(left: list[Answer]) -> Callable[[], Awaitable[Tokens]]:
    async def ask() -> Tokens:
        answer = left.pop(0) if left else PENDING
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


async def test_the_interval_is_kept_until_somebody_has_signed_in() -> None:
    assert await history([PENDING, PENDING, HERE]) == (HERE, [5, 5, 5], [])
    assert (await history([PENDING, HERE], begun(interval_s=1)))[1] == [1, 1]


async def test_slow_down_adds_five_seconds_for_good() -> None:
    assert (await history([SLOW, PENDING, SLOW, PENDING, HERE]))[1] == [5, 10, 10, 15, 15]


async def test_an_issuer_that_is_away_is_asked_ever_more_rarely_and_the_person_is_told_once() -> None:
    _, pauses, told = await history([AWAY, AWAY, AWAY, AWAY, AWAY, PENDING, HERE])
    assert pauses == [5, 10, 20, 40, 60, 60, 5]
    assert told == [f"cannot reach {ISSUER}: no answer in time; trying again while the code is good"]


async def test_a_second_absence_is_told_again() -> None:
    assert len((await history([AWAY, PENDING, AWAY, HERE]))[2]) == 2


@pytest.mark.parametrize(
    ("word", "words", "next_step"),
    [
        ("access_denied", "refused on the issuer's page", "serai login"),
        ("expired_token", "expired before anybody signed in", "serai login"),
        ("invalid_grant", "does not know this sign-in any more", "serai login"),
        ("invalid_client", "does not let `serai-cli` sign people in", "operators"),
        ("unauthorized_client", "does not let `serai-cli` sign people in", "operators"),
        ("invalid_scope", "does not let `serai-cli` sign people in", "operators"),
        ("something_new", "the issuer refused the sign-in", "serai login"),
    ],
)
async def test_a_final_word_ends_it_and_says_what_to_do(word: str, words: str, next_step: str) -> None:
    with pytest.raises(NoWayIn, match=words) as caught:
        await history([PENDING, IssuerRefused(ISSUER, word, "so it is")])
    assert next_step in str(caught.value.next)


async def test_it_ends_with_the_code_even_when_the_issuer_says_nothing_of_it() -> None:
    time = Time()
    with pytest.raises(NoWayIn, match="the code has expired before anybody"):
        await device_flow.wait(asking([]), begun(life_s=31), "serai-cli", a_pace(time))
    assert time.pauses == [5] * 6, "asked while the code was good, and not once after"


async def test_a_code_that_expires_while_the_issuer_is_away_says_so() -> None:
    with pytest.raises(NoWayIn, match="expired while nobody could be asked"):
        await history([AWAY, AWAY, AWAY, AWAY], begun(life_s=60))


def test_no_word_ever_shortens_the_interval() -> None:
    """Whatever comes, in any order: no pause is below the interval, and the interval never falls."""
    words = ["authorization_pending", "slow_down", NO_ANSWER]
    for first in words:
        for second in words:
            polling = device_flow.after(Polling(7, 7, 10_000), first, 0)
            assert isinstance(polling, Polling)
            further = device_flow.after(polling, second, 0)
            assert isinstance(further, Polling)
            assert further.interval_s >= polling.interval_s >= 7
            assert min(polling.pause_s - polling.interval_s, further.pause_s - further.interval_s) >= 0
