"""Rounds of placing: no job holds up the next, and nobody runs where auth has not said yes."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from services.scheduler import jobs, rounds
from services.scheduler.placement import Snapshot
from services.scheduler.queueing import shape_of
from services.scheduler.records import Avoid, Job
from services.scheduler.rounds import Answer, Plan, Question
from shared.contracts.commands import Principal
from shared.contracts.reasons import VerdictCode
from tests.builders import ALICE, BOB, NOON, VO, a_job
from tests.unit.scheduler.builders import a_room, a_snapshot, a_view

pytestmark = pytest.mark.fast
TWO = a_snapshot(a_view("prague"), a_view("lyon"))


class YesToAll(Mapping[Question, Answer]):
    def __getitem__(self, question: Question) -> Answer:
        return Answer(True)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())

    def __len__(self) -> int:
        return 0


def a_waiting(number: int = 1, owner: Principal = ALICE, **spec: object) -> tuple[Job, str]:
    job = jobs.submitted(a_job(number, owner=owner, **spec), 0, NOON).job
    return job, shape_of(job.spec, job.avoid)


def plan(
    *waiting: tuple[Job, str],
    snapshot: Snapshot = TWO,
    answers: Mapping[Question, Answer] | None = None,
    most: int = 64,
) -> Plan:
    given = YesToAll() if answers is None else answers
    return rounds.plan(waiting, snapshot, given, NOON, namespace_of=lambda vo: "default", most=most)


def test_a_round_fills_the_sites_and_leaves_the_rest_with_its_reason() -> None:
    made = plan(*[a_waiting(n, resources={"cpu_cores": 2}) for n in range(1, 7)])
    assert len(made.choices) == 4
    assert [reason.code for reason in made.stuck.values()] == ["waiting_for_room"]
    assert {choice.site for choice in made.choices} == {"prague", "lyon"}


def test_a_job_that_fits_nowhere_does_not_hold_up_the_next() -> None:
    made = plan(a_waiting(1, resources={"cpu_cores": 64}), a_waiting(2))
    assert [choice.job.id for choice in made.choices] == [a_job(2).job_id]
    assert [reason.code for reason in made.stuck.values()] == ["no_site_fits"]


def test_jobs_of_a_stuck_shape_are_not_looked_at_again_in_the_round() -> None:
    made = plan(*[a_waiting(n, resources={"cpu_cores": 64}) for n in range(1, 100)])
    assert len(made.stuck) == 1


def test_a_batch_is_bounded() -> None:
    small = {"resources": {"cpu_cores": 0.01, "memory_mib": 16, "disk_mib": 10}}
    assert len(plan(*[a_waiting(n, **small) for n in range(1, 20)], most=5).choices) == 5


def test_auth_is_asked_once_for_each_owner_and_site() -> None:
    one = a_snapshot(a_view("prague"))
    made = plan(a_waiting(1), a_waiting(2), a_waiting(3, owner=BOB), snapshot=one, answers={})
    assert made.questions == {Question(ALICE, VO, "prague"), Question(BOB, VO, "prague")}


def test_a_site_that_is_closed_to_the_owner_is_passed_over() -> None:
    full = a_snapshot(a_view("prague"), a_view("lyon", a_room(cpu_free=1500)))
    no, yes = Question(ALICE, VO, "prague"), Question(ALICE, VO, "lyon")
    made = plan(a_waiting(), snapshot=full, answers={no: Answer(False, "not there"), yes: Answer(True)})
    assert [choice.site for choice in made.choices] == ["lyon"]
    receipt = {verdict.site: verdict.code for verdict in made.choices[0].receipt}
    assert receipt["prague"] is VerdictCode.POLICY_FORBIDS


def test_an_owner_who_may_run_nowhere_any_more_has_the_job_rejected() -> None:
    answers = {Question(ALICE, VO, site): Answer(False, "left the VO", everywhere=True) for site in TWO.sites}
    made = plan(a_waiting(), answers=answers)
    assert [why for _, why in made.forbidden] == ["left the VO"]
    assert made.choices == []


def test_while_auth_is_away_the_job_waits_and_others_whose_answer_is_known_do_not() -> None:
    answers = {Question(ALICE, VO, site): Answer(False, away=True) for site in TWO.sites}
    answers |= {Question(BOB, VO, site): Answer(True) for site in TWO.sites}
    made = plan(a_waiting(1), a_waiting(2, owner=BOB), answers=answers)
    assert [reason.code for _, reason, _ in made.waits] == ["waiting_for_authorisation"]
    assert [choice.job.owner for choice in made.choices] == [BOB]


def test_a_job_that_every_possible_site_refused_is_given_up() -> None:
    refused = {site: Avoid(VerdictCode.REFUSED_BY_SITE, "invalid") for site in TWO.sites}
    job = replace(a_waiting()[0], avoid=refused)
    made = plan((job, shape_of(job.spec, job.avoid)))
    assert [reason.code for _, reason, _ in made.hopeless] == ["refused_by_site"]
