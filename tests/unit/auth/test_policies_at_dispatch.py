"""A policy that was narrowed while a job was queued: the round of placing holds the job against it."""

from collections.abc import Mapping
from typing import Any

import pytest

from services.scheduler import jobs, rounds
from services.scheduler.queueing import shape_of
from services.scheduler.rounds import Answer, Plan, Question
from shared.contracts.policies import Policy
from tests.builders import ALICE, NOON, VO, a_job
from tests.unit.scheduler.builders import a_snapshot, a_view

pytestmark = pytest.mark.fast
TWO = a_snapshot(a_view("prague"), a_view("lyon"))


def plan(answers: Mapping[str, Answer], **spec: Any) -> Plan:
    job = jobs.submitted(a_job(1, **spec), 0, NOON).job
    given = {Question(ALICE, VO, site): answer for site, answer in answers.items()}
    waiting = [(job, shape_of(job.spec, job.avoid))]
    return rounds.plan(waiting, TWO, given, NOON, namespace_of=lambda vo: "default", most=64)


def allowed(here: dict[str, Any] | None, anywhere: dict[str, Any] | None = None) -> Answer:
    made = [None if each is None else Policy.model_validate(each) for each in (here, anywhere)]
    return Answer(True, policy=made[0], policy_anywhere=made[1])


def test_a_job_above_the_ceiling_of_its_vo_ends_with_words_and_is_placed_nowhere() -> None:
    low = {"job": {"cpu_cores": 1}}
    made = plan({site: allowed(low, low) for site in ("prague", "lyon")}, resources={"cpu_cores": 2})
    assert made.choices == []
    [(_, why)] = made.forbidden
    assert "at most 1 cores for one job, this one asks for 2" in why


def test_a_job_above_the_ceiling_of_one_site_goes_to_another() -> None:
    answers = {"prague": allowed({"job": {"cpu_cores": 1}}, {}), "lyon": allowed({}, {})}
    made = plan(answers, resources={"cpu_cores": 2})
    assert [choice.site for choice in made.choices] == ["lyon"]
    assert made.forbidden == []


def test_a_job_that_every_site_forbids_waits_because_sites_may_change_their_minds() -> None:
    low = {"job": {"cpu_cores": 1}}
    made = plan({"prague": allowed(low, {}), "lyon": allowed(low, {})}, resources={"cpu_cores": 2})
    assert (made.choices, made.forbidden) == ([], [])
    assert len(made.waits) == 1


def test_j3_a_driver_that_the_site_would_use_must_be_allowed_there() -> None:
    exec_only = {"drivers": ["exec"]}
    made = plan({site: allowed(exec_only, exec_only) for site in ("prague", "lyon")})
    assert made.choices == [], "sites that do not say how they run commands might use raw_exec"
    assert made.forbidden == []
    both = {"drivers": ["exec", "raw_exec"]}
    assert len(plan({site: allowed(both, both) for site in ("prague", "lyon")}).choices) == 1


def test_no_policy_costs_nothing_and_forbids_nothing() -> None:
    made = plan({site: Answer(True) for site in ("prague", "lyon")})
    assert len(made.choices) == 1
