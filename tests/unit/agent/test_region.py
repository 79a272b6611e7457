"""The server side, without a loop or a clock: what a register, a stop, a loss and a collection do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedded.agent import collect, nodes
from services.embedded.agent.region import Refused
from services.embedded.agent.state import State
from tests.examples import examples
from tests.unit.agent.builders import World, job

NODE1 = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_register_makes_two_lines_of_one_index(world: World) -> None:
    done = world.register(job())
    lines = [c.line for c in world.state.take_commits() if c.line]
    assert [line.index for line in lines[:2]] == [done.index, done.index]
    assert [[e.topic for e in line.events] for line in lines] == [
        ["Job"], ["Evaluation"], ["Evaluation", "Allocation", "Job"], ["Evaluation"],
    ]  # fmt: skip


def test_create_only_wins_once(world: World) -> None:
    world.register(job(), index=0)
    with pytest.raises(Refused, match=r"^Enforcing job modify index 0: job already exists$"):
        world.register(job(), index=0)


def test_wrong_and_useless_indexes(world: World) -> None:
    with pytest.raises(Refused, match=r"^Enforcing job modify index 7: job does not exist$"):
        world.register(job(), index=7)
    at = world.register(job(), index=0).job_modify_index
    with pytest.raises(
        Refused, match=f"^Enforcing job modify index 99: job exists with conflicting job modify index: {at}$"
    ):
        world.register(job(), index=99)


def test_a_tombstone_closes_an_id(world: World) -> None:
    world.register(job(Stop=True), index=0)
    assert world.job("job-1")["Status"] == "dead"
    assert world.allocs("job-1") == []
    assert world.take()[:2] == [
        "Job JobRegistered dead",
        "Evaluation JobRegistered pending | Job JobRegistered pending",
    ]
    with pytest.raises(Refused, match="job already exists"):
        world.register(job(), index=0)


def test_a_tombstone_loses_against_a_job(world: World) -> None:
    world.register(job(), index=0)
    with pytest.raises(Refused, match="job already exists"):
        world.register(job(Stop=True), index=0)
    assert len(world.allocs("job-1")) == 1


def test_the_same_again_on_a_finished_job_runs_nothing(world: World) -> None:
    world.register(job())
    world.report("job-1", "complete")
    world.take()
    done = world.register(job())
    assert world.take() == [
        "Evaluation EvaluationUpdated pending | Job EvaluationUpdated pending",
        "Evaluation EvaluationUpdated complete | Job EvaluationUpdated dead",
    ]
    assert len(world.allocs("job-1")) == 1
    assert world.job("job-1")["Version"] == 0
    assert done.job_modify_index > world.job("job-1")["JobModifyIndex"], "the answer's index is the job's ModifyIndex"


def test_another_meta_or_a_stop_between_runs_again(world: World) -> None:
    world.register(job())
    world.report("job-1", "complete")
    world.register(job(Meta={"a": "1"}))
    world.report("job-1", "complete")
    world.stop("job-1")
    world.register(job(Meta={"a": "1"}))
    assert [alloc["ID"] for alloc in world.allocs("job-1")] and len(world.allocs("job-1")) == 3
    assert world.job("job-1")["Version"] == 3


def test_the_type_of_a_job_stays(world: World) -> None:
    world.register(job())
    with pytest.raises(Refused, match=r'^cannot update job from type "batch" to "service"$'):
        world.register(job(Type="service"))


def test_stopping_what_is_not_there_is_no_error(world: World) -> None:
    assert world.stop("nobody").eval_id == ""


def test_a_job_is_dead_before_its_task_is(world: World) -> None:
    world.register(job())
    world.report("job-1", "running")
    world.stop("job-1")
    assert world.job("job-1")["Status"] == "dead"
    alloc = world.allocs("job-1")[0]
    assert (alloc["DesiredStatus"], alloc["ClientStatus"]) == ("stop", "running")


def test_a_purge_takes_running_allocations_with_it(world: World) -> None:
    world.register(job())
    world.report("job-1", "running")
    world.take()
    world.stop("job-1", purge=True)
    assert world.take()[0] == "Job JobDeregistered running deleted"
    assert world.state.allocs == {}
    assert not world.state.nodes[NODE1].cpu, "what it held is free again"


def test_old_servers_delete_in_silence(tmp_path: Path) -> None:
    world = World(tmp_path, version="1.10.9")
    world.register(job())
    world.report("job-1", "complete")
    world.take()
    world.stop("job-1", purge=True)
    assert world.take() == ["Evaluation JobDeregistered pending", "Evaluation EvaluationUpdated complete"]
    collect.collect(world.region, world.now, force=True)
    assert world.take() == []


def test_whoever_waits_longest_gets_the_room(world: World) -> None:
    world.register(job("big", cpu=3900))
    for name in ("first", "second"):
        world.register(job(name, cpu=3000))
    assert [world.job(n)["Status"] for n in ("big", "first", "second")] == ["running", "pending", "pending"]
    world.report("big", "complete")
    assert [world.job(n)["Status"] for n in ("first", "second")] == ["running", "pending"]


def test_priority_comes_before_waiting(world: World) -> None:
    world.register(job("big", cpu=3900))
    world.register(job("first", cpu=3000))
    world.register(job("urgent", cpu=3000, Priority=90))
    world.report("big", "complete")
    assert world.job("urgent")["Status"] == "running"


def test_why_it_waits(world: World) -> None:
    world.register(job(cpu=9000))
    blocked = next(e for e in world.state.evals.values() if e["Status"] == "blocked")
    metrics = blocked["FailedTGAllocs"]["g"]
    assert metrics["DimensionExhausted"] == {"cpu": 1}
    assert metrics["NodesEvaluated"] == 1
    assert "QueuedAllocations" not in blocked


def test_a_lost_node_s_work_is_replaced_whatever_the_policy_says(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    nodes.set_eligibility(world.region, "00000000-0000-0000-0000-000000000002", "ineligible", world.now)
    world.register(job())
    nodes.set_eligibility(world.region, "00000000-0000-0000-0000-000000000002", "eligible", world.now)
    world.report("job-1", "running")
    world.region.away.add(NODE1)
    nodes.missed(world.region, NODE1, world.now)
    old, new = world.allocs("job-1")
    assert (old["ClientStatus"], old["NextAllocation"], new["PreviousAllocation"]) == ("lost", new["ID"], old["ID"])


def test_lost_after_only_delays_the_loss(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register(job(group={"Disconnect": {"LostAfter": 60 * 10**9, "Replace": False}}))
    world.report("job-1", "running")
    world.region.away.add(NODE1)
    nodes.missed(world.region, NODE1, world.now)
    assert world.allocs("job-1")[0]["ClientStatus"] == "unknown"
    world.wait(59)
    assert world.allocs("job-1")[0]["ClientStatus"] == "unknown"
    world.wait(2)
    assert world.allocs("job-1")[0]["ClientStatus"] == "lost"


def test_a_stop_while_disconnected_leaves_the_allocation_unknown(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register(job(group={"Disconnect": {"LostAfter": 60 * 10**9, "Replace": False}}))
    world.report("job-1", "running")
    world.region.away.add(NODE1)
    nodes.missed(world.region, NODE1, world.now)
    world.stop("job-1")
    alloc = world.allocs("job-1")[0]
    assert (alloc["DesiredStatus"], alloc["ClientStatus"]) == ("stop", "unknown")
    world.wait(30)
    assert len(world.allocs("job-1")) == 1


def test_a_drained_batch_job_ends_complete_and_is_not_replaced(world: World) -> None:
    world.register(job())
    world.report("job-1", "running")
    nodes.drain(world.region, NODE1, -1, False, world.now)
    nodes.set_eligibility(world.region, NODE1, "eligible", world.now)
    world.report("job-1", "complete")
    assert world.job("job-1")["Status"] == "dead"
    assert not world.job("job-1")["Stop"]
    assert len(world.allocs("job-1")) == 1


def test_a_failed_one_is_rescheduled_after_its_delay(world: World) -> None:
    world.register(
        job(group={"ReschedulePolicy": {"Attempts": 1, "Interval": 10**12, "Delay": 5 * 10**9, "Unlimited": False}})
    )
    world.report("job-1", "failed")
    assert world.job("job-1")["Status"] == "pending"
    world.wait(4.9)
    assert len(world.allocs("job-1")) == 1
    world.wait(0.2)
    assert len(world.allocs("job-1")) == 2
    world.report("job-1", "failed")
    assert world.job("job-1")["Status"] == "dead"


def test_finished_jobs_go_by_age(tmp_path: Path) -> None:
    world = World(tmp_path, gc_after_s=100, gc_interval_s=10)
    collect.schedule(world.region, world.now)
    world.register(job())
    world.report("job-1", "complete")
    world.wait(95)
    assert ("default", "job-1") in world.state.jobs
    world.wait(20)
    assert world.state.jobs == {} and world.state.allocs == {} and world.state.evals == {}


def test_finished_jobs_are_bounded_in_number(tmp_path: Path) -> None:
    world = World(tmp_path, max_finished_jobs=10)
    for number in range(600):
        world.register(job(f"job-{number}"))
        world.report(f"job-{number}", "complete")
    assert len(world.state.jobs) <= 10 + collect.BATCH
    assert "job-599" in {key[1] for key in world.state.jobs}


def test_a_plan_writes_nothing_and_tells_why_not(world: World) -> None:
    from services.embedded.agent.jobspec import canonical_job

    spec = job(Constraints=[{"LTarget": "${attr.kernel.name}", "Operand": "=", "RTarget": "windows"}])
    before = world.state.index
    answer = world.region.plan(canonical_job(spec, "site-a"), world.now)
    assert answer["FailedTGAllocs"]["g"]["ConstraintFiltered"] == {"${attr.kernel.name} = windows": 1}
    assert answer["FailedTGAllocs"]["g"]["NodesFiltered"] == 1
    assert world.state.index == before
    assert world.take() == []
    assert not world.state.nodes[NODE1].cpu


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "running", "complete", "failed", "stop", "purge", "wait", "gc"]), st.integers(0, 3)
    ),
    max_size=30,
)


def _take_step(world: World, what: str, job_id: str, number: int) -> None:
    if what == "register":
        world.register(job(job_id, cpu=1500, Meta={"n": str(number)}))
    elif what in ("running", "complete", "failed"):
        if world.allocs(job_id) and world.allocs(job_id)[-1]["ClientStatus"] in ("pending", "running"):
            world.report(job_id, what)
    elif what in ("stop", "purge"):
        world.stop(job_id, purge=what == "purge")
    elif what == "gc":
        collect.collect(world.region, world.now, force=True)
    else:
        world.wait(3)


@examples(60)
@given(STEPS)
def test_counts_always_match_the_rows_and_replay_gives_the_same_state(
    tmp_path_factory: Any, steps: list[tuple[str, int]]
) -> None:
    world = World(Path("/nonexistent"))
    first = State()
    first.load({"i": 1, "t": "NodeRegistration", "o": [["node", world.state.nodes[NODE1].row, None]]})
    records = []
    for number, (what, which) in enumerate(steps):
        _take_step(world, what, f"job-{which}", number)
        records += [json.loads(c.record) for c in world.state.take_commits() if c.record]
    for record in records:
        first.load(record)
    for state in (world.state, first):
        _check_counts(state)
    assert first.index == world.state.index
    for table in ("jobs", "evals", "allocs", "nodes"):
        assert getattr(first, table).keys() == getattr(world.state, table).keys()
    assert {i: a.row["ClientStatus"] for i, a in first.allocs.items()} == {
        i: a.row["ClientStatus"] for i, a in world.state.allocs.items()
    }


def _check_counts(state: State) -> None:
    """The counters that spare scans are what a scan would find."""
    for key, found in state.jobs.items():
        allocs = [a.row for a in state.allocs.values() if (a.row["Namespace"], a.row["JobID"]) == key]
        live = [
            a for a in allocs if a["DesiredStatus"] == "run" and a["ClientStatus"] not in ("complete", "failed", "lost")
        ]
        assert found.live == len(live)
        evals = [e for e in state.evals.values() if (e["Namespace"], e["JobID"]) == key]
        assert found.open == sum(e["Status"] in ("pending", "blocked") for e in evals)
        assert found.row["Status"] == found.status()
    held = [a.ask.cpu for a in state.allocs.values() if a.row["ClientStatus"] not in ("complete", "failed", "lost")]
    assert sum(node.cpu for node in state.nodes.values()) == sum(held)
