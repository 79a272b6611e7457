"""The life of an attempt, as histories: this was seen at the site, this is told."""

from typing import Any

import pytest

from services.monitor.attempts import IGNORED, TABLE, TOLD_LATE, AttemptRecord, Identity, found_again, observe, vanished
from shared.contracts.events import (
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptLost,
    AttemptPending,
    AttemptRunning,
)
from shared.contracts.reasons import ReasonCode
from shared.engine import PlacementFailure, Seen, TaskEventSeen, TaskSeen
from shared.job import ATTEMPT_OUTCOMES, AttemptStatus, FailureClass
from tests.builders import VO
from tests.unit.monitor.builders import allocation_seen, an_attempt, ended, evaluation_seen, full, job_seen, started

pytestmark = pytest.mark.fast

ONE = an_attempt()
S = AttemptStatus


class History:
    """One attempt, seen line by line."""

    def __init__(self) -> None:
        self.record = AttemptRecord(Identity(ONE, VO, "prague", "prague", "default"))
        self.told: list[AttemptEvent] = []
        self.index = 0

    def line(self, *seen: Seen) -> "History":
        self.record, events = observe(self.record, seen)
        self.told += events
        return self

    def job(self, status: str = "running", **fields: Any) -> "History":
        self.index += 1
        return self.line(job_seen(ONE, self.index, status, **fields))

    def allocation(self, client: str, job: str | None = None, **fields: Any) -> "History":
        """A change of the allocation, in one line with the job's status if one is given."""
        self.index += 1
        also = [job_seen(ONE, self.index, job, type=fields.pop("type", "batch"))] if job else []
        return self.line(allocation_seen(ONE, self.index, client, **fields), *also)

    @property
    def statuses(self) -> list[str]:
        return [event.status.value for event in self.told]

    @property
    def end(self) -> AttemptEnded:
        last = self.told[-1]
        assert isinstance(last, AttemptEnded)
        return last

    @property
    def failure(self) -> FailureClass:
        assert isinstance(self.end, AttemptFailed)
        return self.end.failure


def running() -> History:
    return History().job().allocation("running", tasks=(started(),))


# -- the table ----------------------------------------------------------------------------------------------------


def test_every_pair_is_decided_once() -> None:
    pairs = [*TABLE, *TOLD_LATE, *IGNORED]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(before, after) for before in (None, *S) for after in S}


def test_outcomes_never_change() -> None:
    assert not [before for before, _ in TABLE if before in ATTEMPT_OUTCOMES]


# -- ends ---------------------------------------------------------------------------------------------------------


def test_complete_with_exit_code_0_and_nothing_that_killed_it_is_success() -> None:
    history = running().allocation("complete", "dead", tasks=(ended(),))
    assert history.statuses == ["pending", "running", "succeeded"]
    assert history.end.exit_code == 0 and history.end.reason and history.end.reason.code is ReasonCode.COMPLETED
    assert history.end.started_at and history.end.finished_at and history.end.finished_at > history.end.started_at


@pytest.mark.parametrize(
    ("fields", "status", "failure"),
    [
        ({"desired_status": "stop"}, S.STOPPED, None),
        ({"desired_status": "stop", "migrating": True}, S.FAILED, FailureClass.DRAINED),
        ({"desired_status": "stop", "desired_description": "alloc is being migrated"}, S.FAILED, FailureClass.DRAINED),
        ({"desired_status": "evict"}, S.FAILED, FailureClass.EVICTED),
        ({"desired_status": "stop", "preempted": True}, S.FAILED, FailureClass.EVICTED),
        ({"timeout": True}, S.FAILED, FailureClass.TIMEOUT),
        ({"client_description": "allocation exceeded max_run_duration"}, S.FAILED, FailureClass.TIMEOUT),
        ({"tasks": (ended(0, killed=True),)}, S.FAILED, FailureClass.UNKNOWN),
        ({"tasks": (ended(130, killed=True),)}, S.FAILED, FailureClass.UNKNOWN),
        ({"tasks": ()}, S.FAILED, FailureClass.UNKNOWN),
        ({"tasks": (ended(0), ended(1))}, S.FAILED, FailureClass.TASK_ERROR),
    ],
)
def test_complete_alone_says_nothing(fields: dict[str, Any], status: S, failure: FailureClass | None) -> None:
    history = running().allocation("complete", "dead", **({"tasks": (ended(),)} | fields))
    assert history.end.status is status
    assert failure is None or history.failure is failure


def test_a_task_that_ran_and_whose_end_nobody_saw_is_lost() -> None:
    """Its machine died, or the agent's helper that would have told: exit code -1 at the agent."""
    history = running().allocation("failed", "dead", tasks=(ended(-1),))
    assert history.end.status is S.LOST and history.end.exit_code is None
    assert history.end.reason and history.end.reason.code is ReasonCode.NODE_LOST


def test_a_task_that_was_to_be_stopped_and_whose_end_nobody_saw_is_stopped() -> None:
    history = running().allocation("failed", "dead", desired_status="stop", tasks=(ended(-1, killed=True),))
    assert history.end.status is S.STOPPED


def test_a_drained_attempt_that_was_done_before_the_end_of_the_drain_has_succeeded() -> None:
    history = running().allocation("complete", "dead", migrating=True, tasks=(ended(),))
    assert history.end.status is S.SUCCEEDED


@pytest.mark.parametrize(
    ("task", "failure"),
    [
        (ended(3), FailureClass.TASK_ERROR),
        (ended(137, signal=9), FailureClass.TASK_ERROR),
        (ended(137, signal=9, oom=True), FailureClass.OUT_OF_MEMORY),
        (TaskSeen("main", "dead", True), FailureClass.START_FAILURE),
        (
            TaskSeen("main", "dead", True, events=(TaskEventSeen("Driver Failure", 1, {"driver_error": "no binary"}),)),
            FailureClass.START_FAILURE,
        ),
        (
            TaskSeen(
                "main", "dead", True,
                events=(TaskEventSeen("Driver Failure", 1, {"driver_error": "Failed to pull `x:1`: API error"}),),
            ),
            FailureClass.IMAGE_OR_ARTIFACT,
        ),
        (
            TaskSeen("main", "dead", True, events=(TaskEventSeen("Failed Artifact Download", 1),)),
            FailureClass.IMAGE_OR_ARTIFACT,
        ),
    ],
)  # fmt: skip
def test_what_ended_by_itself_is_classed_by_its_last_life(task: TaskSeen, failure: FailureClass) -> None:
    assert running().allocation("failed", "dead", tasks=(task,)).failure is failure


def test_a_signal_is_told_with_its_exit_code() -> None:
    end = running().allocation("failed", "dead", tasks=(ended(137, signal=9),)).end
    assert (end.exit_code, end.signal) == (137, 9)
    assert end.reason and "signal 9" in end.reason.message


def test_the_first_verdict_stands_when_nomad_forgets_why() -> None:
    """After a restart of the agent the same allocation came again without its `Timeout`."""
    history = running().allocation("complete", "dead", timeout=True, tasks=(ended(130, killed=True),))
    history.allocation("complete", tasks=(ended(130, killed=True),))
    assert history.statuses[-1] == "failed" and history.failure is FailureClass.TIMEOUT


def test_a_failed_evaluation_is_no_failed_attempt() -> None:
    history = running()
    history.line(evaluation_seen(ONE, 9, "failed", status_description="maximum attempts reached (2)"))
    assert history.statuses == ["pending", "running"]


def test_stopped_before_it_was_placed() -> None:
    assert History().job("pending").job("dead", stop=True).statuses == ["pending", "stopped"]


def test_dead_without_a_word_how_is_not_told() -> None:
    assert History().job("dead").statuses == []


# -- waiting for a place ------------------------------------------------------------------------------------------


def test_the_reason_for_waiting_is_told_and_told_again_only_when_it_becomes_another() -> None:
    history = History().job("pending")
    history.line(evaluation_seen(ONE, 2, "blocked", failures=full("cpu")))
    history.line(evaluation_seen(ONE, 3, "complete", id="e2", blocked_eval="e1", failures=full("memory")))
    ruled_out = {"main": PlacementFailure(constraint_filtered={"${attr.kernel.name} = windows": 1})}
    history.line(evaluation_seen(ONE, 4, "blocked", failures=ruled_out))
    reasons = [event.reason and event.reason.code for event in history.told if isinstance(event, AttemptPending)]
    assert reasons == [None, ReasonCode.WAITING_FOR_ROOM, ReasonCode.NO_SITE_FITS]


# -- the node is away ---------------------------------------------------------------------------------------------


def test_disconnected_and_back() -> None:
    history = running().allocation("unknown", modify_time=1_763_985_600_000_000_000)
    assert history.told[-1].since is not None  # type: ignore[attr-defined]
    history.allocation("running", tasks=(started(),))
    assert history.statuses == ["pending", "running", "disconnected", "running"]


def test_lost_is_final_and_what_comes_later_is_told_once() -> None:
    history = running().allocation("lost", desired_status="stop")
    history.allocation("running", desired_status="stop", tasks=(started(),))
    history.allocation("complete", desired_status="stop", tasks=(ended(130, killed=True),))
    history.allocation("complete", tasks=(ended(),))
    assert history.statuses == ["pending", "running", "lost", "stopped"]
    assert history.record.status is S.LOST and history.record.late is S.STOPPED


def test_a_batch_that_nomad_replaced_on_another_node_is_lost_all_the_same() -> None:
    history = running()
    lost = allocation_seen(ONE, 9, "lost", desired_status="stop", next_allocation="b")
    history.line(lost, allocation_seen(ONE, 9, id="b", create_index=9))
    history.line(allocation_seen(ONE, 10, "running", id="b", create_index=9, tasks=(started(),)))
    assert history.statuses == ["pending", "running", "lost"]


# -- services -----------------------------------------------------------------------------------------------------


def service() -> History:
    ports = (("http", "127.0.0.1", 20_001),)
    return History().job(type="service").allocation("running", tasks=(started(),), ports=ports)


def test_a_service_tells_where_it_answers() -> None:
    told = service().told[-1]
    assert isinstance(told, AttemptRunning)
    assert [(e.name, e.address) for e in told.endpoints] == [("http", "127.0.0.1:20001")]


def test_a_service_that_nomad_moves_is_one_attempt() -> None:
    history = service()
    old = {"desired_status": "stop", "migrating": True, "next_allocation": "b"}
    new = {"id": "b", "create_index": 3, "previous_allocation": "a"}
    history.line(allocation_seen(ONE, 3, "running", **old), allocation_seen(ONE, 3, "pending", **new))
    history.line(allocation_seen(ONE, 4, "complete", tasks=(ended(130, killed=True),), **old))
    history.line(allocation_seen(ONE, 5, "running", tasks=(started(),), **new))
    assert history.statuses == ["pending", "running", "starting", "running"]


def test_a_service_has_failed_only_when_nomad_has_given_up() -> None:
    history = service().allocation("failed", "pending", type="service", tasks=(ended(1),))
    assert history.statuses[-1] == "pending"
    history.job("dead", type="service")
    assert history.statuses[-1] == "failed" and history.failure is FailureClass.TASK_ERROR


def test_of_a_job_that_was_never_seen_an_end_is_not_believed_yet() -> None:
    history = History().line(allocation_seen(ONE, 1, "failed", tasks=(ended(1),)))
    assert history.statuses == []
    assert history.line(job_seen(ONE, 1, "dead")).statuses == ["failed"]


# -- gone ---------------------------------------------------------------------------------------------------------


def test_deleted_is_a_doubt_until_it_is_proven() -> None:
    history = running().job("running", deleted=True)
    assert history.record.in_doubt and history.record.status is S.RUNNING
    assert not found_again(history.record).in_doubt
    record, events = vanished(history.record)
    assert record.status is S.LOST and isinstance(events[0], AttemptLost) and events[0].vanished


def test_an_ended_attempt_cannot_vanish() -> None:
    history = running().allocation("complete", "dead", tasks=(ended(),)).job("dead", deleted=True)
    assert not history.record.in_doubt
    assert vanished(history.record) == (history.record, ())


def test_a_tombstone_over_a_running_attempt_means_that_it_is_gone() -> None:
    history = running().job("dead", stop=True, meta={"serai_tombstone": "1"})
    assert history.statuses[-1] == "lost" and history.end.reason and history.end.reason.code is ReasonCode.VANISHED


# -- twice and late -----------------------------------------------------------------------------------------------


def test_an_older_sight_never_moves_it_back() -> None:
    history = running()
    history.line(allocation_seen(ONE, 1, "pending")).line(job_seen(ONE, 1, "pending"))
    assert history.statuses == ["pending", "running"]


def test_two_lines_of_one_index_the_job_was_opened_again() -> None:
    history = History().job("pending").line(job_seen(ONE, 2, "dead", stop=True))
    assert history.statuses == ["pending", "stopped"]
    fresh = (
        History().job("pending").line(job_seen(ONE, 2, "pending", stop=True)).line(job_seen(ONE, 2, "dead", stop=True))
    )
    assert fresh.statuses == ["pending"]
