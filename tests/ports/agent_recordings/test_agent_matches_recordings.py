"""Proof that the embedded agent tells what a real Nomad told: the same (topic, type, statuses) in the same order.

Every scenario runs the recorded job files and actions against an embedded agent and compares, job by job, with the
recording of Nomad 2.0.6 (tests/recordings, README in the design references). All scenarios run at the same time,
each at an agent of its own.

What may differ is in `OPTIONAL`, and nothing else is left out but:
- an allocation update that repeats the statuses known before (it brings task events only; when it comes depends on the
  client's ticks of 200 ms and 1 s);
- Node events of type AllocationUpdated, which accompany every client update.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.ports.agent_recordings import scenarios
from tests.ports.agent_recordings.harness import Line, Signature, jobs_of, node_sequence, recorded, sequence

SCENARIOS: dict[str, tuple[scenarios.Act, int]] = {
    "batch-success": (scenarios.to_the_end, 1),
    "batch-success-fast": (scenarios.to_the_end, 1),
    "batch-exit3": (scenarios.to_the_end, 1),
    "killed-137": (scenarios.to_the_end, 1),
    "driver-failure": (scenarios.to_the_end, 1),
    "artifact-failure": (scenarios.to_the_end, 1),
    "max-run-duration": (scenarios.to_the_end, 1),
    "batch-restart-reschedule": (scenarios.to_the_end, 1),
    "batch-count3-one-fails": (scenarios.to_the_end, 1),
    "blocked-then-unblocked": (scenarios.blocked_then_unblocked, 1),
    "blocked-stop": (scenarios.blocked_stop, 1),
    "blocked-constraint": (scenarios.blocked_purge, 1),
    "stop-running": (scenarios.stop_running, 1),
    "stop-running-clean": (scenarios.stop_running, 1),
    "purge-finished": (scenarios.purge_finished, 1),
    "purge-running": (scenarios.purge_running, 1),
    "service-running": (scenarios.service_running, 1),
    "system-gc": (scenarios.system_gc, 1),
    "node-drain": (scenarios.node_drain, 1),
    "node-drain-two-nodes": (scenarios.node_drain_two_nodes, 2),
    "node-lost-default": (scenarios.node_lost, 2),
    "node-disconnect": (scenarios.node_disconnect, 2),
    "node-disconnect-expired": (scenarios.node_disconnect_expired, 2),
}
RESTARTS = {"agent-restart-graceful": signal.SIGINT, "agent-restart-kill9": signal.SIGKILL}

PENDING = ("Allocation", "AllocationUpdated", "run", "pending")
NODE_UPDATE = ("Evaluation", "EvaluationUpdated")

OPTIONAL: list[tuple[str, Callable[[Signature], bool], str]] = [
    (
        "*",
        lambda s: s[:4] == PENDING,
        "a slow start shows the allocation pending once more (Received, Task Setup); a quick one does not",
    ),
    (
        "batch-success-fast",
        lambda s: s[0] == "Allocation" and "running" in s,
        "a task shorter than a tick may or may not be seen running",
    ),
    (
        "node-drain-two-nodes",
        lambda s: s[:4] == ("Allocation", "AllocationUpdated", "run", "running"),
        "old and new allocation are on two nodes: whether the new start or the old end is told first is timing",
    ),
    (
        "node-disconnect",
        lambda s: (
            (s[0] == "Evaluation" and s[-1] in ("node-update", "max-plan-attempts"))
            or s[-2:] == ("failed", "reconnect")
        ),
        "how often a returning node's status is evaluated, and whether two of these evaluations collide, is timing",
    ),
    (
        "node-disconnect",
        lambda s: (
            s[-2:] in (("pending", "reconnect"), ("complete", "reconnect"))
            or s[:4] == ("Allocation", "PlanResult", "run", "running")
        ),
        "in the recording one of three reconnect evaluations lost such a collision and node-update did its work",
    ),
    (
        "node-disconnect-expired",
        lambda s: s[:4] == ("Allocation", "PlanResult", "stop", "complete"),
        "Nomad's stop plan rewrites the unchanged row of an allocation that was lost and has ended since",
    ),
]


def optional_in(scenario: str) -> Callable[[Signature], bool]:
    """The rule for what may differ in one scenario."""
    rules = [rule for name, rule, _ in OPTIONAL if name in ("*", scenario)]
    return lambda made: any(rule(made) for rule in rules)


Runs = dict[str, tuple[list[Line], list[Line]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All scenarios at once; the longest decides how long it takes."""
    root: Path = tmp_path_factory.mktemp("agents")

    async def plain(name: str) -> tuple[str, tuple[list[Line], list[Line]]]:
        act, nodes = SCENARIOS[name]
        return name, (await scenarios.run(act, name, root / name, nodes), [])

    async def restarted(name: str) -> tuple[str, tuple[list[Line], list[Line]]]:
        return name, await scenarios.restart(name, root / name, RESTARTS[name])

    work = [*(plain(name) for name in SCENARIOS), *(restarted(name) for name in RESTARTS)]
    done = await asyncio.gather(*work, return_exceptions=True)
    names = [*SCENARIOS, *RESTARTS]
    for name, result in zip(names, done, strict=True):
        if isinstance(result, BaseException):
            raise AssertionError(f"scenario {name} did not come to its end") from result
    return dict(result for result in done if not isinstance(result, BaseException))


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_each_job_tells_what_it_told_at_nomad(runs: Runs, scenario: str) -> None:
    ours, _ = runs[scenario]
    theirs = recorded(scenario)
    for job in jobs_of(scenario):
        skip = optional_in(scenario)
        assert sequence(ours, job["ID"], skip) == sequence(theirs, job["ID"], skip), job["ID"]


@pytest.mark.parametrize(
    "scenario", ["batch-success", "stop-running", "blocked-then-unblocked", "purge-running", "batch-exit3"]
)
async def test_events_share_their_lines_as_at_nomad(runs: Runs, scenario: str) -> None:
    """Which events come in one line (one transaction) is the same, too."""
    job = jobs_of(scenario)[0]["ID"]
    skip = optional_in(scenario)

    def grouped(lines: list[Line]) -> list[list[Signature]]:
        return [made for line in lines if (made := sequence([line], job, skip))]

    ours, theirs = grouped(runs[scenario][0]), grouped(recorded(scenario))
    assert Counter(map(tuple, ours)) == Counter(map(tuple, theirs))


@pytest.mark.parametrize(
    ("scenario", "node"),
    [
        ("node-drain", ""),
        ("node-lost-default", "node1"),
        ("node-disconnect", "node1"),
        ("node-disconnect-expired", "node1"),
    ],
)
async def test_nodes_go_through_the_same_states(runs: Runs, scenario: str, node: str) -> None:
    """Repeated registrations of the real client (fingerprints that came later) are left out."""
    ours, theirs = (
        [s for s in node_sequence(lines, node) if s[1] != "NodeRegistration"]
        for lines in (runs[scenario][0], recorded(scenario))
    )
    assert ours == theirs


@pytest.mark.parametrize("scenario", RESTARTS)
async def test_tasks_and_stream_survive_the_agent(runs: Runs, scenario: str) -> None:
    before, after = runs[scenario]
    theirs = recorded(scenario) + recorded(f"{scenario}.reconnect1")[1:]
    assert after[0]["Index"] == before[-1]["Index"], "the resume must deliver the last line again"
    for job in jobs_of(scenario):
        skip = optional_in(scenario)
        assert sequence(before + after[1:], job["ID"], skip) == sequence(theirs, job["ID"], skip), job["ID"]


@pytest.mark.parametrize("scenario", ["batch-success", "service-running", "blocked-then-unblocked"])
async def test_payloads_have_the_keys_of_nomads(runs: Runs, scenario: str) -> None:
    """Absent keys mean zero: a reader written against Nomad must find the same ones here."""
    ours, theirs = _keys(runs[scenario][0]), _keys(recorded(scenario))
    for topic in ("Job", "Evaluation", "Allocation", "Deployment"):
        left_out = {"SigningKeyID", "ClassEligibility"}
        assert theirs[topic] - ours[topic] - left_out == set(), topic


def _keys(lines: list[Line]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {
        "Job": set(),
        "Evaluation": set(),
        "Allocation": set(),
        "Deployment": set(),
        "Node": set(),
    }
    for line in lines:
        for event in line["Events"]:
            found[event["Topic"]] |= set(event["Payload"][event["Topic"]])
    return found
