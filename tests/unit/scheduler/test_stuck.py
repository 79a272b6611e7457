"""A job that comes in behind others like it, which fit nowhere, waits for the same and is told so at once."""

from pathlib import Path

import pytest

from services.scheduler.placement import Snapshot
from services.scheduler.rounds import Plan
from services.scheduler.stuck import Stuck
from shared.contracts.reasons import ReasonCode, because
from tests.builders import ALICE, BOB, a_job, a_site
from tests.unit.scheduler.world import World, a_world

pytestmark = pytest.mark.fast
FULL = because(ReasonCode.WAITING_FOR_ROOM)
CEILING = because(ReasonCode.CEILING_REACHED)


def found() -> Plan:
    of_alice = (ALICE.issuer, ALICE.subject, "small")
    return Plan(Snapshot(), stuck={"large": FULL}, held={of_alice: CEILING})


def test_what_fits_nowhere_holds_for_everybody_and_a_ceiling_for_its_owner() -> None:
    stuck = Stuck()
    assert not stuck
    stuck.add(found())
    assert stuck
    assert (stuck.why(ALICE, "large"), stuck.why(BOB, "large")) == (FULL, FULL)
    assert (stuck.why(ALICE, "small"), stuck.why(BOB, "small")) == (CEILING, None)


def test_while_all_is_looked_at_again_the_last_word_is_told_and_keeps_nobody_from_a_look() -> None:
    stuck = Stuck()
    stuck.add(found())
    stuck.look_again()
    assert (stuck.why(ALICE, "large"), stuck.why(ALICE, "small")) == (None, None)
    assert (stuck.last_heard(BOB, "large"), stuck.last_heard(ALICE, "small")) == (FULL, CEILING)
    stuck.add(Plan(Snapshot(), stuck={"small": FULL}))
    stuck.looked()
    assert (stuck.last_heard(BOB, "large"), stuck.last_heard(BOB, "small")) == (None, FULL)


def test_a_copy_that_leads_no_more_knows_nothing() -> None:
    stuck = Stuck()
    stuck.add(found())
    stuck.look_again()
    stuck.add(found())
    stuck.forget()
    assert (stuck.last_heard(ALICE, "large"), stuck.last_heard(ALICE, "small")) == (None, None)


async def test_who_comes_behind_others_that_fit_nowhere_is_told_so_with_the_first_event(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site()) as world:
        await told(world, 1, "waiting_to_be_placed", "no_site_fits")
        await told(world, 2, "no_site_fits")
        await told(world, 3, "no_site_fits")


async def told(world: World, number: int, *codes: str) -> None:
    """A job that is too large for every site is told this, one after the other."""
    job = a_job(number, resources={"cpu_cores": 1000})
    await world.submit(job)
    await world.until(lambda: len(world.told(job.job_id)) == len(codes))
    assert [event.reason.code.value for event in world.told(job.job_id) if event.reason] == list(codes)
