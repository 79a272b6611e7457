"""Where work fits, and Nomad's numbers for why it does not."""

from pathlib import Path
from typing import Any

import pytest

from services.embedded.agent import AgentSettings, fingerprint
from services.embedded.agent.entities import Ask, Node
from services.embedded.agent.jobspec import Row, canonical_job
from services.embedded.agent.placement import PortPolicy, constraint_holds, select
from tests.unit.agent.builders import job


def node(**settings: Any) -> Node:
    given = AgentSettings(name="n", region="r", data_dir=Path("/nowhere"), **settings)
    return Node({**fingerprint.node_row(given, "id-1", "n", "127.0.0.1:1"), "Status": "ready"})


def choose(spec: dict[str, Any], *nodes: Node, policy: PortPolicy | None = None) -> tuple[Any, Row]:
    canonical = canonical_job(spec, "r")
    choice, metrics = select(canonical, canonical["TaskGroups"][0], nodes, policy or PortPolicy())
    return choice, metrics.row()


def test_an_unknown_datacenter_is_no_node_at_all() -> None:
    choice, metrics = choose(job(Datacenters=["nope"]), node())
    assert choice is None
    assert (metrics["NodesEvaluated"], metrics["NodesInPool"], metrics["NodesAvailable"]) == (0, 0, {})


def test_a_missing_driver_filters() -> None:
    choice, metrics = choose(job(driver="docker"), node())
    assert choice is None
    assert metrics["ConstraintFiltered"] == {"missing drivers": 1}


@pytest.mark.parametrize("change", [{"Status": "down"}, {"SchedulingEligibility": "ineligible"}, {"NodePool": "other"}])
def test_nodes_out_of_reach(change: Row) -> None:
    away = node()
    away.row = {**away.row, **change}
    choice, metrics = choose(job(), away)
    assert choice is None
    assert metrics["NodesEvaluated"] == 0


@pytest.mark.parametrize(
    ("resources", "dimension"), [({"CPU": 5000, "MemoryMB": 20}, "cpu"), ({"CPU": 1, "MemoryMB": 5000}, "memory")]
)
def test_a_full_dimension_is_named(resources: Row, dimension: str) -> None:
    choice, metrics = choose(job(task={"Resources": resources}), node())
    assert choice is None
    assert metrics["DimensionExhausted"] == {dimension: 1}
    assert metrics["NodesExhausted"] == 1


def test_the_fuller_node_is_taken() -> None:
    empty, used = node(), node()
    used.row = {**used.row, "ID": "id-2"}
    used.take(Ask(cpu=1000, memory=500), 1)
    choice, metrics = choose(job(), empty, used)
    assert choice.node is used
    assert [row["NodeID"] for row in metrics["ScoreMetaData"]] == ["id-1", "id-2"]


def test_the_score_is_nomads() -> None:
    """The same node and task as in the recording batch-success."""
    _, metrics = choose(job(), node())
    assert metrics["ScoreMetaData"][0]["Scores"]["binpack"] == pytest.approx(0.028115167281213733)


def test_gpus_are_counted() -> None:
    spec = job(task={"Resources": {"CPU": 1, "MemoryMB": 10, "Devices": [{"Name": "nvidia/gpu", "Count": 2}]}})
    with_gpus = node(gpus=(("nvidia", "gpu", "A100", 3),))
    choice, _ = choose(spec, with_gpus)
    assert choice.ask.devices == {"nvidia/gpu/A100": 2}
    with_gpus.take(choice.ask, 1)
    choice, metrics = choose(spec, with_gpus)
    assert choice is None
    assert metrics["DimensionExhausted"] == {"devices: no devices match request": 1}
    _, metrics = choose(spec, node())
    assert metrics["ConstraintFiltered"] == {"missing devices": 1}


def test_ports_are_distinct_and_free() -> None:
    ports = {
        "Networks": [
            {"DynamicPorts": [{"Label": "a"}, {"Label": "b", "To": -1}], "ReservedPorts": [{"Label": "s", "Value": 99}]}
        ]
    }
    host = node()
    choice, _ = choose(job(group=ports), host, policy=PortPolicy(20000, 20003, 0, lambda port: port != 20001))
    values = {port["Label"]: port["Value"] for port in choice.ports}
    assert values == {"s": 99, "a": 20000, "b": 20002}
    assert [port["To"] for port in choice.ports if port["Label"] == "b"] == [20002]
    host.take(choice.ask, 1)
    _, metrics = choose(job(group=ports), host)
    assert metrics["DimensionExhausted"] == {"network: reserved port collision s=99": 1}
    dynamic = {"Networks": [{"DynamicPorts": [{"Label": "a"}, {"Label": "b"}]}]}
    _, metrics = choose(job(group=dynamic), host, policy=PortPolicy(20000, 20002, 0, lambda port: port != 20001))
    assert metrics["DimensionExhausted"] == {"network: dynamic port selection failed": 1}


@pytest.mark.parametrize(
    ("left", "operand", "right", "holds"),
    [
        ("${attr.kernel.name}", "=", "linux", True),
        ("${attr.kernel.name}", "!=", "linux", False),
        ("${meta.zone}", "=", "a1", True),
        ("${meta.absent}", "=", "a1", False),
        ("${meta.absent}", "!=", "a1", True),
        ("${meta.absent}", "is_set", "", False),
        ("${meta.absent}", "is_not_set", "", True),
        ("${meta.zone}", "regexp", "^a[0-9]$", True),
        ("${attr.nomad.version}", "version", ">= 1.10, < 3.0", True),
        ("${attr.nomad.version}", "version", "~> 2.0", True),
        ("${attr.nomad.version}", "version", "< 2.0", False),
        ("${meta.kinds}", "set_contains", "x,y", True),
        ("${meta.kinds}", "set_contains", "x,q", False),
        ("${meta.kinds}", "set_contains_any", "q,z", True),
        ("${meta.number}", ">", "9", True),
        ("${node.datacenter}", "=", "dc1", True),
        ("${node.unique.id}", "=", "id-1", True),
        ("", "distinct_hosts", "true", True),
    ],
)
def test_constraints(left: str, operand: str, right: str, holds: bool) -> None:
    row = node(node_meta={"zone": "a1", "kinds": "x, y, z", "number": "10"}).row
    assert constraint_holds({"LTarget": left, "Operand": operand, "RTarget": right}, row) is holds
