"""One code and one sentence from many verdicts."""

import pytest

from services.scheduler import explaining
from services.scheduler.snapshots import SiteRecord
from shared.contracts.reasons import ReasonCode, Verdict, VerdictCode, because
from shared.job import AttemptStatus
from tests.unit.scheduler.builders import History, later, placed, seen

pytestmark = pytest.mark.fast
V, R = VerdictCode, ReasonCode


def verdict(code: VerdictCode, can_change: bool = False, site: str = "prague", advice: str | None = None) -> Verdict:
    return Verdict(site=site, code=code, message=f"{site}: {code}.", can_change=can_change, advice=advice)


BUSY, AWAY, NEVER = verdict(V.CPU_BUSY, True), verdict(V.CORDONED, True, "lyon"), verdict(V.GPU_MISSING, site="bari")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [((BUSY, AWAY, NEVER), R.WAITING_FOR_ROOM), ((AWAY, NEVER), R.WAITING_FOR_SITE), ((NEVER,), R.NO_SITE_FITS),
     ((), R.NO_SITE_FITS), ((verdict(V.NO_ROOM_ON_ONE_NODE),), R.NO_SITE_FITS),
     ((verdict(V.NO_ROOM_ON_ONE_NODE, True),), R.WAITING_FOR_ROOM),
     ((verdict(V.TRIED_BEFORE, True),), R.WAITING_FOR_ROOM)],
)  # fmt: skip
def test_why_nothing_fits(verdicts: tuple[Verdict, ...], code: ReasonCode) -> None:
    assert explaining.waiting_reason(verdicts).code is code


def test_advice_is_passed_on_where_nothing_can_run_the_job() -> None:
    reason = explaining.waiting_reason([verdict(V.CPU_TOO_SMALL, advice="lower resources.cpu")])
    assert "lower resources.cpu" in reason.message


def test_the_sites_that_are_away_are_named() -> None:
    assert "lyon" in explaining.waiting_reason([AWAY]).message


def test_a_refusal_ends_the_job_only_when_no_other_site_could_take_it() -> None:
    refused = verdict(V.REFUSED_BY_SITE)
    assert explaining.refused_everywhere([refused, BUSY]) is None
    assert explaining.refused_everywhere([NEVER]) is None
    reason = explaining.refused_everywhere([refused, NEVER])
    assert reason is not None and reason.code is R.REFUSED_BY_SITE


def test_the_summary_names_the_best_site() -> None:
    fits = [verdict(V.FITS), verdict(V.FITS, site="lyon")]
    assert explaining.summary(fits) == "It would go to prague now (1 more would do)."
    assert explaining.summary([BUSY]) == because(R.WAITING_FOR_ROOM).message


def test_a_pause_of_its_own_explains_a_queued_job_before_todays_verdicts() -> None:
    told = because(R.RETRYING)
    assert explaining.queued_reason(told, [BUSY], backing_off=True) is told
    assert explaining.queued_reason(told, [BUSY], backing_off=False).code is R.WAITING_FOR_ROOM
    assert explaining.queued_reason(told, [verdict(V.FITS)], backing_off=False).code is R.WAITING_TO_BE_PLACED


def test_a_job_in_flight_is_told_apart_from_what_was_last_known_of_it() -> None:
    job = History().tell(placed(), seen(AttemptStatus.RUNNING, sequence=1)).job
    assert explaining.last_known(job, SiteRecord("prague")) is None
    away = explaining.last_known(job, SiteRecord("prague", unreachable_since=later(5)))
    assert away is not None and "prague cannot be reached since 2026-11-24T12:00:05" in away.message
    doubted = explaining.last_known(job, SiteRecord("prague", suspect=True))
    assert doubted is not None and doubted.message.startswith("What prague shows cannot be believed")


def test_a_job_whose_node_is_away_says_so_and_that_it_waits_when_it_was_asked_to() -> None:
    for on_lost, waits in (("retry", False), ("wait", True)):
        history = History(on_lost=on_lost).tell(placed(), seen(AttemptStatus.RUNNING, sequence=1))
        job = history.tell(seen(AttemptStatus.DISCONNECTED, sequence=2)).job
        reason = explaining.last_known(job, SiteRecord("prague"))
        assert reason is not None and reason.message.startswith("The node of the job at prague is away since ")
        assert reason.message.endswith("The job waits for it, as it asked.") is waits
