"""Every line that a real agent sent can be read, and what it says is what we see."""

from pathlib import Path

import orjson
import pytest

from shared.adapters.nomad.parsing import allocation_of, line_of, node_of, used_by
from shared.engine import AllocationSeen, EvaluationSeen, Heartbeat, JobSeen, Line, NodeSeen, Seen

pytestmark = pytest.mark.fast

RECORDINGS = Path(__file__).parents[2] / "recordings"
TOPICS = {"Allocation": AllocationSeen, "Evaluation": EvaluationSeen, "Job": JobSeen, "Node": NodeSeen}


def lines_of(scenario: str) -> list[Line]:
    raw = (RECORDINGS / f"{scenario}.ndjson").read_bytes().splitlines()
    return [line for one in raw if isinstance(line := line_of(one), Line)]


def seen_in(scenario: str) -> list[Seen]:
    return [one for line in lines_of(scenario) for one in line.seen]


def last_allocation(scenario: str) -> AllocationSeen:
    return [one for one in seen_in(scenario) if isinstance(one, AllocationSeen)][-1]


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.ndjson")), ids=lambda path: path.stem)
def test_every_recorded_event_of_our_topics_is_seen(recording: Path) -> None:
    for raw in recording.read_bytes().splitlines():
        told = orjson.loads(raw)
        kinds = [TOPICS[event["Topic"]] for event in told["Events"] if event["Topic"] in TOPICS]
        line = line_of(raw)
        assert isinstance(line, Line)
        assert line.index == told["Index"]
        assert [type(one) for one in line.seen] == kinds


def test_a_heartbeat_is_an_empty_object() -> None:
    assert line_of(b"{}") == Heartbeat()


@pytest.mark.parametrize("raw", [b"", b"Permission denied", b"[]", b"3", b'{"Index":1', b'{"Events":[{}],"Index":1}'])
def test_what_is_not_a_line_of_nomad_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        line_of(raw)


def test_success_ends_complete_with_exit_code_zero_as_text() -> None:
    found = last_allocation("batch-success")
    (task,) = found.tasks
    assert (found.client_status, found.desired_status, task.state) == ("complete", "run", "dead")
    assert task.events[-1].type == "Terminated"
    assert task.events[-1].details["exit_code"] == "0"


def test_a_task_that_never_started_has_no_time_of_start() -> None:
    (task,) = last_allocation("driver-failure").tasks
    assert task.started_at is None
    assert task.failed
    assert "driver_error" in next(event for event in task.events if event.type == "Driver Failure").details


def test_the_end_by_nomads_time_limit_is_marked() -> None:
    found = last_allocation("max-run-duration")
    assert found.client_status == "complete"
    assert found.timeout
    assert found.timeout_reason


def test_a_drain_marks_the_allocation_as_migrating() -> None:
    assert any(isinstance(one, AllocationSeen) and one.migrating for one in seen_in("node-drain"))


def test_blocked_evaluations_say_what_is_missing() -> None:
    blocked = [one for one in seen_in("blocked-then-unblocked") if isinstance(one, EvaluationSeen) and one.failures]
    assert any(failure.dimension_exhausted == {"cpu": 1} for one in blocked for failure in one.failures.values())
    constrained = [one for one in seen_in("blocked-constraint") if isinstance(one, EvaluationSeen) and one.failures]
    assert any(failure.constraint_filtered for one in constrained for failure in one.failures.values())


def test_deletions_are_seen() -> None:
    assert any(isinstance(one, JobSeen) and one.deleted for one in seen_in("purge-running"))


def test_a_lost_node_is_seen_going_and_its_work_is_replaced() -> None:
    seen = seen_in("node-lost-default")
    assert any(isinstance(one, NodeSeen) and one.status == "down" for one in seen)
    assert any(isinstance(one, AllocationSeen) and one.client_status == "lost" and one.next_allocation for one in seen)
    assert any(isinstance(one, AllocationSeen) and one.previous_allocation for one in seen)


def test_a_nodes_capacity_is_its_resources_less_what_it_reserves() -> None:
    node = node_of(
        {
            "ID": "n",
            "Name": "node",
            "Status": "ready",
            "SchedulingEligibility": "eligible",
            "NodeResources": {
                "Cpu": {"CpuShares": 4000},
                "Memory": {"MemoryMB": 2048},
                "Disk": {"DiskMB": 100},
                "Devices": [
                    {"Vendor": "nvidia", "Type": "gpu", "Name": "A100", "Instances": [{"Healthy": True}, {}]},
                    {"Vendor": "intel", "Type": "fpga", "Name": "F1", "Instances": [{"Healthy": True}]},
                ],
            },
            "ReservedResources": {"Cpu": {"CpuShares": 500}, "Memory": None},
            "Drivers": {"raw_exec": {"Healthy": True}, "docker": {"Healthy": False}, "java": None},
        },
    )
    assert node.capacity is not None
    assert (node.capacity.cpu_mhz, node.capacity.memory_mib, node.capacity.disk_mib) == (3500, 2048, 100)
    assert [(gpu.model, gpu.count) for gpu in node.capacity.gpus] == [("nvidia/gpu/A100", 1)]
    assert node.capacity.drivers == ("raw_exec",)


def test_an_absent_key_is_a_zero() -> None:
    found = allocation_of({"ID": "a", "JobID": "j"})
    assert (found.namespace, found.client_status, found.desired_status, found.tasks) == (
        "default",
        "pending",
        "run",
        (),
    )


def test_only_work_whose_client_is_not_done_holds_resources() -> None:
    held = {"Shared": {"DiskMB": 30}, "Tasks": {"a": {"Cpu": {"CpuShares": 1}, "Memory": {"MemoryMB": 2}}, "b": None}}
    assert used_by({"ClientStatus": "running", "AllocatedResources": held}) == (1, 2, 30)
    assert used_by({"ClientStatus": "unknown", "AllocatedResources": held}) == (1, 2, 30)
    assert used_by({"ClientStatus": "complete", "AllocatedResources": held}) == (0, 0, 0)
    assert allocation_of({"ID": "a", "JobID": "j", "ClientStatus": "running", "AllocatedResources": held}).uses == (
        1, 2, 30,
    )  # fmt: skip


def test_ports_are_label_host_and_number() -> None:
    shared = {"Shared": {"Ports": [{"Label": "http", "HostIP": "127.0.0.1", "Value": 21000, "To": 0}]}}
    assert allocation_of({"ID": "a", "JobID": "j", "AllocatedResources": shared}).ports == (
        ("http", "127.0.0.1", 21000),
    )
