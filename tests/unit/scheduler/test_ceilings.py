"""Ceilings over all jobs of a user or a VO: nothing goes over, nothing that fits under is held up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import ceilings, jobs, rounds, sharing
from services.scheduler.ceilings import Amounts, InUse, Share
from services.scheduler.queueing import shape_of
from services.scheduler.records import Job
from services.scheduler.rounds import Answer, Plan, Question
from shared.contracts.commands import Principal
from shared.contracts.policies import Policy
from tests.builders import ALICE, BOB, NOON, VO, a_job
from tests.unit.scheduler.builders import a_room, a_snapshot, a_view

pytestmark = pytest.mark.fast
WIDE = a_snapshot(*(a_view(site, a_room(cpu_mhz=64_000, memory_mib=262_144)) for site in ("prague", "lyon")))


class Always(Mapping[Question, Answer]):
    """The same answer to every question."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __getitem__(self, question: Question) -> Answer:
        return self._answer

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())

    def __len__(self) -> int:
        return 0


def under(vo_policy: dict[str, Any], site_policy: dict[str, Any] | None = None) -> Always:
    anywhere = Policy.model_validate(vo_policy)
    here = Policy.model_validate(site_policy) if site_policy is not None else anywhere
    return Always(Answer(True, policy=here, policy_anywhere=anywhere))


def waiting(count: int, owner: Principal = ALICE, first: int = 1, **spec: Any) -> list[tuple[Job, str]]:
    found = [jobs.submitted(a_job(n, owner=owner, **spec), 0, NOON).job for n in range(first, first + count)]
    return [(job, shape_of(job.spec)) for job in found]


def plan(queue: list[tuple[Job, str]], answers: Mapping[Question, Answer], in_use: InUse | None = None) -> Plan:
    return rounds.plan(
        queue, WIDE, answers, NOON, namespace_of=lambda vo: "default", most=64, in_use=in_use or InUse()
    )  # fmt: skip


def cores(count: float) -> dict[str, Any]:
    return {"resources": {"cpu_cores": count}}


def test_a6_two_jobs_in_one_round_do_not_pass_a_ceiling_that_has_room_for_one() -> None:
    made = plan(waiting(2, **cores(2)), under({"user": {"cpu_cores": 3}}))
    assert [choice.job.id for choice in made.choices] == [a_job(1).job_id]
    [reason] = made.held.values()
    assert reason.code == "ceiling_reached"


def test_a_ceiling_that_is_just_filled_is_not_passed() -> None:
    assert len(plan(waiting(3, **cores(0.1)), under({"user": {"cpu_cores": 0.3}})).choices) == 3


@pytest.mark.parametrize(
    ("ceiling", "spec", "words"),
    [
        ({"cpu_cores": 4}, cores(2), "4 cores at a time: 3 in use, this job asks for 2"),
        ({"memory_mib": 1024}, {"resources": {"memory_mib": 512}}, "1024 MiB of memory at a time: 768 in use"),
        ({"disk_mib": 1000}, {"resources": {"disk_mib": 600}}, "1000 MiB of disk at a time: 500 in use"),
        ({"gpus": 2}, {"resources": {"gpus": {"count": 1}}}, "2 GPUs at a time: 2 in use, this job asks for 1"),
        ({"jobs": 5}, {}, "5 jobs at a time: 5 in use, this is one more"),
    ],
)
@pytest.mark.parametrize("whose", ["user", "vo"])
def test_the_reason_names_ceiling_use_and_whom_to_ask(
    whose: str, ceiling: dict[str, Any], spec: dict[str, Any], words: str
) -> None:
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(3000, 768, 500, 2, 5))])
    [(job, _)] = waiting(1, **spec)
    reason = ceilings.reached(job, Policy.model_validate({whose: ceiling}), used)
    assert reason is not None
    assert words in reason.message
    assert f"The VO {VO} lets" in reason.message and "ask a manager of the VO" in reason.message
    assert reason.details["ceiling"] == f"{whose}.{next(iter(ceiling))}"


def test_what_one_user_has_is_not_held_against_another() -> None:
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(jobs=2))])
    queue = waiting(1) + waiting(1, owner=BOB, first=2)
    made = plan(queue, under({"user": {"jobs": 2}}), used)
    assert [choice.job.owner for choice in made.choices] == [BOB]
    assert list(made.held) == [(ALICE.issuer, ALICE.subject, queue[0][1])]


def test_the_same_subject_of_another_issuer_is_somebody_else() -> None:
    used = InUse([Share(VO, "https://other.example", ALICE.subject, "prague", Amounts(jobs=2))])
    assert len(plan(waiting(1), under({"user": {"jobs": 2}}), used).choices) == 1


def test_a_ceiling_of_the_vo_counts_everybody_and_holds_up_everybody() -> None:
    used = InUse([Share(VO, BOB.issuer, BOB.subject, "lyon", Amounts(jobs=9))])
    made = plan(waiting(2) + waiting(1, owner=BOB, first=3), under({"vo": {"jobs": 10}}), used)
    assert len(made.choices) == 1
    assert [reason.details["in_use"] for reason in made.stuck.values()] == [10]


def test_what_another_vo_has_in_use_does_not_count() -> None:
    used = InUse([Share("vo.other", ALICE.issuer, ALICE.subject, "prague", Amounts(jobs=99))])
    assert len(plan(waiting(1), under({"vo": {"jobs": 1}, "user": {"jobs": 1}}), used).choices) == 1


def test_a_big_job_at_its_ceiling_does_not_hold_up_a_small_one_of_the_same_user() -> None:
    made = plan(waiting(1, **cores(8)) + waiting(1, first=2, **cores(1)), under({"user": {"cpu_cores": 4}}))
    assert [choice.job.id for choice in made.choices] == [a_job(2).job_id]
    [reason] = made.held.values()
    assert "cannot be placed as long as that holds" in reason.message, "it alone is above the ceiling"


def test_the_ceiling_of_one_site_counts_what_is_at_that_site_and_the_job_goes_elsewhere() -> None:
    used = InUse([Share(VO, BOB.issuer, BOB.subject, "prague", Amounts(jobs=1))])
    strict, free = Policy.model_validate({"vo": {"jobs": 1}}), Policy()
    answers = {
        Question(ALICE, VO, "prague"): Answer(True, policy=strict, policy_anywhere=free),
        Question(ALICE, VO, "lyon"): Answer(True, policy=free, policy_anywhere=free),
    }
    made = plan(waiting(2, placement={"prefer_sites": ["prague"]}), answers, used)
    assert [choice.site for choice in made.choices] == ["lyon", "lyon"]
    receipt = {verdict.site: verdict for verdict in made.choices[0].receipt}
    assert (receipt["prague"].code, receipt["prague"].can_change) == ("ceiling_reached", True)
    assert "1 jobs at a time at prague: 1 in use" in receipt["prague"].message


def test_where_every_site_is_at_its_own_ceiling_the_job_is_told_so_and_others_are_looked_at() -> None:
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, site, Amounts(jobs=1)) for site in ("prague", "lyon")])
    made = plan(waiting(1) + waiting(1, owner=BOB, first=2), under({}, {"user": {"jobs": 1}}), used)
    [reason] = made.held.values()
    assert reason.code == "ceiling_reached"
    assert [choice.job.owner for choice in made.choices] == [BOB]


# -- sharing a VO's ceiling ---------------------------------------------------------------------------------------


def shared(vo_policy: dict[str, Any], *owners: Principal) -> dict[Question, Answer]:
    """Auth's word on these owners at both sites."""
    policy = Policy.model_validate({"vo": vo_policy})
    return {
        Question(owner, VO, site): Answer(True, policy=policy, policy_anywhere=policy)
        for owner in owners for site in ("prague", "lyon")
    }  # fmt: skip


def test_who_has_least_of_a_vos_ceiling_comes_first_and_keeps_their_own_order() -> None:
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(jobs=7))])
    queue = waiting(5) + waiting(4, owner=BOB, first=6)
    made = plan(queue, shared({"jobs": 10}, ALICE, BOB), used)
    assert [choice.job.id for choice in made.choices] == [a_job(n).job_id for n in (6, 7, 8)]


def test_least_is_by_the_scarcest_thing() -> None:
    """Bob has fewer jobs, but more of the memory than Alice has of the cores."""
    used = InUse([
        Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(millicores=4_000, jobs=4)),
        Share(VO, BOB.issuer, BOB.subject, "prague", Amounts(memory_mib=6_000, jobs=1)),
    ])  # fmt: skip
    queue = waiting(1, owner=BOB, **cores(0.1)) + waiting(1, first=2, **cores(0.1))
    made = plan(queue, shared({"cpu_cores": 10, "memory_mib": 10_000, "jobs": 100}, ALICE, BOB), used)
    assert [choice.job.owner for choice in made.choices] == [ALICE, BOB]


def test_a_higher_priority_goes_before_and_other_vos_keep_their_places() -> None:
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(jobs=7))])
    other = waiting(1, first=3, vo="vo.other")
    queue = waiting(1, priority=90) + waiting(1, first=2) + other + waiting(1, owner=BOB, first=4)
    made = sharing.in_turn(queue, {VO: Policy.model_validate({"vo": {"jobs": 10}}).vo}, lambda: used)
    assert [job.id for job, _ in made] == [a_job(n).job_id for n in (1, 4, 3, 2)]


@given(
    st.lists(st.sampled_from(range(4)), max_size=40),
    st.integers(1, 30),
    st.lists(st.integers(0, 8), min_size=4, max_size=4),
)
def test_nobody_gets_more_of_a_vos_ceiling_while_somebody_with_less_waits(
    queued: list[int], most: int, before: list[int]
) -> None:
    people = [ALICE.model_copy(update={"subject": f"person{number}"}) for number in range(4)]
    used = InUse(
        Share(VO, who.issuer, who.subject, "prague", Amounts(jobs=has)) for who, has in zip(people, before, strict=True)
    )
    queue = [job for n, who in enumerate(queued, 1) for job in waiting(1, owner=people[who], first=n)]
    made = plan(queue, shared({"jobs": most}, *people), used)
    placed = Counter(choice.job.owner.subject for choice in made.choices)
    assert sum(placed.values()) == max(0, min(len(queue), most - sum(before)))
    left = Counter(job.owner.subject for job, _ in queue) - placed
    has = {who.subject: before[number] + placed[who.subject] for number, who in enumerate(people)}
    for waits in left:
        assert all(has[waits] >= has[got] - 1 for got in placed), (has, left)


def test_a_policy_that_was_narrowed_starts_nothing_and_ends_nothing() -> None:
    """More is in use than allowed now: that is left alone, and nothing is added."""
    used = InUse([Share(VO, ALICE.issuer, ALICE.subject, "prague", Amounts(jobs=7))])
    made = plan(waiting(3), under({"user": {"jobs": 2}}), used)
    assert (made.choices, made.forbidden, made.hopeless) == ([], [], [])
    [reason] = made.held.values()
    assert (reason.details["most"], reason.details["in_use"]) == (2, 7)


def test_the_reason_told_earlier_is_told_with_the_use_of_this_moment() -> None:
    [(job, _)] = waiting(1)
    policy = Policy.model_validate({"user": {"jobs": 2}})
    told = ceilings.reached(job, policy, InUse([Share(VO, ALICE.issuer, ALICE.subject, "x", Amounts(jobs=3))]))
    assert told is not None
    now = ceilings.still_reached(told, job, InUse([Share(VO, ALICE.issuer, ALICE.subject, "x", Amounts(jobs=2))]))
    assert now is not None and now.details["in_use"] == 2
    assert ceilings.still_reached(told, job, InUse()) is None


amounts = st.sampled_from([0.01, 0.1, 0.3, 1, 2.5, 4])
owners = st.sampled_from([ALICE, BOB])


@given(
    asked=st.lists(st.tuples(owners, amounts), min_size=1, max_size=40),
    user=st.sampled_from([0.1, 1, 3, 5.3]), vo=st.sampled_from([0.5, 2, 6, 100]), held=st.integers(0, 4000),
)  # fmt: skip
def test_a6_whatever_is_asked_no_ceiling_is_passed_and_none_is_left_unused(
    asked: list[tuple[Principal, float]], user: float, vo: float, held: int
) -> None:
    """Exactly the limit: nothing over it, and nothing waits for it that would still fit."""
    queue = [pair for n, (owner, c) in enumerate(asked, 1) for pair in waiting(1, owner, n, **cores(c))]
    before = InUse([Share(VO, BOB.issuer, BOB.subject, "prague", Amounts(millicores=held))])
    made = plan(queue, under({"user": {"cpu_cores": user}, "vo": {"cpu_cores": vo}}), before)
    placed = {choice.job.id for choice in made.choices}
    use = before
    for choice in made.choices:
        use = use.with_job(choice.job, choice.site)
    for owner in (ALICE, BOB):
        theirs = use.of(VO, owner).millicores
        assert theirs <= max(round(user * 1000), before.of(VO, owner).millicores)
    assert use.of(VO).millicores <= max(round(vo * 1000), held)
    for job, _ in queue:
        if job.id not in placed:
            policy = Policy.model_validate({"user": {"cpu_cores": user}, "vo": {"cpu_cores": vo}})
            assert ceilings.reached(job, policy, use) is not None


def test_what_is_summed_is_what_jobs_ask_for() -> None:
    [(job, _)] = waiting(1, resources={"cpu_cores": 1.5, "memory_mib": 64, "disk_mib": 20, "gpus": {"count": 2}})
    use = InUse().with_job(job, "prague").with_job(replace(job, owner=BOB), "lyon")
    assert use.of(VO) == Amounts(3000, 128, 40, 4, 2)
    assert use.of(VO, ALICE) == use.of(VO, BOB) == Amounts(1500, 64, 20, 2, 1)
    assert use.of(VO, None, "lyon") == use.of(VO, BOB, "lyon") == Amounts(1500, 64, 20, 2, 1)
    assert use.of(VO, ALICE, "lyon") == Amounts()
